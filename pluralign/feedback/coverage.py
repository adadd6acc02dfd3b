"""How the annotators compare with a population whose margins are known, and weights that make up for the difference."""

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from difflib import get_close_matches
from typing import Literal

import numpy as np
from jaxtyping import Float
from rich.console import Group
from rich.table import Table
from rich.text import Text

from pluralign.errors import FitError, InputError
from pluralign.types import Feedback

Margins = Mapping[str, Mapping[str, float]]
HEAVY = 5.0
"""Times the mean; survey practice trims weights somewhere between 3 and 8."""


@dataclass(frozen=True)
class Population:
    """The people who should be heard, by their margins: shares of a census or a survey.

    Who the annotators are is compared with it, see `coverage`. Whether they also count by raked weights is a value
    judgement: without, every annotator counts the same; with, every category counts by its share of the population,
    and few annotators may speak for many.

    Args:
        margins: share of each category in the population, 0 to 1 with sum 1, by attribute of annotators.
        rake: whether annotators count by raked weights, see `rake`.
    """

    margins: dict[str, dict[str, float]]
    rake: bool = False
    kind: Literal["population"] = "population"

    def __post_init__(self):
        _check(self.margins)

    def weigh(self, feedback: Feedback) -> Feedback:
        """Return the feedback with its annotators weighted if so declared; its provenance tells of the population.

        Raises:
            InputError: annotators do not have one of the attributes, or cannot be raked; see `rake`.
            FitError: no weights have all the margins.
        """
        for name in self.margins:
            _values(feedback, name)
        weighed = rake(feedback, self.margins) if self.rake else feedback
        told = {"margins": self.margins, "rake": self.rake}
        return replace(weighed, provenance={**feedback.provenance, "population": told})

    @classmethod
    def of(cls, feedback: Feedback) -> "Population | None":
        """Return the population by which the feedback was weighed; None if none was declared."""
        told = feedback.provenance.get("population")
        return None if told is None else cls(told["margins"], told["rake"])


@dataclass(frozen=True)
class Category:
    """One category of one attribute.

    Attributes:
        attribute: its name.
        category: its value.
        population: share of the population; None = not declared.
        annotators: how many annotators are in it.
        share: their share of the annotators whose attribute is known.
        judgements: how many choices and grades those made.
        judged: their share of the judgements of annotators whose attribute is known.
    """

    attribute: str
    category: str
    population: float | None
    annotators: int
    share: float
    judgements: int
    judged: float


@dataclass(frozen=True)
class Weights:
    """Raked weights of annotators, the mean being 1.

    Attributes:
        lowest: smallest weight.
        highest: largest weight.
        effective: how many annotators of equal weight would tell as much, `(sum w)^2 / sum w^2` (Kish 1965).
        design_effect: by how much the weights raise the variance of a mean, `n sum w^2 / (sum w)^2` (Kish 1965).
    """

    lowest: float
    highest: float
    effective: float
    design_effect: float

    @classmethod
    def of(cls, weight: Float[np.ndarray, " annotator"]) -> "Weights":
        """Summarise weights."""
        n = effective(weight)
        return cls(float(weight.min() / weight.mean()), float(weight.max() / weight.mean()), n, len(weight) / n)


@dataclass(frozen=True)
class Coverage:
    """How the annotators compare with a population.

    Attributes:
        categories: declared ones first, then those that only annotators have.
        unknown: annotators whose attribute is not known, by attribute.
        weights: raked weights; None if there are none with these margins.
        used: whether annotators count by them.
        notes: what is missing, what raking does about it, and why it may not work; in sentences.
    """

    categories: tuple[Category, ...]
    unknown: dict[str, int]
    weights: Weights | None
    used: bool
    notes: tuple[str, ...]

    def __rich__(self) -> Group:
        """Return a table that fits a terminal of 80 columns, with the notes under it."""
        table = Table(title="Coverage of the population", title_justify="left", title_style="bold", width=78)
        for name in ("attribute", "category"):
            table.add_column(name, overflow="fold")
        for name in ("population", "annotators", "judgements"):
            table.add_column(name, justify="right", no_wrap=True)
        for c in self.categories:
            population = "not declared" if c.population is None else f"{100 * c.population:.1f} %"
            numbers = (f"{c.annotators:,} ({100 * c.share:.1f} %)", f"{c.judgements:,} ({100 * c.judged:.1f} %)")
            table.add_row(Text(c.attribute), Text(c.category or "(missing)"), population, *numbers)
        return Group(table, *(Text(f"! {note}", style="yellow") for note in self.notes))


