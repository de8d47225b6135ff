"""`make setup`: finds a Python, makes the environment once, starts over when it was cut off, and says what is missing.

A stand-in project with a stand-in torch is set up for real, with pip, and without any network.
"""

import shutil
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
SYSTEM_PATH = "/usr/local/bin:/usr/bin:/bin"

BACKEND = """
import zipfile
def build_editable(folder, *_):
    with zipfile.ZipFile(f"{folder}/toy-1.0-py3-none-any.whl", "w") as wheel:
        wheel.writestr("toy-1.0.dist-info/METADATA", "Metadata-Version: 2.1\\nName: toy\\nVersion: 1.0\\n")
        wheel.writestr("toy-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n")
        wheel.writestr("toy-1.0.dist-info/RECORD", "")
    return "toy-1.0-py3-none-any.whl"
"""
PROJECT = '[build-system]\nrequires = []\nbuild-backend = "backend"\nbackend-path = ["."]\n'


def wheel(folder: Path, name: str, version: str) -> None:
    """Writes a wheel with one module of that name, which knows its version."""
    info = f"{name}-{version}.dist-info"
    folder.mkdir(exist_ok=True)
    with zipfile.ZipFile(folder / f"{name}-{version}-py3-none-any.whl", "w") as archive:
        archive.writestr(f"{name}.py", f"VERSION = {version!r}\n")
        archive.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
        archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(f"{info}/RECORD", f"{name}.py,,\n{info}/METADATA,,\n{info}/WHEEL,,\n{info}/RECORD,,\n")


def setup(folder: Path, **settings: str) -> subprocess.CompletedProcess[str]:
    """Runs the setup script there, with pip held to the wheels beside it."""
    environment = {
        "PATH": SYSTEM_PATH,
        "HOME": str(folder),
        "PYTHON": sys.executable,
        "PIP_CONFIG_FILE": "/dev/null",
        "PIP_NO_CACHE_DIR": "1",
        "PIP_NO_INDEX": "1",
        "PIP_FIND_LINKS": (folder.parent / "wheels").as_uri(),
        **settings,
    }
    command = ["sh", "scripts/setup.sh"]
    return subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=200, check=False
    )


def versions(folder: Path) -> str:
    """Which versions the modules in the environment say they are."""
    program = "import torch, other; print(torch.VERSION, other.VERSION)"
    command = [str(folder / ".venv" / "bin" / "python"), "-c", program]
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()


def write_lock(folder: Path, other: str) -> None:
    """Pins the stand-ins."""
    (folder / "requirements.lock").write_text(f"# a comment\nother=={other}\ntorch==2.13.0\n")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A stand-in checkout under a path with a space, set up once."""
    parent = tmp_path_factory.mktemp("a place with spaces")
    for name, version in (("torch", "2.13.0"), ("torch", "9.0"), ("other", "1.0"), ("other", "1.1")):
        wheel(parent / "wheels", name, version)
    folder = parent / "the checkout"
    shutil.copytree(ROOT / "scripts", folder / "scripts", ignore=shutil.ignore_patterns("__pycache__"))
    (folder / "pyproject.toml").write_text(PROJECT)
    (folder / "backend.py").write_text(BACKEND)
    write_lock(folder, "1.0")
    result = setup(folder)
    assert result.returncode == 0, result.stderr + (folder / ".venv" / "setup.log").read_text()
    return folder


def test_torch_comes_first_and_pinned_then_the_lock_then_the_project(made: Path) -> None:
    installs = [line for line in (made / ".venv" / "setup.log").read_text().splitlines() if line.startswith("$ pip")]
    assert [line.split()[-1] for line in installs] == ["torch==2.13.0", "requirements.lock", "."]
    assert versions(made) == "2.13.0 1.0"


def test_a_second_run_finds_it_made_and_says_nothing(made: Path) -> None:
    before = (made / ".venv" / "setup.log").stat().st_mtime_ns
    started = time.monotonic()
    result = setup(made)
    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")
    assert (made / ".venv" / "setup.log").stat().st_mtime_ns == before
    assert time.monotonic() - started < 10


def test_a_changed_lock_brings_the_environment_up_to_date_and_a_failure_does_not_destroy_it(made: Path) -> None:
    keep = made / ".venv" / "kept"
    keep.touch()
    write_lock(made, "7.7")
    result = setup(made)
    assert result.returncode == 1
    assert result.stderr.startswith("setup: pip could not install everything else that requirements.lock pins (")
    assert "other==7.7" in result.stderr
    assert versions(made) == "2.13.0 1.0"
    write_lock(made, "1.1")
    assert setup(made).returncode == 0
    assert versions(made) == "2.13.0 1.1"
    assert keep.exists()


def test_a_run_that_was_cut_off_is_started_over(made: Path) -> None:
    (made / ".venv" / ".interpose-unfinished").touch()
    (made / ".venv" / ".interpose-ready").unlink()
    packages = next((made / ".venv" / "lib").glob("python*/site-packages"))
    (packages / "torch.py").unlink()  # pip would believe its metadata and put nothing back
    assert setup(made).returncode == 0
    assert versions(made).startswith("2.13.0 ")
    assert not (made / ".venv" / ".interpose-unfinished").exists()


def test_a_checkout_that_was_moved_is_set_up_again(made: Path) -> None:
    moved = made.rename(made.parent / "moved")
    try:
        assert setup(moved).returncode == 0
        # Scripts in an environment hold its full path; this one works again.
        pip = subprocess.run([moved / ".venv" / "bin" / "pip", "--version"], capture_output=True, text=True, check=True)
        assert str(moved) in pip.stdout
    finally:
        moved.rename(made)


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory, made: Path) -> Path:
    """A stand-in checkout with an environment that holds nothing but pip."""
    folder = tmp_path_factory.mktemp("bare") / "checkout"
    shutil.copytree(made, folder, ignore=shutil.ignore_patterns(".venv"))
    subprocess.run([sys.executable, "-m", "venv", folder / ".venv"], check=True)
    return folder


def test_without_a_network_it_says_so_in_a_sentence(bare: Path) -> None:
    nowhere = {"PIP_NO_INDEX": "0", "PIP_INDEX_URL": "http://127.0.0.1:9/", "PIP_FIND_LINKS": "", "PIP_RETRIES": "1"}
    result = setup(bare, **nowhere)
    assert result.returncode == 1
    assert result.stderr == (
        "setup: There is no network: pip reached no package index for torch==2.13.0; connect, or set PIP_INDEX_URL to "
        "a mirror.\n"
    )


def test_without_a_build_for_this_machine_it_says_so(bare: Path) -> None:
    python = f"Python {sys.version_info.major}.{sys.version_info.minor}"
    assert setup(bare, PIP_FIND_LINKS="").stderr == (
        f"setup: pip found no torch==2.13.0: there is no network, or no build of it for {python} on this machine.\n"
    )


def test_without_room_it_says_so_before_it_touches_anything(tmp_path: Path, made: Path) -> None:
    folder = tmp_path / "full"
    shutil.copytree(made, folder, ignore=shutil.ignore_patterns(".venv"))
    script = folder / "scripts" / "environment.py"
    script.write_text(script.read_text().replace("FREE_GB = 4\n", "FREE_GB = 4_000_000\n"))
    result = setup(folder)
    assert result.returncode == 1
    assert result.stderr.startswith("setup: The disk is too full: ")
    assert result.stderr.endswith(f" GB are free at {folder} and 4000000 GB are needed.\n")
    assert not (folder / ".venv").exists()


# ------------------------------------------------------------------------------------------------- finding a Python


def stand_in(folder: Path, name: str, version: str, *, venv: bool = True) -> None:
    """A program that answers what the script asks of a Python, and prints what it is asked to run."""
    number = ", ".join(version.split("."))
    text = f"""#!/bin/sh
