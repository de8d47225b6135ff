"""Pairs from one's own prompts: what is accepted, how it is aligned, and what is refused in which words."""

import inspect
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given, strategies as st
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers
from transformers import PreTrainedTokenizerFast

import interpose as ip
from interpose.errors import TaskError
from interpose.tasks.base import Pairs, pairs

# Arguments of a wrong type must reach the check that explains them, not the type checker that tests switch on.
unchecked_pairs = inspect.unwrap(pairs)
unchecked_item = inspect.unwrap(Pairs.__getitem__)

SHORT = ("Then Paul gave it to", "Then Kate gave it to")
LONG = ("Last summer Paul and Kate worked at the bakery", "Last summer Kate and Paul worked at the bakery")


@pytest.fixture
def made(model):
    return pairs(
        model, clean=[SHORT[0], LONG[0]], corrupt=[SHORT[1], LONG[1]], answers=[" Kate"] * 2, wrong=[" Paul"] * 2
    )


def test_the_public_name_is_this_function():
    assert ip.pairs is pairs
    assert ip.Pairs is Pairs


def test_unequal_prompts_are_padded_on_the_left(model, made):
    short, long = (model.tokenizer(text)["input_ids"] for text in (SHORT[0], LONG[0]))
    pad = len(long) - len(short)
    assert made.clean_tokens.shape == made.corrupt_tokens.shape == made.mask.shape == (2, len(long))
    assert made.clean_tokens[0, pad:].tolist() == short
    assert made.clean_tokens[1].tolist() == long
    assert made.mask.tolist() == [[False] * pad + [True] * len(short), [True] * len(long)]
    assert made.corrupt_tokens[0, pad:].tolist() == model.tokenizer(SHORT[1])["input_ids"]
    assert [model.tokenizer.decode([token]) for token in (*made.answers, *made.wrong)] == [" Kate"] * 2 + [" Paul"] * 2


def test_padding_never_counts_as_a_difference(model, made):
    short = len(model.tokenizer(SHORT[0])["input_ids"])
    assert not made.differs[0, : made.mask.shape[1] - short].any()
    changed = [model.tokenizer.decode([token]) for token in made.clean_tokens[1][made.differs[1]]]
    assert changed == [" Paul", " Kate"]


def test_batches_are_what_a_forward_pass_takes(made):
    for batch, tokens in ((made.clean_batch(), made.clean_tokens), (made.corrupt_batch(), made.corrupt_tokens)):
        assert torch.equal(batch.kwargs["input_ids"], tokens)
        assert torch.equal(batch.kwargs["attention_mask"].bool(), made.mask)
        assert torch.equal(batch.kwargs["position_ids"][:, -1] + 1, made.mask.sum(1))


@given(st.lists(st.booleans(), min_size=1, max_size=12), st.integers(1, 5), st.data())
def test_slices_batches_and_keep_choose_rows_of_everything(model, chosen, size, data):
    drawn = ip.tasks.IOI().pairs(model, n=len(chosen))
    start = data.draw(st.integers(0, len(chosen)))

    def same(got: Pairs, rows: list[int]) -> None:
        assert got.clean == tuple(drawn.clean[row] for row in rows)
        assert got.corrupt_inputs == tuple(drawn.corrupt_inputs[row] for row in rows)
        for name in ("clean_tokens", "corrupt_tokens", "mask", "answers", "wrong"):
            assert torch.equal(getattr(got, name), getattr(drawn, name)[rows])
        assert got.info == {**drawn.info, "n": len(rows)}

    everything = list(range(len(chosen)))
    same(drawn[start:], everything[start:])
    same(drawn.keep(torch.tensor(chosen)), [row for row in everything if chosen[row]])
    for number, part in enumerate(drawn.batches(size)):
        same(part, everything[number * size : (number + 1) * size])
    assert sum(len(part) for part in drawn.batches(size)) == len(drawn)


def test_to_moves_every_tensor(made):
    moved = made.to("meta")
    assert all(getattr(moved, name).is_meta for name in ("clean_tokens", "corrupt_tokens", "mask", "answers", "wrong"))
    assert moved.clean == made.clean


