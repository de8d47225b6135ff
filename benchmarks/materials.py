"""The models and prompts that `speed.py` and `growth.py` run on; the same seed gives the same ones."""

from dataclasses import replace
from typing import Any

import torch
import transformers
from sweeps import twin

import interpose as ip

CLEAN = "When John and Mary went to the store, John gave a drink to"
LATE = "When John and Mary went to the store, Mary gave a drink to"
EARLY = "When Paul and Kate went to the store, Paul gave a drink to"


def pair(model: ip.Model, corrupt: str) -> ip.Pairs:
    """One pair of 14 tokens: the corrupt prompt is LATE (position 9 differs) or EARLY (positions 1, 3 and 9)."""
    return ip.pairs(model, clean=[CLEAN], corrupt=[corrupt], answers=[" Mary"], wrong=[" John"])


def even_pairs(model: ip.Model, count: int, seed: int) -> ip.Pairs:
    """IOI pairs of one length, so that no prompt is padded: the length that most of the drawn ones have."""
    drawn = ip.tasks.IOI().pairs(model, n=12 * count, seed=seed)
    lengths = drawn.mask.sum(1)
    length = int(lengths.bincount().argmax())
    return _cut(drawn.keep(lengths == length)[:count], length)


def long_pair(model: ip.Model, length: int, seed: int) -> ip.Pairs:
    """One pair of many tokens: IOI sentences one after another, whose people have other names in the corrupt prompt.

    The first token differs or has other tokens soon before it, so at the last positions every value differs.
    """
    count = length // 12 + 2
    drawn = ip.tasks.IOI().pairs(model, n=count, seed=seed, counterfactual="random_names")
    (stop,) = model.tokenizer(".", add_special_tokens=False)["input_ids"]

    def joined(side: torch.Tensor) -> torch.Tensor:
        rows = [
            [*row[mask].tolist(), answer, stop] for row, mask, answer in zip(side, drawn.mask, answers, strict=True)
        ]
        return torch.tensor([[token for row in rows for token in row][:-2][-length:]])

    answers = drawn.answers.tolist()
    clean, corrupt = joined(drawn.clean_tokens), joined(drawn.corrupt_tokens)
    return ip.Pairs(
        clean=tuple(map(model.tokenizer.decode, clean)),
        corrupt=tuple(map(model.tokenizer.decode, corrupt)),
        clean_tokens=clean,
        corrupt_tokens=corrupt,
        mask=torch.ones_like(clean, dtype=torch.bool),
        answers=drawn.answers[-1:],
        wrong=drawn.wrong[-1:],
    )


def random_pairs(count: int, length: int, first: int, vocab: int, seed: int) -> ip.Pairs:
    """Pairs of random tokens for a model without a tokenizer; they differ from position `first` on."""
    draw = torch.Generator().manual_seed(seed)
    clean = torch.randint(vocab, (count, length), generator=draw)
    corrupt = clean.clone()
    corrupt[:, first:] = (
        clean[:, first:] + 1 + torch.randint(vocab - 1, (count, length - first), generator=draw)
    ) % vocab
    answers = torch.randint(vocab, (count,), generator=draw)
    blank = ("",) * count
    mask = torch.ones_like(clean, dtype=torch.bool)
    return ip.Pairs(blank, blank, clean, corrupt, mask, answers, (answers + 1) % vocab)


def tiny(seed: int, device: str = "cpu") -> ip.Model:
    """A network of the Llama kind with random weights, three layers, query heads that share keys."""
    torch.manual_seed(seed)
    config = transformers.LlamaConfig(
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=2,
        vocab_size=61,
        initializer_range=0.3,
    )
    return ip.wrap(transformers.LlamaForCausalLM(config).eval().requires_grad_(False).to(device))


def shallow(model: ip.Model, layers: int) -> ip.Model:
    """The first layers of a model, with its own embedding, last norm and unembedding; the weights are shared."""
    network: Any = twin(model.network)
    network.model.layers = network.model.layers[:layers]
    network.config.num_hidden_layers = layers
    if getattr(network.config, "layer_types", None):
        network.config.layer_types = network.config.layer_types[:layers]
    return ip.wrap(network, tokenizer=model.tokenizer)


def _cut(pairs: ip.Pairs, length: int) -> ip.Pairs:
    """Without the padding on the left."""
    return replace(
        pairs,
        clean_tokens=pairs.clean_tokens[:, -length:],
        corrupt_tokens=pairs.corrupt_tokens[:, -length:],
        mask=pairs.mask[:, -length:],
    )