case "$*" in
  *print*) echo {version} ;;
  *version_info*) exec "{sys.executable}" -c "import sys; sys.exit(({number}) < (3, 11))" ;;
  *ensurepip*) exit {int(not venv)} ;;
  *) echo "{name} runs $*" ;;
esac
"""
    (folder / name).write_text(text)
    (folder / name).chmod(0o755)


def find(folder: Path, **settings: str) -> subprocess.CompletedProcess[str]:
    """Runs the script where nothing but the stand-ins and the tools it needs is on the path."""
    for tool in ("sh", "dirname"):
        (folder / tool).symlink_to(shutil.which(tool) or tool)
    environment = {"PATH": str(folder), **settings}
    command = ["sh", str(ROOT / "scripts" / "setup.sh")]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)


def test_no_python_at_all(tmp_path: Path) -> None:
    result = find(tmp_path)
    assert result.returncode == 1
    assert result.stderr == (
        "setup: Python 3.11 or newer was not found; install one, or name it with: make PYTHON=/path/to/python\n"
    )


def test_a_python_that_is_too_old(tmp_path: Path) -> None:
    stand_in(tmp_path, "python3", "3.9")
    result = find(tmp_path)
    assert result.returncode == 1
    assert result.stderr == (
        "setup: Python 3.11 or newer was not found, only python3, which is Python 3.9; install one, or name it with: "
        "make PYTHON=/path/to/python\n"
    )


def test_a_python_without_venv(tmp_path: Path) -> None:
    stand_in(tmp_path, "python3", "3.12", venv=False)
    result = find(tmp_path)
    assert result.returncode == 1
    assert result.stderr == (
        "setup: python3 is Python 3.12 but lacks the venv module; install it (on Debian and Ubuntu: apt-get install "
        "python3.12-venv).\n"
    )


def test_names_that_are_no_python_and_pythons_that_will_not_do_are_passed_over(tmp_path: Path) -> None:
    (tmp_path / "python3.11").write_text("#!/bin/sh\necho 'this version is not installed' >&2\nexit 127\n")
    (tmp_path / "python3.11").chmod(0o755)
    stand_in(tmp_path, "python3.12", "3.12", venv=False)
    stand_in(tmp_path, "python3.13", "3.13")
    assert find(tmp_path).stdout == "python3.13 runs scripts/environment.py\n"


def test_a_python_that_was_named_goes_first(tmp_path: Path) -> None:
    stand_in(tmp_path, "python3.11", "3.11")
    other = tmp_path / "my pythons"
    other.mkdir()
    stand_in(other, "mine", "3.12")
    assert find(tmp_path, PYTHON=str(other / "mine")).stdout == "mine runs scripts/environment.py\n"
