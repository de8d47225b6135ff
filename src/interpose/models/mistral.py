"""Mistral: Llama with a sliding window in every layer, where the config sets one."""

from interpose.models.table import Family

FAMILY = Family(model_types=("mistral",))
