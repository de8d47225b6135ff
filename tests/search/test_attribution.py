"""Edge attribution against autograd on a forward pass by hand, finite differences, and the completeness of the path."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

import interpose as ip
from interpose.mediators import Edges
from interpose.mediators.edges import all_written, cut_edges, table_of
from interpose.search.attribution import attribute_edges
from interpose.search.behaviour import behaviour, first_difference, logit_difference
from interpose.search.edge_sums import EdgeSums
from interpose.search.progress import watching
from interpose.tasks.base import Pairs

Make = Callable[..., ip.Model]
PRECISE = torch.float64


@pytest.fixture
def by_hand(split: Any, difference: Any) -> Callable[..., torch.Tensor]:
    """Scores from the chain rule: a shift of every reader's own stream, differentiated by autograd."""

    def attribute(
        variant: str, model: ip.Model, pairs: Pairs, names: Sequence[str], mixtures: Sequence[float]
    ) -> torch.Tensor:
        ends = []
        for batch in (pairs.corrupt_batch(), pairs.clean_batch()):
            run = split(variant, model.network)
            run.run(batch.kwargs)
            ends.append(run.now)
        corrupt, clean = ends
        total = {name: torch.zeros(len(pairs)) for name in names}
        for mixture in mixtures:
            readers = dict.fromkeys(name.split("->")[1] for name in names)
            shift = {v: torch.zeros_like(clean["input"], requires_grad=True) for v in readers}
            run = split(variant, model.network, shift=shift)
            embed = corrupt["input"] + mixture * (clean["input"] - corrupt["input"])
            number = difference(run.run(pairs.clean_batch().kwargs, embed), pairs).sum()
            slopes = dict(zip(shift, torch.autograd.grad(number, list(shift.values())), strict=True))
            for name in names:
                source, reader = name.split("->")
                change = (corrupt[source] - clean[source]) * pairs.mask[:, :, None]
                total[name] = total[name] - (change * slopes[reader]).sum((1, 2))
        return torch.stack([total[name].mean() / len(mixtures) for name in names])

    return attribute


def test_scores_are_the_chain_rule_on_a_stream_for_each_reader(
    variant: str, make: Make, pairs: Pairs, by_hand: Callable[..., torch.Tensor]
) -> None:
    model, mixtures = make(variant), (0.0, 0.3, 1.0)
    names = Edges().graph(model).edges
    found = attribute_edges(model, pairs, Edges(), mixtures, batch_size=2)
    expected = by_hand(variant, model, pairs, names, mixtures)
    assert (found - expected).abs().max() <= 1e-5 * max(1.0, float(expected.abs().max()))
    assert expected.abs().median() > 1e-3


@pytest.mark.parametrize("pairs", ["ragged"], indirect=True)
def test_scores_are_means_over_pairs_whatever_the_size_of_batches(make: Make, pairs: Pairs) -> None:
    model = make("llama")
    alone = [attribute_edges(model, pairs[row : row + 1], Edges(), [0.5, 1.0], 1) for row in range(len(pairs))]
    for batch_size in (2, 3, 99):
        found = attribute_edges(model, pairs, Edges(), [0.5, 1.0], batch_size)
        assert (found - torch.stack(alone).mean(0)).abs().max() < 1e-5


@pytest.mark.parametrize("pairs", ["ragged"], indirect=True)
@pytest.mark.parametrize("variant", ["llama", "gemma3"], indirect=True)
def test_edges_into_a_shared_key_add_up_to_the_grouped_edge(variant: str, make: Make, pairs: Pairs) -> None:
    model = make(variant)
    apart = attribute_edges(model, pairs, Edges(), [0.0, 1.0], 5)
    together = attribute_edges(model, pairs, Edges(grouped=True), [0.0, 1.0], 5)
    names = Edges(grouped=True).graph(model).edges
    expected = torch.zeros(len(names))
    for name, score in zip(Edges().graph(model).edges, apart, strict=True):
        source, destination = name.split("->")
        layer, _, reader = destination.partition(".")
        if reader.endswith(("<k>", "<v>")):
            destination = f"{layer}.kv{int(reader[1]) // 2}{reader[2:]}"
        expected[names.number(f"{source}->{destination}")] += score
    assert (together - expected).abs().max() < 1e-5


