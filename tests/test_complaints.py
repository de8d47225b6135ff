"""What people have complained about in tools of this kind, each as a test that it does not happen here.

The numbers are those of the issues where the complaint was made: of nnsight, TransformerLens and pyvene.
"""

import gc
import inspect
import io
import json
import math
import re
import runpy
import subprocess
import sys
import threading
import traceback
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import interpose as ip
from interpose import wire
from interpose.errors import InterposeError, RunError, ShapeError, SiteError, TraceError

SOURCE = Path(str(ip.__file__)).parent
SIZES = {"layers": 2, "heads": 4, "width": 32, "neurons": 48, "vocab": 60}
FAMILIES = ("gpt2", "gpt_neox", "llama", "gemma3_text", "olmo2")
IDS = torch.tensor([[5, 17, 3, 42, 8], [12, 4, 33, 21, 6]])
X = torch.randn(3, 4, generator=torch.manual_seed(1))


@pytest.fixture(scope="module")
def family() -> Callable[[str], ip.Model]:
    """A tiny model of a family; no test changes it."""
    made: dict[str, ip.Model] = {}

    def build(name: str) -> ip.Model:
        if name not in made:
            torch.manual_seed(0)
            made[name] = ip.build(name, **SIZES)
            with torch.no_grad():
                for weight in made[name].network.parameters():
                    weight.mul_(4).add_(0.1 * torch.randn_like(weight))
        return made[name]

    return build


@pytest.fixture
def net() -> ip.Model:
    """A plain network without a config."""
    torch.manual_seed(0)
    return ip.wrap(torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.Tanh(), torch.nn.Linear(8, 2)))


def stock(model: ip.Model, ids: torch.Tensor = IDS) -> torch.Tensor:
    with torch.no_grad():
        return model.network(ids, use_cache=False).logits


# ---------------------------------------------------------------------------------- nnsight: values that are lost


def test_a_value_that_was_not_saved_says_so_wherever_it_was_kept(net: ip.Model) -> None:
    """nnsight #145, #143, #432, #468, #486, #369: a variable is missing after the block, and nothing says why."""

    def helper() -> Any:
        return net.module("0").output * 2

    with net.trace(X):
        single, several, table = helper(), [net.module(str(i)).output for i in range(3)], {"h": net.output}
    for use in (
        lambda: single.sum(),
        lambda: several[1].mean(),
        lambda: table["h"] + 1,
        lambda: float(single.sum()),
    ):
        line = inspect.getsourcelines(use)[1]
        with pytest.raises(TraceError, match=rf"^{__file__}:{line}: .*Add \.save\(\) to it inside the block .*made at"):
            use()


def test_values_saved_in_comprehensions_loops_and_structures_are_there(net: ip.Model) -> None:
    """nnsight's own audit of 2026: a list that a comprehension or append makes is not there after the block."""
    appended, holder = [], type("Holder", (), {})()
    with net.trace(X):
        listed = [net.module(str(i)).output.save() for i in range(3)]
        table = {str(i): net.module(str(i)).output.save() for i in range(3)}
        for i in range(3):
            appended.append(net.module(str(i)).output.save())
        holder.h = net.module("0").output.save()
    wanted = [net.network[: i + 1](X) for i in range(3)]
    for found in (listed, list(table.values()), appended):
        assert all(type(a) is torch.Tensor and torch.equal(a, b) for a, b in zip(found, wanted, strict=True))
    assert torch.equal(holder.h, wanted[0])


def test_values_are_unpacked_as_in_torch(net: ip.Model) -> None:
    """nnsight (seen in 0.8.1): `x, y = t.shape[:2]` inside a block is an UnboundLocalError."""
    with net.trace(X):
        h = net.module("0").output
        rows, columns = h.shape
        first, *rest = h
        left, right = h.chunk(2, -1)
        value, index = h.max(-1)
        total = (first + sum(rest)).save()
        both = (left * right).save()
        best = value.save(), index.save()
    wanted = net.network[0](X)
    assert (rows, columns) == (3, 8)
    assert torch.allclose(total, wanted.sum(0))
    assert torch.equal(both, wanted[:, :4] * wanted[:, 4:])
    assert torch.equal(best[0], wanted.max(-1).values)
    assert torch.equal(best[1], wanted.max(-1).indices)


