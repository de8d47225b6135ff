"""A file of pairs as a task: its splits share no prompt, and what it cannot do is said."""

import json
from pathlib import Path
from random import Random
from typing import Any

import pytest
from hypothesis import given, strategies as st

import interpose as ip
from interpose.errors import TaskError, UsageError
from interpose.tasks import FILE_ENDINGS
from interpose.tasks._files import READERS
from interpose.tasks._own import Own, _deal, _groups
from interpose.tasks._table import Row
from interpose.tasks.base import SPLITS, write_pairs


@pytest.fixture(scope="module")
def path(model: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = ip.tasks.IOI().pairs(model, n=40)
    return write_pairs(model, made, tmp_path_factory.mktemp("files") / "mine.jsonl")


rows_of = st.lists(st.tuples(st.integers(0, 12), st.integers(0, 12)), min_size=1, max_size=30).map(
    lambda edges: [Row(f"x:{at}", f"t{one}", f"t{other}", "a", "b") for at, (one, other) in enumerate(edges)]
)


@given(rows_of, st.integers(0, 99))
def test_rows_that_share_a_prompt_stay_together_and_none_is_lost(rows: list[Row], seed: int) -> None:

    dealt = _deal(rows, Random(seed))
    assert sorted(row.place for part in dealt.values() for row in part) == sorted(row.place for row in rows)
    seen = [{text for row in dealt[split] for text in (row.clean, row.corrupt)} for split in SPLITS]
    assert not (seen[0] & seen[1] or seen[0] & seen[2] or seen[1] & seen[2])
    # Groups are no larger than they have to be: each is connected, found here by walking from its first row.
    for group in _groups(rows):
        reached, grown = {group[0].clean}, True
        while grown:
            more = {text for row in group if {row.clean, row.corrupt} & reached for text in (row.clean, row.corrupt)}
            grown, reached = more > reached, more | reached
        assert {text for row in group for text in (row.clean, row.corrupt)} == reached


def test_half_of_the_pairs_are_to_train_with_and_a_quarter_each_for_the_rest(model: Any, path: Path) -> None:
    sizes = {"train": 20, "validation": 10, "test": 10}
    drawn = {split: Own(str(path)).pairs(model, n=size, split=split) for split, size in sizes.items()}
    everything = ip.read_pairs(model, path)
    assert sorted(text for part in drawn.values() for text in part.clean) == sorted(everything.clean)
    again = Own(str(path)).pairs(model, n=20)
    assert again.clean == drawn["train"].clean != Own(str(path)).pairs(model, n=20, seed=1).clean
    assert drawn["test"].info["task"] == "mine.jsonl"
    assert (drawn["test"].info["split"], drawn["test"].info["seed"], drawn["test"].info["n"]) == ("test", 0, 10)
    rows = dict(zip(everything.clean, everything.roles["io"].tolist(), strict=True))
    assert drawn["test"].roles["io"].tolist() == [rows[text] for text in drawn["test"].clean]


def test_what_a_file_cannot_give_is_said(model: Any, path: Path, tmp_path: Path) -> None:
    own = Own(str(path))
    said = (
        r"mine.jsonl was asked for n=11 pairs of its split 'test'. Its 40 pairs are dealt into train 20, validation "
        r"10, test 10; pairs that share a prompt stay together. Write an n from 1 to 10, or add pairs."
    )
    with pytest.raises(TaskError, match=said):
        own.pairs(model, n=11, split="test")
    with pytest.raises(TaskError, match="has no split 'dev'; expected one of train, validation, test"):
        own.pairs(model, split="dev")
    with pytest.raises(TaskError, match="has no counterfactual 'abc'; expected one of corrupt"):
        own.pairs(model, n=1, counterfactual="abc")
    with pytest.raises(
        TaskError, match="mine.jsonl is a file of pairs, which has no causal model. Write a task as a c"
    ):
        own.causal_model()
    one = tmp_path / "one.jsonl"
    one.write_text(path.read_text().splitlines()[0])
    with pytest.raises(
        TaskError, match="test 0; pairs that share a prompt stay together. Add pairs with other prompts"
    ):
        Own(str(one)).pairs(model, n=1, split="test")


def test_a_bad_line_is_found_whatever_is_drawn(model: Any, path: Path, tmp_path: Path) -> None:
    spoilt = tmp_path / "spoilt.jsonl"
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    lines[7]["corrupt"] += " and"
    spoilt.write_text("".join(json.dumps(line) + "\n" for line in lines))
    for seed in range(5):
        with pytest.raises(TaskError, match="spoilt.jsonl:8: this pair does not align"):
            Own(str(spoilt)).pairs(model, n=1, seed=seed)


def test_a_task_is_named_or_is_a_file(path: Path) -> None:
    assert ip.tasks.named("ioi") == ip.tasks.IOI()
    assert ip.tasks.named(str(path)) == Own(str(path))
    assert tuple(READERS) == FILE_ENDINGS
    with pytest.raises(UsageError, match="there is no task called 'nonsense'"):
        ip.tasks.named("nonsense")
    for name in ("mine.txt", "some/ioi"):
        with pytest.raises(
            UsageError, match=f"'{name}' is no task; a file of pairs ends in .jsonl, .json, .csv, and `i"
        ):
            ip.tasks.named(name)


def test_the_counterfactuals_are_those_of_the_file(path: Path, tmp_path: Path, model: Any) -> None:
    assert list(Own(str(path)).counterfactuals) == ["corrupt"]
    table = tmp_path / "x.csv"
    table.write_text("clean,corrupted,corrupted_hard,answer,wrong\n")
    assert list(Own(str(table)).counterfactuals) == ["corrupted", "corrupted_hard"]
    with pytest.raises(TaskError, match="none.csv does not exist"):
        assert Own(str(tmp_path / "none.csv")).counterfactuals
