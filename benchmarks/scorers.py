"""Who scores the edges of a network in `attribution`: interpose, and TransformerLens in two ways."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, final

import torch
from contenders import Setting
from torch import Tensor

import interpose as ip
from interpose.mediators import Edges
from interpose.methods import EAP
from interpose.tasks.base import Pairs

SETTINGS = {
    "gpt2-small": Setting("gpt2-small", layers=12, width=768, heads=12, vocab=50257, batch=32, length=15, calls=1),
    "tiny": Setting("tiny", layers=2, width=64, heads=4, vocab=512, batch=8, length=15, calls=1),
}
ANSWER, WRONG = 5, 7
"""One answer for all pairs, since the call that TransformerLens documents takes one metric for all."""
OURS, ALONE, STOCK, DOCUMENTED, BATCHED = (
    "interpose, EAP",
    "interpose, EAP, one pair in a batch",
    "stock forward and backward",
    "TransformerLens, attribution_patch",
    "TransformerLens, its caches of the whole batch",
)


@final
@dataclass(frozen=True)
class Contender:
    """Who scores edges.

    Attributes:
        score: scores of all edges of some pairs, in interpose's order.
        pairs: on how many pairs it is timed; None for all.
        note: what there is to know.
    """

    score: Callable[[Pairs], Tensor]
    pairs: int | None = None
    note: str = ""


def pairs_of(setting: Setting) -> Pairs:
    """Prompts that differ from their corrupt versions at two positions."""
    random = torch.Generator().manual_seed(setting.seed)
    clean = torch.randint(2, setting.vocab, (setting.batch, setting.length), generator=random)
    corrupt = clean.clone()
    corrupt[:, [2, 10]] = (clean[:, [2, 10]] + 11) % (setting.vocab - 2) + 2
    names, answers = tuple(map(str, range(setting.batch))), torch.full((setting.batch,), ANSWER)
    mask = torch.ones_like(clean, dtype=torch.bool)
    return Pairs(names, names, clean, corrupt, mask, answers, answers - ANSWER + WRONG, {"task": "random"})


def interpose_eap(setting: Setting) -> Contender:
    """The public method, all pairs in one batch."""
    model = ip.wrap(setting.twin())
    return Contender(lambda pairs: EAP(batch_size=len(pairs)).score(model, pairs, Edges()).values)


def interpose_eap_alone(setting: Setting) -> Contender:
    """The public method, one pair after another, as TransformerLens goes through them."""
    model = ip.wrap(setting.twin())
    score = lambda pairs: EAP(batch_size=1).score(model, pairs, Edges()).values  # noqa: E731
    return Contender(score, pairs=4 if setting.layers > 4 else None, note="timed on a few pairs, counted for all")


def stock(setting: Setting) -> Contender:
    """Not a contender: the least that any of them must do, for its memory. It scores nothing."""
    network: Any = setting.twin()

    def run(pairs: Pairs) -> Tensor:
        with torch.enable_grad():
            embed = network.transformer.wte(pairs.clean_tokens).detach().requires_grad_()
            logits = network(inputs_embeds=embed, use_cache=False, logits_to_keep=1).logits[:, -1]
            return torch.autograd.grad((logits[:, ANSWER] - logits[:, WRONG]).sum(), embed)[0]

    return Contender(run, note="gradient by the embedding; logits at the last position only")


def transformer_lens(setting: Setting) -> Contender:
    """The documented call: one pair after another, an edge at each position by itself."""
    from transformer_lens.tools.analysis.attribution_patching import EdgeAttributionConfig, attribution_patch

    bridge = _bridge(setting)
    names = ip.wrap(setting.network)
    numbers = {name: number for number, name in enumerate(Edges().graph(names).edges)}

    def score(pairs: Pairs) -> Tensor:
        # It takes the slope at its second prompts and goes towards the first, with the opposite sign.
        with torch.enable_grad():
            found = attribution_patch(
                bridge,
                pairs.corrupt_tokens,
                pairs.clean_tokens,
                lambda logits: logits[0, -1, ANSWER] - logits[0, -1, WRONG],
                EdgeAttributionConfig(granularity="edge"),
            )
        scores = torch.zeros(len(numbers))
        for (source, reader), value in found.edge_scores.items():
            scores[numbers[f"{_name(source)}->{_name(reader)}"]] -= value
        return scores

    note = "one pair after another; timed on a few pairs, counted for all"
    return Contender(score, pairs=1 if setting.layers > 4 else None, note=note)


def _name(node: Any) -> str:
    if node.kind in ("embed", "logits"):
        return {"embed": "input"}.get(node.kind, node.kind)
    if node.kind.startswith("mlp"):
        return f"m{node.layer}"
    return f"a{node.layer}.h{node.head}" + (f"<{node.kind[0]}>" if node.kind.endswith("_input") else "")


def transformer_lens_batched(setting: Setting) -> Contender:
    """Its function that caches activations and gradients, on all pairs at once, and the products written by hand."""
    from transformer_lens.tools.analysis.attribution_patching import cache_activation_and_gradient

    bridge, layers = _bridge(setting), range(setting.layers)
    for switch in (bridge.set_use_attn_result, bridge.set_use_split_qkv_input, bridge.set_use_hook_mlp_in):
        switch(True)
    sources = ["hook_embed"]
    for layer in layers:
        sources += [f"blocks.{layer}.attn.hook_result", f"blocks.{layer}.hook_mlp_out"]
    heads = [[f"blocks.{layer}.attn.hook_{kind}_input" for kind in "qkv"] for layer in layers]
    mlps, last = [f"blocks.{layer}.hook_mlp_in" for layer in layers], f"blocks.{layers[-1]}.hook_resid_post"
    readers = [name for three in heads for name in three] + mlps + [last]

    def score(pairs: Pairs) -> Tensor:
        def metric(logits: Tensor) -> Tensor:
            return (logits[:, -1, ANSWER] - logits[:, -1, WRONG]).sum()

        with torch.no_grad():
            corrupt = cache_activation_and_gradient(bridge, pairs.corrupt_tokens, metric, sources, False).activations
        with torch.enable_grad():
            clean = cache_activation_and_gradient(bridge, pairs.clean_tokens, metric, sources + readers)
        changes = []
        for name in sources:
            change = corrupt.pop(name) - clean.activations[name]
            changes.append(change.movedim(2, 0) if change.ndim == 4 else change.unsqueeze(0))
        change, slopes, found = torch.cat(changes).flatten(1), clean.gradients, []
        for layer in layers:
            before = 1 + layer * (setting.heads + 1)
            for name in heads[layer]:
                slope: Any = slopes[name]
                found.append((change[:before] @ slope.movedim(2, 0).flatten(1).T).T)
            found.append(change[: before + setting.heads] @ slopes[mlps[layer]].flatten())
        found.append(change @ slopes[last].flatten())
        return -torch.cat([part.flatten() for part in found]) / len(pairs)

    return Contender(score, note="not documented for a batch; the products of changes and gradients are ours")


def _bridge(setting: Setting) -> Any:
    from peers import _tokenizer
    from transformer_lens.model_bridge import TransformerBridge

    # It needs parameters that take part in derivatives, as a stock network's do.
    network = setting.twin().requires_grad_(True)
    return TransformerBridge.boot_transformers("gpt2", hf_model=network, tokenizer=_tokenizer(), device="cpu")


BUILDERS = {
    OURS: interpose_eap,
    ALONE: interpose_eap_alone,
    STOCK: stock,
    DOCUMENTED: transformer_lens,
    BATCHED: transformer_lens_batched,
}

PEERS = {DOCUMENTED: ALONE, BATCHED: OURS}
"""Those of another library, each with the way to run interpose that holds as many pairs at a time."""
