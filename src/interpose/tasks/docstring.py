"""Which argument a docstring explains next, a task of Heimersheim and Janiak 2023, in functions of our own.

Source: https://www.alignmentforum.org/posts/u6KXXmKFbXfWzoAXn
"""

from collections.abc import Mapping
from dataclasses import dataclass
from math import perm
from types import MappingProxyType
from typing import NamedTuple

from interpose.tasks._align import tokenizer_of
from interpose.tasks._drawing import Example, request
from interpose.tasks._roles import Filled, fill
from interpose.tasks._words import arranged, plain_roles, single_of_split
from interpose.tasks.base import CausalModel, Pairs, Task, Tokenized, Variable

_KINDS = MappingProxyType(
    {
        "swap_next": "in the signature the answer and the argument after it change places, so the right one becomes "
        "the wrong one (2 tokens differ)",
        "later_docs": "the docstring explains the arguments one place further, so the right one becomes the wrong one "
        "(2 tokens differ)",
        "random_answer": "in the signature the answer and the argument after it become others, so neither is in the "
        "prompt (2 tokens differ)",
        "random_docs": "the docstring explains arguments that the signature lacks, so nothing says which is next (2 "
        "tokens differ)",
    }
)
_HEADS = MappingProxyType(
    {
        "train": (
            ("load", "Read what was stored before."),
            ("draw", "Show it on the screen."),
            ("merge", "Put two of them together."),
            ("check", "See whether all is well."),
        ),
        "validation": (("build", "Make a new one from scratch."), ("clean", "Take out what nobody needs.")),
        "test": (("send", "Pass it on to somebody else."), ("sort", "Bring them into a good sequence.")),
    }
)
_ARGUMENTS = MappingProxyType(
    {
        "train": "path size mode width height color title label index offset limit count source target format region "
        "parent child weight score buffer message header level",
        "validation": "name key value number list text image file folder user group page row column",
        "test": "date year month price address phone city country street order product status version",
    }
)
_PHRASES = MappingProxyType(
    {
        "train": ("what to begin with", "as given before", "may be left out", "the one in use", "how it is done"),
        "validation": ("whatever fits best", "taken as it is", "only if needed", "the usual one"),
        "test": ("as they want it", "found by hand", "never empty", "the same for all"),
    }
)
_COUNT = 6  # arguments of a function besides self
_LEADS = (0, 1, 2)  # how many of them come before the first that is explained


class _Function(NamedTuple):
    """One prompt: a function's name and summary, its arguments, and the two that are explained, in which words."""

    head: tuple[str, str]
    arguments: tuple[str, ...]
    docs: tuple[str, ...]
    phrases: tuple[str, ...]


