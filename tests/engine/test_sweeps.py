"""What might go wrong where runs share an unchanged run: each still gives, or says, what it does by itself."""

import gc
import warnings
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import torch

import interpose as ip
from interpose.engine.cone import Cone
from interpose.graph import Feed, Graph, Site
from interpose.graph.moved import moved

IDS = torch.tensor([[5, 17, 3, 42, 8, 30, 11], [12, 4, 33, 21, 6, 19, 47]])
Run = tuple[Graph, Feed]


@pytest.fixture(scope="module")
def model() -> ip.Model:
    """A tiny language model, far from linear."""
    torch.manual_seed(3)
    model = ip.build("llama", layers=3, width=24, heads=4, kv_heads=2, neurons=32, vocab=50, pad_token_id=0)
    with torch.no_grad():
        for weight in model.network.parameters():
            weight.mul_(4)
    return model


def record(model: ip.Model, block: Callable[[Any], None], **inputs: Any) -> Run:
    with model.trace(run=False) as t, t.world("main", **(inputs or {"input_ids": IDS})):
        block(t)
    return t.graph, t.feed


def writes(model: ip.Model, layer: int, position: int) -> Callable[[Any], None]:
    """A block that writes at one place, and saves the logits there and after it."""

    def block(_: Any) -> None:
        model.layers[layer].output[:, position] = 0.3
        model.logits[:, -4:].save("logits")

    return block


def agree(model: ip.Model, runs: list[Run]) -> list[dict[str, Any]]:
    """Run them together; each must give what it gives by itself."""
    graphs, feeds = [graph for graph, _ in runs], [feed for _, feed in runs]
    found = list(model.backend.run_many(graphs, feeds))
    for one, (graph, feed) in zip(found, runs, strict=True):
        (expected,) = model.backend.run_many([graph], [feed])
        assert one.keys() == expected.keys()
        for name, value in expected.items():
            torch.testing.assert_close(one[name], value, atol=1e-5, rtol=1e-5, equal_nan=True)
    return found


def test_what_is_no_number_reaches_positions_before_it(model: ip.Model) -> None:
    def block(t: Any) -> None:
        model.layers[1].attn.v[:, -2] = t.input("value", torch.zeros(1))
        model.layers[1].output.save("stream")

    graph, feed = record(model, block)
    agree(model, [(graph, feed.with_(value=torch.tensor([value]))) for value in (0.0, torch.inf, torch.nan)])


def test_more_last_positions_are_read_than_change(model: ip.Model, passes: list[int]) -> None:
    agree(model, [record(model, writes(model, 1, -1)), record(model, writes(model, 0, -2))])
    assert passes == [2]


def test_what_is_read_between_two_writes_of_a_site(model: ip.Model) -> None:
    def block(_: Any) -> None:
        before = model.layers[1].output.clone()
        model.layers[1].output = torch.ones(1)
        between: Any = model.layers[1].output
        between.save("between")
        model.layers[1].output = before
        model.logits.save("logits")

    found = agree(model, [record(model, block)] * 2)
    assert bool((found[0]["between"] == 1).all())


def test_runs_are_given_tensors_of_different_types_and_shapes(model: ip.Model, passes: list[int]) -> None:
    def block(t: Any) -> None:
        value = t.input("value", torch.zeros(2, 24))
        weights: Any = t.input("weights", torch.ones(2, 50))
        model.layers[1].output[:, -2] = value
        weights.save("weights")
        (model.logits[:, -1] * weights).save("weighted")

    graph, feed = record(model, block)
    given = [torch.ones(2, 50), torch.ones(2, 50).double(), torch.ones(2, 50).long(), torch.ones(1, 50)]
    found = agree(model, [(graph, feed.with_(weights=weights)) for weights in given])
    assert [one["weights"].dtype for one in found[:3]] == [torch.float32, torch.float64, torch.int64]
    assert passes == [4]
    found[0]["weights"].zero_()
    assert bool((given[0] == 1).all())


@pytest.mark.parametrize("wrong", [torch.ones(2, 25), torch.ones(2, 24, 3)])
def test_a_run_that_fails_is_the_only_one_and_says_so_itself(model: ip.Model, wrong: torch.Tensor) -> None:
    def block(t: Any) -> None:
        value = t.input("value", torch.zeros(2, 24))
        model.layers[1].output[:, -2] = value
        model.logits[:, -1].save("logits")

    graph, feed = record(model, block)
    runs = model.backend.run_many([graph] * 3, [feed, feed.with_(value=wrong), feed])
    assert next(runs)["logits"].shape == (2, 50)
    with pytest.raises(ip.errors.RunError, match=r"test_sweeps.py:\d+: setitem failed"):
        next(runs)


