"""DCM, UGS and EdgePruning on models where the right mask is known."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch

import interpose as ip
from interpose.errors import SearchError
from interpose.mediators import Edges, HeadInputs, Heads, MLPs, Neurons, Nodes, Positions
from interpose.methods import DCM, UGS, EdgePruning
from interpose.methods.base import Method
from interpose.methods.ugs import EdgesAndHeads
from interpose.models.stream import StreamGraph
from interpose.search.progress import watching
from interpose.tasks.base import Pairs

Make = Callable[..., ip.Model]
Solved = tuple[ip.Model, Pairs]
ON_THE_WAY = {"input->m0", "m0->logits", "input->logits"}
"""In the model of one neuron: everything that changes between the prompts, and reaches the logits."""


@pytest.fixture
def one_head() -> Solved:
    """Two layers of two heads on prompts of two tokens; the behaviour is what head 0 of layer 1 brings from the first.

    Head 1 of each layer brings as much, of a feature that differs as much, to a token that nobody asks for.
    """
    sizes = {"layers": 2, "heads": 2, "width": 4, "neurons": 1, "vocab": 6, "positions": 4}
    special = {"pad_token_id": 0, "bos_token_id": 0, "eos_token_id": 0, "tie_word_embeddings": False}
    network: Any = ip.build("gpt2", **sizes, **special).network
    with torch.no_grad():
        for weight in network.parameters():
            weight.zero_()
        network.transformer.wte.weight[:3, :2] = torch.tensor([[0.0, 0.0], [1.0, 1.0], [-1.0, -1.0]])
        for layer, head, feature in ((1, 0, 0), (0, 1, 1), (1, 1, 1)):
            attn = network.transformer.h[layer].attn
            attn.c_attn.weight[feature, 8 + 2 * head] = 2.0
            attn.c_proj.weight[2 * head, 2 + feature] = 2.0
        network.lm_head.weight[3:, 2:] = torch.tensor([[1.0, 0.0], [-1.0, 0.0], [0.0, 1e-3]])
    for layer in network.transformer.h:
        layer.ln_1 = layer.ln_2 = torch.nn.Identity()
    network.transformer.ln_f = torch.nn.Identity()
    clean, corrupt = torch.tensor([[1, 0]]), torch.tensor([[2, 0]])
    mask = torch.ones(1, 2, dtype=torch.bool)
    return ip.wrap(network), Pairs(("c",), ("d",), clean, corrupt, mask, torch.tensor([3]), torch.tensor([4]))


def found(method: Method, solved: Solved, units: Any) -> dict[str, float]:
    scores = method.score(*solved, units)
    return dict(zip(scores.units, scores.values.tolist(), strict=True))


@pytest.mark.parametrize("keep", [False, True])
def test_dcm_finds_the_one_head(keep: bool, one_head: Solved) -> None:
    scores = found(DCM(steps=15, keep=keep), one_head, Heads())
    assert scores == {"a0.h0": 0, "a0.h1": 0, "a1.h0": 1, "a1.h1": 0}


def test_dcm_finds_its_value_and_nothing_of_its_query_and_key(one_head: Solved) -> None:
    scores = found(DCM(steps=15), one_head, HeadInputs())
    assert {name for name, score in scores.items() if score > 0} == {"a1.h0<v>"}
    assert scores["a1.h0<v>"] == 1


def test_dcm_finds_the_position_that_the_head_reads(one_head: Solved) -> None:
    scores = found(DCM(steps=15), one_head, Positions(of=HeadInputs()))
    assert {name for name, score in scores.items() if score > 0} == {"a1.h0<v>@-2"}


def test_dcm_finds_the_edges_of_the_head(one_head: Solved) -> None:
    scores = found(DCM(steps=20, keep=True), one_head, Edges())
    assert {name for name, score in scores.items() if score > 0.5} == {"input->a1.h0<v>", "a1.h0->logits"}


def test_a_way_is_kept_by_all_its_edges_and_broken_by_less(one_neuron: Callable[[str], Solved]) -> None:
    """Of input->m0 and m0->logits either is enough to break the way, so less than both is paid for; both keep it."""
    way = ("input->m0", "m0->logits")
    kept = found(DCM(steps=40, keep=True), one_neuron("relu"), Edges())
    broken = found(DCM(steps=40, sparsity=0.5), one_neuron("relu"), Edges())
    assert [kept[edge] for edge in way] == [1, 1]
    assert kept["input->logits"] == broken["input->logits"] == 1  # a way of one edge
    assert 1 <= sum(broken[edge] for edge in way) < 1.9


def test_dcm_finds_the_neuron(one_neuron: Callable[[str], Solved]) -> None:
    solved = one_neuron("relu")
    assert found(DCM(steps=15), solved, Neurons()) == {"m0.n0": 1}
    assert found(DCM(steps=15), solved, Heads()) == {"a0.h0": 0}
    assert found(DCM(steps=15), solved, MLPs()) == {"m0": 1}
    assert found(DCM(steps=15), solved, Nodes()) == {"input": 1, "a0.h0": 0, "m0": 1}


def test_a_unit_is_taken_if_it_is_worth_its_price(one_neuron: Callable[[str], Solved]) -> None:
    """The neuron moves the behaviour from 2.25 to 0.75, so it is worth 1.5 logits."""
    solved = one_neuron("relu")
    for keep in (False, True):
        cheap = found(DCM(steps=15, sparsity=1.4, keep=keep), solved, Neurons())
        dear = found(DCM(steps=15, sparsity=1.6, keep=keep), solved, Neurons())
        assert (cheap["m0.n0"], dear["m0.n0"]) == (1, 0)


EDGES: list[Method] = [DCM(steps=20, keep=True), UGS(steps=25, lr=0.5, pairs_per_step=8), EdgePruning(steps=30, lr=0.5)]


@pytest.mark.parametrize("method", EDGES, ids=lambda method: type(method).__name__)
def test_edges_on_the_way_are_kept_and_all_others_are_closed(
    method: Method, one_neuron: Callable[[str], Solved]
) -> None:
    scores = found(method, one_neuron("relu"), Edges())
    assert {name for name, score in scores.items() if score > 0.5} == ON_THE_WAY
    assert len(scores) == 8
    assert all(score < 0.2 for name, score in scores.items() if name not in ON_THE_WAY)


@pytest.mark.parametrize("method", EDGES[1:], ids=lambda method: type(method).__name__)
def test_edges_of_the_one_head_are_first(method: Method, one_head: Solved) -> None:
    """The other heads change a logit a little, far less than the price of an edge."""
    scores = method.score(*one_head, Edges())
    assert {row.unit for row in scores.top(2)} == {"input->a1.h0<v>", "a1.h0->logits"}
    assert scores.top(2)[1].score > 0.5 > scores.top(3)[2].score


def test_patience_ends_early(one_head: Solved) -> None:
    told: list[int] = []
    with watching(lambda what, done, total: told.append(done)):
        DCM(steps=500, patience=10).score(*one_head, Heads())
    assert 10 < max(told) < 60


def test_the_seed_decides_where_there_is_chance(make: Make, even: Pairs) -> None:
    model = make("llama")
    for method in (UGS(steps=3, pairs_per_step=2), EdgePruning(steps=3, pairs_per_step=2)):
        first, again = (method.score(model, even, Edges()).values for _ in range(2))
        other = replace(method, seed=1).score(model, even, Edges()).values  # type: ignore[call-arg]
        assert torch.equal(first, again)
        assert (first - other).abs().max() > 1e-4


@pytest.mark.parametrize("grouped", [False, True])
def test_the_price_of_heads_counts_every_edge_that_touches_one(grouped: bool) -> None:
    graph = StreamGraph(2, 4, grouped=grouped, kv_heads=2)
    sizes = torch.rand(graph.n_edges, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    total = 0.0
    for layer in range(2):
        for head in range(4):
            name, group = f"a{layer}.h{head}", f"a{layer}.kv{head // 2}"
            ends = {f"{name}<{kind}>" for kind in "qkv"} | {f"{group}<k>", f"{group}<v>"}
            touching = [
                size
                for edge, size in zip(graph.edges, sizes.tolist(), strict=True)
                if edge.split("->")[0] == name or edge.split("->")[1] in ends
            ]
            total += 4 * float(torch.tanh(torch.tensor(sum(touching) / 4)))
    price = float(EdgesAndHeads(graph, 0.5, 0.1)(sizes))
    assert price == pytest.approx(0.5 * float(sizes.sum()) + 0.1 * total, rel=1e-6)
    assert float(EdgesAndHeads(graph, 0.5, 0.0)(sizes)) == pytest.approx(0.5 * float(sizes.sum()))


@pytest.mark.parametrize(("sparsity", "rate"), [(1e-5, 0.03), (1e-4, 0.03), (5e-4, 0.02), (1e-3, 0.01)])
def test_the_learning_rate_of_ugs_follows_its_sparsity(sparsity: float, rate: float, make: Make, even: Pairs) -> None:
    """The first step of Adam is as long as the learning rate, for every edge that has a slope."""
    scores = UGS(steps=1, sparsity=sparsity, pairs_per_step=2).score(make("gpt2"), even, Edges())
    moved = (scores.values.logit() - 1).abs()
    assert moved.max() == pytest.approx(rate, rel=1e-3)


@pytest.mark.parametrize("method", [UGS(), EdgePruning()])
def test_only_edges_are_pruned(method: Method, make: Make, even: Pairs) -> None:
    with pytest.raises(SearchError) as failure:
        method.score(make("gpt2"), even, Heads())
    assert str(failure.value) == (
        f"{type(method).__name__} cannot score Heads(). It scores Edges(); for other units use DCM() or "
        "ActivationPatching()."
    )


@pytest.mark.parametrize("method", [DCM(steps=0), UGS(steps=0), EdgePruning(steps=0)])
def test_without_steps_nothing_is_fitted(method: Method, make: Make, even: Pairs) -> None:
    with pytest.raises(SearchError) as failure:
        method.score(make("gpt2"), even, Edges())
    assert str(failure.value) == "Training needs at least one step, but steps is 0."
