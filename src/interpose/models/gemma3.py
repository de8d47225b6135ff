"""Gemma 3 (text): norms before and after each block, norms on queries and keys, sliding windows in most layers."""

from interpose.models.table import Family

FAMILY = Family(
    model_types=("gemma3_text",),
    attn_post="post_attention_layernorm",
    mlp_norm="pre_feedforward_layernorm",
    mlp_post="post_feedforward_layernorm",
    logit_cap="final_logit_softcapping",
)
