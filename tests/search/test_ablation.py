"""What a cut edge carries: zeros and means, against hooks on the stock network and circuits run by hand."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

import interpose as ip
from interpose.errors import SearchError
from interpose.graph import Site
from interpose.mediators import Edges
from interpose.search.ablation import ABLATIONS, Held, written_instead
from interpose.search.attribution import attribute_edges
from interpose.search.edge_patching import EdgePatching
from interpose.tasks.base import Pairs

Make = Callable[..., ip.Model]
MEANS = ("mean", "mean-positional")


def hooked(model: ip.Model, pairs: Pairs) -> dict[str, Tensor]:
    """What every source of a tiny GPT-2 writes on the clean prompts, by hooks [pair, position, width]."""
    network: Any = model.network
    wrote: dict[str, Tensor] = {}
    handles = [network.transformer.wte.register_forward_hook(lambda *seen: wrote.update(input=seen[2]))]
    for number, block in enumerate(network.transformer.h):

        def heads(module: Any, args: Any, _: Any, number: int = number) -> None:
            for head, mixed in enumerate(args[0].chunk(4, -1)):
                wrote[f"a{number}.h{head}"] = mixed @ module.weight[6 * head : 6 * head + 6]

        def mlp(_: Any, __: Any, output: Tensor, number: int = number) -> None:
            wrote[f"m{number}"] = output

        handles += [block.attn.c_proj.register_forward_hook(heads), block.mlp.register_forward_hook(mlp)]
    with torch.no_grad():
        network(**pairs.clean_batch().kwargs)
    for handle in handles:
        handle.remove()
    return wrote


def means_by_hand(wrote: dict[str, Tensor], pairs: Pairs, ablation: str) -> dict[str, Tensor]:
    """One token after the other; positions that no prompt reaches are zero."""
    found = {}
    for name, value in wrote.items():
        rows = [[value[i, p] for i in range(len(pairs)) if pairs.mask[i, p]] for p in range(pairs.mask.shape[1])]
        if ablation == "mean":
            found[name] = torch.stack([x for row in rows for x in row]).mean(0).expand(len(rows), -1)
        else:
            found[name] = torch.stack([torch.stack(row).mean(0) if row else torch.zeros(24) for row in rows])
    return found


@pytest.mark.parametrize("ablation", MEANS)
@pytest.mark.parametrize("pairs", ["ragged"], indirect=True)
def test_every_node_has_a_mean_of_its_own_over_all_real_tokens(ablation: str, make: Make, pairs: Pairs) -> None:
    """Not the mean over nodes, and not of last tokens, as a published implementation seems to take it."""
    model = make("gpt2")
    graph = Edges().graph(model)
    expected = means_by_hand(hooked(model, pairs), pairs, ablation)
    for batch_size in (2, 5):
        found = written_instead(model, graph, pairs, ablation, batch_size)
        assert found is not None
        assert found.shape == (graph.n_sources, 1, 1 if ablation == "mean" else 7, 24)
        for row, name in zip(found[:, 0], graph.sources, strict=True):
            assert (row - expected[name]).abs().max() < 1e-6
    means = torch.stack(list(expected.values()))
    assert torch.pdist(means[:, -1]).min() > 0.1  # no two nodes are alike,
    last = torch.stack([value[:, -1].mean(0) for value in hooked(model, pairs).values()])
    if ablation == "mean":  # nor is a node's mean that of its last tokens
        assert (means[:, 0] - last).abs().amax(1).min() > 0.01


@pytest.mark.parametrize("ablation", MEANS)
def test_a_position_that_no_prompt_reaches_holds_zeros(ablation: str, make: Make, even: Pairs) -> None:
    pad = torch.zeros(len(even), 2, dtype=torch.long)
    padded = Pairs(
        even.clean,
        even.corrupt,
        torch.cat([pad, even.clean_tokens], 1),
        torch.cat([pad, even.corrupt_tokens], 1),
        torch.cat([pad.bool(), even.mask], 1),
        even.answers,
        even.wrong,
    )
    model = make("gpt2")
    plain = attribute_edges(model, even, Edges(), [1.0], 5, ablation)
    assert (attribute_edges(model, padded, Edges(), [1.0], 5, ablation) - plain).abs().max() < 1e-5
    found = written_instead(model, Edges().graph(model), padded, "mean-positional", 5)
    assert found is not None
    assert found[:, :, :2].abs().max() == 0 < found[:, :, 2:].abs().amax((0, 1, 3)).min()


@pytest.mark.parametrize("ablation", ABLATIONS[1:])
@pytest.mark.parametrize("pairs", ["ragged"], indirect=True)
@pytest.mark.parametrize("variant", ["gpt2", "neox", "llama", "gemma3", "olmo2"], indirect=True)
def test_a_cut_edge_carries_what_the_ablation_says(
    variant: str, ablation: str, make: Make, pairs: Pairs, split: Any, difference: Any
) -> None:
    """The forward pass by hand, with the same zeros and means, over circuits drawn at random."""
    model = make(variant)
    patching = EdgePatching(model, pairs, batch_size=3, ablation=ablation)
    names, random = patching.graph.edges, torch.Generator().manual_seed(0)
    masks = torch.rand(2, len(names), generator=random) < torch.tensor([[0.5], [0.9]])
    clean = split(variant, model.network)
    clean.run(pairs.clean_batch().kwargs)
    if ablation == "zero":
        held = {name: torch.zeros_like(value) for name, value in clean.now.items()}
    else:
        held = {name: mean.expand(5, -1, -1) for name, mean in means_by_hand(clean.now, pairs, ablation).items()}
    expected = []
    for mask in masks:
        cut = {names[int(edge)] for edge in (~mask).nonzero()}
        expected.append(difference(split(variant, model.network, cut, held).run(pairs.clean_batch().kwargs), pairs))
    found = torch.stack(list(patching(masks)))
    largest = max(1.0, float(torch.stack(expected).abs().max()))
    assert (found - torch.stack(expected)).abs().max() <= 2e-5 * largest


@pytest.mark.parametrize("pairs", ["ragged"], indirect=True)
def test_an_ablation_needs_no_difference_between_the_prompts(make: Make, pairs: Pairs) -> None:
    from dataclasses import replace

    model, same = make("gpt2"), replace(pairs, corrupt_tokens=pairs.clean_tokens)
    found = attribute_edges(model, same, Edges(), [1.0], 5, "zero")
    assert torch.equal(found, attribute_edges(model, pairs, Edges(), [1.0], 5, "zero"))
    with pytest.raises(SearchError, match="so there is nothing to search for"):
        attribute_edges(model, same, Edges(), [1.0], 5)


@pytest.mark.parametrize("ablation", ABLATIONS)
@pytest.mark.parametrize("pairs", ["ragged"], indirect=True)
def test_places_hold_what_hooks_find(ablation: str, make: Make, pairs: Pairs) -> None:
    model = make("gpt2")
    site = Site("layers.1.mlp.output")
    found = Held(model, [site], pairs, ablation, 2)(pairs[1:3])[site.name]
    wrote = hooked(model, pairs)
    if ablation == "counterfactual":
        swapped = Pairs(*[getattr(pairs, name) for name in ("corrupt", "clean", "corrupt_tokens", "clean_tokens")],
                        pairs.mask, pairs.answers, pairs.wrong)  # fmt: skip
        expected = hooked(model, swapped)["m1"][1:3]
    elif ablation == "zero":
        expected = torch.zeros(2, 7, 24)
    else:
        expected = means_by_hand(wrote, pairs, ablation)["m1"].expand(2, -1, -1)
    assert (found - expected)[pairs.mask[1:3]].abs().max() < 1e-6


def test_what_is_no_ablation_is_refused_with_those_there_are(make: Make, even: Pairs) -> None:
    model = make("gpt2")
    for refused in (
        lambda: EdgePatching(model, even, ablation="median"),
        lambda: attribute_edges(model, even, Edges(), [1.0], 5, "median"),
        lambda: Held(model, [Site("embed")], even, "median", 5),
    ):
        with pytest.raises(SearchError) as failure:
            refused()
        assert str(failure.value) == (
            "There is no ablation 'median'. Write one of 'counterfactual', 'zero', 'mean', 'mean-positional'."
        )


def test_a_place_without_one_axis_of_tokens_has_no_mean(make: Make, even: Pairs) -> None:
    with pytest.raises(SearchError) as failure:
        Held(make("gpt2"), [Site("layers.0.attn.pattern")], even, "mean", 5)
    assert str(failure.value) == (
        "The mean ablation averages over tokens, but layers.0.attn.pattern has no single axis of tokens. Write "
        "ablation='zero' or 'counterfactual'."
    )
