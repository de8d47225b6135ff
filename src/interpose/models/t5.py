"""T5, mT5, umT5: an encoder reads one text, a decoder writes another; biases by distance, scores that are not scaled.

`model.layers` are the decoder's, `model.encoder.layers` the encoder's; both have every standard site, the embeddings
and final norms too. Cross attention lies between a decoder layer's attention and its MLP, so `mid`, what the MLP's norm
reads, is `input` + `attn.output` + what cross attention adds. That has no standard names: reach it by path, as
`model.module("decoder.block.0.layer.1.EncDecAttention").output[0]`. Edges are not counted. The first T5 models scale
what the final norm gives (`config.scale_decoder_outputs`) before the logits. T5EncoderModel has no table.
"""

from interpose.models.table import Family, Projection, Variant

_ENCODER = Family(
    model_types=("t5", "mt5", "umt5"),
    layers="encoder.block",
    embed="encoder.embed_tokens",
    final_norm="encoder.final_layer_norm",
    unembed=None,
    attn="layer.0.SelfAttention",
    attn_norm="layer.0.layer_norm",
    mlp="layer.1.DenseReluDense",
    mlp_norm="layer.1.layer_norm",
    mid="layer.1",
    query=Projection("q"),
    key=Projection("k"),
    value=Projection("v"),
    out="o",
    down="wo",
    returns="several",
    sizes=(("neurons", "d_ff"), ("head_width", "d_kv")),
)
FAMILY = Family(
    model_types=("t5", "mt5", "umt5"),
    layers="decoder.block",
    embed="decoder.embed_tokens",
    final_norm="decoder.final_layer_norm",
    attn="layer.0.SelfAttention",
    attn_norm="layer.0.layer_norm",
    mlp="layer.2.DenseReluDense",
    mlp_norm="layer.2.layer_norm",
    mid="layer.2",
    query=Projection("q"),
    key=Projection("k"),
    value=Projection("v"),
    out="o",
    down="wo",
    returns="several",
    head="seq2seq-lm",
    sizes=(("layers", "num_decoder_layers"), ("neurons", "d_ff"), ("head_width", "d_kv")),
    encoder=_ENCODER,
    variants=(Variant({"is_encoder_decoder": False}, None),),
)
