"""What every method has to keep: a file in `interpose/methods` is tested here as soon as it exists."""

import dataclasses
import importlib
import inspect
import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch

import interpose as ip
from interpose import discovery
from interpose.errors import InterposeError, SearchError, SiteError
from interpose.mediators import Heads
from interpose.mediators.base import Mediator
from interpose.methods.base import Method
from interpose.search import Scores
from interpose.search.scores import SIGN
from interpose.tasks.base import Pairs

METHODS = {entry.name: entry for entry in discovery.entries("interpose.methods")}
MEDIATORS = [entry.name for entry in discovery.entries("interpose.mediators")]
WITHOUT_A_SOURCE = {"random"}
ROLES = {"subject_last": torch.tensor([-2, -3, -2]), "end": torch.tensor([-1, -1, -1])}


SECOND: list[str] = []
"""The folder of another model, for methods that compare two."""


def method(name: str) -> Method:
    """A method with its own settings; but one which goes in many steps takes a few, and one with a source a folder."""
    made: Method = discovery.load("interpose.methods", name)()
    if hasattr(made, "source"):
        made = dataclasses.replace(made, source=SECOND[0])  # type: ignore[call-arg]
    steps = getattr(made, "steps", 0)
    return dataclasses.replace(made, steps=3) if steps > 3 else made  # type: ignore[call-arg]


def mediator(name: str) -> Mediator:
    return discovery.load("interpose.mediators", name)()


def fresh(seed: int) -> ip.Model:
    torch.manual_seed(seed)
    model = ip.build("llama", layers=1, heads=2, kv_heads=1, width=12, neurons=16, vocab=50, pad_token_id=0)
    with torch.no_grad():
        for weight in model.network.parameters():
            weight.mul_(10)
    return model


