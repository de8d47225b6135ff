"""A file in a package is a registry entry: found, never listed.

Put `methods/eap_ig.py` with a class `EAPIG` into the tree and it is listed, explained and loaded as `eap-ig`; no other
file changes. The class (or function, for a metric) is the one whose name is the file's, without case and underscores.
`base.py`, `main.py` and files that begin with an underscore are never entries. Listing reads the source with `ast`.

An installed package adds methods by an entry point of the group `interpose.methods`, which names such a file:

    [project.entry-points."interpose.methods"]
    my-method = "my_package.my_method:MyMethod"
"""

import ast
import difflib
import importlib.util
import re
import sys
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from interpose.errors import InterposeError, UsageError

_OPEN = ("interpose.methods",)
"""The packages to which installed packages add."""


@dataclass(frozen=True)
class Entry:
    """What a file in a package says about itself.

    Attributes:
        name: What a person writes, such as `eap-ig`.
        class_name: The class or function that the file defines, such as `EAPIG`.
        module: Where it is imported from, such as `interpose.methods.eap_ig`.
        summary: The first line of what it says: of the definition's docstring, or else of the file's.
        doc: The file's docstring and the definition's, one after the other.
        signature: How it is called, such as `EAPIG(steps: int = 5)`.
        path: The file.
    """

    name: str
    class_name: str
    module: str
    summary: str
    doc: str
    signature: str
    path: Path


def entries(package: str) -> tuple[Entry, ...]:
    """Every entry of a package such as `interpose.methods`, in order of name; imports none of them.

    Raises:
        InterposeError: a file defines nothing of its own name, so it would never be found; or an installed package
            names one that is there already.
    """
    own, added = _files(package), _installed(package)
    for key in own.keys() & added.keys():
        raise InterposeError(f"{_from(added[key])} adds {added[key].name!r} to {package}, which has one: rename it.")
    made = {key: _entry(package, path) for key, path in own.items()}
    made |= {key: _added(point) for key, point in added.items()}
    return tuple(made[key] for key in sorted(made))


def find(package: str, name: str) -> Entry:
    """One entry; `eap-ig`, `eap_ig` and `EAPIG` all name the same one.

    Raises:
        UsageError: there is no such entry; the message lists those that exist.
    """
    path = _files(package).get(_key(name))
    if path is not None:
        return _entry(package, path)
    point = _installed(package).get(_key(name))
    if point is None:
        raise UsageError(_unknown(package, name))
    return _added(point)


def load(package: str, name: str) -> Any:
    """The class or function of one entry, imported now; raises as `find` does."""
    entry = find(package, name)
    return getattr(importlib.import_module(entry.module), entry.class_name)


