"""ViT: images as patches behind one class position, norms before the blocks, attention that sees both ways.

Positions are the class position, then the patches row by row. `embed` is the sum of patch and position embeddings,
which is where the stream starts. `logits` are those of the classes [batch, class], made of the class position alone.
"""

from interpose.models.table import Family

FAMILY = Family(
    model_types=("vit",),
    layers="vit.layers",
    embed="vit.embeddings",
    final_norm="vit.layernorm",
    unembed="classifier",
    logit_axes="B V",
    attn="attention",
    attn_norm="layernorm_before",
    mlp_norm="layernorm_after",
    down="fc2",
    head="image-classification",
    reads="pixels",
    extra_positions=1,
    sizes=(("vocab", "num_labels"),),
)