def test_an_earlier_block_never_changes_a_later_one(family: Callable[[str], ip.Model]) -> None:
    """nnsight #607: an earlier trace changes what a later one gives."""
    model = family("llama")
    clean = stock(model)
    for change in (lambda: model.layers[0].output.zero_(), lambda: setattr(model.layers[1].attn, "z", 1.0)):
        with model.trace(IDS):
            change()
            model.logits.save()
        with pytest.raises(ZeroDivisionError), model.trace(IDS):
            change()
            _ = 1 / 0
        with model.trace(IDS):
            logits = model.logits.save()
        assert torch.equal(logits, clean)
        assert torch.equal(stock(model), clean)


def test_a_saved_value_is_not_overwritten_afterwards() -> None:
    """nnsight #661, #662: saved tensors change when the network goes on, unless one clones them."""
    network = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(inplace=True), torch.nn.Linear(8, 2))
    model = ip.wrap(network)
    with model.trace(X):
        before, after = model.module("0").output.save(), model.module("1").output.save()
    kept = before.clone()
    model.network(X)
    with model.trace(-X):
        model.output.save()
    assert torch.equal(before, kept)
    assert torch.equal(before, network[0](X))
    assert torch.equal(after, network[0](X).relu())
    assert bool((before < 0).any())


# ---------------------------------------------------------------------------------- nnsight: what can be written


def test_sites_are_named_in_any_order(family: Callable[[str], ip.Model]) -> None:
    """nnsight (seen in 0.8.1): reading an earlier layer after a later one is an OutOfOrderError."""
    model = family("gpt2")
    with model.trace(IDS):
        logits = model.logits.save()
        late = model.layers[1].output.save()
        early = model.layers[0].attn.output.save()
        model.layers[0].mlp.output[:, -1] = 0
    with model.trace(IDS):
        model.layers[0].mlp.output[:, -1] = 0
        again = [model.layers[0].attn.output.save(), model.layers[1].output.save(), model.logits.save()]
    assert all(torch.equal(a, b) for a, b in zip((early, late, logits), again, strict=True))


BODIES = """
with net.trace(X):
    try:
        a = net.module("0").output.save()
    finally:
        pass
with net.trace(X): b = net.module("0").output.save()
def closure():
    kept = None
    def inner():
        nonlocal kept
        with net.trace(X):
            kept = net.module("0").output.save()
    inner()
    return kept
c = closure()
d = (lambda t: (t.__enter__(), net.module("0").output.save(), t.__exit__(None, None, None))[1])(net.trace(X))
"""


def test_code_without_a_file_and_bodies_of_any_form_work(net: ip.Model, tmp_path: Path) -> None:
    """nnsight #606 (and seen in 0.8.1): generated code, one-line bodies and bodies that begin with try are refused."""
    names: dict[str, Any] = {"net": net, "X": X}
    exec(BODIES, names)
    (tmp_path / "module.py").write_text(BODIES)
    from_file = runpy.run_path(str(tmp_path / "module.py"), {"net": net, "X": X})
    wanted = net.network[0](X)
    assert all(torch.equal(made[name], wanted) for made in (names, from_file) for name in "abcd")
    wrong = 'with net.trace(X):\n    h = net.module("0").output; h.shape\n    h + torch.ones(5)'
    with pytest.raises(ShapeError, match="^<cell 3>:3: add does not fit"):
        exec(compile(wrong, "<cell 3>", "exec"), {**names, "torch": torch})
    with pytest.raises(ShapeError, match=rf"^{__file__}:\d+: add does not fit"):
        exec(wrong, {**names, "torch": torch})


def test_a_program_on_standard_input_works() -> None:
    """nnsight #606 (and seen in 0.8.1): code on standard input, as in a notebook's kernel, is refused."""
    program = """
import sys, torch, builtins
def attributes(holder):
    return {name: value for name, value in vars(holder).items() if name != "__slotnames__"}  # a cache of Python's own
def state():
    holders = torch.Tensor, torch.nn.Module, torch.autograd.Function, int, object, builtins
    return [*map(attributes, holders), sys.gettrace(), sys.getprofile(), sys.excepthook, sys.displayhook]
was = state()
import interpose as ip
net = ip.wrap(torch.nn.Linear(4, 2))
with net.trace(torch.ones(1, 4)) as t:
    h = net.output.save()
    g = ip.grad(h.sum(), net.input).save()
    tracing = sys.gettrace()
assert tracing is None and state() == was, "something was patched"
assert not hasattr(3, "save") and not hasattr([], "save")
assert "transformers" not in sys.modules, "a library that was not asked for"
print(tuple(h.shape), tuple(g.shape))
"""
    run = subprocess.run([sys.executable, "-"], input=program, capture_output=True, text=True, check=False)
    assert (run.stdout, run.stderr) == ("(1, 2) (1, 4)\n", "")


