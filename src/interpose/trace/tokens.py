"""From what a user passes to what a network is called with."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch

from interpose.errors import TraceError
from interpose.graph import Batch
from interpose.trace.lines import user_line
from interpose.trace.prompts import Tokens


def tokens(tokenizer: Any, prompts: str | Sequence[str]) -> Tokens:
    """Tokenise prompts one by one and pad them on the left; the tokenizer object is not changed.

    Args:
        tokenizer: a tokenizer of the transformers library.
        prompts: one or several texts.

    Returns:
        the tokens [prompt, position].
    """
    texts = [prompts] if isinstance(prompts, str) else list(prompts)
    if not texts:
        raise TraceError(f"{user_line()}: there is no prompt to run on; give at least one.")
    rows = [tokenizer(text)["input_ids"] for text in texts]
    if not all(rows):
        raise TraceError(f"{user_line()}: an empty prompt has no tokens; write at least one character.")
    return Tokens(*pad(rows, tokenizer), tuple(texts), tokenizer)


def padded(rows: Sequence[Sequence[int]], tokenizer: Any = None) -> Batch:
    """Token ids of several prompts as one batch, padded on the left; see `pad`."""
    return Batch.of_tokens(*pad(rows, tokenizer))


def pad(rows: Sequence[Sequence[int]], tokenizer: Any = None) -> tuple[torch.Tensor, torch.Tensor]:
    """Token ids of several prompts in one tensor, padded on the left.

    Args:
        rows: the ids of each prompt, none of them empty.
        tokenizer: knows which token is for padding; without one it is 0, which nothing looks at.

    Returns:
        the ids, and true where a token is real, each [prompt, position].
    """
    length = max(len(row) for row in rows)
    candidates = (getattr(tokenizer, "pad_token_id", None), getattr(tokenizer, "eos_token_id", None), 0)
    filler = next(token for token in candidates if token is not None)
    ids = torch.tensor([[filler] * (length - len(row)) + list(row) for row in rows])
    return ids, torch.tensor([[False] * (length - len(row)) + [True] * len(row) for row in rows])


def make_batch(model: Any, inputs: tuple[Any, ...], kwargs: Mapping[str, Any], generates: bool = False) -> Batch:
    """A batch from prompts, tokens, token ids, a batch, or a module's own arguments.

    Args:
        model: the model that will be called.
        inputs: what was given by position.
        kwargs: what was given by name.
        generates: a network with an encoder then begins its second text by itself.

    Returns:
        the batch.
    """
    only = inputs[0] if len(inputs) == 1 else None
    if model.family is not None and model.family.reads == "pixels" and not isinstance(only, Mapping | Batch):
        return _image_batch(model, inputs, _asked(model, kwargs))
    two_texts = model.family is not None and model.family.encoder is not None and not generates
    if two_texts and not isinstance(only, Mapping | Batch):
        return _two_texts_batch(model, inputs, _asked(model, kwargs))
    if isinstance(only, str) or (isinstance(only, list | tuple) and only and all(isinstance(t, str) for t in only)):
        only = model.tokens(only)
    if isinstance(only, Tokens):
        only = only.batch
    if isinstance(only, Batch):
        # Its mask may have been changed since it was made.
        return replace(only, kwargs={**only.kwargs, **_asked(model, kwargs)}, whole=False)
    if isinstance(only, Mapping):
        return make_batch(model, (), {**only, **kwargs}, generates)
    if model.family is None:
        return Batch(inputs, dict(kwargs))
    return _language_batch(model, inputs, _asked(model, kwargs))


def _image_batch(model: Any, inputs: tuple[Any, ...], kwargs: dict[str, Any]) -> Batch:
    pixels = inputs[0] if len(inputs) == 1 else None if inputs else kwargs.get("pixel_values")
    if isinstance(pixels, torch.Tensor) and pixels.is_floating_point() and pixels.ndim in (3, 4) and pixels.numel():
        return Batch(kwargs={**kwargs, "pixel_values": pixels if pixels.ndim == 4 else pixels[None]})
    raise TraceError(
        f"{user_line()}: {model.info.name} takes pixel_values [batch, channel, height, width]; it was given "
        f"{_given(inputs, kwargs)}."
    )


def _given(inputs: tuple[Any, ...], kwargs: Mapping[str, Any]) -> str:
    return ", ".join(_described(value) for value in inputs) or ", ".join(kwargs) or "nothing"


def _language_batch(model: Any, inputs: tuple[Any, ...], kwargs: dict[str, Any]) -> Batch:
    only = inputs[0] if len(inputs) == 1 else None
    if isinstance(only, torch.Tensor) and not only.is_floating_point() and only.ndim in (1, 2) and only.numel():
        return _with_mask({**kwargs, "input_ids": only if only.ndim == 2 else only[None]})
    if not inputs and isinstance(kwargs.get("input_ids"), torch.Tensor):
        return _with_mask(kwargs)
    if not inputs and isinstance(kwargs.get("inputs_embeds"), torch.Tensor):
        return Batch(kwargs={"use_cache": False, **kwargs})
    raise TraceError(
        f"{user_line()}: {model.info.name} takes a prompt, a list of prompts, or token ids [batch, position]; it "
        f"was given {_given(inputs, kwargs)}."
    )


def _two_texts_batch(model: Any, inputs: tuple[Any, ...], kwargs: dict[str, Any]) -> Batch:
    starts = ("decoder_input_ids", "decoder_inputs_embeds", "labels")
    if inputs or not any(isinstance(kwargs.get(name), torch.Tensor) for name in starts):
        raise TraceError(
            f"{user_line()}: {model.info.name} reads one text and writes another. Give both by name: input_ids=..., "
            "attention_mask=..., decoder_input_ids=..."
        )
    return Batch(kwargs={"use_cache": False, **kwargs})


def _described(value: Any) -> str:
    if isinstance(value, torch.Tensor):
        return f"a tensor of shape {tuple(value.shape)} and type {str(value.dtype).removeprefix('torch.')}"
    return f"a {type(value).__name__}"


_CAPTURES = {"output_hidden_states": "model.layers[i].output", "output_attentions": "model.layers[i].attn.pattern"}


def _asked(model: Any, kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments; transformers' own captures are refused, since they would leave hooks on the user's network."""
    if model.family is None:
        return dict(kwargs)
    for name, site in _CAPTURES.items():
        if kwargs.get(name):
            raise TraceError(f"{user_line()}: {name} makes transformers put hooks on the network. Read {site} instead.")
    # The configs of transformers answer every attribute in Python; this asks what they hold.
    held = object.__getattribute__(model.config, "__dict__")
    off = {name: False for name in _CAPTURES if held.get(name) or held.get(f"_{name}")}
    return {**off, **kwargs}


