"""Generation in every causal family and in T5: the tokens of transformers' own, also where every step is steered."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch

import interpose as ip
from interpose.errors import RunError, TraceError

LEFT_OUT, ALSO = ("bert", "vit"), ("gpt_neo",)
STEPS = 5
Batch = dict[str, torch.Tensor]
VECTOR = 50 * torch.randn(24, generator=torch.manual_seed(0))


def stock(model: ip.Model, batch: Batch) -> torch.Tensor:
    """What `generate` of transformers adds; for a decoder, behind the token that it begins with."""
    network: Any = model.network
    mask = batch.get("attention_mask", torch.ones_like(batch["input_ids"]))
    kept = {"do_sample": False, "eos_token_id": None, "pad_token_id": 0, "max_new_tokens": STEPS}
    return network.generate(batch["input_ids"], attention_mask=mask, **kept)[:, -STEPS:]


@contextmanager
def hooked(module: torch.nn.Module) -> Iterator[None]:
    """With the vector added at the newest position of what a module returns."""

    def add(_: Any, __: Any, output: Any) -> Any:
        stream, *rest = output if isinstance(output, tuple) else (output,)
        stream = torch.cat([stream[:, :-1], stream[:, -1:] + VECTOR], 1)
        return (stream, *rest) if isinstance(output, tuple) else stream

    handle = module.register_forward_hook(add)
    try:
        yield
    finally:
        handle.remove()


@pytest.fixture(scope="session")
def t5() -> ip.Model:
    torch.manual_seed(0)
    # Of a deeper decoder than encoder, `generate` of transformers makes too small a cache.
    given = {"layers": 3, "heads": 4, "width": 24, "neurons": 40, "vocab": 50, "num_decoder_layers": 2, "head_width": 6}
    model = ip.build("t5", **given)
    model.network.lm_head.weight = torch.nn.Parameter(torch.randn(50, 24))  # tied to what it reads, it repeats itself
    model.network.generation_config.decoder_start_token_id = 0
    with torch.no_grad():
        for name, weight in model.network.named_parameters():
            weight *= 1 if "norm" in name or name == "lm_head.weight" else 2
    return model


def test_the_tokens_are_those_of_transformers(model: ip.Model, batch: Batch) -> None:
    with model.generate(**batch, max_new_tokens=STEPS, stop=()) as t:
        pass
    assert torch.equal(t.tokens, stock(model, batch))


@pytest.mark.parametrize("batch", ["padded"], indirect=True)
def test_a_write_at_every_step_is_a_raw_hook(model: ip.Model, batch: Batch) -> None:
    with model.generate(**batch, max_new_tokens=STEPS, stop=()) as t, t.steps():
        model.layers[1].output[:, -1] += VECTOR
        pattern = model.layers[1].attn.pattern.save()
    with hooked(model.network.get_submodule(f"{model.table().layers}.1")):
        assert torch.equal(t.tokens, stock(model, batch))
    length = batch["input_ids"].shape[1]
    assert pattern[0].shape == (2, 4, length, length)
    assert all(weights.shape[2] == 1 for weights in pattern[1:])
    assert all(torch.allclose(weights[:, :, -1].sum(-1), torch.ones(())) for weights in pattern)


@pytest.mark.parametrize("variant", ["t5"])
def test_t5_begins_with_its_start_token_and_goes_on_alone(t5: ip.Model, batch: Batch) -> None:
    with t5.generate(**batch, max_new_tokens=STEPS, stop=()) as t:
        with t.step(0):
            encoded = t5.encoder.layers[1].output.save()
            assert t5.encoder.layers[1].output.shape == (2, 9, 24)
            assert t5.layers[0].input.shape == (2, 1, 24)
        with t.steps():
            stream = t5.layers[1].output
            kept = stream.save()
            assert stream.shape == (2, 1, 24)
    assert torch.equal(t.tokens, stock(t5, batch))
    assert len(kept) == STEPS
    start = torch.zeros(2, 1, dtype=torch.long)
    with t5.trace(**batch, decoder_input_ids=torch.cat([start, t.tokens[:, :-1]], 1)):
        whole, read = t5.layers[1].output.save(), t5.encoder.layers[1].output.save()
    assert torch.allclose(torch.cat(list(kept), 1), whole, atol=2e-5)
    assert torch.equal(encoded, read)


@pytest.mark.parametrize("variant", ["t5"])
@pytest.mark.parametrize("batch", ["padded"], indirect=True)
def test_t5_s_decoder_and_encoder_are_steered_as_by_raw_hooks(t5: ip.Model, batch: Batch) -> None:
    with t5.generate(**batch, max_new_tokens=STEPS, stop=()) as t, t.steps():
        t5.layers[1].output[:, -1] += VECTOR
    with hooked(t5.network.get_submodule("decoder.block.1")):
        assert torch.equal(t.tokens, stock(t5, batch))
    assert not torch.equal(t.tokens, stock(t5, batch))
    with t5.generate(**batch, max_new_tokens=STEPS, stop=()) as t, t.step(0):
        t5.encoder.layers[1].output[:, -1] += VECTOR
    with hooked(t5.network.get_submodule("encoder.block.1")):
        assert torch.equal(t.tokens, stock(t5, batch))
    assert not torch.equal(t.tokens, stock(t5, batch))


@pytest.mark.parametrize("variant", ["t5"])
@pytest.mark.parametrize("batch", ["even"], indirect=True)
def test_t5_s_encoder_runs_at_the_first_step_only(t5: ip.Model, batch: Batch) -> None:
    expected = r"without reaching encoder.layers\[1\].output"
    with pytest.raises(RunError, match=expected), t5.generate(**batch, max_new_tokens=3, stop=()) as t, t.steps():
        t5.encoder.layers[1].output.save()


@pytest.mark.parametrize("variant", ["t5"])
@pytest.mark.parametrize("batch", ["even"], indirect=True)
def test_t5_goes_on_from_what_its_decoder_is_given(t5: ip.Model, batch: Batch) -> None:
    with t5.generate(**batch, max_new_tokens=STEPS, stop=()) as t:
        pass
    begun = torch.cat([torch.zeros(2, 1, dtype=torch.long), t.tokens[:, :2]], 1)
    with t5.generate(**batch, decoder_input_ids=begun, max_new_tokens=STEPS - 2, stop=()) as rest, rest.step(0):
        assert t5.layers[0].input.shape == (2, 3, 24)
        t5.layers[0].input.save()
    assert torch.equal(rest.tokens, t.tokens[:, 2:])


@pytest.mark.parametrize("variant", ["t5"])
@pytest.mark.parametrize("batch", ["even"], indirect=True)
def test_a_decoder_without_a_start_token_is_refused(batch: Batch) -> None:
    fresh = ip.build("t5", layers=1, heads=2, width=8, neurons=8, vocab=50)
    with pytest.raises(TraceError, match=r"t5 does not say with which token its decoder begins. Write model.network"):
        fresh.generate(**batch, max_new_tokens=2)