def test_shared_keys_that_are_normed_together_are_scored_together(make: Make, even: Pairs) -> None:
    found = attribute_edges(make("olmo2-shared"), even, Edges(grouped=True), [1.0], 5)
    assert found.isfinite().all()


def cut_by(model: ip.Model, pairs: Pairs, edge: str, share: float) -> torch.Tensor:
    """The mean behaviour with one edge cut by a share."""
    graph, first = Edges().graph(model), first_difference(pairs)
    values = torch.zeros(graph.n_edges, dtype=model.dtype)
    values[graph.edges.number(edge)] = share
    with model.trace() as t:
        with t.world("corrupt", pairs.corrupt_batch()):
            corrupt = all_written(model, first)
        with t.world("clean", pairs.clean_batch()):
            cut_edges(model, graph, corrupt, t.input("cut", table_of(values, graph)), first)
            mean = logit_difference(model, t, pairs).mean().save()
    return mean


@pytest.mark.parametrize("pairs", ["ragged"], indirect=True)
@pytest.mark.parametrize("edge", ["a0.h1->a1.h2<q>", "input->a0.h3<k>", "m0->m1", "a1.h0->logits"])
def test_a_score_is_the_slope_of_cutting_its_edge_a_little(edge: str, make: Make, pairs: Pairs) -> None:
    # GPT-2's norms take part in double precision; others compute in single whatever they are given.
    model = make("gpt2", PRECISE)
    scores = dict(zip(Edges().graph(model).edges, attribute_edges(model, pairs, Edges(), [1.0], 5), strict=True))
    step = 1e-5
    slope = (cut_by(model, pairs, edge, -step) - cut_by(model, pairs, edge, step)) / (2 * step)
    assert float(slope) == pytest.approx(float(scores[edge]), rel=1e-5)
    assert abs(float(slope)) > 1e-3


def leaving_input(model: ip.Model, scores: torch.Tensor) -> float:
    names = Edges().graph(model).edges
    return sum(float(score) for name, score in zip(names, scores, strict=True) if name.startswith("input->"))


# Those whose behaviour changes smoothly enough along the path for 25 steps.
@pytest.mark.parametrize(
    "variant", ["gpt2", "neox", "neox-sequential", "llama", "gemma3", "olmo2", "phi3"], indirect=True
)
@pytest.mark.parametrize("pairs", ["ragged"], indirect=True)
def test_on_a_fine_path_the_edges_that_leave_the_input_add_up_to_the_whole_effect(
    variant: str, make: Make, pairs: Pairs
) -> None:
    model = make(variant)
    found = behaviour(model, pairs)
    effect = float((found["clean"] - found["corrupt"]).mean())
    steps = 25
    ends = [leaving_input(model, attribute_edges(model, pairs, Edges(), [end], 5)) for end in (0.0, 1.0)]
    path = leaving_input(model, attribute_edges(model, pairs, Edges(), [k / steps for k in range(steps)], 5))
    # A sum from the left misses half a step of what the slope changes along the way; the trapezium puts it back.
    missed = (ends[1] - ends[0]) / (2 * steps)
    assert path + missed == pytest.approx(effect, abs=0.02 * abs(effect))
    assert abs(path - effect) < 2 * abs(missed) + 0.02 * abs(effect)
    # Neither end alone gives the effect, so the sum is not right by luck.
    assert min(abs(end - effect) for end in ends) > 0.05 * abs(effect)


def test_progress_is_told_for_every_batch_and_step(make: Make, even: Pairs) -> None:
    told: list[tuple[str, int, int]] = []
    with watching(lambda *progress: told.append(progress)):
        attribute_edges(make("gpt2"), even, Edges(), [0.0, 0.5], batch_size=2)
    assert told == [("attributing edges", done, 6) for done in range(7)]


def test_scoring_leaves_the_network_as_it_was(make: Make, even: Pairs) -> None:
    model = make("gemma3")
    batch = even.clean_batch().kwargs
    before = model.network(**batch).logits
    attribute_edges(model, even, Edges(), [1.0], 5)
    assert torch.equal(model.network(**batch).logits, before)
    assert all(weight.grad is None and not weight.requires_grad for weight in model.network.parameters())


