"""What a block refuses, and the text that says what to write instead; the user's line comes first."""

import copy
import inspect
import math
import re
from collections.abc import Callable
from typing import Any

import numpy
import pytest
import torch

import interpose as ip
from interpose.errors import GraphError, InterposeError, RunError, ShapeError, SiteError, TraceError


def line_of(call: Callable[..., Any]) -> str:
    """This file and the line on which a function's body starts."""
    return re.escape(f"{__file__}:{inspect.getsourcelines(call)[1]}")


NUMBERS: list[tuple[Callable[[Any], Any], str]] = [
    (lambda h: bool(h), r"Use torch\.where"),
    (lambda h: 1 if h.sum() > 0 else 2, r"Use torch\.where"),
    (lambda h: not h, r"Use torch\.where"),
    (lambda h: float(h.sum()), r"write float\(saved\) after the block"),
    (lambda h: math.sqrt(h.sum()), r"write float\(saved\) after the block"),
    (lambda h: int(h.sum()), r"write int\(saved\) after the block"),
    (lambda h: [1, 2][h], "index a tensor of the block"),
    (lambda h: h.sum().item(), r"saved\.item\(\)"),
    (lambda h: h.tolist(), r"saved\.tolist\(\)"),
    (lambda h: h.numpy(), r"saved\.numpy\(\)"),
    (lambda h: numpy.asarray(h), "use numpy after the block"),
    (lambda h: f"{h.sum():.2f}", "format it after the block"),
    (lambda h: 3 in h, "Compare with =="),
    (lambda h: h.backward(), r"ip\.grad\(y, x\)"),
    (lambda h: h.requires_grad_(), r"ip\.grad\(y, x\)"),
    (lambda h: h.grad, r"ip\.grad\(y, x\)"),
    (lambda h: h.register_hook(print), "no hooks inside a block"),
    (lambda h: copy.deepcopy(h), r"use \.clone\(\)"),
    (lambda h: torch.unique(h), "cannot be part of an intervention"),
    (lambda h: torch.add(h, 1, out=torch.zeros(3, 8)), "use what it returns"),
    (lambda h: torch.nonzero(h), "cannot be part of an intervention"),
    (lambda h: h[h > 0], r"depends on values that are not known yet .*torch\.where"),
]


@pytest.mark.parametrize("number", range(len(NUMBERS)))
def test_what_needs_a_number_is_refused_with_what_to_write(net: ip.Model, x: torch.Tensor, number: int) -> None:
    wrong, advice = NUMBERS[number]
    with pytest.raises(TraceError, match=f"^{line_of(wrong)}: (?s:.)*{advice}"), net.trace(x):
        h = net.module("0").output
        _ = h.shape
        wrong(h)


def test_a_value_that_was_not_kept_says_so(net: ip.Model, x: torch.Tensor) -> None:
    with net.trace(x):
        kept, lost = net.output.save(), net.module("0").output
    assert kept.shape == (3, 2)
    for use in (
        lambda: lost + 1,
        lambda: lost.shape,
        lambda: float(lost),
        lambda: torch.stack([lost]),
        lambda: lost[0],
    ):
        with pytest.raises(
            TraceError, match=rf"^{line_of(use)}.*Add \.save\(\) to it inside the block .*made at {__file__}"
        ):
            use()
    assert "Add .save() to it" in repr(lost)
    with net.trace(x), pytest.raises(TraceError, match=r"Add \.save\(\)"):
        net.module("0").output = lost


def test_a_value_of_a_block_that_failed_says_so(net: ip.Model, x: torch.Tensor) -> None:
    with pytest.raises(KeyError), net.trace(x):
        h = net.output.save()
        raise KeyError("the user's own error")
    with pytest.raises(TraceError, match="never made, because its block raised an error"):
        _ = h + 1


def test_a_site_outside_a_block_says_how_to_open_one(model: ip.Model, ids: torch.Tensor) -> None:
    with pytest.raises(
        TraceError, match=r"have values only inside a block. Write\n    with model.trace\(prompt\) as t:"
    ):
        _ = model.layers[0].output
    with pytest.raises(TraceError, match=r"none is open here. Write\n    with t.world"), model.trace():
        _ = model.layers[0].output
    with pytest.raises(TraceError, match="none is open here"), model.trace() as t:
        with t.world("one", ids):
            _ = model.logits
        _ = model.logits


WRONG_NAMES: list[tuple[Callable[[ip.Model], Any], str]] = [
    (
        lambda m: m.layers[3 - 1].attn.pattrn,
        r"no site layers\.2\.attn\.pattrn\. Nearest names: layers\[2\]\.attn\.pattern",
    ),
    (lambda m: m.layers[1].mlpp, r"no site layers\.1\.mlpp\. Nearest names: layers\[1\]\.mlp\.(input|output)"),
    (lambda m: m.layers[1].attn.hook_pattrn, r"Nearest names: .*elsewhere called"),
    (lambda m: m.site("blocks.1.attn.hook_zz"), r"layers\[1\]\.attn\.z"),
    (lambda m: m.lgits, "Nearest names: logits"),
    (lambda m: m.layer_outputs, "layers"),
    (lambda m: m.lm_head, r'write model\.module\("lm_head"\)'),
    (lambda m: m.norm.outputs, "norm.output"),
    (lambda m: m.layers[3], "has 3 layers, 0 to 2"),
    (lambda m: m.layers[-4], "has 3 layers, 0 to 2"),
    (lambda m: m.layers[0:2], "one layer at a time"),
    (lambda m: m.module("model.layers.0.self_atn"), r"Nearest paths: model\.layers\.0\.self_attn"),
    (lambda m: m.module("model.norm").outputs, r"has \.input, \.inputs and \.output"),
]


