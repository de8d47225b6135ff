"""How an attention module of transformers is made to call a function of ours, in one copy of it only.

One entry is added to transformers' registry of attention functions at first use; it is inert for every module that was
not asked to use it. The shared config is never written: the copy is given a config of its own.
"""

import sys
from collections.abc import Callable, Sequence, Set
from copy import copy
from typing import Any, final

import torch

from interpose.errors import SiteError
from interpose.loading import prefixes

_ENTRY = "interpose"
_SLOT = "_interpose_attention"
_PLAIN = ("eager", "sdpa")


@final
class TransformersAttention:
    """The Attention adapter for networks of transformers."""

    def install(self, module_copy: torch.nn.Module, function: Callable[..., Any]) -> None:
        """Make this copy call `function(stock, module, query, key, value, mask, **kwargs)` instead of its stock kernel.

        Args:
            module_copy: a copy of an attention module, with a `__dict__` of its own; the original is not touched.
            function: gets as `stock` the kernel that the module would have called, with the rest of its arguments.

        Raises:
            SiteError: this architecture does not take its attention function from the registry.
        """
        stock = stock_kernel(module_copy)
        _register()
        config: Any = copy(module_copy.config)
        # Not the public setter, which also writes the configs of parts, and those are shared.
        config.__dict__["_attn_implementation_internal"] = _ENTRY
        module_copy.__dict__["config"] = config
        module_copy.__dict__[_SLOT] = (function, stock)

    def widen(self, module_copy: torch.nn.Module) -> None:
        """Let this copy also take a fused projection in which each query head has a key and a value of its own.

        Args:
            module_copy: a copy of an attention module that does not use the registry; only Falcon's shares keys.
        """
        if any(kind.__name__ == "FalconAttention" for kind in type(module_copy).__mro__):
            _widen_falcon(module_copy)

    def recording(self) -> Any:
        """A cache that a pass fills with the keys and values of all its positions."""
        return prefixes.recording()

    def recorded(self, cache: Any) -> Sequence[tuple[torch.Tensor, torch.Tensor]]:
        """The keys and values that such a cache holds, a pair a layer [batch, head, position, width]."""
        return prefixes.recorded(cache)

    def prefixed(self, before: Sequence[tuple[torch.Tensor, torch.Tensor]], apart: Set[int]) -> Any:
        """A cache that holds some first positions for a pass over the others; see `interpose.loading.prefixes`."""
        return prefixes.prefixed(before, apart)


def _widen_falcon(module: Any) -> None:
    stock, heads, width = module._split_heads, module.num_heads, module.head_dim

    def split(fused: torch.Tensor) -> tuple[torch.Tensor, ...]:
        if fused.shape[-1] != 3 * heads * width:
            return stock(fused)
        return fused.unflatten(-1, (heads, 3, width)).unbind(-2)

    module.__dict__["_split_heads"] = split
    if not module.new_decoder_architecture:
        module.__dict__["num_kv_heads"] = -1  # only used as a length, which torch then works out


def adapter(network: torch.nn.Module) -> TransformersAttention | None:
    """The adapter where transformers made the network or a part of it, else None. Never imports transformers."""
    library = sys.modules.get("transformers.modeling_utils")
    if library is None or not any(isinstance(module, library.PreTrainedModel) for module in network.modules()):
        return None
    return TransformersAttention()


def stock_kernel(module: torch.nn.Module) -> Callable[..., Any]:
    """The kernel that an attention module of transformers calls by itself.

    Args:
        module: an attention module.

    Returns:
        a function of (module, query, key, value, mask, **kwargs).

    Raises:
        SiteError: the module does not take its kernel from the registry.
    """
    if _SLOT in module.__dict__:
        return module.__dict__[_SLOT][1]
    config = getattr(module, "config", None)
    names = _modeling_names(type(module))
    if config is None or "ALL_ATTENTION_FUNCTIONS" not in names:
        raise SiteError(
            f"{type(module).__name__} does not take its attention function from transformers' registry, so its query, "
            "key, value, scores and pattern cannot be reached. Use attn.q, attn.k, attn.v or attn.z."
        )
    chosen = config._attn_implementation
    if chosen == "eager" and getattr(module, "reorder_and_upcast_attn", False):
        raise SiteError(
            f"{type(module).__name__} with reorder_and_upcast_attn does not use its attention function. "
            "Load it with reorder_and_upcast_attn=False, or with attn_implementation='sdpa'."
        )
    kernel = names["ALL_ATTENTION_FUNCTIONS"].get_interface(chosen, names.get("eager_attention_forward"))
    return kernel if chosen in _PLAIN else _with_config(kernel, config)


def _modeling_names(kind: type) -> dict[str, Any]:
    # A user's subclass lives in another file than the kernel that it inherits.
    for base in kind.__mro__:
        module = sys.modules.get(base.__module__)
        if module is not None and hasattr(module, "ALL_ATTENTION_FUNCTIONS"):
            return vars(module)
    return {}


def _with_config(kernel: Callable[..., Any], config: Any) -> Callable[..., Any]:
    # Flash kernels look up their own name in the config of the module they are given.
    def stock(module: Any, *args: Any, **kwargs: Any) -> Any:
        seen = copy(module)
        seen.__dict__["config"] = config
        return kernel(seen, *args, **kwargs)

    return stock


def _dispatch(module: Any, query: Any, key: Any, value: Any, attention_mask: Any, **kwargs: Any) -> Any:
    function, stock = module.__dict__[_SLOT]
    return function(stock, module, query, key, value, attention_mask, **kwargs)


def _register() -> None:
    from transformers import AttentionInterface

    AttentionInterface.register(_ENTRY, _dispatch)
