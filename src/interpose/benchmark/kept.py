"""What a long job keeps while it runs, so that nothing computed is lost when it is cut off."""

import hashlib
import json
from collections.abc import Callable, Iterator, MutableMapping
from pathlib import Path
from typing import Any, final

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from interpose.errors import SearchError
from interpose.search.scores import Scores


@final
class Kept(MutableMapping[str, Tensor]):
    """Measurements of one job, in a folder of their own beside its results.

    Each is a file, whole or absent. A job with other settings or another model has another folder.

    Attributes:
        resumed: whether an earlier run left something.

    Args:
        out: the job's folder.
        identity: everything that the measurements depend on.
        shared: measurements that other jobs of this process have in common with this one; it gains those made here.
    """

    def __init__(self, out: Path, identity: dict[str, Any], shared: dict[str, Tensor] | None = None) -> None:
        """Open the folder, or make it."""
        self._shared = {} if shared is None else shared
        key = hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:16]
        self._folder = out / f".unfinished-{key}"
        self._folder.mkdir(parents=True, exist_ok=True)
        self.resumed = any(self._folder.iterdir())

    def scores(self, make: Callable[[], Scores]) -> Scores:
        """The scores that an earlier run kept, else made now and kept."""
        path = self._folder / "scores.safetensors"
        try:
            return Scores.load(path)
        except SearchError:
            made = make()
            made.save(path)
            return made

    def __getitem__(self, key: str) -> Tensor:
        """A kept measurement."""
        if key in self._shared:
            return self._shared[key]
        try:
            return load_file(self._path(key))["metric"]
        except (FileNotFoundError, SafetensorError, KeyError) as error:
            raise KeyError(key) from error

    def __contains__(self, key: object) -> bool:
        """Whether it was kept whole."""
        try:
            return self[str(key)] is not None
        except KeyError:
            return False

    def __setitem__(self, key: str, value: Tensor) -> None:
        """Keep a measurement."""
        draft = self._path(key).with_suffix(".draft")
        save_file({"metric": value.contiguous()}, draft)
        draft.replace(self._path(key))
        self._shared[key] = value

    def __delitem__(self, key: str) -> None:
        """Forget a measurement."""
        if key not in self:
            raise KeyError(key)
        self._shared.pop(key, None)
        self._path(key).unlink(missing_ok=True)

    def __iter__(self) -> Iterator[str]:
        """The keys of what was kept whole."""
        keys = (path.stem.removeprefix("circuit-") for path in self._folder.glob("circuit-*.safetensors"))
        return (key for key in keys if key in self)

    def __len__(self) -> int:
        """How many there are."""
        return sum(1 for _ in self)

    def clear(self) -> None:
        """Remove the folder: the job is done and its results are written."""
        for path in self._folder.iterdir():
            path.unlink()
        self._folder.rmdir()

    def _path(self, key: str) -> Path:
        return self._folder / f"circuit-{key}.safetensors"
