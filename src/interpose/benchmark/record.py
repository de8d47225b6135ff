"""What became of one cell, as data: the file `KEY.json` of a benchmark."""

import json
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AwareDatetime, Field, ValidationError, model_validator

from interpose.errors import InterposeError
from interpose.report.evidence import Count, Finite, Part
from interpose.report.result import Accuracy, Result

SCHEMA_VERSION = 1
Status = Literal["done", "at chance", "too long", "does not apply", "failed"]
Rate = Annotated[float, Field(ge=0, le=1)]


class Cost(Part):
    """What the search took: seconds, passes, and the most memory on top of what was held before.

    `memory_of` says what `memory` (bytes) counts; it is None where nothing can tell.
    """

    seconds: Finite
    forward: Count
    backward: Count
    memory: Count | None
    memory_of: str


class Failure(Part):
    """Why there is no result: the kind of error, what it says, and the end of where it came from."""

    kind: str
    message: str
    trace: str


class ScoresFile(Part):
    """Where the scores of a cell came from, where a file brought them; see `interpose.benchmark.given.Origin`."""

    file: str
    sha256: str
    format: str
    found_by: str
    sign: Literal["helps", "hurts", "check"]
    positive_in_file: Literal["helps", "hurts"]
    highest: Finite | None
    lowest: Finite | None
    checked_on: Count


class Record(Part):
    """What became of one cell.

    Attributes:
        status: `done`; `at chance`, where the model does not prefer the answer; `too long`, where the work would have
            gone over the limit; `does not apply`, where the method scores neither edges nor nodes or a file of scores
            is of another model; or `failed`.
        key: a hash of all that can change the cell.
        cell: what was asked, as `Cell` takes it.
        weights_hash: of the model; empty where it could not be loaded.
        dtype: of the model's weights.
        accuracy: how often the model prefers the answer, on the pairs of the proof.
        result: what was found, as in `result.json` of `interpose locate`.
        units: what the method scored.
        cost: of the search; where scores were given, of reading them and checking their sign.
        given: the file that brought the scores, where none were searched for.
        seconds: of the whole cell; circuits that a cell before it had run already are not run again.
        weighted_edges: edges of the signed circuits after pruning, each weighted by the share of its source's outputs
            that is in the circuit, which is all of it for edges and nodes; one number a size.
        auroc: of the scores against the edges that are known to matter; None where none are known.
        estimated_hours: what a cell that was stopped would have taken.
        failure: why there is no result.
    """

    schema_version: Literal[1] = SCHEMA_VERSION
    status: Status
    key: str
    created: AwareDatetime
    cell: dict[str, Any]
    weights_hash: str
    dtype: str
    machine: str
    versions: dict[str, str]
    accuracy: Accuracy | None = None
    result: Result | None = None
    units: Literal["edges", "nodes"] | None = None
    cost: Cost | None = None
    given: ScoresFile | None = None
    seconds: Finite | None = None
    weighted_edges: tuple[Finite, ...] = ()
    auroc: Rate | None = None
    estimated_hours: Finite | None = None
    failure: Failure | None = None

    @model_validator(mode="after")
    def _consistent(self) -> "Record":
        needs = {
            "done": (self.result, self.units, self.cost, self.seconds, self.accuracy),
            "at chance": (self.accuracy,),
            "too long": (self.estimated_hours,),
            "does not apply": (self.failure,),
            "failed": (self.failure,),
        }
        if any(part is None for part in needs[self.status]) or (self.result is not None) != (self.status == "done"):
            raise ValueError(f"a cell that is {self.status!r} must say so with its parts, and with no others")
        return self

    @property
    def label(self) -> str:
        """Method, task and model in a few words."""
        return f"{self.cell['method']} on {self.cell['task']}, {Path(self.cell['model']).name}"

    @classmethod
    def load(cls, path: Path) -> "Record":
        """Read a record.

        Raises:
            InterposeError: it is not there, damaged, or of another version.
        """
        try:
            return cls.model_validate(json.loads(path.read_text(encoding="utf-8")))
        except OSError as error:
            raise InterposeError(f"There is no record at {path}: {error.strerror}.") from error
        except (ValueError, ValidationError) as error:
            raise InterposeError(f"{path} is not the record of a cell of this version: {error}") from error
