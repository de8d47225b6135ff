"""What every task does alike: check what was asked for, draw distinct prompts, and hand them over as pairs."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from random import Random
from typing import Any, NamedTuple, TypeVar

from interpose.errors import TaskError
from interpose.tasks._align import Tokenized, pairs, tokenizer_of
from interpose.tasks._pairs import Pairs
from interpose.tasks._roles import Filled, Span, token_roles
from interpose.tasks.base import SPLITS, Task

Cell = TypeVar("Cell")


class Example(NamedTuple):
    """One pair before it is tokens."""

    clean: Filled
    corrupt: str
    answer: str
    wrong: str
    clean_inputs: Mapping[str, Any]
    corrupt_inputs: Mapping[str, Any]


@dataclass(frozen=True)
class Request:
    """What pairs were asked for, of which task, once it is known to be possible.

    Attributes:
        task: the task with its settings.
        n: how many pairs.
        seed: which draw.
        split: which material.
        counterfactual: how a prompt is changed.
    """

    task: Task
    n: int
    seed: int
    split: str
    counterfactual: str

    @property
    def name(self) -> str:
        """The task's name in `info` and on the command line."""
        return type(self.task).__module__.rpartition(".")[2].replace("_", "-")

    def random(self, purpose: str) -> Random:
        """Random numbers for one purpose.

        What the clean prompts are drawn with knows nothing of the counterfactual, so that every counterfactual has the
        same clean prompts, however many numbers its own changes take.
        """
        return Random(f"{self.name} {purpose} {self.seed} {self.split} {self.n}")

    def draw(self, cells: Sequence[Cell], each: int, random: Random) -> list[tuple[Cell, int]]:
        """Distinct items, as many of each cell as of any other, or one more.

        Args:
            cells: what is balanced, such as sentences and orders; the first ones are drawn from once more than the
                others where n leaves a rest, so give them in a random order.
            each: how many items a cell has; an item is its cell and a number below this, and numbers drawn without
                replacement are distinct items.
            random: where the numbers come from.

        Returns:
            n items in a random order.

        Raises:
            TaskError: if there are fewer than n items, or n is no number of pairs.
        """
        most = each * len(cells)
        if self.n < 1 or self.n > most:
            raise TaskError(
                f"{type(self.task).__name__} was asked for n={self.n} pairs. Split {self.split!r} has {most} distinct "
                f"prompts for this tokenizer: write an n from 1 to {most}."
            )
        drawn: list[tuple[Cell, int]] = []
        for rank, cell in enumerate(cells):
            count = self.n // len(cells) + (rank < self.n % len(cells))
            drawn += [(cell, number) for number in random.sample(range(each), count)]
        random.shuffle(drawn)
        return drawn

    def pairs(self, model: Tokenized, examples: Sequence[Example]) -> Pairs:
        """The examples as pairs, with the words of the clean prompts as token roles.

        Raises:
            TaskError: if an example's prompts do not align, or an answer is not one token.
        """
        made = pairs(
            model,
            clean=[example.clean.text for example in examples],
            corrupt=[example.corrupt for example in examples],
            answers=[example.answer for example in examples],
            wrong=[example.wrong for example in examples],
        )
        words: list[Mapping[str, Span]] = [example.clean.words for example in examples]
        return replace(
            made,
            info={
                "task": self.name,
                "counterfactual": self.counterfactual,
                "split": self.split,
                "seed": self.seed,
                "n": self.n,
                **asdict(self.task),
            },
            clean_inputs=tuple(example.clean_inputs for example in examples),
            corrupt_inputs=tuple(example.corrupt_inputs for example in examples),
            roles=token_roles(tokenizer_of(model), made.clean, words),
        )


def request(task: Task, n: int, seed: int, split: str, counterfactual: str | None) -> Request:
    """Check what was asked for; without a counterfactual it is the task's first.

    Raises:
        TaskError: if the split or the counterfactual is unknown.
    """
    kinds = tuple(task.counterfactuals)
    chosen = counterfactual or kinds[0]
    for what, given, known in (("split", split, SPLITS), ("counterfactual", chosen, kinds)):
        if given not in known:
            raise TaskError(f"{type(task).__name__} has no {what} {given!r}; expected one of {', '.join(known)}.")
    return Request(task, n, seed, split, chosen)


def called(tokenizer: Any) -> str:
    """How an error names a tokenizer."""
    return " ".join(filter(None, [type(tokenizer).__name__, repr(getattr(tokenizer, "name_or_path", ""))]))
