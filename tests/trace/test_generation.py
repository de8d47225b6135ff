"""Generation with interventions: the same tokens as the stock model and raw hooks give, step by step."""

import math
import re
from typing import Any

import pytest
import torch

import interpose as ip
from interpose.errors import RunError, TraceError
from interpose.graph.feed import Generation

PADDED = torch.tensor([[0, 0, 1, 1, 1, 1, 1], [1, 1, 1, 1, 1, 1, 1]])


def stock(model: ip.Model, ids: torch.Tensor, n: int, mask: torch.Tensor | None = None) -> torch.Tensor:
    network: Any = model.network
    mask = torch.ones_like(ids) if mask is None else mask
    kept = {"do_sample": False, "eos_token_id": None, "pad_token_id": 0}
    return network.generate(ids, attention_mask=mask, max_new_tokens=n, **kept)[:, ids.shape[1] :]


@pytest.fixture(params=["llama", "gpt2"])
def either(request: pytest.FixtureRequest, model: ip.Model, gpt2: ip.Model) -> ip.Model:
    return model if request.param == "llama" else gpt2


@pytest.mark.parametrize("mask", [None, PADDED], ids=["even", "padded"])
def test_without_interventions_it_gives_the_stock_models_tokens(either: Any, ids: Any, mask: Any) -> None:
    given = {} if mask is None else {"attention_mask": mask}
    with either.generate(ids, max_new_tokens=9, stop=(), **given) as t:
        pass
    assert torch.equal(t.tokens, stock(either, ids, 9, mask))


@pytest.mark.parametrize("mask", [None, PADDED], ids=["even", "padded"])
def test_steering_every_step_is_a_raw_hook(either: Any, ids: Any, mask: Any) -> None:
    v = 3 * torch.randn(24, generator=torch.manual_seed(0))
    given = {} if mask is None else {"attention_mask": mask}
    with either.generate(ids, max_new_tokens=9, stop=(), **given) as t, t.steps():
        either.layers[1].output[:, -1] += v
    layers = either.network.get_submodule(either.family.layers)

    def add(module: Any, args: Any, output: torch.Tensor) -> torch.Tensor:
        return torch.cat([output[:, :-1], output[:, -1:] + v], 1)

    handle = layers[1].register_forward_hook(add)
    try:
        steered = stock(either, ids, 9, mask)
    finally:
        handle.remove()
    assert torch.equal(t.tokens, steered)
    assert not torch.equal(t.tokens, stock(either, ids, 9, mask))


def test_what_is_saved_at_steps_is_a_list_and_equals_raw_hooks(model: ip.Model, ids: torch.Tensor) -> None:
    with model.generate(ids, max_new_tokens=5, stop=()) as t:
        with t.steps():
            every = model.layers[2].output.save("every")
        with t.steps(1, 3):
            pattern = model.layers[0].attn.pattern[:, :, -1].save()
        with t.step(3):
            one = model.layers[2].output[:, -1].save()
    seen: list[torch.Tensor] = []
    layer: Any = model.network.get_submodule("model.layers.2")
    handle = layer.register_forward_hook(lambda module, args, output: seen.append(output))
    stock(model, ids, 5)
    handle.remove()
    assert [value.shape for value in every] == [torch.Size([2, 7, 24])] + [torch.Size([2, 1, 24])] * 4
    assert all(torch.equal(a, b) for a, b in zip(every, seen, strict=True))
    assert isinstance(one, torch.Tensor)
    assert torch.equal(one, seen[3][:, -1])
    assert [value.shape for value in pattern] == [torch.Size([2, 4, 8]), torch.Size([2, 4, 9])]
    assert isinstance(t.saved["every"], list)


def test_a_value_of_one_step_is_written_at_a_later_one(model: ip.Model, ids: torch.Tensor) -> None:
    with model.generate(ids, max_new_tokens=5, stop=()) as t:
        with t.step(0):
            first = model.layers[1].output[:, -1]
        with t.steps(2, 4):
            model.layers[1].output[:, -1] = first
            after = model.layers[1].output[:, -1].save()
        with t.step(0):
            kept = first.save()
    assert len(after) == 2
    assert all(torch.equal(value, kept) for value in after)