def test_a_value_of_another_length_is_refused_in_the_words_of_the_run_alone(model: ip.Model) -> None:
    def block(t: Any) -> None:
        model.layers[1].output = t.input("value", torch.zeros(2, 7, 24))
        model.logits[:, -1].save("logits")

    graph, feed = record(model, block)
    runs = model.backend.run_many([graph] * 2, [feed, feed.with_(value=torch.ones(2, 8, 24))])
    next(runs)
    with pytest.raises(ip.errors.ShapeError, match="cannot take a value of shape"):
        next(runs)


def test_a_prefix_that_is_not_copied(model: ip.Model, monkeypatch: pytest.MonkeyPatch) -> None:
    def own_heads(_: Any) -> None:
        model.layers[0].output[:, -3] *= 0.5
        model.layers[1].attn.v = model.layers[1].attn.v.repeat_interleave(2, 2) * torch.arange(4.0)[:, None]
        model.logits[:, -4:].save("logits")

    def writes_to(name: str) -> Callable[[Any], None]:
        def block(_: Any) -> None:
            site = model.site(name)
            site[:, -3] = site[:, -3] * 0.5
            model.logits[:, -4:].save("logits")

        return block

    monkeypatch.setattr("interpose.engine.cone.WORTHWHILE", 1)
    names = ["embed", "layers.0.attn.k", "layers.1.attn.v", "layers.2.attn.q", "layers.1.attn.z", "layers.0.input"]
    for inputs in ({}, {"attention_mask": torch.tensor([[0, 0, 1, 1, 1, 1, 1], [1] * 7])}):
        given = {"input_ids": IDS, **inputs}
        runs = [record(model, block, **given) for block in (own_heads, *map(writes_to, names))]
        for together in (runs, runs[1:2] * 2, runs[2:3] * 2):
            agree(model, together)


def test_prompts_that_the_network_refuses(model: ip.Model) -> None:
    runs = [record(model, writes(model, 1, -1), input_ids=IDS + 100)] * 2
    with pytest.raises(ip.errors.RunError, match="index out of range"):
        list(model.backend.run_many(*map(list, zip(*runs, strict=True))))


