"""`interpose trace`: one prompt through a model, and what can be seen on the way."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from interpose.cli.base import write_json

Prompt = Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="PROMPT")]


@dataclass(frozen=True)
class Trace:
    """Run a model on a prompt: show its tokens, what comes next, and what layers and heads do.

    With `--lens` every layer's output is read as a next token, by the model's own final norm and unembedding; with
    `--attention LAYER` the layer's attention patterns are shown. Both also write a picture.

    Examples:
        interpose trace "The Eiffel Tower is in the city of" --lens
        interpose trace "The Eiffel Tower is in the city of" --lens --target " Paris"
        interpose trace "When John and Mary left, John gave a drink to" --attention 23 --out out/john
    """

    prompt: Prompt
    """The prompt."""
    model: str = "smollm2-135m-instruct"
    """A name that `interpose models` lists, a folder, or a model id of the hub."""
    top: int = 5
    """How many of the likeliest next tokens to show."""
    lens: bool = False
    """Show what each layer would say next; writes lens.png."""
    target: str | None = None
    """With --lens: a token whose rank is shown after each layer, with the blank in front of it."""
    attention: int | None = None
    """Show where the heads of this layer look; -1 is the last layer. Writes attention.png."""
    out: Path = Path("out/trace")
    """Folder for pictures."""
    device: str | None = None
    """Where to run, such as cuda; by default the processor."""
    json: bool = False
    """Print everything as JSON."""

    def run(self) -> None:
        """Run the model and show what it did.

        Raises:
            InterposeError: the model cannot be loaded or run, or a picture cannot be written.
            UsageError: an option cannot be meant.
        """
        from interpose.cli._look import look, show

        seen = look(self)
        if self.json:
            write_json(seen.document())
        else:
            show(seen)
