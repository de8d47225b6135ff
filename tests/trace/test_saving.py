"""What is kept: plain tensors, structures, names; and what is not left behind."""

import gc
import weakref
from typing import Any

import pytest
import torch

import interpose as ip
from interpose.errors import InterposeError, TraceError


def test_a_saved_value_becomes_a_plain_detached_tensor(model: ip.Model, ids: torch.Tensor) -> None:
    with model.trace(ids) as t:
        stream = model.layers[1].output.save()
        last = model.logits[:, -1].save("last")
        gradient = ip.grad(last.sum(), stream).save("gradient")
    for value in (stream, last, gradient):
        assert type(value) is torch.Tensor
        assert not value.requires_grad
        assert value.grad_fn is None
        assert not value.is_meta
        assert value.device == model.device
    assert torch.equal(t.saved["last"], last)
    assert last.topk(5).values.shape == (2, 5)
    assert isinstance(repr(stream), str)
    assert float(stream.sum()) == float(t.saved["saved0"].sum())


def test_values_saved_in_lists_and_dictionaries_become_tensors_there(model: ip.Model, ids: torch.Tensor) -> None:
    with model.trace(ids):
        streams = [layer.output.save() for layer in model.layers]
        by_name = {}
        by_name["logits"] = model.logits.save()
        left, right = (part.save() for part in model.layers[0].output.chunk(2, -1))
    assert all(type(value) is torch.Tensor for value in [*streams, *by_name.values(), left, right])
    assert torch.equal(torch.cat([left, right], -1), streams[0])


def test_one_value_saved_twice_is_there_under_both_names(net: ip.Model, x: torch.Tensor) -> None:
    with net.trace(x) as t:
        h = net.module("0").output
        h.save("a")
        h.save("b")
    assert torch.equal(t.saved["a"], h)
    assert torch.equal(t.saved["b"], h)


class Pair(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = torch.nn.Linear(4, 4)

    def forward(self, x: torch.Tensor) -> dict[str, Any]:
        return {"twice": 2 * self.linear(x), "both": (x, [x + 1])}


def test_a_saved_structure_is_a_handle_that_can_only_be_read(x: torch.Tensor) -> None:
    model = ip.wrap(Pair())
    with model.trace(x):
        whole = model.output.save()
        second = model.output["both"][1][0].save()
    assert list(whole) == ["twice", "both"]
    assert "twice" in whole
    assert len(whole) == 2
    assert torch.equal(whole["twice"], 2 * model.network.linear(x))
    assert whole.keys() == {"twice": 0, "both": 0}.keys()
    assert torch.equal(second, x + 1)
    with pytest.raises(TraceError, match="read-only"):
        whole["twice"] = 0
    with pytest.raises(TraceError, match="read-only"):
        whole.twice = 0
    with pytest.raises(TraceError, match="this is a dict, no tensor; take an element of it"):
        torch.sum(whole)


def test_an_element_of_a_structure_is_read_and_written(x: torch.Tensor) -> None:
    model = ip.wrap(Pair())
    with model.trace(x):
        model.output["twice"][:, 0] = 5
        model.output["both"][1][0] *= 3
        whole = model.output.save()
    expected = 2 * model.network.linear(x).detach()
    expected[:, 0] = 5
    assert torch.equal(whole["twice"], expected)
    assert torch.equal(whole["both"][1][0], 3 * (x + 1))
    assert torch.equal(whole["both"][0], x)


def test_what_a_language_model_returns_is_read_by_attribute(model: ip.Model, gpt2: ip.Model, ids: torch.Tensor) -> None:
    with gpt2.trace(ids):
        whole = gpt2.output.save()
        last = gpt2.output.logits[:, -1].save()
    assert torch.equal(whole.logits[:, -1], last)
    assert type(whole.logits) is torch.Tensor
    assert whole["logits"] is whole.logits


def test_inputs_are_positional_and_named_arguments(model: ip.Model, ids: torch.Tensor) -> None:
    with model.trace(ids):
        inputs = model.module("model.layers.1").inputs.save()
        stream = model.layers[1].input.save()
        model.module("model.layers.2").inputs[0][0][:, -1] = 0
        zeroed = model.layers[2].input.save()
    assert torch.equal(inputs[0][0], stream)
    assert "attention_mask" in inputs[1]
    assert float(zeroed[:, -1].abs().max()) == 0
    assert float(zeroed[:, 0].abs().max()) > 0


def test_a_small_part_does_not_keep_the_whole_alive(model: ip.Model, ids: torch.Tensor) -> None:
    with model.trace(ids):
        last = model.logits[:, -1].save()
    assert last.untyped_storage().nbytes() == last.numel() * last.element_size()


def test_weights_that_are_saved_are_copies(net: ip.Model, x: torch.Tensor) -> None:
    before = net.network[0].weight.detach().clone()
    with net.trace(x):
        weight = (net.network[0].weight + 0 * net.module("0").output.sum()).save()
        itself = net.running().weight("0.weight").save()
    itself.zero_()
    weight.zero_()
    assert torch.equal(net.network[0].weight, before)


def test_nothing_that_was_not_saved_outlives_the_run(x: torch.Tensor) -> None:
    alive: list[Any] = []

    class Watched(torch.nn.Module):
        def forward(self, value: torch.Tensor) -> torch.Tensor:
            result = value + 1
            alive.append(weakref.ref(result))
            return result

    model = ip.wrap(torch.nn.Sequential(Watched(), Watched(), Watched()))
    gc.disable()  # nothing may wait for the collector
    try:
        with model.trace(x):
            h = model.module("0").output
            total = (h * 2 + model.module("1").output).sum().save()
            gradient = ip.grad(model.output.sum(), h).save()
        assert [ref() for ref in alive] == [None, None, None]
        with pytest.raises(InterposeError), model.trace(x):
            (model.module("1").output @ torch.ones(7, 7)).save()
        assert alive[-1]() is None
    finally:
        gc.enable()
    assert total.shape == ()
    assert gradient.shape == x.shape


def test_the_network_is_as_it_was(model: ip.Model, ids: torch.Tensor) -> None:
    network = model.network
    before = {name: (id(weight), weight._version) for name, weight in network.state_dict(keep_vars=True).items()}
    parts = {name: (id(module), set(module.__dict__), module.training) for name, module in network.named_modules()}
    config = dict(vars(network.config))
    with model.trace(ids):
        model.layers[1].attn.pattern[:] = 0.1
        model.layers[0].output[:, -1] = 0
        ip.grad(model.logits.sum(), model.layers[0].attn.q).save()
    with pytest.raises(InterposeError), model.trace(ids):
        model.layers[1].input = model.layers[2].output
        model.logits.save()
    assert {name: (id(w), w._version) for name, w in network.state_dict(keep_vars=True).items()} == before
    assert {n: (id(m), set(m.__dict__), m.training) for n, m in network.named_modules()} == parts
    assert vars(network.config) == config
    assert all(weight.grad is None for weight in network.parameters())
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in network.modules())


