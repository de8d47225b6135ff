"""A mask over units, fitted by gradient: the one primitive behind desiderata-based masking, edge pruning and the like.

    patch(h) = m a + (1 - m) b      m = gate(t)      t minimises  mean of loss(masked run) + price(sizes of units)

Units are heads, queries, neurons, nodes, positions or edges (`mixing.py`); `a` and `b` are the unit's own value, its
value on the corrupt prompts, zero, or its own value scaled; the gate is one of `gates.py`; loss and price are those of
`objective.py` or any others of their form. One block is recorded and replayed at every step: the parameters are one of
its inputs, and their gradient is one of its values. What the corrupt prompts give is computed once and kept, as long as
it fits into `KEPT` bytes, and at every step anew beyond.

| use | mediator | mix | loss | price |
|---|---|---|---|---|
| entity tracking | Heads | BASE, SOURCE | Logit("wrong", None) | PerUnit(w, closed=True) |
| lookbacks | directions of a stream | SOURCE, BASE | Logit("wrong", None) | PerUnit(w) |
| constructive amplification | HeadInputs, Neurons | DOUBLE, ZERO | Logit("answers", "wrong") | PerUnit(w) |
| filter heads | HeadInputs (queries) | SOURCE, BASE | answer less the mean of the others | PerUnit(w) |
| edge pruning | Edges | BASE, SOURCE | KL | PerUnit(w) |
"""

from collections.abc import Iterator, Mapping
from typing import Any, final

import torch
from jaxtyping import Float, Int
from torch import Tensor

from interpose.errors import SearchError
from interpose.graph import Batch, Feed, Graph
from interpose.mediators.base import Mediator, PlaceMediator
from interpose.mediators.edges import Edges
from interpose.search.behaviour import last_logits
from interpose.search.gates import Gate
from interpose.search.mixing import EdgeMixing, Mix, Mixing, PlaceMixing
from interpose.search.objective import Loss, Price
from interpose.search.training import Optimiser, draws, train
from interpose.tasks.base import Pairs
from interpose.trace import Model
from interpose.trace.gradient import grad

KEPT = 2**30
"""How many bytes of corrupt values are kept, at most; a GiB."""


def mixing_of(model: Model, pairs: Pairs, mediators: Mediator, mix: Mix, pruned: bool = False) -> Mixing | None:
    """The units of a mediator as something that a mask can be put over; None where they are of no such kind.

    Args:
        model: the model.
        pairs: the pairs that will be run.
        mediators: the units.
        mix: the two values between which the mask chooses.
        pruned: for edges, close those that lie on no open path.
    """
    if isinstance(mediators, Edges):
        return EdgeMixing(model, pairs, mediators, mix, pruned)
    if isinstance(mediators, PlaceMediator):
        return PlaceMixing(model, pairs, mediators.places(model, pairs), mix)
    return None


def fit_mask(
    masked: "Masked", gate: Gate, price: Price, optimiser: Optimiser, seed: int, what: str = "fitting a mask"
) -> Float[Tensor, " units"]:
    """Fit a mask.

    Args:
        masked: the model with a mask over its units, and what the masked run should do.
        gate: how a parameter becomes a mask.
        price: what the mask costs for its size.
        optimiser: how parameters move, and for how many steps.
        seed: of the order of the pairs and of the gate's noise; the same seed gives the same mask.
        what: what is being done, for those who watch.

    Returns:
        how open each unit is in the end, without noise: `gate.size` of its parameter.
    """
    random = torch.Generator().manual_seed(seed)
    rows = masked.rows(random, repeated=gate.each_pair)
    units, last = masked.mixing.count, max(optimiser.steps - 1, 1)

    def slope(step: int, parameters: Tensor) -> Tensor:
        chosen = next(rows)
        drawn = gate.draw((len(chosen), units), random, step / last)
        return masked.slope(parameters, chosen, drawn, (gate, price))

    start = torch.full((units,), gate.start, dtype=masked.dtype)
    found = train(start, slope, optimiser, gate.project, lambda parameters: gate.size(parameters) > 0.5, what)
    return gate.size(found)


