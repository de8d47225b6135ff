"""Model: names for the parts of a network, a backend that runs it, and a tokenizer if it has one."""

from collections.abc import Sequence
from contextvars import ContextVar, Token
from functools import partial
from os import PathLike
from typing import Any, final

import torch

from interpose.engine import Attention, LocalBackend
from interpose.errors import SiteError, TraceError
from interpose.graph import Batch, Feed, Graph, Site
from interpose.graph.sites import standard
from interpose.models import Dims, Family, find
from interpose.trace.access import Encoder, Layers, Part, other_name, site_of_model
from interpose.trace.block import Trace
from interpose.trace.caching import cache
from interpose.trace.dataset import Activations
from interpose.trace.elsewhere import refuse_call
from interpose.trace.generating import world_batch
from interpose.trace.info import ModelInfo
from interpose.trace.lines import user_line
from interpose.trace.modules import Call, Module
from interpose.trace.prompts import Tokens
from interpose.trace.shapes import Shapes
from interpose.trace.tokens import tokens
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
        backend: what runs its graphs; None runs them on the network, here.

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
        self,
        network: torch.nn.Module,
        *,
        tokenizer: Any = None,
        info: ModelInfo,
        attention: Attention | None = None,
        backend: Any = None,
    ) -> None:
        """Find the table for the network's `config.model_type`."""
        config = getattr(network, "config", None)
        self.network, self.tokenizer, self.info, self.config = network, tokenizer, info, config
        family = find(getattr(config, "model_type", None))
        family = None if family is None else family.of(config)
        paths = {path for path, _ in network.named_modules(remove_duplicate=False)}
        self.family: Family | None = None if family is None else family.on(paths)
        self.dims: Dims | None = self.family.dims(config) if self.family is not None else None
        self.backend: Any = backend or LocalBackend(network, self.family, self.dims, attention)
        self.layers, self.call = Layers(self), Call(self)
        self.norm = Part(self, "norm.", ("output",), {})
        self._open: ContextVar[Trace | None] = ContextVar(f"open block of {info.name}", default=None)
        self._hash, self._make_hash = info.weights_hash, partial(hash_of, network)
        self.shapes = Shapes(self)

    def __getattr__(self, name: str) -> Any:
        """Names that other libraries give to sites (`model.layers_output[3]`); else an error with the nearest names."""
        return other_name(self, name)

    __call__ = refuse_call

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
        kind = type(self.network).__name__ + ("" if self.family else ", no table: use module(path)")
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

    def generate(self, *inputs: Any, max_new_tokens: int = 20, run: bool = True, **kwargs: Any) -> Trace:
        """Open a with-block about a generation: its sites are read and written at steps.

        Args:
            *inputs: a prompt, a list of prompts, messages (`[{"role": "user", "content": ...}]`), or token ids.
            max_new_tokens: how many tokens to add, at most.
            run: run when the block ends.
            **kwargs: `temperature` (0, the default, takes the likeliest token), `top_k`, `top_p`, `seed` (0); `stop`,
                the tokens that end a row (ids, or texts of one token; None is the model's own, () none); further
                arguments of the module.

        Returns:
            the block; after it, `t.text` (`t.texts`) is the new text and `t.tokens` the new token ids.

        Example:
            ```python
            with model.generate("Once upon a time", max_new_tokens=20) as t:
                with t.steps():
                    model.layers[10].output[:, -1] += v
            print(t.text)
            ```
        """
        return Trace(self, self.batch(*inputs, max_new_tokens=max_new_tokens, **kwargs), run)

    def edited(self, *edits: Any) -> "Model":
        """A view of this model whose every run has edits in it; the model itself, and `network`, stay as they are.

        Args:
            *edits: blocks that have ended, `ip.Edit`s, graphs, or objects with `edit(model)`; the first comes first.
        """
        from interpose.trace.edited import edited

        return edited(self, edits)

    def cache(self, prompts: Any, sites: str | Sequence[str], out: str | PathLike[str], **options: Any) -> Activations:
        """Stream activations to a folder, as a data set; where it was cut off, the same call goes on.

        Args:
            prompts: texts, or token ids; any iterable, which may be larger than memory.
            sites: names such as `layers.5.output`, or `module("path").output`.
            out: the folder.
            **options: `batch_size=16`, `positions="all"` (or `"last"`), `dtype=None` (or `"float16"`, `"bfloat16"`,
                `"float32"`), `shard_bytes=2**28`, `progress=True`.

        Returns:
            the data set; `ip.Activations.load(out)` opens it again.
        """
        return cache(self, prompts, sites, out, options)

    def tokens(self, prompts: str | Sequence[str]) -> Tokens:
        """Tokenise prompts, padded on the left.

        Args:
            prompts: one or several.

        Returns:
            the tokens, which print as a table: `.ids` and `.mask` [prompt, position], `.texts`, `.position(text)`. A
            block takes them in place of the prompts.
        """
        if self.tokenizer is None:
            raise TraceError(
                f"{user_line()}: {self.info.name} has no tokenizer, so it cannot read text. Give token ids as a "
                "tensor, or a tokenizer when loading: ip.wrap(module, tokenizer=...)."
            )
        return tokens(self.tokenizer, prompts)

    def batch(self, *inputs: Any, **kwargs: Any) -> Batch:
        """What a world is given, from prompts, messages, token ids or the module's own arguments."""
        return world_batch(self, inputs, kwargs)

    def plan(self, graph: Graph, feed: Feed | None = None) -> Any:
        """What will run for a graph, and, given what it is run with, what that costs; print it."""
        return self.backend.plan(graph, feed)

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

    embed = site_of_model(Site("embed"), "The token embedding as it enters the stream [batch, position, width].")
    logits = site_of_model(Site("logits"), "The logits [batch, position, vocabulary].")
    output = site_of_model(Site("", "output"), "What the whole network returns.")
    input = site_of_model(Site("", "input"), "The network's first tensor argument.")

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
        """sha256 of its weights: of the file where it was loaded from one, else of all of them; and of its edits."""
        self._hash = self._hash or self._make_hash()
        return self._hash

    @property
    def encoder(self) -> Encoder:
        """The encoder that feeds the layers; its sites are named as theirs. SiteError where there is none."""
        return Encoder(self)

    def table(self) -> Family:
        """The architecture's table.

        Raises:
            SiteError: it has none.
        """
        if self.family is None:
            kind = getattr(self.config, "model_type", None) or type(self.network).__name__
            raise SiteError(
                f"{self.info.name} is of a kind without a table ({kind}), so standard names such as layers[0].output "
                'have no meaning for it. Reach its parts by path: model.module("path.of.module").output.'
            )
        return self.family

    def sizes(self) -> Dims:
        """Its sizes; SiteError where its architecture has no table."""
        self.table()
        assert self.dims is not None
        return self.dims

    def projection(self, layer: int, kind: str) -> Any:
        """The weights that make one layer's queries, keys or values, or what its heads write, inside a block.

        Args:
            layer: which layer.
            kind: `query`, `key`, `value`, or `out` for the output projection.

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
                'two worlds in one block: with t.world("clean", ...): ... with t.world("corrupt", ...): ...'
            )
        return self._open.set(block)

    def close(self, token: Token) -> None:
        """Close the open block."""
        self._open.reset(token)

    def module_at(self, path: str) -> torch.nn.Module:
        """A module by path; raises SiteError, naming the nearest, where there is none."""
        return module_at(self, path)
