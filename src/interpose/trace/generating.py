"""From the settings of a generation, as a user writes them, to what the engine is given; and from tokens to text."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch

from interpose.errors import GraphError, TraceError
from interpose.graph.feed import Batch, Generation
from interpose.trace.lines import user_line
from interpose.trace.tokens import make_batch, padded

if TYPE_CHECKING:
    from interpose.trace.model import Model

SETTINGS = ("max_new_tokens", "temperature", "top_k", "top_p", "seed", "stop")
_WHOLE = ("max_new_tokens", "top_k", "seed")


def split(model: "Model", kwargs: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """The settings of a generation among some arguments, and the other arguments.

    A module without a table may have arguments of these names: there, `max_new_tokens` tells a generation.
    """
    theirs = model.family is None and kwargs.get("max_new_tokens") is None
    if theirs or kwargs.keys().isdisjoint(SETTINGS):
        return {}, dict(kwargs)
    settings = {name: value for name, value in kwargs.items() if name in SETTINGS}
    return settings, {name: value for name, value in kwargs.items() if name not in settings}


def generation(model: "Model", settings: Mapping[str, Any]) -> Generation:
    """Check the settings and fill in what the model says of itself.

    Args:
        model: the model that will generate.
        settings: those that the user gave, `stop` as token ids, texts of one token, or None for the model's own.

    Raises:
        TraceError: a setting is missing or out of range.
    """
    if settings.get("max_new_tokens") is None:
        raise TraceError(f"{user_line()}: {', '.join(settings)} belongs to a generation; give max_new_tokens=... too.")
    given = {name: value for name, value in settings.items() if name != "stop" and value is not None}
    for name, value in given.items():
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise TraceError(f"{user_line()}: {name} takes a number, not {value!r}.")
        if name in _WHOLE and not isinstance(value, int):
            raise TraceError(f"{user_line()}: {name} must be a whole number, not {value!r}.")
    ends = _ends(model, settings.get("stop"))
    pads = (getattr(model.tokenizer, "pad_token_id", None), *ends, 0)
    try:
        return Generation(**given, stop=ends, pad=next(pad for pad in pads if pad is not None), start=_start(model))
    except GraphError as error:
        raise TraceError(f"{user_line()}: {error}") from None


def _start(model: "Model") -> int | None:
    """The token that a decoder begins with, where a network has an encoder beside it."""
    if not getattr(model.config, "is_encoder_decoder", False):
        return None
    own = getattr(model.network, "generation_config", None)
    named = ((own, "decoder_start_token_id"), (model.config, "decoder_start_token_id"), (own, "bos_token_id"))
    start = next((found for holder, name in named if (found := getattr(holder, name, None)) is not None), None)
    if start is None:
        raise TraceError(
            f"{user_line()}: {model.info.name} does not say with which token its decoder begins. Write "
            "model.network.generation_config.decoder_start_token_id = 0 (T5's is that of its padding)."
        )
    return start


def _ends(model: "Model", wish: Any) -> tuple[int, ...]:
    if wish is None:
        holders = (getattr(model.network, "generation_config", None), model.tokenizer, model.config)
        wish = next((found for holder in holders if (found := getattr(holder, "eos_token_id", None)) is not None), ())
    wish = [wish] if isinstance(wish, int | str) else list(wish)
    return tuple(item if isinstance(item, int) else _token(model, item) for item in wish)


def _token(model: "Model", text: Any) -> int:
    ids = _plain_tokens(model.tokenizer, text) if isinstance(text, str) and model.tokenizer is not None else []
    if len(ids) != 1:
        raise TraceError(
            f"{user_line()}: stop takes token ids or texts of one token each; {text!r} has {len(ids)} tokens here."
        )
    return ids[0]


def _plain_tokens(tokenizer: Any, text: str) -> list[int]:
    """A text's tokens without those that stand around every text, where the tokenizer can leave them out."""
    try:
        return tokenizer(text, add_special_tokens=False)["input_ids"]
    except TypeError:  # it takes nothing but a text
        return tokenizer(text)["input_ids"]