def test_a_debugger_and_coverage_see_the_users_own_lines(net: ip.Model) -> None:
    """nnsight (seen in 0.8.1): the trace function is replaced, and breakpoints inside a block are not reached."""
    lines: list[int] = []

    def tracer(frame: Any, event: str, argument: Any) -> Any:
        if frame.f_code.co_filename == __file__ and event == "line":
            lines.append(frame.f_lineno)
        return tracer

    def block() -> Any:
        with net.trace(X):
            h = net.module("0").output
            inside = sys.gettrace()
            h.save()
        return inside

    before = sys.gettrace()
    sys.settrace(tracer)
    try:
        inside, after = block(), sys.gettrace()
    finally:
        sys.settrace(before)
    assert inside is after is tracer
    start = inspect.getsourcelines(block)[1]
    assert {start + 1, start + 2, start + 3, start + 4, start + 5} <= set(lines)


def test_several_prompts_and_worlds_run_on_a_plain_module(net: ip.Model) -> None:
    """nnsight (seen in 0.8.1): two prompts on a network that is no language model are a NotImplementedError."""
    with net.trace() as t:
        with t.world("one", X):
            h = net.module("0").output
        with t.world("two", -X):
            net.module("0").output = h
            crossed = net.output.save()
        with t.world("three", X[:1]):
            alone = net.output.save()
    assert torch.equal(crossed, net.network(X))
    assert torch.equal(alone, net.network(X[:1]))


def test_three_threads_use_one_model(family: Callable[[str], ip.Model]) -> None:
    """nnsight (seen in 0.8.1): three threads on one model raise errors and lose values."""
    model = family("llama")
    ids = [torch.randint(0, 60, (2, 5), generator=torch.manual_seed(i)) for i in range(3)]
    found: dict[int, list[torch.Tensor]] = {0: [], 1: [], 2: []}

    def work(number: int) -> None:
        for _ in range(10):
            with model.trace(ids[number]):
                model.layers[0].output *= number
                found[number].append(model.logits.save())

    threads = [threading.Thread(target=work, args=(number,)) for number in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for number, logits in found.items():
        with model.trace(ids[number]):
            model.layers[0].output *= number
            wanted = model.logits.save()
        assert len(logits) == 10
        assert all(torch.equal(each, wanted) for each in logits)


def test_places_at_a_step_are_named_in_any_order_and_are_of_that_step(family: Callable[[str], ip.Model]) -> None:
    """nnsight #718, pyvene #193, TransformerLens #889: against the model's order, a read is silently of the next step.

    And steps and their cache are another thing than the same tokens given at once.
    """
    model = family("llama")
    with model.generate(IDS, max_new_tokens=4, stop=()) as t, t.steps(1, 3):
        model.layers[0].attn.output[:, -1] *= 2  # also of the step alone
        late, early = model.layers[1].output[:, -1].save(), model.layers[0].output[:, -1].save()
    with model.trace(torch.cat([IDS, t.tokens], 1)):
        model.layers[0].attn.output[:, 5:7] *= 2
        streams = model.layers[0].output.save(), model.layers[1].output.save()
    assert [len(early), len(late)] == [2, 2]
    for step in (1, 2):
        for found, stream in zip((early, late), streams, strict=True):
            assert torch.allclose(found[step - 1], stream[:, 4 + step], atol=1e-4)


def test_shapes_are_known_in_a_block_of_any_module(net: ip.Model) -> None:
    """nnsight (seen in 0.8.1): `scan`, which tells shapes, is there for language models only."""
    ran: list[bool] = []
    net.network[1].register_forward_hook(lambda *_: ran.append(True))
    with net.trace(X):
        shape, count = tuple(net.module("1").output.shape), net.output.shape[-1]
        before = len(ran)
        net.module("1").output = torch.ones(shape)
        output = net.output.save()
    assert (shape, count) == ((3, 8), 2)
    assert before <= 2  # once without data for each; no number was computed
    assert torch.equal(output, net.network[2](torch.ones(3, 8)))


def test_an_intervention_travels_as_data_and_not_as_source_or_a_pickle(family: Callable[[str], ip.Model]) -> None:
    """nnsight #570, #572, #573, #601, #619, #161, #700, nnterp #48: versions of Python and of the tool must agree.

    And modules of the standard library, lists and encoders cannot be sent, or are "not whitelisted".
    """
    model = family("llama")
    with model.trace(IDS, run=False) as t:
        kept = [model.layers_input[layer][:, -1] for layer in range(2)]
        model.layers[1].mlp.output += torch.stack(kept).mean(0)[:, None] * math.pi
        model.logits.save("logits")
    text = wire.encode(t.graph)
    feed, tensors = wire.encode_feed(t.feed)
    assert json.loads(text)
    again, given = wire.decode(text), wire.decode_feed(feed, tensors)
    wanted, found = (next(iter(model.backend.run_many([g], [f]))) for g, f in ((t.graph, t.feed), (again, given)))
    assert torch.equal(found["logits"], wanted["logits"])
    encoder = ip.build("bert", **SIZES)
    with encoder.trace(IDS, run=False) as t:
        encoder.layers[0].attn.pattern.save("pattern")
    assert wire.decode(wire.encode(t.graph)) == t.graph
    with pytest.raises(InterposeError, match=r"interpose"):
        wire.decode(re.sub(r'("version": *)"?\d+"?', r"\g<1>999", text, count=1))


def test_importing_is_light_and_loads_no_model_library() -> None:
    """nnsight #663, TransformerLens (seen in 4.3): seconds to import, and transformers with it."""
    program = "import sys, interpose; print(sorted({'torch', 'transformers', 'numpy'} & set(sys.modules)))"
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert run.stdout == "[]\n"


@pytest.mark.parametrize("form", ["function", "method"])
def test_a_compiled_network_is_looked_into(form: str) -> None:
    """nnsight (seen in 0.8.1): a compiled network cannot be traced."""
    network = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.Tanh(), torch.nn.Linear(8, 2)).eval()
    compiled = torch.compile(network, backend="eager") if form == "function" else network
    if form == "method":
        network.compile(backend="eager")
    model = ip.wrap(compiled)
    with model.trace(X):
        model.module("0").output[:] = 0
        output = model.output.save()
    assert torch.equal(output, network[1:](torch.zeros(3, 8)))
    assert torch.equal(compiled(X), network[2](network[1](network[0](X))))


