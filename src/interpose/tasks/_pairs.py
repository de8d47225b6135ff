"""What an experiment runs on: prompts in two versions, aligned token by token, and the two answers to compare."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from interpose.errors import TaskError
from interpose.graph import Batch


@dataclass(frozen=True, eq=False, repr=False)
class Pairs:
    """Counterfactual pairs: row i of `clean` and row i of `corrupt` have the same number of tokens.

    Rows are padded on the left, so position -1 is the last token of every prompt, and one mask serves both versions.
    The measure of the behaviour is m = logit(answer) - logit(wrong) at position -1, high on the clean prompts.

    Attributes:
        clean: the prompts on which the model shows the behaviour.
        corrupt: the same prompts with the part changed that the behaviour depends on.
        clean_tokens: token ids of `clean`.
        corrupt_tokens: token ids of `corrupt`.
        mask: True where there is a token, False on padding.
        answers: the token id that is right after the clean prompt.
        wrong: the token id it is compared with.
        info: where the pairs come from: task, counterfactual, split, seed, n, ...
        clean_inputs: a task's own high-level inputs of each clean prompt, for its causal model; empty if made by hand.
        corrupt_inputs: the same of each corrupt prompt.
        roles: by the name of a role that a token plays, such as `subject_last`, its position in each prompt, counted
            from the last (-1), so that it means the same on prompts of unequal length.
    """

    clean: tuple[str, ...]
    corrupt: tuple[str, ...]
    clean_tokens: Int[Tensor, "n pos"]
    corrupt_tokens: Int[Tensor, "n pos"]
    mask: Bool[Tensor, "n pos"]
    answers: Int[Tensor, " n"]
    wrong: Int[Tensor, " n"]
    info: Mapping[str, Any] = field(default_factory=dict)
    clean_inputs: tuple[Mapping[str, Any], ...] = ()
    corrupt_inputs: tuple[Mapping[str, Any], ...] = ()
    roles: Mapping[str, Int[Tensor, " n"]] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.clean)

    def __repr__(self) -> str:
        said = ", ".join(f"{key}={value!r}" for key, value in self.info.items() if key != "n")
        lengths = self.mask.sum(1)
        span = f"{int(lengths.min())}-{int(lengths.max())} tokens" if len(self) else "no tokens"
        return f"Pairs({len(self)} pairs, {span}{', ' + said if said else ''})"

    def __getitem__(self, rows: slice) -> "Pairs":
        """Some of the pairs, in order; their padding stays as it is.

        Raises:
            TaskError: if `rows` is not a slice.
        """
        if not isinstance(rows, slice):
            raise TaskError(
                f"Pairs takes a slice, not {rows!r}, so that what comes back is Pairs again. "
                "Write pairs[3:4] for one pair, or pairs.clean[3] for its prompt."
            )
        return self._rows(list(range(len(self)))[rows])

    def keep(self, chosen: Bool[Tensor, " n"]) -> "Pairs":
        """Only the pairs where `chosen` is True, for example those which the model gets right.

        Raises:
            TaskError: if `chosen` has another length than the pairs.
        """
        if len(chosen) != len(self):
            raise TaskError(
                f"keep() got {len(chosen)} values for {len(self)} pairs; expected one True or False for each."
            )
        return self._rows([row for row, kept in enumerate(chosen.tolist()) if kept])

    def _rows(self, rows: list[int]) -> "Pairs":
        index = torch.tensor(rows, dtype=torch.long, device=self.mask.device)
        return replace(
            self,
            clean=tuple(self.clean[row] for row in rows),
            corrupt=tuple(self.corrupt[row] for row in rows),
            clean_tokens=self.clean_tokens[index],
            corrupt_tokens=self.corrupt_tokens[index],
            mask=self.mask[index],
            answers=self.answers[index],
            wrong=self.wrong[index],
            info={**self.info, "n": len(rows)},
            clean_inputs=tuple(self.clean_inputs[row] for row in rows if self.clean_inputs),
            corrupt_inputs=tuple(self.corrupt_inputs[row] for row in rows if self.corrupt_inputs),
            roles={role: positions[index] for role, positions in self.roles.items()},
        )

    def batches(self, size: int) -> Iterator["Pairs"]:
        """The pairs in order, at most `size` at a time.

        Raises:
            TaskError: if `size` is less than one.
        """
        if size < 1:
            raise TaskError(f"batches() needs at least one pair a batch, but size is {size}.")
        for start in range(0, len(self), size):
            yield self[start : start + size]

    @property
    def differs(self) -> Bool[Tensor, "n pos"]:
        """True where the clean and the corrupt prompt have different tokens."""
        return (self.clean_tokens != self.corrupt_tokens) & self.mask

    def clean_batch(self) -> Batch:
        """What one forward pass is given to run the clean prompts."""
        return Batch.of_tokens(self.clean_tokens, self.mask)

    def corrupt_batch(self) -> Batch:
        """What one forward pass is given to run the corrupt prompts."""
        return Batch.of_tokens(self.corrupt_tokens, self.mask)

    def to(self, device: torch.device | str) -> "Pairs":
        """The same pairs with all tensors on `device`."""
        return replace(
            self,
            clean_tokens=self.clean_tokens.to(device),
            corrupt_tokens=self.corrupt_tokens.to(device),
            mask=self.mask.to(device),
            answers=self.answers.to(device),
            wrong=self.wrong.to(device),
            roles={role: positions.to(device) for role, positions in self.roles.items()},
        )
