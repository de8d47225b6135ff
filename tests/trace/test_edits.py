"""An edited model is the model with raw hooks on it; the model itself, and what is not meant, stay as they are."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import pytest
import torch
from hypothesis import given, settings, strategies as st
from torch import Tensor

import interpose as ip
from interpose.errors import GraphError, RunError, SiteError, TraceError
from interpose.graph.feed import Generation
from interpose.graph.nodes import Constant, Graph, Op, Read, Ref, Save, Stop, World, Write
from interpose.graph.sites import NEW_TOKENS, Site
from interpose.trace import edited as edited_module

V = torch.randn(24, generator=torch.manual_seed(5)) * 3


@contextmanager
def hooked(network: torch.nn.Module, path: str, change: Callable[[Tensor], Tensor]) -> Iterator[None]:
    """The same change by a raw hook."""

    def visit(module: Any, args: Any, output: Any) -> Any:
        return (change(output[0]), *output[1:]) if isinstance(output, tuple) else change(output)

    handle = network.get_submodule(path).register_forward_hook(visit)
    try:
        yield
    finally:
        handle.remove()


def at_end(output: Tensor) -> Tensor:
    output = output.clone()
    output[:, -1] += V
    return output


def steering(model: ip.Model, layer: int = 1, v: Tensor = V) -> Any:
    with model.trace(torch.tensor([[1, 2, 3]]), run=False) as t:
        model.layers[layer].output[:, -1] += v
    return t


def stock(network: torch.nn.Module, ids: Tensor) -> Tensor:
    with torch.no_grad():
        return network(ids, use_cache=False).logits


def test_reads_see_the_edit_and_the_model_stays_as_it_is(model: ip.Model, ids: Tensor) -> None:
    plain = stock(model.network, ids)
    steered = model.edited(steering(model))
    with hooked(model.network, "model.layers.1", at_end):
        expected = stock(model.network, ids)
    with steered.trace(ids):
        before = steered.layers[1].output.save()
        steered.layers[2].mlp.output[:, 0] = 0
        steered.layers[2].mlp.output[:, 0] += steered.layers[2].mlp.output[:, 0]  # nothing twice is nothing
    with steered.trace(ids):
        logits = steered.logits.save()
    assert logits.equal(expected)
    with model.trace(ids):
        own = model.layers[1].output.save()
        after = model.logits.save()
    assert before.equal(at_end(own))
    assert after.equal(plain)
    assert stock(steered.network, ids).equal(plain)  # the stock module has no edit in it


def test_the_edit_comes_first_at_a_site_that_both_write(model: ip.Model, ids: Tensor) -> None:
    with model.edited(steering(model)).trace(ids) as t:
        t.model.layers[1].output *= 2
        found = t.model.logits.save()
    with hooked(model.network, "model.layers.1", lambda output: at_end(output) * 2):
        assert found.equal(stock(model.network, ids))


def test_edits_compose_in_the_order_in_which_they_are_given(model: ip.Model, ids: Tensor) -> None:
    add = steering(model)
    with model.trace(ids, run=False) as double:
        model.layers[1].output *= 2
    with hooked(model.network, "model.layers.1", lambda output: at_end(output) * 2):
        expected = stock(model.network, ids)
    for twice in (model.edited(add, double), model.edited(add).edited(double)):
        with twice.trace(ids):
            found = twice.logits.save()
        assert found.equal(expected)
    with hooked(model.network, "model.layers.1", lambda output: at_end(output * 2)):
        other = stock(model.network, ids)
    with model.edited(double, add).trace(ids) as t:
        found = t.model.logits.save()
    assert found.equal(other)
    assert not other.equal(expected)


def test_every_world_is_edited_and_values_cross_between_them(model: ip.Model, ids: Tensor) -> None:
    steered = model.edited(steering(model))
    with steered.trace() as t:
        with t.world("clean", ids):
            z = steered.layers[2].attn.z[:, -1]
            clean = steered.logits.save()
        with t.world("corrupt", ids.flip(1)):
            steered.layers[2].attn.z[:, -1] = z
            patched = steered.logits.save()
    kept: dict[str, Tensor] = {}

    def patch(module: Any, args: Any) -> Any:
        if not kept:
            kept["z"] = args[0].clone()
            return None
        changed = args[0].clone()
        changed[:, -1] = kept["z"][:, -1]
        return (changed,)

    handle = model.network.get_submodule("model.layers.2.self_attn.o_proj").register_forward_pre_hook(patch)
    with hooked(model.network, "model.layers.1", at_end):
        assert clean.equal(stock(model.network, ids))
        assert patched.equal(stock(model.network, ids.flip(1)))
    handle.remove()


def test_gradients_go_through_the_edit(model: ip.Model, ids: Tensor) -> None:
    with model.trace(ids, run=False) as t:
        model.layers[1].output = model.layers[1].output.tanh() * V
    steered = model.edited(t)
    with steered.trace(ids):
        h = steered.layers[0].output
        g = ip.grad(steered.logits[:, -1, 7].sum(), h).save()
    caught: dict[str, Tensor] = {}

    def watch(output: Tensor) -> Tensor:
        caught["h"] = output.detach().requires_grad_()
        return caught["h"]

    with (
        hooked(model.network, "model.layers.0", watch),
        hooked(model.network, "model.layers.1", lambda o: o.tanh() * V),
    ):
        number = model.network(ids, use_cache=False).logits[:, -1, 7].sum()
    assert torch.allclose(g, torch.autograd.grad(number, caught["h"])[0], atol=1e-6)


def test_every_step_of_a_generation_is_edited(model: ip.Model, ids: Tensor) -> None:
    with model.generate(ids, max_new_tokens=3, run=False) as written, written.steps():
        model.layers[1].output[:, -1] += V
    with hooked(model.network, "model.layers.1", lambda o: torch.cat([o[:, :-1], o[:, -1:] + V], 1)):
        expected = model.network.generate(ids, max_new_tokens=6, min_new_tokens=6, do_sample=False, pad_token_id=0)
        logits = stock(model.network, ids)
    for edit in (steering(model), written):  # written in a forward pass, or at every step: the same edit
        steered = model.edited(edit)
        with steered.generate(ids, max_new_tokens=6, stop=()) as t, t.step(0):
            first = steered.logits[:, -1].save()
        assert t.tokens.equal(expected[:, ids.shape[1] :])
        assert torch.allclose(first, logits[:, -1], atol=1e-5)
        with steered.trace(ids):
            found = steered.logits.save()
        assert found.equal(logits)
    with model.generate(ids, max_new_tokens=6, stop=()) as plain:
        pass
    assert not plain.tokens.equal(t.tokens)


def test_an_edit_of_some_steps_belongs_to_generations(model: ip.Model, ids: Tensor) -> None:
    with model.generate(ids, max_new_tokens=3, run=False) as t, t.step(0):
        model.layers[1].output[:, 2] += V  # a position of the prompt, which later steps do not have
    steered = model.edited(t)
    with steered.generate(ids, max_new_tokens=4, stop=()) as run:
        pass
    with model.generate(ids, max_new_tokens=4, stop=()) as by_hand, by_hand.step(0):
        model.layers[1].output[:, 2] += V
    assert run.tokens.equal(by_hand.tokens)
    refused = pytest.raises(
        RunError, match=r"test_edits.py:\d+: step\(0\) belongs to a generation, and the world 'main'"
    )
    with refused, steered.trace(ids):
        steered.logits.save()


def test_a_donor_world_of_an_edit_runs_beside_on_the_donor_s_own_prompt(model: ip.Model, ids: Tensor) -> None:
    donor = torch.tensor([[9, 9, 8]])
    with model.trace() as t:
        with t.world("donor", donor):
            given = model.layers[1].output[:, -1]
        with t.world("main", ids):
            model.layers[1].output[:, -1] = given
    edit = ip.Edit.of(t)
    assert list(edit.feed.worlds) == ["donor"]
    with model.trace(donor):
        value = model.layers[1].output[:, -1].save()
    with model.edited(edit, steering(model)).trace() as both:
        with both.world("donor", ids):  # a name that the edit has too
            one = both.model.logits.save()
        with both.world("b", ids.flip(1)):
            two = both.model.logits.save()
    # The second edit is of the edited model, whose donor run the first did not change.
    with hooked(
        model.network, "model.layers.1", lambda o: torch.cat([o[:, :-1], (value + V)[:, None].expand(2, 1, 24)], 1)
    ):
        assert torch.allclose(one, stock(model.network, ids), atol=1e-5)
        assert torch.allclose(two, stock(model.network, ids.flip(1)), atol=1e-5)


def test_a_plain_network_is_edited_by_the_paths_of_its_modules(net: ip.Model, x: Tensor) -> None:
    with net.trace(x, run=False) as t:
        scale = t.input("scale", torch.tensor(3.0))
        net.module("2").output = net.module("2").output * scale
    found = net.edited(ip.Edit.of(t))
    with found.trace(x) as after:
        after.input("scale", torch.tensor(5.0))  # an input of the edit keeps the value that it had
        y = found.output.save()
        shape = found.module("2").output.shape
    assert torch.allclose(y, net.network[4](net.network[3](net.network[2](net.network[1](net.network[0](x))) * 3)))
    assert shape == (3, 8)


SITES = ["embed", "layers.0.attn.output", "layers.0.output", "layers.1.mlp.output", "layers.2.output", "norm.output"]
PATHS = dict(
    zip(SITES, ["embed_tokens", "layers.0.self_attn", "layers.0", "layers.1.mlp", "layers.2", "norm"], strict=True)
)
CHANGES: list[Callable[[Any], Any]] = [lambda h: h * 0.5, torch.tanh, lambda h: h + V, lambda h: h.flip(1)]
CHANGE = st.tuples(st.sampled_from(SITES), st.integers(0, len(CHANGES) - 1))


def with_hooks(network: torch.nn.Module, ids: Tensor, edits: list[Any], own: list[Any]) -> dict[str, Tensor]:
    """What each site holds behind the edits and before the program's own changes, and the logits behind all."""
    found: dict[str, Tensor] = {}

    def hook(name: str) -> Callable[[Tensor], Tensor]:
        def visit(output: Tensor) -> Tensor:
            for site, number in sum(edits, []):
                output = CHANGES[number](output) if site == name else output
            found[f"before {name}"] = output
            for site, number in own:
                output = CHANGES[number](output) if site == name else output
            return output

        return visit

    with ExitStack() as stack:
        for name, path in PATHS.items():
            stack.enter_context(hooked(network, f"model.{path}", hook(name)))
        logits = stock(network, ids)
    return {**found, "logits": logits}


