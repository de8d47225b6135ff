"""Greater-than: what a draw promises, read from the text, for each way in which tokenizers write years."""

import re
from types import SimpleNamespace

import pytest

from interpose.errors import TaskError
from interpose.tasks.greater_than import _TEMPLATES, _WRITTEN_EVENTS, GreaterThan

WAYS = {"digits": 1, "pairs": 2, "threes": 1}
SPLITS = ("train", "validation", "test")
KINDS = ("low_year", "late_year", "same_order")
every_way = pytest.mark.parametrize("way", WAYS)


def years(prompt: str) -> tuple[str, str]:
    start, stop = re.findall(r"\d+", prompt)
    assert prompt.endswith(stop)
    return start, stop


@every_way
@pytest.mark.parametrize("split", SPLITS)
def test_exactly_the_answer_lies_above_the_first_year(writers, way, split):
    model = writers[way]
    pairs = GreaterThan().pairs(model, n=60, seed=3, split=split)
    assert len(set(pairs.clean)) == 60
    for clean, answer, wrong in zip(pairs.clean, pairs.answers.tolist(), pairs.wrong.tolist(), strict=True):
        start, stop = years(clean)
        assert len(start) == 4
        assert start.startswith(stop)
        assert len(stop) == 4 - WAYS[way]
        later, earlier = (int(stop + model.tokenizer.decode([token])) for token in (answer, wrong))
        assert earlier < int(start) < later < 2000
        # As one text it is the same tokens, so the model would write the year in this way.
        whole = model.tokenizer(clean + model.tokenizer.decode([answer]))["input_ids"]
        assert whole == [*model.tokenizer(clean)["input_ids"], answer]


@every_way
@pytest.mark.parametrize("kind", KINDS)
def test_a_counterfactual_changes_the_first_years_ending_only(writers, way, kind):
    model = writers[way]
    pairs = GreaterThan().pairs(model, n=40, counterfactual=kind)
    assert pairs.clean == GreaterThan().pairs(model, n=40).clean
    assert pairs.differs.sum(1).max() <= 1
    for row, (clean, corrupt) in enumerate(zip(pairs.clean, pairs.corrupt, strict=True)):
        (start, stop), (other, same) = years(clean), years(corrupt)
        assert stop == same
        assert clean.replace(start, other, 1) == corrupt
        answer, wrong = (int(stop + model.tokenizer.decode([ids[row]])) for ids in (pairs.answers, pairs.wrong))
        if kind == "low_year":
            assert int(other) < wrong
        elif kind == "late_year":
            assert int(other) >= answer
        else:
            assert wrong <= int(other) < answer
        if start != other:
            (place,) = pairs.differs[row].nonzero().flatten().tolist()
            assert place - pairs.mask.shape[1] == pairs.roles["start_last"][row]


@every_way
def test_the_roles_are_the_words(writers, way):
    tokenizer = writers[way].tokenizer
    pairs = GreaterThan().pairs(writers[way], n=20)
    several = {"start_first"} | ({"stop_first"} if way == "digits" else set())
    assert set(pairs.roles) - {"event_first"} == {"event_last", "start_last", "stop_last", "end"} | several
    for row, clean in enumerate(pairs.clean):
        start, stop = years(clean)
        tokens = pairs.clean_tokens[row]
        at = {role: int(positions[row]) for role, positions in pairs.roles.items()}
        assert tokenizer.decode(tokens[at["start_first"] : at["start_last"] + 1].tolist()).strip() == start
        assert at["stop_last"] == at["end"] == -1
        assert tokenizer.decode(tokens[at.get("stop_first", -1) :].tolist()).strip() == stop
        event = tokenizer.decode(tokens[at.get("event_first", at["event_last"]) : at["event_last"] + 1].tolist())
        assert event.strip() in _WRITTEN_EVENTS["train"].split(", ")


@pytest.mark.parametrize(("kind", "preference"), [("low_year", 0), ("late_year", 0), ("same_order", 1)])
def test_the_causal_model_agrees_with_the_answers(writers, kind, preference):
    causal = GreaterThan().causal_model()
    pairs = GreaterThan().pairs(writers["pairs"], n=40, counterfactual=kind)
    for base, source in zip(pairs.clean_inputs, pairs.corrupt_inputs, strict=True):
        assert causal.run(base)["preference"] == 1
        assert causal.run(source)["preference"] == preference
        assert causal.run_interchange(base, {"bound": source})["preference"] == preference
    assert causal.run({"start": 32, "answer": 20, "wrong": 40})["preference"] == -1


def test_splits_share_no_sentence_no_event_and_no_first_year(writers):
    seen: set[str] = set()
    for split in SPLITS:
        starts = {years(clean)[0] for clean in GreaterThan().pairs(writers["digits"], n=400, split=split).clean}
        material = {*_TEMPLATES[split], *_WRITTEN_EVENTS[split].split(", "), *starts}
        assert not seen & material
        seen |= material


def test_a_tokenizer_that_does_not_suit_is_shown_with_what_it_makes_of_a_year(trained):
    whole = trained([f" {year}" for year in range(1100, 2000)] * 2, size=3000)
    whole.name_or_path = "whole-years"
    with pytest.raises(TaskError) as error:
        GreaterThan().pairs(SimpleNamespace(tokenizer=whole))
    assert "'whole-years' has 0 such years in split 'train', expected at least 20" in str(error.value)
    assert "it cuts 1732 into ' 1732'. Use a model that splits numbers, or give your own prompts to ip.pairs" in str(
        error.value
    )
    with pytest.raises(TaskError, match="has no counterfactual 'flip'; expected one of low_year, late_year"):
        GreaterThan().pairs(SimpleNamespace(tokenizer=whole), counterfactual="flip")
