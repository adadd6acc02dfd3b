"""What the types check of their own fields, and how they own their arrays."""

from typing import Any

import numpy as np

from pluralign.errors import InputError

Array = np.ndarray


def check(ok: bool, message: str) -> None:
    """Raise `InputError(message)` unless `ok`."""
    if not ok:
        raise InputError(message)


def freeze(instance: Any, **arrays: tuple[Any, Any]) -> None:
    """Convert each field to an array of the stated dtype; a frozen dataclass still owns its arrays."""
    for name, (value, dtype) in arrays.items():
        object.__setattr__(instance, name, np.asarray(value, dtype))


def fill(instance: Any, n: int, **defaults: int) -> None:
    """Give columns that were left out their value for "unknown"."""
    for name, value in defaults.items():
        if getattr(instance, name) is None:
            object.__setattr__(instance, name, np.full(n, value))


def finite(name: str, value: Array) -> None:
    """Check that every entry is finite; the error names the first that is not."""
    if value.size and not np.isfinite(value).all():
        where = tuple(int(i) for i in np.argwhere(~np.isfinite(value))[0])
        raise InputError(f"{name}{list(where)} is {value[where]}; every entry must be finite.")


def simplex(name: str, value: Array) -> None:
    """Check that the last axis of `value` is a probability vector."""
    finite(name, value)
    check(bool((value >= 0).all()), f"{name} has a negative entry ({value.min():.6g}).")
    off = np.abs(value.sum(-1) - 1)
    if off.size and off.max() > 1e-6:
        row = np.unravel_index(int(off.argmax()), off.shape)
        where = f"{name}{[int(i) for i in row]}" if off.ndim else name
        raise InputError(f"{where} sums to {value.sum(-1)[row]:.8g}, not 1; divide it by its sum.")
