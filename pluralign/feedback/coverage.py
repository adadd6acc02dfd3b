from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float
from rich.table import Table
from rich.text import Text

from pluralign.errors import FitError, InputError
from pluralign.types import Feedback

Margins = Mapping[str, Mapping[str, float]]


@dataclass(frozen=True)
class Coverage:
    """How the annotators compare with a population.

    Attributes:
        population: share of each category of each attribute in the population.
        annotators: how many annotators are in it; other categories are listed too, with a population share of 0.
        share: what share of the annotators' weight that is.
        effective: how many annotators of equal weight would tell as much, `(sum w)^2 / sum w^2` (Kish 1965).
    """

    population: dict[str, dict[str, float]]
    annotators: dict[str, dict[str, int]]
    share: dict[str, dict[str, float]]
    effective: float

    def __rich__(self) -> Table:
        """Return a table that fits a terminal of 80 columns."""
        table = Table(title="Coverage", title_justify="left", title_style="bold", width=78)
        for name in ("attribute", "category", "population", "annotators", "share of weight"):
            table.add_column(name, justify="left" if name in ("attribute", "category") else "right")
        for attribute, counts in self.annotators.items():
            for category, n in counts.items():
                population = self.population[attribute].get(category, 0.0)
                numbers = (f"{100 * population:.1f} %", f"{n:,}", f"{100 * self.share[attribute][category]:.1f} %")
                table.add_row(Text(attribute), Text(category or "(missing)"), *numbers)
        table.caption = f"effective number of annotators: {self.effective:,.1f}"
        return table


def coverage(feedback: Feedback, margins: Margins) -> Coverage:
    """Compare the annotators with a population.

    Args:
        feedback: whose annotators have the attributes.
        margins: share of each category in the population, by attribute: `{"gender": {"f": 0.5, "m": 0.5}}`.

    Raises:
        InputError: an attribute is unknown, or its shares are no shares.
    """
    _check(margins)
    weight = np.asarray(feedback.annotators["weight"], np.float64)
    annotators, share = {}, {}
    for name, shares in margins.items():
        values = feedback.attribute(name)
        counts = Counter(values)
        categories = [*shares, *sorted(set(counts) - set(shares))]
        index = np.array([categories.index(value) for value in values], np.int64)
        totals = np.bincount(index, weight, len(categories)) / weight.sum()
        annotators[name] = {c: counts[c] for c in categories}
        share[name] = dict(zip(categories, totals.tolist(), strict=True))
    population = {name: dict(shares) for name, shares in margins.items()}
    return Coverage(population, annotators, share, effective(weight))


def effective(weight: Float[np.ndarray, " annotator"]) -> float:
    """Return Kish's effective sample size, `(sum w)^2 / sum w^2`."""
    return float(weight.sum() ** 2 / (weight**2).sum())


def rake(feedback: Feedback, margins: Margins, *, tolerance: float = 1e-9, rounds: int = 1000) -> Feedback:
    """Return the feedback with annotators weighted so that they have the margins of a population.

    Iterative proportional fitting: for one attribute after the other, the weights of the annotators in each category
    are multiplied by (share in the population) / (share of weight), until all shares hold (Deming and Stephan 1940).
    Of all weights with these margins, the result is nearest to the old ones in Kullback-Leibler divergence. The sum of
    the weights stays.

    Args:
        feedback: whose annotators are weighted.
        margins: share of each category in the population, by attribute: `{"gender": {"f": 0.5, "m": 0.5}}`.
        tolerance: largest difference of shares that is left, above 0.
        rounds: how often to go over all attributes at most.

    Raises:
        InputError: an attribute is unknown, its shares are no shares, a category has no annotator, or an annotator's
            category has no share.
        FitError: no weights have all the margins, or more rounds are needed.
    """
    _check(margins)
    weight = np.asarray(feedback.annotators["weight"], np.float64)
    total = weight.sum()
    index, target = [], []
    for name, shares in margins.items():
        index.append(_index(name, feedback.attribute(name), shares, weight))
        target.append(np.array(list(shares.values()), np.float64) * total)
    off = np.inf
    for _ in range(rounds):
        off = max(np.abs(_totals(i, weight, t) - t).max() for i, t in zip(index, target, strict=True)) / total
        if off <= tolerance:
            break
        for i, t in zip(index, target, strict=True):
            now = _totals(i, weight, t)
            weight = weight * (t / np.where(now > 0, now, 1))[i]
    else:
        raise FitError(
            f"after {rounds} rounds the weights are still {off:.3g} away from the margins of {', '.join(margins)}. "
            "Mostly attributes of annotators go together in a way that margins contradict: give shares of fewer or "
            "coarser categories, or of a combination of attributes as one."
        )
    people = feedback.annotators.remove_columns("weight").add_column("weight", weight.tolist())  # pyright: ignore
    return replace(feedback, annotators=people.select_columns(feedback.annotators.column_names))


def _totals(index: np.ndarray, weight: np.ndarray, target: np.ndarray) -> Float[np.ndarray, " category"]:
    return np.bincount(index, weight, len(target))


def _index(name: str, values: tuple[str, ...], shares: Mapping[str, float], weight: np.ndarray) -> np.ndarray:
    place = {category: i for i, category in enumerate(shares)}
    strange = Counter(value for value in values if value not in place)
    if strange:
        some = ", ".join(f"{value or '(missing)'} {n}" for value, n in strange.most_common(5))
        raise InputError(
            f"annotators have values of {name!r} that its margins do not name: {some}. "
            "Give their share of the population, recode them, or leave these annotators out."
        )
    index = np.array([place[value] for value in values], np.int64)
    empty = [c for c, t in zip(shares, np.bincount(index, weight, len(place)), strict=True) if t == 0 and shares[c] > 0]
    if empty:
        raise InputError(
            f"no annotator with weight has {name!r} = {empty[0]!r}, which is {100 * shares[empty[0]]:g} % of the "
            "population: weights cannot speak for people who were not asked. Merge it with another category."
        )
    return index


def _check(margins: Margins) -> None:
    if not margins:
        raise InputError("margins name no attribute.")
    for name, shares in margins.items():
        total = sum(shares.values())
        if not shares or not abs(total - 1) < 1e-6 or min(shares.values()) < 0:
            raise InputError(
                f"margins of {name!r} are {dict(shares)}; shares are at least 0 and sum to 1, not {total:g}."
            )
