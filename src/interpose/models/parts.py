"""What a family's table is made of, beside names: how projections are fused, and how a config changes the table."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

Fusion = Literal["none", "blocks", "heads", "groups"]


@dataclass(frozen=True)
class Projection:
    """Where queries, keys or values come from.

    Attributes:
        path: the module that projects, under the attention block.
        part: which of three it is (0 query, 1 key, 2 value) where one module makes all three.
        fusion: `none`; `blocks` (all queries, all keys, all values); `heads` (query, key, value of each head); `groups`
            (the queries that share a key, their key, their value; then the next group).
    """

    path: str
    part: int = 0
    fusion: Fusion = "none"


@dataclass(frozen=True)
class Variant:
    """Where a config says so, a family's table is another.

    Attributes:
        when: config attributes, with the value that each of them then has.
        then: attributes of the table, with the value they then have; None where the table does not hold at all.
    """

    when: Mapping[str, Any]
    then: Mapping[str, Any] | None
