"""Weights of a stock GPT-2, written by hand, so that its circuit is known exactly.

The stream is cut into named spaces. Three choices make the algebra exact up to rounding:

- Words and positions are rows of a Hadamard matrix and their negatives: each sums to zero, and two of them are equal,
  orthogonal or opposite. A head that matches codes sees a score of one, zero or minus one.
- Two entries of the stream hold +C and -C at every position, far larger than all else. So the mean is zero, the spread
  is that of C, and a norm whose gain is this spread is the identity, up to a share |rest|^2 / 2C^2, below 1e-6. The
  constant is part of the position embedding, which is no edge, and the gain is zero where it stands.
- What is added to the stream sums to zero in each space.

Heads and MLPs that do not belong to the circuit are there too, with random weights: they read what they like and write
to the space `junk`, which no part of the circuit and not the unembedding reads, or they write what depends on the
position alone. So they have activations, attention and gradients, and cannot reach the answer.
"""

from collections.abc import Mapping, Sequence
from math import sqrt
from typing import Any, final

import torch
from jaxtyping import Float
from torch import Tensor

from interpose.loading import zoo
from interpose.loading.cards import Vocabulary

CODE = 32
"""The width of a code."""
PAD, UNKNOWN, START = "<pad>", "<unk>", "<s>"
_CONSTANT = 4096.0
_JUNK = 30
_NEURONS = 64


def codes(n: int) -> Float[Tensor, "n width"]:
    """At most 62 codes of length one that sum to zero; the inner product of two is 0, or -1 for i and i + 31."""
    matrix = torch.ones(1, 1)
    while len(matrix) < CODE:
        matrix = torch.cat([torch.cat([matrix, matrix], 1), torch.cat([matrix, -matrix], 1)])
    rows = matrix[1:] / sqrt(CODE)
    return torch.cat([rows, -rows])[:n]


def vocabulary(words: Sequence[str]) -> Vocabulary:
    """The tokenizer of a hand-written model: its words behind three special ones; each prompt begins with `<s>`."""
    return Vocabulary(words=(PAD, UNKNOWN, START, *words), first=START)


def config(
    spaces: Sequence[str], layers: int, words: int, head: int = 40, activation: str = "gelu_new"
) -> dict[str, Any]:
    """The settings of the network that `Hand` writes to.

    Args:
        spaces: names of the spaces of the stream that are as wide as a code, `position` and `junk` not among them.
        layers: how many.
        words: how many, without the special ones.
        head: width of a head, at least that of a code.
        activation: of the MLPs.
    """
    width = CODE * (len(spaces) + 1) + _JUNK + 2
    width += -width % head
    special = {"pad_token_id": 0, "bos_token_id": 2, "eos_token_id": 0, "tie_word_embeddings": False}
    return {
        "layers": layers,
        "heads": width // head,
        "width": width,
        "neurons": _NEURONS,
        "positions": CODE - 1,
        "vocab": words + 3,
        "activation_function": activation,
        **special,
    }