def test_a_value_of_a_forward_pass_is_written_at_every_step(model: ip.Model, ids: torch.Tensor) -> None:
    with model.trace() as t:
        with t.world("donor", ids.flip(0)):
            donor = model.layers[0].output[:, -1]
        with t.world("steered", ids, max_new_tokens=4, stop=()), t.steps():
            model.layers[0].output[:, -1] = donor
            read = model.layers[0].output[:, -1].save()
        with t.world("plain", ids):
            logits = model.logits[:, -1].save()
    with model.trace(ids.flip(0)):
        expected = model.layers[0].output[:, -1].save()
    assert all(torch.allclose(value, expected, atol=1e-6) for value in read)
    assert t.tokens.shape == (2, 4)
    assert torch.equal(t.tokens, t.saved["steered.tokens"])
    assert torch.equal(logits.argmax(-1), stock(model, ids, 1)[:, 0])


def test_writing_the_logits_chooses_the_token(model: ip.Model, ids: torch.Tensor) -> None:
    with model.generate(ids, max_new_tokens=3, stop=()) as t, t.steps():
        model.logits[:, -1, 33] += 1e4
    assert t.tokens.tolist() == [[33] * 3] * 2


def test_a_seed_fixes_the_draws_whatever_stands_beside(model: ip.Model, ids: torch.Tensor) -> None:
    def drawn(ids: torch.Tensor, **settings: Any) -> torch.Tensor:
        with model.generate(ids, max_new_tokens=12, temperature=2.0, stop=(), **settings) as t:
            pass
        return t.tokens

    assert torch.equal(drawn(ids, seed=3), drawn(ids, seed=3))
    assert not torch.equal(drawn(ids, seed=3), drawn(ids, seed=4))
    assert torch.equal(drawn(ids, seed=3)[:1], drawn(ids[:1], seed=3))
    same = drawn(ids[:1].expand(2, -1), seed=3)
    assert not torch.equal(same[0], same[1])
    assert torch.equal(drawn(ids, top_k=1), stock(model, ids, 12))
    assert torch.equal(drawn(ids, top_p=1e-6), stock(model, ids, 12))


def test_draws_follow_the_distribution() -> None:
    from interpose.engine.generation import choose

    logits = torch.tensor([[2.0, 1.0, 0.0, -1.0]])
    settings = Generation(1, temperature=0.5, top_p=0.98)
    draws = [torch.Generator().manual_seed(row) for row in range(4000)]
    counts = torch.bincount(choose(logits.expand(4000, -1), settings, draws), minlength=4) / 4000
    expected = (logits[0] / 0.5).softmax(-1)
    expected = torch.where(torch.arange(4) < 2, expected, 0.0)  # the first two have 0.865 + 0.117 > 0.98 together
    assert (counts - expected / expected.sum()).abs().max() < 0.03


def test_a_row_ends_at_a_stop_token_and_the_text_stops_before_it(model: ip.Model) -> None:
    decoded = ip.Model(model.network, tokenizer=Letters(), info=model.info)
    with model.generate(ids := torch.tensor([[5, 17, 3, 42]]), max_new_tokens=6, stop=()) as t:
        pass
    first, *_, last = plain = t.tokens[0].tolist()
    end = next(token for token in plain if token != first)
    with decoded.generate(ids, max_new_tokens=6, stop=end) as t:
        pass
    at = plain.index(end)
    assert t.tokens[0].tolist() == plain[: at + 1]
    assert t.text == "".join(chr(60 + token) for token in plain[:at])
    assert t.texts == [t.text]
    with decoded.generate(torch.cat([ids, ids.flip(1)]), max_new_tokens=6, stop=end) as t:
        pass
    assert len(t.texts) == 2
    with pytest.raises(TraceError, match=r"there were 2 prompts; t\.texts has"):
        assert t.text
    assert last is not None


class Letters:
    pad_token_id = 0
    eos_token_id = 1

    def __call__(self, text: str) -> dict[str, list[int]]:
        return {"input_ids": [ord(letter) - 60 for letter in text]}

    def decode(self, ids: list[int], skip_special_tokens: bool) -> str:
        return "".join(chr(60 + token) for token in ids)


