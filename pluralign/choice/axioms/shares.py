"""Axioms of one profile on shares: what groups may ask for in proportion to their size."""

from dataclasses import dataclass
from itertools import product
from typing import Literal

import numpy as np
from scipy.optimize import linprog

from pluralign.choice.axioms.axiom import AbstractStanding, Evidence, who
from pluralign.choice.axioms.outcome import SMALL, AbstractOutcome
from pluralign.choice.axioms.society import Society
from pluralign.errors import InputError, SolveError

KINDS = 10  # of voters among whom every coalition is looked at, at most


@dataclass(frozen=True)
class PopulationProportionality(AbstractStanding):
    """Who together like every member of a set better than anyone else, get a member of it as often as their share.

    The form for lotteries of proportionality for solid coalitions (Dummett 1984); with favourites alone, that nobody's
    chance is less than the share of voters who like it best.
    """

    kind: Literal["population-proportionality"] = "population-proportionality"

    def fault(self, society: Society, outcome: AbstractOutcome) -> Evidence | None:
        """Return the group that falls short by most."""
        return self.shortfall(society, outcome)[1]

    def shortfall(self, society: Society, outcome: AbstractOutcome) -> tuple[float, Evidence | None]:
        """Return by how much some group falls short, at most, and which."""
        worst, evidence = 0.0, None
        for inside in np.unique(np.concatenate([_tops(row) for row in society.level]), axis=0):
            last = np.where(inside, society.level, -1).max(1)
            first = np.where(inside, society.shape[1], society.level).min(1)
            group = last < first
            share, chance = float(society.share[group].sum()), float(outcome.chance[inside].sum())
            if share - chance > max(worst, SMALL):
                worst = share - chance
                names = ", ".join(society.candidates[y] for y in np.flatnonzero(inside))
                voters = tuple(int(v) for v in np.flatnonzero(group))
                words = (
                    f"{who(society, voters)}, {100 * share:.3g} % of all, like {names} best, "
                    f"which together get only {100 * chance:.3g} %."
                )
                evidence = Evidence(words, tuple(int(y) for y in np.flatnonzero(inside)), voters)
        return worst, evidence


@dataclass(frozen=True)
class Core(AbstractStanding):
    """No group does better for all its members with its share of the lottery (Foley 1970; Fain, Goel, Munagala 2016).

    A group of mass s may spend chances that sum to s, and gets nothing from the rest. Utilities are measured from each
    voter's worst candidate (orders count as 0, 1, 2, ... from below), so the units do not matter.

    Args:
        gain: a group leaves if each of its members gains more than this share of its range.
    """

    gain: float = 0.02
    kind: Literal["core"] = "core"

    def fault(self, society: Society, outcome: AbstractOutcome) -> Evidence | None:
        """Return the group whose members could gain most; none can if the lottery is proportionally fair."""
        u = above_worst(society)
        if proportional_gap(society, outcome) <= SMALL:
            return None
        has, kinds = u @ outcome.chance, [k for k in society.kinds if society.mass[k[0]] > 0]
        if len(kinds) > KINDS:
            raise InputError(
                f"core: there are {len(kinds)} kinds of voters, and every coalition of at most {KINDS} can be looked "
                "at. Use ProportionalFairness, which implies it, or groups as voters."
            )
        best, evidence = self.gain, None
        for joins in product([False, True], repeat=len(kinds)):
            members = [k for k, j in zip(kinds, joins, strict=True) if j]
            if not members:
                continue
            rows, mine = np.array([k[0] for k in members]), np.concatenate(members)
            share = float(society.share[mine].sum())
            if (share * u[rows].max(1) <= has[rows] + best).any():
                continue  # someone could not gain even if all went its way
            gain, own = _best(u[rows], has[rows], share)
            if gain > best:
                best = gain
                spends = ", ".join(f"{society.candidates[y]} ({100 * p:.3g} %)" for y, p in enumerate(own) if p > SMALL)
                voters = tuple(int(v) for v in np.sort(mine))
                words = (
                    f"{who(society, voters)} could spend their {100 * share:.3g} % on {spends}, and each would have at "
                    f"least {100 * gain:.3g} % of its range more."
                )
                evidence = Evidence(words, tuple(int(y) for y in np.flatnonzero(own > SMALL)), voters)
        return evidence


@dataclass(frozen=True)
class ProportionalFairness(AbstractStanding):
    """No candidate is worth more than 1 on average, in units of what each voter has: `sum_v m_v u_v(y) / u_v(p) <= 1`.

    It is the condition for the Nash optimum, and puts a lottery in the core (Fain, Goel and Munagala 2016).

    Args:
        gap: largest excess that counts as none.
    """

    gap: float = 0.05
    kind: Literal["proportional-fairness"] = "proportional-fairness"

    def fault(self, society: Society, outcome: AbstractOutcome) -> Evidence | None:
        """Return the candidate that is worth most."""
        worth = worths(society, outcome)
        y = int(worth.argmax())
        if worth[y] <= 1 + self.gap:
            return None
        words = f"{society.candidates[y]} gives voters {worth[y]:.3g} times what they have on average; 1 is fair."
        return Evidence(words, (y,))


def above_worst(society: Society) -> np.ndarray:
    """Return utilities as shares of each voter's distance from worst to best; 0 for who is indifferent."""
    u = society.utility - society.utility.min(1, keepdims=True)
    return u / np.where(np.ptp(u, 1, keepdims=True) > 0, np.ptp(u, 1, keepdims=True), 1)


def worths(society: Society, outcome: AbstractOutcome) -> np.ndarray:
    """Return `sum_v m_v u_v(y) / u_v(p)` over voters who are not indifferent."""
    u = above_worst(society)
    on = (society.mass > 0) & (u.max(1) > 0)
    if not on.any():
        return np.zeros(society.shape[1])
    has = u[on] @ outcome.chance
    with np.errstate(divide="ignore", invalid="ignore"):
        each = np.where(u[on] > 0, u[on] / has[:, None], 0)
    return society.share[on] / society.share[on].sum() @ each


def proportional_gap(society: Society, outcome: AbstractOutcome) -> float:
    """Return by how much the candidate that is worth most exceeds 1."""
    return float(worths(society, outcome).max()) - 1


def _tops(level: np.ndarray) -> np.ndarray:
    """Return the sets that hold a voter's best candidates, but not all."""
    return np.stack([level <= k for k in np.unique(level)[:-1]]) if level.any() else np.zeros((0, len(level)), bool)


def _best(u: np.ndarray, has: np.ndarray, share: float) -> tuple[float, np.ndarray]:
    """Return `max_z min_v u_v · z - has_v` over `z >= 0` with `sum z = share`, and z."""
    size = u.shape[1]
    found = linprog(
        np.append(np.zeros(size), -1.0),
        A_ub=np.hstack([-u, np.ones((len(u), 1))]),
        b_ub=-has,
        A_eq=np.append(np.ones(size), 0.0)[None],
        b_eq=[share],
        bounds=[(0, None)] * size + [(None, None)],
        method="highs",
    )
    if found.status != 0:
        raise SolveError(f"core: the program of a group was not solved: {found.message}")
    return float(found.x[-1]), found.x[:-1]
