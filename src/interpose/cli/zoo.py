"""`interpose zoo`: small models whose making is part of interpose: list them, explain one, make one."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from interpose.cli.base import Argument


@dataclass(frozen=True)
class List:
    """List the models of the zoo, what they do and what is known of them."""

    json: bool = False
    """Print JSON."""

    def run(self) -> None:
        """Write the list to standard output."""
        from interpose.cli._zoo import list_models

        list_models(as_json=self.json)


@dataclass(frozen=True)
class Show:
    """Explain one model: how it was made, what was measured, and its true circuit where it is known."""

    name: Argument
    """Which model."""
    json: bool = False
    """Print JSON."""

    def run(self) -> None:
        """Write all that its card says to standard output."""
        from interpose.cli._zoo import show_model

        show_model(self.name, as_json=self.json)


@dataclass(frozen=True)
class Train:
    """Make one model again, from its recipe. A run that was cut off goes on where it was."""

    name: Argument
    """Which model."""
    out: Path | None = None
    """Folder for its card and weights; by default out/zoo/NAME."""
    device: str = "cpu"
    """Where to train, such as cuda."""
    seed: int = 0
    """Of the first weights and the data."""
    steps: int | None = None
    """How many steps; by default as many as the recipe says."""
    json: bool = False
    """Print the result as JSON."""

    def run(self) -> None:
        """Train, and write the scores to standard output.

        Raises:
            InterposeError: nothing can be written there, or the checkpoint in the folder is of another run.
            UsageError: there is no such recipe.
        """
        from interpose.cli._zoo import train_model

        train_model(self)


@dataclass(frozen=True)
class Zoo:
    """Small models that interpose makes itself, some with a circuit that is known: list, show or train them.

    `interpose zoo list`, `interpose zoo show NAME` and `interpose zoo train NAME` have options of their own: see
    `interpose zoo train --help`. With `--json` each prints JSON.

    Examples:
        interpose zoo list
        interpose zoo show induction-by-hand
        interpose zoo train induction-by-hand --out out/zoo/induction
    """

    action: tyro.conf.OmitSubcommandPrefixes[
        Annotated[List, tyro.conf.subcommand("list")]
        | Annotated[Show, tyro.conf.subcommand("show")]
        | Annotated[Train, tyro.conf.subcommand("train")]
    ]

    def run(self) -> None:
        """Do what was asked for.

        Raises:
            InterposeError: the job failed.
            UsageError: there is no such model.
        """
        self.action.run()