def world_batch(model: "Model", inputs: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Batch:
    """What a world is given: a forward pass, or a generation where one of its settings is among the arguments.

    Args:
        model: the model that will be called.
        inputs: prompts, messages, tokens, or what the module is called with.
        kwargs: settings of a generation, and further arguments of the module.
    """
    settings, others = split(model, kwargs)
    only = inputs[0] if len(inputs) == 1 and isinstance(inputs[0], list) else None
    if only and is_chat(only):
        inputs = (chat(model, [only]),)
    elif only and all(map(is_chat, only)):
        inputs = (chat(model, only),)
    made = make_batch(model, inputs, others, generates=bool(settings))
    return replace(made, generation=generation(model, settings)) if settings else made


def is_chat(value: Any) -> bool:
    """Whether a value is a conversation: a list of messages with a role and a content."""
    return (
        isinstance(value, Sequence)
        and bool(value)
        and not isinstance(value, str)
        and all(isinstance(message, Mapping) and {"role", "content"} <= set(message) for message in value)
    )


def chat(model: "Model", conversations: Sequence[Any]) -> Batch:
    """Conversations in the words of the tokenizer's chat template, ready for the assistant's turn, padded on the left.

    Args:
        model: the model.
        conversations: lists of messages `{"role": ..., "content": ...}`.

    Raises:
        TraceError: there is no tokenizer, or it has no chat template.
    """
    if not getattr(model.tokenizer, "chat_template", None):
        raise TraceError(
            f"{user_line()}: {model.info.name} has no chat template, so messages have no meaning for it. Give the "
            "prompt as text."
        )
    # The template writes the special tokens itself.
    texts = [
        model.tokenizer.apply_chat_template(list(messages), tokenize=False, add_generation_prompt=True)
        for messages in conversations
    ]
    rows = [model.tokenizer(text, add_special_tokens=False)["input_ids"] for text in texts]
    return padded(rows, model.tokenizer)


def texts_of(model: "Model", tokens: torch.Tensor, ends: Sequence[int]) -> list[str]:
    """The text of each row of new tokens, up to the token that ended it.

    Raises:
        TraceError: the model has no tokenizer.
    """
    if model.tokenizer is None:
        raise TraceError(
            f"{user_line()}: {model.info.name} has no tokenizer, so there is no text; t.tokens has the ids."
        )
    found = []
    for row in tokens.tolist():
        until = next((i for i, token in enumerate(row) if token in ends), len(row))
        found.append(model.tokenizer.decode(row[:until], skip_special_tokens=True))
    return found


def the_generation(batches: Mapping[str, Batch], saved: Mapping[str, Any]) -> str:
    """The name of the only world of a block that is a generation.

    Raises:
        TraceError: there is none, or several, or it has not run.
    """
    names = [name for name, batch in batches.items() if batch.generation is not None]
    if len(names) != 1 or f"{names[0]}.tokens" not in saved:
        said = f"it has {len(names)} generations" if len(names) != 1 else "it has not run"
        raise TraceError(
            f"{user_line()}: this block has no one new text: {said}. Write model.generate(prompt), or take "
            't.saved["name.tokens"].'
        )
    return names[0]


def check_save(name: str, taken: Collection[str], batches: Mapping[str, Batch]) -> None:
    """Check that a value may be saved under a name.

    Args:
        name: the name.
        taken: the names of the values that the block saves.
        batches: what the worlds of the block are given; the tokens of a generation are saved with it.

    Raises:
        TraceError: the name is taken.
    """
    if name in taken:
        raise TraceError(f"{user_line()}: a value is already saved as {name!r} in this block. Choose another name.")
    if any(batch.generation is not None and name == f"{world}.tokens" for world, batch in batches.items()):
        raise TraceError(
            f"{user_line()}: {name!r} is where this block keeps the tokens of its generation. Choose another name."
        )
