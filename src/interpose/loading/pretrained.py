"""Read a network and its tokenizer with transformers: from its hub or from a folder that it wrote."""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoTokenizer
from transformers.utils import logging

from interpose.errors import LoadError
from interpose.loading.heads import auto_class
from interpose.loading.placement import Placement


def network(where: str | Path, placement: Placement, local: bool) -> torch.nn.Module:
    """The stock network, in eval mode, its parameters frozen.

    Only safetensors are read and no code that comes with a model is run.

    Args:
        where: a folder, or `org/name` on the hub.
        placement: number type and device.
        local: never ask the hub.

    Returns:
        a transformers model.

    Raises:
        LoadError: some weights are not in its files (transformers would make them up at random).
    """
    wishes: dict[str, Any] = {"local_files_only": local, "trust_remote_code": False, "use_safetensors": True}
    if placement.dtype is not None:
        wishes["dtype"] = placement.dtype
    if placement.device_map is not None:
        wishes["device_map"] = placement.device_map
    with _silent() if local else nullcontext():
        config = AutoConfig.from_pretrained(where, local_files_only=local, trust_remote_code=False)
        pair: Any = auto_class(config).from_pretrained(where, output_loading_info=True, **wishes)
    loaded, report = pair
    missing = sorted(report["missing_keys"])
    if missing:
        raise LoadError(
            f"The files of {where} lack {len(missing)} weights of a {type(loaded).__name__}, for example {missing[0]}. "
            "It may be another kind of network: load it yourself and write ip.wrap(network, tokenizer)."
        )
    loaded.eval().requires_grad_(False)
    return loaded if placement.device is None else loaded.to(placement.device)


def tokenizer(where: str | Path, local: bool) -> Any:
    """Its tokenizer, as transformers gives it."""
    return AutoTokenizer.from_pretrained(where, local_files_only=local, trust_remote_code=False)


def reason(error: Exception) -> str:
    """The first line of a library's error, as the end of a sentence of ours."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (lines[0] if lines else type(error).__name__).rstrip(".:")


@contextmanager
def _silent() -> Iterator[None]:
    # No bar for what takes a fifth of a second.
    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()
