"""A file in a package is an entry: found by its name, read without being imported, loaded only when asked for."""

import importlib
import itertools
import sys
from pathlib import Path

import pytest
from hypothesis import given, strategies as st

import interpose
from interpose import discovery
from interpose.errors import InterposeError, UsageError

PACKAGES = ["interpose.tasks", "interpose.mediators", "interpose.methods", "interpose.metrics", "interpose.cli"]

EAP_IG = '''"""Integrated gradients along the inputs.

The paper's address.
"""
raise RuntimeError("this file must not be imported")

class _Helper: ...

class EAPIG:
    """Edge attribution with integrated gradients.

    More about it.
    """

    kind: ClassVar[str] = "edges"
    steps: int = 5
    names: tuple[str, ...] = ()
'''


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Path:
    """An empty package on the path, with a name of its own, so that no test sees another's."""
    folder = tmp_path / f"found_{abs(hash(request.node.name))}s"
    folder.mkdir()
    (folder / "__init__.py").write_text("raise RuntimeError('nor may the package')")
    monkeypatch.syspath_prepend(tmp_path)
    importlib.invalidate_caches()
    return folder


def test_a_listing_says_what_a_file_says_and_imports_nothing(package: Path) -> None:
    (package / "eap_ig.py").write_text(EAP_IG)
    before = set(sys.modules)
    (entry,) = discovery.entries(package.name)
    assert (entry.name, entry.class_name, entry.module) == ("eap-ig", "EAPIG", f"{package.name}.eap_ig")
    assert entry.summary == "Edge attribution with integrated gradients."
    assert entry.doc == (
        "Integrated gradients along the inputs.\n\nThe paper's address.\n\n"
        "Edge attribution with integrated gradients.\n\nMore about it."
    )
    assert entry.signature == "EAPIG(steps: int = 5, names: tuple[str, ...] = ())"
    assert set(sys.modules) == before


def test_a_function_is_an_entry_and_a_file_without_class_docstring_is_summed_up_by_its_own(package: Path) -> None:
    (package / "logit_difference.py").write_text('"""How far apart."""\ndef logit_difference(a, *, b=1): return a - b')
    (entry,) = discovery.entries(package.name)
    assert (entry.name, entry.class_name, entry.summary) == ("logit-difference", "logit_difference", "How far apart.")
    assert entry.signature == "logit_difference(a, *, b=1)"


def test_machinery_is_never_an_entry_and_entries_are_in_order(package: Path) -> None:
    for stem in ("base", "main", "_private", "__init__", "zeta", "alpha", "baseline"):
        (package / f"{stem}.py").write_text(f"class {stem.strip('_').capitalize()}: ...")
    assert [entry.name for entry in discovery.entries(package.name)] == ["alpha", "baseline", "zeta"]


def test_a_package_that_does_not_exist_has_no_entries() -> None:
    assert discovery.entries("interpose.no_such_package") == ()
    with pytest.raises(UsageError, match=r"^there is no no_such_package called 'x'\. There are: none yet\.$"):
        discovery.load("interpose.no_such_package", "x")


def test_a_file_that_defines_nothing_of_its_own_name_is_refused(package: Path) -> None:
    (package / "eap_ig.py").write_text("class Wrong: ...")
    with pytest.raises(InterposeError) as caught:
        discovery.entries(package.name)
    assert str(caught.value) == (
        f"{package / 'eap_ig.py'} defines nothing of its own name: expected a class or a function called 'eapig', in "
        "any case and with any underscores. Rename one of them, or begin the file's name with an underscore."
    )


def test_an_unknown_name_is_answered_with_the_known_ones_and_the_nearest(package: Path) -> None:
    (package / "__init__.py").write_text("")
    (package / "eap_ig.py").write_text("class EAPIG: ...")
    (package / "random.py").write_text("class Random: ...")
    what = package.name.rstrip("s")
    with pytest.raises(UsageError) as caught:
        discovery.load(package.name, "eap-gi")
    message = f"there is no {what} called 'eap-gi'. Did you mean 'eap-ig'? There are: eap-ig, random."
    assert str(caught.value) == message
    with pytest.raises(AttributeError) as missing:
        discovery.attribute(package.name, "eap-gi")
    assert str(missing.value) == f"{package.name} has no 'eap-gi': {message}"


@pytest.mark.parametrize("name", ["eap-ig", "eap_ig", "EAPIG", "EAP-IG", "eapig"])
def test_an_entry_is_loaded_by_any_way_of_writing_its_name(package: Path, name: str) -> None:
    (package / "__init__.py").write_text("")
    (package / "eap_ig.py").write_text("class EAPIG: ...")
    assert discovery.load(package.name, name).__name__ == "EAPIG"
    assert discovery.find(package.name, name).name == "eap-ig"


WORDS = st.lists(st.text("abcdefghijklmnopqrstuvwxyz", min_size=1, max_size=6), min_size=1, max_size=4)
NUMBERS = itertools.count()


@given(words=WORDS, data=st.data())
def test_class_and_file_match_whatever_the_case(
    words: list[str], data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    class_name = "".join(data.draw(st.sampled_from([word.capitalize(), word.upper()])) for word in words)
    stem = "_".join(words)
    folder = tmp_path_factory.mktemp("any") / f"any_{next(NUMBERS)}"
    folder.mkdir()
    (folder / f"{stem}.py").write_text(f"class {class_name}: ...")
    sys.path.insert(0, str(folder.parent))
    importlib.invalidate_caches()
    try:
        found = [entry.class_name for entry in discovery.entries(folder.name)]
    finally:
        sys.path.remove(str(folder.parent))
    assert found == ([] if stem in ("base", "main") else [class_name])


@pytest.mark.parametrize("package_name", PACKAGES)
def test_every_file_of_interpose_is_a_good_entry(package_name: str) -> None:
    found = discovery.entries(package_name)
    folder = Path(interpose.__file__).parent / package_name.rpartition(".")[2]
    stems = {path.stem for path in folder.glob("*.py")} - {"base", "main"}
    assert {entry.module.rpartition(".")[2] for entry in found} == {stem for stem in stems if not stem.startswith("_")}
    for entry in found:
        assert discovery.load(package_name, entry.name).__name__ == entry.class_name
        assert entry.summary, f"{entry.module} has no docstring to list it by"
        assert not entry.class_name.startswith("_")


@pytest.mark.parametrize("package_name", [name for name in PACKAGES if name != "interpose.cli"])
def test_entries_are_attributes_of_their_package(package_name: str) -> None:
    package = importlib.import_module(package_name)
    for entry in discovery.entries(package_name):
        assert getattr(package, entry.class_name) is discovery.load(package_name, entry.name)
        assert entry.class_name in dir(package)
    with pytest.raises(AttributeError, match=rf"^{package_name} has no 'Nonsense': there is no .* called 'Nonsense'\."):
        _ = package.Nonsense
    assert not hasattr(package, "_private")


@pytest.mark.parametrize("first", ["attribute", "module"])
def test_a_metric_is_its_function_whoever_imported_its_file_first(first: str, monkeypatch: pytest.MonkeyPatch) -> None:
    metrics = importlib.import_module("interpose.metrics")
    for entry in discovery.entries("interpose.metrics"):
        monkeypatch.delitem(sys.modules, entry.module, raising=False)
        monkeypatch.delitem(vars(metrics), entry.class_name, raising=False)
        if first == "module":
            importlib.import_module(entry.module)
        assert callable(getattr(metrics, entry.class_name))
        assert getattr(metrics, entry.class_name) is sys.modules[entry.module].__dict__[entry.class_name]
