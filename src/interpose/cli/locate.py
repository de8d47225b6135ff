"""`interpose locate`: the main job."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from interpose.cli.base import Argument, write_json


@dataclass(frozen=True)
class Locate:
    """Find the circuit that a model uses for a task, prove it against random circuits, and show it.

    Edges of the model are scored on one set of prompts. Circuits of ten sizes are then run on held-out prompts, beside
    random circuits of the same sizes. Writes `result.json`, `scores.safetensors` and `report.html`. A run that was cut
    off goes on where it stopped when the same command is given again.

    Examples:
        interpose locate ioi
        interpose locate ioi --method eap --examples 32 --out out/eap
        interpose locate ioi --model ./my-finetuned-model --counterfactual abc
        interpose locate my-pairs.jsonl --examples 50 --proof 25
    """

    task: Argument
    """Which task; `interpose tasks` lists them. Or a file of your own pairs: .jsonl, .json or .csv."""
    model: str = "smollm2-135m-instruct"
    """A name that `interpose models` lists, a folder, or a model id of the hub."""
    method: str = "eap-ig"
    """How edges are scored; `interpose methods` lists the ways."""
    examples: int = 64
    """Prompt pairs to search with."""
    proof: int = 32
    """Held-out prompt pairs to prove with; their names and templates occur in none of the others (of a file, their
    prompts)."""
    counterfactual: str | None = None
    """How prompts are corrupted; by default the task's first way."""
    out: Path | None = None
    """Folder to write to; by default out/TASK-METHOD."""
    seed: int = 0
    """Another seed draws other prompts and other random circuits."""
    draws: int = 5
    """Random circuits of each kind and size, 5 or more."""
    batch_size: int = 16
    """Prompt pairs in one forward pass; lower it when memory is short."""
    at_chance: Literal["stop", "go-on"] = "stop"
    """What to do where the model gets the task right no more often than a coin would."""
    device: str | None = None
    """Where to run, such as cuda; by default the processor."""
    mib: bool = False
    """Also write the scores as JSON of the MIB circuit track: scores.mib.json."""
    json: bool = False
    """Print the result as JSON."""

    def run(self) -> None:
        """Run the job.

        Raises:
            InterposeError: the job failed.
            UsageError: a name or a number cannot be meant.
        """
        from interpose.cli._job import locate

        out = self.out or Path("out") / f"{Path(self.task).stem}-{self.method}"
        result = locate(self, out)
        if self.json:
            write_json(result.model_dump(mode="json"))
