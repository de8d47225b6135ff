"""Llama: norm before each block, separate projections, grouped queries, rotary positions."""

from interpose.models.table import Family

FAMILY = Family(model_types=("llama",))
