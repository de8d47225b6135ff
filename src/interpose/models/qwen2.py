"""Qwen 2 and 2.5: Llama with biases on queries, keys and values; some layers may have a sliding window."""

from interpose.models.table import Family

FAMILY = Family(model_types=("qwen2",))
