"""Every model of the zoo: its card, its weights and its recipe say the same."""

import tomllib
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

import interpose as ip
from interpose import discovery
from interpose.errors import LoadError
from interpose.loading import cache, zoo
from interpose.loading.card_text import text
from interpose.loading.cards import MOST_BYTES, Card, cards, read
from interpose.studies._zoo.base import RECIPES, recipe

OWN = {name: card for name, card in cards().items() if card.weights is not None}
BY_HAND = [name for name, card in OWN.items() if card.made is not None and card.made.steps == 0]
own = pytest.mark.parametrize("card", OWN.values(), ids=OWN.keys())


def test_there_is_a_recipe_for_every_model_made_here_and_a_model_for_every_recipe() -> None:
    assert {entry.name for entry in discovery.entries(RECIPES)} == set(OWN)
    assert {"induction-by-hand", "duplicate-token-by-hand", "sorting-by-hand"} <= set(BY_HAND)


def test_the_zoo_is_small() -> None:
    files = [path for card in OWN.values() for path in card.folder.iterdir() if path.name != "card.toml"]
    assert max(path.stat().st_size for path in files) <= MOST_BYTES == 8 * 2**20
    assert sum(path.stat().st_size for path in files) <= 40 * 2**20


@own
def test_the_weights_are_those_of_the_card(card: Card) -> None:
    assert card.weights is not None and card.tokenizer is not None
    path = card.folder / card.weights.file
    assert (cache.sha256(path), path.stat().st_size) == (card.weights.sha256, card.weights.bytes)
    listed = {"card.toml", card.weights.file, *filter(None, [card.tokenizer.file])}
    assert {entry.name for entry in card.folder.iterdir()} == listed
    network = zoo.fresh(card.architecture, card.config)
    tensors, _ = zoo.weights(card)
    shapes = {name: tuple(weight.shape) for name, weight in network.state_dict().items()}
    assert {name: tuple(tensor.shape) for name, tensor in tensors.items()} == shapes
    assert sum(weight.numel() for weight in network.parameters()) == card.parameters


@own
def test_a_fresh_measurement_agrees_with_the_card(card: Card) -> None:
    assert card.made is not None and card.scores
    made: Any = recipe(card.name)
    if "examples" in made.__dataclass_fields__:  # fewer than the card's, so that it takes seconds
        made = replace(made, examples=64)
    found = made.evaluate(ip.load(card.name), card.made.seed + 1)
    assert set(found) == set(card.scores)
    for name, score in found.items():
        assert score.low <= score.value <= score.high
        assert score.agrees(card.scores[name]), (name, score, card.scores[name])


@own
def test_the_card_says_what_the_recipe_says(card: Card) -> None:
    draft = recipe(card.name).draft()
    for name in ("what", "architecture", "tokenizer", "task", "note", "truth", "licence"):
        assert getattr(card, name) == getattr(draft, name), name
    assert dict(card.config) == dict(draft.config)
    assert card.made is not None and card.made.data == draft.data
    assert card.made.steps == draft.steps
    assert card.what.endswith(".") and card.made.cost
    if card.task:
        assert discovery.load("interpose.tasks", card.task)


@pytest.mark.parametrize("name", BY_HAND)
def test_weights_that_are_computed_are_computed_again(name: str) -> None:
    card = OWN[name]
    assert card.made is not None
    network: Any = recipe(name).network(card.made.seed)
    stored, _ = zoo.weights(card)
    for key, weight in network.state_dict().items():
        torch.testing.assert_close(weight, stored[key], rtol=1e-6, atol=1e-6)


def test_what_a_card_cannot_say_is_refused() -> None:
    card = replace(OWN["sorting-by-hand"], config={"layers": 2, "bias": None})
    with pytest.raises(
        LoadError, match="A card cannot say None: it holds text, numbers, true, false, lists and tables"
    ):
        text(card)
    inner = {"rope": {"theta": 1e-05, "on": True}, "names": ['a "b"\n', "c"]}
    assert tomllib.loads(text(replace(card, config=inner)))["config"] == inner


@pytest.mark.parametrize("card", cards().values(), ids=cards().keys())
def test_a_card_is_written_as_it_was_read(card: Card, tmp_path: Path) -> None:
    (tmp_path / "card.toml").write_text(text(card), encoding="utf-8")
    assert vars(read(tmp_path / "card.toml")) == {**vars(card), "folder": tmp_path}
