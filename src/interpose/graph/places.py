"""Places: where the sites of one model live in its stock network, as data.

A table of `interpose.models` says it; the engine reads it. Neither knows the other.
"""

from dataclasses import dataclass, field
from typing import Literal, Protocol, runtime_checkable

from interpose.graph.sites import Site


@dataclass(frozen=True)
class Dims:
    """The sizes of one model, named as the axes of its sites.

    Attributes:
        layers: number of layers.
        heads: query heads, H.
        kv_heads: key/value heads, K.
        head_width: width of one head, D.
        width: model width, M.
        neurons: width of the MLP's hidden layer, F.
        vocab: size of the vocabulary, V.
        parallel: attention and MLP read the same stream and are added together.
        encoder_layers: number of layers of an encoder beside them.
    """

    layers: int
    heads: int
    kv_heads: int
    head_width: int
    width: int
    neurons: int
    vocab: int
    parallel: bool = False
    encoder_layers: int = field(default=0, repr=False)

    @property
    def blocks(self) -> tuple[int, int, int]:
        """Widths of all queries, all keys and all values."""
        return self.heads * self.head_width, self.kv_heads * self.head_width, self.kv_heads * self.head_width


@dataclass(frozen=True)
class Place:
    """Where a site lives in the stock network.

    Attributes:
        module: full path of the module whose call is tapped.
        side: its `input`, its `output`, the `attention` function it calls, or the attention written out `inline` in it.
        form: how the standard tensor is cut out of what is found there; the engine has one lens a form.
        part: for fused projections, which of three.
        heads: for head-shaped sites, the length of the head axis.
        also: other places that the form needs, by role.
        kernel: for keys and values shared by several query heads, the attention module that must cope when a write
            gives each query head its own, and the side of it.
        weight: for `result`, the path of the output projection.
        transposed: weights are stored input-first.
        dims: the model's sizes, where the form needs several of them.
    """

    module: str
    side: Literal["input", "output", "inputs", "attention", "inline"]
    form: str = "plain"
    part: int = 0
    heads: int = 0
    also: tuple[tuple[str, "Place"], ...] = ()
    kernel: tuple[str, str] | None = None
    weight: str = ""
    transposed: bool = False
    dims: Dims | None = None


@runtime_checkable
class Table(Protocol):
    """What the engine needs to know of an architecture."""

    @property
    def causal(self) -> bool:
        """Whether a position changes nothing at those before it, and nothing else feeds the layers."""
        ...

    def place(self, site: Site, dims: Dims) -> Place:
        """Where a standard site lives; raises SiteError where the model has none."""
        ...

    def skips(self, site: Site) -> tuple[tuple[str, str], ...]:
        """The modules that need not run where a site is given, each with the form of what it returns.

        The forms are `tensor`, and `first` for a tensor beside others. Raises SiteError where no module makes the site.
        """
        ...
