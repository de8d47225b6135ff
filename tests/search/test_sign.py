"""A sign check runs the circuits of both ends of a ranking."""

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

from interpose.errors import SearchError
from interpose.models.stream import StreamGraph
from interpose.search import Scores
from interpose.search.sign import check_sign

GRAPH = StreamGraph(2, 3)
WORTH = torch.linspace(-1, 1, GRAPH.n_edges)
"""What each edge adds to the behaviour when it is kept; the highest are those into the logits."""


def behaviour(masks: Tensor) -> Iterator[Tensor]:
    """Eight examples, each the sum of what the kept edges are worth, and some noise."""
    noise = 0.1 * torch.randn(8, generator=torch.Generator().manual_seed(0))
    for mask in masks:
        yield (mask * WORTH).sum() + noise


@pytest.mark.parametrize(("factor", "sign"), [(1.0, "helps"), (-2.0, "hurts")])
def test_the_sign_is_that_of_the_circuit_with_the_behaviour(factor: float, sign: str) -> None:
    scores = Scores(factor * WORTH, GRAPH.edges)
    found = check_sign(scores, behaviour)
    assert found.sign == sign
    assert (found.highest > found.lowest) == (sign == "helps")
    assert torch.equal(found.apply(scores).values, abs(factor) * WORTH)


def test_where_neither_end_gives_the_behaviour_nothing_is_told() -> None:
    def nothing(masks: Tensor) -> Iterator[Tensor]:
        random = torch.Generator().manual_seed(1)
        return (torch.randn(8, generator=random) for _ in masks)

    with pytest.raises(SearchError, match=r"give the same metric \(.* so the sign cannot be told. Use more pairs"):
        check_sign(Scores(WORTH, GRAPH.edges), nothing)
    with pytest.raises(SearchError, match="so the sign cannot be told"):
        check_sign(Scores(WORTH, GRAPH.edges), lambda masks: torch.zeros(len(masks), 1))
