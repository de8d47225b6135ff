"""How a site is written in Python: `model.layers[12].attn.z`, `model.module("path").output`, `model.call.norm(h)`."""

import difflib
import operator
from typing import TYPE_CHECKING, Any, final

from interpose.errors import SiteError, TraceError
from interpose.graph.sites import LAYER_SITES, NNTERP, TRANSFORMER_LENS, WHOLE, Site, nearest, shared
from interpose.trace.lines import user_line

if TYPE_CHECKING:
    from interpose.trace.model import Model


_LEAVES = tuple(name for name in LAYER_SITES if "." not in name)
_PARTS = {
    part: tuple(name.split(".")[1] for name in LAYER_SITES if name.startswith(f"{part}.")) for part in ("attn", "mlp")
}


@final
class NoSuchPlace(SiteError, AttributeError):
    """A SiteError that `hasattr` and editors understand too."""


@final
class LayerError(SiteError, IndexError):
    """A SiteError that ends a loop over numbers too."""


@final
class Part:
    """Something with sites under it: a layer, its attention, its MLP, the final norm.

    Args:
        model: the model.
        prefix: the names of the sites under it begin with this.
        leaves: the names that are sites.
        parts: the names that have sites under them.
    """

    __slots__ = ("_leaves", "_model", "_parts", "_prefix")

    def __init__(self, model: "Model", prefix: str, leaves: tuple[str, ...], parts: dict[str, tuple[str, ...]]) -> None:
        """Only names; nothing is read yet."""
        for name, value in (("_model", model), ("_prefix", prefix), ("_leaves", leaves), ("_parts", parts)):
            object.__setattr__(self, name, value)

    def __getattr__(self, name: str) -> Any:
        """The value at a site (inside a block), or the part of this name."""
        if name in self._parts:
            return Part(self._model, f"{self._prefix}{name}.", self._parts[name], {})
        site = self._site(name)
        return self._model.running().read(site)

    def __setattr__(self, name: str, value: Any) -> None:
        """Write a site."""
        if name in self._parts:
            raise TraceError(
                f"{user_line()}: {self._prefix}{name} is no site; write one of its sites, such as .output."
            )
        site = self._site(name)
        self._model.running().write(site, value)

    def __dir__(self) -> list[str]:
        """The sites and parts, for completion."""
        return sorted([*self._leaves, *self._parts])

    def __repr__(self) -> str:
        """Its name."""
        return f"<{self._prefix.rstrip('.')} of {self._model.info.name}>"

    def _site(self, name: str) -> Site:
        if name.startswith("_"):
            raise AttributeError(name)
        whole = self._prefix + name
        if name in self._leaves:
            return shared(whole)
        layer, _, local = whole.removeprefix("layers.").partition(".")
        if local in TRANSFORMER_LENS:
            return shared(f"layers.{layer}.{TRANSFORMER_LENS[local]}")
        raise NoSuchPlace(f"{user_line()}: there is no site {whole}. {nearest(whole)}")


@final
class Layers:
    """The model's layers: `model.layers[3].output`, `len(model.layers)`, `for layer in model.layers`.

    Args:
        model: the model.
        encoder: those of its encoder.
    """

    __slots__ = ("_model", "_prefix")

    def __init__(self, model: "Model", encoder: bool = False) -> None:
        """Hold the model."""
        self._model, self._prefix = model, "encoder." if encoder else ""

    def __len__(self) -> int:
        """How many layers there are."""
        sizes = self._model.sizes()
        return sizes.encoder_layers if self._prefix else sizes.layers

    def __getitem__(self, index: Any) -> Part:
        """One layer; negative numbers count from the last."""
        count = len(self)
        try:
            index = operator.index(index)
        except TypeError:
            raise SiteError(
                f"{user_line()}: one layer at a time: model.layers[3]; for several, write a loop."
            ) from None
        if not -count <= index < count:
            raise LayerError(
                f"{user_line()}: there is no {self._prefix}layers[{index}]: this model has {count} layers, 0 to "
                f"{count - 1}."
            )
        return Part(self._model, f"{self._prefix}layers.{index % count}.", _LEAVES, _PARTS)


