"""Tiny stock networks of every family, pairs for them, and a forward pass by hand with an input for every reader."""

import copy
import inspect
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
import torch
from torch import Tensor

import interpose as ip
from interpose.tasks.base import Pairs

LAYERS, HEADS, WIDTH, VOCAB = 2, 4, 24, 50
_SHARED = {"vocab_size": VOCAB, "pad_token_id": 0, "bos_token_id": 0, "eos_token_id": 0}
_COMMON = {
    "hidden_size": WIDTH,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": HEADS,
    "intermediate_size": 40,
    **_SHARED,
}
_WINDOWED = {
    "head_dim": 10,
    "num_key_value_heads": 2,
    "sliding_window": 4,
    "layer_types": ["sliding_attention", "full_attention"],
}
_FALCON = {"hidden_size": WIDTH, "num_hidden_layers": LAYERS, "num_attention_heads": HEADS, **_SHARED}
CONFIGS: dict[str, tuple[str, dict[str, Any]]] = {
    "gpt2": (
        "gpt2",
        {"n_embd": WIDTH, "n_layer": LAYERS, "n_head": HEADS, "n_inner": 40, "n_positions": 32, **_SHARED},
    ),
    "neox": ("gpt_neox", {"max_position_embeddings": 32, **_COMMON}),
    "neox-sequential": ("gpt_neox", {"max_position_embeddings": 32, "use_parallel_residual": False, **_COMMON}),
    "llama": ("llama", {"num_key_value_heads": 2, **_COMMON}),
    "gemma3": ("gemma3_text", {**_COMMON, **_WINDOWED}),
    "olmo2": ("olmo2", {"num_key_value_heads": HEADS, **_COMMON}),
    "olmo2-shared": ("olmo2", {"num_key_value_heads": 2, **_COMMON}),
    "gptj": ("gptj", {"n_embd": WIDTH, "n_layer": LAYERS, "n_head": HEADS, "n_inner": 40, "rotary_dim": 4, **_SHARED}),
    "gpt_neo": (
        "gpt_neo",
        {
            "hidden_size": WIDTH,
            "num_layers": LAYERS,
            "num_heads": HEADS,
            "attention_types": [[["global", "local"], 1]],
            "window_size": 4,
            **_SHARED,
        },
    ),
    "bloom": ("bloom", {"hidden_size": WIDTH, "n_layer": LAYERS, "n_head": HEADS, **_SHARED}),
    "falcon": ("falcon", _FALCON),
    "falcon-grouped": ("falcon", {"new_decoder_architecture": True, "num_kv_heads": 2, "bias": True, **_FALCON}),
    "falcon-rw": ("falcon", {"multi_query": False, "parallel_attn": False, "alibi": True, "bias": True, **_FALCON}),
    "gemma2": (
        "gemma2",
        {**_COMMON, **_WINDOWED, "attn_logit_softcapping": 2.0, "final_logit_softcapping": 3.0},
    ),
    "phi3": ("phi3", {"num_key_value_heads": HEADS, **_COMMON}),
    "phi3-shared": ("phi3", {"num_key_value_heads": 2, **_COMMON}),
    "opt": (
        "opt",
        {
            "hidden_size": WIDTH,
            "num_hidden_layers": LAYERS,
            "num_attention_heads": HEADS,
            "ffn_dim": 40,
            "word_embed_proj_dim": 16,
            "max_position_embeddings": 32,
            **_SHARED,
        },
    ),
}
VARIANTS = tuple(
    name for name in CONFIGS if not name.endswith("-shared") and name not in ("gptj", "gpt_neo", "falcon-rw")
)


def build(variant: str, dtype: torch.dtype = torch.float32) -> ip.Model:
    """A tiny model whose every weight is random."""
    family, config = CONFIGS[variant]
    torch.manual_seed(0)
    model = ip.build(family, **config)
    with torch.no_grad():
        for name, weight in model.network.named_parameters():
            if "norm" in name or "ln_" in name:
                weight += 0.3 * torch.randn_like(weight)
            elif name.endswith("bias"):
                weight += 0.1 * torch.randn_like(weight)
            else:
                weight *= 10  # far from linear, so that a wrong place shows
    model.network.requires_grad_(False).to(dtype)
    return model


