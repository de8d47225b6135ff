"""Which way round the scores of a file are: told by running circuits, not by trust."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from interpose.errors import SearchError
from interpose.search.mib import Sign
from interpose.search.scores import Scores
from interpose.search.selection import top_n

SHARES = (0.02, 0.05, 0.1, 0.2)
"""The sizes of the circuits that are compared, as shares of all edges."""


@dataclass(frozen=True)
class SignCheck:
    """What a sign check found.

    Attributes:
        sign: what a positive score says of its edge: "helps" or "hurts".
        highest: the metric, mean over examples and sizes, of the circuits of the highest scores.
        lowest: the same of the lowest scores.
    """

    sign: Sign
    highest: float
    lowest: float

    def apply(self, scores: Scores) -> Scores:
        """The scores with interpose's own sign: positive where the edge helps."""
        return scores if self.sign == "helps" else replace(scores, values=-scores.values)


def check_sign(scores: Scores, evaluate: Callable[[Tensor], Iterable[Tensor]]) -> SignCheck:
    """Tell what a positive score means by running the circuits of the highest and of the lowest scores.

    Edges that help are those whose circuit gives the behaviour. The two circuits are of equal size, so that only the
    order counts.

    Args:
        scores: of edges, taken as they stand.
        evaluate: runs circuits, as `interpose.search.edge_patching.EdgePatching` does: takes masks [circuits, edges],
            gives the metric of each example, circuit by circuit.

    Raises:
        SearchError: both give the same metric, to within the noise of the examples, so that nothing can be told.
    """
    graph = scores.graph
    masks = torch.stack(
        [top_n(ends, int(share * len(ends))) for ends in (scores.values, -scores.values) for share in SHARES]
    )
    runs = torch.stack([run.double().cpu() for run in evaluate(masks)])
    highest, lowest = runs.view(2, len(SHARES), -1).mean(1)
    ahead = highest - lowest
    error = float(ahead.std()) / len(ahead) ** 0.5 if len(ahead) > 1 else 0.0
    if abs(float(ahead.mean())) <= 2 * error or not float(ahead.abs().max()):
        raise SearchError(
            f"The circuits of the highest and of the lowest scores of {graph.n_edges:,} edges give the same metric "
            f"({float(highest.mean()):.3g} and {float(lowest.mean()):.3g}, standard error of the difference "
            f"{error:.2g}), so the sign cannot be told. Use more pairs, or say which it is."
        )
    sign: Sign = "helps" if float(ahead.mean()) > 0 else "hurts"
    return SignCheck(sign, float(highest.mean()), float(lowest.mean()))
