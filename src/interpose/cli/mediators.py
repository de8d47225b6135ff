"""`interpose mediators`: what can be written where a mediator is asked for."""

from dataclasses import dataclass

from interpose.cli._listing import list_entries
from interpose.cli.base import OptionalArgument


@dataclass(frozen=True)
class Mediators:
    """List the units that may carry a cause, such as heads and edges; or explain one.

    Examples:
        interpose mediators edges
        interpose mediators
        interpose mediators --json
    """

    name: OptionalArgument = None
    """The one to explain in full; without it, all are listed."""
    json: bool = False
    """Print JSON."""

    def run(self) -> None:
        """Write the list, or the explanation, to standard output."""
        list_entries("interpose.mediators", self.name, as_json=self.json)