def _with_mask(kwargs: dict[str, Any]) -> Batch:
    ids, mask = kwargs["input_ids"], kwargs.get("attention_mask")
    if mask is not None and mask.ndim != 2:
        return Batch(kwargs={"use_cache": False, **kwargs})
    if kwargs.get("past_key_values") is not None:
        return _after_cache(ids, mask, kwargs)
    if mask is None and "position_ids" not in kwargs:
        rows, length = ids.shape
        mask, positions = _whole(rows, length, ids.device)
        made = {"input_ids": ids, "attention_mask": mask, "position_ids": positions, "use_cache": False}
        return Batch(kwargs={**made, **kwargs}, whole=True)
    made = Batch.of_tokens(ids, torch.ones_like(ids) if mask is None else mask)
    return Batch(kwargs={**made.kwargs, **kwargs})


def _after_cache(ids: torch.Tensor, mask: torch.Tensor | None, kwargs: dict[str, Any]) -> Batch:
    """Tokens that go on from keys and values which were computed before; a mask is about those positions too."""
    if mask is None:  # the network knows how many there are
        return Batch(kwargs={"use_cache": False, **kwargs})
    positions = Batch.of_tokens(ids, mask).kwargs["position_ids"][:, -ids.shape[1] :]
    return Batch(kwargs={"position_ids": positions, "use_cache": False, **kwargs})


def _whole(rows: int, length: int, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """The mask and the positions of prompts of one length, each [row, position]."""
    ones, positions = torch.ones(rows, length, dtype=torch.long, device=device), torch.arange(length, device=device)
    return ones, positions[None] if rows == 1 else positions.repeat(rows, 1)
