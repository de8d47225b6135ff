"""What runs save is made of what they read, for many runs at once."""

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from interpose.engine.making import Making, Misfit
from interpose.engine.member import Member
from interpose.engine.structures import copied
from interpose.graph.nodes import Constant, Input

_ROWS = 512
"""How many rows at most go through the end of a graph together: logits of a whole vocabulary are long."""


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
    wanted = {member.number: tuple(member.wanted().values()) for member in members}
    alike: dict[Any, list[Member]] = defaultdict(list)
    for member in members:
        shapes = tuple((tuple(value.shape), value.dtype) for value in wanted[member.number])
        alike[member.reach.tail.key, shapes].append(member)
    found: dict[int, dict[str, Any]] = {}
    for group in alike.values():
        size = max(1, _ROWS // group[0].base.prompts.rows)
        for start in range(0, len(group), size):
            found |= _together(group[start : start + size], wanted)
    return found


def _together(members: Sequence[Member], wanted: dict[int, tuple[Tensor, ...]]) -> dict[int, dict[str, Any]]:
    one = members[0]
    graph, tail = one.reach.graph, one.reach.tail
    names = [(i, getattr(node, "ref", None) or getattr(node, "name", "")) for i, node in _inputs(one)]
    given = [_gathered([wanted[member.number][place] for member in members]) for place in range(len(tail.reads))]
    for _, name in names:
        given.append(_gathered([_tensor(member, name) for member in members]))
    known = (*tail.reads, *(index for index, _ in names))
    rest = [index for index in tail.nodes if index not in known]

    def make(*values: Any) -> dict[str, Any]:
        making = Making(one.reach, {}, one.stock, dict(zip(known, values, strict=True)))
        making.make(rest)
        return making.saved

    shared = [value for value, many in given if not many]
    try:
        if len(shared) == len(given):
            saved = make(*shared)
            return {member.number: copied(saved) for member in members}
        made = torch.vmap(make, in_dims=tuple(0 if many else None for _, many in given))(*[value for value, _ in given])
    except Misfit:
        raise
    except Exception:  # not every operation can be done for many runs at once
        return {member.number: _alone(member, wanted[member.number]) for member in members}
    saves = [graph.nodes[index].name for index in tail.nodes if type(graph.nodes[index]).__name__ == "Save"]  # type: ignore[attr-defined]
    return {member.number: {name: _row(made[name], place) for name in saves} for place, member in enumerate(members)}


def _alone(member: Member, values: tuple[Tensor, ...]) -> dict[str, Any]:
    known = dict(zip(member.reach.tail.reads, values, strict=True))
    making = Making(member.reach, member.feed.tensors, member.stock, known)
    try:
        making.make(member.reach.tail.nodes)
    except Exception as error:
        raise Misfit(str(error)) from error
    return copied(making.saved)


def _inputs(member: Member) -> list[tuple[int, Any]]:
    nodes = member.reach.graph.nodes
    return [(i, nodes[i]) for i in member.reach.tail.nodes if isinstance(nodes[i], Input | Constant)]


def _tensor(member: Member, name: str) -> Any:
    if name not in member.feed.tensors:
        raise Misfit(f"no tensor named {name}")
    value = member.feed.tensors[name]
    return value.to(member.stock.device) if isinstance(value, Tensor) else value


def _gathered(values: list[Any]) -> tuple[Any, bool]:
    """One value for all runs, where they have the same; else all of them, the runs along a first axis."""
    first = values[0]
    if all(value is first for value in values):
        return first, False
    if not all(isinstance(value, Tensor) and value.shape == first.shape for value in values):
        raise Misfit("the runs are given different things")
    return torch.stack(values), True


def _row(value: Any, place: int) -> Any:
    if isinstance(value, Tensor):
        return value[place].detach().clone()
    return type(value)([_row(item, place) for item in value])
