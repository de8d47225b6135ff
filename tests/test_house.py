"""The house itself: the lock, the Makefile, the licence, and what travels in the wheel."""

import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
LOCK = (ROOT / "requirements.lock").read_text(encoding="utf-8")
PINNED = dict(line.split("==") for line in LOCK.splitlines() if not line.startswith("#"))
TARGETS = ["help", "setup", "demo", "test", "check", "docs", "bench", "system", "lock", "clean"]


def test_the_lock_pins_every_line_and_names_no_address() -> None:
    lines = [line for line in LOCK.splitlines() if not line.startswith("#")]
    assert list(PINNED) == sorted(PINNED)
    for line in lines:
        assert re.fullmatch(r"[a-z0-9-]+==[0-9][0-9a-z.]*", line), line


def test_the_lock_holds_torch_in_place_and_brings_no_cuda() -> None:
    assert PINNED["torch"] == "2.13.0"
    assert not [name for name in PINNED if name.startswith(("nvidia", "cuda", "triton"))]


def test_the_lock_fits_every_range_of_the_project() -> None:
    declared = [
        *PROJECT["dependencies"],
        *(need for name, extra in PROJECT["optional-dependencies"].items() if name != "peers" for need in extra),
    ]
    for requirement in map(Requirement, declared):
        assert requirement.specifier.contains(PINNED[canonicalize_name(requirement.name)]), requirement


def test_the_lock_holds_no_library_that_is_only_compared_with() -> None:
    peers = [canonicalize_name(Requirement(need).name) for need in PROJECT["optional-dependencies"]["peers"]]
    assert peers and not set(peers) & set(PINNED)


def test_the_project_takes_torch_for_cuda_too() -> None:
    (torch,) = (need for need in map(Requirement, PROJECT["dependencies"]) if need.name == "torch")
    assert torch.specifier.contains("2.11.0")


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """The Makefile and its scripts, under a path with a space."""
    folder = tmp_path / "a folder with spaces"
    folder.mkdir()
    shutil.copy(ROOT / "Makefile", folder)
    shutil.copytree(ROOT / "scripts", folder / "scripts", ignore=shutil.ignore_patterns("__pycache__"))
    return folder


def make(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """Runs make without the settings of a make that may be running these tests."""
    environment = {"PATH": "/usr/local/bin:/usr/bin:/bin", "HOME": str(folder)}
    return subprocess.run(["make", *words], cwd=folder, env=environment, capture_output=True, text=True, check=False)


@pytest.mark.needs("make")
@pytest.mark.parametrize("target", TARGETS)
def test_every_target_can_be_made_under_a_path_with_a_space(target: str, checkout: Path) -> None:
    planned = make(checkout, "--dry-run", target)
    assert planned.returncode == 0, planned.stderr
    assert str(checkout) not in planned.stdout


@pytest.mark.needs("make")
def test_make_alone_lists_every_target(checkout: Path) -> None:
    shown = make(checkout).stdout
    assert re.findall(r"^  make (\w+) +\S", shown, flags=re.MULTILINE) == TARGETS


@pytest.mark.needs("make")
def test_the_main_job_and_the_tests_set_themselves_up(checkout: Path) -> None:
    demo = make(checkout, "--dry-run", "demo").stdout
    assert demo.splitlines() == ["sh scripts/setup.sh", ".venv/bin/interpose locate ioi --out out/demo"]
    test = make(checkout, "--dry-run", "test").stdout.splitlines()
    assert test[0] == "sh scripts/setup.sh"
    assert [line.split()[0] for line in test[1:-1]] == [
        *[".venv/bin/ruff"] * 2,
        ".venv/bin/lint-imports",
        ".venv/bin/pyright",
        ".venv/bin/mkdocs",
    ]
    assert test[-1] == ".venv/bin/python -m pytest -n 2 --dist loadfile"


@pytest.mark.needs("make")
def test_clean_removes_what_was_made_and_keeps_results(checkout: Path) -> None:
    for name in (".venv/bin", ".venv-peers/bin", "site", "src/__pycache__", "out/demo"):
        (checkout / name).mkdir(parents=True)
    assert make(checkout, "clean").returncode == 0
    assert sorted(path.name for path in checkout.iterdir()) == ["Makefile", "out", "scripts", "src"]
    assert not (checkout / "src" / "__pycache__").exists()


def test_continuous_integration_makes_the_system_first_and_lets_nothing_be_skipped() -> None:
    script = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    assert re.search(r"^set -eu$.*^make system\nINTERPOSE_REQUIRE_ALL=1 make test$", script, re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize(("require", "outcome"), [("0", "skipped"), ("1", "error")])
def test_a_test_that_lacks_what_it_needs_is_skipped_by_name_or_fails(
    require: str, outcome: str, tmp_path: Path
) -> None:
    shutil.copy(ROOT / "tests" / "conftest.py", tmp_path)
    (tmp_path / "pytest.ini").write_text("[pytest]\nmarkers =\n    needs(x): x\n    needs_package(x): x\n    gpu: x\n")
    (tmp_path / "test_two.py").write_text(
        "import pytest\n"
        "@pytest.mark.needs('no-such-program')\ndef test_one(): ...\n"
        "@pytest.mark.needs_package('no_such_package')\ndef test_two(): ...\n"
        "@pytest.mark.needs('sh')\n@pytest.mark.needs_package('json')\ndef test_three(): ...\n"
    )
    command = [sys.executable, "-m", "pytest", "-rsf", "-p", "no:cacheprovider", "-p", "no:xdist"]
    environment = {"PATH": "/usr/bin:/bin", "INTERPOSE_REQUIRE_ALL": require}
    run = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert re.search(rf"\b1 passed, 2 {outcome}", run.stdout)
    assert "needs no-such-program, which is not installed: run `make system`" in run.stdout
    assert "needs the package no_such_package, which is not installed: run `make setup`" in run.stdout


def test_the_licence_is_apache_2() -> None:
    text = (ROOT / "LICENSE").read_text(encoding="utf-8")
    assert "Apache License\n                           Version 2.0, January 2004" in text
    assert "9. Accepting Warranty or Additional Liability." in text
    assert PROJECT["license"] == "Apache-2.0"


def test_the_wheel_carries_the_data_that_the_package_reads(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    source = ROOT / "src"
    data = {
        path
        for path in source.rglob("*")
        if path.is_file() and path.suffix in {".html", ".css", ".toml", ".pyi", ".typed", ".safetensors"}
    }
    assert {str(path.relative_to(source)) for path in data | {source / "interpose" / "py.typed"}} <= names
    assert all(name.startswith(("interpose/", "interpose-")) for name in names)
