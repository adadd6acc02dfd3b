"""What a Python callable does, as a hash: other code is found before its numbers are mixed with those of this."""

import re
from functools import partial
from types import CodeType, FunctionType, MethodType
from typing import Any

import numpy as np

from pluralign import artifacts


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
        return inner([type(value).__qualname__, called, getattr(value, "__dict__", {})])
    return re.sub(" at 0x[0-9a-fA-F]+", "", repr(value))
