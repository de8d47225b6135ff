"""A module that the user already has."""

from typing import Any

import torch

from interpose.errors import LoadError
from interpose.loading.attention import adapter
from interpose.loading.opening import opening
from interpose.trace.info import ModelInfo
from interpose.trace.model import Model


def wrap(module: torch.nn.Module, tokenizer: Any = None) -> Model:
    """Put names on a module of yours; the module and the tokenizer are used as they are and never changed.

    Of a module that `torch.compile` gave, the one that it was given is used: a block runs the network uncompiled, since
    what is compiled has no places to look into.

    Args:
        module: any `torch.nn.Module`, in the mode, on the device and in the number type that you left it in.
        tokenizer: an object called like a tokenizer of transformers, or None.

    Returns:
        a Model around that module.

    Raises:
        LoadError: it is not a module.
    """
    if not isinstance(module, torch.nn.Module):
        raise LoadError(
            f"ip.wrap takes a torch.nn.Module and was given {type(module).__name__}. "
            "To load a model by its name write ip.load(name)."
        )
    module = module._modules.get("_orig_mod") or module
    config = getattr(module, "config", None)
    name = getattr(config, "name_or_path", "") or type(module).__name__
    info = ModelInfo(name=str(name), source="wrap")
    return opening(Model(module, tokenizer=tokenizer, info=info, attention=adapter(module)))
