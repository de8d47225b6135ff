"""The circuit sizes at which a ranking of edges is judged."""

from collections.abc import Sequence

from interpose.errors import SearchError

SIZES = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0)
"""Shares of all edges, the same for every model (MIB circuit track, https://arxiv.org/abs/2504.13151)."""


def budgets(n_edges: int, sizes: Sequence[float] = SIZES) -> tuple[int, ...]:
    """How many edges a circuit of each size may take before it is pruned: the whole part of size times edges.

    Raises:
        SearchError: the sizes are fewer than two, do not rise, or do not lie above 0 and up to 1.
    """
    rising = all(a < b for a, b in zip(sizes, sizes[1:], strict=False))
    if len(sizes) < 2 or not rising or sizes[0] <= 0 or sizes[-1] > 1:
        raise SearchError(
            f"Circuit sizes are two or more shares of all edges that rise, above 0 and up to 1, but got {tuple(sizes)}."
        )
    return tuple(int(size * n_edges) for size in sizes)
