"""From a name to a Model: a card of the zoo, a folder on this machine, or `org/name` on the hub."""

import gc
import hashlib
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import torch

from interpose.errors import LoadError
from interpose.loading.attention import adapter as attention_of
from interpose.loading.cards import CARD, Card, cards, read
from interpose.loading.opening import opening
from interpose.loading.placement import Placement, placement
from interpose.trace.info import ModelInfo
from interpose.trace.model import Model

_HUB = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")


def load(
    name: str | os.PathLike[str],
    *,
    adapter: str | os.PathLike[str] | None = None,
    dtype: Any = None,
    device: Any = None,
    device_map: Any = None,
) -> Model:
    """Load a trained language model: in eval mode, its parameters frozen, with its tokenizer.

    Args:
        name: a short name of the zoo (`smollm2-135m-instruct`), a folder that `save_pretrained` or `interpose zoo
            train` wrote (`./folder`), or a model of the Hugging Face hub (`org/name`).
        adapter: a peft adapter (LoRA and its like), merged into the weights: a folder that its `save_pretrained` wrote,
            or `org/name` on the hub (needs peft).
        dtype: floating type of the weights (`"bfloat16"`, `torch.float32`); None keeps the one they are stored in.
        device: where to put the network (`"cuda"`); None is the CPU.
        device_map: how to spread it over devices, as transformers takes it (needs accelerate).

    Returns:
        a Model.

    Raises:
        LoadError: nothing by that name, or it cannot be read; the message says what was tried and what to write.
        DownloadError: it could not be fetched, or is not the pinned file.
    """
    where = placement(dtype, device, device_map)
    with _uncollected():
        network, tokenizer, info = _find(os.fspath(name), where)
        if getattr(network, "is_quantized", False):
            info = replace(info, note=_joined(info.note, _quantised(network)))
        if adapter is not None:
            network, info = _with_adapter(network, info, os.fspath(adapter))
    return opening(Model(network, tokenizer=tokenizer, info=info, attention=attention_of(network)))


def _with_adapter(network: torch.nn.Module, info: ModelInfo, adapter: str) -> tuple[torch.nn.Module, ModelInfo]:
    from interpose.loading.merging import merged

    network, digest = merged(network, adapter)
    note = _joined(info.note, f"adapter {adapter} merged")
    # Where the weights came from one file, its hash; else the hash is made of the merged weights when it is asked for.
    both = hashlib.sha256(f"{info.weights_hash} {digest}".encode()).hexdigest() if info.weights_hash else ""
    return network, replace(info, name=f"{info.name} + {Path(adapter).name}", note=note, weights_hash=both)


def _find(name: str, where: Placement) -> tuple[torch.nn.Module, Any, ModelInfo]:
    card = cards().get(name.removeprefix("zoo/"))
    # Each source is imported when it is needed: they import transformers.
    if card is not None:
        return _of_card(card, card.name, where)
    if _is_path(name):
        from interpose.loading import folder

        own = Path(name).expanduser() / CARD
        if own.is_file():
            return _of_card(read(own), name, where)
        return *folder.load(Path(name).expanduser(), where), ModelInfo(name, "folder")
    if _HUB.fullmatch(name) and not name.startswith("zoo/"):
        from interpose.loading import hub

        return *hub.load(name, where), ModelInfo(name, "hub")
    raise LoadError(unknown(name))


def _of_card(card: Card, name: str, where: Placement) -> tuple[torch.nn.Module, Any, ModelInfo]:
    from interpose.loading import wheel, zoo

    source = "wheel" if card.wheel is not None else "zoo"
    network, tokenizer, weights_hash = (wheel if card.wheel is not None else zoo).load(card, where)
    return network, tokenizer, ModelInfo(name, source, card.note, card.licence, weights_hash)


def _quantised(network: Any) -> str:
    method = getattr(getattr(network.config, "quantization_config", None), "quant_method", None)
    return f"quantised ({getattr(method, 'value', method)})"


def _joined(*notes: str) -> str:
    return ", ".join(filter(None, notes))


def unknown(name: str) -> str:
    """What to say of a name that is nothing: the known names, nearest first, and how the other kinds are written."""
    names = list(cards())
    near = get_close_matches(name.lower().removeprefix("zoo/"), names, n=len(names), cutoff=0)
    return (
        f"There is no model {name!r}. Known by a short name: {', '.join(near)}. "
        f"A folder on this machine is written './{Path(name).name or 'folder'}', a model of the Hugging Face hub "
        "'org/name', for example 'openai-community/gpt2'."
    )


def _is_path(name: str) -> bool:
    return name.startswith(("./", "../", "/", "~")) or name in (".", "..") or (name != "" and Path(name).exists())


@contextmanager
def _uncollected() -> Iterator[None]:
    # Importing a model's class makes a great many objects that stay; walking them over and over is a fifth of the time.
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()
