"""Model: names for the parts of a network, a backend that runs it, and a tokenizer if it has one."""

from collections.abc import Sequence
from contextvars import ContextVar, Token
from typing import Any, final

import torch

from interpose.engine import Attention, LocalBackend
from interpose.errors import SiteError, TraceError
from interpose.graph import Batch, Graph, Site
from interpose.graph.sites import standard
from interpose.models import Dims, Family, find
from interpose.trace.access import Call, Encoder, Layers, Module, Part, other_name
from interpose.trace.block import Trace
from interpose.trace.info import ModelInfo
from interpose.trace.lines import user_line
from interpose.trace.shapes import Shapes
from interpose.trace.tokens import make_batch, tokens
from interpose.trace.weights import hash_of, module_at, projection

_ATTRIBUTES = "network tokenizer info config family dims backend layers call norm shapes"


@final
class Model:
    """A network whose parts have names.

    Args:
        network: any torch module; it is never changed.
        tokenizer: a tokenizer object of the transformers library, or None.
        info: where it came from.
        attention: how its library lets attention be tapped, or None.

    Attributes:
        network: the stock module.
        tokenizer: as given.
        info: as given.
        family: the table of its architecture, or None; then its parts are reached by `module(path)`.
        dims: its sizes, or None.
        backend: what runs its graphs.
        layers: its layers, by number.
        norm: the final norm; `norm.output` is a site.
        call: its own modules as functions of values in a block.
        shapes: the shapes of its sites.
    """

    def __init__(
        self, network: torch.nn.Module, *, tokenizer: Any = None, info: ModelInfo, attention: Attention | None = None
    ) -> None:
        """Find the table for the network's `config.model_type`."""
        config = getattr(network, "config", None)
        self.network, self.tokenizer, self.info, self.config = network, tokenizer, info, config
        family = find(getattr(config, "model_type", None))
        self.family: Family | None = None if family is None else family.of(config)
        self.dims: Dims | None = self.family.dims(config) if self.family is not None else None
        self.backend = LocalBackend(network, self.family, self.dims, attention)
        self.layers, self.call = Layers(self), Call(self)
        self.norm = Part(self, "norm.", ("output",), {})
        self._open: ContextVar[Trace | None] = ContextVar(f"open block of {info.name}", default=None)
        self._hash = info.weights_hash
        self.shapes = Shapes(self)

    def __getattr__(self, name: str) -> Any:
        """Names that other libraries give to sites (`model.layers_output[3]`); else an error with the nearest names."""
        return other_name(self, name)

    def __setattr__(self, name: str, value: Any) -> None:
        """Set an attribute, or write a site; a misspelt site is refused, since nothing else would say so."""
        if not (
            name.startswith("_") or name in _ATTRIBUTES.split() or isinstance(getattr(type(self), name, None), property)
        ):
            other_name(self, name)
            raise TraceError(f"{user_line()}: {name} is no site of its own; write one of its elements.")
        object.__setattr__(self, name, value)

    def __repr__(self) -> str:
        """Name, kind and size."""
        count = sum(weight.numel() for weight in self.network.parameters())
        kind = (
            type(self.network).__name__ if self.family else f"{type(self.network).__name__}, no table: use module(path)"
        )
        note = f", {self.info.note}" if self.info.note else ""
        return f"Model({self.info.name}: {kind}, {count:,} parameters{note})"

    def trace(self, *inputs: Any, run: bool = True, **kwargs: Any) -> Trace:
        """Open a with-block in which sites are read and written.

        Args:
            *inputs: a prompt, a list of prompts, or what the module is called with; nothing opens no world, so that
                several can be opened by `t.world(name, ...)`.
            run: run when the block ends; with False only `t.graph` and `t.feed` are made.
            **kwargs: further arguments of the module.

        Returns:
            the block.

        Example:
            ```python
            with model.trace("The Eiffel Tower is in the city of") as t:
                model.layers[14].mlp.output[:, -1] = 0
                logits = model.logits[:, -1].save()
            ```
        """
        return Trace(self, self.batch(*inputs, **kwargs) if inputs or kwargs else None, run)

    def tokens(self, prompts: str | Sequence[str]) -> Batch:
        """Tokenise prompts, padded on the left.

        Args:
            prompts: one or several.

        Returns:
            a batch with `input_ids`, `attention_mask` and `position_ids`, each [prompt, position].
        """
        if self.tokenizer is None:
            raise TraceError(
                f"{user_line()}: {self.info.name} has no tokenizer, so it cannot read text. Give token ids as a "
                "tensor, or a "
                "tokenizer when loading: ip.wrap(module, tokenizer=...)."
            )
        return tokens(self.tokenizer, prompts)

    def batch(self, *inputs: Any, **kwargs: Any) -> Batch:
        """What one call of the model is given, from prompts, token ids or the module's own arguments."""
        return make_batch(self, inputs, kwargs)

    def plan(self, graph: Graph) -> Any:
        """What will run for a graph; print it."""
        return self.backend.plan(graph)

    def module(self, path: str) -> Module:
        """Any module of the network as a place: `.output`, `.input`, `.inputs`, `.call(i).output`.

        Args:
            path: its path, as in `network.get_submodule(path)`.
        """
        self.module_at(path)
        return Module(self, path)

    def site(self, name: str) -> Any:
        """The value at a standard site, by name; TransformerLens's and nnterp's names are understood too."""
        return self.running().read(standard(name))

    embed = property(
        lambda self: self.running().read(Site("embed")),
        lambda self, value: self.running().write(Site("embed"), value),
        doc="The token embedding as it enters the stream [batch, position, width].",
    )
    logits = property(
        lambda self: self.running().read(Site("logits")),
        lambda self, value: self.running().write(Site("logits"), value),
        doc="The logits [batch, position, vocabulary].",
    )
    output = property(
        lambda self: Module(self, "").output,
        lambda self, value: self.running().write(Site("", "output"), value),
        doc="What the whole network returns.",
    )
    input = property(
        lambda self: Module(self, "").input,
        lambda self, value: self.running().write(Site("", "input"), value),
        doc="The network's first tensor argument.",
    )

    @property
    def device(self) -> torch.device:
        """Where its first parameter is."""
        return self.backend.device

    @property
    def dtype(self) -> torch.dtype:
        """The type of its first floating-point parameter."""
        return self.backend.dtype

    @property
    def weights_hash(self) -> str:
        """sha256 of its weights: of the file where it was loaded from one, else of every parameter and buffer."""
        if not self._hash:
            self._hash = hash_of(self.network)
        return self._hash

    @property
    def encoder(self) -> Encoder:
        """The encoder that feeds the layers; its sites are named as theirs.

        Raises:
            SiteError: there is none.
        """
        if self.table().encoder is None:
            raise SiteError(f"{user_line()}: {self.info.name} has no encoder beside its layers.")
        return Encoder(self)

    def decodes(self, site: Site) -> bool:
        """Whether a standard site holds what a decoder was given, and not the tokens that an encoder reads."""
        return self.family is not None and self.family.encoder is not None and not site.in_encoder

    def table(self) -> Family:
        """The architecture's table.

        Raises:
            SiteError: it has none.
        """
        if self.family is None:
            kind = getattr(self.config, "model_type", None) or type(self.network).__name__
            raise SiteError(
                f"{self.info.name} is of a kind without a table ({kind}), so standard names such as "
                "layers[0].output have no "
                'meaning for it. Reach its parts by path: model.module("path.of.module").output.'
            )
        return self.family

    def sizes(self) -> Dims:
        """Its sizes.

        Raises:
            SiteError: its architecture has no table.
        """
        self.table()
        assert self.dims is not None
        return self.dims

    def projection(self, layer: int, kind: str) -> Any:
        """The weights that make one layer's queries, keys or values, inside a block.

        Args:
            layer: which layer.
            kind: `query`, `key` or `value`.

        Returns:
            a value of the block, [head, head width, width]; keys and values have one head a key/value head.
        """
        return projection(self, layer, kind)

    # What the with-block asks of its model.

    def running(self) -> Trace:
        """The block that is open here.

        Raises:
            TraceError: none is.
        """
        block = self._open.get()
        if block is None:
            raise TraceError(
                f"{user_line()}: the parts of {self.info.name} have values only inside a block. Write\n"
                "    with model.trace(prompt) as t:\n        h = model.layers[0].output.save()"
            )
        return block

    def open(self, block: Trace) -> Token:
        """Make a block the open one."""
        if self._open.get() is not None:
            raise TraceError(
                f"{user_line()}: a block of {self.info.name} is opened inside another. Close the first, or open "
                "two worlds in one "
                'block: with t.world("clean", ...): ... with t.world("corrupt", ...): ...'
            )
        return self._open.set(block)

    def close(self, token: Token) -> None:
        """Close the open block."""
        self._open.reset(token)

    def module_at(self, path: str) -> torch.nn.Module:
        """A module by path; raises SiteError, naming the nearest, where there is none."""
        return module_at(self, path)