@final
class Masked:
    """A model with a mask over its units.

    Args:
        model: the model.
        pairs: clean prompts, on which the mask is put, and corrupt ones, whose values it may bring in.
        mixing: the units, and the two values of each.
        loss: what the masked run should do.
        pairs_per_step: pairs in one forward pass.

    Attributes:
        dtype: the number type of the parameters: that of the model, and at least float32.
        mixing: as given.

    Raises:
        SearchError: a step takes no pair.
    """

    def __init__(self, model: Model, pairs: Pairs, mixing: Mixing, loss: Loss, pairs_per_step: int) -> None:
        """Run the corrupt prompts, and whatever the loss has to know of each pair."""
        if pairs_per_step < 1:
            raise SearchError(f"A step needs at least one pair, but pairs_per_step is {pairs_per_step}.")
        self.mixing, self.dtype = mixing, torch.promote_types(model.dtype, torch.float32)
        self._model, self._pairs, self._loss, self._size = model, pairs, loss, pairs_per_step
        self._given = loss.given(model, pairs, pairs_per_step)
        self._blocks: dict[Any, tuple[Graph, Feed]] = {}
        self._asked = self._record_sources()
        self._kept: dict[str, Tensor] | None = self._all_sources()
        self._last: tuple[Tensor, dict[str, Tensor]] | None = None

    def rows(self, random: torch.Generator, repeated: bool) -> Iterator[Int[Tensor, " rows"]]:
        """Which pairs each step takes: all in order where there are no more than a step takes, else by lot.

        Args:
            random: where the order comes from.
            repeated: a step takes `pairs_per_step` rows even where there are fewer pairs, some of them more than once.
        """
        if len(self._pairs) <= self._size and not repeated:
            everything = torch.arange(len(self._pairs))
            while True:
                yield everything
        yield from draws(len(self._pairs), self._size, random)

    def losses(self, mask: Float[Tensor, " units"]) -> Float[Tensor, " pairs"]:
        """The loss of every pair under a given mask."""
        return torch.cat([self._run(mask, rows, {}, None)["losses"] for rows in self._parts()])

    def logits(self, mask: Float[Tensor, " units"]) -> Float[Tensor, "pairs vocab"]:
        """The logits at the last position, of every pair under a given mask."""
        return torch.cat([self._run(mask, rows, {}, None)["logits"] for rows in self._parts()])

    def slope(
        self,
        parameters: Float[Tensor, " units"],
        rows: Int[Tensor, " rows"],
        drawn: Mapping[str, Tensor],
        made: tuple[Gate, Price],
    ) -> Float[Tensor, " units"]:
        """The gradient of mean loss plus price by the parameters.

        Args:
            parameters: one a unit.
            rows: which pairs are run.
            drawn: what the gate drew for this step.
            made: the gate and the price.
        """
        drawn = {name: value.to(self.dtype) for name, value in drawn.items()}
        alive = self.mixing.alive(made[0].mask(parameters, drawn))
        if alive is not None:
            drawn["alive"] = alive
        return self._run(parameters, rows, drawn, made)["slope"].to(parameters.device)

    def _parts(self) -> Iterator[Tensor]:
        yield from torch.arange(len(self._pairs)).split(self._size)

    def _run(
        self, values: Tensor, rows: Tensor, drawn: Mapping[str, Tensor], made: tuple[Gate, Price] | None
    ) -> Mapping[str, Tensor]:
        tensors = {
            "mask": values,
            **{f"drawn.{name}": value for name, value in drawn.items()},
            **{f"given.{name}": value[rows] for name, value in self._given.items()},
            **{f"source.{name}": value for name, value in self._sources(rows).items()},
            **{f"source.{name}": value[rows] for name, value in self.mixing.layout.items()},
        }
        if (made, len(rows)) not in self._blocks:
            self._blocks[made, len(rows)] = self._record(rows, tensors, made)
        graph, feed = self._blocks[made, len(rows)]
        return next(
            self._model.backend.run_many([graph], [feed.with_({"clean": self._batch("clean", rows)}, **tensors)])
        )

    def _record(
        self, rows: Tensor, tensors: Mapping[str, Tensor], made: tuple[Gate, Price] | None
    ) -> tuple[Graph, Feed]:
        model = self._model

        def named(prefix: str) -> dict[str, Any]:
            return {name[len(prefix) :]: value for name, value in inputs.items() if name.startswith(prefix)}

        with model.trace(run=False) as t:
            inputs = {name: t.input(name, value, trainable=name == "mask") for name, value in tensors.items()}
            mask, drawn = inputs["mask"], named("drawn.")
            if made is not None:
                mask = made[0].mask(mask, drawn)
            if "alive" in drawn:
                mask = mask * drawn["alive"]
            with t.world("clean", self._batch("clean", rows)):
                self.mixing.write(mask.to(model.dtype), named("source."))
                logits = last_logits(model)
                losses = self._loss(logits.to(self.dtype), named("given."))
            if made is None:
                losses.save("losses")
                logits.save("logits")
            else:
                number = losses.mean() + made[1](made[0].size(inputs["mask"]))
                grad(number, inputs["mask"]).save("slope")
        return t.graph, t.feed

    def _record_sources(self) -> tuple[Graph, Feed] | None:
        """What the corrupt prompts are asked for; None for nothing."""
        with self._model.trace(run=False) as t, t.world("corrupt", self._batch("corrupt", next(self._parts()))):
            found = self.mixing.sources()
            for name, value in found.items():
                value.save(name)
        return (t.graph, t.feed) if found else None

    def _all_sources(self) -> dict[str, Tensor] | None:
        """What the corrupt prompts give, for all pairs; None where that is too much to keep."""
        if self._asked is None:
            return {}
        found: list[dict[str, Tensor]] = []
        parts = list(self._parts())
        for rows in parts:
            found.append(self._computed(rows))
            bytes_each = sum(value.nbytes for value in found[0].values())
            if bytes_each * len(parts) > KEPT:
                return None
        return {name: torch.cat([part[name] for part in found], self.mixing.axis) for name in found[0]}

    def _computed(self, rows: Tensor) -> dict[str, Tensor]:
        assert self._asked is not None
        graph, feed = self._asked
        feed = feed.with_({"corrupt": self._batch("corrupt", rows)})
        return dict(next(self._model.backend.run_many([graph], [feed])))

    def _sources(self, rows: Tensor) -> dict[str, Tensor]:
        """What the corrupt prompts give, for some pairs; those of the last step are at hand."""
        if self._last is None or not torch.equal(self._last[0], rows):
            self._last = rows, self._chosen(rows)
        return self._last[1]

    def _chosen(self, rows: Tensor) -> dict[str, Tensor]:
        if self._kept is None:
            return self._computed(rows)
        if torch.equal(rows, torch.arange(len(self._pairs))):
            return self._kept
        return {name: value.index_select(self.mixing.axis, rows.to(value.device)) for name, value in self._kept.items()}

    def _batch(self, side: str, rows: Tensor) -> Batch:
        tokens = self._pairs.clean_tokens if side == "clean" else self._pairs.corrupt_tokens
        return Batch.of_tokens(tokens[rows], self._pairs.mask[rows])
