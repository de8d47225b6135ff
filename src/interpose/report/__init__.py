"""From what was found to what is shown: a result as data, its figures, its page; pictures of one prompt."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from interpose.report.page import html as html, write as write
from interpose.report.result import Result as Result

if TYPE_CHECKING:
    from interpose.report.attention_picture import attention as attention
    from interpose.report.lens_picture import lens as lens


_PICTURES = ("attention", "lens")


def __getattr__(name: str) -> Any:
    """The pictures of a prompt, which need torch; a page does not."""
    if name in _PICTURES:
        return getattr(import_module(f"{__name__}.{name}_picture"), name)
    raise AttributeError(f"interpose.report has no {name!r}; it has Result, attention, html, lens, write.")


def __dir__() -> list[str]:
    """The public names."""
    return ["Result", *_PICTURES, "html", "write"]
