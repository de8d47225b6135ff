"""Causal tracing: run the corrupt prompt with one unit restored to its clean value, for each unit in turn.

    score(unit) = m(corrupt run with the unit's clean value) - m(corrupt run)        m = logit(answer) - logit(wrong)

With `share`, that is divided by m(clean run) - m(corrupt run). With `noise`, the corrupt run is the clean prompt with
noise on the embeddings of some of its tokens.

Source: Meng et al. 2022, https://arxiv.org/abs/2202.05262, who measure the probability of the answer. It asks whether a
unit is enough to bring the behaviour back; `ActivationPatching` corrupts one unit in the clean run, and so asks whether
it is needed. Where each of two units can stand in for the other, both score high here and neither does there; where
both are needed together, it is the other way round.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import final

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from interpose.errors import SearchError
from interpose.mediators.base import Mediator, PlaceMediator, Unit, names_of, position_of
from interpose.mediators.edges import Edges
from interpose.methods.base import Method
from interpose.search.behaviour import behaviour
from interpose.search.edge_sweep import cut_each
from interpose.search.place_patching import restore_each
from interpose.search.progress import track
from interpose.tasks.base import Pairs
from interpose.trace import Model


@final
@dataclass(frozen=True)
class CausalTracing(Method):
    """The effect of restoring each unit in the corrupt run: one forward pass a unit.

    Attributes:
        share: give the share of the behaviour that is restored, in place of the difference.
        window: how many layers around a unit's own are restored with it; Meng et al. take 10 for blocks, 1 for streams.
        noise: corrupt by noise on embeddings, so many times as wide as these are (standard deviations); Meng et al.
            take 3. By default the corrupt prompts are run.
        noised: by role, the tokens that get noise; by default those that differ between the prompts of a pair.
        draws: over how many draws of noise the mean is taken.
        seed: of the draws.
        batch_size: pairs in one forward pass.
    """

    share: bool = False
    window: int = 1
    noise: float | None = None
    noised: tuple[str, ...] = ()
    draws: int = 10
    seed: int = 0
    batch_size: int = 16

    def search(self, model: Model, pairs: Pairs, mediators: Mediator) -> Float[Tensor, " units"]:
        """One score a unit; see `Method.score`."""
        self._check()
        if isinstance(mediators, Edges):
            corrupt, restored = self._edges(model, pairs, mediators)
        elif isinstance(mediators, PlaceMediator):
            corrupt, restored = self._places(model, pairs, mediators.places(model, pairs))
        else:
            raise self.refuse(mediators, "It restores places (Heads(), Streams(), ...) and Edges().")
        if not self.share:
            return (restored - corrupt).float()
        lost = behaviour(model, pairs, self.batch_size)["clean"].double().mean().cpu() - corrupt
        if lost.abs() < 1e-8:
            raise SearchError(
                "The behaviour is the same on the clean and on the corrupt run, so no unit can restore a share of the "
                "difference. Take other pairs, or share=False."
            )
        return ((restored - corrupt) / lost).float()

    def _check(self) -> None:
        if self.window < 1 or self.draws < 1:
            raise SearchError(
                f"CausalTracing needs at least one layer and one draw, but window is {self.window} and draws is "
                f"{self.draws}."
            )
        if self.noise is not None and not self.noise > 0:
            raise SearchError(f"Noise has a width above zero, but noise is {self.noise}. None takes corrupt prompts.")

    def _edges(self, model: Model, pairs: Pairs, edges: Edges) -> tuple[Tensor, Tensor]:
        if self.noise is not None or self.window > 1:
            raise SearchError(
                "CausalTracing restores edges one by one between the prompts of a pair. Leave noise and window out, or "
                "search over places, such as Streams()."
            )
        turned = replace(pairs, clean_tokens=pairs.corrupt_tokens, corrupt_tokens=pairs.clean_tokens)
        return cut_each(model, turned, edges, self.batch_size)

    def _places(self, model: Model, pairs: Pairs, places: Sequence[Unit]) -> tuple[Tensor, Tensor]:
        groups, parts = self._groups(places), list(pairs.batches(self.batch_size))
        total = torch.zeros(1 + len(places), dtype=torch.float64)
        noises: Iterator[Tensor | None] = iter([None]) if self.noise is None else self._noises(model, pairs, parts)
        draws = 1 if self.noise is None else self.draws
        runs = (run for noise in noises for part in self._draw(model, parts, groups, noise) for run in part)
        for unit, restored in track(runs, draws * len(parts) * len(total), "restoring units"):
            total[unit] += float(restored.double().sum())
        total /= draws * len(pairs)
        return total[0], total[1:]

    def _groups(self, places: Sequence[Unit]) -> list[list[Unit]]:
        """The units that are restored with each unit, itself among them."""
        if self.window == 1:
            return [[unit] for unit in places]
        if any(unit.head is not None or unit.neuron is not None for unit in places):
            raise SearchError(
                "A head or neuron of one layer has nothing to do with that of the same number in the next. Use a "
                "window with units that are whole: Streams(), MLPs(), AttentionBlocks(), or these at some positions."
            )
        alike: dict[tuple[str, int | None, int | str | None], Unit] = {}
        for unit in places:
            alike[_part(unit), unit.site.layer, unit.role or unit.position] = unit
        return [list(self._around(unit, alike)) for unit in places]

    def _around(self, unit: Unit, alike: dict[tuple[str, int | None, int | str | None], Unit]) -> Iterator[Unit]:
        layer = unit.site.layer
        if layer is None:
            yield unit
            return
        first = layer - self.window // 2
        for other in range(first, first + self.window):
            found = alike.get((_part(unit), other, unit.role or unit.position))
            if found is not None:
                yield found

    def _draw(
        self, model: Model, parts: Sequence[Pairs], groups: Sequence[Sequence[Unit]], noise: Tensor | None
    ) -> Iterator[Iterator[tuple[int, Tensor]]]:
        start = 0
        for part in parts:
            own = None if noise is None else noise[start : start + len(part)]
            yield enumerate(restore_each(model, part, groups, own))
            start += len(part)

    def _noises(self, model: Model, pairs: Pairs, parts: Sequence[Pairs]) -> Iterator[Float[Tensor, "n pos width"]]:
        """Noise for the embeddings of the clean prompts, one draw after another; the same however batches are cut."""
        where = self._tokens(pairs)
        with model.trace(run=False) as t, t.world("prompt", parts[0].clean_batch()):
            model.embed.save("embed")
        feeds = [t.feed.with_({"prompt": part.clean_batch()}) for part in parts]
        embed = torch.cat([run["embed"] for run in model.backend.run_many([t.graph] * len(feeds), feeds)])
        width = (self.noise or 0.0) * embed[where.to(embed.device)].double().std().cpu()
        generator = torch.Generator().manual_seed(self.seed)
        for _ in range(self.draws):
            drawn = torch.randn(embed.shape, generator=generator, dtype=torch.float64) * width
            yield (drawn * where[:, :, None].cpu()).to(embed.device, embed.dtype)

    def _tokens(self, pairs: Pairs) -> Bool[Tensor, "n pos"]:
        """Which tokens get noise."""
        where = pairs.differs
        if self.noised:
            where = torch.zeros_like(where)
            for role in names_of(self.noised, "noised"):
                where[torch.arange(len(pairs)), position_of(pairs, role)] = True
        if not bool(where.any()):
            raise SearchError(
                "No clean prompt differs from its corrupt one, so no token gets noise. Name roles: noised."
            )
        return where


def _part(unit: Unit) -> str:
    return unit.site.name if unit.site.layer is None else unit.site.local
