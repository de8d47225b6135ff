"""The user's network is never touched: its own hooks fire, threads do not meet, changes made to it are seen."""

import importlib
import threading
from collections.abc import Callable
from typing import Any

import pytest
import torch

import interpose as ip
from interpose.errors import RunError


def test_the_users_hooks_fire_and_stay(net: ip.Model, x: torch.Tensor) -> None:
    fired: list[str] = []
    network = net.network
    network[0].register_forward_hook(lambda *_: fired.append("output"))
    network[0].register_forward_pre_hook(lambda *_: fired.append("input"))
    network[3].register_forward_hook(lambda *_, **__: fired.append("later"), with_kwargs=True)
    for _ in range(2):
        fired.clear()
        with net.trace(x):
            net.module("0").output[:, 0] = 0
            net.module("0").input.save()
            net.output.save()
        assert fired == ["input", "output", "later"]
    assert len(network[0]._forward_hooks) == len(network[0]._forward_pre_hooks) == 1
    fired.clear()
    network(x)
    assert fired == ["input", "output", "later"]


def test_a_hook_registered_between_runs_fires_in_the_next(net: ip.Model, x: torch.Tensor) -> None:
    def run() -> torch.Tensor:
        with net.trace(x):
            net.module("2").output.save("middle")
            return net.output.save()

    before = run()
    handle = net.network[2].register_forward_hook(lambda module, args, output: output * 2)
    doubled = run()
    with torch.no_grad():
        assert torch.equal(doubled, net.network(x))
    handle.remove()
    assert torch.equal(run(), before)


def test_a_site_is_what_the_users_hooks_leave(net: ip.Model, x: torch.Tensor) -> None:
    clean = net.network[0](x).detach()
    net.network[0].register_forward_hook(lambda module, args, output: output + 1)
    net.network[2].register_forward_pre_hook(lambda module, args: (args[0] * 3,))
    with net.trace(x):
        first, second = net.module("0").output.save(), net.module("2").input.save()
        net.module("2").output.save()
    assert torch.equal(first, clean + 1)
    assert torch.equal(second, net.network[1](clean + 1) * 3)


def test_changes_to_the_network_are_seen_by_the_next_run(net: ip.Model, x: torch.Tensor) -> None:
    network = net.network

    def agrees() -> bool:
        with net.trace(x):
            net.module("0").output.save()
            result = net.output.save()
        torch.manual_seed(9)
        with torch.no_grad():
            return torch.equal(result, network(x))

    assert agrees()
    network[0].weight.data.mul_(2)
    assert agrees()
    network[0].weight = torch.nn.Parameter(torch.ones(8, 4))
    assert agrees()
    network[0] = torch.nn.Linear(4, 8)
    assert agrees()
    network[1] = torch.nn.ReLU()
    assert agrees()
    network.double()
    x = x.double()
    assert agrees()


def test_training_and_evaluation_are_seen(x: torch.Tensor) -> None:
    model = ip.wrap(torch.nn.Sequential(torch.nn.Linear(4, 400), torch.nn.Dropout(0.5)))
    zeros = []
    for train in (True, False, True):
        model.network.train(train)
        with model.trace(x):
            model.module("0").output.save()
            zeros.append((model.module("1").output == 0).sum().save())
    assert int(zeros[0]) > 100
    assert int(zeros[1]) == 0
    assert int(zeros[2]) > 100
    assert model.network.training


def test_another_attention_kernel_is_seen() -> None:
    torch.manual_seed(0)
    model = ip.build("llama", layers=2, width=16, heads=2, neurons=16, vocab=20, attn_implementation="sdpa")
    ids = torch.randint(0, 20, (1, 300))
    found = {}
    for kernel in ("sdpa", "eager", "sdpa"):
        model.network.set_attn_implementation(kernel)
        with model.trace(ids):
            model.layers[0].attn.query.save()
            logits = model.logits.save()
        with torch.no_grad():
            found[kernel] = model.network(ids, use_cache=False).logits
        assert torch.equal(logits, found[kernel])
    assert not torch.equal(found["sdpa"], found["eager"])


