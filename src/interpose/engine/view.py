"""Views: a network seen with some of its modules changed, sharing every parameter with the original.

Only the modules on the way from the root to a changed module are copied, shallowly. The user's network is never touched:
there is nothing to remove, nothing that can outlive a run, and threads cannot meet.
"""

from collections.abc import Callable, Mapping
from typing import Any

import torch

from interpose.errors import RunError

Wrap = Callable[[torch.nn.Module, Callable[..., Any]], Callable[..., Any]]
"""Given the copy and its own forward, the forward to use instead."""

_HOOKS = (
    "_forward_hooks",
    "_forward_hooks_with_kwargs",
    "_forward_hooks_always_called",
    "_forward_pre_hooks",
    "_forward_pre_hooks_with_kwargs",
)


def view(network: torch.nn.Module, wraps: Mapping[str, Wrap]) -> torch.nn.Module:
    """A view of a network in which the modules at some paths run another forward.

    Args:
        network: the root; it is not changed.
        wraps: for each module's path (empty for the root), what makes its new forward.

    Returns:
        a copy of the root to call; parameters, buffers and all other modules are the originals.

    Raises:
        RunError: a module on the way keeps a forward of its own that is tied to the original.
    """
    copies: dict[str, torch.nn.Module] = {"": _copy(network, "")}
    for path, wrap in wraps.items():
        module = _reach(copies, path)
        module.__dict__["forward"] = wrap(module, module.forward)
    return copies[""]


def _reach(copies: dict[str, torch.nn.Module], path: str) -> torch.nn.Module:
    here, module = "", copies[""]
    for name in path.split(".") if path else ():
        here = f"{here}.{name}" if here else name
        if here not in copies:
            copies[here] = _copy(module._modules[name], here)
            module._modules[name] = copies[here]
        module = copies[here]
    return module


def _copy(module: Any, path: str) -> torch.nn.Module:
    twin = module.__class__.__new__(module.__class__)
    twin.__dict__ = dict(module.__dict__)
    twin.__dict__["_modules"] = dict(module._modules)
    for name in _HOOKS:
        twin.__dict__[name] = module.__dict__[name].copy()
    if "forward" in module.__dict__:
        twin.__dict__["forward"] = _unbound(twin, path)
    return twin


def _unbound(twin: Any, path: str) -> Callable[..., Any]:
    """A forward that was set on the instance: accelerate's is made anew for the copy, any other is refused."""
    hook = twin.__dict__.get("_hf_hook")
    if hook is None:
        raise RunError(
            f"The module {path or 'at the root'!r} has a forward set on the instance, which would run the original's parts and "
            "miss every site below it. Delete it (del module.forward) or define it on the class."
        )

    def forward(*args: Any, **kwargs: Any) -> Any:
        args, kwargs = hook.pre_forward(twin, *args, **kwargs)
        return hook.post_forward(twin, type(twin).forward(twin, *args, **kwargs))

    return forward
