"""GPT-2: one fused projection (all queries, then keys, then values), learned positions, input-first weights."""

from interpose.models.table import Family, Projection

FAMILY = Family(
    model_types=("gpt2",),
    layers="transformer.h",
    embed="transformer.wte",
    final_norm="transformer.ln_f",
    attn="attn",
    attn_norm="ln_1",
    mlp_norm="ln_2",
    query=Projection("c_attn", 0, "blocks"),
    key=Projection("c_attn", 1, "blocks"),
    value=Projection("c_attn", 2, "blocks"),
    out="c_proj",
    down="c_proj",
    transposed=True,
    sizes=(("neurons", "n_inner"),),
)
