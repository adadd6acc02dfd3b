from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy.sparse import csr_array
from scipy.special import stdtrit

from pluralign.feedback.cells import sorted_codes
from pluralign.types import FORMS, Choices, Feedback

BLOCKS = 50
"""At most so many sets of annotators are left out, one after the other, for an interval."""
WIDE, PART = 64, 8
"""Items of a slate up to which all orders of two of them are told; and of its parts, on average, if it has more."""
BEST_OF, CORRECTION, DEMONSTRATION = (FORMS.index(name) for name in ("best-of", "correction", "demonstration"))
Distance = Callable[[Float[np.ndarray, " value"]], Float[np.ndarray, "value value"]]


def nominal(counts: Float[np.ndarray, " value"]) -> Float[np.ndarray, "value value"]:
    """Return the distance of two values without order: `d(c, k) = [c != k]`."""
    return 1 - np.eye(len(counts))


def ordinal(counts: Float[np.ndarray, " value"]) -> Float[np.ndarray, "value value"]:
    """Return the distance of two ranks: `d(c, k) = (sum_{g = c..k} n_g - (n_c + n_k) / 2)^2`."""
    middle = np.cumsum(counts) - counts / 2
    return (middle[:, None] - middle) ** 2


@dataclass(frozen=True, eq=False)
class Answers:
    """What annotators said to questions of one kind, such as "which of these two is more helpful?".

    Attributes:
        objective: what was asked.
        form: one of `FORMS`, or the name of a scale.
        distance: of two values: `nominal` for orders, labels, approvals and votes (to pass is no middle opinion),
            `ordinal` for ratings.
        values: how many different values there can be.
        mirrored: whether units are pairs of items, with the values 0 = the one with the higher index is better,
            1 = tie, 2 = the one with the lower index is better. A pair can be seen from either item.
        unit: what was asked about: an item, or a pair of items; dense from 0.
        annotator: index of who answered.
        value: the answer.
        weight: how many independent answers it is worth: a ranking of k items implies k (k - 1) / 2 orders of pairs,
            which together count as k - 1; a best of k implies k - 1 of them, which together count as 1. Of slates of
            more than 64 items only some orders are told, which together count the same.
    """

    objective: str
    form: str
    distance: Distance
    values: int
    mirrored: bool
    unit: Int[np.ndarray, " answer"]
    annotator: Int[np.ndarray, " answer"]
    value: Int[np.ndarray, " answer"]
    weight: Float[np.ndarray, " answer"]

    def where(self, counts: Bool[np.ndarray, " answer"] | Int[np.ndarray, " answer"]) -> "Answers":
        """Return those answers; units are numbered anew."""
        unit, _ = sorted_codes(self.unit[counts])
        rows = {name: getattr(self, name)[counts] for name in ("annotator", "value", "weight")}
        return replace(self, unit=unit, **rows)

    def shared(self) -> "Answers":
        """Return each annotator's first answer (in the order of the data) on each unit that several answered."""
        _, first = sorted_codes(self.unit, self.annotator)
        return self.where(first[np.bincount(self.unit[first])[self.unit[first]] > 1])

    def counts(self) -> csr_array:
        """Return how often each unit got each value, `[unit value]`."""
        shape = (int(self.unit.max(initial=-1)) + 1, self.values)
        return csr_array((np.ones(len(self.unit)), (self.unit, self.value)), shape=shape)


@dataclass(frozen=True)
class Agreement:
    """Krippendorff's alpha of one kind of question; 1 = all agree, 0 = as by chance; None = cannot be computed.

    Attributes:
        objective: what was asked.
        form: one of `FORMS`, or the name of a scale.
        distance: name of the distance of two answers.
        units: pairs or items that several annotators answered.
        annotators: who answered those.
        alpha: the coefficient.
        interval: its 90 % interval.
    """

    objective: str
    form: str
    distance: str
    units: int
    annotators: int
    alpha: float | None
    interval: tuple[float, float] | None


def answers(feedback: Feedback) -> tuple[Answers, ...]:
    """Return all answers by objective and form or scale; a slate of several items answers about its pairs."""
    return (*_of_choices(feedback), *_of_grades(feedback))


def agreement(given: Answers) -> Agreement:
    """Return Krippendorff's alpha, the agreement of annotators beyond chance.

        o_ck = sum_unit n_uc (n_uk - [c = k]) / (m_u - 1),   n_c = sum_k o_ck,   n = sum_c n_c
        alpha = 1 - (n - 1) sum_ck o_ck d_ck / sum_ck n_c n_k d_ck

    with `n_uc` of the `m_u` annotators of a unit giving the value c (Krippendorff 2011, "Computing Krippendorff's
    alpha-reliability"). Where units are pairs of items, each is counted as seen from both items, so that alpha does
    not depend on how items are numbered.
    The interval is the jackknife over annotators, or over 50 random sets of annotators where there are more.
    """
    given = given.shared()
    who = np.flatnonzero(np.bincount(given.annotator))
    facts = (given.objective, given.form, given.distance.__name__, int(given.unit.max(initial=-1)) + 1, len(who))
    counts = given.counts()
    whole = _coincidences(counts)
    alpha = _alpha(whole, given)
    if alpha is None:
        return Agreement(*facts, None, None)
    blocks = min(len(who), BLOCKS)
    block = np.random.default_rng(0).permutation(len(who))[np.searchsorted(who, given.annotator)] % blocks
    without = [_alpha(whole - _change(given, counts, block == b), given) for b in range(blocks)]
    known = np.array([a for a in without if a is not None])
    deviation = np.sqrt((blocks - 1) * known.var()) if len(known) == blocks else 0.0
    if deviation == 0:  # nothing varies, or nothing is left without some annotator: no measure of uncertainty
        return Agreement(*facts, alpha, None)
    half = float(stdtrit(blocks - 1, 0.95) * deviation)
    return Agreement(*facts, alpha, (alpha - half, min(1.0, alpha + half)))


