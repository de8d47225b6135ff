"""Adapters of the peft library, merged into the weights.

After merging there is nothing left that a site could miss: the weights are the adapted ones, and modules have the paths
they had. Only a config and safetensors are read; no code that comes with an adapter is run.
"""

import hashlib
import json
import warnings
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch

from interpose.errors import LoadError
from interpose.loading import pretrained

_CONFIG, _WEIGHTS, _PICKLED = "adapter_config.json", "adapter_model.safetensors", "adapter_model.bin"


def merged(network: torch.nn.Module, adapter: str) -> tuple[torch.nn.Module, str]:
    """A network with an adapter in its weights.

    Args:
        network: a transformers model; it becomes the merged one.
        adapter: a folder that peft's `save_pretrained` wrote, or `org/name` on the hub.

    Returns:
        the network, in eval mode, its parameters frozen; and the sha256 of the adapter's weights, as hex.

    Raises:
        LoadError: peft is not installed, there is no such adapter, or it is none that can be merged into this network.
    """
    if find_spec("peft") is None:
        raise LoadError("adapter=... needs the package peft. Write `pip install peft` (or interpose[adapters]).")
    if getattr(network, "is_quantized", False):
        raise LoadError(
            f"The adapter {adapter} cannot be merged into quantised weights without rounding them again. Load the "
            "unquantised model that it was trained on."
        )
    folder = _folder(adapter)
    _check(adapter, folder)
    digest = hashlib.sha256((folder / _WEIGHTS).read_bytes()).hexdigest()
    made = _merge(network, adapter, folder)
    made.eval().requires_grad_(False)
    return made, digest


def _folder(adapter: str) -> Path:
    path = Path(adapter).expanduser()
    if path.exists() or adapter.startswith(("./", "../", "/", "~")):
        return path
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(adapter, allow_patterns=[_CONFIG, _WEIGHTS]))
    except Exception as error:  # the library raises many kinds: network, access, no such repository, no such name
        raise LoadError(
            f"The adapter {adapter} could not be fetched: {pretrained.reason(error)}. For a folder on this machine "
            f"write adapter='./{path.name}'."
        ) from error


def _check(adapter: str, folder: Path) -> None:
    if not folder.is_dir():
        raise LoadError(f"There is no folder {folder} with an adapter (looked for {folder.absolute()}).")
    if not (folder / _CONFIG).is_file():
        raise LoadError(f"{adapter} has no {_CONFIG}, so it is no adapter that peft's save_pretrained wrote.")
    if not (folder / _WEIGHTS).is_file():
        pickled = (folder / _PICKLED).is_file()
        held = f"only pickled weights ({_PICKLED}), and opening a pickle can run code" if pickled else f"no {_WEIGHTS}"
        raise LoadError(f"{adapter} has {held}; interpose reads safetensors only. Save it again with a newer peft.")
    try:
        kind = json.loads((folder / _CONFIG).read_text(encoding="utf-8"))["peft_type"]
    except (ValueError, KeyError, TypeError) as error:
        raise LoadError(f"The {_CONFIG} of {adapter} is damaged: {error!r}.") from error
    if not isinstance(kind, str) or "PROMPT" in kind or "PREFIX" in kind or kind == "P_TUNING":
        raise LoadError(f"{adapter} is of the kind {kind}, which adds tokens and no weights, so it cannot be merged.")


def _merge(network: Any, adapter: str, folder: Path) -> torch.nn.Module:
    from peft import PeftModel

    before = {name: weight.shape for name, weight in network.named_parameters()}
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # peft asks transformers for things by their old names
            wrapped: Any = PeftModel.from_pretrained(network, str(folder), use_safetensors=True)
            made = wrapped.merge_and_unload(safe_merge=True)
    except Exception as error:  # peft and torch raise many kinds for one thing: it does not fit
        raise LoadError(
            f"The adapter {adapter} does not fit into a {type(network).__name__}: {pretrained.reason(error)}. Load the "
            "model that it was trained on."
        ) from error
    after = {name: weight.shape for name, weight in made.named_parameters()}
    if after != before:
        changed = sorted(set(before.items()) ^ set(after.items()))[0][0]
        raise LoadError(
            f"The adapter {adapter} changes more than the weights of a {type(network).__name__} ({changed}), so it "
            "cannot be merged."
        )
    return made
