"""GPT-NeoX and Pythia: projections fused head by head, blocks usually in parallel, partly rotary positions."""

from interpose.models.table import Family, Projection

FAMILY = Family(
    model_types=("gpt_neox",),
    layers="gpt_neox.layers",
    embed="gpt_neox.embed_in",
    final_norm="gpt_neox.final_layer_norm",
    unembed="lm_head",
    attn="attention",
    query=Projection("query_key_value", 0, "heads"),
    key=Projection("query_key_value", 1, "heads"),
    value=Projection("query_key_value", 2, "heads"),
    out="dense",
    down="dense_4h_to_h",
    parallel="use_parallel_residual",
)
