"""From a batch of prompts to rows: the sites of a data set, read in one forward pass and cut up by token."""

import re
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, final

import torch
from torch import Tensor

from interpose.errors import DataError, SiteError
from interpose.graph import Batch, Feed, Graph, Site
from interpose.graph.sites import standard
from interpose.trace.lines import user_line
from interpose.trace.options import TYPES, Options
from interpose.trace.prompt_stream import Fed

if TYPE_CHECKING:
    from interpose.trace.model import Model


def site_of(name: str) -> Site:
    """The site of a name, such as `layers.5.attn.z` or `module("mlp.2").output`.

    Raises:
        SiteError: there is none; the message lists the nearest.
        DataError: its rows would not have one shape.
    """
    found = re.fullmatch(r"""module\((['"])(.*?)\1\)(?:\.call\((\d+)\))?\.(\w+)""", name.strip())
    if found is None:
        try:
            site = standard(name)
        except SiteError as error:
            raise SiteError(
                f"{user_line()}: {error} A module is written as in a block: 'module(\"path\").output'."
            ) from None
        if (site.axes or ()).count("P") != 1:
            raise DataError(
                f"{user_line()}: {site} has a row and a column for every position, so its size changes with the "
                "prompt. Cache attn.query and attn.key and make it from them, or save it in a block."
            )
        return site
    if found[4] not in ("input", "output"):
        raise SiteError(f"{user_line()}: {name} cannot be cached; a module has .input and .output.")
    return Site(found[2], found[4], None if found[3] is None else int(found[3]))


def key_of(site: Site) -> str:
    """What a site is called in a data set."""
    return str(site) if site.part else site.name


@final
class Reading:
    """The sites of a data set on one model, recorded once and read on any batch.

    Attributes:
        sites: by their names in the data set.

    Args:
        model: the model.
        sites: what is read.
        options: which positions are kept, and as what.

    Raises:
        SiteError: the model lacks a site.
        DataError: there is none, or one has no rows.
    """

    def __init__(self, model: "Model", sites: Sequence[str], options: Options) -> None:
        """Record the graph; nothing runs."""
        found = [site_of(name) for name in sites]
        if not found:
            raise DataError(f"{user_line()}: there is no site to cache; name at least one, such as layers.5.output.")
        self.sites = {key_of(site): site for site in found}
        self._model, self._type, self._last = model, options.type_name, options.positions == "last"
        self._graph = self._recorded()

    def _recorded(self) -> Graph:
        """All sites read in one pass, on two tokens that stand for any."""
        batch = Batch.of_tokens(torch.zeros(1, 2, dtype=torch.long), torch.ones(1, 2))
        with self._model.trace(batch, run=False) as block:
            for name, site in self.sites.items():
                value = self._value(site)
                if self._last and site.axes is not None:
                    value = value[(*[slice(None)] * site.axes.index("P"), -1)]
                value.save(name)
        return block.graph

    def _value(self, site: Site) -> Any:
        if not site.part:
            return self._model.site(site.name)
        module = self._model.module(site.name)
        return getattr(module if site.call is None else module.call(site.call), site.part)

    def rows(self, batches: list[tuple[int, Fed]]) -> Iterator[dict[str, Tensor]]:
        """Run the network on batches.

        Args:
            batches: each with the number of its first prompt.

        Yields:
            for each batch, tensors [row, ...] of the same length: one a site, and what `about` gives.
        """
        feeds = [Feed({"main": batch.batch}) for _, batch in batches]
        found = self._model.backend.run_many([self._graph] * len(feeds), feeds)
        for (first, batch), values in zip(batches, found, strict=True):
            yield self.about(first, batch) | {name: self._flat(name, values.pop(name), batch) for name in list(values)}

    def about(self, first: int, batch: Fed) -> dict[str, Tensor]:
        """Which prompt, position and token each row belongs to."""
        numbers = torch.arange(first, first + batch.count)
        if batch.mask is None or batch.ids is None:
            return {"prompt": numbers}
        positions = batch.mask.cumsum(-1) - 1
        if self._last:
            return {"prompt": numbers, "position": positions[:, -1].clone(), "tokens": batch.ids[:, -1].clone()}
        whose = numbers[:, None].expand_as(batch.ids)
        return {
            "prompt": whose[batch.mask],
            "position": positions[batch.mask],
            "tokens": batch.ids[batch.mask],
        }

    def _flat(self, name: str, value: Any, batch: Fed) -> Tensor:
        """A site's value as rows, in the type that is stored."""
        site = self.sites[name]
        if not isinstance(value, Tensor):
            raise DataError(
                f"{site} gives a {type(value).__name__}, not one tensor. Cache a module inside it that gives a tensor."
            )
        if batch.mask is None:
            wanted, shape = (batch.count,), value.shape[:1]
        elif self._last and site.axes is not None:
            return self._typed(site, value)
        else:
            value = value.movedim((site.axes or ("B", "P")).index("P"), 1) if value.ndim > 1 else value
            wanted, shape = tuple(batch.mask.shape), value.shape[:2]
        if tuple(shape) != wanted:
            axes = "[prompt, ...]" if batch.mask is None else "[prompt, position, ...]"
            raise DataError(
                f"{site} has shape {tuple(value.shape)} and cannot be cut into rows: expected {axes}, here {wanted}."
            )
        if batch.mask is not None:
            value = value[:, -1] if self._last else value[batch.mask.to(value.device)]
        return self._typed(site, value)

    def _typed(self, site: Site, value: Tensor) -> Tensor:
        if self._type is None or not value.is_floating_point():
            return value.cpu()
        stored = value.to(TYPES[self._type])
        if bool(stored.isinf().any()) and not bool(value.isinf().any()):
            raise DataError(
                f"{site} holds values up to {float(value.abs().max()):.3g}, more than {self._type} can. "
                "Write dtype='bfloat16', which reaches as far as float32."
            )
        return stored.cpu()