# ---------------------------------------------------------------------------------- nnsight: errors, gradients, memory


def test_a_wrong_index_is_said_in_one_line_that_begins_with_the_users(
    net: ip.Model, family: Callable[[str], ip.Model]
) -> None:
    """nnsight #422, #284, #488 (and seen in 0.8.1): ten frames of torch stand before the user's line."""
    model = family("llama")

    def known() -> None:
        with model.trace(IDS):
            model.layers[0].output[:, 9].save()

    def found_while_running() -> None:
        with net.trace(X):
            net.module("0").output[:, 99].save()

    for wrong in (known, found_while_running):
        line = inspect.getsourcelines(wrong)[1] + 2
        with pytest.raises(InterposeError, match=rf"^{__file__}:{line}: .*index \d+ is out of bounds") as raised:
            wrong()
        assert "\n" not in str(raised.value)
        assert len(str(raised.value)) < 200
        frames = traceback.extract_tb(raised.value.__traceback__)
        frames = [frame for frame in frames if "/jaxtyping/" not in frame.filename]  # in tests only
        assert not [frame for frame in frames if "site-packages" in frame.filename]
        assert len(frames) <= 12


def test_gradients_are_there_in_two_worlds_and_for_several_prompts(net: ip.Model) -> None:
    """nnsight #473, #664, #671: with two prompts a gradient never arrives."""
    with net.trace() as t:
        gradients = []
        for name, x in (("one", X), ("two", 2 * X)):
            with t.world(name, x):
                h = net.module("0").output
                gradients.append(ip.grad((net.output**2)[0].sum(), h).save())
    for x, found in zip((X, 2 * X), gradients, strict=True):
        hidden = net.network[0](x).detach().requires_grad_()
        (net.network[1:](hidden) ** 2)[0].sum().backward()
        assert torch.allclose(found, hidden.grad)
        assert found[0].abs().sum() > 0


