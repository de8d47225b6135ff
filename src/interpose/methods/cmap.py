"""Cross-model activation patching: run the model with one unit's value from another model, on the same prompts.

    score(unit) = m(clean run with the unit as in the other model) - m(clean run)

m = logit(answer) - logit(wrong), in this model. Positive where the other model's version of the unit helps the
behaviour.

Source: Prakash et al. 2024, https://arxiv.org/abs/2402.14811, who patch groups of heads of a fine-tuned model into the
one it was made from, to find which carry what it does better. `ActivationPatching` takes the values from another prompt
in the same model, and so asks what a unit carries; this asks what training has changed in it.
"""

from dataclasses import dataclass, fields
from typing import final

import torch
from jaxtyping import Float
from torch import Tensor

from interpose.errors import SearchError
from interpose.mediators.base import Mediator, PlaceMediator
from interpose.methods.base import Method
from interpose.search.place_patching import run_with, values_of
from interpose.search.progress import track
from interpose.tasks.base import Pairs
from interpose.trace import Model


@final
@dataclass(frozen=True)
class CMAP(Method):
    """How much better the model does with each unit's value from another model: one forward pass a unit.

    Attributes:
        source: the other model, as `ip.load` takes it: a short name, a folder, or `org/name` on the hub. It must have
            the same sizes and read the same tokens, as a fine-tuned one does.
        batch_size: pairs in one forward pass.
    """

    source: str = ""
    batch_size: int = 16

    def search(self, model: Model, pairs: Pairs, mediators: Mediator) -> Float[Tensor, " units"]:
        """One score a unit; see `Method.score`."""
        if not isinstance(mediators, PlaceMediator):
            raise self.refuse(mediators, "It patches places: Heads(), Streams(), ...; edges: ActivationPatching().")
        places = mediators.places(model, pairs)
        if not self.source:
            raise SearchError('CMAP takes values from another model. Name it: CMAP(source="./folder").')
        source = model.backend.open(self.source)
        _same_sizes(model, source)
        _same_tokens(model, source, pairs)
        parts = list(pairs.batches(self.batch_size))
        total = torch.zeros(1 + len(places), dtype=torch.float64)
        runs = (
            run
            for part in parts
            for run in enumerate(
                run_with(
                    model,
                    part,
                    [(unit,) for unit in places],
                    values_of(source, part.clean_batch(), places),
                    part.clean_batch(),
                )
            )
        )
        for unit, patched in track(runs, len(parts) * len(total), "patching units"):
            total[unit] += float(patched.double().sum())
        return ((total[1:] - total[0]) / len(pairs)).float()


def _same_sizes(model: Model, source: Model) -> None:
    mine, other = model.sizes(), source.sizes()
    odd = [size.name for size in fields(mine) if getattr(mine, size.name) != getattr(other, size.name)]
    odd = [name for name in odd if name != "vocab"]  # tokens that were added change no unit
    if odd:
        said = ", ".join(f"{name} is {getattr(other, name)} in place of {getattr(mine, name)}" for name in odd)
        raise SearchError(
            f"{source.info.name} is of other sizes than {model.info.name}: {said}. CMAP needs two models with the same "
            "units, such as a model and a fine-tuned one."
        )


def _same_tokens(model: Model, source: Model, pairs: Pairs) -> None:
    used = pairs.clean_tokens[pairs.mask].unique().tolist()
    if max(used) >= source.sizes().vocab:
        raise SearchError(
            f"{source.info.name} knows {source.sizes().vocab} tokens, and the prompts have the token {max(used)}. CMAP "
            "needs two models that read the same tokens."
        )
    if model.tokenizer is None or source.tokenizer is None:
        return
    pieces = (each.tokenizer.convert_ids_to_tokens(used) for each in (model, source))
    odd = next((token for token, mine, other in zip(used, *pieces, strict=True) if mine != other), None)
    if odd is not None:
        said = " and ".join(repr(each.tokenizer.convert_ids_to_tokens(odd)) for each in (model, source))
        raise SearchError(
            f"{model.info.name} and {source.info.name} read the token {odd} as {said}. CMAP needs two models that read "
            "the same tokens."
        )
