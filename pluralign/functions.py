"""Python functions as settings: found by the name that a config gives, and told apart by what they do.

A function that has changed is found by its hash, before its numbers are mixed with those of the old one.
"""

import re
from collections.abc import Callable
from dataclasses import fields, is_dataclass
from functools import partial
from pkgutil import resolve_name
from types import CodeType, FunctionType, MethodType
from typing import Annotated, Any

import numpy as np
from pydantic import BeforeValidator

from pluralign import artifacts


def _found(function: Any) -> Any:
    """Return the function that a config names as `module:name`."""
    if not isinstance(function, str):
        return function
    try:
        return resolve_name(function if ":" in function else f"{function}:")
    except (ImportError, AttributeError, ValueError) as error:
        raise ValueError(
            f"{function!r} names no function ({error}); write `module:name` of one that Python can import: in an "
            "installed package, or in a folder on PYTHONPATH. One made in a script or notebook is for Python only."
        ) from error


Function = Annotated[Callable[..., Any], BeforeValidator(_found)]
"""A field that takes a function, or in a config its name."""


def fingerprint(value: Any) -> str:
    """Return a hash of what a callable does, so far as its own code and what it holds tell it."""
    return artifacts.digest(_mark(value, ()))


def _mark(value: Any, above: tuple[int, ...]) -> Any:
    """Return what tells `value` apart, as JSON; `above` are the ids of the functions that it is part of."""
    if id(value) in above:
        return "itself"

    def inner(values: Any) -> list[Any]:
        return [_mark(v, (*above, id(value))) for v in values]

    match value:
        case CodeType():
            return [value.co_code.hex(), value.co_names, inner(value.co_consts)]
        case FunctionType():
            held = [*(value.__defaults__ or ()), *(value.__kwdefaults__ or {}).items()]
            return inner([value.__code__, held, [cell.cell_contents for cell in value.__closure__ or ()]])
        case MethodType():
            return inner([value.__func__, value.__self__])
        case partial():
            return inner([value.func, value.args, value.keywords])
        case dict():
            return inner(value.items())
        case list() | tuple():
            return inner(value)
        case set() | frozenset():
            return sorted(map(repr, value))
        case np.ndarray():
            return artifacts.digest(value)
    if told := getattr(value, "fingerprint", None):
        return str(told() if callable(told) else told)
    if callable(value) and isinstance(called := type(value).__call__, FunctionType):
        held = getattr(value, "__dict__", {})
        if is_dataclass(value):  # what it is made of, without what it has worked out and kept
            held = {f.name: getattr(value, f.name) for f in fields(value)}
        return inner([type(value).__qualname__, called, held])
    return re.sub(" at 0x[0-9a-fA-F]+", "", repr(value))
