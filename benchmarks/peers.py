"""Other libraries, each by the best call that its documentation has; see `contenders`."""

import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from types import TracebackType
from typing import Any, final

import torch
import transformers
from contenders import Contender, Setting
from torch import Tensor, nn


def nnsight(of: Setting) -> Contender:
    """nnsight's trace; `tracer.cache` gathers the blocks."""
    from nnsight import NNsight

    network = of.twin()
    model, vector, middle = NNsight(network), of.vector, of.middle
    blocks = list(model.transformer.h)

    def patch() -> list[Tensor]:
        with model.trace(**of.given):
            model.transformer.h[middle].output[:, -1] = vector
            logits = model.output.logits.save()
        return [logits]

    def cache() -> list[Tensor]:
        with model.trace(**of.given) as tracer:
            found = tracer.cache(modules=blocks).save()
            logits = model.output.logits.save()
        return [*(found[name].output for name in found.keys()), logits]  # noqa: SIM118 - it is no dictionary

    return Contender({"patch": patch, "cache": cache}, plain=lambda: network(**of.given))


def transformer_lens(of: Setting) -> Contender:
    """TransformerLens's bridge around the same network."""
    from transformer_lens.model_bridge import TransformerBridge

    bridge = TransformerBridge.boot_transformers("gpt2", hf_model=of.twin(), tokenizer=_tokenizer(), device="cpu")
    ids, vector = of.given["input_ids"], of.vector
    names = [f"blocks.{layer}.hook_resid_post" for layer in range(of.layers)]

    def patch() -> list[Tensor]:
        def hook(value: Tensor, hook: Any) -> Tensor:
            value[:, -1] = vector
            return value

        return [bridge.run_with_hooks(ids, fwd_hooks=[(names[of.middle], hook)])]

    def cache() -> list[Tensor]:
        logits, found = bridge.run_with_cache(ids, names_filter=names)
        return [*(found[name] for name in names), logits]

    return Contender(
        {"patch": patch, "cache": cache}, plain=lambda: bridge(ids), note="eager attention, the bridge's own"
    )


def pyvene(of: Setting) -> Contender:
    """pyvene's configured model: a constant source for the patch, collecting interventions for the cache."""
    import pyvene as pv

    network, kinds = of.twin(), {"component": "block_output"}
    patched = pv.IntervenableModel(
        [
            {
                **kinds,
                "layer": of.middle,
                "intervention_type": pv.VanillaIntervention,
                "source_representation": of.vector,
            }
        ],
        model=network,
    )
    collect = {**kinds, "intervention_type": pv.CollectIntervention, "max_number_of_units": of.length}
    cached = pv.IntervenableModel([{**collect, "layer": layer} for layer in range(of.layers)], model=of.twin())
    last = {"base": of.length - 1}

    def cache() -> list[Tensor]:
        (_, found), output = cached(of.given)
        shape = (of.batch, of.length, of.width)
        return [*torch.cat(found).reshape(of.layers, *shape).unbind(), output.logits]

    return Contender(
        {"patch": lambda: [patched(of.given, unit_locations=last)[1].logits], "cache": cache},
        plain=lambda: network(**of.given),
    )


def interp_engine(of: Setting) -> Contender:
    """interp-engine's eager backend; it has no call that overwrites, so the patch goes through its hook manager."""
    import interp_engine as ie

    model = ie.EagerModel("gpt2", hf_model=of.twin(), tokenizer=_tokenizer())
    ids, vector = of.given["input_ids"], of.vector
    places = {"attention_mask": of.given["attention_mask"], "position_ids": of.given["position_ids"]}
    points = [ie.Address("resid_post", layer) for layer in range(of.layers)]

    def overwrite(value: Tensor) -> Tensor:
        value[:, -1] = vector
        return value

    def patch() -> list[Tensor]:
        module, side = model.resolve_point("resid_post", of.middle)
        with ie.HookManager() as hooks:
            hooks.write(module, overwrite, point=side)
            return [model.hf_model(**of.given).logits]

    def cache() -> list[Tensor]:
        found = ie.run_with_cache(model, ids, points, **places)
        return [*(found[point] for point in points), found.output.logits]

    return Contender({"patch": patch, "cache": cache}, plain=lambda: model.hf_model(**of.given))


@final
class Trace:
    """In the manner of baukit: a context that keeps one module's output and may edit it."""

    def __init__(self, module: nn.Module, edit: Callable[[Tensor], Tensor] | None = None) -> None:
        self.output: Any = None
        self._edit = edit
        self._handle = module.register_forward_hook(self._see)

    def _see(self, module: nn.Module, args: Any, output: Any) -> Any:
        self.output = output if self._edit is None else self._edit(output)
        return self.output

    def __enter__(self) -> "Trace":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self._handle.remove()


def baukit_style(of: Setting) -> Contender:
    """One context a module, as in baukit, written here since it is on no package index."""
    network, vector = of.twin(), of.vector
    blocks = network.transformer.h

    def overwrite(value: Tensor) -> Tensor:
        value[:, -1] = vector
        return value

    def patch() -> list[Tensor]:
        with Trace(blocks[of.middle], overwrite):
            return [network(**of.given).logits]

    def cache() -> list[Tensor]:
        with ExitStack() as stack:
            traces = [stack.enter_context(Trace(block)) for block in blocks]
            logits = network(**of.given).logits
            return [*(trace.output for trace in traces), logits]

    return Contender({"patch": patch, "cache": cache}, plain=lambda: network(**of.given))


def _tokenizer() -> Any:
    """A tokenizer of one word: two libraries ask for one, and load it again by its path."""
    from tokenizers import Tokenizer, models

    plain = Tokenizer(models.WordLevel({"a": 0}, unk_token="a"))
    made = transformers.PreTrainedTokenizerFast(tokenizer_object=plain, bos_token="a", eos_token="a", pad_token="a")
    folder = tempfile.mkdtemp(prefix="interpose-bench-")
    made.save_pretrained(folder)
    return transformers.AutoTokenizer.from_pretrained(folder)


PEERS = {
    "baukit-style": (baukit_style, ""),
    "nnsight": (nnsight, "nnsight"),
    "TransformerLens": (transformer_lens, "transformer-lens"),
    "pyvene": (pyvene, "pyvene"),
    "interp-engine": (interp_engine, "interp-engine"),
}
"""Other libraries, with the distribution that each comes in."""
