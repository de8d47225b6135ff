"""The model that is used where none is named: real, offline after the first time, quick to load."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

import interpose as ip
from interpose.loading import cache
from interpose.loading.cards import cards
from interpose.loading.prepare import prepare

NAME = "smollm2-135m-instruct"


@pytest.fixture(scope="module")
def model() -> ip.Model:
    return ip.load(NAME)


def test_it_knows_the_capital_of_france(model: ip.Model) -> None:
    tokens = model.tokens("The capital of France is")
    ids = model.network.generate(tokens.ids, max_new_tokens=8, do_sample=False)
    assert "Paris" in model.tokenizer.decode(ids[0])


def test_it_says_where_it_comes_from(model: ip.Model) -> None:
    info = model.info
    assert (info.name, info.source, info.note, info.licence) == (NAME, "wheel", "4-bit, dequantised", "Apache-2.0")
    assert model.weights_hash == cache.sha256(prepare(cards()[NAME]) / "model.safetensors")
    assert model.dtype == torch.float32
    assert model.dims is not None
    assert (model.dims.layers, model.dims.heads, model.dims.kv_heads) == (30, 9, 3)
    assert sum(weight.numel() for weight in model.network.parameters()) == cards()[NAME].parameters


def test_it_is_bit_for_bit_the_stock_class_with_the_stored_weights(model: ip.Model) -> None:
    from transformers import LlamaConfig, LlamaForCausalLM

    folder = prepare(cards()[NAME])
    network = LlamaForCausalLM(LlamaConfig.from_pretrained(folder)).eval()
    weights = load_file(folder / "model.safetensors")
    missing, unexpected = network.load_state_dict(weights, strict=False)
    assert (missing, unexpected) == (["lm_head.weight"], [])
    ids = torch.tensor([[504, 3575, 282, 4649, 314]])
    with torch.no_grad():
        assert torch.equal(network(ids).logits, model.network(ids).logits)


def test_numbers_are_read_digit_by_digit(model: ip.Model) -> None:
    tokens = model.tokenizer.convert_ids_to_tokens(model.tokenizer("a  12 Mary").input_ids)
    assert tokens == ["a", "ĠĠ", "1", "2", "ĠMary"]


def test_it_loads_quickly_and_without_network_in_a_new_process(model: ip.Model, tmp_path: Path) -> None:
    code = """
import socket, sys, time
sys.path.append(sys.argv[1])
def refuse(*_):
    raise AssertionError("the network was used")
socket.socket.connect = socket.getaddrinfo = refuse
import torch, transformers, interpose
start = time.process_time()
interpose.load("smollm2-135m-instruct")
sys.stdout.write(str(time.process_time() - start))
"""
    source = str(Path(next(iter(ip.__path__))).parent)
    environment = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
    run = subprocess.run([sys.executable, "-c", code, source], env=environment, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    # Processor time, as other tests may be running: half a second, and two or three of importing the model's class.
    assert float(run.stdout) < 8
    assert run.stderr == ""
