"""`interpose bench`: methods measured against one another on the same footing."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from interpose.cli.base import write_json

Track = Annotated[Literal["circuit"], tyro.conf.Positional, tyro.conf.arg(metavar="TRACK")]


@dataclass(frozen=True)
class Bench:
    """Measure methods: every model on every task by every method, with controls, intervals and what each cost.

    The track `circuit` scores edges (or nodes), runs the circuits of ten sizes on held-out prompts beside random
    circuits, and writes a leaderboard: index.html, leaderboard.csv and leaderboard.json. Each cell is a file of its
    own; a run that was cut off goes on where it stopped when the same command is given again.

    Examples:
        interpose bench circuit --preset small
        interpose bench circuit --models smollm2-135m-instruct --tasks ioi --methods eap eap-ig:steps=20
        interpose bench circuit --tasks ioi --method ./my_method.py --methods eap-ig --hours 0.5
        interpose bench circuit --tasks ioi --scores importances.json --methods eap-ig
        interpose bench circuit --preset paper --engine ray --address auto --device cuda
    """

    track: Track
    """What is measured; `circuit` is the one track there is."""
    models: tuple[str, ...] = ()
    """As in `interpose locate --model`; by default the small model that comes with interpose."""
    tasks: tuple[str, ...] = ()
    """`interpose tasks` lists them; `own` is the task that a model of the zoo was made for."""
    methods: tuple[str, ...] = ()
    """`interpose methods` lists them; settings follow a colon, as in eap-ig:steps=10,batch_size=4. By default all."""
    preset: Literal["small", "paper"] | None = None
    """A whole matrix: `small` for this machine, `paper` for the models of the MIB benchmark; options change it."""
    method: tuple[Path, ...] = ()
    """Files with methods of your own; each defines a class of its own name. The files are run."""
    scores: tuple[Path, ...] = ()
    """Files of scores found elsewhere, a row each: the MIB circuit track's (.json, .pt) or ours (.safetensors)."""
    sign: Literal["helps", "hurts", "check"] | None = None
    """What a positive score in those files says; `check`, the default for MIB's, runs circuits to find out."""
    mib: bool = False
    """Also write every cell's scores as JSON of the MIB circuit track, into the folder mib."""
    out: Path = Path("out/bench")
    """Folder to write to, and to find cells in."""
    engine: Literal["local", "ray"] = "local"
    """`ray` spreads cells over a Ray cluster."""
    address: str | None = None
    """With --engine ray: the cluster's address, `auto` for the one of this machine; by default one is started here."""
    examples: int | None = None
    """Prompt pairs to search with; by default the preset's, else 64."""
    proof: int | None = None
    """Held-out prompt pairs to prove with; by default the preset's, else 32."""
    counterfactual: str | None = None
    """How prompts are corrupted; by default each task's first way."""
    seed: int = 0
    """Another seed draws other prompts and other random circuits."""
    draws: int = 5
    """Random circuits of each kind and size, 5 or more."""
    batch_size: int | None = None
    """Prompt pairs in one forward pass, by default the preset's, else 16; lower it when memory is short."""
    device: str | None = None
    """Where to run, such as cuda; by default the processor."""
    hours: float | None = None
    """The most that one cell may take, by default the preset's; one that would take longer stays blank."""
    json: bool = False
    """Print the leaderboard as JSON."""

    def run(self) -> None:
        """Run the matrix.

        Raises:
            InterposeError: the job failed.
            UsageError: a name or a number cannot be meant.
        """
        from interpose.cli._bench import bench

        document = bench(self)
        if self.json:
            write_json(document)
