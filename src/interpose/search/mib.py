"""The files of the MIB circuit track: a model's edges, each with a score and whether it is in a circuit.

MIB (https://arxiv.org/abs/2504.13151) writes them as JSON and as `.pt`. Both are read here, and nothing in them can
run: a `.pt` file is opened with torch's reader for weights only. What a file claims is checked against the graph that
its own configuration describes.

Not every file has MIB's own sign, in which a positive score says that the edge helps. So whoever reads one says what a
positive score means there, and `interpose.search.sign.check_sign` tells which it is by running both circuits.
"""

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from interpose.errors import SearchError, SiteError
from interpose.mediators.edges import table_of
from interpose.models.stream import StreamGraph
from interpose.search.circuit import Circuit
from interpose.search.scores import Scores

Sign = Literal["helps", "hurts"]
"""What a positive score says of its edge."""

LARGEST = 2**30
"""No file of more bytes is opened; all edges of an 8-billion-parameter model take a tenth of it."""

_MOST = 1000
_KEYS = {
    ".json": ("cfg", "nodes", "edges"),
    ".pt": ("cfg", "src_nodes", "dst_nodes", "edges_scores", "edges_in_graph", "nodes_in_graph"),
}


@dataclass(frozen=True, eq=False)
class MIBFile:
    """What a file of the MIB circuit track holds, in interpose's own order and sign.

    Attributes:
        scores: of the edges; positive where the edge helps.
        circuit: the edges that the file says are in the circuit, pruned no further.
        width: of the residual stream.
        nodes: scores of the nodes in the order of `StreamGraph.sources`, where the file has them; a node that it leaves
            unscored, which MIB always keeps, has an infinite one.
        neurons: scores of what each node writes to each dimension of the stream, where the file has them.
        neurons_kept: which of those dimensions are in the circuit.
    """

    scores: Scores
    circuit: Circuit
    width: int
    nodes: Float[Tensor, " nodes"] | None = None
    neurons: Float[Tensor, "nodes width"] | None = None
    neurons_kept: Bool[Tensor, "nodes width"] | None = None

    @property
    def weighted_edge_count(self) -> float:
        """How many edges are in the circuit, each weighted by the share of its source's dimensions that are."""
        kept = table_of(self.circuit.mask, self.scores.graph)
        if self.neurons_kept is None:
            return float(kept.sum())
        return float(kept.double().sum(0) @ self.neurons_kept.double().mean(1))


def read_mib(path: str | os.PathLike[str], sign: str = "helps") -> MIBFile:
    """Read a JSON or `.pt` file of the MIB circuit track.

    Args:
        path: the file.
        sign: what a positive score in the file says of its edge; MIB's own code writes "helps".

    Raises:
        SearchError: there is no such file, it is too large, it holds something else or objects that could run code, its
            edges are not all edges of the graph that it describes, or a score is no number.
    """
    path = Path(path)
    if sign not in get_args(Sign):
        raise SearchError(f"A positive score either 'helps' or 'hurts', but sign is {sign!r}.")
    found = _content(path)
    missing = [key for key in _KEYS[path.suffix] if key not in found]
    if missing:
        raise SearchError(
            f"{path} is not a file of the MIB circuit track: it has no {missing[0]!r}. Expected "
            f"{', '.join(_KEYS[path.suffix])}."
        )
    try:
        graph, width = _graph(found["cfg"])
        read = _from_tables if path.suffix == ".pt" else _from_names
        held = read(found, graph, width)
    except (AttributeError, KeyError, TypeError, ValueError, RuntimeError, SiteError) as error:
        raise SearchError(f"{path} is damaged: {error}.") from error
    meta = {"from": path.name, "format": "MIB circuit track", "positive_in_file": sign}
    if sign == "hurts":
        turned = {name: -held[name] for name in ("edges", "nodes", "neurons") if name in held}
        # A node without a score is kept, whatever the sign.
        turned |= {name: turned[name].abs().where(turned[name].isinf(), turned[name]) for name in turned}
        held |= turned
    scores = Scores(held.pop("edges"), graph.edges, meta)
    kept = held.pop("kept")
    return MIBFile(scores, Circuit(kept, graph.edges, int(kept.sum()), meta=scores.meta), width, **held)


