"""Induction, duplicate tokens, sorting: what a draw promises, checked on the text itself."""

import itertools
from collections import Counter
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given, settings, strategies as st

from interpose.errors import TaskError
from interpose.loading import words
from interpose.loading.cards import Vocabulary
from interpose.tasks._drawing import request
from interpose.tasks._words import WORDS, single_of_split
from interpose.tasks.base import Pairs, Task
from interpose.tasks.duplicate_token import ASKED, DuplicateToken
from interpose.tasks.induction import Induction
from interpose.tasks.sorting import LARGEST, Sorting, material

TASKS: dict[str, Task] = {"induction": Induction(), "duplicate-token": DuplicateToken(), "sorting": Sorting()}
KINDS = [(name, kind) for name, task in TASKS.items() for kind in task.counterfactuals]
SPLITS = ("train", "validation", "test")
ALL = [word for split in WORDS.values() for word in split.split()]
few = settings(max_examples=12)
draws = given(seed=st.integers(0, 10**6), n=st.integers(1, 20), split=st.sampled_from(SPLITS))
every = pytest.mark.parametrize(("name", "kind"), KINDS)


@pytest.fixture(scope="module")
def knows() -> Callable[..., SimpleNamespace]:
    """What a task needs of a model, with a vocabulary of the given words."""

    def made(*known: str) -> SimpleNamespace:
        return SimpleNamespace(tokenizer=words.tokenizer(Vocabulary(("<pad>", "<unk>", *known))))

    return made


@pytest.fixture(scope="module")
def model(knows: Callable[..., SimpleNamespace]) -> SimpleNamespace:
    return knows(*ALL, ASKED, "sort", ":", *map(str, range(1, LARGEST + 1)))


def said(model: SimpleNamespace, pairs: Pairs) -> list[tuple[str, str]]:
    """The answer and the wrong answer of each pair, as words."""
    decode = model.tokenizer.decode
    return [(decode([a]), decode([w])) for a, w in zip(pairs.answers.tolist(), pairs.wrong.tolist(), strict=True)]


def solved(name: str, prompt: str) -> str | None:
    """The right answer, by a rule of this test's own."""
    *shown, last = prompt.split()
    if name == "induction":
        return shown[shown.index(last) + 1] if last in shown else None
    if name == "duplicate-token":
        assert last == ASKED
        return next((word for word in shown if shown.count(word) == 2), None)
    assert (shown[0], last) == ("sort", ":")
    return str(min(map(int, shown[1:])))


@every
@few
@draws
def test_the_answer_is_right_and_the_wrong_one_is_in_the_prompt(model: Any, name, kind, seed, n, split) -> None:
    pairs = TASKS[name].pairs(model, n=n, seed=seed, split=split, counterfactual=kind)
    assert len(set(pairs.clean)) == len(pairs) == n
    causal = TASKS[name].causal_model()
    for row, (answer, wrong) in enumerate(said(model, pairs)):
        clean = pairs.clean[row]
        assert solved(name, clean) == answer
        assert wrong in clean.split() and wrong != answer
        assert str(causal.run(pairs.clean_inputs[row])["answer"]) == answer
        corrupt = causal.run(pairs.corrupt_inputs[row])["answer"]
        assert (None if corrupt is None else str(corrupt)) == solved(name, pairs.corrupt[row])


