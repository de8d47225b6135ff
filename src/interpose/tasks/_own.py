"""A file of pairs as a task: its pairs are dealt into splits that share no prompt."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from random import Random

from interpose.errors import TaskError
from interpose.tasks._files import kinds, made, read
from interpose.tasks._table import Row
from interpose.tasks.base import SPLITS, CausalModel, Pairs, Task, Tokenized

_SHARES = {"train": 0.5, "validation": 0.25, "test": 0.25}


@dataclass(frozen=True)
class Own(Task):
    """Pairs of one's own, from a file.

    The pairs are dealt into `train` (half of them), `validation` and `test` (a quarter each) by the seed. Pairs that
    have a prompt in common, clean or corrupt, go to the same split, so that no prompt is in two. That is less than the
    tasks of interpose promise, whose splits share no template and no word either.

    Attributes:
        path: the file; see `ip.read_pairs` for its form.
    """

    path: str

    @property
    def counterfactuals(self) -> Mapping[str, str]:
        """The counterfactuals that the file offers: the columns of a CSV, else one.

        Raises:
            TaskError: the file cannot be read.
        """
        return kinds(Path(self.path))[1]

    def pairs(
        self, model: Tokenized, n: int = 64, seed: int = 0, split: str = "train", counterfactual: str | None = None
    ) -> Pairs:
        """Draw pairs of one split; see `Task.pairs`. The whole file is checked, whatever is drawn.

        Raises:
            TaskError: the file cannot be used, the split is unknown, or it has fewer than n pairs.
        """
        if split not in SPLITS:
            raise TaskError(f"{self.path} has no split {split!r}; expected one of {', '.join(SPLITS)}.")
        source, table, tokenizer = read(model, Path(self.path), counterfactual)
        made(source, table, tokenizer, table.rows)
        dealt = _deal(table.rows, Random(f"own {seed}"))
        rows = dealt[split]
        if not 1 <= n <= len(rows):
            counts = ", ".join(f"{name} {len(part)}" for name, part in dealt.items())
            raise TaskError(
                f"{self.path} was asked for n={n} pairs of its split {split!r}. Its {len(table.rows)} pairs are dealt "
                f"into {counts}; pairs that share a prompt stay together. "
                + (f"Write an n from 1 to {len(rows)}, or add pairs." if rows else "Add pairs with other prompts.")
            )
        drawn = made(source, table, tokenizer, Random(f"own {seed} {split}").sample(rows, n))
        return replace(drawn, info={**drawn.info, "split": split, "seed": seed})

    def causal_model(self) -> CausalModel:
        """There is none.

        Raises:
            TaskError: always; a file says nothing about how its task is solved.
        """
        raise TaskError(
            f"{self.path} is a file of pairs, which has no causal model. Write a task as a class to give it one; "
            "docs/own-task.md shows how."
        )


def _deal(rows: Iterable[Row], random: Random) -> dict[str, list[Row]]:
    """The rows of each split, those that share a prompt together."""
    groups = _groups(rows)
    random.shuffle(groups)
    dealt: dict[str, list[Row]] = {name: [] for name in SPLITS}
    total = sum(map(len, groups))
    for group in groups:
        # The split that lacks most of its share takes the next group.
        wanting = max(SPLITS, key=lambda name: _SHARES[name] * total - len(dealt[name]))
        dealt[wanting] += group
    return dealt


def _groups(rows: Iterable[Row]) -> list[list[Row]]:
    """Rows that hang together by common prompts, in the file's order."""
    leader: dict[str, str] = {}

    def find(text: str) -> str:
        while leader.setdefault(text, text) != text:
            leader[text] = leader[leader[text]]
            text = leader[text]
        return text

    rows = list(rows)
    for row in rows:
        leader[find(row.corrupt)] = find(row.clean)
    groups: dict[str, list[Row]] = {}
    for row in rows:
        groups.setdefault(find(row.clean), []).append(row)
    return list(groups.values())
