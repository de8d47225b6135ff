"""The one loop that trains models of the zoo: it is cut off and goes on without a bit of difference.

A checkpoint is one safetensors file, whole or absent: weights, the optimiser's tensors, and in its header, as JSON,
everything else. Nothing else is carried from one step to the next: what is random at a step follows from the seed and
the step's number.
"""

import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from interpose.errors import InterposeError
from interpose.search.progress import track
from interpose.studies._zoo.base import Trained, Training
from interpose.trace import Model
from interpose.wire import Format

_FILE = Format("checkpoint", "1", InterposeError)


@dataclass(frozen=True)
class Run:
    """One run of a recipe.

    Attributes:
        name: the recipe's.
        seed: of its first weights and of all that is drawn later.
        steps: how many there are.
        checkpoint: the file that it goes on from.
        every: seconds between two checkpoints.
    """

    name: str
    seed: int
    steps: int
    checkpoint: Path
    every: float = 20.0


@dataclass(frozen=True)
class _State:
    """How far a run is: steps done, and seconds that they took."""

    step: int
    seconds: float


def train(recipe: Trained, model: Model, run: Run) -> float:
    """Train a model, from its checkpoint where there is one; the model's network is changed.

    Args:
        recipe: how.
        model: with its first weights.
        run: which run this is.

    Returns:
        the seconds that all steps took, also those before a checkpoint.

    Raises:
        InterposeError: the checkpoint is of another run, or the loss is no number.
    """
    model.network.train().requires_grad_(True)
    training = recipe.training(model, run.steps)
    base = [group["lr"] for group in training.optimiser.param_groups]
    state = _resume(model, training, run) if run.checkpoint.is_file() else _State(0, 0.0)
    begun = saved = time.monotonic() - state.seconds
    saved += state.seconds
    left = range(state.step, run.steps)
    for step in track(left, len(left), f"Training {run.name}"):
        _step(training, step, run.seed, base)
        now = time.monotonic()
        if now - saved >= run.every and step + 1 < run.steps:
            _save(model, training, run, _State(step + 1, now - begun))
            saved = now
    model.network.eval().requires_grad_(False)
    return time.monotonic() - begun


def _step(training: Training, step: int, seed: int, base: list[float]) -> None:
    random = torch.Generator().manual_seed(seed * 1_000_003 + step)
    for group, rate in zip(training.optimiser.param_groups, base, strict=True):
        group["lr"] = rate * training.rate(step)
    with torch.random.fork_rng():  # whatever asks torch itself, such as dropout, is seeded by the step too
        torch.manual_seed(seed * 1_000_003 + step)
        loss = training.loss(step, random)
    if not bool(loss.isfinite()):
        raise InterposeError(
            f"The loss at step {step} is {loss.item()}. Lower the learning rate of the recipe, or set its `clip`."
        )
    training.optimiser.zero_grad(set_to_none=True)
    loss.backward()
    if training.clip is not None:
        owned = [weight for group in training.optimiser.param_groups for weight in group["params"]]
        torch.nn.utils.clip_grad_norm_(owned, training.clip)
    training.optimiser.step()


def _save(model: Model, training: Training, run: Run, state: _State) -> None:
    held = training.optimiser.state_dict()
    tensors = {f"network.{name}": tensor for name, tensor in model.network.state_dict().items()}
    plain: dict[str, dict[str, Any]] = {}
    for number, name, value in _parts(held["state"]):
        if isinstance(value, torch.Tensor):
            tensors[f"optimiser.{number}.{name}"] = value
        else:
            plain.setdefault(str(number), {})[name] = value
    header = {
        "run": json.dumps(_identity(run)),
        "step": str(state.step),
        "seconds": repr(state.seconds),
        "state": json.dumps(plain),
        "groups": json.dumps(held["param_groups"]),
    }
    _FILE.write(run.checkpoint, tensors, header)


def _resume(model: Model, training: Training, run: Run) -> _State:
    tensors, header = _FILE.read(run.checkpoint)
    found = json.loads(header["run"])
    if found != _identity(run):
        raise InterposeError(
            f"{run.checkpoint} is of a run with {_said(found)}, and this one has {_said(_identity(run))}. Give the "
            "same settings to go on with it, name another folder with --out, or remove the file to begin anew."
        )
    state: dict[int, dict[str, Any]] = {int(number): dict(held) for number, held in json.loads(header["state"]).items()}
    weights = {}
    for name, tensor in tensors.items():
        kind, _, rest = name.partition(".")
        if kind == "network":
            weights[rest] = tensor
        else:
            number, _, part = rest.partition(".")
            state.setdefault(int(number), {})[part] = tensor
    model.network.load_state_dict(weights)
    training.optimiser.load_state_dict({"state": state, "param_groups": json.loads(header["groups"])})
    return _State(int(header["step"]), float(header["seconds"]))


def _identity(run: Run) -> dict[str, Any]:
    return {"name": run.name, "seed": run.seed, "steps": run.steps}


def _said(identity: dict[str, Any]) -> str:
    return ", ".join(f"{key}={value}" for key, value in identity.items())


def _parts(state: dict[int, dict[str, Any]]) -> Iterator[tuple[int, str, Any]]:
    for number, held in state.items():
        for name, value in held.items():
            yield number, name, value