def test_sums_of_short_numbers_are_added_up_in_long_ones(make: Make) -> None:
    """With numbers of eight bits a sum of thousands would be right to one part in hundreds."""
    model = make("olmo2", torch.bfloat16)  # whose readers have no norm before them
    graph, (rows, positions, width, heads) = Edges().graph(model), (40, 50, 24, 4)
    random = torch.Generator().manual_seed(0)

    def draw(*last: int) -> torch.Tensor:
        return (torch.randn(rows, positions, *last, generator=random) + 0.1).to(torch.bfloat16)

    ends = [
        {"embed": draw(width)} | {f"z{i}": draw(heads, 6) for i in (0, 1)} | {f"mlp{i}": draw(width) for i in (0, 1)}
        for _ in range(2)
    ]
    slopes = {f"{kind}{i}": draw(heads, 6) for kind in "qkv" for i in (0, 1)} | {f"in{i}": draw(width) for i in (0, 1)}
    streams = {name: draw(width) for name in ("stream0", "mid0", "stream1", "mid1", "stream2", "logits")}
    found = dict(zip(graph.edges, EdgeSums(model, graph)(*ends, slopes | streams).tolist(), strict=True))
    corrupt, clean = ends
    attn = model.network.get_submodule("model.layers.1.self_attn")
    query = attn.get_submodule("q_proj").weight.unflatten(0, (heads, -1))[2].double()
    for edge, source, slope in (
        ("input->a1.h2<q>", "embed", slopes["q1"][:, :, 2].double() @ query),
        ("m0->a1.h2<q>", "mlp0", slopes["q1"][:, :, 2].double() @ query),
        ("m0->m1", "mlp0", slopes["in1"].double()),
    ):
        expected = float(((corrupt[source].double() - clean[source].double()) * slope).sum())
        assert found[edge] == pytest.approx(expected, rel=1e-4)
        assert abs(expected) > 1


def most_held(run: Callable[[], Any], folder: Path) -> int:
    """The most bytes that tensors take up at one time while something runs, beyond those that were there before."""
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profile:
        run()
    profile.export_chrome_trace(str(folder / "trace.json"))
    events = json.loads((folder / "trace.json").read_text(encoding="utf-8"))["traceEvents"]
    held = peak = 0
    for event in sorted((e for e in events if e["name"] == "[memory]"), key=lambda e: e["ts"]):
        held += event["args"]["Bytes"]
        peak = max(peak, held)
    return peak


SIZES = {"layers": 4, "heads": 16, "width": 128, "neurons": 512, "vocab": 64}
SPECIAL = {"pad_token_id": 0, "bos_token_id": 0, "eos_token_id": 0}


@pytest.mark.parametrize(
    ("family", "more", "mixtures"),
    [
        ("gpt2", {"positions": 64}, (1.0,)),
        ("llama", {"kv_heads": 4}, (0.5,)),
        ("gemma2", {"kv_heads": 4, "head_width": 8}, (0.0, 0.5)),
    ],
    ids=["gpt2", "llama", "gemma2"],
)
def test_attribution_holds_little_more_than_one_forward_and_backward(
    family: str, more: dict[str, int], mixtures: tuple[float, ...], tmp_path: Path
) -> None:
    model = ip.build(family, **SIZES, **SPECIAL, **more)
    clean = torch.randint(2, 64, (16, 40), generator=torch.Generator().manual_seed(0))
    corrupt = clean.clone()
    corrupt[:, 0] = (clean[:, 0] + 11) % 60 + 2  # so that every position counts
    names, answers = tuple(map(str, range(16))), torch.full((16,), 3)
    pairs = Pairs(names, names, clean, corrupt, torch.ones_like(clean, dtype=torch.bool), answers, answers + 1, {})

    def stock() -> None:
        embed = model.network.get_input_embeddings()(clean).detach().requires_grad_()
        logits = model.network(inputs_embeds=embed, use_cache=False, logits_to_keep=1).logits[:, -1]
        torch.autograd.grad((logits[:, 3] - logits[:, 4]).sum(), embed)

    def attribute() -> None:
        attribute_edges(model, pairs, Edges(), mixtures, 16)

    assert most_held(attribute, tmp_path) <= 1.5 * most_held(stock, tmp_path)