def load_file(path: Path) -> Any:
    """The class or function of its own name that a file outside of any package defines; the file is run.

    Raises:
        InterposeError: there is no such file, it fails, or it defines nothing of its own name.
    """
    if not path.is_file():
        raise InterposeError(f"There is no file {path}.")
    try:
        entry = _entry.__wrapped__("interpose_file", path)  # a file of one's own may change while the program runs
    except SyntaxError as error:
        raise InterposeError(f"{path} cannot be run: SyntaxError: {error}") from error
    spec = importlib.util.spec_from_file_location(entry.module, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    # A dataclass looks its own module up while it is made.
    sys.modules[entry.module] = module
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        del sys.modules[entry.module]
        raise InterposeError(f"{path} cannot be run: {type(error).__name__}: {error}") from error
    return getattr(module, entry.class_name)


def attribute(package: str, name: str) -> Any:
    """What a package's `__getattr__` returns: the class or function of exactly this name, or AttributeError."""
    try:
        found = find(package, name)
    except UsageError as error:
        raise AttributeError(f"{package} has no {name!r}: {error}", name=name) from None
    if found.class_name != name:
        raise AttributeError(f"{package} has no {name!r}: {_unknown(package, name)}", name=name)
    return load(package, name)


def names(package: str) -> list[str]:
    """The names that a package's entries define: what its `__dir__` returns."""
    return [entry.class_name for entry in entries(package)]


def _files(package: str) -> dict[str, Path]:
    """The files that are entries, by name without underscores, in order."""
    spec = importlib.util.find_spec(package)
    folders = (spec.submodule_search_locations or ()) if spec else ()
    paths = sorted(path for folder in folders for path in Path(folder).glob("*.py"))
    return {_key(path.stem): path for path in paths if not re.match(r"_|(base|main)$", path.stem)}


def _installed(package: str) -> dict[str, Any]:
    """The entry points by which installed packages add to a package, by name; nothing of them is imported."""
    if package not in _OPEN:
        return {}
    from importlib.metadata import entry_points  # only here, so that help stays quick

    return {_key(point.name): point for point in entry_points(group=package)}


def _added(point: Any) -> Entry:
    """The entry that an entry point names.

    Raises:
        InterposeError: its file is not there, or it and the file have different names.
    """
    parent, _, stem = point.module.rpartition(".")
    path = Path(str(point.dist.locate_file(f"{point.module.replace('.', '/')}.py"))) if point.dist else Path()
    if not path.is_file():
        # Where a package is installed for work on it, its files lie elsewhere; then what is above it is imported.
        spec = importlib.util.find_spec(point.module) if importlib.util.find_spec(parent or stem) else None
        path = Path(str(spec.origin)) if spec and spec.origin else path
    if not path.is_file():
        raise InterposeError(f"{_from(point)} adds {point.name!r} as {point.value}, but there is no such file.")
    entry = _entry(parent, path)
    if _key(point.name) != _key(stem) or point.attr not in ("", entry.class_name):
        raise InterposeError(
            f"{_from(point)} adds {point.name!r} as {point.value}. Expected a file and a class of that name: "
            f"{point.name} = '{parent}.{_key(point.name)}:...'."
        )
    return entry


def _from(point: Any) -> str:
    return f"The package {point.dist.name}" if point.dist else "An installed package"


@cache
def _entry(package: str, path: Path) -> Entry:
    tree = ast.parse(path.read_text(encoding="utf-8"), filename=str(path))
    definitions = [node for node in tree.body if isinstance(node, ast.ClassDef | ast.FunctionDef)]
    node = next((node for node in definitions if _key(node.name) == _key(path.stem)), None)
    if node is None:
        raise InterposeError(
            f"{path} defines nothing of its own name: expected a class or a function called {_key(path.stem)!r}, in "
            "any case and with any underscores. Rename one of them, or begin the file's name with an underscore."
        )
    docs = [doc for doc in (ast.get_docstring(tree), ast.get_docstring(node)) if doc]
    summary = docs[-1].splitlines()[0] if docs else ""
    names = (path.stem.replace("_", "-"), node.name, f"{package}.{path.stem}".lstrip("."))
    return Entry(*names, summary, "\n\n".join(docs), _signature(node), path)


def _signature(node: ast.ClassDef | ast.FunctionDef) -> str:
    if isinstance(node, ast.FunctionDef):
        return f"{node.name}({ast.unparse(node.args)})"
    fields = [ast.unparse(field) for field in node.body if isinstance(field, ast.AnnAssign)]
    return f"{node.name}({', '.join(field for field in fields if 'ClassVar' not in field)})"


def _key(name: str) -> str:
    return name.lower().replace("_", "").replace("-", "")


def _unknown(package: str, name: str) -> str:
    known = [path.stem.replace("_", "-") for path in _files(package).values()]
    known = sorted([*known, *(point.name for point in _installed(package).values())])
    hint = "".join(f" Did you mean {near!r}?" for near in difflib.get_close_matches(name.lower(), known, n=1))
    what = "command" if package.endswith(".cli") else package.rpartition(".")[2].rstrip("s")
    return f"there is no {what} called {name!r}.{hint} There are: {', '.join(known) or 'none yet'}."
