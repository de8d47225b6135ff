"""Entity tracking, the task of Prakash et al. 2024 (https://arxiv.org/abs/2402.14811), in words of our own."""

from collections.abc import Mapping
from dataclasses import dataclass
from math import perm
from types import MappingProxyType
from typing import NamedTuple

from interpose.errors import TaskError
from interpose.tasks._align import tokenizer_of
from interpose.tasks._drawing import Example, request
from interpose.tasks._roles import Filled, fill
from interpose.tasks._words import arranged, plain_roles, single_of_split
from interpose.tasks.base import CausalModel, Pairs, Task, Tokenized, Variable

_KINDS = MappingProxyType(
    {
        "other_query": "another box of the prompt is asked for, so the right object becomes the wrong one (1 token "
        "differs)",
        "absent_label": "a box is asked for that is not there, so nothing says what is in it (1 token differs)",
        "swap_objects": "the two objects change boxes, so the right object becomes the wrong one (2 tokens differ)",
        "swap_labels": "the two boxes change letters, so the right object becomes the wrong one (2 tokens differ)",
        "swap_boxes": "the two boxes change places with what is in them; the answer stays (4 tokens differ)",
        "other_objects": "all objects become others, so neither answer is in the prompt (one token a box differs)",
    }
)
_FRAMES = MappingProxyType(  # how the first box is told of, each further one, and what is asked
    {
        "train": (
            ("The {} is in Box {}", ", the {} is in Box {}", ". Box {query} contains the"),
            ("Someone put the {} into Box {}", ", the {} into Box {}", ". Now Box {query} holds the"),
            ("There is the {} in Box {}", " and the {} in Box {}", ". So inside Box {query} there is the"),
        ),
        "validation": (
            ("We keep the {} in Box {}", ", the {} in Box {}", ". What we keep in Box {query} is the"),
            ("Pack the {} in Box {}", ", then the {} in Box {}", ". This means that Box {query} has the"),
        ),
        "test": (
            ("You will find the {} in Box {}", ", the {} in Box {}", ". If you open Box {query}, you see the"),
            ("The {} was left in Box {}", ", the {} was left in Box {}", ". They look into Box {query} and see the"),
        ),
    }
)
_OBJECTS = MappingProxyType(
    {
        "train": "apple computer map ring book hat key lamp coin bottle camera drum shirt plant letter bell rope clock "
        "cake knife stone mirror guitar brush wheel flower pen candle radio sword",
        "validation": "cup phone shoe watch magazine egg toy glass hammer fan bread card needle brick jar "
        "boot globe nail",
        "test": "picture ticket bag leaf ball machine paper bone gift engine newspaper tea fish belt pot "
        "crown mask wire",
    }
)
_LABELS = MappingProxyType({"train": "B D F H J L N P R T", "validation": "C G K M Q S V X", "test": "A E I O U W Y Z"})
_MOST_BOXES = 7


class _Scene(NamedTuple):
    """One prompt: how it is told, what is in which box, and which box is asked for."""

    frame: tuple[str, str, str]
    objects: tuple[str, ...]
    labels: tuple[str, ...]
    query: str


