"""What a saved proxy becomes when the block has run."""

from typing import Any

import torch

from interpose.errors import TraceError
from interpose.trace.lines import user_line
from interpose.trace.proxy import Proxy


def become(proxy: Any, value: Any) -> None:
    """Turn a saved proxy into what it stood for, in place, wherever it is held.

    Args:
        proxy: the stand-in.
        value: the tensor, or the structure that the model returned there.
    """
    proxy.__dict__.clear()
    if isinstance(value, bool | int | float):  # what a function of the program gave: a number to compute with
        value = torch.tensor(value, dtype=torch.float64 if isinstance(value, float) else None)
    if isinstance(value, torch.Tensor):
        proxy.__class__ = torch.Tensor
        # What torch.utils.swap_tensors does, without the checks for what a proxy cannot have.
        plain = value.detach()
        torch._C._swap_tensor_impl(proxy, plain if type(plain) is torch.Tensor else plain.as_subclass(torch.Tensor))
    else:
        vars(proxy)["value"] = value
        proxy.__class__ = KeptList if _is_tensors(value) else Kept


class Kept(Proxy):
    """A structure that a module returned, as it was and read-only: elements by index, key or attribute."""

    value: Any

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Refused: this is no tensor."""
        kept = next((arg for arg in args if isinstance(arg, Kept)), None)
        value = None if kept is None else kept.__dict__["value"]
        kind = "structure" if kept is None else type(value).__name__
        cure = ", or make one tensor of all: torch.stack([*value])" if _is_tensors(value) else ""
        held = value is None or isinstance(value, dict | list | tuple)
        cure = f"take an element of it{cure}" if held else f"`.value` is the {kind} itself"
        raise TraceError(f"{user_line()}: this is a {kind}, no tensor; {cure}.")

    def __getattribute__(self, name: str) -> Any:
        """An attribute of the structure."""
        if name.startswith("__") or name == "value":
            return object.__getattribute__(self, name)
        return getattr(object.__getattribute__(self, "__dict__")["value"], name)

    def __setattr__(self, name: str, value: Any) -> None:
        """Refused."""
        raise TraceError(f"{user_line()}: this is what the model returned, and read-only; nothing can be set in it.")

    def __setitem__(self, key: Any, value: Any) -> None:
        """Refused."""
        raise TraceError(f"{user_line()}: this is what the model returned, and read-only; nothing can be set in it.")

    def __getitem__(self, key: Any) -> Any:
        """An element of the structure."""
        return vars(self)["value"][key]

    def __len__(self) -> int:
        """How many elements it has."""
        return len(vars(self)["value"])

    def __iter__(self) -> Any:
        """Its elements."""
        return iter(vars(self)["value"])

    def __contains__(self, item: Any) -> bool:
        """Whether it has a key or an element."""
        return item in vars(self)["value"]

    def __bool__(self) -> bool:
        """As the structure itself."""
        return bool(vars(self)["value"])

    def __repr__(self, *, tensor_contents: Any = None) -> str:
        """As the structure itself."""
        return repr(vars(self)["value"])

    def __format__(self, spec: str) -> str:
        """As the structure itself."""
        return format(vars(self)["value"], spec)


class KeptList(Kept):
    """A list of tensors, one a step."""


# torch takes plain lists only, and its message says nothing but the name of what it was given.
KeptList.__name__ = "a value saved in steps (write [*value])"


def _is_tensors(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(item, torch.Tensor) for item in value)
