"""What a block means: when a read sees a write, what is changed in place, and what is kept."""

import pytest
import torch

import interpose as ip
from interpose.errors import RunError, ShapeError, TraceError


def test_the_order_between_sites_does_not_matter(model: ip.Model, ids: torch.Tensor) -> None:
    with model.trace(ids):
        forwards = model.layers[0].output.save()
        model.layers[1].mlp.output[:, -1] = 0
        first = model.logits.save()
    with model.trace(ids):
        second = model.logits.save()
        model.layers[1].mlp.output[:, -1] = 0
        backwards = model.layers[0].output.save()
    assert torch.equal(first, second)
    assert torch.equal(forwards, backwards)


def test_at_one_site_a_read_sees_the_writes_above_it_and_none_below(net: ip.Model, x: torch.Tensor) -> None:
    clean = net.network[0](x).detach()
    with net.trace(x):
        before = net.module("0").output.save()
        net.module("0").output = clean + 1
        between = net.module("0").output.save()
        net.module("0").output[:, 0] = 7
        after = net.module("0").output.save()
        result = net.output.save()
    last = clean + 1
    last[:, 0] = 7
    assert torch.equal(before, clean)
    assert torch.equal(between, clean + 1)
    assert torch.equal(after, last)
    assert torch.equal(result, net.network[1:](last))


def test_a_write_never_alters_what_was_read_or_saved(net: ip.Model, x: torch.Tensor) -> None:
    clean = net.network[0](x).detach()
    with net.trace(x):
        read = net.module("0").output
        part = net.module("0").output[:, 2:4].save()
        double = read * 2
        net.module("0").output[:, 2:4] = 0
        net.module("0").output = net.module("0").output - 1
        read.save("read")
        double.save("double")
        read_twice = (read + 0).save()
    assert torch.equal(part, clean[:, 2:4])
    assert torch.equal(read, clean)
    assert torch.equal(double, clean * 2)
    assert torch.equal(read_twice, clean)


def test_what_is_saved_is_the_value_at_that_line(net: ip.Model, x: torch.Tensor) -> None:
    clean = net.network[0](x).detach()
    with net.trace(x) as t:
        h = net.module("0").output.save("before")
        h += 1
        h.save("after")
        net.output.save()
    assert torch.equal(t.saved["before"], clean)
    assert torch.equal(t.saved["after"], clean + 1)


@pytest.mark.parametrize("form", ["index", "augmented", "variable", "function", "copy", "zero", "set itself", "fill"])
def test_changes_in_place_write_the_site(net: ip.Model, x: torch.Tensor, form: str) -> None:
    new = net.network[0](x).detach()
    with net.trace(x):
        if form == "index":
            net.module("0").output[:, -1] = 0
            new[:, -1] = 0
        elif form == "augmented":
            net.module("0").output += 2
            new += 2
        elif form == "variable":
            h = net.module("0").output
            h *= 3
            h -= 1
            new = new * 3 - 1
        elif form == "function":
            net.module("0").output.clamp_(min=0.1)
            new.clamp_(min=0.1)
        elif form == "copy":
            net.module("0").output.copy_(torch.arange(8.0))
            new.copy_(torch.arange(8.0))
        elif form == "zero":
            net.module("0").output[0].zero_()
            new[0].zero_()
        elif form == "fill":
            net.module("0").output[:, :3].fill_(2.5)
            new[:, :3].fill_(2.5)
        else:
            h = net.module("0").output
            h[:, 1] += 5
            net.module("0").output = h
            new[:, 1] += 5
        result = net.output.save()
    assert torch.equal(result, net.network[1:](new))


def test_another_value_under_the_same_variable_writes_nothing(net: ip.Model, x: torch.Tensor) -> None:
    with net.trace(x):
        h = net.module("0").output
        h = h + 1
        result = net.output.save()
    assert torch.equal(result, net.network(x))
    assert not isinstance(h, torch.nn.Parameter)


