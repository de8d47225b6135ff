"""What a proof says: faithfulness at every size, areas, and the same for random controls; plain data."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from interpose.benchmark.intervals import Estimate
from interpose.errors import SearchError

SCHEMA = 1


@dataclass(frozen=True)
class Point:
    """One circuit size.

    Attributes:
        size: share of all edges.
        budget: edges taken before pruning.
        kept: edges left after pruning; for a control the mean over its draws.
        faithfulness: of the circuit; for a control the mean over its draws.
        draws: faithfulness of each draw; one number for a circuit.
    """

    size: float
    budget: int
    kept: float
    faithfulness: Estimate
    draws: tuple[float, ...]


@dataclass(frozen=True)
class Curve:
    """Faithfulness over sizes, and its area.

    Attributes:
        points: one a size, rising.
        area: over k: CPR for circuits cut by signed score, CMD for circuits cut by the size of the score.
        log_area: the same as a mean over ln k (the area over ln k divided by the range of ln k).
    """

    points: tuple[Point, ...]
    area: Estimate
    log_area: Estimate

    def at(self, size: float) -> Point:
        """The point of one size. Raises SearchError where that size was not measured."""
        for point in self.points:
            if abs(point.size - size) < 1e-9:
                return point
        measured = ", ".join(f"{point.size:g}" for point in self.points)
        raise SearchError(f"No circuit of size {size:g} was measured. The sizes are {measured}.")


@dataclass(frozen=True)
class Curves:
    """The curves of one ranking.

    Attributes:
        signed: circuits of the highest scores; its area is CPR (higher is better).
        absolute: circuits of the largest scores, whatever their sign; its area is CMD (lower is better).
    """

    signed: Curve
    absolute: Curve

    @property
    def cpr(self) -> Estimate:
        """Area under the signed curve over k."""
        return self.signed.area

    @property
    def cmd(self) -> Estimate:
        """Area between the absolute curve and 1, over k."""
        return self.absolute.area

    @property
    def log_cpr(self) -> Estimate:
        """Mean of the signed curve over ln k."""
        return self.signed.log_area

    @property
    def log_cmd(self) -> Estimate:
        """Mean distance of the absolute curve from 1 over ln k."""
        return self.absolute.log_area


@dataclass(frozen=True)
class Proof:
    """How faithful the circuits of one ranking are, beside random circuits of the same sizes.

    Attributes:
        n_edges: edges of the whole model.
        examples: how many examples were held out for it.
        draws: random rankings of each control.
        resamples: of the bootstrap.
        level: share of resamples that an interval holds.
        seed: of controls and bootstrap.
        full: mean metric of the whole model.
        empty: mean metric of the empty circuit, which is the corrupted run.
        circuit: of the ranking that is judged.
        controls: by name: `uniform` and `shuffled`.
        evaluations: how many different circuits were run.
        schema: version of this layout.
    """

    n_edges: int
    examples: int
    draws: int
    resamples: int
    level: float
    seed: int
    full: Estimate
    empty: Estimate
    circuit: Curves
    controls: Mapping[str, Curves]
    evaluations: int
    schema: int = SCHEMA

    @property
    def cpr(self) -> Estimate:
        """Circuit performance ratio of the ranking: higher is better, not bounded."""
        return self.circuit.cpr

    @property
    def cmd(self) -> Estimate:
        """Circuit-model distance of the ranking: 0 is best."""
        return self.circuit.cmd

    def above_controls(self, size: float) -> bool:
        """Whether at this size the interval of the signed circuit lies wholly above that of every control."""
        low = self.circuit.signed.at(size).faithfulness.low
        return all(low > curves.signed.at(size).faithfulness.high for curves in self.controls.values())

    def to_dict(self) -> dict[str, Any]:
        """As plain dicts, lists and numbers, ready for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> "Proof":
        """Back from what `to_dict` gave, also after a way through JSON.

        Raises:
            SearchError: it is of another version, or a part is missing.
        """
        if data.get("schema") != SCHEMA:
            raise SearchError(f"This proof has schema {data.get('schema')}, but this interpose reads schema {SCHEMA}.")
        try:
            parts = {
                "full": Estimate(**data["full"]),
                "empty": Estimate(**data["empty"]),
                "circuit": _curves(data["circuit"]),
                "controls": {name: _curves(curves) for name, curves in data["controls"].items()},
            }
            return cls(**{**data, **parts})
        except (KeyError, TypeError, AttributeError) as error:
            raise SearchError(f"This is not a whole proof: {error}. Expected what to_dict() gives.") from error

    def __str__(self) -> str:
        names = ["circuit", *self.controls]
        lines = [f"{'size':>6}  {'edges':>9}  " + "  ".join(f"{name:>22}" for name in names)]
        for index, point in enumerate(self.circuit.signed.points):
            row = [point, *(curves.signed.points[index] for curves in self.controls.values())]
            cells = "  ".join(f"{each.faithfulness!s:>22}" for each in row)
            lines.append(f"{point.size:>6g}  {point.budget:>9,}  {cells}")
        for label, areas in (("CPR", "cpr"), ("CMD", "cmd"), ("CPR, ln k", "log_cpr"), ("CMD, ln k", "log_cmd")):
            row = [getattr(curves, areas) for curves in (self.circuit, *self.controls.values())]
            lines.append(f"{label:>17}  " + "  ".join(f"{each!s:>22}" for each in row))
        return "\n".join(lines)


def _curves(data: Mapping[str, Any]) -> Curves:
    return Curves(_curve(data["signed"]), _curve(data["absolute"]))


def _curve(data: Mapping[str, Any]) -> Curve:
    points = tuple(
        Point(**{**point, "faithfulness": Estimate(**point["faithfulness"]), "draws": tuple(point["draws"])})
        for point in data["points"]
    )
    return Curve(points, Estimate(**data["area"]), Estimate(**data["log_area"]))
