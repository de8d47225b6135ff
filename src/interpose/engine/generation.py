"""Generation: one call of the network after another, each given the token that the one before chose.

The network's own key/value cache is used, so that each step after the prompt computes one position. Greedy choice and
sampling are written here: a step is then one call of the stock forward and nothing else, and row i of a batch draws by
a stream of its own, whatever stands beside it.
"""

from collections.abc import Callable, Mapping
from typing import Any, final

import torch
from jaxtyping import Float, Int
from torch import Tensor

from interpose.errors import RunError
from interpose.graph.feed import Generation

_ONCE = ("inputs_embeds", "token_type_ids", "cache_position", "labels")
"""Arguments of the prompt pass that later steps do not repeat."""
_ROW = 0x9E3779B9
"""Keeps the seeds of neighbouring rows apart."""


@final
class Continuation:
    """The state of one generation.

    Attributes:
        ran: how many steps have run.
        reason: why it ended.

    Args:
        settings: how tokens are chosen.
        kwargs: what the prompt pass is called with.
    """

    def __init__(self, settings: Generation, kwargs: Mapping[str, Any]) -> None:
        """Nothing has run yet."""
        self.ran, self.reason = 0, f"max_new_tokens is {settings.max_new_tokens}"
        self._settings, self._kwargs = settings, {**kwargs, "use_cache": True}
        ids = kwargs.get("input_ids")
        mask = kwargs.get("attention_mask")
        if not isinstance(ids, Tensor) or (mask is not None and mask.ndim != 2):
            raise RunError(
                "A generation starts from token ids [batch, position] and at most a mask of the same shape; this world "
                f"was given {', '.join(kwargs) or 'nothing'}."
            )
        if mask is not None and not bool(mask[:, -1].all()):
            raise RunError(
                "A prompt is padded on the right, so that its generation would go on from padding. Pad on the left "
                '(tokenizer.padding_side = "left"), or give the prompts as a list of texts.'
            )
        self._ids = ids
        self._draws = [torch.Generator().manual_seed(settings.seed + row * _ROW) for row in range(len(ids))]
        if settings.start is not None:
            start = {"decoder_input_ids": ids.new_full((len(ids), 1), settings.start)}
            self._kwargs = start | without(self._kwargs, "position_ids")

    def run(self, call: Callable[[int, dict[str, Any]], Any]) -> Int[Tensor, "row step"]:
        """Run all steps.

        Args:
            call: given the step and the network's arguments, what the network returns; None ends the generation.

        Returns:
            the tokens chosen; rows that ended are filled up.
        """
        settings, chosen = self._settings, []
        ended = torch.zeros(len(self._ids), dtype=torch.bool, device=self._ids.device)
        stops = torch.tensor(settings.stop, dtype=self._ids.dtype, device=self._ids.device)
        for step in range(settings.max_new_tokens):
            self.ran = step + 1
            output = call(step, self._kwargs)
            if output is None:
                self.reason = "the program stops there"
                break
            token = choose(_logits(output), settings, self._draws).to(self._ids)
            token = token.masked_fill(ended, settings.pad)
            chosen.append(token)
            ended = ended | torch.isin(token, stops)
            if len(stops) and bool(ended.all()):
                self.reason = "every row gave a token that ends it (see `stop`)"
                break
            if step + 1 < settings.max_new_tokens:
                self._kwargs = self._next(output, token[:, None])
        return torch.stack(chosen, 1) if chosen else self._ids.new_empty(len(self._ids), 0)

    def length(self, step: int) -> int:
        """How many positions the decoder has been given after a step."""
        return (self._ids.shape[1] if self._settings.start is None else 1) + step

    def _next(self, output: Any, token: Tensor) -> dict[str, Any]:
        cache = getattr(output, "past_key_values", None)
        if cache is None:
            raise RunError("The network returns no key/value cache (past_key_values), so it cannot go on from its own.")
        kwargs = {**without(self._kwargs, *_ONCE), "past_key_values": cache}
        given = "decoder_" if self._settings.start is not None else ""
        if given:
            kwargs = {**without(kwargs, "input_ids"), "encoder_outputs": (output.encoder_last_hidden_state,)}
        kwargs[f"{given}input_ids"], mask = token, f"{given}attention_mask"
        if kwargs.get(mask) is not None:
            kwargs[mask] = torch.cat([kwargs[mask], torch.ones_like(token)], 1)
        if kwargs.get("position_ids") is not None:
            kwargs["position_ids"] = kwargs["position_ids"][:, -1:] + 1
        return kwargs


def choose(
    logits: Float[Tensor, "row vocab"], settings: Generation, draws: list[torch.Generator]
) -> Int[Tensor, "row"]:
    """The next token of each row.

    Args:
        logits: of the last position.
        settings: greedy at temperature 0; else drawn after `top_k` and `top_p`, in this order.
        draws: one stream of random numbers a row.
    """
    if settings.temperature == 0:
        return logits.argmax(-1)
    shares = logits.detach().float().cpu() / settings.temperature
    if settings.top_k is not None and settings.top_k < shares.shape[-1]:
        least = shares.topk(settings.top_k, -1).values[:, -1:]
        shares = shares.masked_fill(shares < least, -torch.inf)
    if settings.top_p is not None:
        ordered, order = shares.sort(-1, descending=True)
        weights = ordered.softmax(-1)
        beyond = weights.cumsum(-1) - weights >= settings.top_p
        shares = shares.masked_fill(beyond.scatter(-1, order, beyond), -torch.inf)
    rows = shares.softmax(-1)
    picked = [torch.multinomial(row, 1, generator=draw) for row, draw in zip(rows, draws, strict=True)]
    return torch.cat(picked).to(logits.device)


def check_cache(output: Any, length: int, at: str) -> None:
    """Check that every layer has cached all positions so far.

    Args:
        output: what the network returned.
        length: how many positions there are so far.
        at: the user's line.

    Raises:
        RunError: a skipped module left a gap, so that later steps would silently read wrong positions.
    """
    layers = getattr(getattr(output, "past_key_values", None), "layers", None) or ()
    if any(layer.get_seq_length() != length for layer in layers):
        raise RunError(
            f"{at}: an attention that is skipped caches no keys and values, which the later steps of a generation "
            "need. Write its output instead (layers[i].attn.output = 0), or skip only the MLP."
        )


def _logits(output: Any) -> Tensor:
    logits = getattr(output, "logits", None)
    if not isinstance(logits, Tensor) or logits.ndim != 3:
        raise RunError(
            f"The network returns a {type(output).__name__} without logits [batch, position, vocabulary], so no token "
            "can be chosen. Generate with a language model."
        )
    return logits[:, -1]


def without(kwargs: Mapping[str, Any], *names: str) -> dict[str, Any]:
    """Arguments without some of them."""
    return {name: value for name, value in kwargs.items() if name not in names}
