"""Circuits as objects: joined, compared, shown, and run as a model."""

import itertools
from collections.abc import Callable
from dataclasses import replace
from typing import Any
from xml.etree import ElementTree

import pytest
import torch

import interpose as ip
from interpose.errors import SearchError
from interpose.mediators import Edges
from interpose.models.stream import StreamGraph
from interpose.search import Circuit, Scores
from interpose.search.edge_patching import EdgePatching
from interpose.tasks.base import Pairs

Make = Callable[..., ip.Model]
GRAPH = StreamGraph(2, 2)
UNITS = ("a", "b", "c", "d", "e", "f")


def circuit(*inside: str) -> Circuit:
    return Circuit(torch.tensor([unit in inside for unit in UNITS]), UNITS, len(inside))


def edges(model: ip.Model, kept: float = 1.0) -> Circuit:
    graph = Edges().graph(model)
    mask = torch.rand(graph.n_edges, generator=torch.manual_seed(0)) < kept
    return Circuit(mask, graph.edges, int(mask.sum()))


def plain(model: ip.Model, pairs: Pairs) -> torch.Tensor:
    with torch.no_grad():
        return model.network(**pairs.clean_batch().kwargs).logits


# ------------------------------------------------------------------------------------------------------ sets


def test_circuits_are_joined_and_taken_apart_as_sets_are() -> None:
    one, other = circuit("a", "b", "c"), circuit("b", "c", "d")
    found = {name: getattr(one, name)(other) for name in ("union", "intersect", "difference")}
    assert {name: set(each.names()) for name, each in found.items()} == {
        "union": {"a", "b", "c", "d"},
        "intersect": {"b", "c"},
        "difference": {"a"},
    }
    assert all(each.n == len(each) and not each.pruned for each in found.values())
    other_units = Circuit(other.mask, tuple("abcdeg"), 3)
    for name in ("union", "intersect", "difference", "compare"):
        with pytest.raises(SearchError, match="not about the same units: unit 5 is f in one and g in the other"):
            getattr(one, name)(other_units)


def test_two_circuits_are_compared_beside_chance() -> None:
    found = circuit("a", "b", "c").compare(circuit("b", "c", "d", "e"))
    assert (found.shared.names(), found.only_first.names()) == (("b", "c"), ("a",))
    assert found.only_second.names() == ("d", "e")
    assert found.jaccard == 2 / 5
    drawn = [set(rest) for rest in itertools.combinations(UNITS, 4)]
    assert found.chance == pytest.approx(sum(len({"a", "b", "c"} & rest) for rest in drawn) / len(drawn))
    assert str(found).splitlines() == [
        "two circuits of 6 units (a, b, c, ...)",
        "shared                       2",
        "only in the first            1",
        "only in the second           2",
        "shared by chance           2.0",
        "Jaccard                  0.400",
    ]
    assert circuit().compare(circuit()).jaccard == 1.0


# ---------------------------------------------------------------------------------------------------- scores


def test_scores_are_compared_by_value_by_rank_and_by_the_best() -> None:
    first, second = torch.tensor([3.0, 1.0, 1.0, -2.0, 0.0, 5.0]), torch.tensor([2.0, 2.0, 1.0, -9.0, 0.5, 4.0])
    found = Scores(first, UNITS).compare(Scores(second, UNITS), top=(1, 3))
    assert found.pearson == pytest.approx(float(torch.corrcoef(torch.stack([first, second]))[0, 1]))
    ranks = torch.tensor([[5.0, 3.5, 3.5, 1.0, 2.0, 6.0], [4.5, 4.5, 3.0, 1.0, 2.0, 6.0]])
    assert found.spearman == pytest.approx(float(torch.corrcoef(ranks)[0, 1]))
    assert [tuple(overlap) for overlap in found.overlaps] == [(1, 1, 1 / 6), (3, 3, 1.5)]
    itself = Scores(first, UNITS).compare(Scores(first.clone(), UNITS))
    assert (itself.pearson, itself.spearman) == (pytest.approx(1), pytest.approx(1))
    opposite = Scores(first, UNITS).compare(Scores(-(first**3), UNITS))
    assert opposite.spearman == pytest.approx(-1)
    assert "best" in str(found) and "by chance" in str(found)


def test_sizes_are_round_and_scores_without_a_spread_have_no_correlation() -> None:
    values = torch.randn(2000, generator=torch.manual_seed(0))
    units = tuple(map(str, range(2000)))
    found = Scores(values, units).compare(Scores(torch.zeros(2000), units))
    assert [overlap.top for overlap in found.overlaps] == [10, 100, 1000]
    assert found.pearson != found.pearson
    assert found.spearman != found.spearman
    with pytest.raises(SearchError, match="Cannot compare the best 7 of 6 units. Write numbers from 1 to 6."):
        Scores(torch.zeros(6), UNITS).compare(Scores(torch.zeros(6), UNITS), top=[7])
    with pytest.raises(SearchError, match="not about the same units"):
        Scores(torch.zeros(6), UNITS).compare(Scores(torch.zeros(46), GRAPH.edges))


# -------------------------------------------------------------------------------------------------- notebooks


