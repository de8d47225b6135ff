"""The numbers that a claim about a circuit rests on: estimates, sizes, areas and the verdict.

Every model refuses unknown fields and every number that is not finite: a result either holds evidence or is not made.
"""

import math
from collections.abc import Iterable
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator


def _finite(value: float) -> float:
    if not math.isfinite(value):
        raise ValueError(f"is {value}, which is no measurement: a result holds finite numbers only")
    return value


Finite = Annotated[float, AfterValidator(_finite)]
Fraction = Annotated[float, Field(gt=0, le=1)]
Count = Annotated[int, Field(ge=0)]


class Part(BaseModel):
    """What every part of a result has in common: it cannot be changed, and takes no field it does not know."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Estimate(Part):
    """A mean and its 95 % bootstrap interval over examples."""

    mean: Finite
    low: Finite
    high: Finite

    @model_validator(mode="after")
    def _ordered(self) -> "Estimate":
        if self.low > self.high:
            raise ValueError(f"the interval is upside down: low is {self.low} and high is {self.high}")
        return self


class ControlEstimate(Estimate):
    """The same for random circuits: the mean over `draws` of them, and an interval over draws and examples."""

    draws: Annotated[int, Field(ge=1)]


class Size(Part):
    """What was measured for circuits of one size.

    Attributes:
        fraction: The part of all edges that was kept, before pruning.
        edges: That many edges.
        edges_after_pruning: Edges of the signed circuit that lie on a path from the input to the logits.
        signed: Faithfulness of the circuit with the highest scores.
        absolute: Faithfulness of the circuit with the highest absolute scores.
        controls: Faithfulness of random circuits of this size, by the name of the control.
    """

    fraction: Fraction
    edges: Count
    edges_after_pruning: Count
    signed: Estimate
    absolute: Estimate
    controls: dict[str, ControlEstimate] = Field(min_length=1)

    @model_validator(mode="after")
    def _pruning_removes(self) -> "Size":
        if self.edges_after_pruning > self.edges:
            raise ValueError(f"pruning cannot add edges: {self.edges} before and {self.edges_after_pruning} after")
        return self

    @property
    def above_controls(self) -> bool:
        """Whether the signed circuit's whole interval lies above that of every control."""
        return all(self.signed.low > control.high for control in self.controls.values())


class Areas(Part):
    """Areas under the faithfulness curve of one ranking.

    Attributes:
        cpr: Area under f, over the fraction k of edges (higher is better).
        cmd: Area under |1 - f|, over k (lower is better).
        cpr_log: Mean of f over ln k, so that small circuits count as much as large ones.
        cmd_log: Mean of |1 - f| over ln k.
    """

    cpr: Estimate
    cmd: Estimate
    cpr_log: Estimate
    cmd_log: Estimate


class SizeVerdict(Part):
    """Whether the circuit of one size beat every control."""

    fraction: Fraction
    above: bool


class Verdict(Part):
    """Whether the claim holds: at every required size the circuit's interval lies above those of all controls."""

    holds: bool
    required: tuple[Fraction, ...] = Field(min_length=1)
    sizes: tuple[SizeVerdict, ...]

    @classmethod
    def of(cls, curve: Iterable[Size], required: Iterable[float]) -> "Verdict":
        """Judge a curve.

        Args:
            curve: The sizes measured.
            required: The sizes at which the circuit has to beat the controls, as fractions.

        Returns:
            The verdict.

        Raises:
            ValueError: A required size was not measured.
        """
        sizes = tuple(SizeVerdict(fraction=size.fraction, above=size.above_controls) for size in curve)
        above = {size.fraction: size.above for size in sizes}
        wanted = tuple(required)
        if missing := [fraction for fraction in wanted if fraction not in above]:
            raise ValueError(f"the curve has no size {missing[0]}, which the verdict needs: it has {sorted(above)}")
        return cls(holds=all(above[fraction] for fraction in wanted), required=wanted, sizes=sizes)

    @property
    def failed(self) -> tuple[float, ...]:
        """The required sizes at which the circuit did not beat the controls."""
        above = {size.fraction: size.above for size in self.sizes}
        return tuple(fraction for fraction in self.required if not above[fraction])