def test_prompts_and_stops_may_be_text(model: ip.Model) -> None:
    spoken = ip.Model(model.network, tokenizer=Letters(), info=model.info)
    with spoken.generate(["ABC", "BCDEF"], max_new_tokens=3, stop=["Z", 7]) as t:
        pass
    assert t.feed.worlds["main"].generation == Generation(3, stop=(30, 7), pad=0)
    with spoken.generate("ABC") as t:
        pass
    assert t.feed.worlds["main"].generation == Generation(20, stop=(1,), pad=0)
    with pytest.raises(TraceError, match="texts of one token each; 'ZZ' has 2 tokens"):
        spoken.generate("ABC", stop="ZZ")


def test_stop_ends_the_generation_with_that_step(model: ip.Model, ids: torch.Tensor) -> None:
    runs = 0

    def count(*_: Any) -> None:
        nonlocal runs
        runs += 1

    last: Any = model.network.get_submodule("model.layers.2")
    handle = last.register_forward_pre_hook(count)
    with model.generate(ids, max_new_tokens=9, stop=()) as t, t.step(3):
        value = model.layers[0].output.save()
        t.stop()
    handle.remove()
    assert value.shape == (2, 1, 24)
    assert torch.equal(t.tokens, stock(model, ids, 3))
    assert runs == 3


def test_a_step_that_never_ran_is_an_error(model: ip.Model, ids: torch.Tensor) -> None:
    with (
        pytest.raises(
            RunError,
            match=r"test_generation.py:\d+: step\(4\) never ran to its end: the generation 'main' "
            r"ended after 3 steps, because max_new_tokens is 3\.",
        ),
        model.generate(ids, max_new_tokens=3, stop=()) as t,
        t.step(4),
    ):
        model.layers[0].output.save()
    end = int(stock(model, ids[:1], 1)[0, 0])
    with (
        pytest.raises(
            RunError,
            match=r"steps\(0, 3\) never ran .* 1 step, because every row gave a token that ends it "
            r"\(see `stop`\)\. Write t\.steps\(0\) for as many",
        ),
        model.generate(ids[:1], max_new_tokens=3, stop=end) as t,
        t.steps(0, 3),
    ):
        model.layers[0].output.save()
    with model.generate(ids, max_new_tokens=3, stop=()) as t, t.steps(0, 3):
        kept = model.layers[0].output.save()
    assert len(kept) == 3


REFUSED = {
    "no steps": (lambda m, t: m.layers[0].output, r"say at which step of the generation layers\[0\].output is meant"),
    "nested": (lambda m, t: within(t, lambda: t.step(1).__enter__()), r"step\(1\) is opened inside steps\(\)"),
    "empty": (lambda m, t: t.steps(3, 3).__enter__(), r"steps\(3, 3\) names no step"),
    "negative": (lambda m, t: t.step(-1).__enter__(), r"step\(-1\) names no step"),
    "outside": (lambda m, t: within(t, lambda: m.layers[0].output) + 1, r"has one value a step \(steps\(\)\)"),
    "gradient": (
        lambda m, t: within(t, lambda: ip.grad(m.logits[0, 0, 0], m.layers[0].output)),
        "no gradients pass through a generation",
    ),
    "in place": (lambda m, t: within(t, lambda: m.layers[0].output, t.step(0)).zero_(), "changed in place outside"),
}


def within(t: Any, program: Any, where: Any = None) -> Any:
    with where or t.steps():
        return program()


@pytest.mark.parametrize("name", REFUSED)
def test_refusals_name_the_line_and_the_cure(model: ip.Model, ids: torch.Tensor, name: str) -> None:
    program, message = REFUSED[name]
    with (
        pytest.raises(TraceError, match=r"test_generation.py:\d+: .*" + message),
        model.generate(ids, max_new_tokens=3) as t,
    ):
        program(model, t)


def test_steps_belong_to_generations(model: ip.Model, ids: torch.Tensor) -> None:
    with (
        pytest.raises(TraceError, match=r"only a generation has steps\. Write\n    with model\.generate"),
        model.trace(ids) as t,
        t.steps(),
    ):
        pass
    with model.generate(ids, max_new_tokens=2, run=False) as t, t.steps():
        model.layers[0].output.save()
    feed = t.feed.with_({"main": model.batch(ids)})
    with pytest.raises(RunError, match=r"steps\(\) belongs to a generation, and the world 'main' is one forward pass"):
        next(iter(model.backend.run_many([t.graph], [feed])))


