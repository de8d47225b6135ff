"""Scores that were found elsewhere enter the benchmark as a method does, and scores that it found leave it.

Files of the MIB circuit track (`.json`, `.pt`) and of interpose (`.safetensors`) are read. What a positive score says
of its edge is settled before anything is measured: MIB's own code writes "helps", but not every file keeps to that.
"""

import hashlib
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Literal, final

from interpose.benchmark.cutting import by_edge, of_nodes
from interpose.errors import Refused, SearchError
from interpose.mediators.base import Mediator
from interpose.mediators.edges import Edges
from interpose.methods.base import circumstances
from interpose.models.stream import EdgeNames, StreamGraph
from interpose.search.edge_patching import EdgePatching
from interpose.search.mib import read_mib, write_mib
from interpose.search.progress import track
from interpose.search.scores import Scores
from interpose.search.sign import SHARES, check_sign
from interpose.search.units import sketch
from interpose.tasks.base import Pairs
from interpose.trace import Model

Way = Literal["helps", "hurts", "check"]
"""What a positive score of a file says of its edge, or that this is to be found out."""

OURS = ".safetensors"


@dataclass(frozen=True)
class Origin:
    """Where scores of a file came from, and which way round they were.

    Attributes:
        file: its name.
        sha256: of its bytes.
        format: `MIB circuit track` or `interpose`.
        found_by: method, task and model, as far as the file says.
        sign: what was asked for: `helps`, `hurts` or `check`.
        positive_in_file: what a positive score in the file says of its edge.
        highest: where that was checked, the mean metric of the circuits of the highest scores of the file.
        lowest: the same of the lowest scores.
        checked_on: pairs that it was checked on.
    """

    file: str
    sha256: str
    format: str
    found_by: str
    sign: str
    positive_in_file: str
    highest: float | None = None
    lowest: float | None = None
    checked_on: int = 0


@final
@dataclass(frozen=True)
class Given:
    """Scores read from a file; they were found elsewhere.

    Attributes:
        path: the file.
        sign: what a positive score in it says of its edge; `check` runs circuits to find out.
        batch_size: pairs in one forward pass of that check.
    """

    path: Path
    sign: Way
    batch_size: int = 16

    def score(self, model: Model, pairs: Pairs, mediators: Mediator) -> Scores:
        """The scores of the file, with interpose's own sign and `meta["given"]`, an `Origin` as a dict.

        Args:
            model: whose units they must be of.
            pairs: that the sign is checked on.
            mediators: `Edges()`, or `Nodes()` for a file that scores nodes.

        Raises:
            Refused: the file scores units of another kind, or of another model.
            SearchError: it cannot be read, or the sign cannot be told.
        """
        scores, origin = self.read()
        _check_fits(self.path.name, scores, model, mediators)
        if self.sign == "check":
            patching = EdgePatching(model, pairs, Edges(), self.batch_size)
            ranked = by_edge(scores, patching.graph, share=False)
            told = check_sign(ranked, lambda masks: track(patching(masks), 2 * len(SHARES), "telling the sign"))
            scores = told.apply(scores)
            origin = replace(
                origin,
                positive_in_file=told.sign,
                highest=told.highest,
                lowest=told.lowest,
                checked_on=len(pairs),
            )
        meta = {"method": self.path.name, "settings": _settings(origin), **circumstances(model, pairs, mediators)}
        return Scores(scores.values.float().cpu(), scores.units, {**meta, "given": asdict(origin)})

    def read(self) -> tuple[Scores, Origin]:
        """What the file holds; under `check` with its own sign, else with interpose's.

        Raises:
            SearchError: there is no such file, it is damaged or something else, or it ranks nothing.
        """
        if self.path.suffix == OURS:
            if self.sign == "hurts":
                raise SearchError(f"{self.path} is a file of interpose, where positive always helps. Leave --sign out.")
            scores, form = Scores.load(self.path), "interpose"
        else:
            # Under `check` they are turned once it is known.
            found = read_mib(self.path, "hurts" if self.sign == "hurts" else "helps")
            scores = replace(found.scores, meta={**found.scores.meta, "stream": {"width": found.width}})
            form = "MIB circuit track"
        if not bool(scores.values.isfinite().all()):
            unit = scores.units[int((~scores.values.isfinite()).nonzero()[0])]
            raise SearchError(f"{self.path}: the score of {unit} is {scores[unit]}. Expected finite numbers.")
        if bool((scores.values == scores.values[0]).all()):
            raise SearchError(
                f"{self.path} gives the same score to all of its {sketch(scores.units)}, so there is nothing to rank. "
                "Of files of the MIB circuit track, the scores of edges are read, not those of nodes or neurons."
            )
        said = (scores.meta[key] for key in ("method", "task", "model") if key in scores.meta)
        sign = "hurts" if self.sign == "hurts" else "helps"
        return scores, Origin(self.path.name, digest(self.path), form, ", ".join(map(str, said)), self.sign, sign)


def digest(path: Path) -> str:
    """The sha256 of a file's bytes, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def default_sign(path: Path) -> Way:
    """How the sign of a file is settled unless told: by a check, except in files of interpose, which all have one."""
    return "helps" if path.suffix == OURS else "check"


def export_mib(path: Path, scores: Scores) -> Path:
    """Write scores that `interpose.benchmark.job.search` gave as a file of the MIB circuit track.

    Where nodes were scored, every edge has the score of the node that it leaves.

    Args:
        path: where to, ending in `.json` or `.pt`.
        scores: of edges or of nodes.

    Raises:
        SearchError: the scores do not say of what stream they are, as those of earlier versions; or see `write_mib`.
    """
    stream = scores.meta.get("stream")
    if stream is None:
        raise SearchError(
            f"{path.name} cannot be written: these scores were made before interpose noted the width of the stream, "
            "which MIB's format needs. Delete the cell and run it again."
        )
    graph = StreamGraph(stream["layers"], stream["heads"], parallel=stream["parallel"])
    return write_mib(path, by_edge(scores, graph, share=False), stream["width"])


def _settings(origin: Origin) -> dict[str, str | float]:
    """What a report shows: of what is known, the origin."""
    made: dict[str, str | float] = {"sha256": origin.sha256, "format": origin.format}
    if origin.found_by:
        made["found_by"] = origin.found_by
    made |= {"sign": origin.sign, "positive_in_file": origin.positive_in_file}
    if origin.highest is not None and origin.lowest is not None:
        made |= {"metric_of_highest": round(origin.highest, 4), "metric_of_lowest": round(origin.lowest, 4)}
    return made


def _check_fits(name: str, scores: Scores, model: Model, mediators: Mediator) -> None:
    graph, width, units = Edges().graph(model), model.sizes().width, scores.units
    if of_nodes(scores, graph):
        if isinstance(mediators, Edges):
            raise Refused(f"{name} scores nodes, not {mediators!r}.")
    elif not isinstance(units, EdgeNames) or units.graph != graph:
        what = _said(units.graph) if isinstance(units, EdgeNames) else sketch(units)
        raise Refused(f"{name} scores {what}, but {model.info.name} has {_said(graph)}.")
    elif (of := scores.meta.get("stream", {}).get("width", width)) != width:
        raise Refused(f"{name} is of a stream of width {of}, and that of {model.info.name} is {width}.")


def _said(graph: StreamGraph) -> str:
    kind = " with grouped keys and values" if graph.grouped else ""
    kind += " whose attention and MLP run in parallel" if graph.parallel else ""
    return f"{graph.n_edges:,} edges (layers: {graph.layers}, heads: {graph.heads}){kind}"
