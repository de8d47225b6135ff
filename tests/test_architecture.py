"""The tree is the architecture: which way imports go, what loads torch, and how large a file may grow."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import interpose

SOURCE = Path(interpose.__file__).parent
ROOT = SOURCE.parents[1]
FILES = sorted(SOURCE.rglob("*.py"))
PACKAGES = sorted(path.parent.name for path in SOURCE.glob("*/__init__.py"))
TORCH_FREE = ["interpose"] + [
    f"interpose.{name}"
    for name in ("errors", "discovery", "graph", "models", "wire", "loading", "cli")
    if (SOURCE / name).is_dir() or (SOURCE / f"{name}.py").exists()
]

CONTRACTS = {
    "layers": "Imports go down",
    "methods": "Methods are independent of one another",
    "place": "A method does not know where it runs",
    "torch": "Describing and sending a graph needs no torch",
    "libraries": "Model libraries are imported in loading only",
    "library": "The library never imports a study",
    "studies": "Studies are independent of one another",
}


def lint_imports(folder: Path, *options: str) -> subprocess.CompletedProcess[str]:
    """Checks the contracts in `pyproject.toml` of a folder on the package in its `src`."""
    program = "import sys; sys.path.insert(0, 'src'); from importlinter.cli import lint_imports_command as main; main()"
    command = [sys.executable, "-c", program, "--no-cache", "--no-logo", *options]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=120, check=False)


def test_every_import_contract_is_kept() -> None:
    result = lint_imports(ROOT)
    assert result.returncode == 0, result.stdout + result.stderr
    for name in CONTRACTS.values():
        assert re.search(rf"^{re.escape(name)} KEPT", result.stdout, flags=re.MULTILINE)


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the sources and the contracts, to break."""
    folder = tmp_path_factory.mktemp("copy")
    shutil.copy(ROOT / "pyproject.toml", folder)
    for path in FILES:
        target = folder / path.relative_to(ROOT)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, target)
    return folder


@pytest.mark.parametrize(
    ("contract", "files"),
    [
        ("layers", {"metrics/bad.py": "import interpose.methods"}),
        ("layers", {"tasks/bad.py": "import interpose.mediators"}),
        ("layers", {"extra/__init__.py": ""}),
        ("layers", {"report/bad.py": "import interpose.server", "server/__init__.py": ""}),
        ("methods", {"methods/bad.py": "import interpose.methods.worse", "methods/worse.py": ""}),
        ("place", {"methods/bad.py": "def run():\n    from interpose.engine import plan"}),
        ("place", {"tasks/bad.py": "import interpose.client", "client/__init__.py": ""}),
        ("torch", {"graph/bad.py": "def run():\n    import torch"}),
        ("torch", {"wire/bad.py": "import torch"}),
        ("libraries", {"tasks/bad.py": "from transformers import AutoTokenizer"}),
        ("library", {"report/bad.py": "import interpose.studies", "studies/__init__.py": ""}),
        ("studies", {"studies/a.py": "import interpose.studies.b", "studies/b.py": "", "studies/__init__.py": ""}),
    ],
    ids=lambda value: value if isinstance(value, str) else " ".join(value),
)
def test_a_wrong_import_breaks_its_contract(contract: str, files: dict[str, str], copy: Path) -> None:
    written = [copy / "src" / "interpose" / name for name in files]
    made = [path.parent for path in written if not path.parent.exists()]
    try:
        for path, text in zip(written, files.values(), strict=True):
            path.parent.mkdir(exist_ok=True)
            path.write_text(text)
        result = lint_imports(copy, "--contract", contract)
    finally:
        for path in written:
            path.unlink(missing_ok=True)
        for folder in made:
            shutil.rmtree(folder, ignore_errors=True)
    assert result.returncode == 1, result.stdout + result.stderr
    assert f"{CONTRACTS[contract]} BROKEN" in result.stdout
    culprit = list(files)[0].removesuffix("/__init__.py").removesuffix(".py").replace("/", ".")
    assert culprit in result.stdout


def loaded_after(statement: str) -> set[str]:
    """The modules that a fresh Python holds after one statement."""
    program = f"import sys\n{statement}\nprint(*sys.modules)"
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120, check=True)
    return set(run.stdout.split())


@pytest.mark.parametrize("module", TORCH_FREE)
def test_importing_what_describes_a_graph_loads_no_torch(module: str) -> None:
    assert not loaded_after(f"import {module}") & {"torch", "transformers", "safetensors", "gguf"}


def test_the_test_for_torch_can_fail() -> None:
    assert "torch" in loaded_after("import interpose, torch")


def test_reaching_for_a_name_loads_what_it_needs() -> None:
    assert "torch" in loaded_after("import interpose; interpose.Model")


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(SOURCE)))
def test_a_file_is_short_and_its_name_says_what_it_holds(path: Path) -> None:
    lines = path.read_text(encoding="utf-8").count("\n")
    assert lines <= 300, f"{path} has {lines} lines; 300 are allowed: split it along its ideas"
    vague = {"utils", "util", "helpers", "helper", "common", "misc"}
    assert not vague & {part.strip("_") for part in path.relative_to(SOURCE).with_suffix("").parts}


def test_every_package_says_what_it_is() -> None:
    for package in PACKAGES:
        assert (SOURCE / package / "__init__.py").read_text(encoding="utf-8").startswith('"""'), package


def test_the_tree_in_the_readme_is_the_tree() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8") if (ROOT / "README.md").exists() else ""
    block = re.search(r"^```\w*\n(src/interpose/?.*?)^```", readme, flags=re.MULTILINE | re.DOTALL)
    if block is None:
        pytest.skip("README.md prints no tree yet")
    printed = set(re.findall(r"^[\s│├└─]+(\w+)(?:/|\.py)\s", block.group(1), flags=re.MULTILINE))
    modules = {path.stem for path in SOURCE.glob("*.py")} - {"__init__"}
    assert printed == {*PACKAGES, *modules}
