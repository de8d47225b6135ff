"""OPT: learned positions, an MLP that is no module of its own, and, in one size, norms behind the additions.

`embed` is the token embedding before positions are added to it, behind `project_in` where the model has that. The MLP
is `fc1`, an activation and `fc2` in the layer itself: `mlp.input` is what fc1 reads, `mlp.output` what fc2 gives.

With `do_layer_norm_before=False` (OPT-350m) the stream itself is normed after each addition: `mid` is
norm(input + attn.output), `output` is norm(mid + mlp.output), both blocks read the stream as it is, and there is no
`norm.output`. There the stream is no sum, so it has no edges.
"""

from interpose.models.table import Family, Variant

FAMILY = Family(
    model_types=("opt",),
    layers="model.decoder.layers",
    embed="model.decoder.embed_tokens",
    project_in="model.decoder.project_in",
    final_norm="model.decoder.final_layer_norm",
    project_out="model.decoder.project_out",
    attn_norm="self_attn_layer_norm",
    mlp_norm="final_layer_norm",
    out="out_proj",
    mlp="",
    up="fc1",
    down="fc2",
    flat_mlp=True,
    sizes=(("neurons", "ffn_dim"),),
    variants=(
        Variant(
            {"do_layer_norm_before": False},
            {
                "attn_norm": None,
                "mlp_norm": None,
                "mid_norm": "self_attn_layer_norm",
                "output_norm": "final_layer_norm",
            },
        ),
    ),
)
