"""Axioms of one profile on shares: what groups may ask for in proportion to their size."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Bool, Float
from scipy.optimize import Bounds, LinearConstraint, milp

from pluralign.choice.axioms.axiom import AbstractStanding, Evidence, who
from pluralign.choice.axioms.outcome import SMALL, AbstractOutcome
from pluralign.choice.axioms.society import Row, Society
from pluralign.errors import SolveError

SECONDS = 20.0  # to look for a group, at most


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

    Every group is looked at, by an integer program. A group of mass s may spend chances that sum to s, and gets nothing
    from the rest. Utilities are measured from each voter's worst candidate (orders count as 0, 1, 2, ... from below),
    so the units do not matter.

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
        rows, share = np.array([k[0] for k in kinds]), np.array([society.share[k].sum() for k in kinds])
        gain, joins, own = _leaving(u[rows], has[rows], share)
        if gain <= self.gain:
            return None
        mine = np.sort(np.concatenate([k for k, join in zip(kinds, joins, strict=True) if join]))
        spends = ", ".join(f"{society.candidates[y]} ({100 * p:.3g} %)" for y, p in enumerate(own) if p > SMALL)
        voters = tuple(int(v) for v in mine)
        words = (
            f"{who(society, voters)} could spend their {100 * share[joins].sum():.3g} % on {spends}, and each would "
            f"have at least {100 * gain:.3g} % of its range more."
        )
        return Evidence(words, tuple(int(y) for y in np.flatnonzero(own > SMALL)), voters)


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


def _leaving(
    u: Float[np.ndarray, "kind candidate"], has: Float[np.ndarray, " kind"], share: Float[np.ndarray, " kind"]
) -> tuple[float, Bool[np.ndarray, " kind"], Row]:
    """Return the most that a group can gain for each of its members, who is in it, and what it spends.

        max_{g, z, w}  g    s.t.  u_k · w - has_k >= g - M_k (1 - z_k),   sum w <= sum_k share_k z_k,   sum z >= 1,

    with `z_k` in {0, 1} and `w >= 0`; `M_k = 1 + has_k` frees who is not in it, as utilities lie in [0, 1].

    Raises:
        SolveError: the integer program was not solved.
    """
    kinds, size = u.shape
    free = 1 + has
    table = np.block(
        [
            [-np.ones((kinds, 1)), np.diag(-free), u],
            [np.zeros((1, 1)), share[None], -np.ones((1, size))],
            [np.zeros((1, 1)), np.ones((1, kinds)), np.zeros((1, size))],
        ]
    )
    found = milp(
        np.append(-1.0, np.zeros(kinds + size)),
        integrality=np.repeat([0, 1, 0], [1, kinds, size]),
        bounds=Bounds(0, 1),  # all together can have what they have
        constraints=LinearConstraint(table, lb=np.concatenate([has - free, [0, 1]])),  # pyright: ignore[reportArgumentType]
        options={"mip_rel_gap": 0.0, "time_limit": SECONDS},
    )
    if found.status != 0:
        raise SolveError(
            f"core: whether a group of {kinds} kinds of voters could leave was not decided: {found.message} Use "
            "ProportionalFairness, which implies it, or groups as voters."
        )
    return float(found.x[0]), found.x[1 : 1 + kinds] > 0.5, found.x[1 + kinds :]
