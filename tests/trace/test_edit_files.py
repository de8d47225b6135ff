"""An edit comes back from its file; a file that is damaged, foreign or newer is named for what it is."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

import interpose as ip
from interpose.errors import GraphError, InterposeError, LoadError
from interpose.graph.nodes import Apply, Graph, Read, Ref, World, Write
from interpose.graph.sites import Site


@pytest.fixture
def edit(model: ip.Model, ids: Tensor) -> ip.Edit:
    """Of every kind of value: a donor run, weights, constants of two types, an index."""
    v, rows = torch.randn(24, dtype=torch.bfloat16), torch.tensor([-1, -2])
    with model.trace() as t:
        with t.world("donor", ids[:1, :3]):
            given = model.layers[1].output[:, -1]
        with t.world("main", ids):
            model.layers[1].output[:, -1] = given + v
            model.layers[2].mlp.output[:, rows] = 1.0
            model.layers[2].mlp.output *= t.weight("model.norm.weight")
    return ip.Edit.of(t, note="é")


def test_an_edit_comes_back_from_its_file(model: ip.Model, ids: Tensor, edit: ip.Edit, tmp_path: Path) -> None:
    back = ip.Edit.load(edit.save(tmp_path / "edit.safetensors"))
    assert (back.graph, back.meta, back.hash, repr(back)) == (edit.graph, edit.meta, edit.hash, repr(edit))
    found = []
    for one in (edit, back):
        with model.edited(one).trace(ids) as t:
            found.append(t.model.logits.save())
    assert found[0].equal(found[1])
    assert [path.name for path in tmp_path.iterdir()] == ["edit.safetensors"]


def header_of(path: Path) -> dict[str, str]:
    with safe_open(path, framework="pt") as file:
        return dict(file.metadata())


@pytest.mark.parametrize(
    ("changes", "error", "said"),
    [
        ({"interpose": None}, LoadError, "was not written by interpose. Expected edit written by save"),
        ({"interpose": "scores"}, LoadError, r"holds scores, not edit. Load it with Scores.load\(...\)"),
        ({"version": "2"}, LoadError, "format version 2, but this interpose reads version 1"),
        ({"meta": None}, LoadError, "The header of .* is damaged: it lacks meta"),
        ({"meta": "[1]"}, LoadError, "The header of .* is damaged: its meta is no JSON object"),
        ({"meta": "{"}, LoadError, "The header of .* is damaged"),
        ({"graph": "{}"}, GraphError, "This is no graph that encode"),
        ({"graph": '{"interpose": "graph", "version": 7}'}, GraphError, "This graph has format version 7"),
        ({"feed": "3"}, GraphError, "This is no feed that encode"),
        (
            {"feed": json.dumps({"interpose": "feed", "version": 1, "worlds": {}, "tensors": {}})},
            GraphError,
            "The graph of this edit names the tensor .* which did not come with it",
        ),
    ],
)
def test_a_file_that_is_none_is_named(
    edit: ip.Edit, tmp_path: Path, changes: dict[str, Any], error: type[InterposeError], said: str
) -> None:
    path = edit.save(tmp_path / "edit.safetensors")
    with safe_open(path, framework="pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    header = {key: value for key, value in {**header_of(path), **changes}.items() if value is not None}
    save_file(tensors, path, metadata=header)
    with pytest.raises(error, match=said):
        ip.Edit.load(path)


def test_missing_and_broken_files_are_named(edit: ip.Edit, tmp_path: Path) -> None:
    path = edit.save(tmp_path / "edit.safetensors")
    with pytest.raises(LoadError, match="There is no file .*none"):
        ip.Edit.load(tmp_path / "none")
    path.write_bytes(path.read_bytes()[:-3])
    with pytest.raises(LoadError, match="is not a whole safetensors file"):
        ip.Edit.load(path)
    with pytest.raises(LoadError, match="There is no folder .*nowhere to write edit into"):
        edit.save(tmp_path / "nowhere" / "edit")


def test_what_only_this_process_has_is_not_saved(model: ip.Model, ids: Tensor, tmp_path: Path) -> None:
    nodes = (
        Read(site=Site("layers.1.output"), world="main"),
        Apply(function=torch.tanh, args=(Ref(0),), at="mine.py:3"),
        Write(site=Site("layers.1.output"), world="main", value=Ref(1)),
    )
    edit = ip.Edit(Graph((World("main"),), nodes))
    with model.edited(edit).trace(ids) as t:
        t.model.layers[1].output.save("h")
    with model.trace(ids):
        h = model.layers[1].output.tanh().save()
    assert t.saved["h"].equal(h)
    with pytest.raises(GraphError, match="mine.py:3: Apply is local only: it cannot be sent or saved"):
        edit.save(tmp_path / "edit.safetensors")
    with pytest.raises(GraphError, match="The meta of this edit cannot be stored as JSON"):
        ip.Edit(_plain(edit.graph), meta={"x": torch.zeros(1)}).save(tmp_path / "edit.safetensors")
    assert not list(tmp_path.iterdir())


def _plain(graph: Graph) -> Graph:
    return Graph(graph.worlds, (graph.nodes[0], Write(site=Site("layers.1.output"), world="main", value=Ref(0))))