def _coincidences(counts: csr_array | np.ndarray) -> Float[np.ndarray, "value value"]:
    m = np.asarray(counts.sum(1))
    weighted = counts * np.where(m > 1, 1 / np.maximum(m - 1, 1), 0)[:, None]
    together = counts.T @ weighted
    return np.asarray(together if isinstance(together, np.ndarray) else together.toarray()) - np.diag(weighted.sum(0))


def _change(given: Answers, counts: csr_array, gone: Bool[np.ndarray, " answer"]) -> Float[np.ndarray, "value value"]:
    """Return what some answers add to the coincidences."""
    unit, row = np.unique(given.unit[gone], return_inverse=True)
    own = np.bincount(row * given.values + given.value[gone], minlength=len(unit) * given.values)
    with_them = counts[unit].toarray()
    return _coincidences(with_them) - _coincidences(with_them - own.reshape(with_them.shape))


def _alpha(coincidences: Float[np.ndarray, "value value"], given: Answers) -> float | None:
    o = coincidences + coincidences[::-1, ::-1] if given.mirrored else coincidences
    n = o.sum(0)
    distance = given.distance(n)
    expected = n @ distance @ n
    return float(1 - (n.sum() - 1) * (o * distance).sum() / expected) if expected > 1e-9 else None


def _of_choices(feedback: Feedback) -> Iterator[Answers]:
    choices, items = feedback.choices, len(feedback.items)
    for o, objective in enumerate(feedback.objectives):
        for f, form in enumerate(FORMS):
            rows = (choices.objective == o) & (choices.form == f)
            if not rows.any():
                continue
            key, annotator, value, weight = _pairs(choices if rows.all() else choices.where(rows), items)
            if len(key):
                unit, _ = sorted_codes(key)
                yield Answers(objective, form, nominal, 3, True, unit, annotator, value, weight)


def _of_grades(feedback: Feedback) -> Iterator[Answers]:
    g = feedback.grades
    for o, objective in enumerate(feedback.objectives):
        for s, scale in enumerate(feedback.scales):
            asked = g.where((g.objective == o) & (g.scale == s))
            if len(asked):
                unit, _ = sorted_codes(asked.item)
                distance = ordinal if scale.form == "rating" else nominal
                rest = (asked.annotator.astype(np.int64), asked.value.astype(np.int64), np.ones(len(asked)))
                yield Answers(objective, scale.name, distance, len(scale.labels), False, unit, *rest)


def _pairs(choices: Choices, items: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Return pair, annotator, value and weight of all orders of two different items that choices imply.

    Of slates of more than 64 items, not all: see `_parts`.
    """
    slate, rank, annotator, best_of, weight = _parts(choices, items)
    rank = np.where(rank < 0, np.iinfo(np.int32).max, rank).astype(np.int64)
    # those that lost to the best, and those that a ranking left out, are not known to be equal
    lowest = np.where(best_of, 0, np.iinfo(np.int32).max - 1)
    found = []
    for i in range(slate.shape[1]):
        for j in range(i + 1, slate.shape[1]):
            one, two = slate[:, i].astype(np.int64), slate[:, j].astype(np.int64)
            told = (one >= 0) & (two >= 0) & (one != two) & (np.minimum(rank[:, i], rank[:, j]) <= lowest)
            one, two, won = one[told], two[told], np.sign(rank[told, j] - rank[told, i])
            key = np.minimum(one, two) * items + np.maximum(one, two)
            value = 1 + np.where(one < two, won, -won)
            found.append((key, annotator[told].astype(np.int64), value, weight[told]))
    columns = zip(*found, strict=True) if found else (np.zeros((1, 0), np.int64),) * 4
    return tuple(np.concatenate(column) for column in columns)  # pyright: ignore[reportReturnType]


def _parts(choices: Choices, items: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Return slates, ranks, annotators, whether it is the best of them, and the weight of the order of two items.

    A slate of k items implies k (k - 1) / 2 orders. So that their number is linear in k, slates of more than 64 items
    fall into parts, and only orders within a part are told: items are dealt at random, the same for all slates, into so
    many parts that the longest slate has 8 items in each on average. The weights of a slate's orders add up as ever.
    """
    filled = choices.slate >= 0
    shown, best_of = filled.sum(1), choices.form == BEST_OF
    if shown.max(initial=0) <= WIDE:
        weight = np.where(best_of, 1 / np.maximum(shown - 1, 1), 2 / np.maximum(shown, 1))
        return choices.slate, choices.rank, choices.annotator, best_of, weight
    row, slot = np.nonzero(filled)
    item = choices.slate[row, slot]
    dealt = np.random.default_rng(0).permutation(items) % -(-int(shown.max()) // PART)
    part, first = sorted_codes(row, np.where(shown[row] > WIDE, dealt[item], 0))
    size, order = np.bincount(part), np.argsort(part, kind="stable")
    place = np.arange(len(order)) - np.repeat(np.cumsum(size) - size, size)
    slate, rank = np.full((2, len(size), int(size.max())), -1)
    slate[part[order], place] = item[order]
    rank[part[order], place] = choices.rank[row, slot][order]
    row = row[first]
    orders = np.maximum(np.bincount(row, size * (size - 1) / 2)[row], 1)
    weight = np.where(best_of[row], 1 / np.maximum(size - 1, 1), (shown[row] - 1) / orders)
    return slate, rank, choices.annotator[row], best_of[row], weight
