"""Qwen 3: Llama with a norm on each head's queries and keys; some layers may have a sliding window."""

from interpose.models.table import Family

FAMILY = Family(model_types=("qwen3",))
