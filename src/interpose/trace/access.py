"""How a site is written in Python: `model.layers[12].attn.z`, `model.encoder.layers[0].output`."""

import difflib
import operator
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, final

from interpose.errors import SiteError, TraceError
from interpose.graph.sites import LAYER_SITES, NNTERP, TRANSFORMER_LENS, WHOLE, Site, nearest, shared
from interpose.trace.elsewhere import said_elsewhere
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

    def skip(self, value: Any = None) -> None:
        """Do not run this layer, attention or MLP.

        Args:
            value: what stands for its output; None passes a layer's input on, and adds nothing for an attention or MLP.
        """
        if "layers." not in self._prefix:
            raise NoSuchPlace(
                f"{user_line()}: {self._prefix.rstrip('.')} has no skip: only layers, their attn and their mlp have. "
                'For any module write model.module("path").skip(value).'
            )
        self._model.running().skip(self._site("output"), value)

    def __dir__(self) -> list[str]:
        """The sites and parts, for completion."""
        return sorted([*self._leaves, *self._parts, *(["skip"] if "layers." in self._prefix else [])])

    def __repr__(self) -> str:
        """Its name."""
        return f"<{self._prefix.rstrip('.')} of {self._model.info.name}>"

    def _site(self, name: str) -> Site:
        if name.startswith("_"):
            raise AttributeError(name)
        whole = self._prefix + name
        if name in self._leaves:
            return shared(whole)
        inside, layers, rest = whole.partition("layers.")
        layer, _, local = rest.partition(".")
        if local in TRANSFORMER_LENS:
            return shared(f"{inside}{layers}{layer}.{TRANSFORMER_LENS[local]}")
        raise NoSuchPlace(f"{user_line()}: there is no site {whole}. {nearest(whole)}")


@final
class Layers:
    """The model's layers: `model.layers[3].output`, `len(model.layers)`, `for layer in model.layers`.

    Args:
        model: the model.
        encoder: those of its encoder.
    """

    __slots__ = ("_made", "_model", "_prefix")

    def __init__(self, model: "Model", encoder: bool = False) -> None:
        """Hold the model."""
        self._model, self._prefix = model, "encoder." if encoder else ""
        self._made: dict[int, Part] = {}

    def __len__(self) -> int:
        """How many layers there are."""
        sizes = self._model.sizes()
        return sizes.encoder_layers if self._prefix else sizes.layers

    def __iter__(self) -> Iterator[Part]:
        """The layers, from the first to the last."""
        return (self[index] for index in range(len(self)))

    def __getitem__(self, index: Any) -> Part:
        """One layer; negative numbers count from the last."""
        if type(index) is int and index in self._made:
            return self._made[index]
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
        made = self._made[index] = Part(self._model, f"{self._prefix}layers.{index % count}.", _LEAVES, _PARTS)
        return made


@final
class Encoder:
    """An encoder beside the layers: `model.encoder.layers[3].attn.z`, `model.encoder.norm.output`.

    Args:
        model: the model.

    Raises:
        SiteError: it has none.
    """

    __slots__ = ("_layers", "_model")

    def __init__(self, model: "Model") -> None:
        """Hold the model."""
        if model.table().encoder is None:
            raise SiteError(f"{user_line()}: {model.info.name} has no encoder beside its layers.")
        self._model, self._layers = model, Layers(model, encoder=True)

    @property
    def layers(self) -> Layers:
        """Its layers, by number."""
        return self._layers

    @property
    def norm(self) -> Part:
        """Its final norm; `norm.output` is a site."""
        return Part(self._model, "encoder.norm.", ("output",), {})

    @property
    def embed(self) -> Any:
        """The token embedding as it enters its stream [batch, position, width]."""
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


def site_of_model(site: Site, doc: str) -> property:
    """A property of a Model that reads and writes a site of the whole model."""
    return property(
        lambda model: model.running().read(site), lambda model, value: model.running().write(site, value), doc=doc
    )


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
        return (
            f'For that module as a place write model.module("{name}"), to apply it to a value of a block '
            f'model.call.module("{name}", value); the module itself is model.network.{name}.'
        )
    said = said_elsewhere(name)
    if said is not None:
        return said
    close = difflib.get_close_matches(name, dir(model), n=3, cutoff=0.6)
    return f"Nearest names: {', '.join(close)}." if close else nearest(name)
