"""Linear social choice: rules that return one weight vector over features, hence a reward for every response.

Ge, Halpern, Micha, Procaccia, Shapira, Vorobeychik and Wu (2024), Axioms for AI Alignment from Human Feedback. Only
rankings that some weight vector induces can be returned. A reward that is fitted by maximum likelihood can rank one
answer above another that all prefer (theorem 3.1); these rules decide on rankings, and take the weights from them.
"""

import time
from abc import abstractmethod
from dataclasses import dataclass, replace
from typing import ClassVar, Literal

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy.special import rel_entr

from pluralign.choice.ballots import TIE, Profile, electorates
from pluralign.choice.bundle import best_response
from pluralign.choice.cone import MEND, Rows, give_up, separate, shortest
from pluralign.choice.risk import AbstractRisk
from pluralign.choice.rule import MEAN, AbstractRule
from pluralign.choice.voting import chosen, neutral
from pluralign.errors import InputError, SolveError
from pluralign.types import Choice, Linear, LinearReward, Utilities

Key = tuple[float, ...]
DENSE = (
    "linear rules return weights over features, but these utilities are dense: a table without features. Make them "
    "from a posterior and features, without item effects (`items=False`), or as `types.Linear`."
)
SURE = 1e-6  # by so much a weight vector makes comparisons true that need no solve


@dataclass(frozen=True, eq=False)
class Induced:
    """Rankings that one weight vector induces.

    Attributes:
        theta: the shortest one with `theta · (phi_x - phi_y) >= 1` wherever x is ranked right above y; 0 if there is
            nothing to rank.
        above: how many places of its prompt are above the candidate's; equal features share a place, -1 = no candidate.
        margin: least `theta · d` of these, with theta and differences d of length 1.
        lost: margins of the pairs that are ranked against their majority, the sum over all prompts.
        least: no rankings that a weight vector induces lose less; None if that was not asked.
    """

    theta: Float[np.ndarray, " feature"]
    above: Int[np.ndarray, "prompt candidate"]
    margin: float
    lost: float
    least: float | None = None


@dataclass(frozen=True, eq=False)
class Electorate:
    """What voters say of the different candidates of one prompt.

    Attributes:
        phi: features, different and in lexicographic order: nothing hangs on how candidates are numbered.
        margins: `m[a, b]`, mass that prefers a less mass that prefers b.
        first: mass that ranks each first.
        row: of the prompt.
        on: its candidates.
        place: which of the different ones each of these is.
    """

    phi: Float[np.ndarray, "point feature"]
    margins: Float[np.ndarray, "point point"]
    first: Float[np.ndarray, " point"]
    row: int
    on: Int[np.ndarray, " candidate"]
    place: Int[np.ndarray, " candidate"]

    @classmethod
    def of(
        cls, phi: Float[np.ndarray, "candidate feature"], profile: Profile, row: int, on: Int[np.ndarray, " candidate"]
    ) -> "Electorate":
        """Return what ballots on these candidates say of the different ones."""
        points, which, place = np.unique(phi + 0.0, axis=0, return_index=True, return_inverse=True)  # -0 is 0
        distinct = replace(profile, level=profile.level[which], approved=profile.approved[which])
        tops = distinct.tops(np.ones(len(which), bool))
        return cls(points, distinct.margins(), tops, row, on, place.ravel())

    def over(self, better: np.ndarray, worse: np.ndarray) -> Rows:
        """Return the rows of these comparisons."""
        difference = self.phi[better] - self.phi[worse]
        return difference / np.linalg.norm(difference, axis=-1, keepdims=True)

    @property
    def key(self) -> tuple:
        """By what prompts are sorted, so that nothing hangs on how they are numbered."""
        return self.phi.shape, self.phi.ravel().tolist()

    def unanimous(self) -> Bool[np.ndarray, "point point"]:
        """Return who is preferred to whom by everybody."""
        return self.margins >= 1 - TIE


