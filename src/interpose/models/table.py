"""A family's table: what one architecture calls its parts. Data only; no torch.

A new family is one new file with one `FAMILY = Family(...)`. The table says where each standard site lives, which norm
sits in front of what, how queries, keys and values are cut out of fused weights, and what writes to and reads from the
residual stream.
"""

from collections.abc import Collection
from dataclasses import dataclass, replace
from typing import Any, Literal

from interpose.errors import SiteError
from interpose.graph.places import Dims, Place
from interpose.graph.sites import Site, nearest
from interpose.models.parts import Projection as Projection, Variant as Variant

Head = Literal["causal-lm", "masked-lm", "image-classification"]


_WHOLE = ("layers", "embed", "project_in", "final_norm", "project_out", "unembed")
"""The fields that are paths from the root."""


@dataclass(frozen=True, kw_only=True)
class Family:
    """One architecture's names for its parts. Paths of blocks are relative to a layer, of projections to their block.

    Attributes:
        model_types: the `config.model_type` values this table is for.
        layers: path of the list of layers.
        embed: path of the token embedding.
        project_in: a projection from the token embedding to the stream, in models that have it.
        final_norm: path of the last norm, or of the part of the head that ends in it; None where there is none.
        project_out: a projection from the last norm to the unembedding, in models that have it.
        unembed: path of the module that gives the logits; None where the network has no such head.
        logit_cap: the config attribute that says how logits are soft-capped behind `unembed`, or None.
        logit_axes: the axes of the logits.
        attn: the attention block of a layer.
        mlp: the MLP of a layer; empty where its parts lie in the layer itself.
        attn_norm: the norm between the stream and the attention block, or None.
        mlp_norm: the norm between the stream and the MLP, or None.
        attn_post: a norm between the attention block and the stream, or None.
        mlp_post: a norm between the MLP and the stream, or None.
        mid_norm: a norm of the stream itself once the attention block has added to it (post-norm), or None.
        output_norm: the same once the MLP has added to it.
        query: where queries are projected; `key` and `value` alike.
        out: the attention block's output projection.
        out_in_layer: `out` lies in the layer beside the attention block, and what it gives is what attention adds.
        up: the MLP's first projection; needed where `mlp` is empty.
        down: the MLP's output projection.
        flat_mlp: the MLP works on the positions of all rows in one line [batch * position, width].
        transposed: weights are stored input-first (GPT-2's Conv1D).
        parallel: True, False, or the name of the config attribute that says so.
        wide_key_norm: keys are normed over all key heads at once.
        returns: what a layer returns: a `tensor`, the `first` of several, or `several` that all are needed.
        sizes: config attributes of `Dims` where they are not the usual ones.
        head: what stands on a fresh network.
        reads: what the network is given.
        extra_positions: for images, how many positions come before those of the patches.
        variants: where the config says so, other values; all that apply, in this order.
    """

    model_types: tuple[str, ...]
    layers: str = "model.layers"
    embed: str = "model.embed_tokens"
    project_in: str | None = None
    final_norm: str | None = "model.norm"
    project_out: str | None = None
    unembed: str | None = "lm_head"
    logit_cap: str | None = None
    logit_axes: str = "B P V"
    attn: str = "self_attn"
    mlp: str = "mlp"
    attn_norm: str | None = "input_layernorm"
    mlp_norm: str | None = "post_attention_layernorm"
    attn_post: str | None = None
    mlp_post: str | None = None
    mid_norm: str | None = None
    output_norm: str | None = None
    query: Projection = Projection("q_proj")
    key: Projection = Projection("k_proj")
    value: Projection = Projection("v_proj")
    out: str = "o_proj"
    out_in_layer: bool = False
    up: str | None = None
    down: str = "down_proj"
    flat_mlp: bool = False
    transposed: bool = False
    parallel: bool | str = False
    wide_key_norm: bool = False
    returns: Literal["tensor", "first", "several"] = "tensor"
    sizes: tuple[tuple[str, str], ...] = ()
    head: Head = "causal-lm"
    reads: Literal["tokens", "pixels"] = "tokens"
    extra_positions: int = 0
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
        made = replace(self, **changes, variants=()) if changes else self
        return made if made.cap(config) else replace(made, logit_cap=None)

    def on(self, modules: Collection[str]) -> "Family":
        """The table as one network has it.

        Args:
            modules: the paths of all its modules.

        Returns:
            the table without the norm, the head and the projections that the network lacks; where the network is the
            bare stack of layers (`LlamaModel`), with the paths that it has there.
        """
        whole = {name: getattr(self, name) for name in _WHOLE}
        base = f"{self.layers.partition('.')[0]}."
        if self.layers not in modules:
            if self.layers.removeprefix(base) not in modules:
                return self
            whole = {name: path and path.removeprefix(base) for name, path in whole.items()}
        found = {name: path if path in modules else None for name, path in whole.items()}
        return replace(self, **{**found, "layers": whole["layers"], "embed": found["project_in"] or whole["embed"]})

    def cap(self, config: Any) -> float | None:
        """How the logits are soft-capped: c in c * tanh(logits / c); None where they are not."""
        return getattr(config, self.logit_cap, None) if self.logit_cap else None

    def positions(self, config: Any, height: int, width: int) -> int:
        """How many positions an image of a size in pixels has."""
        patch = config.patch_size
        rows, columns = (patch, patch) if isinstance(patch, int) else patch
        return (height // rows) * (width // columns) + self.extra_positions

    def fixed(self, local: str, dims: Dims) -> str:
        """Why keys or values that query heads share cannot be given one a query head at a site; empty if they can."""
        if dims.kv_heads == dims.heads:
            return ""
        if local == "attn.k" and self.wide_key_norm:
            return "norms all keys together"
        if local in ("attn.k", "attn.v") and self.key.fusion == "blocks":
            return "cuts keys and values out of one projection at fixed places"
        return ""

    def dims(self, config: Any) -> Dims:
        """Read a model's sizes from its config (any object with attributes)."""
        names = dict(self.sizes)

        def size(what: str, usual: str) -> Any:
            return getattr(config, names.get(what, usual), None)

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
        )

    def path(self, part: str, layer: int) -> str | None:
        """Full path of a layer's part, by the table's own name for it (`attn_norm`, `mlp`, `out`, ...).

        Args:
            part: an attribute of the table that names a module of a layer; `layers` is the layer itself.
            layer: which layer.

        Returns:
            the path, or None where the family has no such part.
        """
        name = "" if part == "layers" else getattr(self, part)
        name = name.path if isinstance(name, Projection) else name
        if name is None:
            return None
        block = {"query": self.attn, "key": self.attn, "value": self.attn, "up": self.mlp, "down": self.mlp}.get(part)
        if part == "out" and not self.out_in_layer:
            block = self.attn
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
        if site.layer is None:
            return self._model_place(site.name)
        if site.layer >= dims.layers:
            raise SiteError(f"There is no {site}: this model has {dims.layers} layers, 0 to {dims.layers - 1}.")
        if site.local == "mid" and dims.parallel:
            raise SiteError(
                f"There is no {site}: this model's attention and MLP run in parallel, so no stream lies between them. "
                + nearest(f"layers.{site.layer}.input")
            )
        if site.local.startswith("attn."):
            return self._attention_place(site.local, site.layer, dims)
        return self._layer_place(site.local, site.layer)

    def skips(self, site: Site) -> tuple[tuple[str, str], ...]:
        """The modules that need not run where a site is given, each with the form of what it returns.

        Args:
            site: a layer's `output`, `attn.output` or `mlp.output`.

        Returns:
            (path, form): `tensor`, or `first` for a tensor beside others.

        Raises:
            SiteError: no module makes this site by itself.
        """
        layer, block = site.layer, {"attn.output": "attn", "mlp.output": "mlp"}.get(site.local)
        if layer is not None and site.local == "output" and self.returns != "several":
            return ((f"{self.layers}.{layer}", self.returns),)
        whole = self.mlp and not self.flat_mlp if block == "mlp" else block == "attn"
        if layer is None or not whole:
            raise SiteError(
                f"No module makes {site} by itself here, so none can be skipped; write a value to it instead."
            )
        made = self.path(str(block), layer) or ""
        last = self._added(layer) if block == "attn" else self.path("mlp_post", layer) or made
        first = (made, "first" if block == "attn" else "tensor")
        return (first,) if last == made else (first, (last, "tensor"))

    def _model_place(self, name: str) -> Place:
        if name == "logits" and self.unembed and self.logit_cap:
            return Place("", "output", "logits")
        module = {"embed": self.embed, "norm.output": self.final_norm, "logits": self.unembed}[name]
        if module is not None:
            return Place(module, "output")
        what = "norm between its last layer and its head" if name == "norm.output" else f"{self.head} head"
        raise SiteError(
            f"There is no {name}: this network has no {what}. "
            "Read layers[-1].output, or model.output for what the network returns."
        )

    def _layer_place(self, local: str, layer: int) -> Place:
        whole, mlp, down = (self.path(part, layer) or "" for part in ("layers", "mlp", "down"))
        stream = (("stream", Place(whole, "input")),)
        if local in ("input", "output"):
            return Place(whole, local)  # type: ignore[arg-type]
        if local == "mid" and self.mid_norm:
            return Place(self.path("mid_norm", layer) or "", "output")
        if local == "mid":
            return Place(self._added(layer), "output", "mid", also=stream)
        post = self.path("mlp_post", layer)
        module, side = {
            "mlp.input": (mlp if self.mlp else self.path("up", layer) or "", "input"),
            "mlp.neurons": (down, "input"),
            "mlp.output": (post or (mlp if self.mlp else down), "output"),
        }[local]
        flat = self.flat_mlp and module != post
        return Place(module, side, "rows", also=stream) if flat else Place(module, side)  # type: ignore[arg-type]

    def _added(self, layer: int) -> str:
        """The module whose output attention adds to the stream."""
        return self.path("attn_post", layer) or self.path("out" if self.out_in_layer else "attn", layer) or ""

    def _attention_place(self, local: str, layer: int, dims: Dims) -> Place:
        attn, out, added = self.path("attn", layer) or "", self.path("out", layer) or "", self._added(layer)
        z = Place(out, "input", "heads", heads=dims.heads)
        match local:
            case "attn.input":
                return Place(attn, "input")
            case "attn.q" | "attn.k" | "attn.v":
                name = {"q": "query", "k": "key", "v": "value"}[local[-1]]
                made: Projection = getattr(self, name)
                heads = dims.heads if local == "attn.q" else dims.kv_heads
                form = {"none": "heads", "blocks": "blocks", "heads": "fused"}[made.fusion]
                kernel = attn if heads < dims.heads else ""
                path, whole = self.path(name, layer) or "", dims if form == "blocks" else None
                return Place(path, "output", form, part=made.part, heads=heads, kernel=kernel, dims=whole)
            case "attn.z":
                return z
            case "attn.result":
                also = (("z", z), *((("before", Place(attn, "output")),) if self.attn_post else ()))
                return Place(added, "output", "result", also=also, weight=out, transposed=self.transposed)
            case "attn.output":
                return Place(added, "output")
        return Place(attn, "attention", local.removeprefix("attn."))
