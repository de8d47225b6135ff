"""Turn a GGUF file of quantised weights into a folder of float32 safetensors, once.

Run in a process of its own: it takes long, talks much and needs twice the memory of the weights.
"""

from copy import deepcopy
from pathlib import Path
from typing import Any

import torch
from gguf import GGUFReader
from safetensors.torch import save_file
from tokenizers import pre_tokenizers
from transformers import AutoModelForCausalLM, AutoTokenizer

# Vocabularies whose merges were learned on text cut at every digit first. transformers does not cut so when it reads
# them from GGUF, and then makes other tokens of blanks in front of a number.
_DIGITS_FIRST = ("smollm",)


def dequantise(gguf: str, folder: str) -> None:
    """Write config, weights (`model.safetensors`) and tokenizer of a GGUF language model.

    Args:
        gguf: path of the GGUF file.
        folder: where to write; made here.
    """
    source, target = Path(gguf), Path(folder)
    target.mkdir()
    wishes: dict[str, Any] = {"gguf_file": source.name, "local_files_only": True}
    network = AutoModelForCausalLM.from_pretrained(source.parent, dtype=torch.float32, **wishes)
    # Written by hand: transformers refuses to save a network that it calls quantised, though it no longer is.
    # Shared parameters are named once here, and tied again by the config when they are read.
    weights = {name: tensor.detach().contiguous() for name, tensor in network.named_parameters()}
    save_file(weights, target / "model.safetensors", metadata={"format": "pt"})
    config: Any = deepcopy(network.config)
    if hasattr(config, "quantization_config"):
        del config.quantization_config
    config.save_pretrained(target)
    network.generation_config.save_pretrained(target)
    tokenizer = AutoTokenizer.from_pretrained(source.parent, **wishes)
    if _vocabulary(source) in _DIGITS_FIRST:
        steps = [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
        tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence(steps)
    tokenizer.save_pretrained(target)


def _vocabulary(gguf: Path) -> str:
    field = GGUFReader(gguf).get_field("tokenizer.ggml.pre")
    return "" if field is None else str(field.contents())
