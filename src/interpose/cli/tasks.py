"""`interpose tasks`: what can be written where a task is asked for."""

from dataclasses import dataclass

from interpose.cli._listing import list_entries
from interpose.cli.base import OptionalArgument


@dataclass(frozen=True)
class Tasks:
    """List the behaviours that can be asked about; or explain one.

    Examples:
        interpose tasks ioi
        interpose tasks
        interpose tasks --json
    """

    name: OptionalArgument = None
    """The one to explain in full; without it, all are listed."""
    json: bool = False
    """Print JSON."""

    def run(self) -> None:
        """Write the list, or the explanation, to standard output."""
        list_entries("interpose.tasks", self.name, as_json=self.json)
