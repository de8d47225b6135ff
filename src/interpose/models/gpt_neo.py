"""GPT-Neo: separate projections, learned positions, scores that are not scaled, local attention in some layers."""

from interpose.models.table import Family

FAMILY = Family(
    model_types=("gpt_neo",),
    layers="transformer.h",
    embed="transformer.wte",
    final_norm="transformer.ln_f",
    attn="attn.attention",
    attn_norm="ln_1",
    mlp_norm="ln_2",
    out="out_proj",
    down="c_proj",
    attention="inline",
    returns="first",
)
