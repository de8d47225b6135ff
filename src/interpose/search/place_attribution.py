"""Attribution of places: what each unit holds otherwise, times the slope of the behaviour at the unit itself.

One forward and one backward pass of the stock network give the slope at every site, and so serve all units at once. The
slope is always taken at a unit's own value: at what an MLP writes, not at what it reads.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple, final

import torch
from jaxtyping import Float
from torch import Tensor

from interpose.graph import Batch, Feed, Graph, Site
from interpose.mediators.base import Unit, sites_of
from interpose.search.ablation import Held
from interpose.search.behaviour import feed_of, logit_difference
from interpose.search.progress import track
from interpose.tasks.base import Pairs
from interpose.trace import Model
from interpose.trace.gradient import grad

_AXES = {"head": "HK", "neuron": "F", "position": "P"}
"""Which axes of a site tell a unit from the others there."""

Tensors = dict[str, Tensor]


def attribute_places(
    model: Model, pairs: Pairs, places: Sequence[Unit], steps: int, batch_size: int, ablation: str = "counterfactual"
) -> Float[Tensor, " units"]:
    """Score every unit.

    Args:
        model: the model.
        pairs: clean and corrupt prompts with answers.
        places: the units.
        steps: at how many runs the slope is taken. Their embeddings lie between the corrupt one, not included, and the
            clean one, included: with one step it is the clean run alone.
        batch_size: pairs in one forward pass.
        ablation: what a unit is given; see `interpose.search.ablation`.

    Returns:
        one score a unit: how much the behaviour falls, to first order, when the unit is given that; mean over pairs.
    """
    sites, parts = sites_of(places), list(pairs.batches(batch_size))
    slopes, held = _Slopes(model, sites), Held(model, sites, pairs, ablation, batch_size)
    total = torch.zeros(len(places), dtype=torch.float64)
    mixtures = [step / steps for step in range(steps, 0, -1)]
    todo = ((part, mixture) for part in parts for mixture in mixtures)
    change: Tensors = {}
    for part, mixture in track(todo, len(parts) * steps, "attributing units"):
        found = slopes(part, mixture)
        if mixture == 1:
            change = {name: value - slopes.clean[name] for name, value in held(part).items()}
        products = {name: change[name].double() * slope.double() for name, slope in found.items()}
        total -= _summed(places, products, part)
    return (total / (len(pairs) * steps)).float()


@final
class _Slopes:
    """The slope of the behaviour at every site, on runs between the corrupt and the clean one.

    Attributes:
        clean: what the sites hold on the clean prompts of the last batch; set by the run whose mixture is 1, which has
            to come first for every batch.
    """

    def __init__(self, model: Model, sites: Sequence[Site]) -> None:
        self._model, self._sites = model, sites
        self._recorded: dict[bool, tuple[Graph, Feed]] = {}
        self._ends: Tensors = {}
        self.clean: Tensors = {}

    def __call__(self, part: Pairs, mixture: float) -> Tensors:
        """By the name of each site, the slope there, of the site's own shape."""
        if mixture == 1:
            self._ends = {}
            found = self._run(part, {})
            self.clean = {site.name: found[f"value {site.name}"] for site in self._sites}
        else:
            if not self._ends:
                self._ends = {"corrupt": self._embed(part.corrupt_batch()), "clean": self._embed(part.clean_batch())}
            found = self._run(part, {**self._ends, "weight": torch.tensor(mixture, dtype=self._model.dtype)})
        return {site.name: found[f"slope {site.name}"] for site in self._sites}

    def _embed(self, batch: Batch) -> Tensor:
        with self._model.trace(run=False) as t, t.world("end", batch):
            self._model.embed.save("embed")
        return next(self._model.backend.run_many([t.graph], [t.feed]))["embed"]

    def _run(self, part: Pairs, tensors: Tensors) -> Tensors:
        between = bool(tensors)
        if between not in self._recorded:
            self._recorded[between] = self._record(part, tensors)
        graph, feed = self._recorded[between]
        return next(
            self._model.backend.run_many([graph], [feed_of(feed, part, {"clean": part.clean_batch()}, **tensors)])
        )

    def _record(self, part: Pairs, tensors: Tensors) -> tuple[Graph, Feed]:
        model = self._model
        with model.trace(run=False) as t:
            given = {name: t.input(name, like) for name, like in tensors.items()}
            with t.world("clean", part.clean_batch()):
                if given:
                    model.embed = given["corrupt"] + given["weight"] * (given["clean"] - given["corrupt"])
                values = {site.name: model.site(site.name) for site in self._sites}
                number = logit_difference(model, t, part).sum()
                for name, value in values.items():
                    if not given:
                        value.save(f"value {name}")
                    grad(number, value).save(f"slope {name}")
        return t.graph, t.feed


class _Kind(NamedTuple):
    """What the units of one site have in common that can be summed in one go."""

    site: Site
    parts: tuple[str, ...]
    role: str | None


def _summed(places: Sequence[Unit], products: Mapping[str, Tensor], pairs: Pairs) -> Float[Tensor, " units"]:
    """For each unit the sum over its part of the site, over all pairs; no tensor is touched once a unit."""
    found = torch.zeros(len(places), dtype=torch.float64)
    kinds: dict[_Kind, list[int]] = {}
    for number, unit in enumerate(places):
        parts = tuple(part for part in _AXES if getattr(unit, part) is not None)
        kinds.setdefault(_Kind(unit.site, parts, unit.role), []).append(number)
    for kind, numbers in kinds.items():
        product = products[kind.site.name]
        axes = "".join(kind.site.axes or ())
        if kind.role is not None:
            product = _at_role(product, axes, pairs.roles[kind.role])
            axes = axes.replace("P", "")
        kept = [axis for axis, letter in enumerate(axes) if any(letter in _AXES[part] for part in kind.parts)]
        names = [next(part for part in kind.parts if axes[axis] in _AXES[part]) for axis in kept]
        others = [axis for axis in range(product.ndim) if axis not in kept]
        sums = (product.sum(others) if others else product).cpu()
        where = tuple(torch.tensor([getattr(places[number], name) for number in numbers]) for name in names)
        found[torch.tensor(numbers)] = sums[where] if where else sums
    return found


def _at_role(product: Tensor, axes: str, positions: Tensor) -> Tensor:
    """Each prompt's own position only; the axis of positions is gone."""
    rows = torch.arange(len(positions), device=product.device)
    return product.movedim((axes.index("B"), axes.index("P")), (0, 1))[rows, positions.to(product.device)]
