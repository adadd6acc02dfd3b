"""Numbers as text, the same on the page, in verdicts and in the terminal."""

import math
from collections.abc import Iterable
from typing import Any

MINUS = "\N{MINUS SIGN}"
Interval = dict[str, Any]


def decimals(estimates: Iterable[Interval | None]) -> int:
    """Return how many decimals tell the ends of these intervals apart: half a width of 0.04 to 0.33 needs two."""
    widths = sorted((e["high"] - e["low"]) / 2 for e in estimates if e is not None)
    width = widths[len(widths) // 2] if widths else 0
    return 2 if width <= 0 else min(4, max(0, 1 - math.floor(math.log10(3 * width))))


def number(value: float | None, places: int | None = None, sign: bool = False) -> str:
    """Return a number in digits: `places` decimals, or three significant digits."""
    if value is None:
        return "n/a"
    if places is None:
        size = abs(value)
        if size and (size < 1e-3 or size >= 1e6):
            return f"{value:.1e}".replace("e-0", "e-").replace("e+0", "e").replace("-", MINUS)
        places = 0 if float(value).is_integer() else max(0, 2 - math.floor(math.log10(size))) if size < 100 else 0
        places = min(places, 4)
    text = f"{value:+,.{places}f}" if sign else f"{value:,.{places}f}"
    if not text.strip("+-0.,"):
        text = text.lstrip("+-")  # a zero has no sign
    return text.replace("-", MINUS)


def interval(estimate: Interval | None, places: int | None = None, sign: bool = False) -> str:
    """Return a mean with its 90 % interval."""
    if estimate is None:
        return "n/a"
    places = decimals([estimate]) if places is None else places
    mean, low, high = (number(estimate[k], places, sign) for k in ("mean", "low", "high"))
    return f"{mean} [{low}, {high}]"


def percent(value: float | None) -> str:
    """Return a share as a percentage; one that is neither none nor all never looks so."""
    if value is None:
        return "n/a"
    if 0 < value < 0.005:
        return "<1 %"
    if 0.995 < value < 1 - 1e-9:  # a sum of shares may miss 1 by rounding
        return ">99 %"
    return f"{100 * value:.0f} %"


def centre(value: Interval | float | None) -> float | None:
    """Return the mean of an estimate, or the number itself if it is known."""
    return value["mean"] if isinstance(value, dict) else value


def listed(words: Iterable[str]) -> str:
    """Return words as a list in a sentence."""
    *start, last = words
    return f"{', '.join(start)} and {last}" if start else last
