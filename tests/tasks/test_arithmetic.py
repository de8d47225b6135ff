"""Arithmetic: every sum on a prompt is done again, for each way in which tokenizers write numbers."""

import re
from random import Random
from types import SimpleNamespace

import pytest

from interpose.errors import TaskError
from interpose.tasks.arithmetic import _FORMATS, Arithmetic, _Pool, _Style

SPLITS = ("train", "validation", "test")
# How many digits of the result are one token, and whether the prompt ends with the space before them.
WAYS = {"digits": (1, True), "pairs": (2, False), "threes": (2, True)}
OPERATIONS = {"addition": lambda a, b: a + b, "subtraction": lambda a, b: a - b}
every_way = pytest.mark.parametrize("way", WAYS)
every_operation = pytest.mark.parametrize("operation", OPERATIONS)


def numbers(prompt: str) -> list[int]:
    return [int(word) for word in re.findall(r"\d+", prompt)]


def carries(operation: str, a: int, b: int) -> bool:
    return OPERATIONS[operation](a // 10, b // 10) != OPERATIONS[operation](a, b) // 10


@every_way
@every_operation
@pytest.mark.parametrize("split", SPLITS)
def test_the_answers_are_the_results_first_tokens(writers, way, operation, split):
    model, compute = writers[way], OPERATIONS[operation]
    digits, space = WAYS[way]
    pairs = Arithmetic(operation).pairs(model, n=40, seed=2, split=split)
    assert len(set(pairs.clean)) == 40
    assert pairs.info["operation"] == operation
    for row, (clean, corrupt) in enumerate(zip(pairs.clean, pairs.corrupt, strict=True)):
        a, b, shown, c, d, also_shown, left, right = numbers(clean)
        assert (compute(a, b), compute(c, d)) == (shown, also_shown)
        assert carries(operation, a, b) != carries(operation, c, d)
        assert clean.endswith(" ") == space
        *same, other_left, other_right = numbers(corrupt)
        assert same == [a, b, shown, c, d, also_shown]
        for ids, one, two, text in (
            (pairs.answers, left, right, clean),
            (pairs.wrong, other_left, other_right, corrupt),
        ):
            result = compute(one, two)
            assert 10 <= result <= 99
            assert model.tokenizer.decode([ids[row]]).strip() == str(result)[:digits]
            whole = model.tokenizer(text.rstrip() + f" {result}")["input_ids"]
            prompt = model.tokenizer(text)["input_ids"]
            assert whole[: len(prompt) + 1] == [*prompt, ids[row]]
        assert pairs.answers[row] != pairs.wrong[row]


@every_way
@every_operation
def test_ones_carry_changes_only_ones_and_what_they_carry(writers, way, operation):
    task = Arithmetic(operation)
    pairs = task.pairs(writers[way], n=40, counterfactual="ones_carry")
    assert pairs.clean == task.pairs(writers[way], n=40, counterfactual="random").clean
    for clean, corrupt in zip(pairs.clean, pairs.corrupt, strict=True):
        (a, b), (c, d) = numbers(clean)[-2:], numbers(corrupt)[-2:]
        assert (a // 10, b // 10) == (c // 10, d // 10)
        assert carries(operation, a, b) != carries(operation, c, d)


@every_operation
def test_every_question_has_a_counterfactual_of_each_kind_in_its_own_split(operation):
    pools = {split: _Pool(operation, split) for split in SPLITS}
    random = Random(0)
    asked = {split: set(pool.questions) for split, pool in pools.items()}
    assert not asked["train"] & asked["validation"]
    assert not asked["test"] & (asked["train"] | asked["validation"])
    for split, pool in pools.items():
        for question in pool.questions[::4]:
            for kind in ("random", "ones_carry"):
                other = pool.change(kind, question, _Style(" ", 1), random)
                assert other in asked[split]
                assert str(other.result)[0] != str(question.result)[0]


@every_way
@every_operation
@pytest.mark.parametrize("kind", ["random", "ones_carry"])
def test_the_causal_model_agrees_with_the_answers(writers, way, operation, kind):
    task, tokenizer = Arithmetic(operation), writers[way].tokenizer
    causal = task.causal_model()
    pairs = task.pairs(writers[way], n=30, counterfactual=kind)
    for row, (base, source) in enumerate(zip(pairs.clean_inputs, pairs.corrupt_inputs, strict=True)):
        answer, wrong = (tokenizer.decode([ids[row]]).strip() for ids in (pairs.answers, pairs.wrong))
        assert (causal.run(base)["answer"], causal.run(source)["answer"]) == (answer, wrong)
        assert 10 * base["tens_a"] + base["ones_a"] == numbers(pairs.clean[row])[-2]
        exchanged = causal.run_interchange(base, {"ones_carry": source})
        assert exchanged["ones"] == causal.run(base)["ones"]
        if kind == "ones_carry":
            assert (
                exchanged["tens"]
                == causal.run(source)["tens"]
                == causal.run(base)["tens"] + (source_carry(causal, source) - source_carry(causal, base))
            )


def source_carry(causal, inputs):
    return causal.run(inputs)["ones_carry"]


@every_way
def test_the_roles_are_the_two_numbers(writers, way):
    pairs = Arithmetic().pairs(writers[way], n=16)
    several = {"a_first", "b_first"} if way == "digits" else set()
    assert set(pairs.roles) == {"a_last", "b_last", "end"} | several
    for row, clean in enumerate(pairs.clean):
        for role, number in zip("ab", numbers(clean)[-2:], strict=True):
            last = int(pairs.roles[f"{role}_last"][row])
            first = int(pairs.roles.get(f"{role}_first", pairs.roles[f"{role}_last"])[row])
            tokens = pairs.clean_tokens[row, first : last + 1].tolist()
            assert writers[way].tokenizer.decode(tokens).strip() == str(number)


def test_splits_share_no_format():
    formats = [line for split in SPLITS for line, _ in _FORMATS[split]]
    assert len(set(formats)) == len(formats) == 8


def test_what_does_not_suit_is_refused(trained):
    with pytest.raises(TaskError, match="operation='division'. is not possible; expected 'addition' or 'subtraction'"):
        Arithmetic("division")
    mixed = trained([f" {number}" for number in range(10, 50)] * 3, size=400)
    mixed.name_or_path = "some-numbers"
    with pytest.raises(TaskError) as error:
        Arithmetic().pairs(SimpleNamespace(tokenizer=mixed))
    assert re.search(r"'some-numbers' writes them with 1 or [23] tokens\. Use a model", str(error.value))