@pytest.mark.parametrize("number", range(len(WRONG_NAMES)))
def test_a_wrong_name_is_answered_with_the_nearest(model: ip.Model, ids: torch.Tensor, number: int) -> None:
    wrong, advice = WRONG_NAMES[number]
    with pytest.raises(SiteError, match=advice), model.trace(ids):
        wrong(model)


def test_a_wrong_name_is_refused_when_it_is_written_too(model: ip.Model, ids: torch.Tensor) -> None:
    with pytest.raises(SiteError, match="Nearest names"), model.trace(ids):
        model.layers[1].attn.patern = 0
    with pytest.raises(SiteError, match="Nearest names: logits"), model.trace(ids):
        model.logitz = 0
    with pytest.raises(TraceError, match="attn is no site"), model.trace(ids):
        model.layers[1].attn = 0
    assert not hasattr(model.layers[1], "atn")
    assert not hasattr(model, "logitz")


def test_standard_names_without_a_table_are_refused(net: ip.Model, x: torch.Tensor) -> None:
    with pytest.raises(SiteError, match=r"kind without a table \(Sequential\).*model\.module\("), net.trace(x):
        _ = net.layers[0].output
    with pytest.raises(InterposeError, match="table"), net.trace(x):
        _ = net.logits


def test_a_wrong_shape_is_named_at_the_users_line(model: ip.Model, ids: torch.Tensor) -> None:
    wrong: list[Callable[[], Any]] = [
        lambda: model.layers[0].output + torch.ones(7),
        lambda: setattr(model.layers[0], "output", torch.ones(3, 3)),
        lambda: model.layers[0].output.__setitem__((slice(None), -1), torch.ones(25)),
        lambda: model.layers[0].output[:, :, 24],
        lambda: torch.cat([model.layers[0].output, model.layers[0].attn.q]),
        lambda: model.call.norm(model.layers[0].attn.z),
        lambda: model.layers[0].attn.z @ torch.ones(5, 5),
    ]
    for call in wrong:
        with pytest.raises(ShapeError, match=f"^{line_of(call)}: "), model.trace(ids):
            call()


def test_a_shape_that_shows_only_while_running_is_named_at_the_users_line(net: ip.Model, x: torch.Tensor) -> None:
    with pytest.raises(ShapeError, match=rf"^{__file__}:\d+: .*shape \(3, 8\).*\(3, 5\)"), net.trace(x):
        net.module("0").output = torch.ones(3, 5)
        net.output.save()
    with pytest.raises(RunError, match=rf"^{__file__}:\d+: matmul failed: "), net.trace(x):
        (net.module("0").output @ torch.ones(5, 5)).save()


def test_an_error_inside_the_network_names_the_write_before_it(net: ip.Model, x: torch.Tensor) -> None:
    class Picky(torch.nn.Module):
        def forward(self, value: torch.Tensor) -> torch.Tensor:
            if bool((value > 5).any()):
                raise ValueError("too large for me")
            return value

    picky = ip.wrap(torch.nn.Sequential(torch.nn.Linear(4, 8), Picky()))
    with pytest.raises(RunError, match=rf"^{__file__}:\d+: after this write, the model failed .*too large for me"):  # noqa: SIM117
        with picky.trace(x):
            picky.module("0").output[:, 0] = 9
            picky.output.save()
    with pytest.raises(RunError, match=rf"^{__file__}:\d+: the model failed in the world 'main'"), net.trace(x[:, :3]):
        net.output.save()


def test_a_misuse_of_gradients_is_refused(net: ip.Model, x: torch.Tensor) -> None:
    with pytest.raises(TraceError, match=r"ip\.grad needs a single number, not shape \(3, 8\)"), net.trace(x):
        h = net.module("0").output
        _ = h.shape
        ip.grad(h, h)
    with pytest.raises(RunError, match=rf"^{__file__}:\d+: ip.grad needs a single number"), net.trace(x):
        ip.grad(net.module("0").output, net.module("0").output).save()
    with pytest.raises(RunError, match=rf"^{__file__}:\d+: the number does not depend on the value"), net.trace(x):
        ip.grad(net.module("0").output.sum(), net.module("4").output).save()
    with pytest.raises(TraceError, match="for plain tensors use torch.autograd.grad"), net.trace(x):
        ip.grad(net.output.sum(), x)


def test_what_cannot_be_written_is_refused(net: ip.Model, x: torch.Tensor) -> None:
    for value, kind in (("text", "str"), (None, "NoneType"), (True, "bool"), ([1.0], "list")):
        with pytest.raises(TraceError, match=f"takes a tensor or a number, not a {kind}"), net.trace(x):
            net.module("0").output = value


def test_a_name_is_saved_once(net: ip.Model, x: torch.Tensor) -> None:
    with pytest.raises(TraceError, match="already saved as 'h'"), net.trace(x):
        net.module("0").output.save("h")
        net.module("1").output.save("h")
    with net.trace(x) as t:
        net.module("0").output.save("saved1")
        net.module("1").output.save()
        net.module("2").output.save()
    assert len(t.saved) == 3


def test_errors_are_one_hierarchy() -> None:
    assert issubclass(ShapeError, GraphError)
    assert issubclass(RunError, InterposeError)
