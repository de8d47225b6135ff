"""Runs that share an unchanged run give what each gives by itself, whatever they write, wherever, on any family."""

from collections.abc import Callable
from random import Random
from typing import Any

import pytest
import torch

import interpose as ip
from interpose.engine.cone import Cone
from interpose.graph import Feed, Graph

IDS = torch.tensor([[5, 17, 3, 42, 8, 30, 11, 26, 9], [12, 4, 33, 21, 6, 19, 47, 2, 14]])
OTHER = torch.tensor([[5, 17, 3, 42, 9, 30, 11, 26, 9], [12, 4, 33, 21, 6, 20, 47, 3, 14]])
MASK = torch.tensor([[0, 0, 0, 1, 1, 1, 1, 1, 1], [1, 1, 1, 1, 1, 1, 1, 1, 1]])
LEFT_OUT = ("bert", "vit")
ALSO = ("gpt_neo",)
SITES = ("input", "attn.q", "attn.k", "attn.key", "attn.value", "attn.scores", "attn.pattern", "attn.z", "attn.result")
SITES += ("attn.output", "mlp.input", "mlp.neurons", "mlp.output", "output")
KINDS = ("fixed", "other", "own", "whole", "same")


def alone(model: ip.Model, graphs: list[Graph], feeds: list[Feed]) -> list[dict[str, Any]]:
    """Each run by itself."""
    return [next(model.backend.run_many([graph], [feed])) for graph, feed in zip(graphs, feeds, strict=True)]


def difference(found: dict[str, Any], expected: dict[str, Any]) -> float:
    """The largest difference, in parts of 1e-5 of the largest number or of 1."""
    assert found.keys() == expected.keys()
    worst = 0.0
    for name, value in expected.items():
        assert found[name].shape == value.shape
        other = found[name]
        large = ~(value.abs() < 1e30)  # hidden scores, and what a family's kernel makes of rows that see nothing
        assert torch.allclose(value[large], other[large], equal_nan=True)
        value, other = value[~large], other[~large]
        worst = max(worst, float((value - other).abs().max()) / (1e-5 * max(1.0, float(value.abs().max()))))
    return worst


def program(random: Random) -> Any:
    """What a run does: where it writes what; where it reads; whether at the last position only."""
    writes = [
        (random.randrange(3), random.choice(SITES), random.randint(-6, -1), random.choice(KINDS))
        for _ in range(random.randint(1, 3))
    ]
    return writes, random.randrange(3), random.choice(SITES), random.random() < 0.5


def record(model: ip.Model, run: Any, kwargs: dict[str, Any], seed: int) -> tuple[Graph, Feed]:
    """A run as a block."""
    writes, layer, read, last = run
    random = torch.Generator().manual_seed(seed)
    with model.trace(run=False) as t:
        donor: dict[int, Any] = {}
        with t.world("other", **{**kwargs, "input_ids": OTHER}):
            for number, (where, site, _, kind) in enumerate(writes):
                if kind == "other":
                    donor[number] = model.site(f"layers.{where}.{site}")
        with t.world("main", **kwargs):
            for number, (where, site, position, kind) in enumerate(writes):
                _write(f"layers.{where}.{site}", model, position, kind, donor.get(number), random)
            value = model.site(f"layers.{layer}.{read}")
            (value[:, -1] if last else value).save("read")
            model.layers[2].mlp.output[:, -1].save("late")
            model.logits[:, -3:].save("logits")
    return t.graph, t.feed


def _write(name: str, model: ip.Model, position: int, kind: str, donor: Any, random: torch.Generator) -> None:
    value = model.site(name)
    if kind == "whole":
        value *= 1.5
        return
    at = (slice(None), position) if value.shape[1] == IDS.shape[1] else (slice(None), slice(None), position)
    if kind == "own":
        value[at] = value[at] * 0.5 + 0.1
    elif kind == "other":
        value[at] = donor[at]
    elif kind == "same":
        value[at] = value[at]
    else:
        value[at] = 0.3 * torch.rand(value[at].shape, generator=random)


@pytest.fixture
def passes(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many runs each shared pass had."""
    seen: list[int] = []
    stock = Cone.run

    def run(cone: Cone) -> None:
        seen.append(len(cone._members))
        stock(cone)

    monkeypatch.setattr(Cone, "run", run)
    return seen


@pytest.mark.parametrize("padded", [False, True])
def test_runs_that_share_give_what_each_gives_by_itself(
    variant: str, make: Callable[..., ip.Model], padded: bool, passes: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    model = make(variant)
    random = Random(f"{variant} {padded}")
    kwargs = {"input_ids": IDS, **({"attention_mask": MASK} if padded else {})}
    programs = [program(random) for _ in range(8)]
    made = [record(model, run, kwargs, seed) for seed, run in enumerate(programs)]
    graphs, feeds = [graph for graph, _ in made], [feed for _, feed in made]
    expected = alone(model, graphs, feeds)
    for shared_from in (1, 1000):  # positions before are multiplied once for all rows, or copied for each
        monkeypatch.setattr("interpose.engine.cone.WORTHWHILE", shared_from)
        found = list(model.backend.run_many(graphs, feeds))
        for run, one, other in zip(programs, found, expected, strict=True):
            assert difference(one, other) <= 1, run
    assert sum(passes) > 2, programs
