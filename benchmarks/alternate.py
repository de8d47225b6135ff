"""Wall time side by side. Who gives another result is not timed; the others take turns, in an order drawn anew."""

import cProfile
import gc
import pstats
import random
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, final

import torch
from sweeps import HOOKS, Patcher, Sweep, layer_of
from timing import Progress
from torch import Tensor

OURS = "interpose"
RAW = next(iter(HOOKS))
TOLERANCE = 1e-3
"""How far two results may lie apart, in units of the logit difference."""
TOP = 8


@final
@dataclass(frozen=True)
class Effort:
    """How often and on how much things are timed.

    Attributes:
        rounds: in each, everyone is timed once.
        units: patches a round of whoever does one a forward; drawn anew each round.
        layers: layers a round of whoever does one a forward.
        seed: of draws and orders.
    """

    rounds: int
    units: int
    layers: int = 6
    seed: int = 0


@final
@dataclass
class Measured:
    """What came of one piece of work.

    Attributes:
        seconds: by name, round by round: the whole work, from a sample where it was not done whole.
        done: by name, how many of the patches were run while the clock ran, over all rounds.
        largest_difference: by name, the largest difference to interpose's result, timed runs included.
        largest_value: the largest size of a result, beside which differences are to be seen.
        reasons: by name, why it was not timed.
        notes: by name.
        profile: where interpose's time goes, in a run of its own.
    """

    seconds: dict[str, list[float]] = field(default_factory=dict)
    done: dict[str, int] = field(default_factory=dict)
    largest_difference: dict[str, float] = field(default_factory=dict)
    largest_value: float = 0.0
    reasons: dict[str, str] = field(default_factory=dict)
    notes: dict[str, str] = field(default_factory=dict)
    profile: list[dict[str, Any]] = field(default_factory=list)

    def saw(self, name: str, found: Tensor, wanted: Tensor) -> None:
        """Compare a result with interpose's; one that differs, or is no number, is named and loses its times."""
        if found.shape != wanted.shape:
            self.reasons[name] = f"gives shape {tuple(found.shape)}"
            return
        gap = (found.double().cpu() - wanted.double().cpu()).abs()
        difference = float(gap.max()) if bool(gap.isfinite().all()) else float("inf")
        self.largest_difference[name] = max(difference, self.largest_difference.get(name, 0.0))
        if not difference <= TOLERANCE:
            self.reasons[name] = f"gives another result: differs by {difference:.2g}"


def measure_sweep(
    sweep: Sweep, builders: Mapping[str, Callable[[Sweep], Patcher]], effort: Effort, ours: Callable[[], Tensor]
) -> Measured:
    """Time a sweep by interpose, whole, beside patchers, by samples.

    Args:
        sweep: what is patched.
        builders: makes each patcher; raw hooks among them, which decide whether interpose is right.
        effort: how often.
        ours: the sweep by interpose.
    """
    measured, made, cuda = Measured(), {}, sweep.model.device.type == "cuda"
    for name, builder in builders.items():
        try:
            made[name] = builder(sweep)
            measured.notes[name] = made[name].note
        except Exception as error:
            if name == RAW:
                raise
            measured.reasons[name] = reason(error)
    measured.profile, scores = profiled(ours, cuda)
    measured.largest_value = float(scores.abs().max())
    clean, draw = sweep.clean(), random.Random(effort.seed)

    def sampled(name: str) -> float:
        """Seconds that a whole sweep takes, by a sample of it, which is checked too."""
        picked = _picked(sweep, made[name], effort, draw)
        at_source, values = clocked(made[name].source, cuda)
        spent, found = clocked(lambda: made[name].patch(values, [sweep.units[index] for index in picked]), cuda)
        measured.saw(name, clean - found, scores[picked])
        measured.done[name] = measured.done.get(name, 0) + len(picked)
        return at_source + spent * len(sweep.units) / len(picked)

    def whole() -> float:
        spent, found = clocked(ours, cuda)
        measured.saw(OURS, found, scores)
        measured.done[OURS] = measured.done.get(OURS, 0) + len(scores)
        return spent

    calls = {name: lambda name=name: sampled(name) for name in made}
    _try_once(measured, calls)
    if RAW in measured.reasons:  # then it is interpose that has to be doubted
        measured.reasons[OURS] = f"differs from {RAW}: {measured.reasons[RAW]}"
        return measured
    measured.done.clear()
    take_turns(sweep.name, {OURS: whole, **calls}, measured, effort)
    return measured


