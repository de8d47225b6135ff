"""A feed as JSON text and tensors beside it, and back."""

import json
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from interpose.errors import GraphError
from interpose.graph.feed import Batch, Feed, Generation
from interpose.wire.graphs import LENGTH, WORLDS, opened
from interpose.wire.values import first_fault, from_json, to_json

VERSION = 1


class _Batch(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)
    args: list[Any]
    kwargs: dict[str, Any]
    generation: Annotated[Generation | None, BeforeValidator(from_json)] = None


class _Message(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)
    interpose: Literal["feed"]
    version: int
    worlds: Annotated[dict[str, _Batch], Field(max_length=WORLDS)]
    tensors: dict[str, Any]


def encode_feed(feed: Feed) -> tuple[str, dict[str, Any]]:
    """A feed as text, and the tensors that the text speaks of.

    Args:
        feed: any feed of tensors, numbers, text, and tuples, lists and dictionaries of them.

    Returns:
        JSON, and tensors by the names that it gives them.

    Raises:
        GraphError: something in the feed cannot be sent.
    """
    held: dict[str, Any] = {}
    worlds = {
        name: {
            "args": [to_json(value, held) for value in batch.args],
            "kwargs": {key: to_json(value, held) for key, value in batch.kwargs.items()},
            "generation": to_json(batch.generation),
        }
        for name, batch in feed.worlds.items()
    }
    tensors = {name: to_json(value, held) for name, value in feed.tensors.items()}
    message = {"interpose": "feed", "version": VERSION, "worlds": worlds, "tensors": tensors}
    return json.dumps(message, allow_nan=False, separators=(",", ":")), held


def decode_feed(text: str, tensors: Mapping[str, Any]) -> Feed:
    """The feed that a text and tensors say; `encode_feed` backwards.

    Args:
        text: what `encode_feed` gave, from anywhere.
        tensors: the tensors that came beside it.

    Returns:
        the feed.

    Raises:
        GraphError: it is no such text, or a tensor is missing.
    """
    message, held = opened(text, "feed", VERSION, LENGTH), dict(tensors)
    try:
        checked = _Message.model_validate(message)
    except ValidationError as error:
        raise GraphError(f"This is no feed that encode_feed() wrote: {first_fault(error)}.") from error
    worlds = {
        name: Batch(
            tuple(from_json(value, held) for value in batch.args),
            {key: from_json(value, held) for key, value in batch.kwargs.items()},
            batch.generation,
        )
        for name, batch in checked.worlds.items()
    }
    return Feed(worlds, {name: from_json(value, held) for name, value in checked.tensors.items()})
