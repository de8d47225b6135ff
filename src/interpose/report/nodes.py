"""What the parts of a circuit are called, and where they stand in the stream.

``input``, ``a9.h6`` (head 6 of layer 9), ``m9`` (the MLP of layer 9) and ``logits``. As the end of an edge a head also
says through which input it is reached: ``a9.h6<q>``.
"""

import re
from dataclasses import dataclass
from typing import Literal

_HEAD = re.compile(r"a(\d+)\.h(\d+)(?:<([qkv])>)?")
_GROUP = re.compile(r"a\d+\.kv\d+<[kv]>")
_MLP = re.compile(r"m(\d+)")


@dataclass(frozen=True)
class Node:
    """One part of the model that writes to the stream, or the logits that read it.

    Attributes:
        kind: What sort of part it is.
        layer: Its layer; -1 where it has none.
        head: Its head; -1 where it is none.
    """

    kind: Literal["input", "head", "mlp", "logits"]
    layer: int = -1
    head: int = -1

    @property
    def name(self) -> str:
        """The full name: ``a9.h6``, ``m9``, ``input``, ``logits``."""
        return f"a{self.layer}.h{self.head}" if self.kind == "head" else self.label

    @property
    def label(self) -> str:
        """The short name used in figures: ``9.6``, ``m9``, ``input``, ``logits``."""
        return {"head": f"{self.layer}.{self.head}", "mlp": f"m{self.layer}"}.get(self.kind, self.kind)

    @property
    def depth(self) -> tuple[int, int]:
        """Orders parts from the input to the logits; heads of one layer are equal."""
        if self.kind == "logits":
            return (1 << 30, 0)
        return (self.layer, 1 if self.kind == "mlp" else 0)


def parse(name: str) -> tuple[Node, str]:
    """Read a name.

    Args:
        name: For example ``a9.h6<q>``.

    Returns:
        The part, and the input an edge enters by: ``q``, ``k``, ``v`` or an empty string.

    Raises:
        ValueError: The name is none of the forms above.
    """
    if name in ("input", "logits"):
        return Node(kind=name), ""
    if match := _HEAD.fullmatch(name):
        return Node("head", int(match[1]), int(match[2])), match[3] or ""
    if match := _MLP.fullmatch(name):
        return Node("mlp", int(match[1])), ""
    if _GROUP.fullmatch(name):
        raise ValueError(f"'{name}' is read by several heads at once; a report needs the edges of Edges(grouped=False)")
    raise ValueError(f"'{name}' names no part of a circuit: write input, a9.h6, a9.h6<q>, m9 or logits")
