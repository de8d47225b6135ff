"""Attribution of nodes, heads and neurons against exact patching, autograd by hooks, and numbers worked out by hand."""

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

import interpose as ip
from interpose.errors import SearchError
from interpose.mediators import Edges, HeadInputs, Heads, MLPs, Neurons, Nodes, Positions, Streams, TokenRoles
from interpose.mediators.base import PlaceMediator
from interpose.methods import NAPIG, ActivationPatching, AttributionPatching
from interpose.methods.base import Method
from interpose.search.ablation import ABLATIONS
from interpose.search.behaviour import behaviour
from interpose.search.progress import watching
from interpose.tasks.base import Pairs

Make = Callable[..., ip.Model]
OneNeuron = Callable[[str], tuple[ip.Model, Pairs]]
Reads = tuple[float, float, float]
ROLES = {"subject": torch.tensor([-3, -1, -2]), "end": torch.tensor([-1, -1, -1])}
# Where a layer has its heads' mixes, and its MLP.
PARTS = {
    "gpt2": ("transformer.h", "attn.c_proj", "mlp", "mlp.c_proj"),
    "neox": ("gpt_neox.layers", "attention.dense", "mlp", "mlp.dense_4h_to_h"),
    "llama": ("model.layers", "self_attn.o_proj", "mlp", "mlp.down_proj"),
    "gemma3": ("model.layers", "self_attn.o_proj", "post_feedforward_layernorm", "mlp.down_proj"),
}


def scored(method: Method, model: ip.Model, pairs: Pairs, units: PlaceMediator) -> dict[str, float]:
    scores = method.score(model, pairs, units)
    return dict(zip(scores.units, scores.values.tolist(), strict=True))


def by_hooks(model: ip.Model, variant: str, pairs: Pairs) -> dict[str, float]:
    """Delta times slope at each head's mix, each MLP's output and each of its neurons, by hooks and autograd."""
    network: Any = model.network
    layers, mixes, mlp, down = PARTS[variant]
    held: dict[str, Tensor] = {}

    def before(name: str) -> Callable[..., Any]:
        def hook(_: Any, args: Any) -> Any:
            held[name] = args[0].detach().requires_grad_() if not args[0].requires_grad else args[0]
            return (held[name], *args[1:])

        return hook

    def after(name: str) -> Callable[..., None]:
        return lambda _, __, output: held.update({name: output})

    handles = []
    for number, layer in enumerate(network.get_submodule(layers)):
        handles.append(layer.get_submodule(mixes).register_forward_pre_hook(before(f"z{number}")))
        handles.append(layer.get_submodule(down).register_forward_pre_hook(before(f"n{number}")))
        handles.append(layer.get_submodule(mlp).register_forward_hook(after(f"m{number}")))

    def run(batch: Any) -> Tensor:
        logits = network(**batch.kwargs).logits[:, -1]
        rows = torch.arange(len(pairs))
        return (logits[rows, pairs.answers] - logits[rows, pairs.wrong]).sum()

    run(pairs.corrupt_batch())
    corrupt = {name: value.detach() for name, value in held.items()}
    slopes = dict(zip(held, torch.autograd.grad(run(pairs.clean_batch()), list(held.values())), strict=True))
    for handle in handles:
        handle.remove()
    found: dict[str, float] = {}
    for name, slope in slopes.items():
        product = -((corrupt[name] - held[name].detach()) * slope * pairs.mask[:, :, None]).sum((0, 1)) / len(pairs)
        if name[0] == "z":
            found |= {f"a{name[1:]}.h{head}": float(part.sum()) for head, part in enumerate(product.chunk(2))}
        elif name[0] == "n":
            found |= {f"m{name[1:]}.n{neuron}": float(value) for neuron, value in enumerate(product)}
        else:
            found[name] = float(product.sum())
    return found


@pytest.mark.parametrize("pairs", ["ragged"], indirect=True)
@pytest.mark.parametrize("variant", list(PARTS))
def test_a_score_is_the_change_times_the_slope_at_the_units_own_output(variant: str, make: Make, pairs: Pairs) -> None:
    """Of an MLP as of a head: the slope at what it reads, as published code seems to take it, gives no effect."""
    model = make(variant)
    expected = by_hooks(model, variant, pairs)
    for units in (Heads(), MLPs(), Neurons()):
        found = scored(AttributionPatching(batch_size=2), model, pairs, units)
        assert found == pytest.approx({name: expected[name] for name in found}, abs=2e-5, rel=1e-4)
        assert max(map(abs, found.values())) > 1e-3


@pytest.mark.parametrize("pairs", ["ragged"], indirect=True)
def test_on_a_linear_model_the_guess_is_the_exact_effect_of_every_kind_of_unit(linear: ip.Model, pairs: Pairs) -> None:
    pairs = replace(pairs, roles=ROLES)
    units = [Nodes(), HeadInputs(), Streams(), Positions(of=Heads()), TokenRoles(of=MLPs())]
    # The MLP of the linear Llama has no neurons.
    units += [Neurons()] if "Linear" not in str(type(linear.network.get_submodule(mlp_of(linear)))) else []
    for kind in units:
        exact = ActivationPatching().score(linear, pairs, kind).values
        for method in (AttributionPatching(), NAPIG(steps=2)):
            assert (method.score(linear, pairs, kind).values - exact).abs().max() < 3e-6
        assert exact.abs().max() > 1e-3


