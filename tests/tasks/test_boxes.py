"""Entity tracking: what a draw promises, read from the text itself and from the causal model."""

import re
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import given, settings, strategies as st

import interpose.tasks.boxes as module
from interpose.errors import TaskError
from interpose.tasks.boxes import Boxes

KINDS = ("other_query", "absent_label", "swap_objects", "swap_labels", "swap_boxes", "other_objects")
SPLITS = ("train", "validation", "test")
draws = given(
    seed=st.integers(0, 10**6),
    n=st.integers(1, 25),
    boxes=st.integers(2, 7),
    split=st.sampled_from(SPLITS),
    kind=st.sampled_from(KINDS),
)
# By counterfactual: the answer of the corrupt prompt, and that of the clean prompt with one variable exchanged.
EXPECTED = {
    "other_query": ("wrong", {"box_label": "wrong", "position": "wrong", "object": "wrong"}),
    "absent_label": (None, {"box_label": None, "position": None, "object": None}),
    "swap_objects": ("wrong", {"box_label": "answer", "position": "answer", "object": "wrong"}),
    "swap_labels": ("wrong", {"box_label": "answer", "position": "wrong", "object": "wrong"}),
    "swap_boxes": ("answer", {"box_label": "answer", "position": "wrong", "object": "answer"}),
    "other_objects": ("new", {"box_label": "answer", "position": "answer", "object": "new"}),
}


@pytest.fixture(scope="module")
def model(trained: Callable[..., Any]) -> SimpleNamespace:
    words = [f" {word}" for split in SPLITS for word in (module._OBJECTS[split] + " " + module._LABELS[split]).split()]
    return SimpleNamespace(tokenizer=trained([*words * 3, "The the is in Box contains."]))


def read(prompt: str, split: str) -> tuple[dict[str, str], str]:
    """What is in each box, in order, and which is asked for, from the text alone."""
    objects = set(module._OBJECTS[split].split())
    words = re.findall(r"\w+", prompt)
    letters = [words[at + 1] for at, word in enumerate(words) if word == "Box"]
    things = [word for word in words if word in objects]
    return dict(zip(letters[:-1], things, strict=True)), letters[-1]


@settings(max_examples=30)
@draws
def test_prompts_answers_and_the_causal_model_agree(
    model: Any, seed: int, n: int, boxes: int, split: str, kind: str
) -> None:
    pairs = Boxes(boxes=boxes).pairs(model, n=n, seed=seed, split=split, counterfactual=kind)
    causal = Boxes(boxes=boxes).causal_model()
    assert len(set(pairs.clean)) == n
    for row, (clean, corrupt) in enumerate(zip(pairs.clean, pairs.corrupt, strict=True)):
        (inside, asked), (changed, now) = read(clean, split), read(corrupt, split)
        assert len(inside) == len(changed) == boxes
        said = {
            name: model.tokenizer.decode([ids[row]])[1:]
            for name, ids in (("answer", pairs.answers), ("wrong", pairs.wrong))
        }
        assert said["answer"] == inside[asked]
        assert said["wrong"] in set(inside.values()) - {inside[asked]}
        base, source = pairs.clean_inputs[row], pairs.corrupt_inputs[row]
        assert causal.run(base)["object"] == said["answer"]
        found = changed.get(now)
        assert causal.run(source)["object"] == found
        outcome, exchanged = EXPECTED[kind]
        assert found == said.get(outcome or "", found)
        assert (found is None) is (outcome is None)
        if outcome == "new":
            assert not set(changed.values()) & set(inside.values())
        for variable, expected in exchanged.items():
            after = causal.run_interchange(base, {variable: source})["object"]
            assert after == (said.get(expected, found) if expected else None)
        differing = {"other_query": 1, "absent_label": 1, "swap_boxes": 4, "other_objects": boxes}.get(kind, 2)
        assert int(pairs.differs[row].sum()) == differing


def test_roles_stand_at_their_words(model: Any) -> None:
    pairs = Boxes(boxes=4).pairs(model, n=24)
    rows = torch.arange(24)
    spelled = {
        role: [model.tokenizer.decode([token]).strip() for token in pairs.clean_tokens[rows, where]]
        for role, where in pairs.roles.items()
    }
    for row, clean in enumerate(pairs.clean):
        inside, asked = read(clean, "train")
        (other,) = (label for label in inside if inside[label] == model.tokenizer.decode([pairs.wrong[row]])[1:])
        assert (spelled["label"][row], spelled["query"][row], spelled["object"][row]) == (asked, asked, inside[asked])
        assert (spelled["wrong_label"][row], spelled["wrong_object"][row]) == (other, inside[other])
    assert bool((pairs.roles["object"] < pairs.roles["label"]).all())
    assert bool((pairs.roles["label"] < pairs.roles["query"]).all())
    assert set(pairs.roles) == {"object", "label", "wrong_object", "wrong_label", "query", "end"}


def test_places_are_balanced_and_clean_prompts_are_the_same_for_every_counterfactual(model: Any) -> None:
    drawn = [Boxes(boxes=3).pairs(model, n=36, counterfactual=kind) for kind in KINDS]
    assert len({pairs.clean for pairs in drawn}) == 1
    places = []
    for clean in drawn[0].clean:
        inside, asked = read(clean, "train")
        places.append(list(inside).index(asked))
    assert [places.count(place) for place in range(3)] == [12] * 3
    assert Boxes(boxes=3).pairs(model, n=36, seed=1).clean != drawn[0].clean == Boxes(boxes=3).pairs(model, n=36).clean
    assert drawn[0].info["boxes"] == 3


def test_splits_share_no_material() -> None:
    for material in (module._OBJECTS, module._LABELS):
        words = [word for split in SPLITS for word in material[split].split()]
        assert len(words) == len(set(words))
    frames = [part for split in SPLITS for frame in module._FRAMES[split] for part in (frame[0], frame[2])]
    assert len(frames) == len(set(frames))
    objects = {word for split in SPLITS for word in module._OBJECTS[split].split()}
    assert not objects & set(re.findall(r"\w+", " ".join(frames)))


def test_what_cannot_be_drawn_is_refused(model: Any, trained: Callable[..., Any]) -> None:
    for boxes in (1, 8):
        with pytest.raises(TaskError, match=rf"Boxes\(boxes={boxes}\) is not possible; expected a number from 2 to 7"):
            Boxes(boxes=boxes)
    few = SimpleNamespace(tokenizer=trained([" apple map ring"] * 9, size=400))
    with pytest.raises(
        TaskError, match=r"Boxes needs objects that are one token .* has 3 of 30 in split 'train'; expec"
    ):
        Boxes(boxes=2).pairs(few)
    objects = SimpleNamespace(tokenizer=trained([f" {module._OBJECTS['train']}"] * 9 + [" B D"] * 9, size=600))
    with pytest.raises(TaskError, match=r"Boxes needs letters that are one token .* has 2 of 10 in .* at least 3"):
        Boxes(boxes=2).pairs(objects)
    most = 3 * 2 * (30 * 29) * (10 * 9)
    with pytest.raises(TaskError, match=f"Split 'train' has {most} distinct prompts"):
        Boxes(boxes=2).pairs(model, n=most + 1)


def test_the_description_explains_every_counterfactual() -> None:
    assert list(Boxes().counterfactuals) == list(KINDS)
    assert all(f"`{kind}`" in Boxes().description for kind in KINDS)