class AbstractLinear(AbstractRule):
    """A rule that ranks the candidates of all prompts by one weight vector, seeing only how voters rank them.

    A ballot is how one voter in one posterior draw ranks a prompt's candidates, of mass `mass / draws`; only candidates
    of the same prompt are compared. Of all weight vectors that induce the rule's rankings, the one returned is of hard
    margin: the shortest with `theta · (phi_x - phi_y) >= 1` for neighbours. The reward is

        r(y) = theta · phi(y) / unit,    unit = mean_x (max_y theta · phi - min_y theta · phi),

    so the best answer of a prompt is worth 1 more than its worst, on average. The lottery is the optimum of

        max_p  mean_x sum_y (p - ref) r - beta mean_x KL(p_x || ref_x),    p ∝ ref exp(r / beta):

    `beta` is in units of that range, as where a winner is worth 1 and others 0. There are no multipliers. The
    certificate is that of this program; that rankings are induced is proved by theta itself, and every ranking that was
    passed over, by weights `y >= 0` of the comparisons with `sum y d = 0` (`cone`). Candidates with equal features
    share a place. Draws are ballots, so `risk` must be `Mean`.
    """

    cautious: ClassVar[bool] = False

    @abstractmethod
    def ranked(self, electorates: list[Electorate], places: int | None = None) -> tuple[list[list[int]], float | None]:
        """Return each prompt's order, best first, and what least margin has to be lost, if that is known.

        Args:
            electorates: of all prompts.
            places: how many places from the top are asked for; None: all.
        """

    def first(self, electorates: list[Electorate]) -> list[Bool[np.ndarray, " candidate"]]:
        """Return who is ranked first on each prompt; candidates with equal features are first together."""
        told = sorted(range(len(electorates)), key=lambda i: electorates[i].key)
        orders, _ = self.ranked([electorates[i] for i in told], places=1)
        best = dict(zip(told, orders, strict=True))
        return [e.place == best[i][0] for i, e in enumerate(electorates)]

    def rank(self, utilities: Utilities) -> Induced:
        """Return rankings that one weight vector induces.

        Raises:
            InputError: the utilities are dense: candidates have no features.
            SolveError: numerics, or the problem is too large for the rule.
        """
        several = _several(utilities)
        orders, least = self.ranked(several)
        phi = [e.phi[order] for e, order in zip(several, orders, strict=True)]
        differences = np.concatenate([x[:-1] - x[1:] for x in phi])
        above = np.full(utilities.reference.shape, -1)
        for e, order in zip(several, orders, strict=True):
            above[e.row, e.on] = np.argsort(order)[e.place]
        if not len(differences):
            return Induced(np.zeros(differences.shape[1]), above, np.inf, 0.0, least)
        size = np.linalg.norm(differences, axis=1)
        found = separate(differences / size[:, None], np.arange(0))
        if found.theta is None:
            raise SolveError(f"{self.name}: its rankings are not induced by any weight vector; please report this.")
        theta = shortest(differences, found.theta)
        lost = sum(_lost(e.margins[np.ix_(order, order)]) for e, order in zip(several, orders, strict=True))
        margin = float((differences @ theta / size).min() / np.linalg.norm(theta))
        return Induced(theta, above, margin, float(lost), least)

    def choose(self, utilities: Utilities, risk: AbstractRisk = MEAN, beta: float = 0.1) -> Choice:
        """Return the lottery of the reward `theta · phi / unit`, and that reward; see `AbstractRule.choose`.

        Raises:
            InputError: `beta` is not positive, `risk` is not `Mean`, or utilities are dense.
            SolveError: see `rank`.
        """
        clock = time.perf_counter()
        neutral(self, risk, beta)
        theta, phi, on = self.rank(utilities).theta, _factored(utilities).phi, utilities.reference > 0
        score = phi @ theta
        ranges = np.where(on, score, -np.inf).max(-1) - np.where(on, score, np.inf).min(-1)
        theta = theta / (ranges.mean() or 1.0)
        gain = phi @ theta
        gain = np.where(on, gain - (utilities.reference * gain).sum(-1, keepdims=True), 0)
        lottery, bound = best_response(utilities, gain, beta)
        value = float(((lottery * gain).sum(-1) - beta * rel_entr(lottery, utilities.reference).sum(-1)).mean())
        choice = chosen(self, utilities, risk, beta, lottery, value, bound, clock)
        return replace(choice, reward=LinearReward(theta))


