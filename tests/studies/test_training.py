"""The loop that trains models of the zoo: cut off anywhere, it goes on and ends with the same bytes."""

import importlib.util
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from torch.nn.functional import cross_entropy

import interpose as ip
from interpose.errors import InterposeError, LoadError
from interpose.loading.cards import Truth, read
from interpose.search.progress import watching
from interpose.studies._zoo._making import Order, make
from interpose.studies._zoo.base import recipe

PROGRAM = Path(__file__).with_name("tiny_recipe.py")


@pytest.fixture(scope="module")
def tiny() -> ModuleType:
    """The program as a module."""
    spec = importlib.util.spec_from_file_location("tiny_recipe", PROGRAM)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def whole(tiny: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run that nothing has cut off."""
    out = tmp_path_factory.mktemp("whole")
    tiny.follow(out)
    return out


def test_a_killed_run_goes_on_and_ends_with_the_same_bytes(tiny: ModuleType, whole: Path, tmp_path: Path) -> None:
    killed = subprocess.run([sys.executable, PROGRAM, tmp_path, "5"], capture_output=True, text=True, check=False)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint.safetensors"]
    seen: list[tuple[int, int]] = []
    with watching(lambda what, done, total: seen.append((done, total))):
        make(tiny.Tiny(), Order("tiny", tmp_path))
    assert seen[0] == (0, tiny.STEPS - 5)  # it began behind the checkpoint
    assert seen[-1] == (tiny.STEPS - 5, tiny.STEPS - 5)
    assert (tmp_path / "weights.safetensors").read_bytes() == (whole / "weights.safetensors").read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["card.toml", "weights.safetensors"]


def test_the_card_says_what_was_done_and_the_folder_loads(tiny: ModuleType, whole: Path) -> None:
    card = read(whole / "card.toml")
    assert card.made is not None and (card.made.seed, card.made.steps) == (0, tiny.STEPS)
    assert card.scores["right"].value == 1
    model = ip.load(whole)
    assert (model.info.source, model.info.weights_hash) == ("zoo", card.weights.sha256 if card.weights else "")
    again = tiny.Tiny().evaluate(model, 1)
    assert again["right"].agrees(card.scores["right"])
    assert sum(weight.numel() for weight in model.network.parameters()) == card.parameters


def test_training_learns_and_another_seed_gives_other_weights(tiny: ModuleType, whole: Path, tmp_path: Path) -> None:
    tiny.follow(tmp_path / "first", steps=0)
    tiny.follow(tmp_path / "other", seed=1)

    def loss(folder: Path) -> float:
        network: Any = ip.load(folder).network
        tokens = 3 + (torch.arange(9)[:, None] + torch.arange(8)) % 9
        logits = network(input_ids=tokens).logits[:, :-1]
        return float(cross_entropy(logits.flatten(0, 1), tokens[:, 1:].flatten()))

    assert loss(whole) < 0.6 * loss(tmp_path / "first")
    assert (tmp_path / "other" / "weights.safetensors").read_bytes() != (whole / "weights.safetensors").read_bytes()


def test_the_programs_own_random_numbers_go_on(tiny: ModuleType, tmp_path: Path) -> None:
    torch.manual_seed(3)
    expected = torch.rand(3)
    torch.manual_seed(3)
    tiny.follow(tmp_path, steps=2)
    assert torch.equal(torch.rand(3), expected)


def test_a_checkpoint_of_another_run_is_refused(tiny: ModuleType, tmp_path: Path) -> None:
    class Stop(Exception):
        """Stands for a process that ends."""

    def stop(what: str, done: int, total: int) -> None:
        if done == 3:
            raise Stop

    with pytest.raises(Stop), watching(stop):
        make(tiny.Tiny(), Order("tiny", tmp_path, every=0.0))
    with pytest.raises(InterposeError) as raised:
        make(tiny.Tiny(), Order("tiny", tmp_path, seed=1))
    message = str(raised.value)
    assert "is of a run with name=tiny, seed=0, steps=12, and this one has name=tiny, seed=1, steps=12." in message
    assert message.endswith("name another folder with --out, or remove the file to begin anew.")


def test_a_loss_that_is_no_number_stops_the_run(tiny: ModuleType, tmp_path: Path) -> None:
    class Broken(tiny.Tiny):
        def training(self, model: ip.Model, steps: int) -> Any:
            stock = super().training(model, steps)
            return replace(stock, loss=lambda step, random: stock.loss(step, random) * (torch.nan if step == 2 else 1))

    with pytest.raises(InterposeError, match="The loss at step 2 is nan. Lower the learning rate of the recipe"):
        make(Broken(), Order("tiny", tmp_path))
    assert not (tmp_path / "card.toml").exists()


def test_a_truth_without_edges_is_refused_before_anything_is_trained(tiny: ModuleType, tmp_path: Path) -> None:
    class Empty(tiny.Tiny):
        def draft(self) -> Any:
            return replace(super().draft(), truth=Truth((), "nothing is known"))

        def network(self, seed: int) -> Any:
            raise AssertionError("the network was made")

    with pytest.raises(LoadError, match=r"\[truth\] edges is empty; expected the names of the circuit's edges"):
        make(Empty(), Order("tiny", tmp_path / "out"))
    assert not (tmp_path / "out").exists()


def test_weights_that_are_computed_take_no_steps(tmp_path: Path) -> None:
    with pytest.raises(InterposeError, match="The weights of x are computed, not trained: leave --steps out"):
        make(recipe("sorting-by-hand"), Order("x", tmp_path, steps=3))


def test_weights_too_large_for_the_zoo_are_refused(
    tiny: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("interpose.studies._zoo._making.MOST_BYTES", 1000)
    with pytest.raises(
        InterposeError, match=r"The weights of tiny take [\d,]+ bytes; a model of the zoo has at most 1,000"
    ):
        tiny.follow(tmp_path, steps=1)


@pytest.mark.gpu
def test_on_a_gpu_the_scores_are_those_of_the_card(tiny: ModuleType, whole: Path, tmp_path: Path) -> None:
    card = tiny.follow(tmp_path, device="cuda")
    assert card.scores["right"].agrees(read(whole / "card.toml").scores["right"])
