"""BLOOM: projections fused head by head, a norm behind the embedding, scores biased by distance (ALiBi).

The blocks add the stream to what they return. The stream starts behind the embedding's norm, and so does `embed`.
"""

from interpose.models.table import Family, Projection, Variant

FAMILY = Family(
    model_types=("bloom",),
    layers="transformer.h",
    embed="transformer.word_embeddings_layernorm",
    final_norm="transformer.ln_f",
    attn="self_attention",
    query=Projection("query_key_value", 0, "heads"),
    key=Projection("query_key_value", 1, "heads"),
    value=Projection("query_key_value", 2, "heads"),
    out="dense",
    down="dense_4h_to_h",
    attention="inline",
    returns="first",
    inner_sum=True,
    # Then each block starts from what its norm gives, and no stream runs through the model.
    variants=(Variant({"apply_residual_connection_post_layernorm": True}, None),),
)