@final
class Encoder:
    """An encoder beside the layers: `model.encoder.layers[3].attn.z`, `model.encoder.norm.output`.

    Attributes:
        layers: its layers, by number.
        norm: its final norm.
        embed: the token embedding as it enters its stream [batch, position, width].

    Args:
        model: the model.
    """

    __slots__ = ("_model", "layers", "norm")

    def __init__(self, model: "Model") -> None:
        """Hold the model."""
        self._model = model
        self.layers, self.norm = Layers(model, encoder=True), Part(model, "encoder.norm.", ("output",), {})

    @property
    def embed(self) -> Any:
        """The value at the site."""
        return self._model.running().read(Site("encoder.embed"))

    @embed.setter
    def embed(self, value: Any) -> None:
        self._model.running().write(Site("encoder.embed"), value)


@final
class Stack:
    """One site of every layer, as nnterp writes it: `model.layers_output[3]`.

    Args:
        model: the model.
        local: the site's name inside a layer.
    """

    __slots__ = ("_local", "_model")

    def __init__(self, model: "Model", local: str) -> None:
        """Only a name; nothing is read yet."""
        self._model, self._local = model, local

    def __len__(self) -> int:
        """How many layers there are."""
        return len(self._model.layers)

    def __getitem__(self, index: Any) -> Any:
        """The value at the site of one layer."""
        part, name = self._at(index)
        return getattr(part, name)

    def __setitem__(self, index: Any, value: Any) -> None:
        """Write the site of one layer."""
        part, name = self._at(index)
        setattr(part, name, value)

    def _at(self, index: Any) -> tuple[Part, str]:
        *parts, name = self._local.split(".")
        layer = self._model.layers[index]
        return (getattr(layer, parts[0]) if parts else layer), name


@final
class Module:
    """Any module of the network as a place, by its path.

    Attributes:
        output: what it returns; `.input` its first tensor argument; `.inputs` all of them as (args, kwargs).
    """

    __slots__ = ("_call", "_model", "_path")

    def __init__(self, model: "Model", path: str, call: int | None = None) -> None:
        """Only a name; nothing is read yet."""
        for name, value in (("_model", model), ("_path", path), ("_call", call)):
            object.__setattr__(self, name, value)

    def call(self, number: int) -> "Module":
        """One call of a module that runs several times in one pass, counted from 0."""
        return Module(self._model, self._path, number)

    def __getattr__(self, name: str) -> Any:
        """The value at `input`, `inputs` or `output`."""
        site = self._site(name)
        return self._model.running().read(site)

    def __setattr__(self, name: str, value: Any) -> None:
        """Write `input`, `inputs` or `output`."""
        site = self._site(name)
        self._model.running().write(site, value)

    def _site(self, name: str) -> Site:
        if name.startswith("_"):
            raise AttributeError(name)
        if name not in ("input", "inputs", "output"):
            raise NoSuchPlace(f'{user_line()}: module("{self._path}") has .input, .inputs and .output, and no .{name}.')
        return Site(self._path, name, self._call)


@final
class Call:
    """The model's own modules as functions of values in a block."""

    __slots__ = ("_model",)

    def __init__(self, model: "Model") -> None:
        """Hold the model."""
        self._model = model

    def module(self, path: str, *values: Any) -> Any:
        """Apply the module at a path.

        Args:
            path: the module's path in the network.
            *values: what it is called with.

        Returns:
            what it returns.
        """
        return self._model.running().call(path, values)

    def norm(self, value: Any) -> Any:
        """Apply the final norm to a stream [..., width]."""
        return self.module(self._model.table().final_norm, value)

    def unembed(self, value: Any) -> Any:
        """Turn normed streams [..., width] into logits [..., vocab]."""
        return self.module(self._model.table().unembed, value)


def other_name(model: "Model", name: str) -> Any:
    """What an attribute that a Model does not have may mean.

    Args:
        model: the model.
        name: the attribute.

    Returns:
        the place, where TransformerLens or nnterp has one of this name.

    Raises:
        NoSuchPlace: none has; the message lists the nearest names.
    """
    if name.startswith("_"):
        raise AttributeError(name)
    if name in NNTERP:
        return Stack(model, NNTERP[name])
    if name in ("blocks", "ln_final"):
        return model.layers if name == "blocks" else model.norm
    if name in WHOLE:
        return model.running().read(Site(WHOLE[name]))
    raise NoSuchPlace(f"{user_line()}: a Model has no {name!r}. {_advice(model, name)}")


def _advice(model: "Model", name: str) -> str:
    if name in model.network._modules:
        return f'For that module as a place write model.module("{name}"); the module itself is model.network.{name}.'
    close = difflib.get_close_matches(name, dir(model), n=3, cutoff=0.6)
    return f"Nearest names: {', '.join(close)}." if close else nearest(name)
