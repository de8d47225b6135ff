"""Plans: compiled once a structure, run no further than needed, in any order of worlds."""

from typing import Any

import pytest
import torch

import interpose as ip
from interpose.engine import local
from interpose.graph import Backend


@pytest.fixture
def compiled(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Every graph that is compiled while the test runs."""
    graphs: list[Any] = []
    stock = local.compile_graph

    def compile_graph(graph: Any, family: Any, dims: Any) -> Any:
        graphs.append(graph)
        return stock(graph, family, dims)

    monkeypatch.setattr(local, "compile_graph", compile_graph)
    return graphs


def test_the_same_structure_is_compiled_once(net: ip.Model, x: torch.Tensor, compiled: list[Any]) -> None:
    results = []
    for step in range(5):
        with net.trace(x * step):
            net.module("0").output += torch.full((8,), float(step))
            results.append(net.output.save())
    assert len(compiled) == 1
    for step, result in enumerate(results):
        assert torch.equal(result, net.network[1:](net.network[0](x * step) + step))
    with net.trace(x):
        net.module("0").output += 1
        net.output.save()
    assert len(compiled) == 2


def test_numbers_that_python_calls_equal_are_not_taken_for_one_another(net: ip.Model) -> None:
    model = ip.wrap(torch.nn.Identity())
    whole = torch.arange(3)
    for factor, kind in (
        (2, torch.int64),
        (2.0, torch.float32),
        (True, torch.int64),
        (1, torch.int64),
        (1.0, torch.float32),
    ):
        with model.trace(whole):
            product = (model.output * factor).save()
        assert product.dtype == kind
    for zero in (0.0, -0.0):
        with model.trace(torch.ones(1)):
            product = (model.output * zero).save()
        assert str(float(product)) == str(zero)


def test_an_earlier_block_does_not_change_a_later_one(model: ip.Model, ids: torch.Tensor) -> None:
    with model.trace(ids):
        before = model.logits.save()
    with model.trace(ids):
        model.layers[0].output[:, -1] = 0
        model.layers[1].attn.pattern[:, 0] = 0
        changed = model.logits.save()
    with model.trace(ids):
        after = model.logits.save()
    assert torch.equal(before, after)
    assert not torch.equal(before, changed)


def test_nothing_runs_after_the_last_site_that_is_wanted(model: ip.Model, ids: torch.Tensor) -> None:
    ran: list[int] = []
    handles = [
        layer.register_forward_pre_hook(lambda *_, number=number: ran.append(number))
        for number, layer in enumerate(model.network.model.layers)
    ]
    try:
        with model.trace(ids):
            model.layers[0].mlp.output.save()
        assert ran == [0]
        ran.clear()
        with model.trace(ids):
            model.layers[1].input.save()
        assert ran == [0, 1]  # the second layer is entered and not run
        ran.clear()
        with model.trace(ids):
            model.layers[0].attn.pattern.save()
            model.layers[2].output[:, -1] = model.layers[1].output[:, 0]
        assert ran[0] == 0
    finally:
        for handle in handles:
            handle.remove()


def test_what_is_not_saved_is_not_run(model: ip.Model, ids: torch.Tensor) -> None:
    with model.trace() as t:
        with t.world("unused", ids):
            _ = model.layers[2].output * 2
        with t.world("used", ids):
            logits = model.logits.save()
    assert [world.name for world in model.plan(t.graph).worlds] == ["used"]
    assert logits.shape == (2, 7, 50)
    with model.trace(ids) as t:
        model.layers[0].output[:, -1] = 0
    assert t.saved == {}


def test_a_plan_says_what_will_run(model: ip.Model, ids: torch.Tensor) -> None:
    with model.trace(run=False) as t:
        with t.world("clean", ids):
            z = model.layers[1].attn.z
        with t.world("corrupt", ids):
            model.layers[1].attn.z = z
            h = model.layers[0].output
            ip.grad(model.logits.sum(), h).save()
    *lines, among_others = str(model.plan(t.graph)).splitlines()
    assert among_others.startswith("runs whole, also among several: ")
    assert among_others.endswith(": a gradient needs the whole run")
    assert lines == [
        'forward pass "clean", stops after the last site',
        "  model.layers.1.self_attn.o_proj (input): layers[1].attn.z",
        'forward pass "corrupt" with gradients, stops after the last site',
        "  model.layers.1.self_attn.o_proj (input): layers[1].attn.z",
        "  model.layers.0 (output): layers[0].output",
        "  lm_head (output): logits",
    ]


def test_many_graphs_and_feeds_run_in_order(model: ip.Model) -> None:
    prompts = [torch.randint(2, 50, (1, length), generator=torch.manual_seed(length)) for length in (3, 5, 4)]
    graphs, feeds = [], []
    for number, ids in enumerate(prompts):
        with model.trace(ids, run=False) as t:
            model.layers[number].output[:, -1] = 0
            model.logits.save("logits")
        graphs.append(t.graph)
        feeds.append(t.feed)
    runs = list(model.backend.run_many(graphs, feeds))
    for number, (ids, run) in enumerate(zip(prompts, runs, strict=True)):
        with model.trace(ids):
            model.layers[number].output[:, -1] = 0
            expected = model.logits.save()
        assert torch.equal(run["logits"], expected)
    assert isinstance(model.backend, Backend)


def test_a_value_is_dropped_after_its_last_use(x: torch.Tensor) -> None:
    """A wide network whose every layer is read and reduced never holds two of its activations."""
    import weakref

    alive: list[Any] = []
    most: list[int] = []

    class Watched(torch.nn.Module):
        def forward(self, value: torch.Tensor) -> torch.Tensor:
            result = value + 1
            alive.append(weakref.ref(result))
            most.append(sum(ref() is not None for ref in alive))
            return result

    model = ip.wrap(torch.nn.Sequential(*(Watched() for _ in range(6))))
    with model.trace(x):
        sums = [model.module(str(number)).output.sum().save() for number in range(6)]
    assert max(most) <= 2
    assert torch.allclose(torch.stack(sums), torch.stack([(x + n).sum() for n in range(1, 7)]))


def test_many_structures_may_be_run(net: ip.Model, x: torch.Tensor) -> None:
    for number in range(80):
        with net.trace(x):
            value = (net.module("0").output * number).sum().save()
        assert torch.allclose(value, (net.network[0](x) * number).sum(), atol=1e-4)
