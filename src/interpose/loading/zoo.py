"""Models whose card, vocabulary and weights lie in one folder: those of the zoo, and those one trains oneself."""

from collections.abc import Mapping
from typing import Any

import torch

from interpose.errors import LoadError
from interpose.loading import words
from interpose.loading.cache import sha256
from interpose.loading.cards import MOST_BYTES, Card
from interpose.loading.fresh import stock
from interpose.loading.placement import Placement


def load(card: Card, placement: Placement) -> tuple[torch.nn.Module, Any, str]:
    """Load a card's model from its folder.

    Args:
        card: says what the network is and what the hash of its weights is.
        placement: number type and device.

    Returns:
        network in eval mode, its parameters frozen, tokenizer, and the sha256 of the weights file.

    Raises:
        LoadError: the weights are missing, are not those of the card, or do not fit the network.
    """
    if placement.device_map is not None:
        raise LoadError(f"{card.name} is small and goes to one device: write device='cuda' in place of device_map.")
    network = fresh(card.architecture, card.config)
    tensors, digest = weights(card)
    try:
        network.load_state_dict(tensors)
    except RuntimeError as error:
        first = str(error).splitlines()[1].strip() if "\n" in str(error) else str(error)
        raise LoadError(
            f"The weights of {card.name} do not fit a {card.architecture} with its [config]: {first} "
            "Make both again with `interpose zoo train`."
        ) from error
    network = network.to(device=placement.device, dtype=placement.dtype)
    tokenizer = words.tokenizer(card.tokenizer, card.folder, card.name) if card.tokenizer else None
    return network.eval().requires_grad_(False), tokenizer, digest


def fresh(architecture: str, config: Mapping[str, Any], seed: int = 0) -> torch.nn.Module:
    """A stock network with random weights from a seed; the program's own random numbers go on as if nothing had been.

    Args:
        architecture: a `model_type` of transformers.
        config: its settings, as `interpose.build` takes them.
        seed: of the weights.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return stock(architecture, **config)


def weights(card: Card) -> tuple[dict[str, torch.Tensor], str]:
    """The tensors that lie beside a card, and the hash of their file.

    Args:
        card: the card.

    Raises:
        LoadError: there is no such file, it is larger than a model of the zoo may be, or its hash is another.
    """
    from safetensors.torch import load_file

    if card.weights is None:
        raise LoadError(f"{card.folder} holds the card of {card.name}, whose weights are in a wheel: ip.load by name.")
    path = card.folder / card.weights.file
    if not path.is_file():
        raise LoadError(f"The weights of {card.name} are missing: there is no {path}. Install interpose again.")
    if path.stat().st_size > MOST_BYTES:
        raise LoadError(f"{path} has {path.stat().st_size:,} bytes; weights in the zoo have at most {MOST_BYTES:,}.")
    found = sha256(path)
    if found != card.weights.sha256:
        raise LoadError(
            f"{path} is not the file that its card names: its sha256 is {found}, expected {card.weights.sha256}. "
            "Install interpose again, or make both with `interpose zoo train`."
        )
    return load_file(path), found
