"""Prompts as a model reads them: tokens that can be looked at, counted and found."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, final

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from interpose.errors import TraceError
from interpose.graph import Batch, markup
from interpose.trace.lines import user_line
from interpose.trace.spelling import columns, spelled, visible, width

_WIDE = 100
"""How many characters a line may have where several prompts are shown side by side."""


@final
@dataclass(frozen=True, eq=False, repr=False)
class Tokens:
    """One or several prompts, cut into tokens and padded on the left. Prints as a table; `len` counts the prompts.

    Positions count a prompt's own tokens from 0, as positions in a block do: padding is not counted.

    Attributes:
        ids: the token ids.
        mask: true where a token is real, false where it is padding.
        prompts: the texts.
        tokenizer: what cut them.
    """

    ids: Int[Tensor, "prompt position"]
    mask: Bool[Tensor, "prompt position"]
    prompts: tuple[str, ...]
    tokenizer: Any

    @cached_property
    def batch(self) -> Batch:
        """What a model is called with: `input_ids`, `attention_mask`, `position_ids`, each [prompt, position]."""
        return Batch.of_tokens(self.ids, self.mask)

    @cached_property
    def lengths(self) -> tuple[int, ...]:
        """How many tokens each prompt has."""
        return tuple(self.mask.sum(1).tolist())

    @cached_property
    def texts(self) -> tuple[tuple[str, ...], ...]:
        """The text of each token of each prompt, without padding; blanks in front belong to a token."""
        return tuple(tuple(spelled(self.tokenizer, token) for token in row) for row in self._rows())

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, prompt: int) -> "Tokens":
        """One of the prompts by itself, without padding."""
        if not -len(self) <= prompt < len(self):
            raise IndexError(f"there is no prompt {prompt}: there are {len(self)}, counted from 0")
        real = self.mask[prompt]
        return Tokens(self.ids[prompt, real][None], real[real][None], (self.prompts[prompt],), self.tokenizer)

    def __iter__(self) -> Iterator["Tokens"]:
        return (self[prompt] for prompt in range(len(self)))

    def position(self, text: str) -> int:
        """Where a piece of the prompt ends: the position of the last token of its only occurrence.

        Args:
            text: a piece of the prompt; it may begin or end inside a token.

        Returns:
            the position, counted from 0.

        Raises:
            TraceError: the piece is not in the prompt, or more than once; or there are several prompts.

        Example:
            ```python
            tokens = model.tokens("When John and Mary went out, John gave a drink to")
            with model.trace(tokens):
                second = model.layers[5].output[:, tokens.position(", John")].save()
            ```
        """
        return self.span(text).stop - 1

    def span(self, text: str) -> slice:
        """The tokens that hold a piece of the prompt, as a slice of positions; see `position`."""
        if len(self) != 1:
            raise TraceError(
                f"{user_line()}: these are {len(self)} prompts, and a piece of text may stand elsewhere in each. Take "
                f"one of them: tokens[0].position({text!r})."
            )
        whole, ends = self._places()
        starts = [i for i in range(len(whole)) if text and whole.startswith(text, i)]
        found = [_overlapped(ends, start, start + len(text)) for start in starts]
        if len(found) != 1:
            raise TraceError(f"{user_line()}: {_not_one(text, whole, starts, found)}")
        return found[0]

    def beside(self, other: "Tokens") -> "Beside":
        """These prompts and as many others, token by token, with what differs marked; prints as a table.

        Args:
            other: the other prompts, such as the corrupt ones.

        Raises:
            TraceError: there are not as many, or a prompt has more tokens than its partner.
        """
        if len(self) != len(other):
            raise TraceError(
                f"{user_line()}: {len(self)} prompts cannot be laid beside {len(other)}; give as many on either side."
            )
        for number, (mine, theirs) in enumerate(zip(self, other, strict=True)):
            if mine.lengths != theirs.lengths:
                raise TraceError(f"{user_line()}: {_misfit(number if len(self) > 1 else None, mine, theirs)}")
        return Beside(self, other)

    def __str__(self) -> str:
        if len(self) == 1:
            return columns([("i", "token", "id"), *self._table(0)], "><>")
        return "\n\n".join([f"{len(self)} prompts, padded on the left", *self._aligned()])

    def __repr__(self) -> str:
        return str(self)

    def _repr_html_(self) -> str:
        shown = []
        for number in range(len(self)):
            index, token, ids = zip(*self._table(number), strict=True)
            name = f"prompt {number}" if len(self) > 1 else "prompt"
            shown.append(markup.table([name, *index], [["token", *token], ["id", *ids]], left=[0]))
        return "".join(shown)

    def _rows(self) -> list[list[int]]:
        return [row[real].tolist() for row, real in zip(self.ids, self.mask, strict=True)]

    def _table(self, prompt: int) -> list[tuple[str, str, str]]:
        """Position, text and id of each token, as they are shown."""
        ids = self._rows()[prompt]
        return [(str(i), visible(t), str(n)) for i, (t, n) in enumerate(zip(self.texts[prompt], ids, strict=True))]

    def _aligned(self) -> Iterator[str]:
        """The prompts, one below the other, so that the last tokens stand in one column; cut where too wide."""
        count, blank = self.ids.shape[1], [("", "", "")]
        padded = [blank * (count - length) + self._table(prompt) for prompt, length in enumerate(self.lengths)]
        sizes = [max(width(cell) for row in padded for cell in row[i]) for i in range(count)]
        for start, stop in _chunks(sizes, _WIDE - len(f"prompt {len(self)}  ")):
            lines = []
            for prompt, row in enumerate(padded):
                parts = zip(*row[start:stop], strict=True)
                names = (f"prompt {prompt}", "", "")
                lines += [(name, *part) for name, part in zip(names, parts, strict=True)]
            yield columns(lines, "<" + ">" * (stop - start))

    def _places(self) -> tuple[str, list[tuple[int, int]]]:
        """The text that is searched, and where each token begins and ends in it."""
        if getattr(self.tokenizer, "is_fast", False):
            found = self.tokenizer(self.prompts[0], return_offsets_mapping=True)
            return self.prompts[0], [(start, stop) for start, stop in found["offset_mapping"]]
        places, at = [], 0
        for text in self.texts[0]:
            places.append((at, at := at + len(text)))
        return "".join(self.texts[0]), places


@final
@dataclass(frozen=True, eq=False, repr=False)
class Beside:
    """Prompts beside others, token by token; prints as a table in which a sign marks the tokens that differ.

    Attributes:
        first: the prompts.
        second: the others, each of as many tokens as its partner.
    """

    first: Tokens
    second: Tokens

    @property
    def differs(self) -> Bool[Tensor, "prompt position"]:
        """Where the tokens differ; false on padding. Positions are those of the padded batch."""
        return (self.first.ids != self.second.ids) & self.first.mask

    def positions(self, prompt: int = 0) -> tuple[int, ...]:
        """The positions at which one pair of prompts differs, counted from its first token."""
        differs = self.differs[prompt][self.first.mask[prompt]]
        return tuple(torch.nonzero(differs).flatten().tolist())

    def __str__(self) -> str:
        shown = []
        for number, lines in enumerate(self._lines()):
            table = columns([("i", "first", "", "second"), *lines], "><<<")
            shown.append(table if len(self.first) == 1 else f"pair {number}\n{table}")
        return "\n\n".join(shown)

    def __repr__(self) -> str:
        return str(self)

    def _repr_html_(self) -> str:
        shown = []
        for number, found in enumerate(self._lines()):
            index, first, sign, second = zip(*found, strict=True)
            marked = [(row, at + 1) for at, differs in enumerate(sign) if differs for row in (0, 1)]
            name = f"pair {number}" if len(self.first) > 1 else ""
            rows = [["first", *first], ["second", *second]]
            shown.append(markup.table([name, *index], rows, left=[0], marked=marked))
        return "".join(shown)

    def _lines(self) -> Iterator[list[tuple[str, str, str, str]]]:
        for number, (one, other) in enumerate(zip(self.first.texts, self.second.texts, strict=True)):
            marked = self.positions(number)
            pairs = enumerate(zip(one, other, strict=True))
            yield [(str(i), visible(a), "\N{NOT EQUAL TO}" if i in marked else "", visible(b)) for i, (a, b) in pairs]


def _overlapped(places: Sequence[tuple[int, int]], start: int, stop: int) -> slice:
    """The tokens that hold any part of the characters from `start` to `stop`."""
    inside = [i for i, (begin, end) in enumerate(places) if begin < stop and end > start]
    return slice(inside[0], inside[-1] + 1) if inside else slice(0, 0)


def _not_one(text: str, whole: str, starts: Sequence[int], found: Sequence[slice]) -> str:
    if not starts:
        other = whole.lower().find(text.lower()) if text else -1
        advice = f" It has {whole[other : other + len(text)]!r}; capitals count." if other >= 0 else ""
        return f"the prompt has no {text!r}.{advice} The prompt is {whole!r}."
    ends = ", ".join(str(piece.stop - 1) for piece in found)
    start, stop = starts[-1], starts[-1] + len(text)
    longer = next((whole[i:stop] for i in range(start - 1, -1, -1) if whole.count(whole[i:stop]) == 1), None)
    advice = f"for the last write {longer!r}" if longer else "index by number"
    return (
        f"{text!r} stands {len(found)} times in the prompt, ending at the positions {ends}. Write more of what stands "
        f"before the one that is meant: {advice}."
    )


def _misfit(number: int | None, first: Tokens, second: Tokens) -> str:
    (mine,), (theirs,) = first.lengths, second.lengths
    which, more = ("first", mine - theirs) if mine > theirs else ("second", theirs - mine)
    pairs = enumerate(zip(first.texts[0], second.texts[0], strict=False))
    parting = next((i for i, (one, other) in pairs if one != other), None)
    where = ""
    if parting is not None:
        where = f" They part at position {parting}: {first.texts[0][parting]!r} and {second.texts[0][parting]!r}."
    pair = "" if number is None else f"in pair {number} "
    return (
        f"{pair}the {which} prompt is longer by {more} token{'s' if more > 1 else ''} ({mine} against {theirs}), so "
        f"positions do not line up.{where} Choose words that take as many tokens on both sides."
    )


def _chunks(sizes: Sequence[int], room: int) -> Iterator[tuple[int, int]]:
    """Runs of columns that fit a line, each of at least one."""
    start = used = 0
    for column, size in enumerate(sizes):
        if column > start and used + size + 2 > room:
            yield start, column
            start, used = column, 0
        used += size + 2
    yield start, len(sizes)
