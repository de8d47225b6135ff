"""BERT: an encoder that sees both ways; the stream itself is normed after each addition (post-norm).

`attn.output` and `mlp.output` are what the blocks add, before the norm behind them: `mid` is norm(input + attn.output),
and `output` is norm(mid + mlp.output). Both blocks read the stream as it is, so `attn.input` equals `input` and
`mlp.input` equals `mid`; a write to either changes what the block reads and not the stream. `embed` is the normed sum
of word, position and type embeddings, which is where the stream starts. `norm.output` is what the masked-word head
unembeds: its transform (a projection, an activation and the last norm) of the stream. The stream is no sum, so it has
no edges.

Cross-attention, where a BERT has it, is reached by module path.
"""

from interpose.models.table import Family, Projection

FAMILY = Family(
    model_types=("bert",),
    layers="bert.encoder.layer",
    embed="bert.embeddings",
    final_norm="cls.predictions.transform",
    unembed="cls.predictions.decoder",
    attn="attention.self",
    attn_norm=None,
    mlp_norm=None,
    mid_norm="attention.output.LayerNorm",
    output_norm="output.LayerNorm",
    query=Projection("query"),
    key=Projection("key"),
    value=Projection("value"),
    out="attention.output.dense",
    out_in_layer=True,
    mlp="",
    up="intermediate.dense",
    down="output.dense",
    head="masked-lm",
)
