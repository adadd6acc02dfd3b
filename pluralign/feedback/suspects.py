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
from pluralign.feedback.cells import sorted_codes
from pluralign.types import Feedback

LEVEL = 0.05
ENOUGH = 5  # answers below which nothing is asked
SAME = 0.95  # share of one and the same answer from which an annotator is a straight-liner
COPIED, CLOSE = 0.9, 0.8  # share of equal answers from which two annotators may have copied; in a sample of them
HURRIED = 1 / 3  # of the median time of all annotators
PEERS, VOTES = 10, 10_000_000  # of a unit by whom an answer to it is foretold, at least; and of all answers together
MEETINGS = 60_000_000  # of two annotators at a unit, up to which all are counted
PRODUCTS = 10_000_000_000  # multiplications of a dense product of which the same holds
SCREENED = 10  # answers of the median annotator on some of the units by which pairs may be chosen for a closer look
SPREAD_FROM = 500_000  # pairs of annotators whose agreement tells how much people differ
CELLS = 500_000  # numbers of a block of a computation in parts


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

    Two who each always pick the same side or grade agree for that reason, and are not told again as coordinated.

    Args:
        feedback: all judgements.
        answers: `agreement.answers(feedback)`.
        shared: `a.shared()` of each of them.
    """
    people = len(feedback.annotators)
    straight = tuple(_straight(feedback).suspects())
    always = {person for suspect in straight for person in suspect.annotators}
    together = _coordinated(shared, people).suspects()
    return (
        *_careless(shared, people).suspects(),
        *_opposite(shared, people).suspects(),
        *_contradictory(answers, people).suspects(),
        *straight,
        *(pair for pair in together if not always.issuperset(pair.annotators)),
        *_hurried(feedback).suspects(),
    )


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

    Where there are many answers, b and v range over a jury of each unit: the same few of all annotators as far as they
    answered, drawn at random, so that two who are compared have more than one unit in common.
    """
    who, unit, opinion, weight = _opinions(shared, people)
    count = np.bincount(who, weight, people)
    busy = np.flatnonzero(count >= ENOUGH)
    if len(busy) < 2:
        return _nobody("careless")
    drawn = np.random.default_rng(0).permutation(people)[who]
    jury = np.argsort(unit * people + drawn)
    peers = np.bincount(unit)
    start, peers = np.cumsum(peers) - peers, np.minimum(peers, max(PEERS, VOTES // len(who)))
    seen, foretold = np.zeros(people), np.argsort(who, kind="stable")
    foretold = foretold[(count >= ENOUGH)[who[foretold]]]
    first = np.flatnonzero(np.diff(who[foretold], prepend=-1))
    block = np.cumsum(peers[unit[foretold]])[first] // CELLS  # of whole annotators
    for answers in np.split(foretold, first[1:][np.diff(block) > 0]):
        k = peers[unit[answers]]
        row = np.repeat(np.arange(len(answers)), k)
        peer = jury[np.arange(len(row)) - np.repeat(np.cumsum(k) - k - start[unit[answers]], k)]
        a, b, x = who[answers][row], who[peer], opinion[peer]
        alike = np.sqrt(weight[answers][row] * weight[peer]) * opinion[answers][row] * x
        couple, _ = sorted_codes(a, b)
        trust = 1 + np.bincount(couple, alike)[couple] - alike
        votes = np.bincount(row, np.where(a == b, 0, trust * x), len(answers))
        right = opinion[answers] * np.sign(votes.round(5))
        seen += np.bincount(who[answers], weight[answers] * right, people)
    n = count[busy]
    seen = (1 + seen[busy] / n) / 2
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
    """Ask who answers differently when asked again more often than others do.

    Honest annotators differ in this too: those who are nearly indifferent contradict themselves more often. So it is
    told only of those who are nearer to answers at random (their own answers dealt anew) than to the others, and p is
    the larger of that of Fisher's exact test (one-sided) and of the tail of a beta-binomial whose spread is that of
    all others who are not as near to answers at random. In simulated communities of 90 honest annotators and 10
    spammers on 15 to 60 pairs, 0.2 to 0.8 % of the honest are told and 54 to 72 % of those who answer at random; with
    Fisher's test alone it is up to 3 % and 67 to 89 %.

    Grades differ when they are more than a quarter of their scale apart. Only answers that stand for themselves count:
    the orders that one ranking implies are not independent.
    """
    again, differ, chance = np.zeros((3, people))
    for given in answers:
        given = given.where(given.weight == 1)
        act, _ = sorted_codes(given.unit, given.annotator)
        several = np.flatnonzero(np.bincount(act)[act] > 1)
        order = several[np.argsort(act[several], kind="stable")]
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
    usual = k[~told].sum() / max(n[~told].sum(), 1)
    over = ((k[~told] - n[~told] * usual) ** 2 - n[~told] * usual * (1 - usual)).sum()
    spread = _spread(over, (n[~told] * (n[~told] - 1)).sum() * usual * (1 - usual))
    p[told] = _beta_binomial_tail(k[told], n[told], np.clip(others[told], 1e-6, 1 - 1e-6), spread)
    low = told & (p <= LEVEL)  # of others, whose p is too large already, the exact test need not be known: it is slow
    p[low] = np.maximum(p[low], hypergeom.sf(k[low] - 1, n.sum(), k.sum(), n[low]))
    return _Asked("contradictory", who[:, None], n, k / n, others, p, told)


def _straight(feedback: Feedback) -> _Asked:
    """Ask who always picks the same side or grade, more than the others' share of that answer makes probable."""
    people, cases = len(feedback.annotators), []
    for who, value, values in _sides(feedback):
        cell, first = sorted_codes(who, value)
        person, answer, often = who[first], value[first], np.bincount(cell)
        by = np.lexsort((-answer, often, person))
        mode = by[np.flatnonzero(np.diff(person[by], append=people))]  # of each annotator, the lowest of equals
        n = np.bincount(who, minlength=people)[person[mode]]
        mode, n = mode[n >= ENOUGH], n[n >= ENOUGH]
        asked, k, rest = person[mode], often[mode], np.bincount(value)[answer[mode]]
        others = (rest - k + 1) / (len(who) - n + values)  # one more of each, so that none is impossible
        p = np.minimum(values * at_least(k, n, others), 1)  # any of the values could have been the most frequent
        told = (k / n >= SAME) & (len(who) > n)
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

    Where those are too many to be counted, pairs are chosen for a closer look by a sample of units, in which those who
    have few units in common are missed; how many pairs are asked, and their spread, are then those of a sample of
    annotators. Where not even that is possible (`crowded`), nobody is told.
    """
    met = _meetings(shared)
    asked = np.flatnonzero(np.bincount(met.who, met.weight, people) >= ENOUGH)
    if len(asked) < 2 or crowded(shared, people):
        return _nobody("coordinated", 2)
    counted = met.counted(people)
    both = met.incidence(people)
    every = np.asarray(both @ both.sum(0)) - np.asarray((both * both).sum(1))
    rows = np.random.default_rng(0).permutation(asked)
    sample = rows if counted.all() else rows[: max(100, int(len(rows) * counted.mean() / 10))]
    tests, seen, over, under, found = 0, 0, 0.0, 0.0, []
    for a, b, n, k in _in_common(both, sample, met.dense(people)):
        tests += len(n)
        if seen < SPREAD_FROM:
            some = slice(SPREAD_FROM - seen)
            rate = _usual(every, n[some], k[some], a[some], b[some])
            over += float(((k[some] - n[some] * rate) ** 2 - n[some] * rate * (1 - rate)).sum())
            under += float((n[some] * (n[some] - 1) * rate * (1 - rate)).sum())
            seen += len(rate)
        if counted.all():
            found.append(_copied(every, n, k, a, b, COPIED, 2.0))
    if not counted.all():
        tests = round(tests * len(rows) / len(sample))
        for a, b, n, k in _in_common(met.where(counted[met.unit]).incidence(people), rows, False):
            a, b, *_ = _copied(every, n, k, a, b, CLOSE, 2.5)
            for part in np.array_split(np.arange(len(a)), 1 + len(a) // 10_000):
                one, two = a[part].astype(int), b[part].astype(int)
                exact = np.asarray((both[one] * both[two]).sum(1)).astype(complex).round(3)
                found.append(_copied(every, np.real(exact), np.imag(exact), one, two, COPIED, 2.0))
    a, b, n, k, rate = np.concatenate([np.zeros((5, 0)), *found], axis=1)
    p = _beta_binomial_tail(k, n, rate, _spread(over, under))
    who = np.sort(np.stack([a, b], 1).astype(int), axis=1)
    return _Asked("coordinated", who, n, k / np.maximum(n, 1), rate, p, np.ones(len(n), bool), tests // 2)


def crowded(shared: tuple[Answers, ...], people: int) -> bool:
    """Return whether so many annotators answered so few units that it is not asked who are coordinated."""
    met = _meetings(shared)
    counted = met.counted(people)
    some = np.bincount(met.who, counted[met.unit], people)
    return not counted.all() and bool(np.median(some[np.unique(met.who)]) < SCREENED)


@dataclass(frozen=True, eq=False)
class _Meetings:
    """Who answered which unit, with which answer (cell) and which weight, of all kinds of questions together."""

    who: Int[np.ndarray, " answer"]
    unit: Int[np.ndarray, " answer"]
    cell: Int[np.ndarray, " answer"]
    weight: Float[np.ndarray, " answer"]

    def where(self, counts: np.ndarray) -> "_Meetings":
        return _Meetings(**{name: value[counts] for name, value in vars(self).items()})

    def dense(self, people: int) -> bool:
        """Return whether a dense product of the incidence is the faster one."""
        columns = int(self.unit.max(initial=0) + self.cell.max(initial=0)) + 2
        return people**2 * columns < min(PRODUCTS, 100 * float((np.bincount(self.unit) ** 2.0).sum()))

    def counted(self, people: int) -> np.ndarray:
        """Return for which units it can be counted who has them in common: all, or some at random."""
        work = np.bincount(self.unit) ** 2.0
        order = np.random.default_rng(0).permutation(len(work))
        counted = np.empty(len(work), bool)
        counted[order] = np.cumsum(work[order]) <= MEETINGS
        return counted | self.dense(people)

    def incidence(self, people: int) -> csr_array:
        """Return x, whose `x x^T` is n + ik: two have n units in common, and k answers."""
        units, root = int(self.unit.max(initial=0)) + 1, np.sqrt(self.weight)
        entries = np.concatenate([root, root * np.sqrt(1j)]).astype(np.complex64)
        column = np.concatenate([self.unit, units + self.cell])
        shape = (people, units + int(self.cell.max(initial=0)) + 1)
        return csr_array((entries, (np.concatenate([self.who, self.who]), column)), shape=shape)


def _meetings(shared: tuple[Answers, ...]) -> _Meetings:
    columns, units, cells = [(np.zeros(0, int), np.zeros(0, int), np.zeros(0, int), np.zeros(0))], 0, 0
    for given in shared:
        cell = given.unit * given.values + given.value
        columns.append((given.annotator, given.unit + units, cell + cells, given.weight))
        units += int(given.unit.max(initial=-1)) + 1
        cells += (int(given.unit.max(initial=-1)) + 1) * given.values
    return _Meetings(*map(np.concatenate, zip(*columns, strict=True)))


def _in_common(both: csr_array, rows: np.ndarray, full: bool) -> Iterator[tuple[np.ndarray, ...]]:
    """Yield annotator a, another one b, and how many units and answers both have in common, if units are enough."""
    x = both.toarray() if full else both
    by_unit = x.T if isinstance(x, np.ndarray) else x.T.tocsr()
    work = len(rows) * len(both.sum(1)) if full else int(np.diff(by_unit.indptr)[both[rows].indices].sum())  # pyright: ignore
    for some in np.array_split(rows, min(1 + work // CELLS, len(rows))):
        product = x[some] @ by_unit
        if isinstance(product, np.ndarray):
            a, b = np.nonzero(product.real > ENOUGH - 0.001)  # pyright: ignore
            value = product[a, b]
        else:
            enough = product.data.real > ENOUGH - 0.001
            a = np.repeat(np.arange(len(some)), np.diff(product.indptr))[enough]
            b, value = product.indices[enough], product.data[enough]
        other = some[a] != b
        value = value[other].astype(complex).round(3)  # whole numbers, except for rankings
        yield some[a[other]], b[other], np.real(value), np.imag(value)


def _copied(
    every: np.ndarray, n: np.ndarray, k: np.ndarray, a: np.ndarray, b: np.ndarray, share: float, deviations: float
) -> np.ndarray:
    """Return a, b, n, k and the usual share of the pairs, each once, that may have copied."""
    close = (a < b) & (k >= share * n - 0.001)
    a, b, n, k = a[close], b[close], n[close], k[close]
    rate = _usual(every, n, k, a, b)
    return np.stack([a, b, n, k, rate])[:, k - n * rate > deviations * np.sqrt(n * rate * (1 - rate))]


def _spread(over: float, under: float) -> float:
    """Return the correlation of answers of one or of two by moments, from their variance beyond a binomial one."""
    return min(max(over / under, 0.0), 0.99) if under > 0 else 0.0


def _usual(every: np.ndarray, n: np.ndarray, k: np.ndarray, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Return the larger share of equal answers that two have with all but each other; 1/2 where there is nobody."""
    shares = []
    for who in (a, b):
        left = np.real(every)[who] - n
        shares.append(np.where(left > 0.5, (np.imag(every)[who] - k) / np.maximum(left, 0.5), 0.5))
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
