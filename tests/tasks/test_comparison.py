"""Comparison: what a draw promises, checked on the text itself."""

import itertools
from types import SimpleNamespace

import pytest

from interpose.errors import TaskError
from interpose.loading import words
from interpose.loading.cards import Vocabulary
from interpose.tasks.comparison import LETTERS, OPTIONS, Comparison

SPLITS = ("train", "validation", "test")
TASK = Comparison()


def knows(*known: str) -> SimpleNamespace:
    return SimpleNamespace(tokenizer=words.tokenizer(Vocabulary(("<pad>", "<unk>", *known))))


@pytest.fixture(scope="module")
def model() -> SimpleNamespace:
    return knows(*(word for table in (OPTIONS, LETTERS) for split in table.values() for word in split.split()))


def solved(prompt: str) -> str:
    """By a rule of this test's own."""
    first, second, left, right = prompt.split()
    return second if left != right else first


@pytest.mark.parametrize("split", SPLITS)
@pytest.mark.parametrize("kind", TASK.counterfactuals)
def test_the_answer_is_right_and_the_wrong_one_is_the_other_option(
    model: SimpleNamespace, split: str, kind: str
) -> None:
    drawn = TASK.pairs(model, n=100, seed=3, split=split, counterfactual=kind)
    decode = model.tokenizer.decode
    for row, prompt in enumerate(drawn.clean):
        said = [decode([int(ids[row])]) for ids in (drawn.answers, drawn.wrong)]
        assert said[0] == solved(prompt)
        assert set(said) == set(prompt.split()[:2])
    same = sum(prompt.split()[2] == prompt.split()[3] for prompt in drawn.clean)
    assert same == 50
    assert len(set(drawn.clean)) == 100


def test_what_each_counterfactual_changes(model: SimpleNamespace) -> None:
    changed = {"other_prompt": 4, "other_letter": 1, "other_options": 2}
    for kind, count in changed.items():
        drawn = TASK.pairs(model, n=60, split="test", counterfactual=kind)
        words_of = [(clean.split(), corrupt.split()) for clean, corrupt in zip(drawn.clean, drawn.corrupt, strict=True)]
        for clean, corrupt in words_of:
            same = clean[2] == clean[3], corrupt[2] == corrupt[3]
            assert (same[0] != same[1]) == (kind != "other_options")
            moved = sum(one != other for one, other in zip(clean, corrupt, strict=True))
            assert moved == count
            if kind == "other_prompt":
                assert not set(clean) & set(corrupt)
            if kind == "other_letter":
                assert solved(" ".join(clean)) != solved(" ".join(corrupt))


def test_draws_repeat_and_splits_share_nothing(model: SimpleNamespace) -> None:
    kinds = [TASK.pairs(model, n=20, seed=1, counterfactual=kind).clean for kind in TASK.counterfactuals]
    assert kinds[0] == kinds[1] == kinds[2]
    assert TASK.pairs(model, n=20, seed=2).clean != kinds[0]
    shown = {split: set(" ".join(TASK.pairs(model, n=80, split=split).clean).split()) for split in SPLITS}
    assert all(not shown[one] & shown[other] for one, other in itertools.combinations(SPLITS, 2))


def test_roles_and_inputs(model: SimpleNamespace) -> None:
    drawn = TASK.pairs(model, n=10)
    for row, prompt in enumerate(drawn.clean):
        named = {
            role: model.tokenizer.decode([int(drawn.clean_tokens[row, at[row]])]) for role, at in drawn.roles.items()
        }
        assert named.pop("end") == prompt.split()[-1]
        assert named == dict(drawn.clean_inputs[row])
        assert list(named.values()) == prompt.split()


def test_the_causal_model() -> None:
    base = {"first": "tea", "second": "milk", "left": "A", "right": "A"}
    other = {"first": "salt", "second": "rice", "left": "A", "right": "D"}
    causal = TASK.causal_model()
    assert [causal.run(each)["choice"] for each in (base, other)] == ["tea", "rice"]
    assert causal.run_interchange(base, {"same": other})["choice"] == "milk"
    assert causal.run_interchange(base, {"choice": other})["choice"] == "rice"


def test_a_vocabulary_without_the_words() -> None:
    with pytest.raises(TaskError, match="Comparison needs options that are one token with and without a leading space"):
        TASK.pairs(knows("A", "D", "G", "J"))
    with pytest.raises(TaskError, match="Comparison needs letters that are one token with a leading space"):
        TASK.pairs(knows(*OPTIONS["train"].split()))


@pytest.mark.parametrize(
    ("given", "said"),
    [({"split": "x"}, "no split 'x'"), ({"n": 0}, "n=0"), ({"n": 897, "split": "test"}, "from 1 to 896")],
)
def test_what_cannot_be_drawn(model: SimpleNamespace, given: dict, said: str) -> None:
    with pytest.raises(TaskError, match=said):
        TASK.pairs(model, **given)
