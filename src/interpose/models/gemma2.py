"""Gemma 2: norms before and after each block, scores and logits soft-capped, sliding windows in every other layer.

`attn.scores` are the capped ones, which softmax reads; `logits` are the capped ones, which the network returns.
"""

from interpose.models.table import Family

FAMILY = Family(
    model_types=("gemma2",),
    attn_post="post_attention_layernorm",
    mlp_norm="pre_feedforward_layernorm",
    mlp_post="post_feedforward_layernorm",
    logit_cap="final_logit_softcapping",
)