def test_views_of_views_write_through(net: ip.Model, x: torch.Tensor) -> None:
    new = net.network[0](x).detach()
    with net.trace(x) as t:
        rows = net.module("0").output[1:]
        part = rows[:, 2:6]
        part[0, 1] = 9
        part += 1
        part.save("part")
        rows.save("rows")
        net.module("0").output.save("whole")
        result = net.output.save()
    new[1:][:, 2:6][0, 1] = 9
    new[1:][:, 2:6] += 1
    assert torch.equal(result, net.network[1:](new))
    assert torch.equal(t.saved["whole"], new)
    assert torch.equal(t.saved["rows"], new[1:])
    assert torch.equal(t.saved["part"], new[1:, 2:6])


def test_two_variables_of_one_site_change_one_tensor_as_in_torch(net: ip.Model, x: torch.Tensor) -> None:
    new = net.network[0](x).detach()
    with net.trace(x):
        h, k = net.module("0").output, net.module("0").output
        a, b = h[:, :4], k[:, 2:]
        a += 1
        b *= 2
        h -= 3
        result = net.output.save()
    a, b = new[:, :4], new[:, 2:]
    a += 1
    b *= 2
    new -= 3
    assert torch.equal(result, net.network[1:](new))


def test_setting_an_index_to_its_own_changed_value_adds_nothing(net: ip.Model, x: torch.Tensor) -> None:
    with net.trace(x, run=False) as once:
        net.module("0").output[:, 1] += 5
        net.output.save()
    with net.trace(x, run=False) as other:
        part = net.module("0").output[:, 1]
        part += 5
        net.output.save()
    assert once.graph == other.graph
    with net.trace(x, run=False) as more:
        h = net.module("0").output
        h += 5
        net.module("0").output = h
        net.module("0").output = h
    assert str(more.graph).count("module") == 2  # one read, one write


def test_a_replaced_site_is_not_changed_through_what_was_read_before(net: ip.Model, x: torch.Tensor) -> None:
    with pytest.raises(TraceError, match="has been given another value since this one was read"), net.trace(x):
        h = net.module("0").output
        net.module("0").output = torch.zeros(3, 8)
        h += 1


def test_a_change_in_place_keeps_the_type_of_the_site(net: ip.Model, x: torch.Tensor) -> None:
    with net.trace(x) as t:
        h = net.module("0").output
        _ = h.shape
        h += torch.ones(8, dtype=torch.float64)
        assert h.dtype == torch.float32
        h.save("h")
        net.output.save()
    assert t.saved["h"].dtype == torch.float32
    with pytest.raises(ShapeError, match="keeps its shape"), net.trace(x):
        h = net.module("0").output
        _ = h.shape
        h += torch.ones(2, 3, 8)


def test_a_value_derived_from_a_site_is_not_changed_in_place(net: ip.Model, x: torch.Tensor) -> None:
    for change in (lambda h: (h * 2).add_(1), lambda h: h.T.zero_(), lambda h: h.reshape(-1).__setitem__(0, 1)):
        with pytest.raises(TraceError, match=r"no site and no index of one.*Write `site = \.\.\.`"), net.trace(x):
            change(net.module("0").output)


def test_a_plain_tensor_does_not_swallow_a_value_of_the_block(net: ip.Model, x: torch.Tensor) -> None:
    def by_index(real: torch.Tensor, h: torch.Tensor) -> None:
        real[0] = h

    def by_operator(real: torch.Tensor, h: torch.Tensor) -> None:
        real += h

    for swallow in (by_index, by_operator, lambda real, h: real.add_(h), lambda real, h: real.copy_(h)):
        real = torch.zeros(3, 8)
        with pytest.raises(TraceError, match="written into a plain tensor .* where it would be lost"), net.trace(x):
            swallow(real, net.module("0").output[0] if swallow is by_index else net.module("0").output)
        assert float(real.abs().max()) == 0