@dataclass(frozen=True)
class Docstring(Task):
    '''Docstring-like copying: which argument of a function its docstring explains next.

    A function has six arguments, and its docstring explains two that follow one another, in order:

        def load(self, size, path, mode, label, count, index):
            """Read what was stored before.

            :param path: may be left out
            :param mode: as given before
            :param

    should go on with " label". A model has to find the argument that was explained last in the signature, and to say
    the one after it. The answer is that argument and the wrong answer is the one that follows it. The first argument
    that is explained is the first, second or third of the six, equally often.

    Counterfactuals, always of the same function:

    - `swap_next` (the default): the answer and the wrong argument change places in the signature.
    - `later_docs`: the docstring explains the arguments one place further. The wrong argument is the next one.
    - `random_answer`: the answer and the wrong argument become others in the signature. Neither is in the prompt.
    - `random_docs`: the docstring explains arguments that the signature lacks. Nothing says which is next.

    The splits `train`, `validation` and `test` share neither an argument, nor a function, nor an explanation.
    '''

    @property
    def counterfactuals(self) -> Mapping[str, str]:
        """The ways in which a prompt can be changed, each with what it does; the first is the default."""
        return _KINDS

    def pairs(
        self, model: Tokenized, n: int = 64, seed: int = 0, split: str = "train", counterfactual: str | None = None
    ) -> Pairs:
        """Draw counterfactual pairs; see `Task.pairs`.

        Returns:
            The pairs. Their `clean_inputs` and `corrupt_inputs` are inputs of `causal_model`. Their roles, one token
            each, are `first_def`, `last_def`, `answer_def` and `wrong_def` in the signature: the two arguments that
            are explained, the answer and the wrong one; `first_doc` and `last_doc` in the docstring; and `end`.

        Raises:
            TaskError: if a name is unknown, n is out of range, or the tokenizer has too few arguments as single tokens.
        """
        asked = request(self, n, seed, split, counterfactual)
        names = single_of_split(tokenizer_of(model), asked, "arguments", _ARGUMENTS, _COUNT + 2)
        phrases, spare, order = asked.random("phrases"), asked.random("spare"), asked.random("clean")
        cells = [(head, lead) for head in _HEADS[split] for lead in _LEADS]
        order.shuffle(cells)
        examples = []
        for (head, lead), number in asked.draw(cells, perm(len(names), _COUNT), order):
            arguments, _ = arranged(names, _COUNT, number)
            said = tuple(phrases.sample(_PHRASES[split], 2))
            clean = _Function(head, arguments, arguments[lead : lead + 2], said)
            others = spare.sample([name for name in names if name not in arguments], 2)
            changed = _changed(asked.counterfactual, clean, lead, (others[0], others[1]))
            examples.append(
                Example(
                    clean=_roles(_filled(clean), lead),
                    corrupt=_filled(changed).text,
                    answer=f" {arguments[lead + 2]}",
                    wrong=f" {arguments[lead + 3]}",
                    clean_inputs=_inputs(clean),
                    corrupt_inputs=_inputs(changed),
                )
            )
        return plain_roles(asked.pairs(model, examples), examples[0].clean.words.keys())

    def causal_model(self) -> CausalModel:
        """The place after the argument that was explained last, then the argument there.

        Inputs are the arguments of the signature, `argument0` to `argument5`, and `last_doc`, the one that the
        docstring explained last. `next_position` is the place after it in the signature, or None where it is not in
        there; `answer` is the argument at that place. A `next_position` taken from a `later_docs` counterfactual gives
        the wrong argument, and so does an `answer` taken from `swap_next`, whose `next_position` changes nothing.

        Returns:
            The model; its output is `answer`.
        """
        arguments = tuple(f"argument{place}" for place in range(_COUNT))
        return CausalModel(
            inputs=(*arguments, "last_doc"),
            variables={
                "next_position": Variable(
                    ("last_doc", *arguments), _next_position, "the place after what was explained last"
                ),
                "answer": Variable(("next_position", *arguments), _argument, "the argument at that place"),
            },
            output="answer",
        )


def _changed(kind: str, function: _Function, lead: int, others: tuple[str, str]) -> _Function:
    before, after = function.arguments[: lead + 2], function.arguments[lead + 4 :]
    answer, wrong = function.arguments[lead + 2 : lead + 4]
    return {
        "swap_next": function._replace(arguments=(*before, wrong, answer, *after)),
        "later_docs": function._replace(docs=function.arguments[lead + 1 : lead + 3]),
        "random_answer": function._replace(arguments=(*before, *others, *after)),
        "random_docs": function._replace(docs=others),
    }[kind]


def _filled(function: _Function) -> Filled:
    name, summary = function.head
    signature = ", ".join(["self", *(f"{{argument{place}}}" for place in range(_COUNT))])
    explained = [f"    :param {{doc{place}}}: {phrase}" for place, phrase in enumerate(function.phrases)]
    template = "\n".join([f"def {name}({signature}):", f'    """{summary}', "", *explained, "    :param"])
    docs = {f"doc{place}": argument for place, argument in enumerate(function.docs)}
    return fill(template, **docs, **_inputs(function))


def _roles(prompt: Filled, lead: int) -> Filled:
    """The prompt with its words called by what they are for the answer."""
    defined = ("first_def", "last_def", "answer_def", "wrong_def")
    words = {name: prompt.words[f"argument{lead + place}"] for place, name in enumerate(defined)}
    return Filled(prompt.text, {**words, "first_doc": prompt.words["doc0"], "last_doc": prompt.words["doc1"]})


def _inputs(function: _Function) -> dict[str, str]:
    """A prompt as the causal model sees it."""
    return {**{f"argument{at}": name for at, name in enumerate(function.arguments)}, "last_doc": function.docs[-1]}


def _next_position(last_doc: str, *arguments: str) -> int | None:
    found = arguments.index(last_doc) + 1 if last_doc in arguments else _COUNT
    return found if found < _COUNT else None


def _argument(position: int | None, *arguments: str) -> str | None:
    return None if position is None else arguments[position]