def test_it_says_what_it_is(model, made):
    assert repr(made) == "Pairs(2 pairs, 7-10 tokens, task='custom')"
    assert "counterfactual='abc'" in repr(ip.tasks.IOI().pairs(model, n=3, counterfactual="abc"))


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        (
            {"clean": "Paul gave it to"},
            "clean is one text, 'Paul gave it to'; expected a list of texts. Write clean=.'Paul",
        ),
        ({"clean": 7}, r"clean is of type int; expected a list of texts, as in clean=\['...', '...'\]"),
        ({"answers": [3]}, r"answers\[0\] is 3, of type int; expected a text"),
        ({"corrupt": [""]}, r"corrupt\[0\] is empty; expected a text of at least one token"),
        ({"wrong": [" Paul", " Ian"]}, "need the same number of texts, .* clean has 1, corrupt has 1, .* wrong has 2"),
        ({"clean": [], "corrupt": [], "answers": [], "wrong": []}, "at least one, but clean has 0"),
        ({"wrong": [" Kate"]}, r"answers\[0\] = ' Kate' and wrong\[0\] = ' Kate' are the same token \(\d+\)"),
        ({"answers": ["Kate"]}, r"answers\[0\] = 'Kate' is \d tokens \('K.*leading space is one token: write ' Kate'"),
        (
            {"wrong": [" xqzvj"]},
            r"wrong\[0\] = ' xqzvj' is \d+ tokens .* Choose an answer that this model's vocabulary has",
        ),
        (
            {"wrong": [" 7"]},
            r"wrong\[0\] = ' 7' is 2 .* without the space in front is one .*write '7'",
        ),
    ],
)
def test_what_does_not_make_a_pair_is_refused_in_words(model, changed, said):
    given_ = {"clean": [SHORT[0]], "corrupt": [SHORT[1]], "answers": [" Kate"], "wrong": [" Paul"], **changed}
    with pytest.raises(TaskError, match=said):
        unchecked_pairs(model, **given_)


def test_prompts_that_do_not_align_are_shown_token_by_token(model):
    clean, corrupt = "the key of Paul", "the xq of Paul"
    one, other = (
        [repr(model.tokenizer.decode([token])) for token in model.tokenizer(text)["input_ids"]]
        for text in (clean, corrupt)
    )
    with pytest.raises(TaskError) as error:
        pairs(model, [SHORT[0], clean], [SHORT[1], corrupt], [" Kate"] * 2, [" Paul"] * 2)
    lines = str(error.value).splitlines()
    assert lines[0] == f"Pair 1 does not align: its clean prompt has 4 tokens and its corrupt prompt {len(other)}."
    assert lines[1].split() == ["clean", "corrupt"]
    table = [line.split(maxsplit=1)[1] for line in lines[2 : 2 + len(other)]]
    for row, line in enumerate(table):
        assert line.startswith(one[row] if row < len(one) else "-")
        assert other[row] in line
        assert line.endswith("<") == (row >= len(one) or one[row] != other[row])
    assert "Change the words at the first '<' so that both take as many tokens" in str(error.value)


def test_other_misuse_is_explained(made):
    with pytest.raises(TaskError, match="has no tokenizer, .*ip.wrap"):
        pairs(SimpleNamespace(tokenizer=None), ["a"], ["b"], [" c"], [" d"])
    with pytest.raises(TaskError, match=r"takes a slice, not 1.* Write pairs\[3:4\] for one pair"):
        unchecked_item(made, 1)
    with pytest.raises(TaskError, match="keep\\(\\) got 3 values for 2 pairs; expected one True or False for each"):
        made.keep(torch.tensor([True, False, True]))
    with pytest.raises(TaskError, match="at least one pair a batch, but size is 0"):
        next(made.batches(0))


def test_a_vocabulary_that_marks_the_start_of_a_text_still_gives_one_token_answers():
    # As the first Llama models do: a space is put before every text, so " b" alone becomes two tokens and "b" one.
    words = {"[UNK]": 0, "▁": 1, "▁a": 2, "▁b": 3, "▁c": 4}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="never")
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="[UNK]")
    assert fast(" b", add_special_tokens=False)["input_ids"] != [3]
    got = pairs(SimpleNamespace(tokenizer=fast), ["a b c"], ["a c c"], [" b"], [" c"])
    with pytest.raises(TaskError, match=r"wrong\[0\] = ' zebra' is not in this model's vocabulary"):
        pairs(SimpleNamespace(tokenizer=fast), ["a b c"], ["a c c"], [" b"], [" zebra"])
    assert (got.answers.tolist(), got.wrong.tolist(), got.clean_tokens.tolist()) == ([3], [4], [[2, 3, 4]])
