"""Indirect object identification: what a draw promises, checked on the text itself."""

import itertools
import re
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given, settings, strategies as st

import interpose.tasks.ioi as module
from interpose.errors import TaskError
from interpose.tasks._ioi_text import NAMES, OBJECTS, PLACES, TEMPLATES
from interpose.tasks.ioi import IOI

SPLITS = ("train", "validation", "test")
EVERY_NAME = {name for split in NAMES.values() for name in split}
# Which of the three names of a sentence, in reading order, each counterfactual changes.
CHANGED = {
    "s2_io_flip": [2],
    "random_names": [0, 1, 2],
    "abc": [2],
    "s1_io_flip": [0, 1],
    "s1_ioi_flip_s2_ioi_flip": [0, 1, 2],
}
few = settings(max_examples=18)
draws = given(
    seed=st.integers(0, 10**6),
    n=st.integers(1, 40),
    split=st.sampled_from(SPLITS),
    kind=st.sampled_from(sorted(CHANGED)),
)


def names_in(prompt: str) -> list[str]:
    return [word for word in re.findall(r"\w+", prompt) if word in EVERY_NAME]


def without_names(prompt: str) -> str:
    return re.sub(r"\w+", lambda word: "*" if word[0] in EVERY_NAME else word[0], prompt)


@few
@draws
def test_only_the_intended_names_differ_and_both_prompts_have_the_same_tokens(model, seed, n, split, kind):
    pairs = IOI().pairs(model, n=n, seed=seed, split=split, counterfactual=kind)
    assert len(pairs) == n
    for row, (clean, corrupt) in enumerate(zip(pairs.clean, pairs.corrupt, strict=True)):
        assert without_names(clean) == without_names(corrupt)
        before, after = names_in(clean), names_in(corrupt)
        assert [place for place in range(3) if before[place] != after[place]] == CHANGED[kind]
        one, other = (model.tokenizer(text)["input_ids"] for text in (clean, corrupt))
        assert len(one) == len(other)
        assert pairs.clean_tokens[row, -len(one) :].tolist() == one
        assert pairs.corrupt_tokens[row, -len(one) :].tolist() == other
        assert pairs.mask[row].tolist() == [False] * (pairs.mask.shape[1] - len(one)) + [True] * len(one)
        differing = pairs.clean_tokens[row][pairs.differs[row]]
        assert [model.tokenizer.decode([token]).strip() for token in differing] == [before[i] for i in CHANGED[kind]]


@few
@draws
def test_a_clean_prompt_has_the_answer_once_and_the_wrong_name_twice(model, split_names, seed, n, split, kind):
    pairs = IOI().pairs(model, n=n, seed=seed, split=split, counterfactual=kind)
    for clean, answer, wrong in zip(pairs.clean, pairs.answers.tolist(), pairs.wrong.tolist(), strict=True):
        answer, wrong = model.tokenizer.decode([answer]), model.tokenizer.decode([wrong])
        assert answer[0] == wrong[0] == " "
        assert sorted(names_in(clean)) == sorted([answer[1:], wrong[1:], wrong[1:]])
        assert names_in(clean)[2] == wrong[1:]
        assert not {answer[1:], wrong[1:]} & split_names


@few
@draws
def test_each_counterfactual_means_what_its_name_says(model, seed, n, split, kind):
    pairs = IOI().pairs(model, n=n, seed=seed, split=split, counterfactual=kind)
    for clean, corrupt in zip(pairs.clean, pairs.corrupt, strict=True):
        (a, b, c), (x, y, z) = names_in(clean), names_in(corrupt)
        other = a if c == b else b
        if kind == "s2_io_flip":
            assert (x, y, z) == (a, b, other)
        elif kind == "random_names":
            assert not {x, y} & {a, b}
            assert x != y
            assert z == (x if c == a else y)
        elif kind == "abc":
            assert (x, y) == (a, b)
            assert z not in (a, b)
        elif kind == "s1_io_flip":
            assert (x, y, z) == (b, a, c)
        else:
            assert (x, y, z) == (b, a, other)