@pytest.mark.parametrize("where", ["block", "recording", "operation", "network", "gradient"])
def test_after_any_exception_everything_is_as_before(model: ip.Model, ids: torch.Tensor, where: str) -> None:
    with torch.no_grad():
        before = model.network(ids, use_cache=False).logits
    with pytest.raises((InterposeError, ZeroDivisionError)), model.trace(ids):
        model.layers[0].output[:, -1] = 0
        if where == "block":
            _ = 1 / 0
        elif where == "recording":
            _ = model.layers[0].output @ torch.ones(3, 3)
        elif where == "operation":
            model.layers[1].output = model.layers[0].output.gather(2, torch.full((2, 7, 24), 99))
        elif where == "network":
            model.module("model.layers.1.mlp.gate_proj").input = torch.ones(2, 7, 5)
        else:
            ip.grad(model.layers[0].output.sum(), model.layers[2].output).save()
        model.logits.save()
    with torch.no_grad():
        assert torch.equal(model.network(ids, use_cache=False).logits, before)
    with model.trace(ids):
        logits = model.logits.save()
    assert torch.equal(logits, before)


def test_what_a_module_returns_of_its_own_weights_is_a_copy(x: torch.Tensor) -> None:
    class Positions(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = torch.nn.Parameter(torch.randn(4, 4))
            self.register_buffer("table", torch.randn(4, 4))

        def forward(self, value: torch.Tensor) -> Any:
            return self.weight[:3], self.table[:3], self.weight

    class Network(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.positions = Positions()

        def forward(self, value: torch.Tensor) -> torch.Tensor:
            weight, table, _ = self.positions(value)
            return value + weight + table

    network = Network()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    model = ip.wrap(network)
    for _ in range(2):
        with model.trace(x):
            whole: Any = model.module("positions").output.save()
            part = model.module("positions").output[0].save()
            weight = model.module("positions").output[2].save()
        assert torch.equal(part, whole[0])
        for value in (*whole, part, weight):
            value.zero_()
        assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
        network.to(torch.float64).to(torch.float32)  # the weights are elsewhere then


def test_a_number_that_a_function_gave_is_a_number(model: ip.Model, ids: torch.Tensor) -> None:
    with model.trace(ids) as t:
        stream = model.layers[1].output.save()
        total = t.apply(lambda value: float(value.double().sum()), stream).save("total")
        count = t.apply(lambda value: value.numel(), stream).save()
        word = t.apply(lambda value: "word", stream).save()
    assert float(total) == t.saved["total"] == float(stream.double().sum())
    assert total + 1 == t.saved["total"] + 1
    assert f"{total:.3f}" == f"{t.saved['total']:.3f}"
    assert int(count) == stream.numel()
    assert isinstance(t.saved["total"], float)
    assert f"{word}" == "word"
    with pytest.raises(TraceError, match=r"this is a str, no tensor; `\.value` is the str itself\."):
        torch.abs(word)
    assert word.value == "word"


def test_a_list_of_steps_given_to_torch_says_what_to_write(model: ip.Model, ids: torch.Tensor) -> None:
    with model.generate(ids, max_new_tokens=3, stop=()) as t, t.steps():
        streams = model.layers[1].output[:, -1].save()
    with pytest.raises(TypeError, match=r"must be tuple of Tensors, not a value saved in steps \(write \[\*value\]\)"):
        torch.stack(streams)
    assert torch.stack([*streams]).shape == (3, 2, 24)
    with pytest.raises(TraceError, match=r"this is a list, no tensor; take an element of it, or .*torch\.stack"):
        streams + 1


def test_a_value_is_brought_to_the_cpu_in_the_block(model: ip.Model, ids: torch.Tensor) -> None:
    with model.trace(ids):
        here, there = model.layers[1].output.save(), model.layers[1].output.detach().cpu().save()
    assert torch.equal(here, there)
    assert there.device.type == "cpu"
