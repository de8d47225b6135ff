"""Random programs of reads, operations, writes and changes in place, in two worlds, do what raw hooks do."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from hypothesis import given, strategies as st

import interpose as ip

# Sites of one shape [2, 7, 24], in the order in which a pass reaches them, and the stock modules that give them.
SITES = {
    "embed": "model.embed_tokens",
    "layers.0.attn.output": "model.layers.0.self_attn",
    "layers.0.mlp.output": "model.layers.0.mlp",
    "layers.0.output": "model.layers.0",
    "layers.1.output": "model.layers.1",
    "layers.2.mlp.output": "model.layers.2.mlp",
    "layers.2.output": "model.layers.2",
    "norm.output": "model.norm",
}
NAMES = list(SITES)
INDICES: list[Any] = [
    (slice(None), -1),
    0,
    (..., slice(3, 9)),
    (slice(None), [1, 4]),
    (1, slice(2, 5), 7),
    (slice(None), slice(None, None, 3), -1),
]
UNARY: list[Callable[[Any], Any]] = [
    lambda a: a * 0.5,
    torch.tanh,
    lambda a: a - 1,
    lambda a: a.flip(1),
    lambda a: 2 - a,
]
BINARY: list[Callable[[Any, Any], Any]] = [
    torch.add,
    torch.sub,
    torch.maximum,
    lambda a, b: torch.where(a > b, a, b * 0.5),
]


@dataclass
class Program:
    """Steps in program order: (kind, and what the kind needs); values are named by number."""

    steps: list[tuple[Any, ...]] = field(default_factory=list)
    values: int = 0
    first_world: int = 0  # how many steps are in the first of the two worlds
    changed: set[int] = field(default_factory=set)  # values that were changed in place, and then go by a new number


@st.composite
def programs(draw: Any) -> Program:
    program = Program()
    ready: dict[int, tuple[int, int]] = {}  # value -> the world and the site after which it exists
    read_from: dict[
        int, tuple[int, str, int]
    ] = {}  # value -> the world, site and generation it is the site's own value of
    replaced: dict[tuple[int, str], int] = {}
    for world in (0, 1):
        for _ in range(draw(st.integers(1, 7))):
            name = draw(st.sampled_from(NAMES))
            here = world, NAMES.index(name)
            kind = draw(st.sampled_from(["read", "unary", "binary", "write", "index", "add", "mutate"]))
            usable = [value for value, at in ready.items() if at <= here]
            own = [v for v, (w, s, g) in read_from.items() if w == world and g == replaced.get((w, s), 0)]
            new = program.values
            if kind == "unary" and ready:
                a = draw(st.sampled_from(sorted(ready)))
                program.steps.append(("unary", new, draw(st.integers(0, len(UNARY) - 1)), a))
                ready[new], program.values = ready[a], new + 1
            elif kind == "binary" and ready:
                a, b = (draw(st.sampled_from(sorted(ready))) for _ in range(2))
                program.steps.append(("binary", new, draw(st.integers(0, len(BINARY) - 1)), a, b))
                ready[new], program.values = max(ready[a], ready[b]), new + 1
            elif kind == "write" and usable:
                program.steps.append(("write", world, name, draw(st.sampled_from(usable))))
                replaced[world, name] = replaced.get((world, name), 0) + 1
            elif kind in ("index", "add"):
                program.steps.append((kind, world, name, draw(st.integers(0, len(INDICES) - 1))))
            elif kind == "mutate" and own:
                value = draw(st.sampled_from(own))
                program.steps.append(("mutate", world, read_from[value][1], new, value, draw(st.booleans())))
                ready[new], read_from[new], program.values = ready.pop(value), read_from.pop(value), new + 1
                program.changed.add(value)
            else:
                program.steps.append(("read", world, name, new))
                ready[new], program.values = here, new + 1
                read_from[new] = (world, name, replaced.get((world, name), 0))
        program.first_world = program.first_world or len(program.steps)
    return program


def in_block(model: ip.Model, program: Program, inputs: list[torch.Tensor]) -> dict[str, torch.Tensor]:
    """The program as a user writes it."""
    values: dict[int, Any] = {}
    parts = program.steps[: program.first_world], program.steps[program.first_world :]
    with model.trace() as t:
        for world, steps in enumerate(parts):
            with t.world(f"w{world}", inputs[world]):
                for kind, *rest in steps:
                    _block_step(model, values, kind, rest)
                model.logits.save(f"logits{world}")
        for number, value in values.items():
            value.save(f"v{number}")
    return t.saved


def _block_step(model: ip.Model, values: dict[int, Any], kind: str, rest: list[Any]) -> None:
    if kind in ("unary", "binary"):
        _compute([(kind, *rest)], values)
    elif kind == "read":
        values[rest[2]] = model.site(rest[1])
    elif kind == "write":
        *parts, last = rest[1].split(".")
        place: Any = model
        for part in parts:
            place = place[int(part)] if part.isdigit() else getattr(place, part)
        setattr(place, last, values[rest[2]])
    elif kind == "index":
        model.site(rest[1])[INDICES[rest[2]]] = 0.25
    elif kind == "add":
        part = model.site(rest[1])[INDICES[rest[2]]]
        part += 1.5
    elif kind == "mutate":
        value = values[rest[2]] = values.pop(rest[3])
        if rest[4]:
            value *= 0.75
        else:
            value[:, 2:4] -= 1


def _compute(steps: list[tuple[Any, ...]], values: dict[int, Any]) -> None:
    """Every operation whose arguments exist by now and whose result does not yet."""
    for kind, new, *rest in steps:
        if kind == "unary" and new not in values and rest[1] in values:
            values[new] = UNARY[rest[0]](values[rest[1]])
        elif kind == "binary" and new not in values and rest[1] in values and rest[2] in values:
            values[new] = BINARY[rest[0]](values[rest[1]], values[rest[2]])


def by_hand(network: torch.nn.Module, program: Program, inputs: list[torch.Tensor]) -> dict[str, torch.Tensor]:
    """The same with forward hooks: at each module, the steps of its site in program order."""
    values: dict[int, torch.Tensor] = {}
    found: dict[str, torch.Tensor] = {}
    for world in (0, 1):

        def hook(name: str, world: int = world) -> Any:
            def visit(module: Any, args: Any, output: Any) -> Any:
                if isinstance(output, tuple):
                    return (_hand_steps(program, values, world, name, output[0]), *output[1:])
                return _hand_steps(program, values, world, name, output)

            return visit

        handles = [network.get_submodule(path).register_forward_hook(hook(name)) for name, path in SITES.items()]
        with torch.no_grad():
            found[f"logits{world}"] = network(inputs[world], use_cache=False).logits
        for handle in handles:
            handle.remove()
    return found | {f"v{number}": value for number, value in values.items() if number not in program.changed}


def _hand_steps(
    program: Program, values: dict[int, torch.Tensor], world: int, name: str, current: torch.Tensor
) -> torch.Tensor:
    for kind, *rest in program.steps:
        if kind in ("unary", "binary") or rest[:2] != [world, name]:
            continue
        if kind == "read":
            values[rest[2]] = current
        elif kind == "write":
            current = values[rest[2]]
        else:
            current = _changed(current.clone(), kind, rest)
            if kind == "mutate":
                values[rest[2]] = current
        _compute(program.steps, values)
    return current


def _changed(current: torch.Tensor, kind: str, rest: list[Any]) -> torch.Tensor:
    if kind == "index":
        current[INDICES[rest[2]]] = 0.25
    elif kind == "add":
        current[INDICES[rest[2]]] += 1.5
    elif rest[4]:
        current *= 0.75
    else:
        current[:, 2:4] -= 1
    return current


@given(program=programs())
def test_a_random_program_is_what_raw_hooks_do(model: ip.Model, program: Program) -> None:
    inputs = list(torch.randint(2, 50, (2, 2, 7), generator=torch.manual_seed(4)))
    expected = by_hand(model.network, program, inputs)
    found = in_block(model, program, inputs)
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert torch.equal(found[name], value), name
