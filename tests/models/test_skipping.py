"""Skipping a layer, an attention or an MLP is writing what stands for it, in every family, or is refused."""

from collections.abc import Callable
from typing import Any

import pytest
import torch

import interpose as ip
from interpose.errors import SiteError

ALSO = ("gpt_neo",)
ALONE = r"No module makes layers\[1\]\.{}\.output by itself here, so none can be skipped; write a value to it instead"


def logits_after(model: ip.Model, batch: dict[str, Any], change: Callable[[Any], None]) -> torch.Tensor:
    with model.trace(**batch) as t:
        change(model.layers[1])
        model.logits.save("logits")
    return t.saved["logits"]


def pass_on(layer: Any) -> None:
    layer.output = layer.input


@pytest.mark.parametrize("batch", ["padded"], indirect=True)
def test_a_skipped_layer_gives_its_input(model: ip.Model, batch: dict[str, Any]) -> None:
    skipped = logits_after(model, batch, lambda layer: layer.skip())
    assert torch.equal(skipped, logits_after(model, batch, pass_on))


@pytest.mark.parametrize("part", ["attn", "mlp"])
@pytest.mark.parametrize("batch", ["padded"], indirect=True)
def test_a_skipped_part_adds_nothing(model: ip.Model, batch: dict[str, Any], part: str) -> None:
    # BLOOM's parts add the stream themselves; the MLP of OPT and BERT lies in the layer.
    if model.table().inner_sum or (part == "mlp" and (not model.table().mlp or model.table().flat_mlp)):
        with pytest.raises(SiteError, match=ALONE.format(part)):
            logits_after(model, batch, lambda layer: getattr(layer, part).skip())
        return
    skipped = logits_after(model, batch, lambda layer: getattr(layer, part).skip())
    assert torch.equal(skipped, logits_after(model, batch, lambda layer: setattr(getattr(layer, part), "output", 0)))


@pytest.mark.parametrize("batch", ["padded"], indirect=True)
def test_a_value_stands_for_a_skipped_part(model: ip.Model, batch: dict[str, Any]) -> None:
    if model.table().inner_sum:
        return
    vector = torch.linspace(-1, 1, model.sizes().width)
    skipped = logits_after(model, batch, lambda layer: layer.attn.skip(vector))
    assert torch.equal(skipped, logits_after(model, batch, lambda layer: setattr(layer.attn, "output", vector)))


def test_t5_s_mlps_are_skipped_in_both_stacks_and_its_layers_are_not() -> None:
    torch.manual_seed(0)
    model = ip.build("t5", layers=2, heads=2, width=8, neurons=16, vocab=50, head_width=4)
    ids = torch.tensor([[5, 17, 3]])
    given = {"input_ids": ids, "decoder_input_ids": ids[:, :2]}
    for stack in (lambda: model.layers, lambda: model.encoder.layers):
        with model.trace(**given):
            stack()[1].mlp.skip()
            skipped = model.logits.save()
        with model.trace(**given):
            stack()[1].mlp.output = 0
            written = model.logits.save()
        assert torch.equal(skipped, written)
        for place in (lambda: stack()[1], lambda: stack()[1].attn):  # noqa: B023
            with pytest.raises(SiteError, match=r"No module makes .*layers\[1\].* by itself"), model.trace(**given):
                place().skip()
                model.logits.save()
