"""`interpose methods`: what can be written where a method is asked for."""

from dataclasses import dataclass

from interpose.cli._listing import list_entries
from interpose.cli.base import OptionalArgument


@dataclass(frozen=True)
class Methods:
    """List the ways to search for the parts that carry a behaviour; or explain one.

    Examples:
        interpose methods eap-ig
        interpose methods
        interpose methods --json
    """

    name: OptionalArgument = None
    """The one to explain in full; without it, all are listed."""
    json: bool = False
    """Print JSON."""

    def run(self) -> None:
        """Write the list, or the explanation, to standard output."""
        list_entries("interpose.methods", self.name, as_json=self.json)
