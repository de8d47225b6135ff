"""Any module of the network: as a place (`model.module("path").output`), or applied (`model.call.norm(h)`)."""

from typing import TYPE_CHECKING, Any, final

from interpose.errors import TraceError
from interpose.graph.sites import Site, shared
from interpose.trace.access import NoSuchPlace
from interpose.trace.lines import user_line

if TYPE_CHECKING:
    from interpose.trace.model import Model


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

    def skip(self, value: Any) -> None:
        """Do not run this module; `value` stands for what it returns."""
        if self._call is not None:
            raise TraceError(
                f"{user_line()}: one call of a module cannot be skipped by itself; write its output instead: "
                f'module("{self._path}").call({self._call}).output = value.'
            )
        self._model.running().skip(self._site("output"), value)

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
        return self.module(self._part("norm.output"), value)

    def unembed(self, value: Any) -> Any:
        """Turn normed streams [..., width] into logits [..., vocab]."""
        path, table = self._part("logits"), self._model.table()
        if table.project_out is not None:
            value = self.module(table.project_out, value)
        logits, cap = self.module(path, value), table.cap(self._model.config)
        return logits if cap is None else (logits / cap).tanh() * cap

    def _part(self, site: str) -> str:
        """The module that makes a site of the whole model."""
        table = self._model.table()
        path = table.final_norm if site == "norm.output" else table.unembed
        if path is None:
            table.place(shared(site), self._model.sizes())  # says why there is none
        return path or ""