def test_what_is_captured_is_captured_as_it_was_at_that_line(net: ip.Model, x: torch.Tensor) -> None:
    outside = torch.ones(8)
    with net.trace(x):
        first = (net.module("0").output * outside).save()
        outside.zero_()
        second = (net.module("0").output * outside).save()
    assert torch.equal(first, net.network[0](x))
    assert float(second.abs().max()) == 0


class Adds(torch.nn.Module):
    """Adds one in place, as many networks do without saying so."""

    def forward(self, value: torch.Tensor) -> torch.Tensor:
        value += 1
        return value


@pytest.mark.parametrize("quiet", [True, False], ids=["quietly", "by its own word"])
def test_a_network_that_changes_tensors_in_place_does_not_change_what_was_read(x: torch.Tensor, quiet: bool) -> None:
    torch.manual_seed(0)
    linear, change = torch.nn.Linear(4, 8), Adds() if quiet else torch.nn.ReLU(inplace=True)
    net = ip.wrap(torch.nn.Sequential(linear, change, torch.nn.Linear(8, 2)))
    given = torch.randn(3, 8)
    untouched = given.clone()
    for _ in range(2):
        with net.trace(x):
            read = net.module("0").output.save()
            later = (net.module("2").output.sum() + net.module("0").output.sum()).save()
        assert torch.equal(read, linear(x))
        assert torch.allclose(later, net.network(x).sum() + linear(x).sum())
    with net.trace(x):
        net.module("0").output = given
        result = net.output.save()
    assert torch.equal(given, untouched)
    assert torch.equal(result, net.network[2](change(given.clone())))
    with net.trace(x):
        h = net.module("0").output
        called = net.call.module("1", h).save()
        result = net.output.save()
        gradient = ip.grad(net.output.sum(), h).save()
    assert torch.equal(called, change(linear(x).detach()))
    assert torch.equal(result, net.network(x))
    leaf = linear(x).detach().requires_grad_()
    assert torch.equal(gradient, torch.autograd.grad(net.network[2](change(leaf * 1)).sum(), leaf)[0])


def test_a_network_that_changes_what_it_is_given_is_not_trusted(x: torch.Tensor) -> None:
    net = ip.wrap(torch.nn.Sequential(Adds(), torch.nn.Linear(4, 2)))
    with pytest.raises(RunError, match=r"changes the tensors that it is given in place.*Pass copies"), net.trace(x):
        net.module("0").input.save()
    with net.trace(x.clone()):
        before = net.module("0").input.clone().save()
        net.output.save()
    assert torch.equal(before, x)


PADDED = torch.tensor([[0, 0, 1, 1, 1, 1, 1], [1, 1, 1, 1, 1, 1, 1]])


@pytest.mark.parametrize("mask", [None, PADDED], ids=["even", "padded"])
def test_keys_and_values_that_are_given_are_gone_on_from_and_left_as_they_were(
    model: ip.Model, ids: torch.Tensor, mask: torch.Tensor | None
) -> None:
    short, whole = ({}, {}) if mask is None else ({"attention_mask": mask[:, :5]}, {"attention_mask": mask})
    with torch.no_grad():
        begun = model.batch(ids[:, :5], **short).kwargs | {"use_cache": True}
        cache = model.network(**begun).past_key_values
        wanted = model.network(**model.batch(ids, **whole).kwargs).logits[:, 5:]
    with model.trace() as t:
        for name in ("one", "two"):
            with t.world(name, ids[:, 5:], past_key_values=cache, **whole):
                model.logits.save(name)
                model.logits[:, 0].save(f"{name}, first")
    for name in ("one", "two"):
        assert torch.allclose(t.saved[name], wanted, atol=1e-4)
        assert torch.equal(t.saved[f"{name}, first"], t.saved[name][:, 0])
    assert cache.get_seq_length() == 5
    with model.generate(ids, max_new_tokens=3, stop=(), **whole) as t:
        pass
    with model.generate(ids[:, 5:], max_new_tokens=3, stop=(), past_key_values=cache, **whole) as again:
        pass
    assert torch.equal(t.tokens, again.tokens)
    assert cache.get_seq_length() == 5
