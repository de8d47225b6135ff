"""Multiple choice: what a draw promises, read from the text itself and from the causal model."""

import re
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import given, settings, strategies as st

import interpose.tasks.mcqa as module
from interpose.errors import TaskError
from interpose.tasks.mcqa import MCQA

KINDS = ("symbol", "answer_position", "random_letter", "answer_position_random_letter")
SPLITS = ("train", "validation", "test")
CHANGED = {"symbol": 4, "answer_position": 2, "random_letter": 4, "answer_position_random_letter": 6}
draws = given(
    seed=st.integers(0, 10**6), n=st.integers(1, 30), split=st.sampled_from(SPLITS), kind=st.sampled_from(KINDS)
)


@pytest.fixture(scope="module")
def model(trained: Callable[..., Any]) -> SimpleNamespace:
    """Knows the colors and the letters as one token, and cuts some of the things."""
    words = [f" {color}" for colors in module._COLORS.values() for color in colors.split()]
    return SimpleNamespace(tokenizer=trained([*words * 3, *(f" {letter}" for letter in "ABCD"), "Question: Answer:"]))


def read(prompt: str) -> tuple[str, dict[str, str]]:
    """The color that is named, and the choices by their symbol, from the text alone."""
    question, *lines, last = prompt.split("\n")
    assert last == "Answer:"
    choices = dict(line.split(". ") for line in lines)
    (color,) = (word for word in re.findall(r"\w+", question) if word in choices.values())
    return color, choices


@settings(max_examples=24)
@draws
def test_the_answer_is_the_letter_before_the_color(model: Any, seed: int, n: int, split: str, kind: str) -> None:
    pairs = MCQA().pairs(model, n=n, seed=seed, split=split, counterfactual=kind)
    assert len(set(pairs.clean)) == n
    causal = MCQA().causal_model()
    for row, (clean, corrupt) in enumerate(zip(pairs.clean, pairs.corrupt, strict=True)):
        (color, choices), (same, changed) = read(clean), read(corrupt)
        assert (color, list(choices), len(set(choices.values()))) == (same, list("ABCD"), 4)
        (right,) = (symbol for symbol, choice in choices.items() if choice == color)
        wrong = model.tokenizer.decode([pairs.wrong[row]])
        assert model.tokenizer.decode([pairs.answers[row]]) == f" {right}"
        assert wrong != f" {right}"
        assert wrong[1:] in choices
        (now,) = (symbol for symbol, choice in changed.items() if choice == color)
        assert causal.run(pairs.clean_inputs[row])["answer"] == right
        assert causal.run(pairs.corrupt_inputs[row])["answer"] == now
        place, there = "ABCD".index(right), list(changed).index(now)
        assert (place == there) is (not kind.startswith("answer_position"))
        assert there in (place, "ABCD".index(wrong[1:]))
        assert (list(changed) == list("ABCD")) is (kind == "answer_position")
        assert (list(changed) == list("1234")) is (kind == "symbol")
        assert sorted(changed.values()) == sorted(choices.values())
        assert len(set(changed)) == 4
        assert int(pairs.differs[row].sum()) == CHANGED[kind]


@settings(max_examples=15)
@draws
def test_an_exchange_gives_what_the_description_says(model: Any, seed: int, n: int, split: str, kind: str) -> None:
    pairs = MCQA().pairs(model, n=n, seed=seed, split=split, counterfactual=kind)
    causal = MCQA().causal_model()
    for row, (base, source) in enumerate(zip(pairs.clean_inputs, pairs.corrupt_inputs, strict=True)):
        right, wrong = (model.tokenizer.decode([ids[row]])[1:] for ids in (pairs.answers, pairs.wrong))
        pointed = causal.run_interchange(base, {"answer_pointer": source})["answer"]
        assert pointed == (wrong if kind.startswith("answer_position") else right)
        assert causal.run_interchange(base, {"answer": source})["answer"] == causal.run(source)["answer"]


