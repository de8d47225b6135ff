"""Models in a folder that `save_pretrained` wrote: a config, safetensors, and usually a tokenizer."""

from pathlib import Path
from typing import Any

import torch

from interpose.errors import LoadError
from interpose.loading import pretrained
from interpose.loading.placement import Placement

_PICKLED = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl")
_TOKENIZER = ("tokenizer.json", "tokenizer_config.json", "tokenizer.model", "vocab.json", "vocab.txt", "spiece.model")


def load(path: Path, placement: Placement) -> tuple[torch.nn.Module, Any]:
    """Load a folder; the hub is never asked.

    Args:
        path: the folder.
        placement: number type and device.

    Returns:
        network and tokenizer; the tokenizer is None where the folder holds none.

    Raises:
        LoadError: it is no such folder, or holds pickled weights, or transformers cannot read it.
    """
    check(path)
    try:
        network = pretrained.network(path, placement, local=True)
        has_tokenizer = any((path / name).is_file() for name in _TOKENIZER)
        return network, pretrained.tokenizer(path, local=True) if has_tokenizer else None
    except LoadError:
        raise
    except Exception as error:  # the libraries raise many kinds for one thing: these files cannot be read
        raise LoadError(
            f"transformers could not read the folder {path}: {pretrained.reason(error)}. "
            "Write the folder again with save_pretrained, or load it yourself and write ip.wrap(network, tokenizer)."
        ) from error


def check(path: Path) -> None:
    """Refuse, with a reason, what is not a folder of config and safetensors.

    Args:
        path: what the user named.

    Raises:
        LoadError: the path does not exist, is a file, has no config, or has no or only pickled weights.
    """
    if not path.exists():
        raise LoadError(f"There is no folder {path} (looked for {path.absolute()}).")
    if not path.is_dir():
        raise LoadError(f"{path} is a file. Name the folder that holds config.json and the safetensors: {path.parent}.")
    if not (path / "config.json").is_file():
        held = ", ".join(sorted(entry.name for entry in path.iterdir())[:5]) or "nothing"
        raise LoadError(f"{path} has no config.json, so it is no folder that save_pretrained wrote; it holds {held}.")
    if next(path.glob("*.safetensors"), None):
        return
    pickled = sorted(entry.name for pattern in _PICKLED for entry in path.glob(pattern))
    if pickled:
        raise LoadError(
            f"{path} holds pickled weights ({pickled[0]}), and opening a pickle can run code; interpose reads "
            "safetensors only. If you trust the file, convert it once: "
            "AutoModelForCausalLM.from_pretrained(folder).save_pretrained(new_folder)."
        )
    raise LoadError(f"{path} has a config.json but no weights: there is no .safetensors file in it.")
