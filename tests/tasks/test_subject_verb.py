"""Subject-verb agreement: what a draw promises, read from the text."""

import re
from types import SimpleNamespace

import pytest

from interpose.errors import TaskError
from interpose.tasks.subject_verb import _TEMPLATES, _WRITTEN_NOUNS, SubjectVerb

SPLITS = ("train", "validation", "test")
FORMS = {"singular": {" is", " was", " has"}, "plural": {" are", " were", " have"}}
SINGULAR = {noun for split in _WRITTEN_NOUNS.values() for noun in split.split(", ")}
PLURAL = {f"{noun}s" for noun in SINGULAR}
# Whether the subject and the attractor change their number.
CHANGED = {
    "subject_number": (True, False),
    "attractor_number": (False, True),
    "both_numbers": (True, True),
    "other_subject": (False, False),
}
every_way = pytest.mark.parametrize("way", ["digits", "pairs"])


def nouns(prompt: str) -> list[tuple[str, str]]:
    """The two nouns of a prompt, each with its number."""
    found = [word for word in re.findall(r"[Tt]he (\w+)", prompt) if word in SINGULAR | PLURAL]
    assert len(found) == 2, prompt
    return [(word.removesuffix("s"), "plural") if word in PLURAL else (word, "singular") for word in found]


@every_way
@pytest.mark.parametrize("split", SPLITS)
def test_the_answer_has_the_number_of_the_subject_and_both_nouns_are_as_asked(writers, way, split):
    model = writers[way]
    pairs = SubjectVerb().pairs(model, n=64, seed=1, split=split)
    assert len(set(pairs.clean)) == 64
    agreeing = plural = 0
    for clean, answer, wrong in zip(pairs.clean, pairs.answers.tolist(), pairs.wrong.tolist(), strict=True):
        (subject, number), (attractor, its_number) = nouns(clean)
        assert subject != attractor
        other = "plural" if number == "singular" else "singular"
        said, not_said = model.tokenizer.decode([answer]), model.tokenizer.decode([wrong])
        assert said in FORMS[number]
        assert not_said in FORMS[other]
        assert (said.strip(), not_said.strip()) in {
            pair for a, b in (("is", "are"), ("was", "were"), ("has", "have")) for pair in ((a, b), (b, a))
        }
        agreeing, plural = agreeing + (number == its_number), plural + (number == "plural")
    assert agreeing == plural == 32


@every_way
@pytest.mark.parametrize("kind", CHANGED)
def test_a_counterfactual_changes_the_numbers_that_its_name_says(writers, way, kind):
    pairs = SubjectVerb().pairs(writers[way], n=48, counterfactual=kind)
    assert pairs.clean == SubjectVerb().pairs(writers[way], n=48).clean
    for row, (clean, corrupt) in enumerate(zip(pairs.clean, pairs.corrupt, strict=True)):
        before, after = nouns(clean), nouns(corrupt)
        assert tuple(one[1] != other[1] for one, other in zip(before, after, strict=True)) == CHANGED[kind]
        assert (before[0][0] != after[0][0]) == (kind == "other_subject")
        assert before[1][0] == after[1][0]
        assert re.sub(r"\w+", "", clean) == re.sub(r"\w+", "", corrupt)
        places = (pairs.differs[row].nonzero().flatten() - pairs.mask.shape[1]).tolist()
        subject, attractor = (int(pairs.roles[f"{role}_last"][row]) for role in ("subject", "attractor"))
        expected = {"attractor_number": [attractor], "both_numbers": [subject, attractor]}.get(kind, [subject])
        assert places == expected


@every_way
def test_the_roles_are_the_nouns(writers, way):
    pairs = SubjectVerb().pairs(writers[way], n=24, split="validation")
    assert set(pairs.roles) == {"subject_last", "attractor_last", "end"}
    for row, clean in enumerate(pairs.clean):
        for role, (noun, number) in zip(("subject_last", "attractor_last"), nouns(clean), strict=True):
            token = pairs.clean_tokens[row, int(pairs.roles[role][row])]
            assert writers[way].tokenizer.decode([token]) == f" {noun}" + "s" * (number == "plural")


SIGNALS = {"subject_number": (-1, 1), "attractor_number": (1, -1), "both_numbers": (-1, -1), "other_subject": (1, 1)}


@pytest.mark.parametrize("kind", CHANGED)
def test_the_causal_model_agrees_with_the_answers(writers, kind):
    causal, pulled = SubjectVerb().causal_model(), SubjectVerb().causal_model(attraction=0.25)
    pairs = SubjectVerb(attractors=("agrees",)).pairs(writers["pairs"], n=24, counterfactual=kind)
    subject, attractor = SIGNALS[kind]
    for base, source, clean in zip(pairs.clean_inputs, pairs.corrupt_inputs, pairs.clean, strict=True):
        assert [base["subject_form"], base["attractor_form"]] == [number for _, number in nouns(clean)]
        assert causal.run(base)["preference"] == 1
        assert causal.run(source)["preference"] == subject
        assert pulled.run(base)["preference"] == 1.25
        assert pulled.run(source)["preference"] == subject + 0.25 * attractor
        assert pulled.run_interchange(base, {"attractor_number": source})["preference"] == 1 + 0.25 * attractor
        assert pulled.run_interchange(base, {"subject_number": source})["preference"] == subject + 0.25


def test_one_relation_alone_can_be_asked_for(writers):
    for relation, same in (("agrees", True), ("differs", False)):
        task = SubjectVerb(attractors=(relation,))
        pairs = task.pairs(writers["pairs"], n=16)
        assert pairs.info["attractors"] == (relation,)
        for clean in pairs.clean:
            (_, number), (_, other) = nouns(clean)
            assert (number == other) == same
    with pytest.raises(TaskError, match=r"SubjectVerb\(attractors=\('none',\)\) is not possible; expected one or both"):
        SubjectVerb(attractors=("none",))


def test_splits_share_no_sentence_and_no_noun_and_sentences_have_no_other_noun_of_the_task():
    seen: set[str] = set()
    for split in SPLITS:
        words = _WRITTEN_NOUNS[split].split(", ")
        assert len(set(words)) == len(words) >= 20
        assert not any(noun.endswith(("s", "x", "ch", "sh", "y")) and noun != "day" for noun in words)
        material = {*words, *_TEMPLATES[split]}
        assert not seen & material
        seen |= material


def test_a_tokenizer_that_splits_nouns_is_named_in_the_error(trained):
    tokenizer = trained([" book", " books"] * 3, size=300)
    tokenizer.name_or_path = "two-words"
    with pytest.raises(TaskError) as error:
        SubjectVerb().pairs(SimpleNamespace(tokenizer=tokenizer))
    assert re.search(r"'two-words' has 1?\d of 41 such nouns in split 'train'; expected at least 8\.", str(error.value))
    assert "ip.pairs(...)" in str(error.value)
