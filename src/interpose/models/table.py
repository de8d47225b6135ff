"""A family's table: what one architecture calls its parts. Data only; no torch.

A new family is one new file with one `FAMILY = Family(...)`. The table says where each standard site lives, which norm
sits in front of what, how queries, keys and values are cut out of fused weights, and what writes to and reads from the
residual stream.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

from interpose.errors import SiteError
from interpose.graph.places import Dims, Place
from interpose.graph.sites import Site, nearest

Fusion = Literal["none", "blocks", "heads", "groups"]


@dataclass(frozen=True)
class Projection:
    """Where queries, keys or values come from.

    Attributes:
        path: the module that projects, under the attention block.
        part: which of three it is (0 query, 1 key, 2 value) where one module makes all three.
        fusion: `none`; `blocks` (all queries, all keys, all values); `heads` (query, key, value of each head); `groups`
            (the queries that share a key, their key, their value; then the next group).
    """

    path: str
    part: int = 0
    fusion: Fusion = "none"


@dataclass(frozen=True)
class Variant:
    """Where a config says so, a family's table is another.

    Attributes:
        when: config attributes, with the value that each of them then has.
        then: attributes of the table, with the value they then have; None where the table does not hold at all.
    """

    when: Mapping[str, Any]
    then: Mapping[str, Any] | None


@dataclass(frozen=True, kw_only=True)
class Family:
    """One architecture's names for its parts. Paths of blocks are relative to a layer, of projections to their block.

    Attributes:
        model_types: the `config.model_type` values this table is for.
        layers: path of the list of layers.
        embed: path of the token embedding.
        final_norm: path of the last norm.
        unembed: path of the module that gives the logits.
        attn: the attention block of a layer.
        mlp: the MLP of a layer.
        attn_norm: the norm between the stream and the attention block, or None.
        mlp_norm: the norm between the stream and the MLP, or None.
        attn_post: a norm between the attention block and the stream, or None.
        mlp_post: a norm between the MLP and the stream, or None.
        query: where queries are projected; `key` and `value` alike.
        out: the attention block's output projection.
        down: the MLP's output projection.
        transposed: weights are stored input-first (GPT-2's Conv1D).
        parallel: True, False, or the name of the config attribute that says so.
        wide_key_norm: keys are normed over all key heads at once.
        sizes: config attributes of `Dims` where they are not the usual ones, or the size itself.
        attention: where scores are made: in a function of the library's `registry`, or `inline` in the block's forward.
        inner_sum: the attention block and the MLP add the stream to what they return, so that what they add is what
            `out` and `down` return.
        mid: a module of a layer whose input is the stream before the MLP, where something else than attention and MLP
            adds to it.
        encoder: the table of an encoder that feeds these layers, or None.
        variants: where the config says so, other values; all that apply, in this order.
    """

    model_types: tuple[str, ...]
    layers: str = "model.layers"
    embed: str = "model.embed_tokens"
    final_norm: str = "model.norm"
    unembed: str = "lm_head"
    attn: str = "self_attn"
    mlp: str = "mlp"
    attn_norm: str | None = "input_layernorm"
    mlp_norm: str | None = "post_attention_layernorm"
    attn_post: str | None = None
    mlp_post: str | None = None
    query: Projection = Projection("q_proj")
    key: Projection = Projection("k_proj")
    value: Projection = Projection("v_proj")
    out: str = "o_proj"
    down: str = "down_proj"
    transposed: bool = False
    parallel: bool | str = False
    wide_key_norm: bool = False
    sizes: tuple[tuple[str, str | int], ...] = ()
    attention: Literal["registry", "inline"] = "registry"
    inner_sum: bool = False
    mid: str | None = None
    encoder: "Family | None" = None
    variants: tuple[Variant, ...] = ()

    def of(self, config: Any) -> "Family | None":
        """The table of one model of this family.

        Args:
            config: its config (any object with attributes).

        Returns:
            the table with its variants applied; None where one of them says that it does not hold.
        """
        changes: dict[str, Any] = {}
        for variant in self.variants:
            if all(getattr(config, name, None) == value for name, value in variant.when.items()):
                if variant.then is None:
                    return None
                changes |= variant.then
        return replace(self, **changes, variants=()) if changes else self

    def dims(self, config: Any) -> Dims:
        """Read a model's sizes from its config (any object with attributes)."""
        names = dict(self.sizes)

        def size(what: str, usual: str) -> Any:
            name = names.get(what, usual)
            return name if isinstance(name, int) else getattr(config, name, None)

        heads, width = size("heads", "num_attention_heads"), size("width", "hidden_size")
        return Dims(
            layers=size("layers", "num_hidden_layers"),
            heads=heads,
            kv_heads=size("kv_heads", "num_key_value_heads") or heads,
            head_width=size("head_width", "head_dim") or width // heads,
            width=width,
            neurons=size("neurons", "intermediate_size") or 4 * width,
            vocab=size("vocab", "vocab_size"),
            parallel=bool(getattr(config, self.parallel)) if isinstance(self.parallel, str) else self.parallel,
            encoder_layers=0 if self.encoder is None else self.encoder.dims(config).layers,
        )

    def path(self, part: str, layer: int) -> str | None:
        """Full path of a layer's part, by the table's own name for it (`attn_norm`, `mlp`, `out`, ...).

        Args:
            part: an attribute of the table that names a module of a layer.
            layer: which layer.

        Returns:
            the path, or None where the family has no such part.
        """
        name = getattr(self, part)
        name = name.path if isinstance(name, Projection) else name
        if name is None:
            return None
        block = {"out": self.attn, "query": self.attn, "key": self.attn, "value": self.attn, "down": self.mlp}.get(part)
        return ".".join(filter(None, [self.layers, str(layer), block, name]))

    def place(self, site: Site, dims: Dims) -> Place:
        """Where a standard site lives in this family.

        Args:
            site: a standard site.
            dims: the model's sizes.

        Returns:
            its place.

        Raises:
            SiteError: the model has no such layer, or blocks of this kind have no such site.
        """
        if site.in_encoder and self.encoder is not None:
            return self.encoder._place(site, replace(dims, layers=dims.encoder_layers))
        if site.in_encoder:
            raise SiteError(f"There is no {site}: this model has no encoder beside its layers.")
        return self._place(site, dims)

    def _place(self, site: Site, dims: Dims) -> Place:
        if site.layer is None:
            module = {"embed": self.embed, "norm.output": self.final_norm, "logits": self.unembed}[site.local]
            return Place(module, "output")
        if site.layer >= dims.layers:
            raise SiteError(f"There is no {site}: this model has {dims.layers} layers, 0 to {dims.layers - 1}.")
        if site.local == "mid" and dims.parallel:
            raise SiteError(
                f"There is no {site}: this model's attention and MLP run in parallel, so no stream lies between them. "
                + nearest(f"layers.{site.layer}.input")
            )
        return self._layer_place(site.local, site.layer, dims)

    @property
    def _side(self) -> Literal["attention", "inline"]:
        return "inline" if self.attention == "inline" else "attention"

    def _layer_place(self, local: str, layer: int, dims: Dims) -> Place:
        whole, attn, mlp = f"{self.layers}.{layer}", self.path("attn", layer), self.path("mlp", layer)
        assert attn is not None and mlp is not None
        out, down = self.path("out", layer) or "", self.path("down", layer) or ""
        added = self.path("attn_post", layer) or (out if self.inner_sum else attn)
        z = Place(out, "input", "heads", heads=dims.heads)
        match local:
            case "input" | "output":
                return Place(whole, local)
            case "mid":
                summed = Place(added, "output", "mid", also=(("stream", Place(whole, "input")),))
                return summed if self.mid is None else Place(f"{whole}.{self.mid}", "input")
            case "attn.input" | "mlp.input":
                return Place(attn if local == "attn.input" else mlp, "input")
            case "attn.q" | "attn.k" | "attn.v":
                name = {"q": "query", "k": "key", "v": "value"}[local[-1]]
                made: Projection = getattr(self, name)
                heads = dims.heads if local == "attn.q" else dims.kv_heads
                form = {"none": "heads", "blocks": "blocks", "heads": "fused", "groups": "groups"}[made.fusion]
                path, kernel = self.path(name, layer) or "", (attn, self._side) if heads < dims.heads else None
                whole_sizes = dims if form == "groups" else None
                return Place(path, "output", form, part=made.part, heads=heads, kernel=kernel, dims=whole_sizes)
            case "attn.query" | "attn.key" | "attn.value" | "attn.scores" | "attn.pattern":
                heads = dims.kv_heads if local in ("attn.key", "attn.value") else dims.heads
                return Place(attn, self._side, local.removeprefix("attn."), heads=heads)
            case "attn.z":
                return z
            case "attn.result":
                also = (("z", z), *((("before", Place(attn, "output")),) if self.attn_post else ()))
                return Place(added, "output", "result", also=also, weight=out, transposed=self.transposed)
            case "attn.output":
                return Place(added, "output")
            case "mlp.output":
                return Place(self.path("mlp_post", layer) or (down if self.inner_sum else mlp), "output")
        return Place(down, "input")
