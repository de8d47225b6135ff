"""In which number type, and on which device, a network is loaded."""

from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

import torch

from interpose.errors import LoadError


@dataclass(frozen=True)
class Placement:
    """Checked wishes; None is the library's own default.

    Attributes:
        dtype: floating type of the weights, or None for the one they are stored in.
        device: one device for the whole network.
        device_map: how to spread it over devices, as transformers takes it.
    """

    dtype: torch.dtype | None = None
    device: torch.device | None = None
    device_map: Any = None


def placement(dtype: Any = None, device: Any = None, device_map: Any = None) -> Placement:
    """Check what the user asked for before anything slow is done.

    Args:
        dtype: a floating torch dtype, its name (`"bfloat16"`), `"auto"` or None.
        device: a torch device, its name or None.
        device_map: a device map of transformers (`"auto"`, a dict, ...) or None.

    Returns:
        the checked wishes.

    Raises:
        LoadError: one of them cannot be meant or cannot be met here.
    """
    if device is not None and device_map is not None:
        raise LoadError("Both device and device_map were given. Write device for one device, device_map for several.")
    if device_map is not None and find_spec("accelerate") is None:
        raise LoadError("device_map needs the package accelerate. Write `pip install accelerate`, or use device=...")
    return Placement(_dtype(dtype), _device(device), device_map)


def _dtype(wish: Any) -> torch.dtype | None:
    if wish is None or wish == "auto":
        return None
    found = getattr(torch, wish.removeprefix("torch."), None) if isinstance(wish, str) else wish
    if not isinstance(found, torch.dtype) or not found.is_floating_point:
        raise LoadError(
            f"dtype={wish!r} is no floating type. Write for example dtype='float32' or dtype=torch.bfloat16."
        )
    return found


def _device(wish: Any) -> torch.device | None:
    if wish is None:
        return None
    try:
        device = torch.device(wish)
        torch.empty(0, device=device)
    except (RuntimeError, TypeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise LoadError(
            f"device={wish!r} cannot be used here: {reason} Write device='cpu' for this machine's CPU."
        ) from error
    return device