@pytest.fixture(scope="session")
def make() -> Callable[..., ip.Model]:
    """Tiny models by variant and number type; no test changes one."""
    made: dict[Any, ip.Model] = {}

    def model(variant: str, dtype: torch.dtype = torch.float32) -> ip.Model:
        if (variant, dtype) not in made:
            made[variant, dtype] = build(variant, dtype)
        return made[variant, dtype]

    return model


@pytest.fixture(params=VARIANTS)
def variant(request: pytest.FixtureRequest) -> str:
    """Each family and form in turn."""
    return request.param


def even_pairs(n: int = 5, positions: int = 7) -> Pairs:
    """Pairs of equal length that differ at two or three positions, some of them at the last."""
    random = torch.Generator().manual_seed(1)
    clean = torch.randint(2, VOCAB, (n, positions), generator=random)
    corrupt = clean.clone()
    for rows, position in ((slice(None), 2), (slice(None), 4), (slice(0, None, 2), -1)):
        corrupt[rows, position] = (clean[rows, position] + 11) % 48 + 2
    names = tuple(str(row) for row in range(n))
    answers, wrong = torch.arange(n) + 3, torch.arange(n) + 20
    mask = torch.ones_like(clean, dtype=torch.bool)
    return Pairs(names, names, clean, corrupt, mask, answers, wrong, {"task": "made-up", "seed": 1})


def ragged_pairs(n: int = 5) -> Pairs:
    """Pairs of unequal length, padded on the left; one of them differs at its very first token."""
    pairs = even_pairs(n)
    lengths = torch.tensor([7, 4, 6, 5, 7])[:n]
    mask = torch.arange(7) >= 7 - lengths[:, None]
    return replace(
        pairs,
        clean_tokens=torch.where(mask, pairs.clean_tokens, 0),
        corrupt_tokens=torch.where(mask, pairs.corrupt_tokens, 0),
        mask=mask,
    )


@pytest.fixture(params=["even", "ragged"])
def pairs(request: pytest.FixtureRequest) -> Pairs:
    """Five pairs, of equal length or padded on the left."""
    return even_pairs() if request.param == "even" else ragged_pairs()


@pytest.fixture
def even() -> Pairs:
    """Five pairs of equal length."""
    return even_pairs()


# --------------------------------------------------------------------------------------------- the forward pass by hand


@dataclass(frozen=True)
class Parts:
    """What a family calls its parts, written down by hand, and how its queries, keys and values are cut out."""

    layers: str
    embed: str
    norm: str
    attn: str
    attn_norm: str | None
    mlp_norm: str | None
    out: str
    attn_post: str | None = None
    mlp_post: str | None = None
    after_embed: str | None = None
    before_words: str | None = None
    parallel: bool = False
    inline: bool = False