def test_notebooks_show_tables_and_names_stay_text() -> None:
    evil = ("<script>alert(1)</script>", *UNITS)
    scores = Scores(torch.arange(7.0) - 3, evil, {"task": "<b>"})
    chosen = Circuit(torch.ones(7, dtype=torch.bool), evil, 7)
    whole = Circuit(torch.ones(46, dtype=torch.bool), GRAPH.edges, 46)
    for shown in (scores, scores.top(7), chosen, scores.compare(scores), chosen.compare(chosen), whole):
        page = ElementTree.fromstring(f"<root>{shown._repr_html_()}</root>")
        assert not [each for each in page.iter() if each.tag in ("script", "b")]
        assert "".join(page.itertext())
    text = "".join(ElementTree.fromstring(f"<root>{whole._repr_html_()}</root>").itertext())
    assert "heads44" in text and "edges into logits77" in text
    assert evil[0] in "".join(ElementTree.fromstring(f"<root>{scores._repr_html_()}</root>").itertext())
    many = Scores(torch.arange(46.0) - 20, GRAPH.edges)._repr_html_()
    assert many.count("<rect") == 15 and "-20" in many
    names = Circuit(torch.ones(30, dtype=torch.bool), tuple(f"u{i}" for i in range(30)), 30)._repr_html_()
    assert "u19" in names and "u20" not in names and "and 10 more" in names


# ------------------------------------------------------------------------------------------------ as a model


@pytest.mark.parametrize("pairs", ["ragged"], indirect=True)
def test_a_full_circuit_is_the_plain_model(variant: str, make: Make, pairs: Pairs) -> None:
    model = make(variant)
    with model.trace(pairs.clean_batch()):
        edges(model).keep(model)
        logits = model.logits.save()
    real, wanted = pairs.mask, plain(model, pairs)
    assert (logits - wanted)[real].abs().max() <= 1e-5 * max(1.0, float(wanted.abs().max()))


@pytest.mark.parametrize("pairs", ["ragged"], indirect=True)
def test_without_its_outgoing_edges_a_head_is_a_head_of_zeros_or_of_its_mean(
    variant: str, make: Make, pairs: Pairs
) -> None:
    model, whole = make(variant), edges(make(variant))
    means = whole.mean(model, pairs.clean_batch())
    names, head = whole.graph.edges, whole.graph.head(1, 2)
    mask = torch.tensor([not name.startswith("a1.h2->") for name in names])
    for mean in (None, means):
        with model.trace(pairs.clean_batch()):
            replace(whole, mask=mask).keep(model, mean)
            found = model.logits.save()
        with model.trace(pairs.clean_batch()):
            result = model.layers[1].attn.result
            model.layers[1].attn.result[:, :, 2] = torch.zeros(24) if mean is None else means[head]
            wanted = model.logits.save()
            result.save()
        scale = max(1.0, float(wanted.abs().max()))
        assert (found - wanted)[pairs.mask].abs().max() <= 2e-5 * scale
        assert (found - plain(model, pairs))[pairs.mask].abs().max() > 1e-3 * scale


@pytest.mark.parametrize("variant", ["gpt2", "neox", "gemma3"])
def test_zeros_are_what_a_corrupt_world_of_zeros_gives(variant: str, make: Make, even: Pairs) -> None:
    model = make(variant)
    corrupt = even.corrupt_tokens.clone()
    corrupt[:, 0] = (even.clean_tokens[:, 0] + 5) % 50  # they differ from the first position on
    pairs = replace(even, corrupt_tokens=corrupt)
    chosen, patching = edges(model, 0.9), EdgePatching(model, pairs)
    patching._corrupt = [torch.zeros_like(written) for written in patching._corrupt]
    (wanted,) = patching(chosen.mask[None])
    with model.trace(pairs.clean_batch()):
        chosen.keep(model)
        logits = model.logits[:, -1].save()
    rows = torch.arange(len(pairs))
    found = logits[rows, pairs.answers] - logits[rows, pairs.wrong]
    assert (found - wanted).abs().max() <= 1e-5 * max(1.0, float(logits.abs().max()))


def test_the_program_of_a_circuit_runs_on_other_prompts(make: Make, even: Pairs) -> None:
    model = make("llama")
    chosen = edges(model, 0.9)
    block = chosen.program(model)
    assert [world.name for world in block.graph.worlds] == ["main"]
    with model.trace(even.clean_batch(), run=False) as t:
        chosen.keep(model)
    assert block.graph == t.graph, "the graph does not depend on the prompts"


def test_means_are_over_all_real_tokens_of_all_prompts(make: Make, pairs: Pairs) -> None:
    model = make("gpt2")
    means = edges(model).mean(model, pairs.clean_batch())
    with model.trace(pairs.clean_batch()):
        embed, mlp = model.embed.save(), model.layers[1].mlp.output.save()
        heads = model.layers[0].attn.result.save()
    graph = Edges().graph(model)
    for source, values in ((0, embed), (graph.mlp(1), mlp), (graph.head(0, 3), heads[:, :, 3])):
        assert torch.allclose(means[source], values[pairs.mask].mean(0), atol=1e-5)


def test_prompts_in_parts_have_the_mean_of_the_whole(make: Make) -> None:
    class Letters:
        pad_token_id = eos_token_id = 0

        def __call__(self, text: str) -> dict[str, list[int]]:
            return {"input_ids": [ord(letter) % 50 for letter in text]}

    built = make("llama")
    model: Any = ip.wrap(built.network, tokenizer=Letters())
    texts = ["abc", "de", "fghij", "k", "lm"]
    whole = edges(model)
    assert torch.allclose(whole.mean(model, texts, batch_size=2), whole.mean(model, model.tokens(texts)), atol=1e-6)


def test_a_circuit_of_another_model_or_kind_is_refused(make: Make, even: Pairs) -> None:
    model = make("llama")
    with pytest.raises(SearchError, match="This circuit is of another model: it has the edges of"):
        Circuit(torch.ones(46, dtype=torch.bool), GRAPH.edges, 46).program(model)
    with pytest.raises(SearchError, match="Only edges have a graph"):
        circuit("a").program(model)
    with pytest.raises(SearchError, match=r"The means are of shape \[3, 3\]; expected \[11, 24\], one row a source"):
        edges(model).program(model, torch.zeros(3, 3))