def test_memory_is_given_back_without_the_collector_and_does_not_grow_with_worlds() -> None:
    """nnsight #102, #169, #389, #396, #538: batches take eightfold memory, which only gc.collect() gives back."""
    alive: list[weakref.ref[Any]] = []
    most = [0]

    class Watched(torch.nn.Linear):
        def forward(self, value: torch.Tensor) -> torch.Tensor:
            made = super().forward(value)
            alive.append(weakref.ref(made))
            most[0] = max(most[0], sum(ref() is not None for ref in alive))
            return made

    model = ip.wrap(torch.nn.Sequential(*[Watched(4, 4) for _ in range(6)]))
    gc.disable()
    try:
        with model.trace() as t:
            for number in range(8):
                with t.world(str(number), X):
                    model.module("1").output *= 2
                    model.module("5").output.sum().save()
        assert sum(ref() is not None for ref in alive) == 0
    finally:
        gc.enable()
    assert len(alive) == 48
    assert most[0] <= 3


def test_memory_that_ran_out_says_what_to_lower_and_is_given_back(net: ip.Model) -> None:
    """nnsight #102, #389: running out of memory is a bare error, and what was held stays held."""
    held: list[weakref.ref[Any]] = []

    class Full(torch.nn.Module):
        def forward(self, value: torch.Tensor) -> torch.Tensor:
            large = value * 2
            held.append(weakref.ref(large))
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB.")

    model = ip.wrap(torch.nn.Sequential(torch.nn.Linear(4, 4), Full()))
    with pytest.raises(RunError, match=rf"^{__file__}:\d+: .*Tried to allocate 20.00 GiB") as raised:  # noqa: SIM117
        with model.trace(X):
            model.module("0").output.save()
            model.output.save()
    for advice in ("fewer prompts", "shorter prompts", "fewer saved sites", "smaller number type"):
        assert advice in str(raised.value)
    assert isinstance(raised.value.__cause__, torch.OutOfMemoryError)
    assert held[0]() is None
    with pytest.raises(RunError, match="clone failed: .*allocate.*\nMemory ran out"), net.trace(X):
        net.module("0").output[0, 0].expand(2**30, 2**30).clone().save()


# ---------------------------------------------------------------------------------- TransformerLens


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_logits_are_bit_for_bit_those_of_the_stock_network(
    name: str, dtype: torch.dtype, family: Callable[[str], ip.Model]
) -> None:
    """TransformerLens #223, #385, #496, #615, #683, #685, #693, #645, #104: other numbers than Hugging Face's."""
    model = family(name)
    if dtype != torch.float32:
        network = type(model.network)(model.network.config).eval()
        network.load_state_dict(model.network.state_dict())
        model = ip.wrap(network.to(dtype))
    with model.trace(IDS):
        for layer in model.layers:
            layer.attn.pattern.save()
            layer.output.save()
        logits = model.logits.save()
    assert logits.dtype == dtype
    assert torch.equal(logits, stock(model))


@pytest.mark.parametrize("name", FAMILIES)
def test_what_a_block_adds_holds_no_residual_and_a_write_is_never_nothing(
    name: str, family: Callable[[str], ip.Model]
) -> None:
    """TransformerLens #1618, #1639, #1527, #1541: attention's output with the residual in it; hooks that do nothing."""
    model = family(name)
    clean, parts = (
        stock(model),
        ("attn.output", "mlp.output", "attn.z", "mlp.neurons", "attn.v", "attn.pattern", "output"),
    )
    with model.trace(IDS):
        layer = model.layers[1]
        inside = [layer.input.save(), layer.attn.output.save(), layer.mlp.output.save(), layer.output.save()]
    assert torch.allclose(inside[0] + inside[1] + inside[2], inside[3], atol=1e-4)
    for part in parts:
        with model.trace(IDS):
            model.site(f"layers.1.{part}").zero_()
            logits = model.logits.save()
        assert not torch.allclose(logits, clean, atol=1e-4), part


def test_a_family_without_a_table_is_refused_and_reached_by_path() -> None:
    """TransformerLens #1639, #898, #915, #953, #1156: wrong names for a new family, or none at all until a release."""
    sizes = {"n_layer": 2, "n_embd": 32, "n_head": 4, "vocab_size": 60, "rotary_dim": 4, "n_positions": 32}
    codegen = ip.build("codegen", bos_token_id=0, eos_token_id=0, **sizes)
    with pytest.raises(SiteError, match=r"kind without a table \(codegen\).*model\.module\("), codegen.trace(IDS):
        codegen.layers[0].attn.output.save()
    with codegen.trace(IDS):
        codegen.module("transformer.h.0.mlp").output[:] = 0
        logits = codegen.output.logits.save()
    handle = codegen.network.transformer.h[0].mlp.register_forward_hook(lambda module, args, out: torch.zeros_like(out))
    assert torch.equal(logits, stock(codegen))
    handle.remove()


