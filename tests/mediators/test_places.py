import pytest
import torch

import interpose as ip
from interpose.errors import SearchError
from interpose.mediators import AttentionBlocks, Edges, HeadInputs, Heads, MLPs, Neurons, Nodes, Positions, Streams


@pytest.fixture(scope="module")
def model() -> ip.Model:
    torch.manual_seed(0)
    return ip.build("gpt2", layers=2, heads=3, width=12, vocab=20, positions=8, pad_token_id=0)


def test_units_are_called_by_layer_and_head(model: ip.Model) -> None:
    assert Streams().units(model) == ("s0", "s1")
    assert AttentionBlocks().units(model) == ("a0", "a1")
    assert MLPs().units(model) == ("m0", "m1")
    assert len(Neurons().units(model)) == 2 * 48
    assert Neurons().units(model)[47:49] == ("m0.n47", "m1.n0")
    assert HeadInputs().units(model)[:4] == ("a0.h0<q>", "a0.h1<q>", "a0.h2<q>", "a0.h0<k>")
    assert list(Nodes().units(model)) == list(Edges().graph(model).nodes)[:-1]
    assert Heads().units(model) == ("a0.h0", "a0.h1", "a0.h2", "a1.h0", "a1.h1", "a1.h2")


def test_positions_are_those_of_another_kind_of_unit_one_by_one(model: ip.Model) -> None:
    assert Positions(last=3).units(model) == ("s0@-3", "s0@-2", "s0@-1", "s1@-3", "s1@-2", "s1@-1")
    assert Positions(of=MLPs(), last=1).units(model) == ("m0@-1", "m1@-1")
    assert len(Positions(of=Heads(), last=5).units(model)) == 2 * 3 * 5


def test_a_unit_at_a_position_is_that_entry_of_its_site(model: ip.Model) -> None:
    units = {unit.name: unit for unit in Positions(of=Heads(), last=4).places(model)}
    unit = units["a1.h2@-3"]
    ids = torch.tensor([[3, 4, 5, 6]])
    with model.trace(ids):
        whole = model.layers[1].attn.z.save()
        part = model.site(unit.site.name)[unit.index()].save()
    assert unit.site.name == "layers.1.attn.z"
    assert torch.equal(part, whole[:, -3, 2])


def test_positions_of_positions_are_refused(model: ip.Model) -> None:
    with pytest.raises(SearchError) as failure:
        Positions(of=Positions(last=3)).units(model)
    assert str(failure.value) == (
        "The units of Positions(of=Streams(), last=3) are single positions already. Write Positions(of=Streams())."
    )


def test_how_many_positions_there_are_comes_from_the_prompts_or_from_the_setting(model: ip.Model) -> None:
    prompts = ip.Pairs(
        *(("a",), ("b",), torch.tensor([[3, 4, 5]]), torch.tensor([[3, 6, 5]])),
        *(torch.ones(1, 3, dtype=torch.bool), torch.tensor([1]), torch.tensor([2])),
    )
    assert len(Positions().units(model, prompts)) == 2 * 3
    assert Positions(last=2).units(model, prompts) == ("s0@-2", "s0@-1", "s1@-2", "s1@-1")
    assert len(Positions(last=9).units(model, prompts)) == 2 * 3
    with pytest.raises(SearchError) as failure:
        Positions().units(model)
    assert str(failure.value) == (
        "How many positions Positions(of=Streams(), last=None) has depends on the prompts. Give the pairs too, or say "
        "how many with last=5."
    )
    with pytest.raises(SearchError, match="has no position. Write a number of positions, 1 or more"):
        Positions(last=0).units(model, prompts)


def test_shared_keys_are_named_by_their_group() -> None:
    shared = ip.build("llama", layers=1, heads=4, kv_heads=2, width=16, neurons=8, vocab=20, pad_token_id=0)
    units = HeadInputs().units(shared)
    assert units == (
        *("a0.h0<q>", "a0.h1<q>", "a0.h2<q>", "a0.h3<q>", "a0.kv0<k>", "a0.kv1<k>", "a0.kv0<v>", "a0.kv1<v>"),
    )