def test_four_threads_on_one_model_do_not_meet(model: ip.Model) -> None:
    wrong: list[Any] = []
    prompts = torch.randint(2, 50, (4, 2, 6), generator=torch.manual_seed(0))

    def expected(ids: torch.Tensor, strength: float) -> tuple[torch.Tensor, torch.Tensor]:
        with model.trace(ids):
            model.layers[1].mlp.output *= strength
            return model.layers[0].attn.pattern.save(), model.logits.save()

    wanted = [expected(ids, 1.0 + i) for i, ids in enumerate(prompts)]

    def work(number: int) -> None:
        for _ in range(15):
            found = expected(prompts[number], 1.0 + number)
            if not all(torch.equal(a, b) for a, b in zip(found, wanted[number], strict=True)):
                wrong.append(number)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_four_threads_in_one_plan_do_not_meet(model: ip.Model) -> None:
    prompts = torch.randint(2, 50, (4, 2, 6), generator=torch.manual_seed(0))
    with model.trace(prompts[0], run=False) as t:
        model.layers[1].output[:, -1] *= 2
        model.logits.save("logits")

    def run(ids: torch.Tensor) -> torch.Tensor:
        feed = t.feed.with_({"main": ip.Batch.of_tokens(ids, torch.ones_like(ids))})
        return next(model.backend.run_many([t.graph], [feed]))["logits"]

    wanted, wrong = [run(ids) for ids in prompts], []

    def work(number: int) -> None:
        wrong.extend(number for _ in range(40) if not torch.equal(run(prompts[number]), wanted[number]))

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_blocks_in_other_threads_are_other_blocks(model: ip.Model, ids: torch.Tensor) -> None:
    seen: list[Any] = []

    def work() -> None:
        with model.trace(ids):
            seen.append(model.logits.save())

    with model.trace(ids):
        thread = threading.Thread(target=work)
        thread.start()
        thread.join()
        logits = model.logits.save()
    assert torch.equal(seen[0], logits)


def test_a_forward_set_on_an_instance_is_refused(net: ip.Model, x: torch.Tensor) -> None:
    stock = net.network.forward
    net.network.forward = lambda value: stock(value)
    with pytest.raises(RunError, match=r"has a forward set on the instance.*del module.forward"), net.trace(x):
        net.module("0").output.save()
    del net.network.forward
    with net.trace(x):
        net.module("0").output.save()


@pytest.mark.needs_package("accelerate")
def test_networks_dispatched_by_accelerate_work(model: ip.Model, ids: torch.Tensor) -> None:
    accelerate = importlib.import_module("accelerate")
    torch.manual_seed(3)
    sizes = {"layers": 3, "width": 24, "heads": 4, "kv_heads": 2, "neurons": 32, "vocab": 50, "pad_token_id": 0}
    hooked = ip.build("llama", **sizes, bos_token_id=0, eos_token_id=1)
    names = {name for name, _ in hooked.network.named_children()}
    accelerate.dispatch_model(hooked.network, {name: "cpu" for name in names}, force_hooks=True)
    assert "forward" in hooked.network.__dict__

    def run(model: ip.Model) -> tuple[torch.Tensor, ...]:
        with model.trace(ids):
            model.layers[1].mlp.output[:, -1] = 0
            pattern, stream = model.layers[1].attn.pattern.save(), model.layers[2].input.save()
            return pattern, stream, model.logits.save()

    for first, second in zip(run(model), run(hooked), strict=True):
        assert torch.equal(first, second)


class Loop(torch.nn.Module):
    """Calls one part three times, and one not at all."""

    def __init__(self) -> None:
        super().__init__()
        self.part, self.idle = torch.nn.Linear(4, 4), torch.nn.Linear(4, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for _ in range(3):
            x = torch.tanh(self.part(x))
        return x


def test_a_module_called_several_times_is_reached_by_its_call(x: torch.Tensor) -> None:
    model = ip.wrap(Loop())
    with model.trace(x):
        second = model.module("part").call(1).output.save()
        model.module("part").call(2).input[:, 0] = 0
        result = model.output.save()
    part = model.network.part
    expected = part(torch.tanh(part(x)))
    inside = torch.tanh(expected).detach()
    inside[:, 0] = 0
    assert torch.equal(second, expected)
    assert torch.equal(result, torch.tanh(part(inside)))
    refused: list[tuple[Callable[[], Any], str]] = [
        (
            lambda: model.module("part").output.save(),
            rf"^{__file__}:\d+: .*reached more than once.*\.call\(0\), \.call\(1\)",
        ),
        (lambda: model.module("part").call(3).output.save(), r"without reaching module\(\"part\"\).call\(3\).output"),
        (
            lambda: model.module("idle").output.save(),
            rf"^{__file__}:\d+: the model ran the world 'main' without reaching",
        ),
    ]
    for call, message in refused:
        with pytest.raises(RunError, match=message), model.trace(x):
            call()


def test_training_with_gradient_checkpointing_is_refused(ids: torch.Tensor) -> None:
    torch.manual_seed(0)
    model = ip.build("llama", layers=2, width=16, heads=2, neurons=16, vocab=50)
    model.network.activation_checkpointing_enable()
    with model.trace(ids):
        model.layers[0].output.save()
    model.network.train()
    with pytest.raises(RunError, match="gradient checkpointing, which runs its layers twice"), model.trace(ids):
        model.layers[0].output.save()


def test_captures_that_the_config_asks_for_leave_no_hooks(ids: torch.Tensor) -> None:
    model = ip.build("llama", layers=2, width=16, heads=2, neurons=16, vocab=50)
    model.network.config.output_hidden_states = True
    with model.trace(ids):
        model.layers[0].output[:, 0] = 0
        model.logits.save()
    assert not any(module._forward_hooks for module in model.network.modules())
    assert len(model.network(ids).hidden_states) == 3