@few
@draws
def test_a_draw_has_no_duplicates_repeats_exactly_and_is_balanced(model, seed, n, split, kind):
    pairs = IOI().pairs(model, n=n, seed=seed, split=split, counterfactual=kind)
    again = IOI().pairs(model, n=n, seed=seed, split=split, counterfactual=kind)
    assert (pairs.clean, pairs.corrupt) == (again.clean, again.corrupt)
    assert torch.equal(pairs.corrupt_tokens, again.corrupt_tokens)
    assert len(set(pairs.clean)) == n
    first = sum(names_in(clean)[0] != names_in(clean)[2] for clean in pairs.clean)
    assert abs(first - (n - first)) <= 1
    sentences = [without_names(clean).split("*")[0][:8] for clean in pairs.clean]
    most = max(sentences.count(sentence) for sentence in sentences)
    assert most <= 2 * (n // (2 * len(TEMPLATES[split])) + 1)
    names = {name for prompt in (*pairs.clean, *pairs.corrupt) for name in names_in(prompt)}
    assert names <= set(NAMES[split])


def test_every_counterfactual_has_the_same_clean_prompts_and_another_seed_has_others(model):
    drawn = [IOI().pairs(model, n=32, seed=5, counterfactual=kind).clean for kind in CHANGED]
    assert all(clean == drawn[0] for clean in drawn)
    assert IOI().pairs(model, n=32, seed=6).clean != drawn[0]
    assert IOI().pairs(model, n=32, seed=5).clean == drawn[0]
    assert IOI().pairs(model, n=32, seed=5).info["counterfactual"] == "s2_io_flip"


def test_splits_share_no_name_and_no_sentence():
    for one, other in itertools.combinations(SPLITS, 2):
        assert not set(NAMES[one]) & set(NAMES[other])
        assert not set(TEMPLATES[one]) & set(TEMPLATES[other])
    assert set(NAMES) == set(TEMPLATES) == set(SPLITS)


def test_there_is_enough_material_and_every_sentence_stops_before_a_name():
    sentences = [sentence for split in TEMPLATES.values() for sentence in split]
    assert len(set(sentences)) == len(sentences) >= 24
    assert len(EVERY_NAME) >= 120
    assert len(set(PLACES)) == len(PLACES) >= 25
    assert len(set(OBJECTS)) == len(OBJECTS) >= 25
    for sentence in sentences:
        assert sorted(re.findall(r"{(\w+)}", sentence)) == ["first", "object", "place", "second", "subject"]
        assert sentence.index("{first}") < sentence.index("{second}") < sentence.index("{subject}")
        assert len(re.findall(r" {(?:first|second|subject)}", sentence)) == 3
        assert sentence == sentence.strip()
        assert not names_in(re.sub(r"{\w+}", "", sentence))
    assert not EVERY_NAME & {word for text in (*PLACES, *OBJECTS) for word in text.split()}


def test_one_order_alone_can_be_asked_for(model):
    for order, place in (("ABBA", 1), ("BABA", 0)):
        for clean in IOI(orders=(order,)).pairs(model, n=9).clean:
            assert names_in(clean)[place] == names_in(clean)[2]
    with pytest.raises(TaskError, match=r"IOI\(orders=\('ABAB',\)\) is not possible; expected one or both of"):
        IOI(orders=("ABAB",))


def test_every_prompt_there_is_can_be_drawn_and_no_more(model, split_names, monkeypatch):
    names = [name for name in NAMES["test"] if name not in split_names][:4]
    monkeypatch.setattr(module, "_single_token_names", lambda tokenizer, split: tuple(names))
    monkeypatch.setattr(module, "PLACES", PLACES[:2])
    monkeypatch.setattr(module, "OBJECTS", OBJECTS[:3])
    monkeypatch.setattr(module, "TEMPLATES", {"test": TEMPLATES["test"][:2]})
    expected = {
        sentence.format(first=first, second=second, subject=subject, place=place, object=thing)
        for sentence, place, thing in itertools.product(TEMPLATES["test"][:2], PLACES[:2], OBJECTS[:3])
        for first, second in itertools.permutations(names, 2)
        for subject in (first, second)
    }
    pairs = IOI().pairs(model, n=len(expected), split="test")
    assert set(pairs.clean) == expected
    with pytest.raises(TaskError) as error:
        IOI().pairs(model, n=len(expected) + 1, split="test")
    assert str(error.value) == (
        "IOI was asked for n=289 pairs. Split 'test' has 288 distinct prompts for this tokenizer: "
        "write an n from 1 to 288."
    )


@pytest.mark.parametrize("n", [0, -3, 10**15])
def test_an_impossible_n_is_refused_with_the_most_there_can_be(model, n):
    known = len([name for name in NAMES["train"] if len(model.tokenizer(f" {name}")["input_ids"]) == 1])
    most = len(TEMPLATES["train"]) * 2 * known * (known - 1) * len(PLACES) * len(OBJECTS)
    with pytest.raises(TaskError, match=f"asked for n={n} pairs. .*write an n from 1 to {most}"):
        IOI().pairs(model, n=n)


def test_unknown_names_are_refused_with_those_there_are(model):
    with pytest.raises(TaskError, match="IOI has no split 'dev'; expected one of train, validation, test"):
        IOI().pairs(model, split="dev")
    with pytest.raises(
        TaskError, match="IOI has no counterfactual 'flip'; expected one of s2_io_flip, random_names, abc"
    ):
        IOI().pairs(model, counterfactual="flip")


def test_a_tokenizer_that_splits_names_is_named_in_the_error(trained):
    known = [f" {name}" for name in sorted(EVERY_NAME)[:19]]
    tokenizer = trained(known * 2, size=1000)
    tokenizer.name_or_path = "tiny-words"
    with pytest.raises(TaskError) as error:
        IOI().pairs(SimpleNamespace(tokenizer=tokenizer))
    assert "one token with a leading space" in str(error.value)
    assert re.search(
        r"'tiny-words' has 19 of 269 such names, \d+ of them in split 'train'; expected at least 20", str(error.value)
    )
    assert "ip.pairs(...)" in str(error.value)


def test_the_description_is_the_docstring_and_the_counterfactuals_are_explained():
    assert IOI().description.startswith("Indirect object identification: which of two people receives something.")
    assert set(IOI().counterfactuals) == set(CHANGED)
    for name in IOI().counterfactuals:
        assert f"`{name}`" in IOI().description


SIGNALS = {
    "s2_io_flip": (-1, -1),
    "s1_io_flip": (-1, 1),
    "s1_ioi_flip_s2_ioi_flip": (1, -1),
    "random_names": (1, 0),
    "abc": (0, 0),
}


@few
@draws
def test_exchanging_position_and_token_gives_the_published_coding(model, seed, n, split, kind):
    causal = IOI().causal_model(bias=0.5, position_weight=2.0, token_weight=0.75)
    pairs = IOI().pairs(model, n=n, seed=seed, split=split, counterfactual=kind)
    for base, source in zip(pairs.clean_inputs, pairs.corrupt_inputs, strict=True):
        itself = causal.run(base)
        assert (itself["position_signal"], itself["token_signal"], itself["logit_difference"]) == (1, 1, 3.25)
        assert itself["output_token"] == base["answer"]
        position, token = SIGNALS[kind]
        both = causal.run_interchange(base, {"output_position": source, "output_token": source})
        assert (both["position_signal"], both["token_signal"]) == (position, token)
        alone = causal.run_interchange(base, {"output_position": source})
        assert alone["logit_difference"] == 0.5 + 2.0 * position + 0.75
        alone = causal.run_interchange(base, {"output_token": source})
        assert alone["logit_difference"] == 0.5 + 2.0 + 0.75 * token


def test_the_causal_model_by_hand():
    causal = IOI().causal_model()
    asked = {"answer": "Kate", "wrong": "Paul"}
    kate_first = {"first": "Kate", "second": "Paul", "subject": "Paul", **asked}
    paul_gets = {"first": "Kate", "second": "Paul", "subject": "Kate", **asked}
    nobody = {"first": "Kate", "second": "Paul", "subject": "Ian", **asked}
    assert [causal.run(prompt)["output_position"] for prompt in (kate_first, paul_gets, nobody)] == [0, 1, None]
    assert [causal.run(prompt)["output_token"] for prompt in (kate_first, paul_gets, nobody)] == ["Kate", "Paul", None]
    assert [causal.run(prompt)["logit_difference"] for prompt in (kate_first, paul_gets, nobody)] == [2, -2, 0]
