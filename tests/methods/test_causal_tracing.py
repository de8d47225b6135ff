"""Causal tracing against hooks on the stock network, and a model on which it must differ from activation patching."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

import interpose as ip
from interpose.errors import SearchError
from interpose.mediators import AttentionBlocks, Edges, Heads, MLPs, Nodes, Positions, Streams, TokenRoles
from interpose.methods import ActivationPatching, CausalTracing
from interpose.search.behaviour import behaviour
from interpose.search.edge_patching import EdgePatching
from interpose.tasks.base import Pairs

Make = Callable[[str], ip.Model]
EMBED = {"gpt2": "transformer.wte", "neox": "gpt_neox.embed_in", "llama": "model.embed_tokens"}
LAYERS = {"gpt2": "transformer.h", "neox": "gpt_neox.layers", "llama": "model.layers"}


def traced(
    model: ip.Model, variant: str, pairs: Pairs, restored: list[tuple[str, Any]], noise: Tensor | None = None
) -> Tensor:
    """The behaviour of each pair on the corrupt run, with the outputs of some modules, at an index, as in the clean."""
    network: Any = model.network
    clean: dict[str, Tensor] = {}

    def first(output: Any) -> Tensor:
        return output[0] if isinstance(output, tuple) else output

    def run(batch: Any, hooks: list[tuple[str, Any]]) -> Tensor:
        handles = [network.get_submodule(path).register_forward_hook(hook) for path, hook in hooks]
        with torch.no_grad():
            logits = network(**batch.kwargs).logits[:, -1]
        for handle in handles:
            handle.remove()
        rows = torch.arange(len(pairs))
        return logits[rows, pairs.answers] - logits[rows, pairs.wrong]

    def keep(path: str) -> Any:
        return path, lambda _, __, output: clean.update({path: first(output).clone()})

    def restore(path: str, index: Any) -> Any:
        def hook(_: Any, __: Any, output: Any) -> Any:
            new = first(output).clone()
            new[index] = clean[path][index]
            return (new, *output[1:]) if isinstance(output, tuple) else new

        return path, hook

    run(pairs.clean_batch(), [keep(path) for path, _ in restored])
    hooks = [restore(path, index) for path, index in restored]
    if noise is None:
        return run(pairs.corrupt_batch(), hooks)
    return run(pairs.clean_batch(), [(EMBED[variant], lambda _, __, output: output + noise), *hooks])


EVERYWHERE = slice(None)


@pytest.mark.parametrize("pairs", ["ragged"], indirect=True)
@pytest.mark.parametrize("variant", list(EMBED))
def test_a_score_is_the_rise_under_a_hook_on_the_corrupt_run(variant: str, make: Make, pairs: Pairs) -> None:
    model = make(variant)
    scores = CausalTracing(batch_size=2).score(model, pairs, Streams())
    corrupt = traced(model, variant, pairs, []).mean()
    paths = [f"{LAYERS[variant]}.{layer}" for layer in range(2)]
    expected = [float(traced(model, variant, pairs, [(path, EVERYWHERE)]).mean() - corrupt) for path in paths]
    assert scores.values.tolist() == pytest.approx(expected, abs=3e-5)
    assert max(map(abs, expected)) > 0.01


def test_the_last_stream_restores_everything(make: Make, pairs: Pairs) -> None:
    model = make("llama")
    found = behaviour(model, pairs)
    whole = float((found["clean"] - found["corrupt"]).mean())
    assert CausalTracing().score(model, pairs, Positions(last=2))["s1@-1"] == pytest.approx(whole, abs=1e-5)
    assert CausalTracing(share=True).score(model, pairs, Streams())["s1"] == pytest.approx(1.0, abs=1e-5)
    share = CausalTracing(share=True).score(model, pairs, Heads()).values
    assert torch.allclose(share * whole, CausalTracing().score(model, pairs, Heads()).values, atol=1e-5)


def test_a_window_restores_the_layers_around_too(make: Make, even: Pairs) -> None:
    model = make("gpt2")
    both = [(f"transformer.h.{layer}.mlp", EVERYWHERE) for layer in range(2)]
    corrupt = traced(model, "gpt2", even, []).mean()
    expected = [float(traced(model, "gpt2", even, some).mean() - corrupt) for some in ([both[0]], both)]
    assert CausalTracing(window=2).score(model, even, MLPs()).values.tolist() == pytest.approx(expected, abs=1e-5)
    found = CausalTracing(window=3).score(model, even, MLPs()).values.tolist()
    assert found == pytest.approx([expected[1]] * 2, abs=1e-5)
    assert abs(expected[0] - expected[1]) > 1e-3


def test_a_window_at_roles_moves_from_layer_to_layer() -> None:
    torch.manual_seed(2)
    model = ip.build("gpt2", layers=5, heads=2, width=24, vocab=50, positions=16, pad_token_id=0)
    with torch.no_grad():
        for weight in model.network.parameters():
            weight.mul_(4)
    clean = torch.randint(2, 50, (2, 6), generator=torch.Generator().manual_seed(3))
    corrupt = torch.where(torch.arange(6) == 2, clean.flip(0), clean)
    names, mask, answers = ("a", "b"), torch.ones_like(clean, dtype=torch.bool), torch.tensor([3, 4])
    where = torch.tensor([-3, -4])
    pairs = Pairs(
        names, names, clean, corrupt, mask, answers, answers + 9, roles={"end": torch.tensor([-1, -1]), "x": where}
    )
    scores = CausalTracing(window=3).score(model, pairs, TokenRoles(of=AttentionBlocks()))
    base = traced(model, "gpt2", pairs, []).mean()
    expected = []
    for layer in range(5):
        near = [f"transformer.h.{other}.attn" for other in range(max(layer - 1, 0), min(layer + 2, 5))]
        for positions in pairs.roles.values():
            some = [(path, (torch.arange(2), positions)) for path in near]
            expected.append(float(traced(model, "gpt2", pairs, some).mean() - base))
    assert scores.values.tolist() == pytest.approx(expected, abs=3e-5)
    assert len({round(value, 4) for value in expected}) > 5


@pytest.mark.parametrize("variant", ["gpt2", "llama"])
def test_noise_is_added_to_the_tokens_that_differ(variant: str, make: Make, pairs: Pairs) -> None:
    model = make(variant)
    scores = CausalTracing(noise=3.0, draws=2, seed=4, batch_size=2).score(model, pairs, Streams())
    with torch.no_grad():
        embed: Tensor = model.network.get_submodule(EMBED[variant])(pairs.clean_tokens)
    generator, total = torch.Generator().manual_seed(4), torch.zeros(2)
    for _ in range(2):
        noise = (
            torch.randn(embed.shape, generator=generator, dtype=torch.float64) * 3 * embed[pairs.differs].double().std()
        )
        noise = (noise * pairs.differs[:, :, None]).float()
        corrupt = traced(model, variant, pairs, [], noise).mean()
        for layer in range(2):
            restored = traced(model, variant, pairs, [(f"{LAYERS[variant]}.{layer}", EVERYWHERE)], noise)
            total[layer] += restored.mean() - corrupt
    assert scores.values.tolist() == pytest.approx((total / 2).tolist(), abs=3e-5)
    assert total.abs().max() > 0.01


def test_noise_goes_to_the_roles_that_are_named_and_is_undone_at_the_embedding(make: Make, even: Pairs) -> None:
    model, pairs = make("gpt2"), replace(even, roles={"x": torch.tensor([-2, -3, -2])})
    where = torch.zeros(3, 6, dtype=torch.bool)
    where[torch.arange(3), pairs.roles["x"]] = True
    method = CausalTracing(noise=1.0, noised=("x",), draws=1, share=True)
    scores = method.score(model, pairs, Nodes())
    assert scores["input"] == pytest.approx(1.0, abs=1e-5)
    assert scores["a0.h0"] != pytest.approx(1.0, abs=1e-3)
    noisy = replace(pairs, corrupt_tokens=torch.where(where, pairs.clean_tokens.roll(1, 0), pairs.clean_tokens))
    assert torch.equal(method.score(model, noisy, Nodes()).values, scores.values)  # whatever the corrupt prompts are
    other = replace(method, seed=1).score(model, pairs, Nodes())
    assert (other.values - scores.values).abs().max() > 1e-3


@pytest.mark.parametrize("pairs", ["ragged"], indirect=True)
def test_an_edge_is_restored_between_the_prompts(make: Make, pairs: Pairs) -> None:
    model = make("gpt2")
    scores = CausalTracing(batch_size=2).score(model, pairs, Edges())
    turned = replace(pairs, clean_tokens=pairs.corrupt_tokens, corrupt_tokens=pairs.clean_tokens)
    patching = EdgePatching(model, turned)
    masks = torch.ones(3, len(scores), dtype=torch.bool)
    masks[range(1, 3), [7, len(scores) - 1]] = False
    corrupt, *restored = patching(masks)
    expected = [float((each - corrupt).mean()) for each in restored]
    assert scores.values[[7, -1]].tolist() == pytest.approx(expected, abs=1e-5)


def test_a_part_that_is_needed_but_not_enough_scores_less_than_under_activation_patching(two_mlps: Any) -> None:
    model, pairs = two_mlps(1.5)
    assert ActivationPatching().score(model, pairs, MLPs())["m0"] == pytest.approx(2 * (1 + 4 * 0.5))
    assert CausalTracing().score(model, pairs, MLPs())["m0"] == pytest.approx(2 * 1)
    assert CausalTracing(share=True).score(model, pairs, MLPs())["m0"] == pytest.approx(1 / 3)


@pytest.mark.parametrize(
    ("settings", "units", "message"),
    [
        ({"window": 0}, Streams(), "at least one layer and one draw, but window is 0 and draws is 10."),
        ({"noise": 3.0, "draws": 0}, Streams(), "at least one layer and one draw, but window is 1 and draws is 0."),
        ({"noise": 0.0}, Streams(), "Noise has a width above zero, but noise is 0.0. None takes corrupt prompts."),
        (
            {"noise": 3.0},
            Edges(),
            "restores edges one by one between the prompts of a pair. Leave noise and window out",
        ),
        (
            {"window": 3},
            Heads(),
            "nothing to do with that of the same number in the next. Use a window with units that",
        ),
        ({"noise": 3.0, "noised": ("y",)}, Streams(), "These pairs have no role 'y'"),
    ],
)
def test_settings_that_mean_nothing_are_refused(
    settings: dict[str, Any], units: Any, message: str, make: Make, even: Pairs
) -> None:
    with pytest.raises(SearchError, match=message):
        CausalTracing(**settings).score(make("gpt2"), even, units)


def test_one_text_is_no_tuple_of_roles(make: Make, even: Pairs) -> None:
    method = CausalTracing(noise=3.0)
    object.__setattr__(method, "noised", "end")  # where types are not checked, as in a user's own session
    with pytest.raises(SearchError, match=r"noised is a tuple of names, but .* Write noised=\('end',\)."):
        method.score(make("gpt2"), even, Streams())


def test_pairs_that_do_not_differ_have_nothing_to_restore(make: Make, even: Pairs) -> None:
    same = replace(even, corrupt_tokens=even.clean_tokens)
    with pytest.raises(
        SearchError, match="no unit can restore a share of the difference. Take other pairs, or share=Fals"
    ):
        CausalTracing(share=True).score(make("gpt2"), same, Streams())
    with pytest.raises(SearchError, match="so no token gets noise. Name roles: noised."):
        CausalTracing(noise=3.0).score(make("gpt2"), same, Streams())
