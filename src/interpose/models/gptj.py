"""GPT-J: attention and MLP in parallel behind one norm; separate projections, partly rotary positions."""

from interpose.models.table import Family

FAMILY = Family(
    model_types=("gptj",),
    layers="transformer.h",
    embed="transformer.wte",
    final_norm="transformer.ln_f",
    attn="attn",
    attn_norm="ln_1",
    mlp_norm="ln_1",
    out="out_proj",
    down="fc_out",
    parallel=True,
    attention="inline",
    returns="first",
    sizes=(("neurons", "n_inner"),),
)
