import pytest
import torch

import interpose as ip
from interpose.errors import SearchError
from interpose.mediators import AttentionBlocks, Heads, MLPs, Positions, Streams


@pytest.fixture(scope="module")
def model() -> ip.Model:
    torch.manual_seed(0)
    return ip.build("gpt2", layers=2, heads=3, width=12, vocab=20, positions=8, pad_token_id=0)


def test_units_are_called_by_layer_and_head(model: ip.Model) -> None:
    assert Streams().units(model, 4) == ("s0", "s1")
    assert AttentionBlocks().units(model, 4) == ("a0", "a1")
    assert MLPs().units(model, 4) == ("m0", "m1")
    assert Heads().units(model, 4) == ("a0.h0", "a0.h1", "a0.h2", "a1.h0", "a1.h1", "a1.h2")


def test_positions_are_those_of_another_kind_of_unit_one_by_one(model: ip.Model) -> None:
    assert Positions().units(model, 3) == ("s0@-3", "s0@-2", "s0@-1", "s1@-3", "s1@-2", "s1@-1")
    assert Positions(of=MLPs()).units(model, 1) == ("m0@-1", "m1@-1")
    assert len(Positions(of=Heads()).units(model, 5)) == 2 * 3 * 5


def test_a_unit_at_a_position_is_that_entry_of_its_site(model: ip.Model) -> None:
    units = {unit.name: unit for unit in Positions(of=Heads()).places(model, 4)}
    unit = units["a1.h2@-3"]
    ids = torch.tensor([[3, 4, 5, 6]])
    with model.trace(ids):
        whole = model.layers[1].attn.z.save()
        part = model.site(unit.site.name)[unit.index()].save()
    assert unit.site.name == "layers.1.attn.z"
    assert torch.equal(part, whole[:, -3, 2])


def test_positions_of_positions_are_refused(model: ip.Model) -> None:
    with pytest.raises(SearchError) as failure:
        Positions(of=Positions()).units(model, 3)
    assert str(failure.value) == (
        "The units of Positions(of=Streams()) are single positions already. Write Positions(of=Streams())."
    )
