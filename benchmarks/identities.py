"""48 modules that do nothing: what a run costs by itself, and what each place in it costs."""

from collections.abc import Callable
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor, nn

import interpose as ip

MODULES = 48


def chain() -> nn.Sequential:
    """The network."""
    return nn.Sequential(*(nn.Identity() for _ in range(MODULES)))


def calls(peers: bool) -> dict[str, Callable[[], Any]]:
    """What is timed, by name; the first is the network by itself.

    Args:
        peers: time other libraries too, where they can be imported.
    """
    bare, hooked, x = chain(), chain(), torch.zeros(1)
    made: dict[str, Callable[[], Any]] = {
        "bare call": lambda: bare(x),
        "48 raw hooks": lambda: _hooks(hooked, x),
        **_interpose(x),
    }
    if peers and find_spec("nnsight") is not None:
        made |= _nnsight(x)
    return made


def _hooks(network: nn.Sequential, x: Tensor) -> list[Tensor]:
    found: list[Tensor] = []
    handles = [part.register_forward_hook(lambda module, args, output: found.append(output)) for part in network]
    network(x)
    for handle in handles:
        handle.remove()
    return found


def _interpose(x: Tensor) -> dict[str, Callable[[], Any]]:
    network = chain()
    model = ip.wrap(network)

    def replay(*paths: str) -> Callable[[], Any]:
        with model.trace(x, run=False) as t:
            for path in paths:
                model.module(path).output.save()
        return lambda: next(iter(model.backend.run_many([t.graph], [t.feed])))

    every = [str(number) for number in range(MODULES)]
    # Each reads what the network returns, so that each runs all of it: a run ends where nothing more is wanted.
    return {
        "wrapped, bare call": lambda: network(x),
        "replay, output only": replay(""),
        "replay, 1 read": replay(every[MODULES // 2], ""),
        "replay, 48 reads": replay(*every, ""),
    }


def _nnsight(x: Tensor) -> dict[str, Callable[[], Any]]:
    from nnsight import NNsight

    network = chain()
    model = NNsight(network)

    def empty() -> None:
        with model.trace(x):
            pass

    def reads() -> Any:
        with model.trace(x):
            found = [part.output for part in model].save()
        return found  # noqa: RET504 - it has its value only here

    return {"nnsight, bare call": lambda: network(x), "nnsight, empty": empty, "nnsight, 48 reads": reads}
