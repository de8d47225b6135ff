import pytest

from interpose.benchmark.grid import SIZES, budgets
from interpose.errors import SearchError
from interpose.models.stream import StreamGraph


def test_budgets_of_gpt2_are_those_of_mib() -> None:
    assert budgets(32_491) == (32, 64, 162, 324, 649, 1_624, 3_249, 6_498, 16_245, 32_491)


def test_the_last_size_is_the_whole_model() -> None:
    assert SIZES[-1] == 1
    assert len(SIZES) == 10
    assert budgets(StreamGraph(30, 9).n_edges)[-1] == 123_211


@pytest.mark.parametrize("sizes", [(), (1.0,), (0.5, 0.2), (0.0, 1.0), (0.5, 1.1), (0.5, 0.5)])
def test_sizes_that_do_not_rise_within_the_model_are_refused(sizes: tuple[float, ...]) -> None:
    with pytest.raises(SearchError, match="shares of all edges that rise, above 0 and up to 1, but got"):
        budgets(100, sizes)
