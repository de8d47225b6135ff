"""Docstring-like copying: what a draw promises, read from the text itself and from the causal model."""

import ast
import re
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import given, settings, strategies as st

import interpose.tasks.docstring as module
from interpose.errors import TaskError
from interpose.tasks.docstring import Docstring

KINDS = ("swap_next", "later_docs", "random_answer", "random_docs")
SPLITS = ("train", "validation", "test")
# By counterfactual: the answer of the corrupt prompt, and that of the clean prompt with one variable exchanged.
EXPECTED = {
    "swap_next": ("wrong", {"next_position": "answer", "answer": "wrong"}),
    "later_docs": ("wrong", {"next_position": "wrong", "answer": "wrong"}),
    "random_answer": ("new", {"next_position": "answer", "answer": "new"}),
    "random_docs": (None, {"next_position": None, "answer": None}),
}


@pytest.fixture(scope="module")
def model(trained: Callable[..., Any]) -> SimpleNamespace:
    words = [f" {word}" for split in SPLITS for word in module._ARGUMENTS[split].split()]
    return SimpleNamespace(tokenizer=trained([*words * 3, "def (self,):\n    :param"]))


def read(prompt: str) -> tuple[list[str], list[str]]:
    """The arguments of the signature and those that are explained, from the text alone, read as Python."""
    (function,) = ast.parse(prompt + '"""').body
    assert isinstance(function, ast.FunctionDef)
    first, *arguments = (argument.arg for argument in function.args.args)
    assert first == "self"
    return arguments, re.findall(r":param (\w+):", ast.get_docstring(function) or "")


def after(arguments: list[str], last: str) -> str | None:
    return arguments[arguments.index(last) + 1] if last in arguments else None


@settings(max_examples=30)
@given(seed=st.integers(0, 10**6), n=st.integers(1, 25), split=st.sampled_from(SPLITS), kind=st.sampled_from(KINDS))
def test_prompts_answers_and_the_causal_model_agree(model: Any, seed: int, n: int, split: str, kind: str) -> None:
    pairs = Docstring().pairs(model, n=n, seed=seed, split=split, counterfactual=kind)
    causal = Docstring().causal_model()
    assert len(set(pairs.clean)) == n
    for row, (clean, corrupt) in enumerate(zip(pairs.clean, pairs.corrupt, strict=True)):
        (arguments, docs), (changed, explained) = read(clean), read(corrupt)
        assert len(set(arguments)) == len(set(changed)) == 6
        said = {
            name: model.tokenizer.decode([ids[row]])[1:]
            for name, ids in (("answer", pairs.answers), ("wrong", pairs.wrong))
        }
        assert docs == [arguments[arguments.index(docs[-1]) - 1], docs[-1]]
        assert said["answer"] == after(arguments, docs[-1])
        assert said["wrong"] == after(arguments, said["answer"])
        base, source = pairs.clean_inputs[row], pairs.corrupt_inputs[row]
        assert causal.run(base)["answer"] == said["answer"]
        found = after(changed, explained[-1])
        assert causal.run(source)["answer"] == found
        outcome, exchanged = EXPECTED[kind]
        assert found == (said.get(outcome, found) if outcome else None)
        if outcome == "new":
            assert not {said["answer"], said["wrong"]} & set(changed)
        for variable, expected in exchanged.items():
            got = causal.run_interchange(base, {variable: source})["answer"]
            assert got == (said.get(expected, found) if expected else None)
        assert int(pairs.differs[row].sum()) == 2


def test_nothing_comes_after_the_last_argument() -> None:
    inputs = {**{f"argument{at}": name for at, name in enumerate("abcdef")}, "last_doc": "f"}
    assert Docstring().causal_model().run(inputs)["answer"] is None
    assert Docstring().causal_model().run({**inputs, "last_doc": "e"})["answer"] == "f"


def test_roles_stand_at_their_words(model: Any) -> None:
    pairs = Docstring().pairs(model, n=24)
    rows = torch.arange(24)
    spelled = {
        role: [model.tokenizer.decode([token]).strip() for token in pairs.clean_tokens[rows, where]]
        for role, where in pairs.roles.items()
    }
    for row, clean in enumerate(pairs.clean):
        arguments, docs = read(clean)
        first = arguments.index(docs[0])
        defined = [spelled[role][row] for role in ("first_def", "last_def", "answer_def", "wrong_def")]
        assert defined == arguments[first : first + 4]
        assert [spelled["first_doc"][row], spelled["last_doc"][row]] == docs
    order = ("first_def", "last_def", "answer_def", "wrong_def", "first_doc", "last_doc", "end")
    assert set(pairs.roles) == set(order)
    for one, other in zip(order, order[1:], strict=False):
        assert bool((pairs.roles[one] < pairs.roles[other]).all())


def test_places_are_balanced_and_clean_prompts_are_the_same_for_every_counterfactual(model: Any) -> None:
    drawn = [Docstring().pairs(model, n=36, counterfactual=kind) for kind in KINDS]
    assert len({pairs.clean for pairs in drawn}) == 1
    places = [arguments.index(docs[0]) for arguments, docs in map(read, drawn[0].clean)]
    assert [places.count(place) for place in range(3)] == [12] * 3
    assert Docstring().pairs(model, n=36, seed=1).clean != drawn[0].clean == Docstring().pairs(model, n=36).clean


def test_splits_share_no_material() -> None:
    arguments = [word for split in SPLITS for word in module._ARGUMENTS[split].split()]
    assert len(arguments) == len(set(arguments))
    others = [text for split in SPLITS for head in module._HEADS[split] for text in head]
    others += [phrase for split in SPLITS for phrase in module._PHRASES[split]]
    assert len(others) == len(set(others))
    assert not set(arguments) & set(re.findall(r"\w+", " ".join(others)))


def test_what_cannot_be_drawn_is_refused(model: Any, trained: Callable[..., Any]) -> None:
    few = SimpleNamespace(tokenizer=trained([" path size mode"] * 9, size=400))
    with pytest.raises(
        TaskError, match=r"Docstring needs arguments that are one token .* has 3 of 24 in split 'train'"
    ):
        Docstring().pairs(few)
    most = 4 * 3 * (24 * 23 * 22 * 21 * 20 * 19)
    with pytest.raises(TaskError, match=f"Split 'train' has {most} distinct prompts"):
        Docstring().pairs(model, n=0)
    with pytest.raises(TaskError, match="Docstring has no split 'dev'"):
        Docstring().pairs(model, split="dev")


def test_the_description_explains_every_counterfactual() -> None:
    assert list(Docstring().counterfactuals) == list(KINDS)
    assert all(f"`{kind}`" in Docstring().description for kind in KINDS)
