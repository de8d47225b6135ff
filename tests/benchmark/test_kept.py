from pathlib import Path

import pytest
import torch

from interpose.benchmark.kept import Kept
from interpose.search import Scores

IDENTITY = {"task": "ioi", "seed": 0}


@pytest.fixture
def kept(tmp_path: Path) -> Kept:
    return Kept(tmp_path / "out", IDENTITY)


def make() -> Scores:
    return Scores(torch.tensor([1.0, -2.0]), ("a0.h0", "a0.h1"), {"task": "ioi"})


def refuse() -> Scores:
    raise AssertionError("made again")


def test_measurements_are_there_for_the_next_run(kept: Kept, tmp_path: Path) -> None:
    kept["abc"] = torch.tensor([1.0, 2.5], dtype=torch.float64)
    kept["def"] = torch.arange(8.0)[::2]
    again = Kept(tmp_path / "out", IDENTITY)
    assert sorted(again) == ["abc", "def"]
    assert len(again) == 2
    assert "abc" in again
    assert "xyz" not in again
    assert torch.equal(again["abc"], torch.tensor([1.0, 2.5], dtype=torch.float64))
    assert torch.equal(again["def"], torch.tensor([0.0, 2.0, 4.0, 6.0]))
    with pytest.raises(KeyError, match="xyz"):
        again["xyz"]
    del again["abc"]
    assert list(again) == ["def"]


def test_scores_are_made_once(kept: Kept, tmp_path: Path) -> None:
    assert torch.equal(kept.scores(make).values, make().values)
    again = Kept(tmp_path / "out", IDENTITY).scores(refuse)
    assert torch.equal(again.values, make().values)
    assert again.meta["task"] == "ioi"
    assert len(kept) == 0  # scores are no circuit


def test_another_job_has_measurements_of_its_own(kept: Kept, tmp_path: Path) -> None:
    kept["abc"] = torch.zeros(1)
    kept.scores(make)
    other = Kept(tmp_path / "out", {**IDENTITY, "seed": 1})
    assert len(other) == 0
    with pytest.raises(AssertionError, match="made again"):
        other.scores(refuse)


def test_the_order_of_an_identity_means_nothing(kept: Kept, tmp_path: Path) -> None:
    kept["abc"] = torch.zeros(1)
    assert "abc" in Kept(tmp_path / "out", {"seed": 0, "task": "ioi"})


def test_what_was_cut_off_in_the_middle_is_as_if_it_were_not_there(kept: Kept, tmp_path: Path) -> None:
    kept["abc"] = torch.zeros(3)
    kept.scores(make)
    for path in (tmp_path / "out").rglob("*.safetensors"):
        path.write_bytes(path.read_bytes()[:-1])
    kept = Kept(tmp_path / "out", IDENTITY)
    assert "abc" not in kept
    assert torch.equal(kept.scores(make).values, make().values)
    kept["abc"] = torch.ones(3)
    assert torch.equal(kept["abc"], torch.ones(3))


def test_when_the_job_is_done_nothing_is_left(kept: Kept, tmp_path: Path) -> None:
    kept["abc"] = torch.zeros(1)
    kept.scores(make)
    kept.clear()
    assert list((tmp_path / "out").iterdir()) == []


def test_jobs_that_run_the_same_circuits_share_what_they_measured(tmp_path: Path) -> None:
    shared: dict[str, torch.Tensor] = {}
    first, second = (Kept(tmp_path, {"method": name}, shared) for name in ("eap", "random"))
    first["abc"] = torch.ones(2)
    assert torch.equal(second["abc"], torch.ones(2))
    first.clear()
    assert "abc" in second
    assert not second.resumed and list(second) == []
    assert "abc" not in Kept(tmp_path, {"method": "random"})
    del second["abc"]
    assert "abc" not in second
