"""What users of nnsight, TransformerLens and pyvene write, and what to write here."""

from typing import Any

from interpose.errors import TraceError
from interpose.trace.lines import user_line

_EDITED = "with model.trace(prompt, run=False) as t: ... and then model.edited(t)"
_OF_MODEL = {
    "run_with_cache": "with model.trace(prompt): streams = [layer.output.save() for layer in model.layers]",
    "run_with_hooks": "with model.trace(prompt): ... and the lines of the hook in the block",
    "add_hook": _EDITED,
    "add_perma_hook": _EDITED,
    "hooks": "with model.trace(prompt): ... and the lines of the hook in the block",
    "to_tokens": "model.tokens(prompt).ids",
    "to_str_tokens": "model.tokens(prompt).texts",
    "to_single_token": "model.tokens(text).ids[0, -1]",
    "get_token_position": "model.tokens(prompt).position(text)",
    "edit": _EDITED,
    "scan": "with model.trace(prompt, run=False): ... shapes are known in every block",
    "session": "with model.trace() as t: ... and one with t.world(name, prompt): ... for each run",
}
_OF_BLOCK = {
    "invoke": 'with model.trace() as t: ... with t.world("name", prompt): ...',
    "barrier": "nothing: the order of the worlds follows from what they need of each other",
    "iter": "with t.steps(): ... or t.steps(2, 5), t.step(3)",
    "all": "with t.steps(): ...",
    "next": "with t.step(1): ...",
    "cache": "streams = [layer.output.save() for layer in model.layers]",
    "result": "t.tokens or t.text after a generation, model.output.save() in a forward pass",
    "output": "model.output.save() in the block, or t.tokens and t.text after a generation",
}


def said_elsewhere(name: str) -> str | None:
    """What to write here for an attribute that models of other libraries have; None where there is nothing to say."""
    return f"Write {_OF_MODEL[name]}." if name in _OF_MODEL else None


def refuse_call(model: Any, *_: Any, **__: Any) -> Any:  # noqa: ARG001
    """Refuse to be called: a model is run by a block.

    Raises:
        TraceError: always.
    """
    raise TraceError(
        f"{user_line()}: a Model is not called. Write with model.trace(prompt): logits = model.logits.save(), or call "
        "the module itself, model.network(...)."
    )


def of_block(name: str) -> Any:
    """Refuse an attribute that a block does not have.

    Raises:
        AttributeError: always; the message says what to write where other libraries have one of this name.
    """
    if name in _OF_BLOCK:
        raise AttributeError(f"{user_line()}: a block has no {name!r}. Write {_OF_BLOCK[name]}.")
    raise AttributeError(f"'Trace' object has no attribute {name!r}")