@dataclass(frozen=True)
class Boxes(Task):
    """Entity tracking: what is in the box that is asked for.

    "The apple is in Box F, the map is in Box B, the ring is in Box T. Box B contains the" should go on with " map". A
    model has to find the box by its letter and to say what was put there. The answer is that object and the wrong
    answer is the object of another box of the prompt. Each place of the box is asked for equally often.

    Counterfactuals, always of the same sentences; "the two boxes" are the right one and that of the wrong answer:

    - `other_query` (the default): the other of the two boxes is asked for.
    - `absent_label`: a box is asked for that is not there. Nothing says what is in it.
    - `swap_objects`: the two objects change boxes. The answer changes, the place that is asked for stays.
    - `swap_labels`: the two boxes change letters. The answer changes and so does the place.
    - `swap_boxes`: the two boxes change places with what is in them. The answer stays, its place changes.
    - `other_objects`: all objects become others. Neither answer is in the prompt.

    The splits `train`, `validation` and `test` share neither a sentence, nor an object, nor a letter.

    Attributes:
        boxes: how many boxes a prompt has, 2 to 7.
    """

    boxes: int = 7

    def __post_init__(self) -> None:
        if not 2 <= self.boxes <= _MOST_BOXES:
            raise TaskError(f"Boxes(boxes={self.boxes!r}) is not possible; expected a number from 2 to {_MOST_BOXES}.")

    @property
    def counterfactuals(self) -> Mapping[str, str]:
        """The ways in which a prompt can be changed, each with what it does; the first is the default."""
        return _KINDS

    def pairs(
        self, model: Tokenized, n: int = 64, seed: int = 0, split: str = "train", counterfactual: str | None = None
    ) -> Pairs:
        """Draw counterfactual pairs; see `Task.pairs`.

        Returns:
            The pairs. Their `clean_inputs` and `corrupt_inputs` are inputs of `causal_model`. Their roles are `object`
            and `label`, where the box that is asked for is told of; `wrong_object` and `wrong_label`, the same of the
            other box; `query`, the letter that is asked for; and `end`.

        Raises:
            TaskError: if a name is unknown, n is out of range, or the tokenizer has too few single tokens.
        """
        asked = request(self, n, seed, split, counterfactual)
        tokenizer = tokenizer_of(model)
        # The objects of `other_objects` are none of the prompt's; the letter of `absent_label` is one more.
        objects = single_of_split(tokenizer, asked, "objects", _OBJECTS, 2 * self.boxes)
        labels = single_of_split(tokenizer, asked, "letters", _LABELS, self.boxes + 1)
        wrongs, spare, order = asked.random("wrong"), asked.random("spare"), asked.random("clean")
        cells = [(frame, place) for frame in _FRAMES[split] for place in range(self.boxes)]
        order.shuffle(cells)
        each = perm(len(objects), self.boxes) * perm(len(labels), self.boxes)
        examples = []
        for (frame, place), number in asked.draw(cells, each, order):
            told, number = arranged(objects, self.boxes, number)
            lettered, _ = arranged(labels, self.boxes, number)
            clean = _Scene(frame, told, lettered, lettered[place])
            other = wrongs.choice([at for at in range(self.boxes) if at != place])
            absent = spare.choice([label for label in labels if label not in lettered])
            others = tuple(spare.sample([word for word in objects if word not in told], self.boxes))
            changed = _changed(asked.counterfactual, clean, (place, other), absent, others)
            examples.append(
                Example(
                    clean=_roles(_filled(clean), place, other),
                    corrupt=_filled(changed).text,
                    answer=f" {told[place]}",
                    wrong=f" {told[other]}",
                    clean_inputs=_inputs(clean),
                    corrupt_inputs=_inputs(changed),
                )
            )
        return plain_roles(asked.pairs(model, examples), examples[0].clean.words.keys())

    def causal_model(self) -> CausalModel:
        """The letter that is asked for, the place of the box with that letter, and the object there.

        Inputs are `object0`, `object1`, ... and `label0`, `label1`, ... in the order in which the boxes are told of,
        and `query`. `box_label` is the letter that is asked for, `position` the place of its box (None where there is
        none), `object` what is in it. Each can be taken from another prompt: a `box_label` then names a box of this
        prompt, a `position` points at whatever box stands there in this one, and an `object` is the other prompt's
        own. These are the three desiderata of Prakash et al. 2024 (https://arxiv.org/abs/2402.14811).

        Returns:
            The model; its output is `object`.
        """
        objects = tuple(f"object{place}" for place in range(self.boxes))
        labels = tuple(f"label{place}" for place in range(self.boxes))
        return CausalModel(
            inputs=(*objects, *labels, "query"),
            variables={
                "box_label": Variable(("query",), lambda query: query, "the letter that is asked for"),
                "position": Variable(("box_label", *labels), _position, "the place of the box with that letter"),
                "object": Variable(("position", *objects), _object, "what is in the box at that place"),
            },
            output="object",
        )


def _swapped(items: tuple[str, ...], places: tuple[int, int]) -> tuple[str, ...]:
    order = list(items)
    here, there = places
    order[here], order[there] = order[there], order[here]
    return tuple(order)


def _changed(kind: str, scene: _Scene, places: tuple[int, int], absent: str, others: tuple[str, ...]) -> _Scene:
    objects, labels = _swapped(scene.objects, places), _swapped(scene.labels, places)
    return {
        "other_query": scene._replace(query=scene.labels[places[1]]),
        "absent_label": scene._replace(query=absent),
        "swap_objects": scene._replace(objects=objects),
        "swap_labels": scene._replace(labels=labels),
        "swap_boxes": scene._replace(objects=objects, labels=labels),
        "other_objects": scene._replace(objects=others),
    }[kind]


def _filled(scene: _Scene) -> Filled:
    first, further, question = scene.frame
    told = [
        (further if place else first).format(f"{{object{place}}}", f"{{label{place}}}")
        for place in range(len(scene.objects))
    ]
    return fill("".join([*told, question]), **_inputs(scene))


def _roles(prompt: Filled, place: int, other: int) -> Filled:
    """The prompt with its words called by what they are for the answer."""
    words = prompt.words
    return Filled(
        prompt.text,
        {
            "object": words[f"object{place}"],
            "label": words[f"label{place}"],
            "wrong_object": words[f"object{other}"],
            "wrong_label": words[f"label{other}"],
            "query": words["query"],
        },
    )


def _inputs(scene: _Scene) -> dict[str, str]:
    """A prompt as the causal model sees it."""
    objects = {f"object{place}": thing for place, thing in enumerate(scene.objects)}
    return {**objects, **{f"label{place}": label for place, label in enumerate(scene.labels)}, "query": scene.query}


def _position(box_label: str, *labels: str) -> int | None:
    return labels.index(box_label) if box_label in labels else None


def _object(position: int | None, *objects: str) -> str | None:
    return None if position is None else objects[position]