@dataclass(frozen=True)
class LCPO(AbstractLinear):
    """Leximax Copeland subject to Pareto optimality (Ge et al. 2024, section 4).

    Places are filled from the top, each by the candidate with most duels won less those lost (`Copeland`) that still
    can have it: some weight vector must put it there, keep all places that are filled, and rank above each other all
    pairs on which everyone agrees. Of equal scores the larger sum of margins goes first (`Borda`), then the features'
    lexicographic order. With several prompts, the first place of every prompt is filled before any second one, and
    among prompts the highest score goes first.

    On one prompt it never ranks against what all prefer; returns the majorities' ranking if a weight vector induces it;
    puts a majority's favourite first; and a winner stays one when a voter raises it (theorem 4.3). Two groups of voters
    that agree on a ranking may not get it together (theorem C.2).
    """

    kind: Literal["lcpo"] = "lcpo"

    def ranked(self, electorates: list[Electorate], places: int | None = None) -> tuple[list[list[int]], None]:
        """Return the orders."""
        wins = [np.sign(np.where(np.abs(e.margins) > TIE, e.margins, 0)).sum(1) for e in electorates]
        return _fill(electorates, wins, _agreed(electorates), places), None


@dataclass(frozen=True)
class LeximaxPlurality(AbstractLinear):
    """Places are filled from the top by who is ranked first most often, as far as some weight vector allows.

    Ge et al. (2024), appendix C.3: of candidates that still can have a place, the one that most mass ranks first of all
    gets it. Of equal scores the larger sum of margins goes first, then the features' lexicographic order; prompts take
    turns as in `LCPO`.

    On one prompt it puts a majority's favourite first; a winner stays one when a voter raises it; and a ranking on
    which two groups of voters agree is that of both together (theorem C.6). It may rank against what all prefer.

    Args:
        pareto: rank above each other all pairs on which everyone agrees.
    """

    pareto: bool = False
    kind: Literal["leximax-plurality"] = "leximax-plurality"

    def ranked(self, electorates: list[Electorate], places: int | None = None) -> tuple[list[list[int]], None]:
        """Return the orders."""
        agreed = _agreed(electorates) if self.pareto else None
        return _fill(electorates, [e.first for e in electorates], agreed, places), None


@dataclass(frozen=True)
class LinearKemeny(AbstractLinear):
    """The rankings that agree with most, of those that a weight vector induces (Ge et al. 2024, appendix C.2).

        min_theta  sum_x sum_{a, b} max(m[b, a], 0) [theta · phi_a > theta · phi_b]

    the margins of all pairs that are ranked against their majority: Kendall's distance to the ballots, up to a
    constant. Exact: pairs of which no weight vector can rank all with their majority are found one set after the other,
    and the cheapest pairs to give up, one of each set, by an integer program (Parker and Ryan 1996); its optimum is a
    bound from below, `Induced.least`. If there are several best rankings, it is one of them.

    On one prompt it returns the majorities' ranking if a weight vector induces it, and a ranking on which two groups of
    voters agree is that of both together (theorem C.3). It may rank against what all prefer (theorem C.4).

    The problem is hard: what can be solved depends on how many pairs must be given up. Ten prompts of eight candidates
    with eight features are solved in seconds where voters are alike; with more disagreement the bounds may not meet in
    time. Then it says so, and `LCPO` is the one to use.

    Args:
        pareto: rank above each other all pairs on which everyone agrees.
        seconds: how long to search, at most.
    """

    pareto: bool = False
    seconds: float = 60.0
    kind: Literal["linear-kemeny"] = "linear-kemeny"

    def ranked(self, electorates: list[Electorate], places: int | None = None) -> tuple[list[list[int]], float]:
        """Return the orders and their cost.

        Raises:
            SolveError: the bounds did not meet.
        """
        features = electorates[0].phi.shape[1]
        pairs = [np.nonzero(e.margins > TIE) for e in electorates]
        rows = np.concatenate([np.zeros((0, features))] + [e.over(*p) for e, p in zip(electorates, pairs, strict=True)])
        cost = np.concatenate([e.margins[p] for e, p in zip(electorates, pairs, strict=True)])
        fixed = cost >= 1 - TIE if self.pareto else np.zeros(len(cost), bool)
        keep, least = give_up(rows, cost, fixed, self.seconds)
        return _fill(electorates, [e.margins.sum(1) for e in electorates], rows[keep], places), least


