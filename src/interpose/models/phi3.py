"""Phi-3 and Phi-4: one fused projection (all queries, then keys, then values) and a fused gate in the MLP."""

from interpose.models.table import Family, Projection

FAMILY = Family(
    model_types=("phi3",),
    query=Projection("qkv_proj", 0, "blocks"),
    key=Projection("qkv_proj", 1, "blocks"),
    value=Projection("qkv_proj", 2, "blocks"),
)
