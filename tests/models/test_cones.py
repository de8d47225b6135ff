"""Runs that share an unchanged run give what each gives by itself, whatever they write, wherever, on any family."""

from collections.abc import Callable
from random import Random
from typing import Any

import pytest
import torch

import interpose as ip
from interpose.graph import Feed, Graph

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
        if value.numel():
            worst = max(worst, float((value - other).abs().max()) / (1e-5 * max(1.0, float(value.abs().max()))))
    return worst


def batch(random: Random, padded: bool) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
    """Some prompts of four to nine tokens, as a network is given them, and others that differ in some tokens."""
    generator = torch.Generator().manual_seed(random.randrange(2**31))
    rows, length = random.randint(1, 3), random.randint(4, 9)
    ids = torch.randint(2, 50, (rows, length), generator=generator)
    others = torch.where(torch.rand(rows, length, generator=generator) < 0.3, 51 - ids, ids)
    if not padded:
        return {"input_ids": ids}, others
    padding = torch.tensor([random.randint(0, length - 2) for _ in range(rows)])
    return {"input_ids": ids, "attention_mask": (torch.arange(length) >= padding[:, None]).long()}, others


def program(random: Random, length: int) -> Any:
    """What a run does: where it writes what; where it reads; whether at the last position only."""
    writes = [
        (random.randrange(3), random.choice(SITES), random.randint(-length, -1), random.choice(KINDS))
        for _ in range(random.randint(1, 3))
    ]
    return writes, random.randrange(3), random.choice(SITES), random.random() < 0.5


def record(
    model: ip.Model, run: Any, kwargs: dict[str, torch.Tensor], others: torch.Tensor, seed: int
) -> tuple[Graph, Feed]:
    """A run as a block."""
    writes, layer, read, last = run
    random = torch.Generator().manual_seed(seed)
    with model.trace(run=False) as t:
        donor: dict[int, Any] = {}
        with t.world("other", **{**kwargs, "input_ids": others}):
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
    at = (slice(None), position) if value.shape[1] == model.logits.shape[1] else (slice(None), slice(None), position)
    if kind == "own":
        value[at] = value[at] * 0.5 + 0.1
    elif kind == "other":
        value[at] = donor[at]
    elif kind == "same":
        value[at] = value[at]
    else:
        value[at] = 0.3 * torch.rand(value[at].shape, generator=random)


@pytest.mark.parametrize("padded", [False, True])
def test_runs_that_share_give_what_each_gives_by_itself(
    variant: str, make: Callable[..., ip.Model], padded: bool, passes: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    model = make(variant)
    random = Random(f"{variant} {padded}")
    kwargs, others = batch(random, padded)
    programs = [program(random, others.shape[1]) for _ in range(8)]
    made = [record(model, run, kwargs, others, seed) for seed, run in enumerate(programs)]
    graphs, feeds = [graph for graph, _ in made], [feed for _, feed in made]
    expected = alone(model, graphs, feeds)
    for shared_from in (1, 1000):  # positions before are multiplied once for all rows, or copied for each
        monkeypatch.setattr("interpose.engine.cone.WORTHWHILE", shared_from)
        found = list(model.backend.run_many(graphs, feeds))
        for run, one, other in zip(programs, found, expected, strict=True):
            assert difference(one, other) <= 1, run
    assert sum(passes) > 2, programs
