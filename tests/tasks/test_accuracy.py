"""How often a model is right: against plain forward passes, and on the model that interpose comes with."""

from math import sqrt

import pytest
import torch

import interpose as ip
from interpose.errors import TaskError
from interpose.tasks.base import Rate


@pytest.fixture(scope="module")
def small(tokenizer):
    """A fresh language model over the small vocabulary."""
    torch.manual_seed(0)
    built = ip.build("llama", layers=2, heads=4, kv_heads=2, width=32, neurons=48, vocab=len(tokenizer))
    return ip.wrap(built.network, tokenizer=tokenizer)


@pytest.fixture(scope="module")
def smollm():
    return ip.load("smollm2-135m-instruct")


def test_it_is_what_plain_forward_passes_say(small):
    task = ip.tasks.IOI()
    pairs = task.pairs(small, n=21, seed=3)
    prefers, first = [], []
    for prompt, answer, wrong in zip(pairs.clean, pairs.answers, pairs.wrong, strict=True):
        with torch.no_grad():
            logits = small.network(torch.tensor([small.tokenizer(prompt)["input_ids"]])).logits[0, -1]
        prefers.append(bool(logits[answer] > logits[wrong]))
        first.append(bool(logits.argmax() == answer))
    assert 0 < sum(prefers) < 21
    for size in (1, 8, 64):
        accuracy = task.accuracy(small, pairs, batch_size=size)
        assert accuracy.correct.tolist() == prefers
        assert (accuracy.prefers, accuracy.first) == (Rate(sum(prefers), 21), Rate(sum(first), 21))
        assert accuracy.n == 21
    kept = pairs.keep(accuracy.correct)
    assert task.accuracy(small, kept).prefers.value == 1.0


def test_no_pairs_have_no_accuracy(small):
    task = ip.tasks.IOI()
    with pytest.raises(TaskError, match="There are no pairs to measure"):
        task.accuracy(small, task.pairs(small, n=4)[:0])


@pytest.mark.parametrize(("count", "n"), [(0, 5), (5, 5), (3, 10), (194, 200), (1, 1)])
def test_the_interval_is_wilsons(count, n):
    """Its bounds are the true shares p for which count / n lies exactly 1.96 standard errors, taken at p, away."""
    rate = Rate(count, n)
    low, high = rate.interval
    assert 0 <= low <= rate.value <= high <= 1
    for bound, end in ((low, 0.0), (high, 1.0)):
        distance = abs(rate.value - bound)
        assert (
            distance == pytest.approx(1.959964 * sqrt(bound * (1 - bound) / n), abs=1e-6) or bound == end == rate.value
        )


def test_it_reads_as_one_line():
    assert str(Rate(194, 200)) == "97.0% [93.6%, 98.6%]"


@pytest.mark.parametrize("split", ["train", "validation", "test"])
def test_the_embedded_model_does_the_task(smollm, split):
    task = ip.tasks.IOI()
    accuracy = task.accuracy(smollm, task.pairs(smollm, n=20, split=split))
    assert accuracy.prefers.value >= 0.85
    assert accuracy.first.value >= 0.4


def test_the_embedded_model_changes_its_answer_with_the_repeated_name(smollm):
    """On the other version of the prompt, the old answer is the wrong one, and the model says so."""
    task = ip.tasks.IOI()
    flipped = task.pairs(smollm, n=20, split="test", counterfactual="s2_io_flip")
    turned = ip.pairs(
        smollm,
        clean=flipped.corrupt,
        corrupt=flipped.clean,
        answers=[smollm.tokenizer.decode([token]) for token in flipped.answers],
        wrong=[smollm.tokenizer.decode([token]) for token in flipped.wrong],
    )
    assert task.accuracy(smollm, turned).prefers.value <= 0.15


def test_the_embedded_tokenizer_knows_most_names(smollm):
    pairs = ip.tasks.IOI().pairs(smollm, n=400, counterfactual="random_names")
    assert (pairs.differs.sum(1) == 3).all()
    assert len({row["answer"] for row in pairs.clean_inputs}) > 60


@pytest.mark.parametrize(("count", "n"), [(1, 1), (3, 4), (11, 20), (99, 100)])
def test_how_many_examples_would_show_a_share_to_lie_above_one_half(count: int, n: int) -> None:
    """Against Wilson's interval itself, over all numbers of examples with this share, whole or not."""
    share = count / n
    above = [many for many in range(1, 1000) if wilson_low(share, many) > 0.5]
    assert Rate(count, n).enough == above[0]
    assert above == list(range(above[0], 1000))


def test_no_number_of_examples_shows_one_half_to_lie_above_it() -> None:
    assert Rate(2, 4).enough is None
    assert Rate(1, 4).enough is None


def wilson_low(share: float, n: int) -> float:
    z = 1.959964
    root = z * sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    return (share + z * z / (2 * n) - root) / (1 + z * z / n)