def test_wrapping_copies_no_weight_and_leaves_the_kernel(family: Callable[[str], ip.Model]) -> None:
    """TransformerLens #252, #706, #784, #290, #378: twice the memory to load, and eager attention for everyone."""
    network = family("llama").network
    before = {name: weight.data_ptr() for name, weight in network.state_dict(keep_vars=True).items()}
    kernel = network.config._attn_implementation
    model = ip.wrap(network)
    with model.trace(IDS):
        model.layers[0].attn.pattern.save()
        model.layers[1].attn.z[:, :, 0] = 0
        model.logits.save()
    assert model.network is network
    assert {name: weight.data_ptr() for name, weight in network.state_dict(keep_vars=True).items()} == before
    assert network.config._attn_implementation == kernel == "sdpa"


def test_a_tokenizer_object_is_used_as_it_is_without_a_hub(family: Callable[[str], ip.Model]) -> None:
    """TransformerLens (seen in 4.3): a tokenizer that was passed is loaded again from the hub by its name."""

    class Letters:
        name_or_path = "nobody/never-uploaded"
        pad_token_id = None
        eos_token_id = 0

        def __call__(self, text: str) -> dict[str, list[int]]:
            return {"input_ids": [ord(letter) % 60 for letter in text]}

    tokenizer = Letters()
    model = ip.wrap(family("gpt2").network, tokenizer=tokenizer)
    with model.trace("text"):
        logits = model.logits.save()
    assert model.tokenizer is tokenizer
    assert torch.equal(logits, stock(model, torch.tensor([[ord(letter) % 60 for letter in "text"]])))


# ---------------------------------------------------------------------------------- pyvene


def test_the_users_own_hooks_keep_firing(net: ip.Model) -> None:
    """pyvene (seen in 0.1.8): every call strips all hooks of the network, the user's own too."""
    fired: list[str] = []
    net.network[0].register_forward_hook(lambda *_: fired.append("forward"))
    net.network[2].register_forward_pre_hook(lambda *_: fired.append("before"))
    net.network.register_forward_hook(lambda *_: fired.append("root"))
    for _ in range(2):
        with net.trace(X):
            net.module("0").output *= 2
            net.output.save()
    net.network(X)
    assert fired == ["forward", "before", "root"] * 3


def test_any_module_works_without_a_config() -> None:
    """pyvene (seen in 0.1.8): a network without `config` fails; "any PyTorch model" is not true."""
    convolution = ip.wrap(torch.nn.Sequential(torch.nn.Conv2d(1, 3, 3), torch.nn.Flatten(), torch.nn.LazyLinear(2)))
    recurrent = ip.wrap(torch.nn.LSTM(4, 5, batch_first=True))
    image, sequence = torch.randn(2, 1, 5, 5), torch.randn(2, 3, 4)
    with torch.no_grad():
        wanted = convolution.network(image), recurrent.network(sequence)[0]
    with convolution.trace(image):
        one = convolution.output.save()
    with recurrent.trace(sequence):
        two = recurrent.output[0].save()
    assert torch.equal(one, wanted[0])
    assert torch.equal(two, wanted[1])


def test_a_misspelt_place_is_answered_with_the_nearest(family: Callable[[str], ip.Model], net: ip.Model) -> None:
    """pyvene (seen in 0.1.8): a misspelt component is "no attribute ''"."""
    model = family("llama")
    wrong: list[tuple[Callable[[], Any], str]] = [
        (lambda: model.layers[0].mlp.ouput, r"layers\[0\]\.mlp\.output"),
        (lambda: model.module("model.layers.0.self_atn"), r"model\.layers\.0\.self_attn"),
        (lambda: model.site("layers.1.attn.quary"), r"attn\.query"),
        (lambda: model.logit, "logits"),
    ]
    for call, nearest in wrong:
        with pytest.raises(SiteError, match=f"Nearest .*{nearest}"), model.trace(IDS):
            call()
    with pytest.raises(SiteError, match=r"has no module at '5'"):
        net.module("5")