_LLAMA = ("model.layers", "model.embed_tokens", "model.norm", "self_attn")
_NEOX = ("gpt_neox.layers", "gpt_neox.embed_in", "gpt_neox.final_layer_norm", "attention")
_IN, _MID = "input_layernorm", "post_attention_layernorm"
_AFTER = {"attn_post": "post_attention_layernorm", "mlp_post": "post_feedforward_layernorm"}
_H = "transformer.h"
_INLINE = {"inline": True}
_BLOOM = (_H, "transformer.word_embeddings", "transformer.ln_f", "self_attention")
_NORMED = "transformer.word_embeddings_layernorm"
PARTS = {
    "gptj": Parts(
        _H, "transformer.wte", "transformer.ln_f", "attn", "ln_1", "ln_1", "out_proj", parallel=True, **_INLINE
    ),
    "gpt_neo": Parts(
        _H, "transformer.wte", "transformer.ln_f", "attn.attention", "ln_1", "ln_2", "out_proj", **_INLINE
    ),
    "bloom": Parts(*_BLOOM, _IN, _MID, "dense", after_embed=_NORMED, **_INLINE),
    "falcon": Parts(*_BLOOM, _IN, _IN, "dense", parallel=True, **_INLINE),
    "falcon-grouped": Parts(*_BLOOM, "ln_attn", "ln_mlp", "dense", parallel=True, **_INLINE),
    "falcon-rw": Parts(*_BLOOM, _IN, _MID, "dense", **_INLINE),
    "gpt2": Parts("transformer.h", "transformer.wte", "transformer.ln_f", "attn", "ln_1", "ln_2", "c_proj"),
    "neox": Parts(*_NEOX, _IN, _MID, "dense", parallel=True),
    "neox-sequential": Parts(*_NEOX, _IN, _MID, "dense"),
    "llama": Parts(*_LLAMA, _IN, _MID, "o_proj"),
    "gemma3": Parts(*_LLAMA, _IN, "pre_feedforward_layernorm", "o_proj", **_AFTER),
    "olmo2": Parts(*_LLAMA, None, None, "o_proj", **_AFTER),
    "gemma2": Parts(*_LLAMA, _IN, "pre_feedforward_layernorm", "o_proj", **_AFTER),
    "phi3": Parts(*_LLAMA, _IN, _MID, "o_proj"),
    "opt": Parts(
        *(f"model.decoder.{name}" for name in ("layers", "embed_tokens", "final_layer_norm")),
        "self_attn",
        "self_attn_layer_norm",
        "final_layer_norm",
        "out_proj",
        after_embed="model.decoder.project_in",
        before_words="model.decoder.project_out",
    ),
}

Sources = dict[str, Tensor]


def _stock(network: torch.nn.Module, parts: Parts, batch: Mapping[str, Any]) -> list[dict[str, Any]]:
    """What the stock network hands to each layer's attention: rotary factors and mask."""
    seen: list[dict[str, Any]] = []
    modules = [layer.get_submodule(parts.attn) for layer in network.get_submodule(parts.layers)]
    handles = [
        module.register_forward_pre_hook(lambda _, args, kwargs: seen.append(kwargs), with_kwargs=True)
        for module in modules
    ]
    network(**batch)
    for handle in handles:
        handle.remove()
    return seen


