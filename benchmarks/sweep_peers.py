"""Other libraries in the sweeps of `speed.py`, each by the best call that its documentation has: one patch a forward.

Each asks for the last position's logits only where it lets its user say so. What is patched in comes from one run of
the corrupt prompts, kept by the library's own means.
"""

from collections.abc import Sequence
from typing import Any

import torch
from sweeps import Patcher, Sweep, is_stream, layer_of
from torch import Tensor

from interpose.mediators.base import Unit

HUB = "HuggingFaceTB/SmolLM2-135M-Instruct"
"""What the network is called on the hub; TransformerLens asks for a name, and takes the network as it is given."""


def transformer_lens(sweep: Sweep) -> Patcher:
    """The ready sweeps of `transformer_lens.patching`, given a table of the units to do."""
    from pandas import DataFrame
    from transformer_lens import patching
    from transformer_lens.model_bridge import TransformerBridge

    bridge = TransformerBridge.boot_transformers(
        HUB, hf_model=sweep.twin(), tokenizer=sweep.model.tokenizer, device=str(sweep.model.device)
    )
    clean, corrupt = (sweep.given(side)["input_ids"] for side in ("clean", "corrupt"))
    streams = is_stream(sweep)
    kept = "hook_resid_post" if streams else "attn.hook_z"

    def source() -> Any:
        return bridge.run_with_cache(corrupt, names_filter=lambda name: name.endswith(kept))[1]

    def patch(cache: Any, units: Sequence[Unit]) -> Tensor:
        if streams:
            places = [(layer_of(unit), sweep.length + (unit.position or 0)) for unit in units]
            table = DataFrame(places, columns=["layer", "pos"])
            # The same sweep as get_act_patch_resid_pre, with the stream after a layer in place of before it.
            call, where = patching.get_act_patch_resid_pre, {"activation_name": "resid_post"}
        else:
            table = DataFrame([(layer_of(unit), unit.head) for unit in units], columns=["layer", "head"])
            call, where = patching.get_act_patch_attn_head_out_all_pos, {}
        return call(bridge, clean, cache, sweep.measure, index_axis_names=None, index_df=table, **where)

    return Patcher(source, patch, note="patching.get_act_patch_*; eager attention and all logits, the bridge's own")


def nnsight(sweep: Sweep) -> Patcher:
    """nnsight's trace, one a patch; `tracer.cache` gathers what is patched in."""
    from nnsight import NNsight

    model, streams = NNsight(sweep.twin()), is_stream(sweep)
    size = sweep.model.sizes().head_width
    layers = list(model.model.layers)
    given, corrupt = sweep.given("clean"), sweep.given("corrupt")

    def source() -> list[Tensor]:
        if streams:
            with model.trace(**corrupt) as tracer:
                found = tracer.cache(modules=layers).save()
            return [found[name].output for name in found.keys()]  # noqa: SIM118 - it is no dictionary
        with model.trace(**corrupt) as tracer:
            found = tracer.cache(modules=[layer.self_attn.o_proj for layer in layers], include_inputs=True).save()
        return [found[name].inputs[0][0] for name in found.keys()]  # noqa: SIM118

    def stream(value: Tensor, layer: int, position: int) -> Tensor:
        with model.trace(**given):
            model.model.layers[layer].output[:, position] = value[:, position]
            logits = model.output.logits.save()
        return logits  # noqa: RET504 - a block of nnsight gives its values by name

    def head(value: Tensor, layer: int, columns: slice) -> Tensor:
        with model.trace(**given):
            model.model.layers[layer].self_attn.o_proj.input[:, :, columns] = value[:, :, columns]
            logits = model.output.logits.save()
        return logits  # noqa: RET504 - a block of nnsight gives its values by name

    def one(values: list[Tensor], unit: Unit) -> Tensor:
        layer = layer_of(unit)
        if streams:
            assert unit.position is not None
            return sweep.measure(stream(values[layer], layer, unit.position))
        assert unit.head is not None
        return sweep.measure(head(values[layer], layer, slice(unit.head * size, (unit.head + 1) * size)))

    return Patcher(
        source, lambda values, units: torch.stack([one(values, unit) for unit in units]), note="last logits only"
    )


def pyvene(sweep: Sweep) -> Patcher:
    """pyvene's interchange with kept source representations; one configured model a layer, made beforehand."""
    import pyvene as pv

    network, streams, sizes = sweep.twin(), is_stream(sweep), sweep.model.sizes()
    whole = {"component": "block_output" if streams else "attention_value_output"}
    part = whole if streams else {"component": "head_attention_value_output", "unit": "h"}
    changed = [pv.IntervenableModel({"layer": layer, **part}, model=network) for layer in range(sizes.layers)]
    collect = {**whole, "intervention_type": pv.CollectIntervention, "max_number_of_units": sweep.length}
    collector = pv.IntervenableModel([{"layer": layer, **collect} for layer in range(sizes.layers)], model=network)
    given, corrupt = ({k: v for k, v in sweep.given(side).items() if k != "use_cache"} for side in ("clean", "corrupt"))

    def source() -> list[Tensor]:
        (_, found), _ = collector(corrupt, use_cache=False)
        values = torch.cat(found).reshape(sizes.layers, len(sweep.pairs), sweep.length, -1)
        # The heads' axis is the second one in pyvene.
        return list(values if streams else values.unflatten(-1, (sizes.heads, -1)).transpose(2, 3))

    def one(values: list[Tensor], unit: Unit) -> Tensor:
        at = sweep.length + (unit.position or 0) if streams else unit.head
        assert at is not None
        value = values[layer_of(unit)][:, at : at + 1]
        where = {"sources->base": at}
        _, output = changed[layer_of(unit)](given, source_representations=value, unit_locations=where, use_cache=False)
        return sweep.measure(output.logits)

    return Patcher(
        source, lambda values, units: torch.stack([one(values, unit) for unit in units]), note="last logits only"
    )


PEERS = {
    "TransformerLens": (transformer_lens, "transformer-lens"),
    "nnsight": (nnsight, "nnsight"),
    "pyvene": (pyvene, "pyvene"),
}
"""Other libraries, with the distribution that each comes in."""
