"""Whole matrices by name."""

from dataclasses import dataclass

OWN = "own"
"""In place of a task: the one that a model of the zoo was made for."""


@dataclass(frozen=True)
class Preset:
    """A matrix.

    Attributes:
        models: each with the tasks that it is asked.
        zoo: also every model of the zoo that was made for a task, on that task.
        hours: the most that one cell may take; None for no limit.
        examples: pairs to search with.
        proof: pairs to prove with.
        batch_size: pairs in one forward pass.
    """

    models: dict[str, tuple[str, ...]]
    zoo: bool
    hours: float | None
    examples: int
    proof: int
    batch_size: int


PRESETS = {
    # Two cores and three hours: a cell that would take longer than a quarter of an hour stays blank.
    "small": Preset(
        models={"smollm2-135m-instruct": ("ioi", "subject-verb", "greater-than")},
        zoo=True,
        hours=0.25,
        examples=64,
        proof=32,
        batch_size=16,
    ),
    # The models and tasks of the MIB circuit track, from the hub.
    "paper": Preset(
        models={
            "openai-community/gpt2": ("ioi",),
            "Qwen/Qwen2.5-0.5B": ("ioi", "mcqa"),
            "google/gemma-2-2b": ("ioi", "mcqa"),
            "meta-llama/Llama-3.1-8B": ("ioi", "mcqa", "arithmetic"),
        },
        zoo=False,
        hours=None,
        examples=100,
        proof=100,
        batch_size=10,
    ),
}
