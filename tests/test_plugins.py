"""Methods from elsewhere: an installed package's entry point, and a file of one's own."""

import importlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from interpose import discovery
from interpose.errors import InterposeError, UsageError

METHOD = '''"""Scores by name alone.

    score(unit) = length of its name

Source: none, https://example.org.
"""

from dataclasses import dataclass
from typing import final

import torch

from interpose.methods.base import Method


@final
@dataclass(frozen=True)
class NameLength(Method):
    """The longer the name, the better.

    Attributes:
        sign: 1 or -1.
    """

    sign: int = 1

    def search(self, model, pairs, mediators):
        """One score a unit; see `Method.score`."""
        return torch.tensor([float(self.sign * len(unit)) for unit in mediators.units(model, pairs)])
'''


def install(folder: Path, points: str, **files: str) -> None:
    """What pip leaves behind: a package, and a folder that says what it brings."""
    package = folder / "a_package"
    package.mkdir()
    (package / "__init__.py").write_text("raise RuntimeError('a listing must not import this')")
    for name, text in files.items():
        (package / f"{name}.py").write_text(text)
    info = folder / "a_package-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: a-package\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[interpose.methods]\n{points}\n")


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.syspath_prepend(tmp_path)
    importlib.invalidate_caches()
    return tmp_path


def test_a_method_of_an_installed_package_is_listed_explained_and_not_imported(site: Path) -> None:
    install(site, "name-length = a_package.name_length:NameLength", name_length=METHOD)
    listed = {entry.name: entry for entry in discovery.entries("interpose.methods")}
    entry = listed["name-length"]
    assert (entry.class_name, entry.module) == ("NameLength", "a_package.name_length")
    assert entry.summary == "The longer the name, the better."
    assert entry.signature == "NameLength(sign: int = 1)"
    assert discovery.find("interpose.methods", "NameLength") == entry
    assert list(listed) == sorted(listed, key=lambda name: name.replace("-", ""))
    assert "a_package" not in sys.modules
    with pytest.raises(UsageError, match=r"Did you mean 'name-length'\? There are: .*name-length"):
        discovery.find("interpose.methods", "name-lengt")


def test_it_is_loaded_and_has_a_public_name(site: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(site, "name-length = a_package.name_length:NameLength", name_length=METHOD)
    (site / "a_package" / "__init__.py").write_text("")
    from interpose import methods

    try:
        found = discovery.load("interpose.methods", "name-length")
        assert found is methods.NameLength
        assert issubclass(found, methods.Random.__base__)
    finally:
        for name in [name for name in sys.modules if name.startswith("a_package")]:
            del sys.modules[name]


def test_the_command_line_lists_it_without_importing_it(site: Path) -> None:
    install(site, "name-length = a_package.name_length:NameLength", name_length=METHOD)
    program = f"import sys; sys.path.insert(0, {str(site)!r}); from interpose.cli.main import main; "
    program += "code = main(['methods', '--json']); assert 'torch' not in sys.modules; sys.exit(code)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert "name-length" in {row["name"] for row in json.loads(done.stdout)}


@pytest.mark.parametrize(
    ("point", "message"),
    [
        (
            "eap = a_package.eap:EAP",
            "The package a-package adds 'eap' to interpose.methods, which has one: rename it.",
        ),
        (
            "other = a_package.name_length:NameLength",
            "The package a-package adds 'other' as a_package.name_length:NameLength. Expected a file and a class of "
            "that name: other = 'a_package.other:...'.",
        ),
        (
            "gone = a_package.gone:Gone",
            "The package a-package adds 'gone' as a_package.gone:Gone, but there is no such file.",
        ),
    ],
)
def test_what_cannot_be_found_again_is_refused(site: Path, point: str, message: str) -> None:
    install(site, point, name_length=METHOD)
    (site / "a_package" / "__init__.py").write_text("")
    with pytest.raises(InterposeError) as caught:
        discovery.entries("interpose.methods")
    assert str(caught.value) == message
    sys.modules.pop("a_package", None)


def test_a_file_of_ones_own_defines_a_class_of_its_own_name_and_may_change(tmp_path: Path) -> None:
    path = tmp_path / "name_length.py"
    path.write_text(METHOD)
    assert discovery.load_file(path)().sign == 1
    path.write_text(METHOD.replace("sign: int = 1", "sign: int = -1"))
    found: Any = discovery.load_file(path)
    assert found().sign == -1
    path.write_text("x = 1 +")
    with pytest.raises(InterposeError, match=r"name_length\.py cannot be run: SyntaxError"):
        discovery.load_file(path)
    path.write_text("class NameLength:\n    x = unknown\n")
    with pytest.raises(InterposeError, match=r"name_length\.py cannot be run: NameError: name 'unknown'"):
        discovery.load_file(path)
    path.write_text("class Other: ...")
    with pytest.raises(InterposeError, match="defines nothing of its own name"):
        discovery.load_file(path)
    with pytest.raises(InterposeError, match="There is no file"):
        discovery.load_file(tmp_path / "none.py")