@pytest.fixture(scope="module", autouse=True)
def second(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The folder of a model of the same sizes with other weights."""
    network: Any = fresh(1).network
    SECOND[:] = [str(tmp_path_factory.mktemp("second"))]
    network.save_pretrained(SECOND[0])
    return SECOND[0]


@pytest.fixture(scope="module")
def model() -> ip.Model:
    """One layer, two heads that share a key; no test changes it."""
    return fresh(0)


@pytest.fixture(scope="module")
def pairs() -> Pairs:
    """Three pairs, padded on the left."""
    clean = torch.tensor([[0, 17, 3, 42], [5, 4, 33, 21], [0, 0, 9, 30]])
    corrupt = torch.tensor([[0, 17, 8, 43], [5, 4, 34, 21], [0, 0, 10, 30]])
    names, answers = ("a", "b", "c"), torch.tensor([3, 4, 5])
    return Pairs(
        names, names, clean, corrupt, clean != 0, answers, answers + 20, {"task": "made-up", "seed": 7}, roles=ROLES
    )


@pytest.fixture(scope="module")
def outcome(model: ip.Model, pairs: Pairs) -> Any:
    """What a method makes of a kind of unit: scores, or the error it refuses them with. Each is tried once."""
    found: dict[tuple[str, str], Scores | SearchError] = {}

    def of(which: str, units: str) -> Scores | SearchError:
        if (which, units) not in found:
            try:
                found[which, units] = method(which).score(model, pairs, mediator(units))
            except SearchError as error:
                found[which, units] = error
        return found[which, units]

    return of


@pytest.mark.parametrize("name", METHODS)
def test_it_is_a_frozen_set_of_settings_that_are_all_explained(name: str) -> None:
    kind = discovery.load("interpose.methods", name)
    assert issubclass(kind, Method)
    assert kind.__dataclass_params__.frozen
    assert getattr(kind, "__final__", False)
    assert kind() == kind()
    assert hash(kind()) == hash(kind())
    doc = inspect.getdoc(kind) or ""
    for field in dataclasses.fields(kind):
        assert re.search(rf"^    {field.name}: \S", doc, flags=re.MULTILINE), f"{field.name} is not explained"
    with pytest.raises(dataclasses.FrozenInstanceError):
        kind().anything = 1


@pytest.mark.parametrize("name", METHODS)
def test_it_says_where_it_comes_from_and_what_a_score_is(name: str) -> None:
    doc = importlib.import_module(METHODS[name].module).__doc__ or ""
    assert len(METHODS[name].summary) > 20
    if name not in WITHOUT_A_SOURCE:
        assert re.search(r"^Source: .*https://\S+", doc, flags=re.MULTILINE)
        assert re.search(r"^    score\(", doc, flags=re.MULTILINE)


@pytest.mark.parametrize("name", METHODS)
def test_score_is_the_one_of_the_base_class(name: str) -> None:
    kind = discovery.load("interpose.methods", name)
    assert kind.score is Method.score


@pytest.mark.parametrize("units", MEDIATORS)
@pytest.mark.parametrize("name", METHODS)
def test_units_get_one_finite_score_each_or_a_refusal_that_names_another_way(
    name: str, units: str, outcome: Any, model: ip.Model, pairs: Pairs
) -> None:
    found = outcome(name, units)
    if isinstance(found, SearchError):
        assert str(found).startswith(f"{type(method(name)).__name__} cannot score {mediator(units)!r}. ")
        offered = [entry.class_name for entry in METHODS.values() if f"{entry.class_name}()" in str(found)]
        assert offered, "the refusal names no method that can"
        for other in offered:
            assert isinstance(outcome(other, units), Scores)
        return
    expected = mediator(units).units(model, pairs)
    assert list(found.units) == list(expected)
    assert found.values.shape == (len(expected),)
    assert found.values.dtype == torch.float32
    assert found.values.device.type == "cpu"
    assert found.values.isfinite().all()
    assert not found.values.requires_grad
    assert found.values.abs().max() > 0


@pytest.mark.parametrize("units", MEDIATORS)
def test_some_method_scores_every_kind_of_unit(units: str, outcome: Any) -> None:
    searched = [name for name in METHODS if name not in WITHOUT_A_SOURCE]
    assert any(isinstance(outcome(name, units), Scores) for name in searched)


def first_scores(name: str, outcome: Any) -> tuple[Scores, Mediator]:
    """The scores of the first kind of unit that a method takes."""
    units = next(units for units in MEDIATORS if isinstance(outcome(name, units), Scores))
    return outcome(name, units), mediator(units)


@pytest.mark.parametrize("name", METHODS)
def test_scores_say_how_they_came_about(name: str, outcome: Any, model: ip.Model) -> None:
    scores, units = first_scores(name, outcome)
    meta = scores.meta
    assert meta["method"] == METHODS[name].class_name
    assert meta["settings"] == dataclasses.asdict(method(name))
    assert meta["mediator"] == repr(units)
    assert meta["model"] == "llama"
    assert meta["weights_hash"] == model.weights_hash
    assert re.fullmatch(r"[0-9a-f]{64}", meta["weights_hash"])
    assert (meta["task"], meta["seed"], meta["examples"]) == ("made-up", 7, 3)
    assert {"interpose", "torch", "transformers", "python"} <= set(meta["versions"])
    assert meta["seconds"] > 0
    assert meta["sign"] == SIGN == "positive = the part helps the behaviour"
    json.dumps(dict(meta))


@pytest.mark.parametrize("name", METHODS)
def test_scores_come_back_from_a_file_as_they_were(name: str, outcome: Any, tmp_path: Path) -> None:
    scores, _ = first_scores(name, outcome)
    read = Scores.load(scores.save(tmp_path / "scores.safetensors"))
    assert torch.equal(read.values, scores.values)
    assert list(read.units) == list(scores.units)
    assert dict(read.meta) == json.loads(json.dumps(dict(scores.meta)))


@pytest.mark.parametrize("name", METHODS)
def test_the_same_settings_give_the_same_scores_and_leave_everything_as_it_was(
    name: str, outcome: Any, model: ip.Model, pairs: Pairs
) -> None:
    scores, units = first_scores(name, outcome)
    torch.manual_seed(5)
    random = torch.get_rng_state()
    weights = {key: weight.clone() for key, weight in model.network.state_dict().items()}
    again = method(name).score(model, pairs, units)
    assert torch.equal(again.values, scores.values)
    assert torch.equal(torch.get_rng_state(), random)
    assert all(torch.equal(weight, weights[key]) for key, weight in model.network.state_dict().items())
    assert all(weight.grad is None for weight in model.network.parameters())
    assert not any(module._forward_hooks for module in model.network.modules())


@pytest.mark.parametrize("name", [n for n in METHODS if "batch_size" in METHODS[n].signature])
def test_scores_do_not_depend_on_the_size_of_batches(name: str, outcome: Any, model: ip.Model, pairs: Pairs) -> None:
    scores, units = first_scores(name, outcome)
    found = dataclasses.replace(method(name), batch_size=2).score(model, pairs, units)
    assert (found.values - scores.values).abs().max() < 1e-5


@pytest.mark.parametrize("name", METHODS)
def test_without_pairs_there_is_nothing_to_search_with(name: str, model: ip.Model, pairs: Pairs) -> None:
    with pytest.raises(SearchError) as failure:
        method(name).score(model, pairs[:0], Heads())
    assert str(failure.value) == "There are no pairs to search with; draw at least one."


@pytest.mark.parametrize("name", METHODS)
def test_a_model_whose_parts_have_no_names_is_refused(name: str, outcome: Any, pairs: Pairs) -> None:
    _, units = first_scores(name, outcome)
    with pytest.raises(SiteError, match="is of a kind without a table"):
        method(name).score(ip.wrap(torch.nn.Linear(2, 2)), pairs, units)


@pytest.mark.parametrize("name", [n for n in METHODS if "batch_size" in METHODS[n].signature])
@pytest.mark.parametrize("size", [0, -1])
def test_a_batch_needs_a_pair(name: str, size: int, outcome: Any, model: ip.Model, pairs: Pairs) -> None:
    _, units = first_scores(name, outcome)
    with pytest.raises(InterposeError, match=f"at least one pair a batch, but size is {size}"):
        dataclasses.replace(method(name), batch_size=size).score(model, pairs, units)