def write_mib(path: str | os.PathLike[str], scores: Scores, width: int, circuit: Circuit | None = None) -> Path:
    """Write a JSON or `.pt` file that MIB's own code reads, whole or not at all.

    A positive score in it says that the edge helps, as in MIB's code.

    Args:
        path: where to; its ending says which of the two.
        scores: of edges, ungrouped.
        width: of the residual stream, `model.sizes().width`.
        circuit: which edges are in it; none by default.

    Returns:
        the path.

    Raises:
        SearchError: the scores are not of edges, or keys and values are grouped, which MIB cannot say; another ending;
            no such folder; or the circuit is of another graph.
    """
    path, graph = Path(path), scores.graph
    _kind(path)
    if graph.grouped:
        raise SearchError("MIB counts keys and values once a query head. Search with Edges(), not Edges(grouped=True).")
    if circuit is not None and circuit.graph != graph:
        raise SearchError(f"The circuit is of {circuit.graph}, but the scores are of {graph}.")
    if not path.parent.is_dir():
        raise SearchError(f"There is no folder {path.parent} to write {path.name} into. Make it first.")
    mask = torch.zeros(graph.n_edges, dtype=torch.bool) if circuit is None else circuit.mask.cpu()
    inside = set() if circuit is None else set(circuit.nodes())
    cfg = {
        "n_layers": graph.layers,
        "n_heads": graph.heads,
        "parallel_attn_mlp": graph.parallel,
        "d_model": width,
    }
    unfinished = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        if path.suffix == ".pt":
            torch.save(_as_tables(cfg, scores, mask, inside), unfinished)
        else:
            unfinished.write_text(json.dumps(_as_names(cfg, scores, mask, inside)), encoding="utf-8")
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)
    return path


def _kind(path: Path) -> None:
    if path.suffix not in _KEYS:
        raise SearchError(f"{path} ends neither in .json nor in .pt, the two kinds of file of the MIB circuit track.")


def _content(path: Path) -> Mapping[str, Any]:
    _kind(path)
    if not path.is_file():
        raise SearchError(f"There is no file {path}.")
    if path.stat().st_size > LARGEST:
        raise SearchError(f"{path} has {path.stat().st_size:,} bytes; files of up to {LARGEST:,} are read.")
    try:
        found = _parsed(path)
    except (ValueError, RecursionError) as error:
        raise SearchError(f"{path} is not JSON ({error}).") from error
    if not isinstance(found, Mapping):
        raise SearchError(f"{path} holds a {type(found).__name__}, not the parts of a graph by name.")
    return found


def _parsed(path: Path) -> Any:
    if path.suffix == ".json":
        return json.loads(path.read_bytes())
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch has no one kind of error for a file that is not what it should be
        raise SearchError(
            f"{path} is no .pt file of tensors, numbers and names; anything else in such a file could run code, so it "
            "is not read. Write it again with MIB's to_json."
        ) from error


def _graph(cfg: Mapping[str, Any]) -> tuple[StreamGraph, int]:
    sizes = [cfg[key] for key in ("n_layers", "n_heads", "d_model")]
    if not all(type(size) is int and size > 0 for size in sizes) or max(sizes[:2]) > _MOST:
        raise ValueError(f"its configuration has n_layers, n_heads and d_model of {sizes}")
    if type(cfg["parallel_attn_mlp"]) is not bool:
        raise TypeError(f"parallel_attn_mlp is {cfg['parallel_attn_mlp']!r}")
    return StreamGraph(sizes[0], sizes[1], parallel=cfg["parallel_attn_mlp"]), sizes[2]