def test_roles_stand_at_their_words(model: Any) -> None:
    pairs = MCQA().pairs(model, n=24)
    rows = torch.arange(24)
    spelled = {
        role: [model.tokenizer.decode([token]).strip() for token in pairs.clean_tokens[rows, where]]
        for role, where in pairs.roles.items()
    }
    for row, clean in enumerate(pairs.clean):
        color, choices = read(clean)
        right = model.tokenizer.decode([pairs.answers[row]])[1:]
        wrong = model.tokenizer.decode([pairs.wrong[row]])[1:]
        assert spelled["color"][row] == spelled["correct_choice"][row] == color
        assert (spelled["correct_symbol"][row], spelled["wrong_symbol"][row]) == (right, wrong)
        assert spelled["correct_symbol_period"][row] == spelled["wrong_symbol_period"][row] == "."
        assert spelled["wrong_choice"][row] == choices[wrong]
        (thing,) = (word for word in module._THINGS["train"].split() if f" {word}" in clean)
        assert thing.endswith(spelled["thing_last"][row])
    assert torch.equal(pairs.roles["correct_symbol_period"], pairs.roles["correct_symbol"] + 1)
    assert pairs.roles["end"].tolist() == [-1] * 24
    # The first color in a prompt is that of the question, not that of a choice.
    assert bool((pairs.roles["color"] < pairs.roles["correct_choice"]).all())


def test_places_are_balanced_and_clean_prompts_are_the_same_for_every_counterfactual(model: Any) -> None:
    drawn = [MCQA().pairs(model, n=48, counterfactual=kind) for kind in KINDS]
    assert len({pairs.clean for pairs in drawn}) == 1
    assert all(torch.equal(pairs.wrong, drawn[0].wrong) for pairs in drawn)
    answers = [model.tokenizer.decode([token]) for token in drawn[0].answers]
    assert [answers.count(f" {letter}") for letter in "ABCD"] == [12] * 4
    assert MCQA().pairs(model, n=48, seed=1).clean != drawn[0].clean == MCQA().pairs(model, n=48).clean
    assert drawn[0].info == {
        "task": "mcqa", "counterfactual": "symbol", "split": "train", "seed": 0, "n": 48,
    }  # fmt: skip


def test_splits_share_no_material() -> None:
    for material in (module._THINGS, module._COLORS):
        words = [word for split in SPLITS for word in material[split].split()]
        assert len(words) == len(set(words))
    sentences = [sentence for split in SPLITS for sentence in module._SENTENCES[split]]
    assert len(sentences) == len(set(sentences))
    colors = {word for split in SPLITS for word in module._COLORS[split].split()}
    things = {word for split in SPLITS for word in module._THINGS[split].split()}
    assert not (colors | things) & set(re.findall(r"\w+", " ".join(sentences)))
    assert not colors & things


def test_tokenizers_and_numbers_that_do_not_suit_are_refused(model: Any, trained: Callable[..., Any]) -> None:
    letters = SimpleNamespace(tokenizer=trained([" A B A B", *[" red blue"] * 9], size=400))
    with pytest.raises(
        TaskError, match=r"MCQA needs colors that are one token .* has 2 of 5 in split 'train'; expecte"
    ):
        MCQA().pairs(letters)
    colors = SimpleNamespace(tokenizer=trained([f" {module._COLORS['train']}"] * 9 + [" A B"] * 9, size=400))
    with pytest.raises(TaskError, match=r"MCQA needs the letters A, B, C, D as one token .* has A, B of them. Use ano"):
        MCQA().pairs(colors)
    with pytest.raises(TaskError, match=r"MCQA was asked for n=0 pairs. Split 'train' has 28800 distinct prompts for"):
        MCQA().pairs(model, n=0)
    with pytest.raises(TaskError, match="MCQA has no counterfactual 'abc'; expected one of symbol, answer_position"):
        MCQA().pairs(model, counterfactual="abc")


def test_the_description_explains_every_counterfactual() -> None:
    assert list(MCQA().counterfactuals) == list(KINDS)
    assert all(f"`{kind}`" in MCQA().description for kind in KINDS)
