"""Where the standard sites of a network lie, as a family's table says it, and which modules need not run for them."""

from typing import TYPE_CHECKING, Any

from interpose.errors import SiteError
from interpose.graph.places import Dims, Place
from interpose.graph.sites import Site, nearest

if TYPE_CHECKING:
    from interpose.models.table import Family

_FORMS = {"none": "heads", "blocks": "blocks", "heads": "fused", "groups": "groups"}
"""The form of queries, keys and values, by how their projections are fused."""


def place_in(table: "Family", site: Site, dims: Dims) -> Place:
    """Where a site lies.

    Args:
        table: the table of the layers that the site belongs to.
        site: a standard site.
        dims: the sizes of these layers.

    Raises:
        SiteError: there is no such layer, or blocks of this kind have no such site.
    """
    if site.layer is None:
        return _in_model(table, site)
    if site.layer >= dims.layers:
        raise SiteError(f"There is no {site}: this model has {dims.layers} layers, 0 to {dims.layers - 1}.")
    if site.local == "mid" and dims.parallel:
        raise SiteError(
            f"There is no {site}: this model's attention and MLP run in parallel, so no stream lies between them. "
            + nearest(f"layers.{site.layer}.input")
        )
    if site.local.startswith("attn."):
        return _in_attention(table, site.local, site.layer, dims)
    return _in_layer(table, site.local, site.layer)


def modules_of(table: "Family", site: Site) -> tuple[tuple[str, str], ...]:
    """The modules that need not run where a site is given; see `Family.skips`."""
    layer, block = site.layer, {"attn.output": "attn", "mlp.output": "mlp"}.get(site.local)
    if layer is not None and site.local == "output" and table.returns != "several":
        return ((f"{table.layers}.{layer}", table.returns),)
    apart = {"attn": table.returns != "several", "mlp": bool(table.mlp) and not table.flat_mlp}
    if layer is None or table.inner_sum or not apart.get(block or "", False):
        raise SiteError(f"No module makes {site} by itself here, so none can be skipped; write a value to it instead.")
    made = table.path(str(block), layer) or ""
    last = _added(table, layer) if block == "attn" else table.path("mlp_post", layer) or made
    first = (made, "first" if block == "attn" else "tensor")
    return (first,) if last == made else (first, (last, "tensor"))


def _in_model(table: "Family", site: Site) -> Place:
    name = site.local
    if name == "logits" and table.unembed and table.logit_cap:
        return Place("", "output", "logits")
    module = {"embed": table.embed, "norm.output": table.final_norm, "logits": table.unembed}[name]
    if module is not None:
        return Place(module, "output")
    what = "norm between its last layer and its head" if name == "norm.output" else f"{table.head} head"
    raise SiteError(
        f"There is no {site}: this network has no {what}. "
        "Read layers[-1].output, or model.output for what the network returns."
    )


def _in_layer(table: "Family", local: str, layer: int) -> Place:
    whole, mlp, down = (table.path(part, layer) or "" for part in ("layers", "mlp", "down"))
    stream = (("stream", Place(whole, "input")),)
    if local in ("input", "output"):
        return Place(whole, local)  # type: ignore[arg-type]
    if local == "mid" and table.mid:
        return Place(f"{whole}.{table.mid}", "input")
    if local == "mid" and table.mid_norm:
        return Place(table.path("mid_norm", layer) or "", "output")
    if local == "mid":
        return Place(_added(table, layer), "output", "mid", also=stream)
    post = table.path("mlp_post", layer)
    module, side = {
        "mlp.input": (mlp if table.mlp else table.path("up", layer) or "", "input"),
        "mlp.neurons": (down, "input"),
        "mlp.output": (post or (mlp if table.mlp and not table.inner_sum else down), "output"),
    }[local]
    flat = table.flat_mlp and module != post
    return Place(module, side, "rows", also=stream) if flat else Place(module, side)  # type: ignore[arg-type]


def _added(table: "Family", layer: int) -> str:
    """The module whose output attention adds to the stream."""
    last = "out" if table.out_in_layer or table.inner_sum else "attn"
    return table.path("attn_post", layer) or table.path(last, layer) or ""


def _in_attention(table: "Family", local: str, layer: int, dims: Dims) -> Place:
    attn, out, added = table.path("attn", layer) or "", table.path("out", layer) or "", _added(table, layer)
    side: Any = "inline" if table.attention == "inline" else "attention"
    z = Place(out, "input", "heads", heads=dims.heads)
    match local:
        case "attn.input":
            return Place(attn, "input")
        case "attn.q" | "attn.k" | "attn.v":
            name = {"q": "query", "k": "key", "v": "value"}[local[-1]]
            made = getattr(table, name)
            heads, form = dims.heads if local == "attn.q" else dims.kv_heads, _FORMS[made.fusion]
            kernel = (attn, side) if heads < dims.heads else None
            path, whole = table.path(name, layer) or "", dims if form in ("blocks", "groups") else None
            return Place(path, "output", form, part=made.part, heads=heads, kernel=kernel, dims=whole)
        case "attn.z":
            return z
        case "attn.result":
            also = (("z", z), *((("before", Place(attn, "output")),) if table.attn_post else ()))
            return Place(added, "output", "result", also=also, weight=out, transposed=table.transposed)
        case "attn.output":
            return Place(added, "output")
    heads = dims.kv_heads if local in ("attn.key", "attn.value") else dims.heads
    return Place(attn, side, local.removeprefix("attn."), heads=heads)
