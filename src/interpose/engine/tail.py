"""What runs save is made of what they read, for many runs at once."""

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from interpose.engine.making import Making
from interpose.engine.member import Member
from interpose.engine.structures import copied
from interpose.graph.nodes import Call, Constant, Input, Op

_ROWS = 512
"""How many rows at most go through the end of a graph together: logits of a whole vocabulary are long."""

_ONE_BY_ONE = frozenset(["masked_scatter", "quantile", "scaled_dot_product_attention"])
"""Operations that torch does for many runs one after the other anyhow, and warns of it."""


def finish(members: Sequence[Member]) -> dict[int, dict[str, Any]]:
    """The saved values of runs whose passes are over.

    Runs whose graphs make the same of what they read are done together, one row of runs after another.

    Args:
        members: the runs.

    Returns:
        each run's saved values, by its number.

    Raises:
        Misfit: an operation failed, of which the run by itself tells more.
    """
    wanted: dict[int, tuple[Any, ...]] = {}
    alike: dict[Any, list[Member]] = defaultdict(list)
    for member in members:
        values = (*member.wanted().values(), *[member.given(name) for _, name in _inputs(member)])
        wanted[member.number] = values
        kinds = tuple((tuple(v.shape), v.dtype) if isinstance(v, Tensor) else id(v) for v in values)
        alike[member.reach.tail.key, kinds].append(member)
    found: dict[int, dict[str, Any]] = {}
    for group in alike.values():
        size = max(1, _ROWS // group[0].base.prompts.rows)
        for start in range(0, len(group), size):
            found |= _together(group[start : start + size], wanted)
    return found


def _together(members: Sequence[Member], wanted: dict[int, tuple[Any, ...]]) -> dict[int, dict[str, Any]]:
    one = members[0]
    tail = one.reach.tail
    given = [_gathered(values) for values in zip(*[wanted[member.number] for member in members], strict=True)]
    known = (*tail.reads, *(index for index, _ in _inputs(one)))
    rest = [index for index in tail.nodes if index not in known]

    def make(*values: Any) -> dict[str, Any]:
        making = Making(one.reach, one.given, one.stock, dict(zip(known, values, strict=True)))
        making.make(rest)
        return making.saved

    shared = [value for value, many in given if not many]
    try:
        if len(shared) == len(given):
            saved = make(*shared)
            return {member.number: copied(saved) for member in members}
        if not _can_be_many(one):
            return {member.number: _alone(member, wanted[member.number]) for member in members}
        made = torch.vmap(make, in_dims=tuple(0 if many else None for _, many in given))(*[value for value, _ in given])
    except Exception:  # not every operation can be done for many runs at once
        return {member.number: _alone(member, wanted[member.number]) for member in members}
    return {
        member.number: {name: _row(value, place) for name, value in made.items()}
        for place, member in enumerate(members)
    }


def _can_be_many(member: Member) -> bool:
    """Whether torch makes the tail of many runs at once; of a module with parts it is not known what it does."""
    for index in member.reach.tail.nodes:
        match member.reach.graph.nodes[index]:
            case Op(name=name) if name in _ONE_BY_ONE:
                return False
            case Call(module=path) if any(member.stock.network.get_submodule(path).children()):
                return False
    return True


def _alone(member: Member, values: tuple[Any, ...]) -> dict[str, Any]:
    known = dict(zip(member.reach.tail.reads, values, strict=False))
    making = Making(member.reach, member.given, member.stock, known)
    making.make(member.reach.tail.nodes)
    return copied(making.saved)


def _inputs(member: Member) -> list[tuple[int, str]]:
    """The tensors of its feed that its tail rests on: each node, and the name."""
    found = []
    for index in member.reach.tail.nodes:
        match member.reach.graph.nodes[index]:
            case Constant(ref=name) | Input(name=name):
                found.append((index, name))
    return found


def _gathered(values: tuple[Any, ...]) -> tuple[Any, bool]:
    """One value for all runs, where they have the same; else all of them, the runs along a first axis."""
    first = values[0]
    return (first, False) if all(value is first for value in values) else (torch.stack(values), True)


def _row(value: Any, place: int) -> Any:
    if isinstance(value, Tensor):
        return value[place].detach().clone()
    return type(value)([_row(item, place) for item in value])
