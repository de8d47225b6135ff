"""What a run costs among others that share its unchanged run, and why it may have to run whole."""

from collections.abc import Iterable
from math import prod

from interpose.engine.base import Prompts
from interpose.engine.reach import EMBEDDING, Reach, first_layer, order_of
from interpose.engine.resumed import Stock
from interpose.graph.feed import Feed
from interpose.graph.sites import Site


def starts_at(reach: Reach, length: int) -> tuple[int, int]:
    """The first layer and position that a graph changes, as far as the graph alone tells.

    Args:
        reach: how far its changes reach.
        length: how many positions there are.
    """
    positions = []
    for since in reach.since.values():
        starts = [max(0, at + length) if at < 0 else min(at, length) for at in (since if since is not None else (0,))]
        positions.append(min(starts, default=length))
    site = min((site for site in reach.written), key=order_of)
    return first_layer(site) + (site.local == "output"), min(positions)


def in_words(reach: Reach, stock: Stock, feed: Feed | None) -> list[str]:
    """Lines that say where a run begins when several share an unchanged run, and what that costs.

    Args:
        reach: how far its changes reach.
        stock: the network.
        feed: what it is given; without it the costs are left out.
    """
    if not reach.written:
        return ["several such runs on the same prompts (run_many) are one pass: nothing is changed"]
    layers = stock.dims.layers
    prompts = None if feed is None or reach.world not in feed.worlds else Prompts.of(feed.worlds[reach.world])
    if isinstance(prompts, str):
        return [f"runs whole, also among several: {prompts}"]
    length = 10**6 if prompts is None else prompts.length
    layer, position = starts_at(reach, length)
    first = "the embedding" if layer == EMBEDDING else f"layer {min(layer, layers)}"
    at = "any position" if position >= length else f"position {position - length}" if position else "the first position"
    lines = [
        f"several such runs on the same prompts (run_many) share its unchanged run: each begins at {first} of "
        f"{layers}, {at}, or later where what is written is what was there",
        "  kept of the unchanged run: what each layer is given, keys and values of each layer"
        + (f", {len(reach.sites(reach.world))} sites" if reach.sites(reach.world) else ""),
    ]
    return lines if prompts is None else [*lines, _costs(stock, prompts, max(layer, 0), position)]


def _costs(stock: Stock, prompts: Prompts, layer: int, position: int) -> str:
    layers, dims = stock.dims.layers, stock.dims
    path, _ = stock.layer(0)
    weights = list(stock.network.get_submodule(path).parameters())
    token = 2 * sum(weight.numel() for weight in weights) + 4 * prompts.length * dims.heads * dims.head_width
    tokens, every = (prompts.length - position) * prompts.rows, prompts.length * prompts.rows
    mine, whole = tokens * (layers - min(layer, layers)), every * layers
    return (
        f"  batch {prompts.rows}, {prompts.length - position} of {prompts.length} positions, "
        f"{layers - min(layer, layers)} of {layers} layers: about {_short(mine * token)}FLOP of {_short(whole * token)}"
        f"FLOP, {_short(of_a_pass(stock, prompts, position))}B at a time; "
        f"the unchanged run keeps about {_short(of_a_base(stock, prompts))}B"
    )


def of_a_base(stock: Stock, prompts: Prompts, sites: Iterable[Site] = ()) -> int:
    """About how many bytes an unchanged run keeps."""
    dims, length = stock.dims, prompts.length
    each = dims.layers * (dims.width + 2 * dims.kv_heads * dims.head_width)
    numbers = prompts.rows * length * each + sum(_numbers(site, stock, prompts, length) for site in sites)
    return numbers * _width(stock)


def of_a_pass(stock: Stock, prompts: Prompts, position: int, sites: Iterable[Site] = ()) -> int:
    """About how many bytes one run takes in a pass from a position on, with what it reads at some sites."""
    dims, length = stock.dims, prompts.length - position
    heads = (dims.heads + dims.kv_heads) * dims.head_width
    token = 6 * dims.width + 3 * dims.neurons + 2 * dims.heads * prompts.length
    numbers = prompts.rows * (length * token + 2 * prompts.length * heads)
    # What is read is often kept twice: as it was, and as what was made of it.
    return (numbers + 3 * sum(_numbers(site, stock, prompts, length) for site in sites)) * _width(stock)


def _numbers(site: Site, stock: Stock, prompts: Prompts, length: int) -> int:
    dims = stock.dims
    sizes = {"B": prompts.rows, "H": dims.heads, "K": dims.kv_heads, "D": dims.head_width, "M": dims.width}
    sizes |= {"F": dims.neurons, "V": dims.vocab}
    axes = site.axes or ()
    found = prod(sizes.get(axis, 1) for axis in axes)
    return found * length * (prompts.length if axes.count("P") > 1 else 1)


def _width(stock: Stock) -> int:
    weight = next(stock.network.parameters(), None)
    return 4 if weight is None else weight.element_size()


def _short(value: int | float) -> str:
    for unit in ("", "k", "M", "G", "T"):
        if value < 1000:
            return f"{value:.3g} {unit}"
        value /= 1000
    return f"{value:.3g} P"