def test_settings_are_checked(model: ip.Model, ids: torch.Tensor, net: ip.Model, x: torch.Tensor) -> None:
    for settings, message in {
        ("max_new_tokens", 0): "max_new_tokens must be a whole number, at least 1",
        ("temperature", -1.0): "temperature must not be negative",
        ("top_p", 1.5): "top_p must lie above 0",
        ("top_k", 3): "top_k and top_p need a temperature above 0",
        ("seed", "x"): "seed takes a number, not 'x'",
        ("seed", 0.5): "seed must be a whole number, not 0.5",
        ("seed", 2**70): r"seed must be a whole number from 0 to 2\*\*63 - 1",
        ("seed", -1): "seed must be a whole number from 0",
        ("top_k", 2.5): "top_k must be a whole number, not 2.5",
        ("temperature", math.nan): "temperature must be a finite number",
        ("temperature", math.inf): "temperature must be a finite number",
    }.items():
        with pytest.raises(TraceError, match=message):
            model.generate(ids, **{settings[0]: settings[1]})
    with pytest.raises(TraceError, match="max_new_tokens must be a whole number, not 2.5"):
        model.trace(ids, max_new_tokens=2.5)
    with pytest.raises(TraceError, match="temperature belongs to a generation; give max_new_tokens"):
        model.trace(ids, temperature=1.0)
    with pytest.raises(RunError, match="starts from token ids"), net.generate(x):
        pass
    with pytest.raises(TraceError, match="has no chat template"):
        model.generate([{"role": "user", "content": "hello"}])


def test_on_ragged_prompts_positions_of_later_steps_count_from_the_end(model: ip.Model, ids: torch.Tensor) -> None:
    with (
        pytest.raises(TraceError, match="later steps have one position, so name positions from the end"),
        model.generate(ids, attention_mask=PADDED, max_new_tokens=2) as t,
        t.steps(),
    ):
        model.layers[0].output[:, 2].save()
    with model.generate(ids, attention_mask=PADDED, max_new_tokens=2, stop=()) as t:
        with t.step(0):
            third = model.layers[0].output[:, 2].save()
        with t.step(1):
            only = model.layers[0].output[:, 0].save()
    with model.trace(ids, attention_mask=PADDED):
        expected = model.layers[0].output[:, 2].save()
    assert torch.equal(third, expected)
    assert only.shape == (2, 24)


def test_skipping_in_a_generation(model: ip.Model, ids: torch.Tensor) -> None:
    with model.generate(ids, max_new_tokens=5, stop=()) as t, t.steps():
        model.layers[1].mlp.skip()
    with model.generate(ids, max_new_tokens=5, stop=()) as zeroed, zeroed.steps():
        model.layers[1].mlp.output = 0
    assert torch.equal(t.tokens, zeroed.tokens)
    for skip in (lambda: model.layers[1].attn.skip(), lambda: model.layers[0].skip()):
        with (
            pytest.raises(RunError, match="an attention that is skipped caches no keys and values"),
            model.generate(ids, max_new_tokens=5, stop=()) as t,
            t.steps(),
        ):
            skip()


def test_the_printed_graph_and_plan_name_the_steps(model: ip.Model, ids: torch.Tensor) -> None:
    with model.generate(ids, max_new_tokens=5, stop=()) as t:
        with t.steps(1, 3):
            model.layers[1].output.save()
        with t.step(0):
            model.layers[0].mlp.skip()
        with t.step(4):
            t.stop()
    lines = str(t.graph).splitlines()
    assert lines[1] == "    v0 = tokens"
    assert "    steps(1, 3):" in lines
    assert any(re.fullmatch(r" {8}layers\[0\]\.mlp\.skip\(v\d+\)", line) for line in lines)
    assert lines[-1] == "        stop()"
    assert re.search(r"at steps\(1, 3\):\n  model.layers.1 \(output\): layers\[1\].output", str(model.plan(t.graph)))


