"""What every mediator has to keep: a file in `interpose/mediators` is tested here as soon as it exists."""

import dataclasses
import inspect
import re
from collections.abc import Sequence
from typing import Any

import pytest
import torch

import interpose as ip
from interpose import discovery
from interpose.errors import SearchError, SiteError
from interpose.mediators.base import Mediator, PlaceMediator, sites_of
from interpose.mediators.edges import table_of
from interpose.search.behaviour import behaviour
from interpose.search.edge_patching import EdgePatching
from interpose.search.path_patching import patch_paths
from interpose.tasks.base import Pairs

ENTRIES = discovery.entries("interpose.mediators")
MEDIATORS = {entry.name: discovery.load("interpose.mediators", entry.name) for entry in ENTRIES}
PLACES = [name for name, kind in MEDIATORS.items() if issubclass(kind, PlaceMediator)]
IDS = torch.tensor([[5, 17, 3, 42, 8, 30], [12, 4, 33, 21, 6, 19]])
OTHER = torch.tensor([[9, 2, 44, 13, 27, 31], [40, 11, 7, 18, 36, 25]])
PROMPTS = Pairs(
    *(("a", "b"), ("c", "d"), IDS, OTHER, torch.ones_like(IDS, dtype=torch.bool)),
    *(torch.tensor([1, 2]), torch.tensor([3, 4])),
    roles={"subject_last": torch.tensor([-3, -2]), "end": torch.tensor([-1, -1])},
)


@pytest.fixture(scope="module")
def model() -> ip.Model:
    """Two layers, four heads that share two keys; no test changes it."""
    torch.manual_seed(0)
    model = ip.build("llama", layers=2, heads=4, kv_heads=2, width=16, neurons=24, vocab=50, pad_token_id=0)
    with torch.no_grad():
        for weight in model.network.parameters():
            weight.mul_(8)
    return model


