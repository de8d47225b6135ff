"""The public surface: what `dir` promises, what the stub tells an editor, and what is there are the same."""

import ast
import importlib
import subprocess
import sys
from pathlib import Path

import pytest

import interpose

STUB = Path(str(interpose.__file__)).with_suffix(".pyi")


def stub_names() -> dict[str, str]:
    """Each name of the stub, and the module it says the name comes from."""
    found = {}
    for node in ast.parse(STUB.read_text()).body:
        if isinstance(node, ast.ImportFrom):
            for alias in node.names:
                assert alias.asname == alias.name, "a stub exports only what is renamed to itself"
                found[alias.name] = str(node.module)
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            found[node.target.id] = "interpose"
    return found


def test_dir_the_stub_and_reality_agree() -> None:
    assert dir(interpose) == sorted(stub_names())
    assert set(interpose.__all__) == set(stub_names()) - {"__version__"}


@pytest.mark.parametrize("name", dir(interpose))
def test_every_name_is_there_and_is_what_the_stub_says(name: str) -> None:
    module = importlib.import_module(stub_names()[name])
    found = getattr(interpose, name)
    assert found is getattr(module, name, None) or found is sys.modules.get(f"interpose.{name}")
    assert name == "__version__" or found.__doc__


def test_an_unknown_name_lists_the_known_ones() -> None:
    with pytest.raises(AttributeError, match=r"interpose has no 'lod'; it has .*load"):
        _ = interpose.lod


def test_the_lines_of_the_readme_are_there() -> None:
    assert interpose.Model.__name__ == "Model"
    for path in ("tasks.IOI", "methods.EAPIG", "mediators.Edges", "errors.ShapeError"):
        package, name = path.split(".")
        assert getattr(getattr(interpose, package), name).__name__ == name


def test_importing_loads_no_torch() -> None:
    code = "import interpose; dir(interpose); interpose.errors, interpose.__version__"
    check = f"{code}; import sys; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", check], check=False).returncode == 0
    used = f"{code}; interpose.Model; import sys; sys.exit('torch' in sys.modules)"  # the check can fail
    assert subprocess.run([sys.executable, "-c", used], check=False).returncode == 1