@every
@few
@draws
def test_a_counterfactual_means_what_its_name_says(model: Any, name, kind, seed, n, split) -> None:
    pairs = TASKS[name].pairs(model, n=n, seed=seed, split=split, counterfactual=kind)
    for row, (answer, wrong) in enumerate(said(model, pairs)):
        clean, corrupt = pairs.clean[row].split(), pairs.corrupt[row].split()
        differ = [i for i, (one, other) in enumerate(zip(clean, corrupt, strict=True)) if one != other]
        assert int(pairs.differs[row].sum()) == len(differ)
        right = solved(name, pairs.corrupt[row])
        if kind in ("other_query", "other_duplicate", "raised"):
            assert (len(differ), right) == (1, wrong)
        elif kind == "swapped":
            assert (len(differ), right) == (2, answer)
        elif kind == "no_duplicate":
            assert (len(differ), right) == (1, None)
        elif kind == "other_follower":
            assert len(differ) == 1 and right not in clean
        elif kind == "both_smaller":
            assert len(differ) == 2 and max(map(int, corrupt[1:3])) < int(answer)
        else:
            assert not {*clean, *corrupt} & ({*clean} & {*corrupt} - {ASKED})
            assert right not in (answer, wrong)


def test_other_words_of_duplicates_repeat_another_place_at_another_place(model: Any) -> None:
    pairs = DuplicateToken().pairs(model, n=40, seed=1)
    for clean, corrupt in zip(pairs.clean, pairs.corrupt, strict=True):
        one, other = clean.split(), corrupt.split()
        again = [max(i for i, word in enumerate(shown) if shown.count(word) == 2) for shown in (one, other)]
        assert again[0] != again[1]


@every
def test_the_same_settings_give_the_same_pairs_and_another_seed_gives_others(model: Any, name: str, kind: str) -> None:
    task = TASKS[name]
    first, again = (task.pairs(model, n=16, seed=3, counterfactual=kind) for _ in range(2))
    assert (first.clean, first.corrupt) == (again.clean, again.corrupt)
    assert first.clean == task.pairs(model, n=16, seed=3).clean
    assert first.clean != task.pairs(model, n=16, seed=4).clean
    assert first.info["task"] == name
    assert f"`{kind}`" in task.description


@pytest.mark.parametrize("name", ["induction", "duplicate-token"])
def test_splits_share_no_word(model: Any, name: str) -> None:
    seen = {}
    for split in SPLITS:
        pairs = TASKS[name].pairs(model, n=60, split=split)
        seen[split] = {word for text in (*pairs.clean, *pairs.corrupt) for word in text.split()} - {ASKED}
    assert all(not seen[one] & seen[other] for one, other in itertools.combinations(SPLITS, 2))


def test_splits_share_no_pair_of_numbers() -> None:
    pairs = {split: {frozenset(pair) for pair in material(split)} for split in SPLITS}
    assert all(not pairs[one] & pairs[other] for one, other in itertools.combinations(SPLITS, 2))
    assert sum(map(len, pairs.values())) == sum(len(material(split)) for split in SPLITS) == 27 * 26 // 2


def test_roles_name_the_places(model: Any) -> None:
    pairs = Induction().pairs(model, n=20)
    for row, clean in enumerate(pairs.clean):
        shown = clean.split()
        at = {role: shown[int(places[row])] for role, places in pairs.roles.items()}
        assert at["earlier"] == at["query"] == at["end"] == shown[-1]
        assert int(pairs.roles["earlier"][row]) < int(pairs.roles["query"][row]) == -1
        assert at["follower"] == said(model, pairs)[row][0]
    pairs = DuplicateToken().pairs(model, n=20)
    for row, clean in enumerate(pairs.clean):
        at = {role: clean.split()[int(places[row])] for role, places in pairs.roles.items()}
        assert at == {
            "first_time": said(model, pairs)[row][0],
            "second_time": said(model, pairs)[row][0],
            "end": ASKED,
        }
        assert int(pairs.roles["first_time"][row]) < int(pairs.roles["second_time"][row])
    pairs = Sorting().pairs(model, n=20)
    for row, clean in enumerate(pairs.clean):
        at = [clean.split()[int(pairs.roles[role][row])] for role in ("first", "second", "end")]
        assert at == clean.split()[1:]


