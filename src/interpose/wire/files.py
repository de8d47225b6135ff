"""Tensors with a header of text, in one safetensors file: whole or not at all, and nothing in it can run."""

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

from interpose.errors import InterposeError


@final
@dataclass(frozen=True)
class Format:
    """One kind of file.

    Attributes:
        kind: what it holds, such as `scores`.
        version: of what stands in its header.
        error: what is raised where a file is not what it should be.
    """

    kind: str
    version: str
    error: type[InterposeError]

    def pack(self, tensors: Mapping[str, Any], header: Mapping[str, str]) -> bytes:
        """Tensors and texts as the bytes of a safetensors file.

        Args:
            tensors: torch tensors by name.
            header: texts by name.

        Returns:
            the bytes, for `unpack`.
        """
        from safetensors.torch import save

        held: dict[str, Any] = {}
        seen: set[int] = set()
        for name, tensor in tensors.items():
            tensor = tensor.detach().cpu().contiguous()
            memory = tensor.untyped_storage().data_ptr()
            held[name] = tensor.clone() if memory in seen else tensor  # safetensors takes no memory twice
            seen.add(memory)
        return save(held, metadata={"interpose": self.kind, "version": self.version, **header})

    def unpack(self, data: bytes, source: str) -> tuple[dict[str, Any], dict[str, str]]:
        """The tensors and texts that `pack` was given.

        Args:
            data: the bytes, from anywhere.
            source: what to call them in an error.

        Returns:
            tensors by name, and texts by name.

        Raises:
            InterposeError: `error`, where they are no such bytes.
        """
        from safetensors import SafetensorError
        from safetensors.torch import load

        try:
            tensors = load(data)
        except (SafetensorError, KeyError, ValueError) as error:  # KeyError: a number type that torch does not have
            raise self.error(
                f"{source} is not a whole safetensors file ({error}). Expected {self.kind} written by save()."
            ) from error
        # What safetensors has read is whole, and starts with the length of its header.
        header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")]).get("__metadata__", {})
        self._check(source, header)
        return tensors, header

    def write(self, path: str | os.PathLike[str], tensors: Mapping[str, Any], header: Mapping[str, str]) -> Path:
        """Write a file whole or not at all, and return its path.

        Raises:
            InterposeError: `error`, where the folder does not exist.
        """
        path = Path(path)
        if not path.parent.is_dir():
            raise self.error(f"There is no folder {path.parent} to write {path.name} into. Make it first.")
        unfinished = path.with_name(f".{path.name}.{os.getpid()}.part")
        try:
            unfinished.write_bytes(self.pack(tensors, header))
            unfinished.replace(path)
        finally:
            unfinished.unlink(missing_ok=True)
        return path

    def read(self, path: str | os.PathLike[str]) -> tuple[dict[str, Any], dict[str, str]]:
        """The tensors and texts of a file that `write` wrote.

        Raises:
            InterposeError: `error`, where there is no such file, or it is not what it should be.
        """
        path = Path(path)
        if not path.is_file():
            raise self.error(f"There is no file {path}. Write a path that save() returned.")
        return self.unpack(path.read_bytes(), str(path))

    def _check(self, source: str, header: Mapping[str, str]) -> None:
        found = header.get("interpose")
        if found is None:
            raise self.error(f"{source} was not written by interpose. Expected {self.kind} written by save().")
        if found != self.kind:
            raise self.error(f"{source} holds {found}, not {self.kind}. Load it with {found.capitalize()}.load(...).")
        if header.get("version") != self.version:
            raise self.error(
                f"{source} has format version {header.get('version')}, but this interpose reads version "
                f"{self.version}. Write it again, or install the version that wrote it."
            )
