"""OLMo 2: no norm before a block, one after it; norms over the whole width of queries and of keys."""

from interpose.models.table import Family

FAMILY = Family(
    model_types=("olmo2",),
    attn_norm=None,
    mlp_norm=None,
    attn_post="post_attention_layernorm",
    mlp_post="post_feedforward_layernorm",
    wide_key_norm=True,
)