def test_a_value_of_a_wrong_form_names_both_shapes(family: Callable[[str], ip.Model]) -> None:
    """pyvene (seen in 0.1.8): wrong nesting is "The expanded size of the tensor (-1) isn't allowed"."""
    model = family("llama")
    with pytest.raises(ShapeError, match=r"shape \(2, 5, 4, 8\) and cannot take a value of shape \(2, 5, 8, 4\)"):  # noqa: SIM117
        with model.trace(IDS):
            model.layers[0].attn.z = torch.zeros(2, 5, 8, 4)


@pytest.mark.parametrize("name", FAMILIES)
def test_one_head_is_changed_on_every_family(name: str, family: Callable[[str], ip.Model]) -> None:
    """pyvene #158: single heads can be intervened on in GPT-2 only."""
    model = family(name)
    out = {"gpt2": "transformer.h.1.attn.c_proj", "gpt_neox": "gpt_neox.layers.1.attention.dense"}
    module = model.network.get_submodule(out.get(name, "model.layers.1.self_attn.o_proj"))
    with model.trace(IDS):
        width = model.layers[1].attn.z.shape[-1]
        model.layers[1].attn.z[:, :, 2] = 0
        logits = model.logits.save()

    def zero(module: torch.nn.Module, args: tuple[torch.Tensor]) -> tuple[torch.Tensor]:
        value = args[0].clone()
        value[..., 2 * width : 3 * width] = 0
        return (value,)

    handle = module.register_forward_pre_hook(zero)
    assert torch.equal(logits, stock(model))
    handle.remove()
    assert not torch.equal(logits, stock(model))


def test_what_is_saved_is_read_back_whole_and_runs_no_code(tmp_path: Path) -> None:
    """pyvene #147, #30, #37: save drops parameters; and loading opens pickles and makes classes from names."""
    scores = ip.Scores(torch.randn(3), ["a", "b", "c"], {"seed": 1})
    again = ip.Scores.load(scores.save(tmp_path / "scores.safetensors"))
    assert torch.equal(again.values, scores.values)
    assert list(again.units) == ["a", "b", "c"]
    assert again.meta["seed"] == 1
    torch.save({"scores": torch.ones(3)}, tmp_path / "pickle.safetensors")
    with pytest.raises(InterposeError, match="not a whole safetensors file"):
        ip.Scores.load(tmp_path / "pickle.safetensors")
    unsafe = re.compile(
        r"\btorch\.(load|save)\(|\bimport (pickle|dill|cloudpickle|marshal|shelve)\b|(?<![\w.])(eval|exec)\("
    )
    found = [path for path in SOURCE.rglob("*.py") if unsafe.search(path.read_text(encoding="utf-8"))]
    # The files of another project: what is opened is opened by the reader that makes tensors and plain values only.
    foreign = SOURCE / "search" / "mib.py"
    assert found == [foreign]
    opened = re.findall(r"\btorch\.load\(.*", foreign.read_text(encoding="utf-8"))
    assert opened == ['torch.load(path, map_location="cpu", weights_only=True)']


def test_a_module_that_is_called_twice_must_say_which_call() -> None:
    """Every peer: the last, or the first, call is given silently."""

    class Twice(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.cell = torch.nn.Linear(4, 4)

        def forward(self, value: torch.Tensor) -> torch.Tensor:
            return self.cell(self.cell(value))

    model = ip.wrap(Twice())
    with pytest.raises(RunError, match=rf"^{__file__}:\d+: .*reached more than once.*\.call\(0\), \.call\(1\)"):  # noqa: SIM117
        with model.trace(X):
            model.module("cell").output.save()
    with model.trace(X):
        first, second = (model.module("cell").call(i).output.save() for i in range(2))
    assert torch.equal(first, model.network.cell(X))
    assert torch.equal(second, model.network.cell(first))


def test_nothing_is_printed_and_no_warning_comes(net: ip.Model, monkeypatch: pytest.MonkeyPatch) -> None:
    """nnsight #145 and others: warnings and output of the tool's own machinery in between."""
    out, err = io.StringIO(), io.StringIO()
    monkeypatch.setattr(sys, "stdout", out)
    monkeypatch.setattr(sys, "stderr", err)
    with net.trace(X):
        net.module("0").output.save()
    assert (out.getvalue(), err.getvalue()) == ("", "")
