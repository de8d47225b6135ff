"""Models on the Hugging Face hub, by `org/name`; what was fetched before is found in the hub's own cache."""

from typing import Any

import torch
from transformers import AutoConfig

from interpose.errors import LoadError
from interpose.loading import pretrained
from interpose.loading.placement import Placement


def load(name: str, placement: Placement) -> tuple[torch.nn.Module, Any]:
    """Load a causal language model from the hub.

    Args:
        name: `org/name`.
        placement: number type and device.

    Returns:
        network and tokenizer.

    Raises:
        LoadError: the hub cannot be reached, has no such model, or it has no safetensors or needs code of its own.
    """
    stage = "config"
    try:
        # First and alone: without network, this one small file waits through the hub's retries instead of each file.
        AutoConfig.from_pretrained(name, trust_remote_code=False)
        stage = "weights (safetensors only)"
        network = pretrained.network(name, placement, local=False)
        stage = "tokenizer"
        return network, pretrained.tokenizer(name, local=False)
    except LoadError:
        raise
    except Exception as error:  # the libraries raise many kinds: network, access, missing files, unknown architectures
        raise LoadError(
            f"{name} could not be loaded: its {stage}, looked for in the hub's local cache and on huggingface.co, "
            f"failed with: {pretrained.reason(error)}. For a folder on this machine write ip.load('./folder')."
        ) from error