@final
class Hand:
    """A network whose weights are all zero but for norms and positions, and what writes weights into it.

    Args:
        settings: what `config` gave.
        spaces: the spaces that it was given.
        seed: of the random weights.

    Attributes:
        network: the stock network.
        width: of the stream.
        wide: the width of a head.
    """

    def __init__(self, settings: Mapping[str, Any], spaces: Sequence[str], seed: int) -> None:
        """Write norms that are the identity, and the codes of the positions."""
        self.network: Any = zoo.fresh("gpt2", settings)
        self.width: int = settings["width"]
        self.wide: int = self.width // settings["heads"]
        self._random = torch.Generator().manual_seed(seed)
        self._spaces = {name: slice(i * CODE, (i + 1) * CODE) for i, name in enumerate([*spaces, "position"])}
        start = CODE * len(self._spaces)
        self._spaces["junk"] = slice(start, self.width - 2)
        self.network.requires_grad_(False)
        for weight in self.network.parameters():
            weight.zero_()
        body = self.network.transformer
        spread = _CONSTANT * sqrt(2 / self.width)
        for norm in [body.ln_f, *(norm for layer in body.h for norm in (layer.ln_1, layer.ln_2))]:
            norm.weight[:-2] = spread
        body.wpe.weight[:, -2:] = torch.tensor([_CONSTANT, -_CONSTANT])
        body.wpe.weight[:, self._spaces["position"]] = codes(settings["positions"])

    def embed(self, space: str, table: Float[Tensor, "words wide"]) -> None:
        """What the last words of the vocabulary, one a row, write to the first entries of a space."""
        self.network.transformer.wte.weight[-len(table) :, self._at(space, table.shape[1])] = table

    def embed_start(self, space: str, code: Float[Tensor, " wide"]) -> None:
        """What `<s>` writes to the first entries of a space."""
        self.network.transformer.wte.weight[2, self._at(space, len(code))] = code

    def unembed(self, space: str, table: Float[Tensor, "words wide"]) -> None:
        """What the logits of the last words of the vocabulary, one a row, read from the first entries of a space."""
        self.network.lm_head.weight[-len(table) :, self._at(space, table.shape[1])] = table

    def reads(self, **maps: Float[Tensor, "_space _wide"]) -> Float[Tensor, "width head"]:
        """A projection of the stream to a head, by the spaces it reads."""
        made = torch.zeros(self.width, self.wide)
        for space, matrix in maps.items():
            made[self._at(space, len(matrix)), : matrix.shape[1]] = matrix
        return made

    def writes(self, **maps: Float[Tensor, "_wide _space"]) -> Float[Tensor, "head width"]:
        """A projection of a head to the stream, by the spaces it writes to."""
        made = torch.zeros(self.wide, self.width)
        for space, matrix in maps.items():
            made[: len(matrix), self._at(space, matrix.shape[1])] = matrix
        return made

    def head(
        self,
        layer: int,
        head: int,
        match: tuple[Float[Tensor, "width head"], Float[Tensor, "width head"]],
        move: tuple[Float[Tensor, "width head"], Float[Tensor, "head width"]],
        constant: tuple[Float[Tensor, " head"], Float[Tensor, " head"]] | None = None,
    ) -> None:
        """Write a head.

        Args:
            layer: which layer.
            head: which of its heads.
            match: what is read for the query and for the key; their product is the score, whatever a head's width.
            move: what is read for the value, and how it is written.
            constant: what is added to every query and to every key.
        """
        block, at = self.network.transformer.h[layer].attn, slice(head * self.wide, (head + 1) * self.wide)
        query, key, value = (slice(at.start + i * self.width, at.stop + i * self.width) for i in range(3))
        block.c_attn.weight[:, query] = match[0] * sqrt(self.wide)
        block.c_attn.weight[:, key] = match[1]
        block.c_attn.weight[:, value] = move[0]
        block.c_proj.weight[at] = move[1]
        if constant is not None:
            block.c_attn.bias[query] = constant[0] * sqrt(self.wide)
            block.c_attn.bias[key] = constant[1]

    def neuron(
        self,
        layer: int,
        number: int,
        reads: Mapping[str, Float[Tensor, " wide"]],
        writes: Mapping[str, Float[Tensor, " wide"]],
        bias: float,
    ) -> None:
        """Write one neuron.

        Args:
            layer: of which MLP.
            number: which of its neurons; what it was is gone.
            reads: what it is the activation of, by space.
            writes: what it adds to the stream, by space.
            bias: what is added to what it reads.
        """
        mlp = self.network.transformer.h[layer].mlp
        mlp.c_fc.weight[:, number], mlp.c_fc.bias[number], mlp.c_proj.weight[number] = 0, bias, 0
        for space, direction in reads.items():
            mlp.c_fc.weight[self._at(space, len(direction)), number] = direction
        for space, direction in writes.items():
            mlp.c_proj.weight[number, self._at(space, len(direction))] = direction

    def idle_head(self, layer: int, head: int, reads: Sequence[str]) -> None:
        """A head with random weights that reads some spaces and writes to `junk`."""
        match = self._any(reads, 4.0), self._any(reads, 1.0)
        self.head(layer, head, match, (self._any(reads, 1.0), self._junk(self.wide)))

    def position_head(self, layer: int, head: int, space: str, size: float) -> None:
        """A head that attends and writes by position alone: the same on every prompt of a length.

        Args:
            layer: which layer.
            head: which of its heads.
            space: where it writes to; it may be read by the circuit, which it tells nothing.
            size: of what it writes.
        """
        match = self._any(["position"], 3.0), self._any(["position"], 1.0)
        out = self._normal(self.wide, CODE) * size / sqrt(self.wide)
        out -= out.mean(1, keepdim=True)
        self.head(layer, head, match, (self._any(["position"], 1.0), self.writes(**{space: out})))

    def idle_mlp(self, layer: int, reads: Sequence[str]) -> None:
        """An MLP with random weights that reads some spaces and writes to `junk`."""
        mlp = self.network.transformer.h[layer].mlp
        for space in reads:
            mlp.c_fc.weight[self._at(space)] = self._read(space, _NEURONS)
        mlp.c_fc.bias[:] = 0.5 * self._normal(1, _NEURONS)[0]
        mlp.c_proj.weight[:] = self._junk(_NEURONS)

    def _junk(self, wide: int) -> Float[Tensor, "wide width"]:
        rows = self._at("junk")
        made = torch.zeros(wide, self.width)
        made[:, rows] = 0.3 * self._normal(wide, rows.stop - rows.start) / sqrt(wide)
        made[:, rows] -= made[:, rows].mean(1, keepdim=True)
        return made

    def _any(self, spaces: Sequence[str], size: float) -> Float[Tensor, "width head"]:
        return self.reads(**{space: size * self._read(space, self.wide) for space in spaces})

    def _read(self, space: str, wide: int) -> Float[Tensor, "space wide"]:
        at = self._at(space)
        matrix = self._normal(at.stop - at.start, wide)
        # A code has length one; what lies in `junk` is longer, and is not to grow from layer to layer.
        return matrix * 0.3 / sqrt(len(matrix)) if space == "junk" else matrix

    def _at(self, space: str, wide: int | None = None) -> slice:
        at = self._spaces[space]
        return at if wide is None else slice(at.start, at.start + wide)

    def _normal(self, *shape: int) -> Tensor:
        return torch.randn(*shape, generator=self._random)