@settings(max_examples=12)
@given(st.lists(st.lists(CHANGE, min_size=1, max_size=4), min_size=1, max_size=3), st.lists(CHANGE, max_size=3))
def test_random_edits_do_what_raw_hooks_do(model: ip.Model, edits: list[Any], own: list[Any]) -> None:
    ids = torch.tensor([[5, 17, 3, 42], [12, 4, 33, 21]])

    def write(model: ip.Model, changes: list[Any]) -> None:
        for name, number in changes:
            model.running().write(Site(name), CHANGES[number](model.site(name)))

    found = model
    for changes in edits:
        with model.trace(ids, run=False) as t:
            write(model, changes)
        found = found.edited(t)
    with found.trace(ids) as run:
        for name in SITES:
            found.site(name).save(f"before {name}")
        write(found, own)
        found.logits.save("logits")
    expected = with_hooks(model.network, ids, edits, own)
    assert run.saved.keys() == expected.keys()
    for name, value in expected.items():
        assert run.saved[name].equal(value), name


def test_a_sweep_composes_each_graph_once_and_asks_for_every_feed(
    model: ip.Model, ids: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []
    compose = edited_module.compose
    monkeypatch.setattr(edited_module, "compose", lambda *args: calls.append(args) or compose(*args))
    steered = model.edited(steering(model))
    for _ in range(3):
        with steered.trace(ids, run=False) as t:
            steered.logits[:, -1].save("last")
    asked: list[int] = []

    class Feeds(list[Any]):
        def __getitem__(self, index: Any) -> Any:
            asked.append(index)
            return t.feed

    runs = list(steered.backend.run_many([t.graph] * 4, Feeds([0] * 4)))
    assert len(calls) == 1
    assert set(asked) == {0, 1, 2, 3}
    assert all(run["last"].equal(runs[0]["last"]) for run in runs)
    assert str(steered.plan(t.graph)).startswith(
        'forward pass "main", stops after the last site\n  model.layers.1 (output): layers[1].output\n'
        "  lm_head (output): logits"
    )
    assert len(calls) == 1
    with pytest.raises(ValueError, match="2 graphs were given with 1 feeds"):
        list(steered.backend.run_many([t.graph] * 2, [t.feed]))


def test_an_edited_model_says_that_it_is_one(model: ip.Model, ids: Tensor) -> None:
    edit = ip.Edit.of(steering(model), note="away from weddings")
    steered = model.edited(edit)
    assert repr(steered).startswith(f"Model(llama + edit {edit.hash[:8]}: LlamaForCausalLM, ")
    assert repr(steered).endswith("edited: away from weddings)")
    assert len({model.weights_hash, steered.weights_hash, steered.edited(edit).weights_hash}) == 3
    assert steered.weights_hash == model.edited(edit).weights_hash
    assert repr(edit) == f"Edit({edit.hash[:8]}: writes layers[1].output, made on llama, away from weddings)"
    assert edit.meta["weights_hash"] == model.weights_hash
    assert str(edit) == str(edit.graph)
    again = ip.Edit.of(steering(model))
    assert again.hash == edit.hash  # made at another time, with another note, and the same
    assert ip.Edit.of(steering(model, v=2 * V)).hash != edit.hash
    assert ip.Edit.of(steering(model, layer=2)).hash != edit.hash


def test_an_edit_keeps_what_it_was_made_with(model: ip.Model, ids: Tensor) -> None:
    v = V.clone()
    t = steering(model, v=v)
    steered = model.edited(t)
    v.zero_()
    t.feed.tensors["c0"].zero_()
    with steered.trace(ids):
        found = steered.logits.save()
    with hooked(model.network, "model.layers.1", at_end):
        assert found.equal(stock(model.network, ids))


def test_anything_that_gives_an_edit_is_one(model: ip.Model, ids: Tensor) -> None:
    class Found:
        def edit(self, model: ip.Model) -> ip.Edit:
            return ip.Edit.of(steering(model))

    graph = Graph(
        (World("any"),),
        (
            Read(site=Site("layers.0.output"), world="any"),
            Op(name="mul", args=(Ref(0), 2.0)),
            Write(site=Site("layers.0.output"), world="any", value=Ref(1)),
        ),
    )
    with model.edited(Found(), graph).trace(ids) as t:
        found = t.model.logits.save()
    with hooked(model.network, "model.layers.0", lambda o: o * 2), hooked(model.network, "model.layers.1", at_end):
        assert found.equal(stock(model.network, ids))


def blocks(model: ip.Model, ids: Tensor) -> dict[str, Callable[[], Any]]:
    """Blocks that are no edits, by what is said of them."""

    def only_reads() -> Any:
        with model.trace(ids) as t:
            model.logits.save()
        return t

    def two_worlds() -> Any:
        with model.trace() as t:
            with t.world("a", ids):
                model.layers[0].output[:, -1] = 0
            with t.world("b", ids):
                model.layers[0].output[:, -1] = 0
        return t

    def backwards() -> Any:
        with model.trace() as t:
            with t.world("main", ids):
                h = model.layers[0].output
            with t.world("donor", ids):
                model.layers[1].output = h
                g = model.layers[2].output
            with t.world("main2", ids):
                model.layers[2].output = g
        return ip.Edit(Graph(t.graph.worlds, (*t.graph.nodes, *_into_main(t.graph))), t.feed)

    def unfinished() -> Any:
        with pytest.raises(KeyError), model.trace(ids) as t:
            raise KeyError
        return t

    def ragged() -> Any:
        batch = ip.Batch.of_tokens(ids, torch.tensor([[0, 0, 1, 1, 1, 1, 1], [1] * 7]))
        with model.trace(batch, run=False) as t:
            model.layers[0].output[:, 1] = 0
        return t

    world, read = World("main"), Read(site=Site("embed"), world="main")
    write = Write(site=Site("embed"), world="main", value=Ref(0))
    return {
        "This block changes nothing, so it is no edit. Write a site in it": only_reads,
        r"which of \['a', 'b'\] that is. Name it main": two_worlds,
        "the world 'donor' of an edit takes a value from 'main', the one that is edited": backwards,
        "this block has not ended, or has failed, so it is no edit yet": unfinished,
        r"test_edits.py:\d+: this edit names positions of layers\[0\].output from the start, on prompts of une": ragged,
        "an edit cannot stop the model": lambda: Graph((world,), (read, write, Stop(world="main"))),
        "names the tensor 'c0', which did not come with it": lambda: Graph((world,), (Constant(ref="c0"), write)),
        "a str is no edit. Give a block that has ended": lambda: "steer.safetensors",
        "a type is no edit": lambda: ip.Edit,
    }


def _into_main(graph: Graph) -> tuple[Any, ...]:
    last = next(
        i for i, node in enumerate(graph.nodes) if getattr(node, "world", "") == "donor" and isinstance(node, Read)
    )
    return (Write(site=Site("layers.2.output"), world="main", value=Ref(last)),)


@pytest.mark.parametrize("number", range(9))
def test_what_is_no_edit_is_refused(model: ip.Model, ids: Tensor, number: int) -> None:
    said, make = list(blocks(model, ids).items())[number]
    with pytest.raises((GraphError, TraceError), match=said):
        model.edited(make())


def test_edited_takes_at_least_one(model: ip.Model) -> None:
    with pytest.raises(TraceError, match="edited.. was given no edit. Give one or more"):
        model.edited()


RAGGED = torch.tensor([[0, 0, 1, 1, 1, 1, 1], [1, 1, 1, 1, 1, 1, 1]])
FROM_START: list[Callable[[Any], None]] = [
    lambda h: h.__setitem__((slice(None), 3), 0.0),
    lambda h: h.__setitem__((slice(None), [1, -1]), 0.0),
    lambda h: h.__setitem__((..., slice(1, 3), slice(None)), 0.0),
    lambda h: h.__setitem__((slice(None), torch.tensor([2, 3])), 0.0),
    lambda h: h[:, :, :4].__setitem__((slice(None), 3), 0.0),
    lambda h: h[0].__setitem__(3, 0.0),
    lambda h: h[:, 2].add_(1.0),
]


@pytest.mark.parametrize("number", range(len(FROM_START)))
def test_positions_from_the_start_are_refused_where_they_would_be_padding(
    model: ip.Model, ids: Tensor, number: int
) -> None:
    with model.trace(ids, run=False) as t:
        FROM_START[number](model.layers[1].output)
    steered = model.edited(t)
    with steered.trace(ids):
        steered.logits.save()
    said = r"test_edits.py:\d+: this edit names positions of layers\[1\].output by number, and the batch of the world "
    refused = pytest.raises(GraphError, match=f"{said}'main' has prompts of unequal length, padded on the left")
    with refused, steered.trace(ip.Batch.of_tokens(ids, RAGGED)):
        steered.logits.save()
    feed = ip.Feed({"gen": ip.Batch(kwargs=steered.batch(ids).kwargs, generation=Generation(2))})
    tokens = Graph((World("gen"),), (Read(site=Site(NEW_TOKENS), world="gen"), Save(name="new", value=Ref(0))))
    with pytest.raises(GraphError, match="each later step of the generation 'gen' has only one. Count from the end"):
        next(steered.backend.run_many([tokens], [feed]))


def test_positions_from_the_end_and_whole_sites_are_fine_on_padded_prompts(model: ip.Model, ids: Tensor) -> None:
    steered, batch = model.edited(steering(model)), ip.Batch.of_tokens(ids, RAGGED)
    with steered.trace(batch):
        row = steered.layers[2].output.save()
        width = steered.module("model.layers.2.mlp").output.shape[-1]  # found by a run without data
    assert width == 24
    with steered.trace(ids[:1, 2:]):
        alone = steered.layers[2].output.save()
    assert torch.allclose(row[0, 2:], alone[0], atol=1e-5)
    right = ip.Batch(kwargs={"input_ids": ids, "attention_mask": RAGGED.flip(1)})
    refused = pytest.raises(GraphError, match="'main' is padded on the right, so it would change padding")
    with refused, steered.trace(right):
        steered.logits.save()
    with model.trace(ids, run=False) as t:
        model.layers[1].output *= 2
        model.layers[1].attn.z[:, :, 3] = 0  # a head, no position
    with model.edited(t).trace(right) as t:
        t.model.logits.save()


def test_a_site_that_the_model_lacks_is_named(model: ip.Model, ids: Tensor) -> None:
    write = Write(site=Site("layers.9.output"), world="main", value=Ref(0))
    found = model.edited(Graph((World("main"),), (Read(site=Site("layers.0.output"), world="main"), write)))
    with pytest.raises(SiteError, match=r"There is no layers\[9\].output"), found.trace(ids):
        found.logits.save()


def test_the_plan_of_a_generation_shows_the_edit(model: ip.Model, ids: Tensor) -> None:
    edited = model.edited(steering(model))
    for steps in (True, False):
        with edited.generate(ids, max_new_tokens=2, run=False) as t:
            if steps:
                with t.steps():
                    edited.layers[0].output.save()
        said = str(edited.plan(t.graph))
        assert "layers[1].output" in said or "model.layers.1" in said


def test_an_edit_keeps_the_prompt_of_its_donor(model: ip.Model, ids: Tensor) -> None:
    donor = ids.flip(0)
    with model.trace(run=False) as t:
        with t.world("donor", donor):
            v = model.layers[1].output[:, -1]
        with t.world("main", ids):
            model.layers[1].output[:, -1] = v
    edited = model.edited(t)
    with edited.trace(ids):
        before = edited.logits.save()
    donor.fill_(3)
    with edited.trace(ids):
        after = edited.logits.save()
    assert torch.equal(before, after)