def _projections(variant: str, attn: Any) -> list[tuple[Tensor, Tensor]]:
    """Weight [head, head width, width] and bias [head, head width] of queries, keys, values; one row a query head."""
    if variant == "gpt2":
        weights, biases = attn.c_attn.weight.T.chunk(3), attn.c_attn.bias.chunk(3)
    elif variant.startswith("falcon"):
        shared = {"falcon": 1, "falcon-grouped": 2, "falcon-rw": HEADS}[variant]
        weights = _ungrouped(attn.query_key_value.weight, shared)
        bias = attn.query_key_value.bias
        biases = [x.new_zeros(len(x)) for x in weights] if bias is None else _ungrouped(bias, shared)
    elif variant.startswith(("neox", "bloom")):
        weights = attn.query_key_value.weight.view(HEADS, 3, -1, WIDTH).unbind(1)
        biases = attn.query_key_value.bias.view(HEADS, 3, -1).unbind(1)
    elif variant == "phi3":
        weights = attn.qkv_proj.weight.split(WIDTH)
        biases = [torch.zeros(len(weight), dtype=weight.dtype) for weight in weights]
    else:
        made = [attn.q_proj, attn.k_proj, attn.v_proj]
        weights = [module.weight for module in made]
        biases = [torch.zeros_like(each.weight[:, 0]) if each.bias is None else each.bias for each in made]
    rows = []
    for weight, bias in zip(weights, biases, strict=True):
        weight = weight.reshape(-1, attn.head_dim if hasattr(attn, "head_dim") else attn.head_size, WIDTH)
        bias = bias.reshape(weight.shape[:2])
        rows.append((weight.repeat_interleave(HEADS // len(weight), 0), bias.repeat_interleave(HEADS // len(bias), 0)))
    return rows


def _ungrouped(fused: Tensor, shared: int) -> list[Tensor]:
    """Rows of all queries, all keys, all values, where the queries that share a key lie before it and its value."""
    rows = fused.unflatten(0, (shared, HEADS // shared + 2, WIDTH // HEADS))
    return [rows[:, :-2].flatten(0, 2), rows[:, -2].flatten(0, 1), rows[:, -1].flatten(0, 1)]


class _Given(torch.nn.Module):
    """In place of a projection: gives what it holds."""

    def __init__(self, value: Tensor) -> None:
        super().__init__()
        self.value = value

    def forward(self, _: Tensor) -> Tensor:
        return self.value


class _Kept(torch.nn.Module):
    """In place of the output projection: keeps what it is given."""

    def forward(self, z: Tensor) -> Tensor:
        self.z = z
        return z


def _attend_inline(attn: Any, query: Tensor, key: Tensor, value: Tensor, given: Mapping[str, Any]) -> Tensor:
    """Each head's mix of values, by a copy of the stock module whose projections give what they are told to."""
    attn, out, made = copy.deepcopy(attn), _Kept(), (query, key, value)
    if hasattr(attn, "query_key_value"):  # Falcon with a key for every head is fused as BLOOM is
        attn.query_key_value = _Given(torch.stack(made, 3).flatten(2))
        attn.multi_query, attn.new_decoder_architecture, attn.num_kv_heads = False, False, HEADS
        attn.dense = out
    else:
        attn.q_proj, attn.k_proj, attn.v_proj = (_Given(x.flatten(2)) for x in made)
        attn.out_proj = out
    nothing = query.flatten(2)
    beside = {"residual": nothing} if "residual" in inspect.signature(attn.forward).parameters else {}
    attn(**{**given, "layer_past": None, "hidden_states": nothing}, **beside)
    return out.z.unflatten(-1, (HEADS, -1))


def _rotated(x: Tensor, factors: tuple[Tensor, Tensor] | None) -> Tensor:
    if factors is None:
        return x
    cos, sin = (factor[:, :, None] for factor in factors)
    turned, rest = x[..., : cos.shape[-1]], x[..., cos.shape[-1] :]
    half = turned.shape[-1] // 2
    swapped = torch.cat([-turned[..., half:], turned[..., :half]], -1)
    return torch.cat([turned * cos + swapped * sin, rest], -1)


def _attend(attn: Any, query: Tensor, key: Tensor, value: Tensor, given: Mapping[str, Any]) -> Tensor:
    """Each head's mix of values [batch, position, head, head width]."""
    if hasattr(attn, "q_norm"):
        wide = attn.q_norm.weight.numel() > query.shape[-1]
        query, key = (
            norm(x.flatten(2)).view_as(x) if wide else norm(x) for norm, x in ((attn.q_norm, query), (attn.k_norm, key))
        )
    query, key = (_rotated(x, given.get("position_embeddings")) for x in (query, key))
    scores = torch.einsum("bphd,bqhd->bhpq", query, key) * (getattr(attn, "scaling", None) or query.shape[-1] ** -0.5)
    if cap := getattr(attn, "attn_logit_softcapping", None):
        scores = cap * torch.tanh(scores / cap)
    length, mask = scores.shape[-1], given.get("attention_mask")
    sees = torch.ones(length, length, dtype=torch.bool).tril() if mask is None else mask
    sees = sees if sees.dtype == torch.bool else sees == 0
    pattern = scores.masked_fill(~sees, -1e9).softmax(-1)
    return torch.einsum("bhpq,bqhd->bphd", pattern, value)


@dataclass
class Split:
    """A network run with plain torch, each reader on a stream of its own: the sum of what it is given by every writer.

    Attributes:
        variant: which family.
        network: its stock network; norms, MLPs and weights are taken from it.
        cut: names of the edges over which a reader is given the value in `corrupt`.
        corrupt: what every source writes on the corrupt prompt.
        shift: added to a reader's stream, by the reader's name.
        now: what every source has written, when the run is over.
    """

    variant: str
    network: Any
    cut: Collection[str] = ()
    corrupt: Sources = field(default_factory=dict)
    shift: Mapping[str, Tensor] = field(default_factory=dict)
    now: Sources = field(default_factory=dict)
    rest: Any = 0.0

    def run(self, batch: Mapping[str, Any], embed: Tensor | None = None) -> Tensor:
        """The logits at the last position [batch, vocabulary]."""
        parts = PARTS[self.variant]
        stock = _stock(self.network, parts, batch)
        if embed is None:
            embed = self._through(parts.after_embed, self.network.get_submodule(parts.embed)(batch["input_ids"]))
        self.now = {"input": embed}
        if self.variant in ("gpt2", "gpt_neo"):
            self.rest = self.network.transformer.wpe(batch["position_ids"])
        elif self.variant == "opt":  # its table of positions starts with two that are not used
            self.rest = self.network.model.decoder.embed_positions.weight[batch["position_ids"] + 2]
        for number, layer in enumerate(self.network.get_submodule(parts.layers)):
            if parts.parallel:
                mlp = self._mlp(number, layer, parts)
                self._heads(number, layer, parts, stock[number])
                self.now[f"m{number}"] = mlp
            else:
                self._heads(number, layer, parts, stock[number])
                self.now[f"m{number}"] = self._mlp(number, layer, parts)
        final = self.network.get_submodule(parts.norm)(self._stream("logits"))
        logits = self.network.get_output_embeddings()(self._through(parts.before_words, final[:, -1]))
        cap = getattr(self.network.config, "final_logit_softcapping", None)
        return cap * torch.tanh(logits / cap) if cap else logits

    def _through(self, path: str | None, value: Tensor) -> Tensor:
        return value if path is None else self.network.get_submodule(path)(value)

    def _stream(self, reader: str) -> Tensor:
        given = [self.corrupt[u] if f"{u}->{reader}" in self.cut else now for u, now in self.now.items()]
        return sum(given) + self.rest + self.shift.get(reader, 0.0)

    def _read(self, reader: str, layer: Any, norm: str | None) -> Tensor:
        stream = self._stream(reader)
        return stream if norm is None else layer.get_submodule(norm)(stream)

    def _heads(self, number: int, layer: Any, parts: Parts, given: Mapping[str, Any]) -> None:
        attn = layer.get_submodule(parts.attn)
        made = []
        for kind, (weight, bias) in zip("qkv", _projections(self.variant, attn), strict=True):
            reads = [self._read(f"a{number}.h{h}<{kind}>", layer, parts.attn_norm) for h in range(HEADS)]
            made.append(torch.stack([x @ weight[h].T + bias[h] for h, x in enumerate(reads)], 2))
        z = (_attend_inline if parts.inline else _attend)(attn, *made, given)
        out = attn.get_submodule(parts.out)
        matrix = (out.weight if self.variant == "gpt2" else out.weight.T).reshape(HEADS, -1, WIDTH)
        wrote = torch.einsum("bphd,hdm->bphm", z, matrix)
        if parts.attn_post:
            post, total = layer.get_submodule(parts.attn_post), wrote.sum(2)
            gain = post.weight + 1 if self.variant.startswith("gemma") else post.weight
            eps = post.eps if self.variant.startswith("gemma") else post.variance_epsilon
            wrote = wrote * (gain * total.pow(2).mean(-1, keepdim=True).add(eps).rsqrt()).unsqueeze(2)
        self.now |= {f"a{number}.h{h}": wrote[:, :, h] for h in range(HEADS)}
        if getattr(out, "bias", None) is not None:
            self.rest = self.rest + out.bias

    def _mlp(self, number: int, layer: Any, parts: Parts) -> Tensor:
        read = self._read(f"m{number}", layer, parts.mlp_norm)
        if self.variant == "bloom":
            wrote = layer.mlp(read, torch.zeros_like(read))
        elif self.variant == "opt":
            wrote = layer.fc2(layer.activation_fn(layer.fc1(read)))
        else:
            wrote = layer.mlp(read)
        return layer.get_submodule(parts.mlp_post)(wrote) if parts.mlp_post else wrote


def split_difference(logits: Tensor, pairs: Pairs) -> Tensor:
    """logit(answer) - logit(wrong) of each pair."""
    rows = torch.arange(len(pairs))
    return logits[rows, pairs.answers] - logits[rows, pairs.wrong]


@pytest.fixture(scope="session")
def split() -> type[Split]:
    """The forward pass by hand."""
    return Split


@pytest.fixture(scope="session")
def difference() -> Callable[[Tensor, Pairs], Tensor]:
    """The behaviour, from logits."""
    return split_difference
