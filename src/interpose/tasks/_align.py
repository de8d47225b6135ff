"""From text to aligned tokens: every check that keeps a counterfactual pair comparable position by position."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from interpose.errors import TaskError
from interpose.tasks._pairs import Pairs


@runtime_checkable
class Tokenized(Protocol):
    """Anything with a tokenizer: a Model, or whatever stands in for one while pairs are made."""

    tokenizer: Any


@dataclass(frozen=True)
class Wording:
    """How an error speaks of a row, so that it names the user's own list or the line of the user's own file.

    Attributes:
        place: what stands in front of a message about a row, such as `mine.jsonl:3: `.
        field: what a value is called, by the name of its column and its row, such as `answers[2]`.
        pair: what a pair is called, by its row, such as `Pair 2`.
    """

    place: Callable[[int], str] = lambda _: ""
    field: Callable[[str, int], str] = lambda column, row: f"{column}[{row}]"
    pair: Callable[[int], str] = lambda row: f"Pair {row}"


def pairs(
    model: Tokenized, clean: Sequence[str], corrupt: Sequence[str], answers: Sequence[str], wrong: Sequence[str]
) -> Pairs:
    """Counterfactual pairs from your own prompts.

    Each answer is the single token that would follow the prompt. In most vocabularies a word inside a sentence starts
    with its space, so that the answer to "... gave it to" is " Mary", not "Mary".

    Args:
        model: the model whose tokenizer is used.
        clean: prompts that end right before the answer.
        corrupt: the same prompts, changed, each with as many tokens as its clean one.
        answers: what is right after each clean prompt, one token.
        wrong: what it is compared with, one token.

    Returns:
        The pairs, padded on the left to the longest.

    Raises:
        TaskError: if the lists differ in length or are no lists of text, if the two prompts of a pair differ in their
            number of tokens, or if an answer is not one token or equals the wrong one.
    """
    columns = {"clean": clean, "corrupt": corrupt, "answers": answers, "wrong": wrong}
    for name, column in columns.items():
        _check_texts(name, column)
    counts = {name: len(column) for name, column in columns.items()}
    if len(set(counts.values())) > 1 or not len(clean):
        said = ", ".join(f"{name} has {count}" for name, count in counts.items())
        raise TaskError(f"clean, corrupt, answers and wrong need the same number of texts, at least one, but {said}.")
    return aligned(tokenizer_of(model), columns, Wording())


def aligned(tokenizer: Any, columns: Mapping[str, Sequence[str]], wording: Wording) -> Pairs:
    """Pairs from four columns of text of one length: `clean`, `corrupt`, `answers` and `wrong`; see `pairs`.

    Raises:
        TaskError: as `pairs`, in this wording.
    """
    clean, corrupt, answers, wrong = (columns[name] for name in ("clean", "corrupt", "answers", "wrong"))
    right_ids = _answers(tokenizer, "answers", answers, wording)
    wrong_ids = _answers(tokenizer, "wrong", wrong, wording)
    for row, (right, other) in enumerate(zip(right_ids, wrong_ids, strict=True)):
        if right == other:
            raise TaskError(
                f"{wording.place(row)}{wording.field('answers', row)} = {answers[row]!r} and "
                f"{wording.field('wrong', row)} = {wrong[row]!r} are the same token ({right}), so "
                "their difference is always zero. Write two different tokens."
            )
    clean_ids, corrupt_ids = encode(tokenizer, clean), encode(tokenizer, corrupt)
    for row, (one, other) in enumerate(zip(clean_ids, corrupt_ids, strict=True)):
        _check_aligned(tokenizer, wording.place(row) + wording.pair(row), one, other)
    clean_tokens, mask = left_padded(tokenizer, clean_ids)
    return Pairs(
        clean=tuple(clean),
        corrupt=tuple(corrupt),
        clean_tokens=clean_tokens,
        corrupt_tokens=left_padded(tokenizer, corrupt_ids)[0],
        mask=mask,
        answers=torch.tensor(right_ids),
        wrong=torch.tensor(wrong_ids),
        info={"task": "custom", "n": len(clean)},
    )


def tokenizer_of(model: Tokenized) -> Any:
    """The model's tokenizer.

    Raises:
        TaskError: if it has none.
    """
    if model.tokenizer is None:
        raise TaskError(
            "This model has no tokenizer, so prompts cannot be turned into tokens. Give it one: "
            "ip.wrap(module, tokenizer=...)."
        )
    return model.tokenizer


def encode(tokenizer: Any, texts: Sequence[str]) -> list[list[int]]:
    """Token ids of each text, with whatever the tokenizer puts in front of a prompt, unpadded."""
    return [list(row) for row in tokenizer(list(texts))["input_ids"]]


def pieces(tokenizer: Any, texts: Sequence[str]) -> list[list[int]]:
    """The token ids of each text as it would stand inside a sentence, without any special token.

    Some vocabularies give a leading space a token of its own at the start of a text only; a text that starts with
    a space is therefore read after a word.
    """
    found = [list(ids) for ids in tokenizer(list(texts), add_special_tokens=False)["input_ids"]]
    inner = [row for row, text in enumerate(texts) if len(found[row]) != 1 and text.startswith(" ")]
    if inner:
        # All at once: a task asks for the pieces of a thousand words.
        words = ["a", *("a" + texts[row] for row in inner)]
        before, *after = (list(ids) for ids in tokenizer(words, add_special_tokens=False)["input_ids"])
        for row, ids in zip(inner, after, strict=True):
            found[row] = ids[len(before) :] if ids[: len(before)] == before else found[row]
    return found


def is_one_token(tokenizer: Any, ids: Sequence[int]) -> bool:
    """Whether a text with these token ids is one token of its own, rather than several or an unknown word."""
    return len(ids) == 1 and ids[0] != getattr(tokenizer, "unk_token_id", None)


def left_padded(tokenizer: Any, rows: Sequence[Sequence[int]]) -> tuple[Int[Tensor, "n pos"], Bool[Tensor, "n pos"]]:
    """Rows of token ids as one tensor padded on the left, and the mask that is True on tokens."""
    width = max(len(row) for row in rows)
    # The mask hides padding, so any id will do where the tokenizer names none.
    ids = (getattr(tokenizer, name, None) for name in ("pad_token_id", "eos_token_id"))
    filler = next((token for token in ids if token is not None), 0)
    tokens = torch.tensor([[filler] * (width - len(row)) + list(row) for row in rows])
    mask = torch.tensor([[False] * (width - len(row)) + [True] * len(row) for row in rows])
    return tokens, mask


def _check_texts(name: str, column: object) -> None:
    if isinstance(column, str):
        raise TaskError(f"{name} is one text, {column!r}; expected a list of texts. Write {name}=[{column!r}].")
    if not isinstance(column, Sequence):
        raise TaskError(
            f"{name} is of type {type(column).__name__}; expected a list of texts, as in {name}=['...', '...']."
        )
    for row, text in enumerate(column):
        if not isinstance(text, str):
            raise TaskError(f"{name}[{row}] is {text!r}, of type {type(text).__name__}; expected a text.")
        if not text:
            raise TaskError(f"{name}[{row}] is empty; expected a text of at least one token.")


def _answers(tokenizer: Any, name: str, texts: Sequence[str], wording: Wording) -> list[int]:
    found = pieces(tokenizer, texts)
    for row, (text, ids) in enumerate(zip(texts, found, strict=True)):
        said = f"{wording.place(row)}{wording.field(name, row)} = {text!r}"
        if len(ids) != 1:
            raise TaskError(f"{said} is {len(ids)} tokens {_advice(tokenizer, text, ids)}")
        if not is_one_token(tokenizer, ids):
            raise TaskError(f"{said} is not in this model's vocabulary. Choose an answer that is.")
    return [ids[0] for ids in found]


def _advice(tokenizer: Any, text: str, ids: Sequence[int]) -> str:
    shown = ", ".join(repr(tokenizer.decode([token])) for token in ids)
    other = text.lstrip(" ") if text.startswith(" ") else " " + text
    if other and is_one_token(tokenizer, pieces(tokenizer, [other])[0]):
        how = "with its leading space" if other.startswith(" ") else "without the space in front"
        advice = f"The same text {how} is one token: write {other!r}."
    else:
        advice = "Choose an answer that this model's vocabulary has as one token."
    return f"({shown}); expected exactly one. {advice}"


def _check_aligned(tokenizer: Any, pair: str, clean: Sequence[int], corrupt: Sequence[int]) -> None:
    if len(clean) == len(corrupt):
        return
    table = [("", "clean", "corrupt", "")]
    for position, (one, other) in enumerate(zip_longest(clean, corrupt)):
        left, right = ("-" if token is None else repr(tokenizer.decode([token])) for token in (one, other))
        table.append((str(position), left, right, "" if one == other else "<"))
    widths = [max(len(line[column]) for line in table) for column in range(3)]
    lines = ["  ".join(cell.ljust(wide) for cell, wide in zip(line, [*widths, 0], strict=True)) for line in table]
    raise TaskError(
        f"{pair} does not align: its clean prompt has {len(clean)} tokens and its corrupt prompt {len(corrupt)}.\n"
        + "\n".join("  " + line.rstrip() for line in lines)
        + "\nBoth need the same number, since they are compared position by position. Change the words at the first "
        "'<' so that both take as many tokens: a name or a number often takes one token here and several there."
    )
