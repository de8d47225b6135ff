"""Views: a network seen with some of its modules changed, sharing every parameter with the original.

Only the modules on the way from the root to a changed module are copied, shallowly. The user's network is never
touched: there is nothing to remove, nothing that can outlive a run, and threads cannot meet. Hooks that the user
registered stay on: they are shared with the copies.
"""

from collections.abc import Callable, Mapping
from typing import Any, final

import torch

from interpose.errors import RunError

Forward = Callable[..., Any]
Around = Callable[[Forward], Forward]
"""Given a forward, the forward to use instead."""

_HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
_HOOK_NOTES = ("_forward_hooks_with_kwargs", "_forward_hooks_always_called", "_forward_pre_hooks_with_kwargs")


def packages_of(value: Any) -> frozenset[str]:
    """The packages that the classes of a network come from."""
    return frozenset(kind.__module__.partition(".")[0] for kind in type(value).__mro__) - {"__main__"}


def is_hooked(module: torch.nn.Module, packages: frozenset[str]) -> bool:
    """Whether hooks, or a forward set on the instance, may change what a module does.

    Args:
        module: the module.
        packages: where hooks come from that are known to leave a forward pass as it is.
    """
    if "forward" in module.__dict__ and "_hf_hook" not in module.__dict__:
        return True
    hooks = [*module._forward_hooks.values(), *module._forward_pre_hooks.values()]
    return any((getattr(hook, "__module__", None) or "").partition(".")[0] not in packages for hook in hooks)


class Change:
    """What a view does to one module.

    Attributes:
        prepare: given the copy, once, when the view is made.
        inside: around the module's own forward, after the user's pre-hooks have seen the input.
        outside: given what the whole call gave, after the user's hooks have seen it; gives what goes on from there.
    """

    __slots__ = ("inside", "outside", "prepare")

    def __init__(
        self,
        prepare: Callable[[torch.nn.Module], None] | None = None,
        inside: Around | None = None,
        outside: Callable[[Any], Any] | None = None,
    ) -> None:
        """Any of the three may be absent."""
        self.prepare, self.inside, self.outside = prepare, inside, outside


@final
class View:
    """A network in which the modules at some paths run another forward.

    Attributes:
        root: the copy of the root, to be called; parameters, buffers and all other modules are the originals.

    Args:
        network: the root; it is not changed.
        changes: for each module's path (empty for the root), what is done to it.

    Raises:
        RunError: a module on the way keeps a forward of its own that is tied to the original.
    """

    def __init__(self, network: torch.nn.Module, changes: Mapping[str, Change]) -> None:
        """Copy the modules on the way to each change."""
        self._seen: list[dict[str, Any]] = []
        self._was: list[dict[str, Any]] = []
        copies: dict[str, torch.nn.Module] = {"": self._copy(network, "")}
        for path, change in changes.items():
            module = self._reach(copies, path)
            if change.prepare is not None:
                self._watch(getattr(getattr(module, "config", None), "__dict__", {}))
                change.prepare(module)
            _put_around(module, change)
        self.root = copies[""]

    def fresh(self) -> bool:
        """Whether every copied module is still as it was when it was copied, so that the view may be used again."""
        try:
            return self._seen == self._was
        except (RuntimeError, ValueError):  # a changed attribute that does not compare to one truth value
            return False

    def _watch(self, attributes: dict[str, Any]) -> None:
        self._seen.append(attributes)
        self._was.append(dict(attributes))

    def _reach(self, copies: dict[str, torch.nn.Module], path: str) -> torch.nn.Module:
        here, module = "", copies[""]
        for name in path.split(".") if path else ():
            here = f"{here}.{name}" if here else name
            if here not in copies:
                copies[here] = self._copy(module._modules[name], here)
                module._modules[name] = copies[here]
            module = copies[here]
        return module

    def _copy(self, module: Any, path: str) -> torch.nn.Module:
        self._watch(module.__dict__)
        self._watch(module._modules)
        twin = _twin(module)
        twin.__dict__["_modules"] = dict(module._modules)
        if "forward" in module.__dict__:
            twin.__dict__["forward"] = _unbound(twin, path)
        return twin


def _twin(module: torch.nn.Module) -> Any:
    twin = module.__class__.__new__(module.__class__)
    twin.__dict__ = dict(module.__dict__)
    twin.__dict__["_compiled_call_impl"] = None  # what module.compile() left would call the original
    return twin


def _put_around(module: torch.nn.Module, change: Change) -> None:
    if change.outside is None:
        if change.inside is not None:
            module.__dict__["forward"] = change.inside(module.forward)
        return
    # A second copy keeps the user's hooks and runs inside the first, which has none.
    within = _twin(module)
    if "forward" in module.__dict__:
        within.__dict__["forward"] = _unbound(within, "")
    if change.inside is not None:
        within.__dict__["forward"] = change.inside(within.forward)
    for name in (*_HOOKS, *_HOOK_NOTES):
        module.__dict__[name] = type(module.__dict__[name])()
    module.__dict__["forward"] = _called(within, change.outside)


def _called(module: torch.nn.Module, then: Callable[[Any], Any]) -> Forward:
    """The module's call, its bare forward as long as it has no hooks; and then what is done to the result."""
    first, second, third, fourth = [module.__dict__[name] for name in _HOOKS]
    bare = module.forward

    def forward(*args: Any, **kwargs: Any) -> Any:
        if first or second or third or fourth:
            return then(module(*args, **kwargs))
        return then(bare(*args, **kwargs))

    return forward


def _unbound(twin: Any, path: str) -> Forward:
    """A forward that was set on the instance: accelerate's is made anew for the copy, any other is refused."""
    hook = twin.__dict__.get("_hf_hook")
    if hook is None:
        raise RunError(
            f"The module {path or 'at the root'!r} has a forward set on the instance, which would run the "
            "original's parts and "
            "miss every site below it. Delete it (del module.forward) or define it on the class."
        )

    def forward(*args: Any, **kwargs: Any) -> Any:
        args, kwargs = hook.pre_forward(twin, *args, **kwargs)
        return hook.post_forward(twin, type(twin).forward(twin, *args, **kwargs))

    return forward
