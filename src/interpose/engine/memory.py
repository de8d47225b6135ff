"""What to say where memory ran out."""

import torch

LESS = (
    "Memory ran out. Hold less at once: fewer prompts in a batch; shorter prompts; fewer saved sites, or only the "
    "positions that are needed (site[:, -1].save()); a smaller number type (ip.load(name, dtype='bfloat16'))."
)
"""What can be lowered."""

_ON_CPU = ("can't allocate memory", "not enough memory")


def is_out_of_memory(error: BaseException | None) -> bool:
    """Whether an error says that memory ran out, on an accelerator or on the CPU, for which torch has no class."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and any(text in str(error) for text in _ON_CPU)