def test_exchanging_a_variable_by_hand() -> None:
    run = Induction().causal_model().run
    base = {"words": ("a", "b", "c", "d"), "query": "b"}
    assert run(base)["answer"] == "c"
    assert run(base, {"place": 2})["answer"] == "d"
    assert run({"words": ("a", "b"), "query": "x"})["answer"] is None
    run = DuplicateToken().causal_model().run
    assert run({"words": ("a", "b", "c", "b")}, {"again": 2})["answer"] == "c"
    run = Sorting().causal_model().run
    assert run({"first": 7, "second": 3}, {"place": 0})["answer"] == 7


@pytest.mark.parametrize("name", TASKS)
def test_what_cannot_be_is_refused(name: str, model: Any, knows: Callable[..., SimpleNamespace]) -> None:
    task, called = TASKS[name], type(TASKS[name]).__name__
    with pytest.raises(TaskError, match=f"{called} has no split 'dev'; expected one of train, validation, test"):
        task.pairs(model, split="dev")
    with pytest.raises(TaskError, match=f"{called} has no counterfactual 'x'; expected one of {KINDS_OF[name]}"):
        task.pairs(model, counterfactual="x")
    with pytest.raises(TaskError, match=f"{called} was asked for n=0 pairs"):
        task.pairs(model, n=0)
    said = f"{NEEDS[name]} The tokenizer .* has 1 of .* in split 'train'; expected at least"
    with pytest.raises(TaskError, match=rf"{called} needs {said}"):
        task.pairs(knows("apple", "1"))


NEEDS = dict.fromkeys(TASKS, r"words that are one token with and without a leading space\.")
NEEDS["sorting"] = r"numbers that are one token with a leading space\."
KINDS_OF = {name: ", ".join(task.counterfactuals) for name, task in TASKS.items()}


def test_too_many_pairs_are_refused(model: Any) -> None:
    most = 2 * len(material("test"))
    assert len(Sorting().pairs(model, n=most, split="test")) == most
    with pytest.raises(TaskError, match=rf"Split 'test' has {most} distinct prompts .*: write an n from 1 to {most}\."):
        Sorting().pairs(model, n=most + 1, split="test")


def test_places_and_orders_are_balanced(model: Any) -> None:
    places = Counter(Induction().pairs(model, n=60).roles["earlier"].tolist())
    assert set(places.values()) == {10} and len(places) == 6
    pairs = DuplicateToken().pairs(model, n=60)
    cells = Counter(zip(pairs.roles["first_time"].tolist(), pairs.roles["second_time"].tolist(), strict=True))
    assert set(cells.values()) == {3} and len(cells) == 20
    rising = [int(text.split()[1]) < int(text.split()[2]) for text in Sorting().pairs(model, n=60).clean]
    assert sum(rising) == 30


def test_a_word_that_is_not_one_token_where_a_text_begins_is_left_out() -> None:
    asked = request(Induction(), n=1, seed=0, split="test", counterfactual=None)
    found = single_of_split(Beginnings("chair"), asked, "words", WORDS, 19, alone=True)
    assert set(WORDS["test"].split()) - set(found) == {"chair"}
    with pytest.raises(TaskError, match=r"has 19 of 20 in split 'test'; expected at least 20"):
        single_of_split(Beginnings("chair"), asked, "words", WORDS, 20, alone=True)
    assert len(single_of_split(Beginnings("chair"), asked, "words", WORDS, 20)) == 20


class Beginnings:
    """A tokenizer that cuts one word in two, where no space is in front of it."""

    def __init__(self, cut: str) -> None:
        self.cut = cut

    def __call__(self, texts: list[str], add_special_tokens: bool) -> dict[str, list[list[int]]]:
        assert not add_special_tokens
        return {"input_ids": [[1, 2] if text == self.cut else [3] for text in texts]}


def test_impossible_lengths_are_refused() -> None:
    with pytest.raises(TaskError, match=r"Induction\(length=3\) is not possible; expected 4 to 10 words"):
        Induction(length=3)
    with pytest.raises(TaskError, match=r"DuplicateToken\(length=10\) is not possible; expected 4 to 9 words"):
        DuplicateToken(length=10)
