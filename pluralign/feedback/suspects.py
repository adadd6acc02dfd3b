"""Annotators whose answers look careless, contradictory, mechanical or copied: told with evidence, never dropped.

Every check asks of each annotator (or pair of annotators) how probable such answers are if all is well, by a binomial
or kindred tail, corrects for asking of many (Benjamini and Hochberg 1995), and where honest annotators differ more than
a binomial allows it tells only of those who are nearer to the fault than to the others.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int
from scipy.sparse import csr_array
from scipy.special import betainc, betaln, gammaln, logsumexp
from scipy.stats import hypergeom

from pluralign.feedback.agreement import CORRECTION, DEMONSTRATION, Answers, nominal
from pluralign.types import Feedback

LEVEL = 0.05
ENOUGH = 5  # answers below which nothing is asked
SAME = 0.95  # share of one and the same answer from which an annotator is a straight-liner
COPIED = 0.9  # share of equal answers from which two annotators may have copied
HURRIED = 1 / 3  # of the median time of all annotators
MOST = (
    20_000  # annotators up to which all pairs are compared; beyond, the careless and the coordinated are not looked for
)
PEERS = 30  # of a unit by whom an answer to it is foretold
SPREAD_FROM = 1_000_000  # pairs of annotators whose agreement tells how much people differ
DENSE = 0.05  # share of entries from which a dense matrix is faster
CELLS = 10_000_000  # numbers of a block of a computation in parts


@dataclass(frozen=True)
class Suspect:
    """Why an annotator, or a pair of annotators, deserves a second look.

    Attributes:
        reason: "careless" (nobody's answers foretell theirs: they answer at random, or want what nobody else wants),
            "opposite" (says the contrary of most others: answers the wrong way round, or wants the contrary),
            "contradictory" (answers differently when asked again, more often than others do),
            "straight" (always the same side or grade), "coordinated" (two who give nearly always the same answers,
            beyond what people of like mind do), "hurried" (mostly faster than a third of the usual time).
        annotators: index of the annotator, or of both.
        answers: on how many answers the numbers rest; those of a ranking of k items count as k - 1.
        observed: what was seen, as a share of `answers`.
        expected: the same share if all is well.
        p: probability of at least such a difference if all is well.
        q: smallest false discovery rate among all annotators asked at which this one is told.
    """

    reason: str
    annotators: tuple[int, ...]
    answers: float
    observed: float
    expected: float
    p: float
    q: float


@dataclass(frozen=True, eq=False)
class _Asked:
    """One question about many: who, n answers, shares observed and expected, p, and who deviates enough to be told."""

    reason: str
    who: Int[np.ndarray, "case person"]
    n: Float[np.ndarray, " case"]
    observed: Float[np.ndarray, " case"]
    expected: Float[np.ndarray, " case"]
    p: Float[np.ndarray, " case"]
    told: np.ndarray
    tests: int | None = None  # as many as there are cases, unless those least suspect were left out

    def suspects(self) -> Iterator[Suspect]:
        q = discovery_rate(self.p, len(self.p) if self.tests is None else self.tests)
        for i in np.flatnonzero((q <= LEVEL) & self.told):
            numbers = (float(column[i]) for column in (self.n, self.observed, self.expected, self.p, q))
            yield Suspect(self.reason, tuple(int(a) for a in self.who[i]), *numbers)


def _nobody(reason: str, persons: int = 1) -> _Asked:
    none = np.zeros(0)
    return _Asked(reason, np.zeros((0, persons), int), none, none, none, none, none.astype(bool))


def suspects(feedback: Feedback, answers: tuple[Answers, ...], shared: tuple[Answers, ...]) -> tuple[Suspect, ...]:
    """Return who deserves a second look, at a false discovery rate of 5 % for each reason.

    Args:
        feedback: all judgements.
        answers: `agreement.answers(feedback)`.
        shared: `a.shared()` of each of them.
    """
    people = len(feedback.annotators)
    asked = (
        _careless(shared, people),
        _opposite(shared, people),
        _contradictory(answers, people),
        _straight(feedback),
        _coordinated(shared, people),
        _hurried(feedback),
    )
    return tuple(suspect for question in asked for suspect in question.suspects())


def discovery_rate(p: Float[np.ndarray, " case"], tests: int) -> Float[np.ndarray, " case"]:
    """Return Benjamini and Hochberg's q, `q_(i) = min_{j >= i} p_(j) tests / j`; `p` may lack the largest."""
    order = np.argsort(p)
    q = np.empty(len(p))
    steps = p[order] * tests / np.arange(1, len(p) + 1)
    q[order] = np.minimum.accumulate(steps[::-1])[::-1]
    return np.minimum(q, 1)


def at_most(k: np.ndarray, n: np.ndarray, rate: np.ndarray) -> np.ndarray:
    """Return `P(X <= k)` of a binomial, continued between whole numbers; k in [0, n]."""
    inside = np.maximum(n - k, 1e-300)
    return np.where(k >= n, 1.0, betainc(inside, k + 1, 1 - rate))


def at_least(k: np.ndarray, n: np.ndarray, rate: np.ndarray) -> np.ndarray:
    """Return `P(X >= k)` of a binomial, continued between whole numbers; k in [0, n]."""
    return at_most(n - k, n, 1 - rate)


def _careless(shared: tuple[Answers, ...], people: int) -> _Asked:
    """Ask whose answers nobody else's foretell, neither those of the like-minded nor those of the contrary-minded.

    With opinions x in [-1, 1], each answer is foretold from what the same annotator said of all other units:

        s_ab = 1 + sum_{v != u} x_av x_bv,     f_au = sign sum_{b != a} s_ab x_bu

    For one who answers at random the mean of `(1 + x f) / 2` is at most 1/2. A minority foretells its own, and so does
    a majority by its contrary, so that wanting what few want is not enough to be told.
    """
    who, unit, opinion, weight = _opinions(shared, people)
    busy = np.flatnonzero(np.bincount(who, weight, people) >= ENOUGH)
    if len(busy) < 2 or people > MOST:
        return _nobody("careless")
    mixed = np.lexsort((np.random.default_rng(0).random(len(unit)), unit))  # by unit, in random order
    peers = np.bincount(unit)
    start, peers = np.cumsum(peers) - peers, np.minimum(peers, PEERS)
    shape = (people, len(peers))
    x = csr_array(((np.sqrt(weight) * opinion).astype(np.float32), (who, unit)), shape=shape)
    x = x.toarray() if x.nnz > DENSE * people * len(peers) else x  # a dense product is faster then
    score, local, by_unit = np.zeros(people), np.full(people, -1), _transposed(x)
    parts = 1 + max(len(busy) * people, 4 * PEERS * len(who)) // CELLS
    for rows in np.array_split(busy, min(parts, len(busy))):
        alike = _product(x, by_unit, rows)
        local[:], local[rows] = -1, np.arange(len(rows))
        foretold = np.flatnonzero(local[who] >= 0)
        k = peers[unit[foretold]]
        row = np.repeat(np.arange(len(foretold)), k)
        peer = mixed[np.arange(len(row)) - np.repeat(np.cumsum(k) - k - start[unit[foretold]], k)]
        answer, a, b = foretold[row], who[foretold][row], who[peer]
        trust = 1 + alike[local[a], b] - np.sqrt(weight[answer] * weight[peer]) * opinion[answer] * opinion[peer]
        votes = np.bincount(row, np.where(a == b, 0, trust * opinion[peer]), len(foretold))
        right = opinion[foretold] * np.sign(votes.round(5))
        score += np.bincount(who[foretold], weight[foretold] * right, people)
    n = np.bincount(who, weight, people)[busy]
    seen = (1 + score[busy] / n) / 2
    usual = (n @ seen - n * seen) / np.maximum(n.sum() - n, 1e-300)
    told = seen - 0.5 < (usual - 0.5) / 2
    return _Asked("careless", busy[:, None], n, seen, usual, at_most(n * seen, n, usual), told)


def _opinions(shared: tuple[Answers, ...], people: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Return annotator, unit, opinion and weight of all answers.

    The opinion of a pair is -1, 0 or 1; that of a grade is its place among the annotator's own grades, from -1 to 1.
    """
    columns, start = [(np.zeros(0, int), np.zeros(0, int), np.zeros(0), np.zeros(0))], 0
    for given in shared:
        if given.mirrored:
            opinion = given.value - 1.0
        else:
            own = _shares(given, people)
            opinion = (2 * np.cumsum(own, 1) - own - 1)[given.annotator, given.value]
        columns.append((given.annotator, given.unit + start, opinion, given.weight))
        start += int(given.unit.max(initial=-1)) + 1
    return tuple(np.concatenate(column) for column in zip(*columns, strict=True))  # pyright: ignore


def _opposite(shared: tuple[Answers, ...], people: int) -> _Asked:
    """Ask who mostly says the contrary of what most others say of the same unit.

    For one who answers at random, `(1 + x sign sum_{b != a} x_b) / 2` is 1/2 in the mean.
    """
    who, unit, opinion, weight = _opinions(shared, people)
    others = np.bincount(unit, opinion)[unit] - opinion
    score = np.bincount(who, weight * opinion * np.sign(others.round(9)), people)
    n = np.bincount(who, weight, people).astype(float)  # of nothing, bincount makes integers
    asked = np.flatnonzero(n >= ENOUGH)
    n, seen, half = n[asked], (1 + score[asked] / n[asked]) / 2, np.full(len(asked), 0.5)
    return _Asked("opposite", asked[:, None], n, seen, half, at_most(n * seen, n, half), np.ones(len(asked), bool))


def _shares(given: Answers, people: int) -> Float[np.ndarray, "annotator value"]:
    """Return how often each annotator gives each answer; a pair of items may as well be seen from the other item."""
    cell = given.annotator * given.values + given.value
    own = np.bincount(cell, given.weight, people * given.values).reshape(people, given.values)
    own = own + own[:, ::-1] if given.mirrored else own
    return own / np.maximum(own.sum(1, keepdims=True), 1e-300)


def _contradictory(answers: tuple[Answers, ...], people: int) -> _Asked:
    """Ask who answers differently when asked again more often than others do (Fisher's exact test, one-sided).

    Honest annotators differ in this too, so it is told only of those who are nearer to answers at random (their own
    answers dealt anew) than to the others. Grades differ when they are more than a quarter of their scale apart. Only
    answers that stand for themselves count: the orders that one ranking implies are not independent.
    """
    again, differ, chance = np.zeros((3, people))
    for given in answers:
        given = given.where(given.weight == 1)
        order = np.lexsort((np.arange(len(given.unit)), given.annotator, given.unit))
        unit, who, value = given.unit[order], given.annotator[order], given.value[order]
        repeat = (unit[1:] == unit[:-1]) & (who[1:] == who[:-1])
        every = np.arange(given.values)
        apart = np.abs(every[:, None] - every) > (0 if given.distance is nominal else given.values / 4)
        asked_again = np.bincount(who[1:][repeat], minlength=people)
        again += asked_again
        differ += np.bincount(who[1:][repeat], apart[value[1:], value[:-1]][repeat], people)
        own = _shares(given, people)
        chance += asked_again * ((own @ apart) * own).sum(1)
    who = np.flatnonzero(again > 0)
    n, k, chance = again[who], differ[who], chance[who] / again[who]
    others = (k.sum() - k) / np.maximum(n.sum() - n, 1)
    told, p = k / n > (others + chance) / 2, np.ones(len(who))
    p[told] = hypergeom.sf(k[told] - 1, n.sum(), k.sum(), n[told])  # slow, and needless for those who are not told
    return _Asked("contradictory", who[:, None], n, k / n, others, p, told)


def _straight(feedback: Feedback) -> _Asked:
    """Ask who always picks the same side or grade, more than the others' share of that answer makes probable."""
    people, cases = len(feedback.annotators), []
    for who, value, values in _sides(feedback):
        own = np.bincount(who * values + value, minlength=people * values).reshape(people, values)
        asked = np.flatnonzero(own.sum(1) >= ENOUGH)
        n, mode = own[asked].sum(1), own[asked].argmax(1)
        k, rest = own[asked, mode], own.sum(0)[mode]
        others = (rest - k + 1) / (own.sum() - n + values)  # one more of each, so that none is impossible
        p = np.minimum(values * at_least(k, n, others), 1)  # any of the values could have been the most frequent
        told = (k / n >= SAME) & (own.sum() > n)
        cases.append((asked[:, None], n.astype(float), k / n, others, p, told))
    if not cases:
        return _nobody("straight")
    who, n, observed, others, p, told = (np.concatenate(column) for column in zip(*cases, strict=True))
    return _Asked("straight", who, n, observed, others, p, told)


def _sides(feedback: Feedback) -> Iterator[tuple[np.ndarray, np.ndarray, int]]:
    """Return annotator, answer as it was given, and number of possible answers of each kind of question.

    The answer to a slate of k is the place of the best, or k if several are best.
    """
    c, g = feedback.choices, feedback.grades
    shown = (c.slate >= 0).sum(1)
    place = np.cumsum(c.slate >= 0, axis=1) - 1
    best = np.take_along_axis(place, (c.rank == 0).argmax(1)[:, None], 1)[:, 0]
    best = np.where((c.rank == 0).sum(1) > 1, shown, best)
    placed = (c.form != CORRECTION) & (c.form != DEMONSTRATION) & (shown > 1)
    for k in np.unique(shown[placed]):
        for o in range(len(feedback.objectives)):
            rows = placed & (shown == k) & (c.objective == o)
            yield c.annotator[rows].astype(np.int64), best[rows], int(k) + 1
    for s, scale in enumerate(feedback.scales):
        for o in range(len(feedback.objectives)):
            rows = (g.scale == s) & (g.objective == o)
            yield g.annotator[rows].astype(np.int64), g.value[rows].astype(np.int64), len(scale.labels)


def _coordinated(shared: tuple[Answers, ...], people: int) -> _Asked:
    """Ask which two annotators give nearly always the same answers.

    If all is well, the answers that a and b have in common are beta-binomial: its mean is the larger of the shares
    that a and b have in common with everybody else, its spread that of all pairs of annotators (by moments), which
    people of like mind widen. All pairs of annotators with at least five units in common are asked.
    """
    given = [a for a in shared if len(a.unit)]
    busy = sum((np.bincount(a.annotator, a.weight, people) for a in given), np.zeros(people)) >= ENOUGH
    if busy.sum() < 2 or people > MOST:
        return _nobody("coordinated", 2)
    met, alike = _incidence(given, people, by_value=False), _incidence(given, people, by_value=True)
    met_by_unit, alike_by_unit = _transposed(met), _transposed(alike)
    n_all, k_all = _in_common(met), _in_common(alike)
    rng = np.random.default_rng(0)
    tests, seen, over, under, found = 0, 0, 0.0, 0.0, []
    for rows in np.array_split(rng.permutation(np.flatnonzero(busy)), 1 + int(busy.sum()) * people // CELLS):
        n = _product(met, met_by_unit, rows)
        asked = (n > ENOUGH - 0.001) & (rows[:, None] < np.arange(people))  # every pair once, none with itself
        if not asked.any():
            continue
        tests += int(asked.sum())
        k = _product(alike, alike_by_unit, rows)
        if seen < SPREAD_FROM:
            a, b = (place[: SPREAD_FROM - seen] for place in np.nonzero(asked))
            some, equal = n[a, b].astype(float), k[a, b].astype(float)
            rate = _usual(k_all, n_all, some, equal, rows[a], b)
            over += float(((equal - some * rate) ** 2 - some * rate * (1 - rate)).sum())
            under += float((some * (some - 1) * rate * (1 - rate)).sum())
            seen += len(some)
        a, b = np.nonzero(asked & (k >= COPIED * n - 0.001))
        n, k, a = n[a, b], k[a, b], rows[a]
        n, k = n.astype(float).round(3), k.astype(float).round(3)  # whole numbers, except for rankings
        rate = _usual(k_all, n_all, n, k, a, b)
        beyond = k - n * rate > 2 * np.sqrt(n * rate * (1 - rate))
        found.append(np.stack([a, b, n, k, rate])[:, beyond])
    a, b, n, k, rate = np.concatenate([np.zeros((5, 0)), *found], axis=1)
    spread = min(max(over / under, 0.0), 0.99) if under > 0 else 0.0
    p = _beta_binomial_tail(k, n, rate, spread)
    who = np.sort(np.stack([a, b], 1).astype(int), axis=1)
    return _Asked("coordinated", who, n, k / np.maximum(n, 1), rate, p, np.ones(len(n), bool), tests)


def _incidence(given: list[Answers], people: int, by_value: bool) -> csr_array | np.ndarray:
    """Return [annotator unit] or [annotator (unit, value)], so that `x x^T` counts what two have in common."""
    columns, start = [], 0
    for a in given:
        own = a.unit * a.values + a.value if by_value else a.unit
        columns.append(own + start)
        start += (int(a.unit.max()) + 1) * (a.values if by_value else 1)
    entries = np.sqrt(np.concatenate([a.weight for a in given])).astype(np.float32)
    who = np.concatenate([a.annotator for a in given])
    x = csr_array((entries, (who, np.concatenate(columns))), shape=(people, start))
    return x.toarray() if len(entries) > DENSE * people * start else x  # a dense product is faster then


def _in_common(x: csr_array | np.ndarray) -> np.ndarray:
    """Return how much each annotator has in common with all others."""
    return np.asarray(x @ x.sum(0)) - np.asarray((x * x).sum(1))


def _transposed(x: csr_array | np.ndarray) -> csr_array | np.ndarray:
    return x.T if isinstance(x, np.ndarray) else x.T.tocsr()


def _product(x: csr_array | np.ndarray, by_unit: csr_array | np.ndarray, rows: np.ndarray) -> np.ndarray:
    both = x[rows] @ by_unit
    return both if isinstance(both, np.ndarray) else both.toarray()


def _usual(
    k_all: np.ndarray, n_all: np.ndarray, n: np.ndarray, k: np.ndarray, a: np.ndarray, b: np.ndarray
) -> np.ndarray:
    """Return the larger share of equal answers that two have with all but each other; 1/2 where there is nobody."""
    shares = []
    for who in (a, b):
        left = n_all[who] - n
        shares.append(np.where(left > 0.5, (k_all[who] - k) / np.maximum(left, 0.5), 0.5))
    return np.clip(np.maximum(*shares), 1e-6, 1 - 1e-6)


def _beta_binomial_tail(k: np.ndarray, n: np.ndarray, rate: np.ndarray, spread: float) -> np.ndarray:
    """Return `P(X >= k)` of a beta-binomial with the mean and the correlation of two answers given; n, k rounded."""
    k, n = np.floor(k), np.ceil(n)
    if spread < 1e-6:
        return at_least(k, n, rate)
    a, b = rate * (1 / spread - 1), (1 - rate) * (1 / spread - 1)
    misses = np.arange(int((n - k).max(initial=0)) + 1)
    tail = np.empty(len(k))
    for rows in np.array_split(np.arange(len(k)), 1 + len(k) * len(misses) // CELLS):
        total, x = n[rows, None], n[rows, None] - misses
        ways = gammaln(total + 1) - gammaln(misses + 1) - gammaln(np.maximum(x, 0) + 1)
        below = k[rows, None] > x
        log = ways + betaln(np.maximum(x, 0) + a[rows, None], misses + b[rows, None]) - betaln(a, b)[rows, None]
        tail[rows] = np.exp(logsumexp(np.where(below, -np.inf, log), axis=1))
    return np.minimum(tail, 1)


def _hurried(feedback: Feedback) -> _Asked:
    """Ask who mostly takes less than a third of the median time between two judgements of one sitting."""
    blocks = (feedback.choices, feedback.grades)
    who, time, sitting = (np.concatenate([getattr(b, c) for b in blocks]) for c in ("annotator", "time", "sitting"))
    known = time >= 0
    order = np.lexsort((time[known], sitting[known], who[known]))
    who, sitting, time = (column[known][order] for column in (who, sitting, time))
    same = (who[1:] == who[:-1]) & (sitting[1:] == sitting[:-1]) & (time[1:] > time[:-1])
    who, gap = who[1:][same], np.diff(time)[same]
    people = len(feedback.annotators)
    n = np.bincount(who, minlength=people).astype(float)
    middle = np.median(gap) if len(gap) else 0.0
    k = np.bincount(who, gap < HURRIED * middle, people)
    asked = np.flatnonzero(n >= ENOUGH)
    others = (k.sum() - k + 1) / (n.sum() - n + 2)
    n, k, others = n[asked], k[asked], others[asked]
    return _Asked("hurried", asked[:, None], n, k / n, others, at_least(k, n, others), k > n / 2)
