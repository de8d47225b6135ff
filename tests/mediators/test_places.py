"""What the units of each kind are called, and what lies behind the names."""

from dataclasses import replace

import pytest
import torch

import interpose as ip
from interpose.errors import SearchError
from interpose.mediators import (
    AttentionBlocks,
    Edges,
    HeadInputs,
    Heads,
    MLPs,
    Neurons,
    Nodes,
    Positions,
    Streams,
    TokenRoles,
)


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


@pytest.mark.parametrize("kind", [Positions, TokenRoles])
def test_what_is_no_place_has_no_positions(kind: type, model: ip.Model) -> None:
    mediator = kind()
    object.__setattr__(mediator, "of", Edges())  # where types are not checked, as in a user's own session
    with pytest.raises(SearchError) as failure:
        mediator.units(model)
    assert str(failure.value) == (
        "The units of Edges(grouped=False) are no places, so they have no positions. Write "
        f"{kind.__name__}(of=Streams())."
    )


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


@pytest.fixture
def prompts() -> ip.Pairs:
    ids = torch.tensor([[3, 4, 5, 6], [0, 7, 8, 9]])
    roles = {"subject_last": torch.tensor([-3, -2]), "end": torch.tensor([-1, -1])}
    answers = torch.tensor([1, 2])
    return ip.Pairs(("a", "b"), ("c", "d"), ids, ids + 1, ids != 0, answers, answers + 2, roles=roles)


def test_units_at_roles_are_those_of_another_kind_at_each_role(model: ip.Model, prompts: ip.Pairs) -> None:
    assert TokenRoles().units(model, prompts) == ("s0@subject_last", "s0@end", "s1@subject_last", "s1@end")
    assert TokenRoles(of=MLPs(), roles=("end",)).units(model, prompts) == ("m0@end", "m1@end")
    assert len(TokenRoles(of=Heads()).units(model, prompts)) == 2 * 3 * 2


def test_a_unit_at_a_role_is_at_its_own_position_in_each_prompt(model: ip.Model, prompts: ip.Pairs) -> None:
    units = {unit.name: unit for unit in TokenRoles(of=Heads()).places(model, prompts)}
    unit = units["a1.h2@subject_last"]
    with model.trace(prompts.clean_batch()):
        whole = model.layers[1].attn.z.save()
        part = model.site(unit.site.name)[unit.index(prompts)].save()
        second = model.site(unit.site.name)[1:][unit.index(prompts[1:])].save()
    assert torch.equal(part, torch.stack([whole[0, -3, 2], whole[1, -2, 2]]))
    assert torch.equal(second, whole[1:, -2, 2])


def test_a_unit_at_a_role_needs_the_prompts_to_be_found(model: ip.Model, prompts: ip.Pairs) -> None:
    unit = TokenRoles().places(model, prompts)[0]
    with pytest.raises(SearchError) as failure:
        unit.index()
    assert str(failure.value) == (
        "s0@subject_last lies at another position in each prompt. Give the prompts of the batch at hand: "
        "unit.index(pairs)."
    )


def test_roles_that_the_pairs_do_not_have_are_refused(model: ip.Model, prompts: ip.Pairs) -> None:
    with pytest.raises(SearchError) as failure:
        TokenRoles(roles=("object",)).units(model, prompts)
    assert str(failure.value) == "These pairs have no role 'object'. Their roles are: subject_last, end."
    with pytest.raises(SearchError) as failure:
        TokenRoles().units(model)
    assert str(failure.value) == (
        "Which tokens TokenRoles(of=Streams(), roles=None) means depends on the prompts. Give the pairs too."
    )
    plain = replace(prompts, roles={})
    with pytest.raises(SearchError) as failure:
        TokenRoles().units(model, plain)
    assert str(failure.value) == (
        "TokenRoles(of=Streams(), roles=None) has no units: these pairs name no roles of tokens. Draw them from a task "
        "that does, or use Positions()."
    )
    with pytest.raises(SearchError) as failure:
        TokenRoles(roles=("end",)).units(model, plain)
    assert str(failure.value) == (
        "These pairs have no role 'end': they do not say which part any token plays. Draw pairs from a task that names "
        'roles, or add them, counted from the last token: dataclasses.replace(pairs, roles={"end": '
        "torch.tensor([-3, -4, ...])})."
    )
    with pytest.raises(SearchError, match="are single positions already. Write TokenRoles"):
        TokenRoles(of=Positions(last=2)).units(model, prompts)
    with pytest.raises(SearchError, match="are single positions already. Write Positions"):
        Positions(of=TokenRoles()).units(model, prompts)