def mlp_of(model: ip.Model) -> str:
    return next(name for name, _ in model.network.named_modules() if name.endswith("0.mlp"))


@pytest.mark.parametrize("ablation", ABLATIONS[1:])
@pytest.mark.parametrize("pairs", ["ragged"], indirect=True)
@pytest.mark.parametrize("linear", ["gpt2"], indirect=True)
def test_on_a_linear_model_the_guess_is_exact_under_every_ablation(
    ablation: str, linear: ip.Model, pairs: Pairs
) -> None:
    for kind in (Nodes(), Positions(of=Neurons(), last=1)):
        exact = ActivationPatching(ablation=ablation).score(linear, pairs, kind).values
        guess = AttributionPatching(ablation=ablation).score(linear, pairs, kind).values
        assert (guess - exact).abs().max() < 5e-6
        assert (exact - ActivationPatching().score(linear, pairs, kind).values).abs().max() > 1e-2


def test_what_follows_a_square_is_exact_and_what_comes_before_it_misses_by_its_square(
    one_neuron: OneNeuron, neuron: Reads
) -> None:
    """The MLP's output and its neuron reach the logits straight: f(a) - f(b). At its input the slope would be 2a."""
    (model, pairs), (a, b, direct) = one_neuron("relu2"), neuron
    found = scored(AttributionPatching(), model, pairs, Nodes())
    assert found["m0"] == pytest.approx(a**2 - b**2) == pytest.approx(4.5)
    assert found["input"] == pytest.approx(direct + 2 * a * (a - b)) == pytest.approx(8.75)
    assert found["a0.h0"] == 0
    assert scored(AttributionPatching(), model, pairs, Neurons())["m0.n0"] == pytest.approx(a**2 - b**2)
    exact = scored(ActivationPatching(), model, pairs, Nodes())
    assert exact["input"] == pytest.approx(direct + a**2 - b**2)
    without = scored(AttributionPatching(ablation="zero"), model, pairs, Nodes())
    assert without == pytest.approx({"input": 2 * direct + 2 * a * (a - 0.25), "a0.h0": 0, "m0": a**2})


@pytest.mark.parametrize("steps", [1, 2, 12])
def test_steps_that_include_the_clean_end_overshoot_a_square_by_one_nth(
    steps: int, one_neuron: OneNeuron, neuron: Reads
) -> None:
    """The slopes 2(b + (a - b)k/n), k = 1 .. n, average to a + b + (a - b)/n; `EAPIG` is short by as much."""
    (model, pairs), (a, b, direct) = one_neuron("relu2"), neuron
    found = scored(NAPIG(steps=steps), model, pairs, Nodes())
    assert found["input"] == pytest.approx(direct + (a**2 - b**2) + (a - b) ** 2 / steps)
    assert found["m0"] == pytest.approx(a**2 - b**2)
    if steps == 1:
        assert found == pytest.approx(scored(AttributionPatching(), model, pairs, Nodes()))


def test_a_saturated_neuron_is_missed_by_its_slope_and_found_on_the_way(one_neuron: OneNeuron, neuron: Reads) -> None:
    (model, pairs), (a, b, direct) = one_neuron("tanh"), neuron
    exact = math.tanh(a) - math.tanh(b)
    guess = scored(AttributionPatching(), model, pairs, Nodes())["input"] - direct
    found = scored(NAPIG(steps=40), model, pairs, Nodes())["input"] - direct
    assert guess < 0.2 * exact
    assert abs(found - exact) < 0.05 * exact


@pytest.mark.parametrize("pairs", ["ragged"], indirect=True)
@pytest.mark.parametrize("variant", ["gpt2", "llama"])
def test_on_a_fine_path_the_input_has_the_whole_effect(variant: str, make: Make, pairs: Pairs) -> None:
    model, steps = make(variant), 50
    found = behaviour(model, pairs)
    effect = float((found["clean"] - found["corrupt"]).mean())
    path = scored(NAPIG(steps=steps), model, pairs, Nodes())["input"]
    assert path == pytest.approx(effect, abs=0.05 * abs(effect))
    assert abs(scored(AttributionPatching(), model, pairs, Nodes())["input"] - effect) > 0.1 * abs(effect)


def test_one_pass_serves_all_units(make: Make, even: Pairs) -> None:
    told: list[tuple[str, int, int]] = []
    with watching(lambda *progress: told.append(progress)):
        NAPIG(steps=2, batch_size=2).score(make("gpt2"), even, Neurons())
    assert told == [("attributing units", done, 4) for done in range(5)]


@pytest.mark.parametrize(
    ("method", "other"), [(AttributionPatching(), "EAP()"), (NAPIG(), "EAPIG()")], ids=["AttributionPatching", "NAPIG"]
)
def test_edges_are_refused(method: Method, other: str, make: Make, even: Pairs) -> None:
    with pytest.raises(SearchError) as failure:
        method.score(make("llama"), even, Edges())
    assert str(failure.value) == (
        f"{type(method).__name__} cannot score Edges(grouped=False). It scores places (Heads(), Neurons(), ...); for "
        f"Edges() use {other}."
    )


@pytest.mark.parametrize("steps", [0, -1])
def test_without_a_step_there_is_nothing_to_average(steps: int, make: Make, even: Pairs) -> None:
    with pytest.raises(SearchError) as failure:
        NAPIG(steps=steps).score(make("llama"), even, Heads())
    assert str(failure.value) == f"NAPIG needs at least one step, but steps is {steps}."
