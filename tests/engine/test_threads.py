"""Many threads on one model, runs that fail, and Ctrl-C: every result is right and nothing is left behind."""

import gc
import random
import signal
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch

import interpose as ip
from interpose.errors import InterposeError

IDS = torch.tensor([[5, 17, 3, 42, 8, 30], [12, 4, 33, 21, 6, 19]])
ROUNDS = 200


@pytest.fixture
def model() -> ip.Model:
    torch.manual_seed(3)
    model = ip.build("llama", layers=3, width=16, heads=4, kv_heads=2, neurons=24, vocab=50, pad_token_id=0)
    with torch.no_grad():
        for weight in model.network.parameters():
            weight.mul_(4)
    return model


def programs(model: ip.Model) -> list[Callable[[int], Any]]:
    """What the threads do; each takes a number that makes its result its own."""

    def pattern(n: int) -> Any:
        with model.trace(IDS):
            model.layers[1].attn.pattern[:, n % 4] = 0.1 * n
            return model.logits.save()

    def skip(n: int) -> Any:
        with model.trace(IDS):
            model.layers[n % 3].skip()
            return model.logits.save()

    def gradient(n: int) -> Any:
        with model.trace(IDS):
            return ip.grad(model.logits[:, -1, n].sum(), model.layers[n % 3].attn.z).save()

    def generation(n: int) -> Any:
        with model.generate(IDS, max_new_tokens=3, stop=()) as t, t.steps():
            model.layers[1].output[:, -1] += 0.3 * n
        return t.tokens

    def failing(n: int) -> Any:
        try:
            with model.trace(IDS):
                model.layers[n % 2].output = model.layers[2].output * n
                model.logits.save()
        except InterposeError as error:
            return torch.tensor(len(str(error)))

    def plain(n: int) -> Any:
        with torch.no_grad():
            return model.network(IDS + n % 7).logits

    def two_worlds(n: int) -> Any:
        with model.trace() as t:
            with t.world("donor", IDS.flip(0)):
                donor = model.layers[n % 3].output
            with t.world("main", IDS):
                model.layers[n % 3].output[:, -1] = donor[:, -1]
                return model.logits[:, -1].save()

    return [pattern, skip, gradient, generation, failing, plain, two_worlds]


def test_eight_threads_on_one_model(model: ip.Model) -> None:
    todo = programs(model)
    expected = {(at, n): program(n) for at, program in enumerate(todo) for n in range(6)}
    wrong: list[str] = []

    def work(seed: int) -> None:
        drawn = random.Random(seed)
        try:
            for _ in range(ROUNDS):
                at, n = drawn.randrange(len(todo)), drawn.randrange(6)
                if not torch.equal(todo[at](n), expected[at, n]):
                    wrong.append(f"{todo[at].__name__}({n})")
        except BaseException as error:
            wrong.append(repr(error))

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


class State:
    """Everything of a network that a run could leave behind."""

    def __init__(self, network: torch.nn.Module) -> None:
        self.weights = {name: value.clone() for name, value in network.state_dict().items()}
        self.modules = {
            name: (id(part), sorted(part.__dict__), part.training) for name, part in network.named_modules()
        }
        self.hooks = {name: [list(part.__dict__[kind]) for kind in KINDS] for name, part in network.named_modules()}
        self.config = dict(vars(network.config))  # type: ignore[arg-type]

    def assert_same(self, other: "State") -> None:
        assert all(torch.equal(value, other.weights[name]) for name, value in self.weights.items())
        assert self.modules == other.modules
        assert self.hooks == other.hooks
        assert self.config == other.config


KINDS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")


@pytest.fixture
def hooked(model: ip.Model) -> Iterator[list[int]]:
    """How often a hook that the user registered fired."""
    fired: list[int] = []
    layer = model.network.get_submodule("model.layers.1")
    handle = layer.register_forward_hook(lambda *_: fired.append(1))
    yield fired
    handle.remove()


def test_a_thousand_failing_runs_leave_nothing_behind(model: ip.Model, hooked: list[int]) -> None:
    before, logits = State(model.network), model.network(IDS).logits
    ways: list[Callable[[], Any]] = [
        lambda: setattr(model.layers[0], "output", model.layers[2].output),
        lambda: setattr(model.layers[0], "output", torch.zeros(2, 6, 15)),
        lambda: setattr(model.module("model.layers.0.mlp"), "output", torch.zeros(3)),
        lambda: model.module("model.layers.0").call(3).output.save(),
        lambda: (model.layers[1].skip(), model.layers[1].attn.z.save()),
        lambda: ip.grad(model.layers[0].input.sum(), model.layers[2].output).save(),
        lambda: model.layers[7],
        lambda: 1 / 0,
    ]
    failed = 0
    for number in range(1000):
        try:
            with model.trace(IDS):
                ways[number % len(ways)]()
                model.logits.save()
        except (InterposeError, ZeroDivisionError):
            failed += 1
    assert failed == 1000
    del hooked[:]
    assert torch.equal(model.network(IDS).logits, logits)
    assert len(hooked) == 1
    with model.trace(IDS):
        again = model.logits.save()
    assert torch.equal(again, logits)
    assert len(hooked) == 2
    State(model.network).assert_same(before)


def test_failing_runs_hold_no_memory(model: ip.Model) -> None:
    def fail() -> None:
        try:
            with model.trace(IDS):
                model.layers[0].output = model.layers[2].output
                model.logits.save()
        except InterposeError:
            pass

    for _ in range(20):
        fail()
    gc.collect()
    before = sum(issubclass(type(thing), torch.Tensor) for thing in gc.get_objects())
    for _ in range(100):
        fail()
    gc.collect()
    assert sum(issubclass(type(thing), torch.Tensor) for thing in gc.get_objects()) <= before + 5


@pytest.mark.skipif(threading.current_thread() is not threading.main_thread(), reason="signals reach the main thread")
def test_ctrl_c_ends_the_run_and_nothing_else(model: ip.Model) -> None:
    before, logits = State(model.network), model.network(IDS).logits
    layer = model.network.get_submodule("model.layers.1")
    handle = layer.register_forward_hook(lambda *_: signal.raise_signal(signal.SIGINT))
    try:
        for _ in range(20):
            with pytest.raises(KeyboardInterrupt), model.trace(IDS):
                model.layers[2].attn.pattern[:] = 0.1
                kept = model.layers[0].output.save()
    finally:
        handle.remove()
    with pytest.raises(InterposeError, match="never made, because its block raised an error"):
        kept.sum()
    with model.trace(IDS):
        again = model.logits.save()
    assert torch.equal(again, logits)
    State(model.network).assert_same(before)
