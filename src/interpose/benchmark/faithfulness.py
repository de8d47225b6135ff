"""Prove a ranking of edges: run its circuits at every size, and random circuits beside them.

No model is needed here: whoever can say how an example fares when only some edges run can prove a ranking. Source of
sizes, budgets and areas: the MIB circuit track, https://arxiv.org/abs/2504.13151.
"""

import hashlib
import math
from collections.abc import Callable, Iterable, Iterator, MutableMapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from interpose.benchmark.controls import CONTROLS, draw_seed
from interpose.benchmark.cutting import circuits as cut
from interpose.benchmark.grid import SIZES, budgets
from interpose.benchmark.intervals import Bootstrap, Sampled, estimate
from interpose.benchmark.proof import Curve, Curves, Point, Proof
from interpose.errors import SearchError
from interpose.metrics.cmd import cmd
from interpose.metrics.cpr import cpr
from interpose.metrics.faithfulness import faithfulness
from interpose.models.stream import StreamGraph
from interpose.search.scores import Scores
from interpose.search.selection import prune

Evaluate = Callable[[Tensor], Iterable[Tensor]]
"""Takes Bool[circuits, edges]; gives, circuit by circuit, Float[examples]: the metric of each example when only those
edges run on the clean input. A tensor Float[circuits, examples] will do; a generator lets progress be shown."""

Progress = Callable[[int, int], None]
"""Is told how many circuits are done, and how many there are."""

_FEWEST_DRAWS = 5
_FEWEST_RESAMPLES = 1000


@dataclass(frozen=True)
class ProofSettings:
    """Everything that can change a proof besides scores, model and examples.

    Attributes:
        sizes: of the circuits, as shares of all edges.
        draws: random rankings of each control, 5 or more.
        resamples: of the bootstrap, 1000 or more.
        level: share of resamples that an interval holds.
        seed: of controls and bootstrap.

    Raises:
        SearchError: a setting is out of its range.
    """

    sizes: tuple[float, ...] = SIZES
    draws: int = 5
    resamples: int = 2000
    level: float = 0.95
    seed: int = 0

    def __post_init__(self) -> None:
        budgets(1, self.sizes)
        if self.draws < _FEWEST_DRAWS:
            raise SearchError(f"A control needs at least {_FEWEST_DRAWS} draws, but draws is {self.draws}.")
        if self.resamples < _FEWEST_RESAMPLES:
            raise SearchError(
                f"An interval needs at least {_FEWEST_RESAMPLES} resamples, but resamples is {self.resamples}."
            )
        if not 0 < self.level < 1:
            raise SearchError(f"The level of an interval lies between 0 and 1, but level is {self.level}.")


def prove(
    scores: Scores,
    graph: StreamGraph,
    evaluate: Evaluate,
    settings: ProofSettings | None = None,
    progress: Progress | None = None,
    cache: MutableMapping[str, Tensor] | None = None,
) -> Proof:
    """Measure the circuits of a ranking, and of random rankings, at every size.

    Circuits that are equal after pruning (many small random ones are empty, size 1 is the whole model) are run once.

    Args:
        scores: of the edges of `graph`, or of its nodes; see `interpose.benchmark.cutting`.
        graph: of the model.
        evaluate: runs circuits; see `Evaluate`.
        settings: sizes, draws, resamples, seed.
        progress: told after every circuit; see `Progress`.
        cache: metrics by circuit, from an earlier run over the same model and examples; filled as results arrive, so
            that a run which was cut off goes on where it stopped.

    Raises:
        SearchError: the scores are not of this graph, `evaluate` gives something else than one finite number
            an example, or the whole model cannot be told from the corrupted run.
    """
    settings = settings or ProofSettings()
    circuits = {
        side: cut(scores, graph, settings.sizes, absolute=side == "absolute") for side in ("signed", "absolute")
    }
    plan = _Plan(graph)
    whole, nothing = plan.add(torch.ones(graph.n_edges, dtype=torch.bool)), plan.add(torch.zeros(graph.n_edges).bool())
    groups = {("circuit", side): [[plan.add(mask) for mask in masks]] for side, masks in circuits.items()}
    for name, control in CONTROLS.items():
        seeds = [draw_seed(settings.seed, name, draw) for draw in range(settings.draws)]
        for side, masks in circuits.items():
            groups[name, side] = [[plan.add(mask) for mask in control(masks, graph, seed)] for seed in seeds]
    measure = _Measure(plan, evaluate, progress or _silent, {} if cache is None else cache)
    ends = measure([whole, nothing])
    seed = draw_seed(settings.seed, "bootstrap", 0)
    # Made before the long part: where there is nothing to explain, it says so now.
    bootstrap = Bootstrap(ends[whole], ends[nothing], settings.resamples, settings.level, seed)
    metric = measure(list(plan.masks))
    curves = {key: _curve(key[1], keys, (plan, metric), bootstrap, settings) for key, keys in groups.items()}
    by_name = {name: Curves(curves[name, "signed"], curves[name, "absolute"]) for name in ("circuit", *CONTROLS)}
    return Proof(
        n_edges=graph.n_edges,
        examples=len(metric[whole]),
        draws=settings.draws,
        resamples=settings.resamples,
        level=settings.level,
        seed=settings.seed,
        full=bootstrap.mean(metric[whole]),
        empty=bootstrap.mean(metric[nothing]),
        circuit=by_name["circuit"],
        controls={name: by_name[name] for name in CONTROLS},
        evaluations=len(plan.masks),
    )


