"""What a run costs among others that share its unchanged run, and why it may have to run whole."""

from interpose.engine.base import Prompts
from interpose.engine.reach import EMBEDDING, Reach, first_layer, order_of
from interpose.engine.resumed import Stock
from interpose.graph.feed import Feed


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
    number = weights[0].element_size() if weights else 4
    kept = every * layers * number * (dims.width + 2 * dims.kv_heads * dims.head_width)
    return (
        f"  batch {prompts.rows}, {prompts.length - position} of {prompts.length} positions, "
        f"{layers - min(layer, layers)} of {layers} layers: about {_short(mine * token)}FLOP of {_short(whole * token)}"
        f"FLOP, {_short(tokens * number * (2 * dims.width + dims.neurons))}B at a time; "
        f"the unchanged run keeps about {_short(kept)}B"
    )


def _short(value: float) -> str:
    for unit in ("", "k", "M", "G", "T"):
        if value < 1000:
            return f"{value:.3g} {unit}"
        value /= 1000
    return f"{value:.3g} P"