def _factored(utilities: Utilities) -> Linear:
    if not isinstance(utilities.value, Linear):
        raise InputError(DENSE)
    return utilities.value


def _several(utilities: Utilities) -> list[Electorate]:
    """Return the electorates of all prompts, in an order that hangs on features only."""
    phi = _factored(utilities).phi
    found = [Electorate.of(phi[x, on], profile, x, on) for x, (on, profile) in enumerate(electorates(utilities))]
    return sorted(found, key=lambda e: e.key)


def _agreed(electorates: list[Electorate]) -> Rows:
    """Return the comparisons on which everyone agrees, less those that follow from others."""
    found = []
    for e in electorates:
        all_prefer = e.unanimous()
        found.append(e.over(*np.nonzero(all_prefer & ~(all_prefer @ all_prefer))))
    return np.concatenate(found)


def _lost(m: Float[np.ndarray, "place place"]) -> float:
    """Return the margins that an order loses; whoever is below beats whoever is above by `-m`."""
    return float(np.triu(np.maximum(-m, 0)).sum())


def _fill(
    electorates: list[Electorate], scores: list[np.ndarray], given: Rows | None, many: int | None = None
) -> list[list[int]]:
    """Return each prompt's order: each place from the top goes to the highest score that `given` and theta allow.

    With `many`, only so many places are filled, and who comes after them stands in no order.
    """
    places: list[list[int]] = [[] for _ in electorates]
    left = [set(range(len(e.phi))) for e in electorates]
    keys: list[list[Key]] = []
    for e, score in zip(electorates, scores, strict=True):
        others = max(len(e.phi) - 1, 1)
        rounded = np.round(np.stack([score, e.margins.sum(1) / others], 1) / TIE)
        keys.append([(*r, *p) for r, p in zip(rounded.tolist(), e.phi.tolist(), strict=True)])
    turn = sorted(((x, a) for x, k in enumerate(keys) for a in range(len(k))), key=lambda xa: keys[xa[0]][xa[1]])[::-1]
    pairs = sum(len(k) * (len(k) - 1) // 2 for k in keys)
    used = 0 if given is None else len(given)
    rows = np.empty((used + pairs, electorates[0].phi.shape[1]))
    if given is not None:
        rows[:used] = given
    theta, tight = np.zeros(rows.shape[1]), np.arange(0)
    barred: dict[tuple[int, int], list[set[int]]] = {}  # those of whom a candidate cannot be above all
    last = max(map(len, left)) - 1
    for place in range(last if many is None else min(many, last)):
        for x, a in turn:
            if len(places[x]) > place or a not in left[x] or len(left[x]) == 1:
                continue
            others = np.array(sorted(left[x] - {a}))
            if any(those <= left[x] for those in barred.get((x, a), ())):
                continue
            end = used + len(others)
            rows[used:end] = electorates[x].over(np.full(len(others), a), others)
            if not (rows[:end] @ theta > SURE).all():
                found = separate(rows[:end], np.append(tight, np.arange(used, end)))
                if found.theta is None:
                    mine = found.rows[found.rows >= used] - used
                    barred.setdefault((x, a), []).append(set(others[mine].tolist()))
                    continue
                theta, tight = found.theta, found.rows
            used = end
            places[x].append(a)
            left[x].remove(a)
        if any(len(done) <= place and len(rest) > 1 for done, rest in zip(places, left, strict=True)):
            raise SolveError(f"a place was left empty: no candidate can have it by more than rounding. {MEND}")
    return [done + list(rest) for done, rest in zip(places, left, strict=True)]