def stock(model: ip.Model, ids: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        return model.network(ids, use_cache=False).logits


@pytest.mark.parametrize("name", MEDIATORS)
def test_it_is_a_frozen_set_of_settings_that_are_all_explained(name: str) -> None:
    kind = MEDIATORS[name]
    assert issubclass(kind, Mediator)
    assert kind.__dataclass_params__.frozen
    assert getattr(kind, "__final__", False)
    assert kind() == kind()
    assert hash(kind()) == hash(kind())
    doc = inspect.getdoc(kind) or ""
    for field in dataclasses.fields(kind):
        assert re.search(rf"^    {field.name}: \S", doc, flags=re.MULTILINE), f"{field.name} is not explained"


@pytest.mark.parametrize("name", MEDIATORS)
def test_its_units_have_names_of_their_own_in_one_order(name: str, model: ip.Model) -> None:
    mediator = MEDIATORS[name]()
    units: Sequence[str] = mediator.units(model, PROMPTS)
    assert len(units) > 0
    assert len(set(units)) == len(units) == len(list(units))
    assert all(re.fullmatch(r"[\w.<>@-]+", unit) for unit in units)
    assert list(mediator.units(model, PROMPTS)) == list(units)
    assert units[0] == next(iter(units))
    assert units[len(units) - 1] == list(units)[-1]


@pytest.mark.parametrize("name", MEDIATORS)
def test_a_model_whose_parts_have_no_names_is_refused(name: str) -> None:
    plain = ip.wrap(torch.nn.Linear(2, 2))
    with pytest.raises(SiteError, match="is of a kind without a table"):
        MEDIATORS[name]().units(plain, PROMPTS)


@pytest.mark.parametrize("name", PLACES)
def test_a_unit_is_named_as_its_place(name: str, model: ip.Model) -> None:
    mediator = MEDIATORS[name]()
    assert tuple(mediator.units(model, PROMPTS)) == tuple(unit.name for unit in mediator.places(model, PROMPTS))


@pytest.mark.parametrize("name", PLACES)
def test_no_two_units_overlap_and_together_they_are_their_sites(name: str, model: ip.Model) -> None:
    places = MEDIATORS[name]().places(model, PROMPTS)
    with model.trace(IDS) as t:
        for site in sites_of(places):
            model.site(site.name).save(site.name)
    covered = {site: torch.zeros_like(value) for site, value in t.saved.items()}
    for unit in places:
        covered[unit.site.name][unit.index(PROMPTS)] += 1
    claimed = torch.ones(2, 6)
    if any(unit.role is not None for unit in places):  # which claim their tokens only
        claimed = torch.zeros(2, 6)
        for where in PROMPTS.roles.values():
            claimed[range(2), where] = 1
    for site in sites_of(places):
        count = covered[site.name].movedim((site.axes or ()).index("P"), 1).flatten(2)
        assert bool((count == claimed[:, :, None]).all())


@pytest.mark.parametrize("name", PLACES)
def test_writing_back_what_was_read_changes_no_bit(name: str, model: ip.Model) -> None:
    with model.trace(IDS):
        for unit in MEDIATORS[name]().places(model, PROMPTS):
            value = model.site(unit.site.name)[unit.index(PROMPTS)]
            model.site(unit.site.name)[unit.index(PROMPTS)] = value
        logits = model.logits.save()
    assert torch.equal(logits, stock(model, IDS))


@pytest.mark.parametrize("name", PLACES)
def test_every_unit_can_be_read_and_matters(name: str, model: ip.Model) -> None:
    before = stock(model, IDS)
    for unit in MEDIATORS[name]().places(model, PROMPTS):
        with model.trace(IDS):
            value = model.site(unit.site.name)[unit.index(PROMPTS)].save()
            model.site(unit.site.name)[unit.index(PROMPTS)] = value + 1.0
            logits = model.logits.save()
        assert value.numel() > 0
        assert (logits - before).abs().max() > 1e-4, unit.name


def patched(model: ip.Model, mediator: PlaceMediator) -> torch.Tensor:
    """The logits with every unit given its value on the other prompts."""
    places = mediator.places(model, PROMPTS)
    with model.trace() as t:
        with t.world("corrupt", OTHER):
            values = [model.site(unit.site.name)[unit.index(PROMPTS)] for unit in places]
        with t.world("clean", IDS):
            for unit, value in zip(places, values, strict=True):
                model.site(unit.site.name)[unit.index(PROMPTS)] = value
            logits = model.logits.save()
    return logits


@pytest.mark.parametrize("of", [ip.mediators.Streams(), ip.mediators.Positions()], ids=repr)
def test_with_every_stream_from_the_other_prompts_the_run_is_theirs(of: Any, model: ip.Model) -> None:
    assert torch.equal(patched(model, of), stock(model, OTHER))


@pytest.mark.parametrize("of", [ip.mediators.Heads(), ip.mediators.AttentionBlocks(), ip.mediators.MLPs()], ids=repr)
def test_with_every_block_of_a_kind_from_the_other_prompts_the_embedding_stays(of: Any, model: ip.Model) -> None:
    logits = patched(model, of)
    assert (logits - stock(model, IDS)).abs().max() > 1e-2
    assert (logits - stock(model, OTHER)).abs().max() > 1e-2


def mixed(model: ip.Model, unit: Any, weight: float) -> torch.Tensor:
    """The logits with a unit between its value on the other prompts (0) and its own (1)."""
    with model.trace() as t:
        with t.world("corrupt", OTHER):
            corrupt = model.site(unit.site.name)[unit.index(PROMPTS)]
        with t.world("clean", IDS):
            clean = model.site(unit.site.name)[unit.index(PROMPTS)]
            model.site(unit.site.name)[unit.index(PROMPTS)] = weight * clean + (1 - weight) * corrupt
            logits = model.logits.save()
    return logits


def replaced(model: ip.Model, unit: Any) -> torch.Tensor:
    """The logits with a unit's value on the other prompts, put there as plain numbers."""
    with model.trace(OTHER) as t:
        model.site(unit.site.name).save("there")
    with model.trace(IDS):
        model.site(unit.site.name)[unit.index(PROMPTS)] = t.saved["there"][unit.index(PROMPTS)]
        return model.logits.save()


@pytest.mark.parametrize("name", PLACES)
def test_a_mixture_goes_from_the_corrupt_value_to_the_clean_run(name: str, model: ip.Model) -> None:
    places = MEDIATORS[name]().places(model, PROMPTS)
    for unit in (places[0], places[len(places) // 2], places[-1]):
        clean, half, corrupt = (mixed(model, unit, weight) for weight in (1.0, 0.5, 0.0))
        assert torch.equal(clean, stock(model, IDS))
        assert torch.equal(corrupt, replaced(model, unit))
        assert (corrupt - clean).abs().max() > 1e-4
        assert (half - clean).abs().max() > 1e-5
        assert (half - corrupt).abs().max() > 1e-5


def weighted(name: str, model: ip.Model, weight: float) -> list[torch.Tensor]:
    """The behaviour where nothing is changed, and then with some edges or paths between corrupt and clean."""
    if name == "paths":
        paths = MEDIATORS[name](receivers=("a1.h1<q>", "logits"))
        return list(patch_paths(model, PROMPTS, paths, mixture=weight))
    patching = EdgePatching(model, PROMPTS)
    graph, feed = patching.block(torch.zeros(patching.graph.n_edges, dtype=torch.bool))
    runs = []
    for edge in (None, 3, patching.graph.n_edges - 1):
        cut = torch.zeros(patching.graph.n_edges)
        cut[[] if edge is None else [edge]] = 1 - weight
        runs.append(feed.with_(None, cut=table_of(cut, patching.graph)))
    return [run["m"] for run in model.backend.run_many([graph] * len(runs), runs)]


@pytest.mark.parametrize("name", ["edges", "paths"])
def test_a_mixture_on_the_way_to_a_reader_goes_from_corrupt_to_clean(name: str, model: ip.Model) -> None:
    whole = behaviour(model, PROMPTS)["clean"]
    assert all((found - whole).abs().max() < 1e-5 for found in weighted(name, model, 1.0))
    _, *half = weighted(name, model, 0.5)
    _, *corrupt = weighted(name, model, 0.0)
    changes = [float((end - whole).abs().max()) for end in corrupt]
    between = [float((middle - whole).abs().max()) for middle in half]
    assert min(changes) > 1e-4
    assert min(between) > 1e-5
    assert all((middle - end).abs().max() > 1e-5 for middle, end in zip(half, corrupt, strict=True))


@pytest.mark.parametrize(
    ("name", "setting", "given"), [("token-roles", "roles", "end"), ("paths", "receivers", "logits")]
)
def test_one_text_is_no_tuple_of_names(name: str, setting: str, given: str, model: ip.Model) -> None:
    mediator = MEDIATORS[name]()
    object.__setattr__(mediator, setting, given)  # where types are not checked, as in a user's own session
    with pytest.raises(SearchError) as failure:
        mediator.units(model, PROMPTS)
    assert str(failure.value) == (
        f"{setting} is a tuple of names, but here it is one text. Write {setting}=('{given}',)."
    )


def test_the_paths_to_the_logits_together_carry_what_the_edges_to_them_do(model: ip.Model) -> None:
    """To one receiver a path is an edge; the corrupt ends are those of edges that are cut one by one."""
    paths = MEDIATORS["paths"]()
    patching = EdgePatching(model, PROMPTS)
    units = paths.units(model)
    masks = torch.ones(len(units), patching.graph.n_edges, dtype=torch.bool)
    masks[range(len(units)), [patching.graph.edges.number(unit) for unit in units]] = False
    _, *found = patch_paths(model, PROMPTS, paths)
    for one, edge in zip(found, patching(masks), strict=True):
        assert torch.allclose(one, edge, atol=1e-5)
