"""Falcon: one projection, fused by the heads that share a key; blocks in parallel, or not, behind one norm or two.

The config says which: Falcon-RW (a key for every head, ALiBi, sequential), 7B (one key for all heads, one norm), 40B
and 180B (keys for groups of heads, two norms), 11B (groups, one norm). With ALiBi, transformers' eager kernel adds the
distances twice and its sdpa kernel once; scores are those of the kernel that runs.
"""

from interpose.models.table import Family, Projection, Variant

FAMILY = Family(
    model_types=("falcon",),
    layers="transformer.h",
    embed="transformer.word_embeddings",
    final_norm="transformer.ln_f",
    attn="self_attention",
    query=Projection("query_key_value", 0, "groups"),
    key=Projection("query_key_value", 1, "groups"),
    value=Projection("query_key_value", 2, "groups"),
    out="dense",
    down="dense_4h_to_h",
    attention="inline",
    returns="first",
    sizes=(("neurons", "ffn_hidden_size"),),
    variants=(
        Variant({"multi_query": True}, {"sizes": (("neurons", "ffn_hidden_size"), ("kv_heads", 1))}),
        Variant({"parallel_attn": True}, {"parallel": True, "mlp_norm": "input_layernorm"}),
        Variant(
            {"new_decoder_architecture": True},
            {
                "parallel": True,
                "attn_norm": "ln_attn",
                "mlp_norm": "ln_mlp",
                "sizes": (("neurons", "ffn_hidden_size"), ("kv_heads", "num_kv_heads")),
            },
        ),
        Variant(
            {"new_decoder_architecture": True, "num_ln_in_parallel_attn": 1},
            {"attn_norm": "input_layernorm", "mlp_norm": "input_layernorm"},
        ),
    ),
)
