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
from interpose.graph.sites import Site
from interpose.models.parts import Projection as Projection, Variant as Variant
from interpose.models.places import modules_of, place_in

Head = Literal["causal-lm", "seq2seq-lm", "masked-lm", "image-classification"]


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
        returns: what a layer returns: a `tensor`, the `first` of several, or `several` that all are needed,
            as are all that its attention returns.
        sizes: config attributes of `Dims` where they are not the usual ones, or the size itself.
        attention: where scores are made: in a function of the library's `registry`, or `inline` in the block's forward.
        inner_sum: the attention block and the MLP add the stream to what they return, so that what they add is what
            `out` and `down` return.
        mid: a module of a layer whose input is the stream before the MLP, where something else than attention and MLP
            adds to it.
        encoder: the table of an encoder that feeds these layers, or None.
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
    sizes: tuple[tuple[str, str | int], ...] = ()
    attention: Literal["registry", "inline"] = "registry"
    inner_sum: bool = False
    mid: str | None = None
    encoder: "Family | None" = None
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
        found |= {"layers": whole["layers"], "embed": found["project_in"] or whole["embed"]}
        return replace(self, **found, encoder=self.encoder and self.encoder.on(modules))

    def cap(self, config: Any) -> float | None:
        """How the logits are soft-capped: c in c * tanh(logits / c); None where they are not."""
        return getattr(config, self.logit_cap, None) if self.logit_cap else None

    def positions(self, config: Any, height: int, width: int) -> int:
        """How many positions an image of a size in pixels has."""
        patch = config.patch_size
        rows, columns = (patch, patch) if isinstance(patch, int) else patch
        return (height // rows) * (width // columns) + self.extra_positions

    @property
    def causal(self) -> bool:
        """Whether a position changes nothing at those before it, and nothing else feeds the layers."""
        return self.head == "causal-lm" and self.encoder is None

    def given_as(self, site: Site) -> str:
        """What the names of the network's arguments begin with that hold the tokens of a site: empty, or `decoder_`."""
        return "" if self.encoder is None or site.in_encoder or site.part else "decoder_"

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
        if site.in_encoder:
            if self.encoder is None:
                raise SiteError(f"There is no {site}: this model has no encoder beside its layers.")
            return place_in(self.encoder, site, replace(dims, layers=dims.encoder_layers))
        return place_in(self, site, dims)

    def skips(self, site: Site) -> tuple[tuple[str, str], ...]:
        """The modules that need not run where a site is given, each with the form of what it returns.

        Args:
            site: a layer's `output`, `attn.output` or `mlp.output`.

        Returns:
            (path, form): `tensor`, or `first` for a tensor beside others.

        Raises:
            SiteError: no module makes this site by itself.
        """
        return modules_of(self.encoder if site.in_encoder and self.encoder is not None else self, site)
