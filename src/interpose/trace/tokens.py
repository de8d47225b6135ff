"""From what a user passes to what a network is called with."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from interpose.errors import TraceError
from interpose.graph import Batch
from interpose.trace.lines import user_line


def tokens(tokenizer: Any, prompts: str | Sequence[str]) -> Batch:
    """Tokenise prompts one by one and pad them on the left; the tokenizer object is not changed.

    Args:
        tokenizer: a tokenizer of the transformers library.
        prompts: one or several texts.

    Returns:
        a batch of shape [prompt, position].
    """
    texts = [prompts] if isinstance(prompts, str) else list(prompts)
    if not texts:
        raise TraceError(f"{user_line()}: there is no prompt to run on; give at least one.")
    rows = [tokenizer(text)["input_ids"] for text in texts]
    if not all(rows):
        raise TraceError(f"{user_line()}: an empty prompt has no tokens; write at least one character.")
    length = max(len(row) for row in rows)
    candidates = (tokenizer.pad_token_id, tokenizer.eos_token_id, 0)
    pad = next(token for token in candidates if token is not None)
    ids = torch.tensor([[pad] * (length - len(row)) + row for row in rows])
    mask = torch.tensor([[0] * (length - len(row)) + [1] * len(row) for row in rows])
    return Batch.of_tokens(ids, mask)


def make_batch(model: Any, inputs: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Batch:
    """A batch from prompts, token ids, a batch, or a module's own arguments.

    Args:
        model: the model that will be called.
        inputs: what was given by position.
        kwargs: what was given by name.

    Returns:
        the batch.
    """
    only = inputs[0] if len(inputs) == 1 else None
    if isinstance(only, Batch):
        return Batch(only.args, {**only.kwargs, **_asked(model, kwargs)})
    if isinstance(only, str) or (isinstance(only, list | tuple) and only and all(isinstance(t, str) for t in only)):
        if model.family is not None and model.family.encoder is not None:
            return _two_texts_batch(model, inputs, {})
        batch = model.tokens(only)
        return Batch(batch.args, {**batch.kwargs, **_asked(model, kwargs)})
    if isinstance(only, Mapping):
        return make_batch(model, (), {**only, **kwargs})
    if model.family is None:
        return Batch(inputs, dict(kwargs))
    return _language_batch(model, inputs, _asked(model, kwargs))


def _language_batch(model: Any, inputs: tuple[Any, ...], kwargs: dict[str, Any]) -> Batch:
    only = inputs[0] if len(inputs) == 1 else None
    if model.family.encoder is not None:
        return _two_texts_batch(model, inputs, kwargs)
    if isinstance(only, torch.Tensor) and not only.is_floating_point() and only.ndim in (1, 2) and only.numel():
        return _with_mask({**kwargs, "input_ids": only if only.ndim == 2 else only[None]})
    if not inputs and isinstance(kwargs.get("input_ids"), torch.Tensor):
        return _with_mask(kwargs)
    if not inputs and isinstance(kwargs.get("inputs_embeds"), torch.Tensor):
        return Batch(kwargs={"use_cache": False, **kwargs})
    given = ", ".join(_described(value) for value in inputs) or ", ".join(kwargs) or "nothing"
    raise TraceError(
        f"{user_line()}: {model.info.name} takes a prompt, a list of prompts, or token ids [batch, position]; it "
        f"was given {given}."
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
    off = {name: False for name in _CAPTURES if getattr(model.config, name, False)}
    return {**off, **kwargs}


def _with_mask(kwargs: dict[str, Any]) -> Batch:
    ids, mask = kwargs["input_ids"], kwargs.get("attention_mask")
    if mask is not None and mask.ndim != 2:
        return Batch(kwargs={"use_cache": False, **kwargs})
    made = Batch.of_tokens(ids, torch.ones_like(ids) if mask is None else mask)
    return Batch(kwargs={**made.kwargs, **kwargs})