def test_only_a_fault_of_the_sweep_is_warned_of(model: ip.Model, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(_: Cone) -> None:
        raise ValueError("as a fault would")

    monkeypatch.setattr(Cone, "run", fails)
    runs = [record(model, writes(model, layer, -1)) for layer in (0, 1, 2)]
    with pytest.warns(RuntimeWarning, match=r"3 runs could not share .*as a fault would.*Please report") as warned:
        agree(model, runs)
    assert len(warned) == 1


def test_ends_that_torch_cannot_make_for_many_runs_at_once(model: ip.Model) -> None:
    def block(t: Any) -> None:
        model.layers[1].output[:, -2] = t.input("value", torch.zeros(2, 24))
        last = model.logits[:, -1]
        quantile: Any = torch.quantile(last, 0.3, -1)
        quantile.save("quantile")
        last.masked_scatter(last > 0, last.flip(0)).save("scattered")
        model.call.module("model.layers.0.mlp", model.layers[2].output)[:, -1].save("called")
        last.topk(3)[1].save("best")

    graph, feed = record(model, block)
    agree(model, [(graph, feed.with_(value=torch.full((2, 24), 0.1 * n))) for n in range(3)])


@pytest.mark.parametrize(
    "inputs",
    [
        {"position_ids": None, "attention_mask": None},
        {"attention_mask": torch.ones(2, 7).bfloat16()},
        {"attention_mask": torch.ones(2, 7).bool()},
        {"past_key_values": None},
    ],
)
def test_whatever_form_the_prompts_have(model: ip.Model, inputs: dict[str, Any]) -> None:
    agree(model, [record(model, writes(model, layer, -2), input_ids=IDS, **inputs) for layer in (0, 1)])


def test_fewer_layers_of_a_network_share_too(passes: list[int]) -> None:
    less = ip.build("llama", layers=3, width=24, heads=4, kv_heads=2, neurons=32, vocab=50, pad_token_id=0)
    less.network.model.layers = less.network.model.layers[:2]  # a new list, in training mode as new modules are
    less.network.config.num_hidden_layers = 2
    less = ip.wrap(less.network)
    runs = [record(less, writes(less, layer, -2)) for layer in (0, 1)]
    agree(less, runs)
    assert passes == [2]


def test_in_inference_mode(model: ip.Model, passes: list[int]) -> None:
    with torch.inference_mode():
        ids = IDS.clone()
        agree(model, [record(model, writes(model, layer, -2), input_ids=ids) for layer in (0, 1)])
    agree(model, [record(model, writes(model, layer, -2), input_ids=ids) for layer in (0, 1)])
    assert passes == [2, 2]


@pytest.mark.parametrize("before", [False, True])
def test_hooks_of_ones_own_are_given_whole_passes(model: ip.Model, before: bool, passes: list[int]) -> None:
    layer = model.network.get_submodule("model.layers.2")
    places = torch.arange(7.0)[None, :, None]
    if before:
        hook = layer.register_forward_pre_hook(lambda _, args: (args[0] * places, *args[1:]))
    else:
        hook = layer.register_forward_hook(lambda *args: args[-1] * places)
    runs = [record(model, writes(model, layer, -2)) for layer in (0, 1, 2)]
    try:
        agree(model, runs)
        assert "hook" in str(model.plan(runs[0][0]))
    finally:
        hook.remove()
    assert passes == []
    agree(model, runs)
    assert passes == [3]


def test_a_forward_of_ones_own_is_given_whole_passes(model: ip.Model, passes: list[int]) -> None:
    part: Any = model.network.get_submodule("model.layers.1.mlp")
    stock = part.forward
    part.forward = lambda x: stock(x) + torch.arange(x.shape[1])[None, :, None]
    try:
        agree(model, [record(model, writes(model, layer, -2)) for layer in (0, 2)])
    finally:
        del part.forward
    assert passes == []


def test_hooks_that_the_library_itself_sets_do_no_harm(model: ip.Model, passes: list[int]) -> None:
    model.network(IDS, output_hidden_states=True)
    agree(model, [record(model, writes(model, layer, -2)) for layer in (0, 1)])
    assert passes == [2]


def test_nothing_outlives_a_sweep(model: ip.Model) -> None:
    runs = [record(model, writes(model, layer, -2)) for layer in (0, 1, 2)]
    graphs, feeds = [graph for graph, _ in runs], [feed for _, feed in runs]
    list(model.backend.run_many(graphs, feeds))
    gc.collect()
    gc.disable()
    try:
        before = _tensors()
        list(model.backend.run_many(graphs, feeds))
        abandoned = model.backend.run_many(graphs, feeds)
        next(abandoned)
        abandoned.close()  # type: ignore[attr-defined]
        assert _tensors() == before
    finally:
        gc.enable()


def _tensors() -> int:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # deprecated things of torch are looked at
        return sum(issubclass(type(value), torch.Tensor) for value in gc.get_objects())


def test_a_block_moved_to_another_place_writes_there_and_reads_what_it_read(model: ip.Model) -> None:
    def block(_: Any) -> None:
        model.layers[2].output[:, -1] = 0.5
        model.layers[2].output[:, -1].save("read")

    graph, feed = record(model, block)
    (end, start) = (slice(None), -1), (slice(None), 2)
    other = moved(graph, (Site("layers.2.output"), end), (Site("layers.1.output"), start))
    (found,) = model.backend.run_many([other], [feed])
    with model.trace(IDS):
        model.layers[1].output[:, 2] = 0.5
        expected = model.layers[2].output[:, -1].save()
    torch.testing.assert_close(found["read"], expected)


def test_a_sweep_asks_once_for_each_feed_also_of_an_edited_model(model: ip.Model) -> None:
    with model.trace(IDS) as t:
        model.layers[0].mlp.output *= 0.3
    edited = model.edited(t)
    graph, feed = record(model, writes(model, 1, -2))

    class Feeds(Sequence[Feed]):
        asked = 0

        def __len__(self) -> int:
            return 3

        def __getitem__(self, index: int) -> Feed:  # type: ignore[override]
            self.asked += 1
            return feed

    feeds = Feeds()
    runs = edited.backend.run_many([graph] * 3, feeds)
    found = [next(runs)["logits"]]
    asked = feeds.asked  # for all runs that go together
    found += [run["logits"] for run in runs]
    assert feeds.asked == asked
    (expected,) = edited.backend.run_many([graph], [feed])
    torch.testing.assert_close(torch.stack(found), expected["logits"].expand(3, -1, -1, -1), atol=1e-5, rtol=1e-5)


def test_threads_that_sweep_one_model_beside_plain_calls(model: ip.Model) -> None:
    runs = [record(model, writes(model, layer, at)) for layer in (0, 1, 2) for at in (-1, -3)]
    graphs, feeds = [graph for graph, _ in runs], [feed for _, feed in runs]
    expected = [run["logits"] for run in model.backend.run_many(graphs, feeds)]
    plain = model.network(IDS).logits

    def work(number: int) -> bool:
        if number % 3 == 0:
            return all(torch.equal(model.network(IDS).logits, plain) for _ in range(5))
        found = [run["logits"] for _ in range(5) for run in model.backend.run_many(graphs, feeds)]
        return all(torch.equal(one, other) for one, other in zip(found, expected * 5, strict=True))

    with ThreadPoolExecutor(6) as pool:
        assert all(pool.map(work, range(6)))


def test_a_network_in_training_mode_is_given_whole_passes(passes: list[int]) -> None:
    model = ip.build("llama", layers=2, width=24, heads=4, neurons=32, vocab=50, pad_token_id=0)
    model.network.model.layers[1].train()
    run = record(model, writes(model, 0, -1))
    agree(model, [run, run])
    assert passes == []
    assert "'model.layers.1' is in training mode; network.eval() changes that" in str(model.plan(run[0]))


def test_a_weight_changed_between_two_sweeps_counts_in_the_second(model: ip.Model, passes: list[int]) -> None:
    runs = [record(model, writes(model, layer, -2)) for layer in (0, 1)]
    weight: Any = model.network.get_parameter("model.layers.2.mlp.down_proj.weight")
    first = agree(model, runs)
    with torch.no_grad():
        weight.mul_(2)
    try:
        second = agree(model, runs)
    finally:
        with torch.no_grad():
            weight.div_(2)
    assert not first[0]["logits"].equal(second[0]["logits"])
    assert passes == [2, 2]


def test_a_sweep_holds_what_its_budget_allows(
    model: ip.Model, passes: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    runs = [record(model, writes(model, layer, position)) for layer in range(3) for position in (-3, -2)]
    agree(model, runs)
    assert passes == [6]
    monkeypatch.setattr(model.backend, "memory", 40_000)
    agree(model, runs)
    assert len(passes) > 2
    assert sum(passes) == 12
    monkeypatch.setattr(model.backend, "memory", 1)  # not even the unchanged run may be kept
    agree(model, runs)
    assert sum(passes) == 12


def test_where_memory_runs_out_a_pass_goes_on_in_halves(model: ip.Model, monkeypatch: pytest.MonkeyPatch) -> None:
    tried: list[int] = []
    stock = Cone.run

    def run(cone: Cone) -> None:
        tried.append(len(cone._members))
        if len(cone._members) > 1:
            raise torch.OutOfMemoryError("CUDA out of memory")
        stock(cone)

    monkeypatch.setattr(Cone, "run", run)
    agree(model, [record(model, writes(model, layer, -2)) for layer in range(3)])
    assert tried == [3, 1, 2, 1, 1]


def test_a_plan_says_where_a_run_begins_and_what_it_costs(model: ip.Model) -> None:
    graph, feed = record(model, writes(model, 1, -2))
    begins = "each begins at layer 2 of 3, position -2, or later"
    assert begins in str(model.plan(graph))
    assert "FLOP" not in str(model.plan(graph))
    said = str(model.plan(graph, feed))
    # Rows 2, weights of a layer 24 * (24 + 24 + 2 * 12) + 3 * 24 * 32 + norms 2 * 24, attention 4 * 7 * 24, twice each.
    weights = 2 * (24 * (24 + 24 + 2 * 12) + 3 * 24 * 32 + 2 * 24) + 4 * 7 * 24
    assert begins in said
    assert f"batch 2, 2 of 7 positions, 1 of 3 layers: about {2 * 2 * weights / 1000:.3g} kFLOP of " in said
    assert f" of {2 * 7 * 3 * weights / 1000:.3g} kFLOP, " in said
    assert "the unchanged run keeps about" in said
