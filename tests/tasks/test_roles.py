"""Token roles: the tokens they name are read back from the text, on several kinds of tokenizer."""

from types import SimpleNamespace

import pytest
import torch
from hypothesis import given, strategies as st

from interpose.errors import TaskError
from interpose.tasks._roles import Span, fill, token_roles
from interpose.tasks.ioi import IOI

TEMPLATE = "While {first} was near the {place}, {second} waited."
WORDS = st.sampled_from(["Kate", "Zebulonicus", "bakery", "old mill", "Łódź", "x", "naïveté"])


class Slow:
    """A tokenizer that does not say where its tokens stand."""

    def __init__(self, fast):
        self.fast = fast

    def __call__(self, texts):
        return {"input_ids": self.fast(texts)["input_ids"]}


def test_filling_says_where_each_word_stands():
    filled = fill(TEMPLATE, first="Kate", place="old mill", second="Paul", unused="x")
    assert filled.text == "While Kate was near the old mill, Paul waited."
    assert {name: filled.text[start:end] for name, (start, end) in filled.words.items()} == {
        "first": "Kate",
        "place": "old mill",
        "second": "Paul",
    }
    assert fill("no gap").words == {}


def test_a_gap_twice_or_without_a_value_is_refused():
    with pytest.raises(TaskError, match=r"The gap {a} stands twice in '{a} and {a}'. Write each gap once"):
        fill("{a} and {a}", a="x")
    with pytest.raises(TaskError, match=r"The gap {b} has no value in '{a} and {b}'"):
        fill("{a} and {b}", a="x")


@given(st.lists(st.tuples(WORDS, WORDS, WORDS), min_size=1, max_size=5))
def test_the_tokens_named_are_the_words_whatever_the_tokenizer_tells(tokenizer, rows):
    filled = [fill(TEMPLATE, first=first, place=place, second=second) for first, place, second in rows]
    texts, words = [one.text for one in filled], [one.words for one in filled]
    roles = token_roles(tokenizer, texts, words)
    for role, positions in token_roles(Slow(tokenizer), texts, words).items():
        assert torch.equal(roles[role], positions)
    assert roles["end"].tolist() == [-1] * len(rows)
    for row, text in enumerate(texts):
        ids = tokenizer(text)["input_ids"]
        for place, name in enumerate(("first", "place", "second")):
            if name == "place":
                continue
            last = int(roles[f"{name}_last"][row])
            first = int(roles.get(f"{name}_first", roles[f"{name}_last"])[row])
            assert tokenizer.decode(ids[first : last + 1]).strip() == rows[row][place]
    for place, name in ((0, "first"), (2, "second")):
        ends = zip(texts, roles[f"{name}_last"].tolist(), rows, strict=True)
        alone = [tokenizer.decode(tokenizer(text)["input_ids"][last]).strip() == row[place] for text, last, row in ends]
        assert (f"{name}_first" in roles) == (not all(alone))


def test_a_word_without_a_token_of_its_own_is_refused(tokenizer):
    span = {"subject": Span(5, 5)}
    for cut in (tokenizer, Slow(tokenizer)):
        with pytest.raises(TaskError, match=r"The word '', which is 'subject' in 'While Kate', has no token") as error:
            token_roles(cut, ["While Kate"], [span])
        assert "use a fast tokenizer" in str(error.value)


@pytest.mark.parametrize("kind", sorted(IOI().counterfactuals))
def test_the_roles_of_ioi_are_its_names_and_the_end(model, kind):
    pairs = IOI().pairs(model, n=24, counterfactual=kind)
    assert set(pairs.roles) == {"io", "s1", "s1+1", "s2", "end"}
    for row, tokens in enumerate(pairs.clean_tokens):
        at = {role: int(positions[row]) for role, positions in pairs.roles.items()}
        assert tokens[at["io"]] == pairs.answers[row]
        assert tokens[at["s1"]] == tokens[at["s2"]] == pairs.wrong[row]
        assert at["s1+1"] == at["s1"] + 1 < at["s2"]
        assert at["io"] < at["s2"] < at["end"] == -1
    kept = pairs.keep(torch.arange(24) % 2 == 0)
    assert torch.equal(kept.roles["s2"], pairs.roles["s2"][::2])


def test_roles_do_not_need_offsets(model):
    slow = SimpleNamespace(tokenizer=_SlowWithDecoding(model.tokenizer))
    one, other = (IOI().pairs(any_model, n=16).roles for any_model in (model, slow))
    assert all(torch.equal(one[role], other[role]) for role in one)


class _SlowWithDecoding:
    """The same tokens as another tokenizer, without their characters."""

    eos_token_id = 0
    unk_token_id = None

    def __init__(self, fast):
        self.fast = fast

    def __call__(self, texts, add_special_tokens=True):
        return {"input_ids": self.fast(texts, add_special_tokens=add_special_tokens)["input_ids"]}
