"""How places are named in Python: layers by number, other libraries' names, what an editor completes."""

import numpy
import pytest
import torch

import interpose as ip
from interpose.errors import SiteError


def test_layers_are_counted_from_either_end(model: ip.Model, ids: torch.Tensor) -> None:
    with model.trace(ids):
        last, again, third = model.layers[-1].output.save(), model.layers[2].output.save(), model.layers[numpy.int64(2)]
        streams = [layer.output.save() for layer in model.layers]
        same = third.output.save()
    assert torch.equal(last, again)
    assert torch.equal(last, same)
    assert torch.equal(streams[2], last)
    assert len(model.layers) == len(streams) == 3
    with pytest.raises(IndexError):
        model.layers[3]


def test_names_of_transformer_lens_and_nnterp_are_ours(model: ip.Model, ids: torch.Tensor) -> None:
    with model.trace(ids):
        pairs = [
            (model.blocks[1].attn.hook_z.save(), model.layers[1].attn.z.save()),
            (model.layers[1].hook_resid_pre.save(), model.layers[1].input.save()),
            (model.layers[1].hook_mlp_out.save(), model.layers[1].mlp.output.save()),
            (model.layers[1].mlp.hook_post.save(), model.layers[1].mlp.neurons.save()),
            (model.hook_embed.save(), model.embed.save()),
            (model.layers_output[1].save(), model.layers[1].output.save()),
            (model.attention_probabilities[-1].save(), model.layers[2].attn.pattern.save()),
            (model.attentions_output[0].save(), model.layers[0].attn.output.save()),
            (model.site("blocks.2.attn.hook_pattern").save(), model.site("layers[2].attn.pattern").save()),
            (model.ln_final.output.save(), model.norm.output.save()),
        ]
    assert all(torch.equal(theirs, ours) for theirs, ours in pairs)
    assert len(model.layers_output) == 3


def test_names_of_other_libraries_are_written_too(model: ip.Model, ids: torch.Tensor) -> None:
    with model.trace(ids):
        model.layers_output[1] = 0
        model.mlps_output[2] += 1
        model.blocks[0].hook_attn_out[:, -1] = 2
        theirs = model.logits.save()
    with model.trace(ids):
        model.layers[1].output = 0
        model.layers[2].mlp.output += 1
        model.layers[0].attn.output[:, -1] = 2
        ours = model.logits.save()
    assert torch.equal(theirs, ours)


def test_what_an_editor_completes() -> None:
    torch.manual_seed(0)
    model = ip.build("gpt2", layers=2, width=8, heads=2, vocab=11, bos_token_id=0, eos_token_id=0)
    assert dir(model.layers[0]) == ["attn", "input", "mid", "mlp", "output", "skip"]
    assert "pattern" in dir(model.layers[0].attn)
    assert dir(model.norm) == ["output"]
    assert repr(model.layers[1].attn) == "<layers.1.attn of gpt2>"
    assert not hasattr(model.layers[0], "_repr_html_")
    assert not hasattr(model, "_repr_html_")
    assert not hasattr(model.module("lm_head"), "_repr_html_")


def test_a_model_describes_itself(model: ip.Model, net: ip.Model) -> None:
    count = sum(weight.numel() for weight in model.network.parameters())
    assert repr(model) == f"Model(llama: LlamaForCausalLM, {count:,} parameters)"
    assert repr(net) == "Model(Sequential: Sequential, no table: use module(path), 130 parameters)"
    noted = ip.Model(model.network, info=type(model.info)("smol", "wheel", note="4-bit, dequantised"))
    assert repr(noted).endswith("4-bit, dequantised)")
    assert model.dtype == torch.float32
    assert model.device == torch.device("cpu")
    assert ip.wrap(torch.nn.Identity()).device == torch.device("cpu")


def test_the_weights_hash_tells_weights_apart(net: ip.Model) -> None:
    first = net.weights_hash
    assert len(first) == 64
    assert net.weights_hash == first
    other = ip.wrap(torch.nn.Sequential(*(type(part)(*_sizes(part)) for part in net.network)))
    other.network.load_state_dict(net.network.state_dict())
    assert other.weights_hash == first
    other = ip.wrap(other.network)
    other.network[0].weight.data[0, 0] += 1
    assert other.weights_hash != first


def _sizes(part: torch.nn.Module) -> tuple[int, ...]:
    return (part.in_features, part.out_features) if isinstance(part, torch.nn.Linear) else ()


def test_a_weight_is_a_value_of_a_block(net: ip.Model, x: torch.Tensor) -> None:
    with net.trace(x) as t:
        by_hand = (net.module("0").input @ t.weight("0.weight").T + t.weight("0.bias")).save()
        made = net.module("0").output.save()
    assert torch.allclose(by_hand, made, atol=1e-6)
    with pytest.raises(SiteError, match="no weight at '0.wieght'"), net.trace(x) as t:
        t.weight("0.wieght")


def test_the_lines_of_the_introduction_work() -> None:
    torch.manual_seed(0)
    sizes = {"layers": 15, "width": 36, "heads": 9, "kv_heads": 3, "neurons": 48, "vocab": 50, "pad_token_id": 0}
    built = ip.build("llama", **sizes, bos_token_id=0, eos_token_id=1)

    def words(text: str) -> dict[str, list[int]]:
        return {"input_ids": [2 + sum(map(ord, word)) % 47 for word in text.split()]}

    words.pad_token_id = words.eos_token_id = 0  # type: ignore[attr-defined]
    model = ip.Model(built.network, tokenizer=words, info=built.info, attention=built.backend.attention)

    with model.trace("The Eiffel Tower is in the city of") as t:
        stream = model.layers[12].output.save()
        model.layers[14].mlp.output[:, -1] = 0
        logits = model.logits[:, -1].save()
    assert logits.topk(5).values.shape == (1, 5)
    assert stream.shape == (1, 8, 36)
    assert set(t.saved) == {"saved0", "saved1"}

    with model.trace() as t:
        with t.world("clean", "When John and Mary went to the store, John gave a drink to"):
            z = model.layers[9].attn.z[:, :, 3]
        with t.world("corrupt", "When John and Mary went to the store, Mary gave a drink to"):
            model.layers[9].attn.z[:, :, 3] = z
            patched = model.logits[:, -1].save()
    assert patched.shape == (1, 50)

    with model.trace(["one prompt", "a longer second prompt"]) as t:
        h = model.layers[5].output
        g = ip.grad(model.logits[:, -1, 42].sum(), h).save()
    assert g.shape == (2, 4, 36)
    assert float(g[0, :2].abs().max()) == 0  # padding
    assert float(g[0, 2:].abs().max()) > 0

    net = ip.wrap(torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 2)))
    with net.trace(torch.ones(3, 4)) as t:
        net.module("1").output[:, :2] = 0
        y = net.output.save()
    hidden = net.network[:2](torch.ones(3, 4)).detach()
    hidden[:, :2] = 0
    assert torch.equal(y, net.network[2](hidden))