def _from_names(found: Mapping[str, Any], graph: StreamGraph, width: int) -> dict[str, Tensor]:
    """What a JSON file holds."""
    given = found["edges"]
    # An edge that is left out has no score; to guess one would change the ranking.
    if len(given) != graph.n_edges:
        raise ValueError(f"it has {len(given):,} edges, but its configuration {graph.n_edges:,}")
    scores, kept = torch.zeros(graph.n_edges, dtype=torch.float64), torch.zeros(graph.n_edges, dtype=torch.bool)
    numbers = [graph.edges.number(name) for name in given]
    scores[numbers] = torch.tensor([_number(name, edge["score"]) for name, edge in given.items()]).double()
    kept[numbers] = torch.tensor([_flag(name, edge["in_graph"]) for name, edge in given.items()])
    held: dict[str, Tensor] = {"edges": scores.float(), "kept": kept}
    nodes = [found["nodes"][name] for name in graph.sources]
    if any("score" in node for node in nodes):
        held["nodes"] = _nodes([node.get("score", float("nan")) for node in nodes])
    if any("neurons_scores" in node for node in nodes):
        held["neurons"] = _nodes([node.get("neurons_scores", [float("nan")] * width) for node in nodes])
    if any("neurons" in node for node in nodes):
        held["neurons_kept"] = torch.tensor([node.get("neurons", [True] * width) for node in nodes]).bool()
    _check_widths(held, width)
    return held


def _from_tables(found: Mapping[str, Any], graph: StreamGraph, width: int) -> dict[str, Tensor]:
    """What a `.pt` file holds: tables with a row a source and a column a destination."""
    for key, names in (("src_nodes", graph.sources), ("dst_nodes", graph.destinations)):
        if list(found[key]) != list(names):
            raise ValueError(f"{key} are not those of its configuration, from {names[0]} to {names[-1]}")
    shape = (graph.n_sources, graph.n_destinations)
    for key in ("edges_scores", "edges_in_graph"):
        if tuple(found[key].shape) != shape:
            raise ValueError(f"{key} has shape {list(found[key].shape)}, not {list(shape)}")
    real = table_of(torch.ones(graph.n_edges, dtype=torch.bool), graph)
    held: dict[str, Tensor] = {
        "edges": found["edges_scores"].float().T[real],
        "kept": found["edges_in_graph"].bool().T[real],
    }
    if found.get("nodes_scores") is not None:
        held["nodes"] = _nodes(found["nodes_scores"])
    if found.get("neurons_scores") is not None:
        held["neurons"] = _nodes(found["neurons_scores"])
    if found.get("neurons_in_graph") is not None:
        held["neurons_kept"] = found["neurons_in_graph"].bool()
    _check_widths(held, width)
    return held


def _nodes(values: Any) -> Tensor:
    scores = torch.as_tensor(values).float()
    return scores.where(~scores.isnan(), float("inf"))


def _check_widths(held: Mapping[str, Tensor], width: int) -> None:
    for name in ("neurons", "neurons_kept"):
        table = held.get(name)
        if table is not None and table.shape[1:] != (width,):
            raise ValueError(f"its neurons are {list(table.shape[1:])} a node, but d_model is {width}")


def _number(name: str, score: object) -> float:
    if isinstance(score, bool) or not isinstance(score, int | float):
        raise TypeError(f"the score of {name} is {score!r}")
    return float(score)


def _flag(name: str, flag: object) -> bool:
    if not isinstance(flag, bool):
        raise TypeError(f"in_graph of {name} is {flag!r}")
    return flag


def _as_names(cfg: Mapping[str, Any], scores: Scores, mask: Tensor, inside: set[str]) -> dict[str, Any]:
    edges = zip(scores.units, scores.values.tolist(), mask.tolist(), strict=True)
    return {
        "cfg": dict(cfg),
        "nodes": {name: {"in_graph": name in inside} for name in scores.graph.nodes},
        "edges": {name: {"score": score, "in_graph": kept} for name, score, kept in edges},
    }


def _as_tables(cfg: Mapping[str, Any], scores: Scores, mask: Tensor, inside: set[str]) -> dict[str, Any]:
    graph = scores.graph
    return {
        "cfg": dict(cfg),
        "src_nodes": list(graph.sources),
        "dst_nodes": list(graph.destinations),
        "edges_scores": table_of(scores.values.float().cpu(), graph).T.contiguous(),
        "edges_in_graph": table_of(mask, graph).T.contiguous(),
        "nodes_in_graph": torch.tensor([name in inside for name in graph.sources]),
    }