@dataclass(frozen=True)
class _Plan:
    """The different circuits to run, by a key made from their edges."""

    graph: StreamGraph
    masks: dict[str, np.ndarray] = field(default_factory=dict)
    sizes: dict[str, int] = field(default_factory=dict)

    def add(self, mask: Bool[Tensor, "edges"]) -> str:
        """Prune a circuit, note it, and return its key."""
        pruned = prune(mask.cpu(), self.graph)
        packed = np.packbits(pruned.numpy())
        key = hashlib.sha256(packed.tobytes()).hexdigest()
        self.masks[key] = packed
        self.sizes[key] = int(pruned.sum())
        return key

    def unpack(self, keys: Sequence[str]) -> Bool[Tensor, "circuits edges"]:
        """The masks of some circuits."""
        packed = np.stack([self.masks[key] for key in keys])
        return torch.from_numpy(np.unpackbits(packed, axis=1, count=self.graph.n_edges)).bool()


@dataclass(frozen=True)
class _Measure:
    """Runs circuits that the cache lacks."""

    plan: _Plan
    evaluate: Evaluate
    progress: Progress
    cache: MutableMapping[str, Tensor]

    def __call__(self, keys: Sequence[str]) -> dict[str, Float[Tensor, "examples"]]:
        """The metric of some circuits of the plan, by key."""
        metric = {key: self.cache[key].double() for key in keys if key in self.cache}
        missing = [key for key in keys if key not in metric]
        total = len(self.plan.masks)
        self.progress(len(metric), total)
        for key, row in self.rows(missing) if missing else ():
            metric[key] = self.cache[key] = row
            self.progress(len(metric), total)
        if len({row.shape for row in metric.values()}) > 1:
            raise SearchError("Circuits were run on different numbers of examples. Run all of them on the same ones.")
        return metric

    def rows(self, keys: Sequence[str]) -> Iterator[tuple[str, Float[Tensor, "examples"]]]:
        """Run circuits, and check what comes back one by one."""
        count, rows = 0, iter(self.evaluate(self.plan.unpack(keys)))
        for key, row in zip(keys, rows, strict=False):
            row = row.detach().cpu().double()
            if row.ndim != 1 or not bool(row.isfinite().all()):
                raise SearchError(
                    f"A circuit of {self.plan.sizes[key]:,} edges gave a metric of shape {list(row.shape)}"
                    f"{', not all of it finite' if row.ndim == 1 else ''}. Expected one finite number an example."
                )
            count += 1
            yield key, row
        if count < len(keys) or next(rows, None) is not None:
            found = count if count < len(keys) else "more"
            raise SearchError(f"{len(keys)} circuits were to be run, but {found} gave a result. Give one for each.")


def _silent(*_: int) -> None: ...


def _curve(
    side: str,
    keys: list[list[str]],
    measured: tuple[_Plan, dict[str, Tensor]],
    bootstrap: Bootstrap,
    settings: ProofSettings,
) -> Curve:
    """The curve of one ranking, or of all draws of a control; `keys` are by draw and size."""
    plan, metric = measured
    values = torch.stack([torch.stack([metric[key] for key in draw]) for draw in keys])
    curve = bootstrap.faithfulness(values)
    each = faithfulness(values.mean(-1), bootstrap.full.mean(), bootstrap.empty.mean())
    kept = torch.tensor([[plan.sizes[key] for key in draw] for draw in keys], dtype=torch.float64).mean(0).tolist()
    points = tuple(
        Point(
            size,
            budget,
            kept[i],
            estimate(curve.value[i], curve.samples[:, i], bootstrap.level),
            tuple(each[:, i].tolist()),
        )
        for i, (size, budget) in enumerate(
            zip(settings.sizes, budgets(plan.graph.n_edges, settings.sizes), strict=True)
        )
    )
    sizes = torch.tensor(settings.sizes, dtype=torch.float64)
    area = cpr if side == "signed" else cmd
    span = math.log(settings.sizes[-1] / settings.sizes[0])
    linear: Sampled = curve.map(lambda f: area(sizes, f))
    log: Sampled = curve.map(lambda f: area(sizes, f, log=True) / span)
    return Curve(points, estimate(*linear, bootstrap.level), estimate(*log, bootstrap.level))