def _try_once(measured: Measured, calls: Mapping[str, Callable[[], float]]) -> None:
    for name, call in calls.items():
        try:
            call()
        except Exception as error:
            if name == RAW:
                raise
            measured.reasons[name] = reason(error)


def take_turns(stage: str, calls: Mapping[str, Callable[[], float]], measured: Measured, effort: Effort) -> None:
    """Fill in the times of everyone who has given the right result so far.

    Args:
        stage: for the progress.
        calls: by name; each gives its seconds.
        measured: what is filled.
        effort: how often.
    """
    order = [name for name in calls if name not in measured.reasons]
    samples: dict[str, list[float]] = {name: [] for name in order}
    draw, progress = random.Random(effort.seed), Progress(stage, effort.rounds)
    for done in range(1, effort.rounds + 1):
        draw.shuffle(order)
        for name in order:
            gc.collect(1)
            samples[name].append(calls[name]())
        progress.after(done)
    measured.seconds = {name: samples[name] for name in calls if name in samples and name not in measured.reasons}


def _picked(sweep: Sweep, patcher: Patcher, effort: Effort, draw: random.Random) -> list[int]:
    """Which units a round does: some of all, or all of some layers."""
    if not patcher.by_layer:
        return draw.sample(range(len(sweep.units)), min(effort.units, len(sweep.units)))
    layers = sorted({layer_of(unit) for unit in sweep.units})
    chosen = set(draw.sample(layers, min(effort.layers, len(layers))))
    return [index for index, unit in enumerate(sweep.units) if layer_of(unit) in chosen]


def clocked(call: Callable[[], Any], cuda: bool) -> tuple[float, Any]:
    """Wall seconds of a call, to the end of what it asked a device to do, and what it gave."""
    if cuda:
        torch.cuda.synchronize()
    started = time.perf_counter()
    found = call()
    if cuda:
        torch.cuda.synchronize()
    return time.perf_counter() - started, found


def profiled(call: Callable[[], Any], cuda: bool) -> tuple[list[dict[str, Any]], Any]:
    """What takes most of a call's time by itself, functions or on CUDA kernels; and what the call gave."""
    if cuda:
        kinds = [torch.profiler.ProfilerActivity.CPU, torch.profiler.ProfilerActivity.CUDA]
        with torch.profiler.profile(activities=kinds) as device:
            found = call()
            torch.cuda.synchronize()
        # Kernels only: the operations that started them carry the same time once more.
        kernels = [each for each in device.key_averages() if each.device_type == torch.autograd.DeviceType.CUDA]
        parts = [(each.key, each.count, each.self_device_time_total / 1e6) for each in kernels]
        return _top(parts), found
    profile = cProfile.Profile()
    found = profile.runcall(call)
    stats: Any = pstats.Stats(profile)
    return _top([(_called(key), value[1], value[2]) for key, value in stats.stats.items()]), found


def _top(parts: Sequence[tuple[str, int, float]]) -> list[dict[str, Any]]:
    whole = sum(seconds for _, _, seconds in parts) or 1.0
    most = sorted(parts, key=lambda part: -part[2])[:TOP]
    return [{"name": name, "calls": calls, "seconds": took, "share": took / whole} for name, calls, took in most]


def _called(key: tuple[str, int, str]) -> str:
    file, _, name = key
    return (
        name.strip("<>").removeprefix("built-in method ")
        if file == "~"
        else f"{'/'.join(Path(file).parts[-2:])}: {name}"
    )


def reason(error: Exception) -> str:
    """An error in one line."""
    lines = str(error).strip().splitlines() or [""]
    return f"{type(error).__name__}: {lines[0][:200]}"