class Bracketing:
    """One token a letter, with a token before and after each text unless it is told not to."""

    eos_token_id = pad_token_id = 0

    def __call__(self, text: str, add_special_tokens: bool = True) -> dict[str, list[int]]:
        ids = [2 + ord(letter) % 40 for letter in text]
        return {"input_ids": [1, *ids, 1] if add_special_tokens else ids}


def test_a_stop_text_is_taken_without_special_tokens(model: ip.Model, ids: torch.Tensor) -> None:
    tokenized = ip.Model(model.network, tokenizer=Bracketing(), info=model.info)
    batch = tokenized.batch(ids, max_new_tokens=2, stop=["b"])
    assert batch.generation is not None
    assert batch.generation.stop == (2 + ord("b") % 40,)


class Cooling(torch.nn.Module):
    def forward(self, x: torch.Tensor, temperature: float) -> torch.Tensor:
        return x / temperature


def test_a_plain_modules_own_temperature_is_its_own(x: torch.Tensor) -> None:
    net = ip.wrap(Cooling())
    with net.trace(x, temperature=2.0):
        out = net.output.save()
    assert torch.equal(out, x / 2)


def test_a_list_of_steps_says_how_to_make_one_tensor_of_it(model: ip.Model, ids: torch.Tensor) -> None:
    with model.generate(ids, max_new_tokens=3, stop=()) as t, t.steps():
        ends = model.layers[0].output[:, -1].save("ends")
    assert torch.stack([*ends]).shape == (3, 2, 24)
    assert type(t.saved["ends"]) is list
    with pytest.raises(TraceError, match=r"this is a list, no tensor; .*torch\.stack\(\[\*value\]\)"):
        torch.relu(ends)


def test_writes_at_steps_that_overlap_stand_in_program_order(model: ip.Model, ids: torch.Tensor) -> None:
    v, w = torch.ones(24), torch.zeros(24)
    with model.generate(ids, max_new_tokens=3, stop=()) as t:
        with t.steps(1):
            model.layers[0].output = v
        with t.step(1):
            model.layers[0].output = w
        with t.steps(1):
            model.layers[0].output = v
            found = model.layers[0].output.save()
    assert all(torch.equal(value, v.expand_as(value)) for value in found)


def test_a_value_of_a_later_step_is_refused_at_the_steps_before(model: ip.Model, ids: torch.Tensor) -> None:
    with (
        pytest.raises(RunError, match=r"test_generation.py:\d+: at step 0 this rests on a value that is made later"),
        model.generate(ids, max_new_tokens=3, stop=()) as t,
    ):
        with t.step(2):
            late = model.layers[0].output[:, -1]
        with t.steps():
            (model.layers[0].output[:, -1] + late).save()


def test_skipping_every_attention_is_refused_too(model: ip.Model, ids: torch.Tensor) -> None:
    with (
        pytest.raises(RunError, match="an attention that is skipped caches no keys"),
        model.generate(ids, max_new_tokens=3, stop=()) as t,
        t.step(0),
    ):
        for layer in model.layers:
            layer.attn.skip()


def test_prompts_padded_on_the_right_are_refused(model: ip.Model, ids: torch.Tensor) -> None:
    with (
        pytest.raises(RunError, match="padded on the right, so that its generation would go on from padding"),
        model.generate(ids, attention_mask=PADDED.flip(1), max_new_tokens=2),
    ):
        pass


def test_values_of_two_generations_do_not_mix(model: ip.Model, ids: torch.Tensor) -> None:
    with pytest.raises(TraceError, match="has one value a step"), model.trace() as t:
        with t.world("a", ids, max_new_tokens=2), t.steps():
            first = model.layers[0].output
        with t.world("b", ids, max_new_tokens=2), t.steps():
            (model.layers[0].output - first).save()


def test_after_a_generation_a_log_names_no_step(model: ip.Model, ids: torch.Tensor, capsys: Any) -> None:
    with model.trace() as t:
        with t.world("a", ids, max_new_tokens=2, stop=()):
            pass
        with t.world("b", ids):
            t.log("x", model.logits.sum() * 0 + 1)
    assert capsys.readouterr().out == "x: 1\n"
