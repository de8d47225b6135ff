"""The unchanged run of some prompts, kept: what runs that differ from it later on begin with."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, final

from torch import Tensor

from interpose.engine.reach import Reach, order_of, position_axis
from interpose.engine.resumed import Stock, plan_of, repeats, run
from interpose.engine.structures import moved, version_of
from interpose.engine.world_plan import WorldPlan
from interpose.graph.feed import Batch
from interpose.graph.nodes import Read
from interpose.graph.sites import Site

_TAKEN = frozenset(["input_ids", "attention_mask", "position_ids", "use_cache"])


@dataclass(frozen=True)
class Prompts:
    """What a network is given, where a run may begin in the middle of it.

    Attributes:
        kwargs: token ids, mask and positions, each [batch, position], and what is switched off.
        rows: how many prompts.
        length: how many positions.
        padding: how many positions of padding the most padded prompt begins with.
        key: equal for the same prompts.
    """

    kwargs: Mapping[str, Any]
    rows: int
    length: int
    padding: int
    key: Any = field(repr=False)

    @classmethod
    def of(cls, batch: Batch) -> "Prompts | str":
        """The prompts of a batch, or why no run can begin in the middle of them."""
        kwargs = batch.kwargs
        odd = [
            name for name, value in kwargs.items() if name not in _TAKEN and value is not False and value is not None
        ]
        if batch.generation is not None:
            return "a generation runs step by step"
        if batch.args or odd:
            return f"the network is given more than token ids, a mask and positions: {', '.join(odd) or 'by position'}"
        given = {name: value for name, value in kwargs.items() if isinstance(value, Tensor)}
        ids, mask = given.get("input_ids"), given.get("attention_mask")
        if ids is None or ids.ndim != 2 or any(value.shape != ids.shape for value in given.values()):
            return "token ids, mask and positions are not all of one shape [batch, position]"
        if any(value.is_floating_point() for value in given.values()):
            return "token ids, mask and positions are not all whole numbers or truth values"
        if kwargs.get("use_cache"):
            return "the network is told to return its cache"
        padding = 0 if mask is None else int((mask.cumsum(-1) == 0).sum(-1).max())
        key = tuple(
            (name, value.dtype, tuple(value.shape), value.cpu().numpy().tobytes()) for name, value in given.items()
        )
        rows, length = ids.shape
        return cls(kwargs, rows, length, padding, key)

    def behind(self, position: int, times: int) -> dict[str, Any]:
        """What the network is given for the positions from one on, each prompt some times over."""
        given = dict(self.kwargs)
        for name in ("input_ids", "position_ids"):
            if given.get(name) is not None:
                given[name] = given[name][:, position:]
        if times == 1:
            return given
        return {name: value.repeat(times, 1) if isinstance(value, Tensor) else value for name, value in given.items()}


@final
class Base:
    """One unchanged run.

    Attributes:
        prompts: what the network was given, on its device.
        sites: what was found at sites, or at their last positions.
        streams: what each layer was given [batch, position, width].
        keys: each layer's keys and values; empty if they were not kept.
        in_place: the network changes what is found at sites, so that it is copied.
        looks_everywhere: where a row may look at nothing, as in padding, it looks at all positions, later ones too.
        whole: streams, keys and values of all layers were kept.
        kernels: attention runs on its own kernels.
        staggers: what layers are given beside the stream can be given for any number of rows.

    Args:
        stock: the network.
        prompts: what it is given.
        sites: the sites to be kept, with how many last positions; None for all.
        last_logits: how many last positions of the logits are wanted; None for all.
        resumes: runs will begin in the middle of this one, so keep streams, keys and values.
    """

    def __init__(
        self,
        stock: Stock,
        prompts: Prompts,
        sites: Mapping[Site, int | None],
        last_logits: int | None,
        resumes: bool,
    ) -> None:
        """Run it."""
        self.prompts = replace(prompts, kwargs=moved(dict(prompts.kwargs), stock.device))
        self.sites: dict[Site, Tensor] = {}
        self.streams: list[Tensor] = []
        self.staggers, self.looks_everywhere, self.whole = True, False, resumes
        self.kernels: dict[str, Callable[..., Any]] = {}
        self.keys: tuple[tuple[Tensor, Tensor], ...] = ()
        kwargs = {**self.prompts.kwargs, **stock.last_logits(last_logits)}
        self._depths = {site: sites[site] for site in sorted(sites, key=order_of) if sites[site] != 0}
        plan = plan_of(stock, dict.fromkeys(self._depths, False))
        self.in_place = False
        self._run(stock, plan, kwargs)
        self.in_place = any(version_of(value) != version for value, version in self._seen)
        if self.in_place:
            self._run(stock, plan, kwargs)

    def _run(self, stock: Stock, plan: WorldPlan, kwargs: dict[str, Any]) -> None:
        self.sites, self.streams, self._seen = {}, [], list[tuple[Tensor, int]]()
        cache = stock.attention.recording() if self.whole else None
        given = {**kwargs, "use_cache": True, "past_key_values": cache} if self.whole else kwargs
        run(stock, plan, self._keep, self, given)
        self.keys = tuple(stock.attention.recorded(cache)) if self.whole else ()

    def _keep(self, site: Site, value: Tensor) -> Tensor:
        depth, axis = self._depths[site], position_axis(site)
        self._seen.append((value, version_of(value)))
        if depth is not None and axis is not None and depth < value.shape[axis]:
            self.sites[site] = value.narrow(axis, value.shape[axis] - depth, depth).clone()
        else:
            self.sites[site] = value.clone() if self.in_place else value
        return value

    def at(self, layer: int, hidden: Tensor) -> Tensor:  # noqa: ARG002
        """Keep what a layer is given; see `interpose.engine.resumed.Joining`."""
        if self.whole:
            self.streams.append(hidden.clone() if self.in_place else hidden)
            self._seen.append((hidden, version_of(hidden)))
        return hidden

    def beside(self, layer: int, values: tuple[Any, ...]) -> tuple[Any, ...]:  # noqa: ARG002
        """Note whether what else a layer is given is the same again for more rows, and what its mask is like."""
        self.staggers = self.staggers and repeats(values, self.prompts.rows)
        masks = [value for value in values if isinstance(value, Tensor) and value.ndim == 4]
        # A mask that is added hides all positions of such a row alike, and a softmax then sees them all.
        self.looks_everywhere |= self.prompts.padding > 0 and any(mask.is_floating_point() for mask in masks)
        return values


def last_logits(reach: Reach) -> int | None:
    """How many last positions of the logits a graph reads; None for all, 1 where it reads none."""
    nodes = reach.graph.nodes
    if any(site.name == "logits" and any(write for _, write in steps) for site, steps in reach.steps.items()):
        return None
    reads = [i for i in reach.tail.reads if nodes[i].site.name == "logits"]  # type: ignore[attr-defined]
    heads = [i for rest in reach.rests.values() for i in rest if isinstance(nodes[i], Read)]
    if any(nodes[i].site.name == "logits" for i in heads):  # type: ignore[attr-defined]
        return None
    depths = [reach.depth.get(i) for i in reads]
    return None if None in depths else max([1, *[depth or 1 for depth in depths]])
