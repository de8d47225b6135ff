"""What every test relies on: no network, one thread, repeatable examples, and tests that say what they need."""

import importlib.util
import os
import shutil

# Before anything imports torch or transformers: no test may reach a hub, and two test processes share two cores.
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import hypothesis
import pytest

hypothesis.settings.register_profile("interpose", deadline=None, derandomize=True, max_examples=50)
hypothesis.settings.load_profile("interpose")


@pytest.fixture
def passes(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many runs went together in each pass of a sweep so far."""
    from interpose.engine.cone import Cone

    seen: list[int] = []
    stock = Cone.run

    def run(cone: Cone) -> None:
        seen.append(len(cone._members))
        stock(cone)

    monkeypatch.setattr(Cone, "run", run)
    return seen


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skips a test by name where what it needs is absent, or fails it where nothing may be absent."""
    for marker in item.iter_markers("needs"):
        (program,) = marker.args
        if shutil.which(program) is None:
            _absent(f"needs {program}, which is not installed: run `make system`")
    for marker in item.iter_markers("needs_package"):
        (package,) = marker.args
        if importlib.util.find_spec(package) is None:
            _absent(f"needs the package {package}, which is not installed: run `make setup`")
    if item.get_closest_marker("gpu") is not None:
        import torch

        if not torch.cuda.is_available():
            pytest.skip("needs a CUDA device")


def _absent(reason: str) -> None:
    if os.environ.get("INTERPOSE_REQUIRE_ALL") == "1":
        pytest.fail(f"{reason} (INTERPOSE_REQUIRE_ALL=1 allows no such skip)", pytrace=False)
    pytest.skip(reason)
