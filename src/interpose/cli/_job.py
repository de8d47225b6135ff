"""The main job: check what is asked, load, find and prove, show."""

import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from interpose import __version__, discovery, tasks
from interpose.benchmark import ProofSettings
from interpose.benchmark.given import export_mib
from interpose.benchmark.job import Clock, Job, carry_out, draw, made
from interpose.benchmark.kept import Kept
from interpose.benchmark.result import result_of
from interpose.cli._progress import bars
from interpose.cli.base import make_folder
from interpose.errors import TaskError, UsageError
from interpose.loading import load
from interpose.report import Result, write
from interpose.tasks.base import Accuracy, Pairs, Rate, Task
from interpose.trace import Model

if TYPE_CHECKING:
    from interpose.cli.locate import Locate

MOST_EXAMPLES = 10_000


def locate(asked: "Locate", out: Path) -> Result:
    """Find, prove and show a circuit.

    Args:
        asked: what the command line says.
        out: the folder to write to.

    Returns:
        the result, which is then also in `out`.

    Raises:
        InterposeError: a stage failed.
        TaskError: the model does the task no better than chance.
        UsageError: a name or a number cannot be meant.
    """
    task = tasks.named(asked.task)
    method = discovery.load("interpose.methods", asked.method)
    check_counterfactual(asked.counterfactual, asked.task, task)
    check_numbers(asked.examples, asked.proof, asked.batch_size, asked.draws)
    if asked.at_chance == "stop":
        check_proof(asked.proof, ", or --at-chance go-on to search whatever the model can do")
    make_folder(out)
    job = Job(
        task=task,
        method=made(method, {}, asked.batch_size),
        counterfactual=asked.counterfactual,
        examples=asked.examples,
        proof=asked.proof,
        seed=asked.seed,
        draws=asked.draws,
        batch_size=asked.batch_size,
        command=_command(asked),
    )
    clock = Clock()
    with bars() as tell:
        with clock.stage("load the model"):
            model = load(asked.model, device=asked.device)
        material = draw(job, model, clock)
        _check_chance(asked, material.accuracy)
        kept = Kept(out, _identity(asked, model, material.search))
        found = carry_out(job, material, clock, tell, kept)
    result = result_of(found)
    found.scores.save(out / "scores.safetensors")
    if asked.mib:
        export_mib(out / "scores.mib.json", found.scores)
    result.save(out / "result.json")
    page = write(result, out / "report.html")
    kept.clear()
    print(f"{result_line(result)}\nReport: {page}", file=sys.stderr if asked.json else sys.stdout)
    return result


def check_counterfactual(name: str | None, of: str, task: Task) -> None:
    """Refuse a counterfactual that a task does not have.

    Raises:
        UsageError: the message lists those that it has.
    """
    if name not in (None, *task.counterfactuals):
        known = ", ".join(task.counterfactuals)
        raise UsageError(f"{of} has no counterfactual {name!r}. There are: {known}.")


def check_numbers(examples: int, proof: int, batch_size: int, draws: int) -> None:
    """Refuse numbers that cannot be meant, before anything is loaded.

    Raises:
        UsageError: the message says which.
    """
    for name, value in (("examples", examples), ("proof", proof)):
        if not 2 <= value <= MOST_EXAMPLES:
            raise UsageError(f"--{name} is {value}; write a number from 2 to {MOST_EXAMPLES:,}.")
    if batch_size < 1:
        raise UsageError(f"--batch-size is {batch_size}; write a number of pairs, 1 or more.")
    if draws < ProofSettings().draws:
        raise UsageError(f"--draws is {draws}; write {ProofSettings().draws} or more.")


def check_proof(proof: int, otherwise: str = "") -> None:
    """Refuse so few pairs to prove with that no model could be seen to do a task.

    Args:
        proof: how many pairs.
        otherwise: what may be written instead of more, behind a comma.

    Raises:
        UsageError: the message says how many are needed.
    """
    needed = Rate(1, 1).enough or 0
    if proof < needed:
        raise UsageError(
            f"--proof is {proof}; so few pairs cannot tell a model that does the task from a coin: with all of them "
            f"right the 95 % interval still holds 50 %. Write {needed} or more{otherwise}."
        )


def _check_chance(asked: "Locate", accuracy: Accuracy) -> None:
    """Refuse to explain what the model does not do, unless that is asked for."""
    if accuracy.above_chance:
        return
    what = (
        f"{asked.model} does {asked.task} no better than chance: it prefers the answer to the wrong one in "
        f"{accuracy.prefers} of {accuracy.n} held-out pairs, where chance is 50 %."
    )
    if asked.at_chance == "stop":
        enough = accuracy.prefers.enough
        more = f", take more pairs (a rate like this one lies above chance from --proof {enough} on)" if enough else ""
        raise TaskError(
            f"{what} Expected a 95 % interval that lies above 50 %, since what a model does not do has no circuit. "
            f"Choose another task or --model{more}, or write --at-chance go-on to search all the same."
        )
    print(f"warning: {what} The search goes on, as --at-chance says.", file=sys.stderr)


def result_line(result: Result) -> str:
    """What was found, in the report's own two sentences."""
    from interpose.report.story import answer

    return " ".join(answer(result))


def _identity(asked: "Locate", model: Model, search: Pairs) -> dict[str, Any]:
    """All that a kept measurement depends on."""
    names = ("task", "method", "examples", "proof", "counterfactual", "seed")
    return {name: getattr(asked, name) for name in names} | {
        "file": search.info.get("sha256"),
        "weights": model.weights_hash,
        "dtype": str(model.dtype),
        "interpose": __version__,
    }


def _command(asked: "Locate") -> str:
    """The command that gives this result again."""
    words = ["interpose", "locate", asked.task]
    for name, field in type(asked).__dataclass_fields__.items():
        value = getattr(asked, name)
        if name not in ("task", "json", "mib", "out") and value != field.default:
            words += [f"--{name.replace('_', '-')}", str(value)]
    return shlex.join(words)