def coverage(feedback: Feedback, margins: Margins, *, used: bool = False) -> Coverage:
    """Compare the annotators with a population.

    Args:
        feedback: whose annotators have the attributes.
        margins: share of each category in the population, by attribute: `{"gender": {"f": 0.5, "m": 0.5}}`.
        used: whether the annotators' weights are raked ones already; raking them again changes nothing.

    Raises:
        InputError: an attribute is unknown, or its shares are no shares.
    """
    _check(margins)
    people = len(feedback.annotators)
    made = np.bincount(np.concatenate([feedback.choices.annotator, feedback.grades.annotator]), minlength=people)
    categories, unknown, silent = [], {}, {}
    for name, shares in margins.items():
        values = _values(feedback, name)
        counts, judged = Counter(values), Counter()
        for value, n in zip(values, made.tolist(), strict=True):
            judged[value] += n
        if "" not in shares:
            unknown[name], silent[name] = counts.pop("", 0), judged.pop("", 0)
        known, total = max(counts.total(), 1), max(judged.total(), 1)
        categories += [
            Category(name, c, shares.get(c), counts[c], counts[c] / known, judged[c], judged[c] / total)
            for c in (*shares, *sorted(set(counts) - set(shares)))
        ]
    try:
        weights, why = Weights.of(np.asarray(rake(feedback, margins).annotators["weight"], np.float64)), None
    except (InputError, FitError) as error:
        weights, why = None, str(error)
    unknown = {name: n for name, n in unknown.items() if n}
    shares = {name: (n, silent[name]) for name, n in unknown.items()}
    equal = len(set(feedback.annotators["weight"])) == 1
    notes = (*_missing(categories, shares, people, int(made.sum())), *_weighed(weights, why, people, used, equal))
    return Coverage(tuple(categories), unknown, weights, used, notes)


def effective(weight: Float[np.ndarray, " annotator"]) -> float:
    """Return Kish's effective sample size, `(sum w)^2 / sum w^2`."""
    return float(weight.sum() ** 2 / (weight**2).sum())


def rake(feedback: Feedback, margins: Margins, *, tolerance: float = 1e-9, rounds: int = 1000) -> Feedback:
    """Return the feedback with annotators weighted so that they have the margins of a population.

    Iterative proportional fitting: for one attribute after the other, the weights of the annotators in each category
    are multiplied by (share in the population) / (share of weight), until all shares hold (Deming and Stephan 1940).
    Of all weights with these margins, the result is nearest to the old ones in Kullback-Leibler divergence. The sum of
    the weights stays. Annotators whose attribute is not known (an empty text) keep their share of the weight, and the
    margins hold among the others.

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
        index.append(_index(name, _values(feedback, name), shares, weight))
        unknown = weight[index[-1] == len(shares)].sum()
        target.append(np.array([*(share * (total - unknown) for share in shares.values()), unknown]))
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


def _values(feedback: Feedback, name: str) -> tuple[str, ...]:
    have = [c for c in feedback.annotators.column_names if c not in ("id", "weight")]
    if name not in have:
        near = get_close_matches(name, have, 1)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        raise InputError(
            f"margins name the attribute {name!r}, but annotators have {', '.join(map(repr, have)) or 'none'}.{hint} "
            "A table's columns become attributes if the source names them in `attributes`."
        )
    return feedback.attribute(name)


def _index(name: str, values: tuple[str, ...], shares: Mapping[str, float], weight: np.ndarray) -> np.ndarray:
    """Return the category of each annotator, the number of categories where it is not known."""
    place: dict[str, int] = {"": len(shares)} | {category: i for i, category in enumerate(shares)}
    strange = Counter(value for value in values if value not in place)
    if strange:
        some = ", ".join(f"{value} {n}" for value, n in strange.most_common(5))
        raise InputError(
            f"annotators have values of {name!r} that its margins do not name: {some} (margins name "
            f"{', '.join(shares)}). Give their share of the population, recode them, or leave these annotators out."
        )
    index = np.array([place[value] for value in values], np.int64)
    totals = np.bincount(index, weight, len(shares) + 1)
    empty = [c for c, t in zip(shares, totals[:-1], strict=True) if t == 0 and shares[c] > 0]
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
            hint = " They look like per cent: divide them by 100." if abs(total - 100) < 1 else ""
            raise InputError(
                f"margins of {name!r} are {dict(shares)}; shares are at least 0 and sum to 1, not {total:g}.{hint}"
            )


def _missing(
    categories: list[Category], unknown: dict[str, tuple[int, int]], people: int, judgements: int
) -> Iterator[str]:
    """Say who is not there."""
    for c in categories:
        of = f"{c.attribute} = {c.category or '(missing)'}"
        if c.population and not c.annotators:
            yield f"Nobody was asked of {of}, which is {100 * c.population:.1f} % of the population."
        elif c.population and not c.judgements:
            yield f"Nobody of {of} judged anything, which is {100 * c.population:.1f} % of the population."
        elif c.population is None:
            yield f"The share of {of} in the population is not declared."
    for name, (n, made) in unknown.items():
        part = f", who made {100 * made / judgements:.1f} % of the judgements" if judgements else ""
        yield (
            f"{name} is not known of {n:,} of {people:,} annotators{part}: shares are of the others, and raking leaves "
            "these their share of the weight, as if they were like the others."
        )


def _weighed(weights: Weights | None, why: str | None, people: int, used: bool, equal: bool) -> Iterator[str]:
    """Say who counts how much."""
    if weights is None:
        yield f"No weights make the annotators match the population: {why}"
        return
    numbers = (
        f"from {weights.lowest:.2f} to {weights.highest:.2f} (mean 1), effective sample size {weights.effective:,.1f} "
        f"of {people:,} annotators, design effect {weights.design_effect:.2f}"
    )
    if used:
        yield f"Annotators count by raked weights {numbers}."
    else:
        now = "Every annotator counts the same" if equal else "Annotators count as their source weighs them"
        yield (
            f"{now}; raked weights would go {numbers}. To use them, set `rake: true` of the population: who counts how "
            "much is a value judgement."
        )
    if weights.highest > HEAVY:
        yield f"One annotator speaks for {weights.highest:.1f} average ones: merge categories or ask more people."
