"""From what a user passes to what a network is called with."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from interpose.errors import TraceError
from interpose.graph import Batch
from interpose.trace.recorder import user_line


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
        return Batch(only.args, {**only.kwargs, **kwargs})
    if isinstance(only, str) or (isinstance(only, list | tuple) and only and all(isinstance(t, str) for t in only)):
        batch = model.tokens(only)
        return Batch(batch.args, {**batch.kwargs, **kwargs})
    if isinstance(only, Mapping):
        return make_batch(model, (), {**only, **kwargs})
    if model.family is None:
        return Batch(inputs, dict(kwargs))
    if isinstance(only, torch.Tensor) and not only.is_floating_point():
        ids = only if only.ndim == 2 else only[None]
        return _with_mask({**kwargs, "input_ids": ids})
    if not inputs and "input_ids" in kwargs:
        return _with_mask(dict(kwargs))
    given = ", ".join(type(value).__name__ for value in inputs) or ", ".join(kwargs) or "nothing"
    raise TraceError(f"{user_line()}: a language model takes a prompt, a list of prompts, or token ids; it was given {given}.")


def _with_mask(kwargs: dict[str, Any]) -> Batch:
    ids = kwargs["input_ids"]
    mask = kwargs.get("attention_mask")
    made = Batch.of_tokens(ids, torch.ones_like(ids) if mask is None else mask)
    return Batch(kwargs={**made.kwargs, **kwargs})
