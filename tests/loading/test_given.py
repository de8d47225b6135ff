"""A module of the user's own."""

import inspect

import pytest
import torch

import interpose as ip
from interpose.errors import LoadError
from interpose.loading import fresh


def test_the_module_is_the_user_s_own_and_is_left_alone() -> None:
    module = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.Dropout(), torch.nn.Linear(8, 2)).double().train()
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    model = ip.wrap(module)
    assert model.network is module
    assert module.training
    assert all(parameter.requires_grad for parameter in module.parameters())
    assert all(torch.equal(tensor, before[name]) for name, tensor in module.state_dict().items())
    assert (model.info.name, model.info.source, model.dtype) == ("Sequential", "wrap", torch.float64)


def test_the_tokenizer_is_the_user_s_own_object_and_keeps_its_side(made) -> None:
    from transformers import AutoTokenizer

    (prepared,) = (made / "models" / "tiny").glob("*-*")
    tokenizer = AutoTokenizer.from_pretrained(prepared)
    tokenizer.padding_side = "right"
    model = ip.wrap(fresh.stock("llama", layers=1, width=16, heads=2, vocab=300), tokenizer)
    model.tokens(["a", "a b c"])
    assert model.tokenizer is tokenizer
    assert tokenizer.padding_side == "right"


def test_a_network_of_transformers_gets_its_attention_sites() -> None:
    model = ip.wrap(fresh.stock("llama", layers=1, width=16, heads=2, vocab=20))
    with model.trace(torch.tensor([[1, 2, 3]])):
        pattern = model.layers[0].attn.pattern.save()
    torch.testing.assert_close(pattern.sum(-1), torch.ones(1, 2, 3))


def test_what_is_no_module_is_refused_with_what_to_write() -> None:
    with pytest.raises(LoadError, match=r"ip\.wrap takes a torch\.nn\.Module and was given str\. .* ip\.load\(name\)"):
        inspect.unwrap(ip.wrap)("gpt2")  # the tests check types, and would refuse it before wrap does
