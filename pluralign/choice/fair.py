"""Fair shares of approval: voters approve of some candidates, and gain the chance of an approved answer."""

from abc import abstractmethod
from dataclasses import dataclass, replace
from typing import ClassVar, Literal

import numpy as np
from jaxtyping import Bool, Float
from scipy.linalg import null_space
from scipy.optimize import linprog, nnls

from pluralign.choice.ballots import Profile, electorates
from pluralign.choice.lottery import AbstractLottery
from pluralign.choice.risk import AbstractRisk
from pluralign.choice.rule import MEAN, AbstractWelfare
from pluralign.choice.scoring import approved
from pluralign.choice.welfare import Maximin, Nash
from pluralign.errors import InputError, SolveError
from pluralign.types import Choice, Utilities

Approved = Bool[np.ndarray, "ballot candidate"]
NEAR = 1e-6  # of optimality: relative to welfare's slope, and to a voter's chance
SLACK = 1e-8  # of a voter's chance, so that what one program found is still possible in the next
DUAL = 1e-9  # multipliers and reduced costs that are smaller may be 0
RANK = 1e-9  # singular values that are smaller, of the largest, are 0
STEPS, HALVED = 100, 40  # at most


class AbstractFair(AbstractLottery):
    """A rule on the chances that each voter's ballot is served, `u_v = sum_y p [v approves of y]`.

    `choose` is the program of a welfare on these utilities, 0 or 1 for each answer: with draws, risk, a price for
    divergence and its certificate. A voter's utility there is its share of prompts with an approved answer. The
    multipliers belong to these utilities, so the choice, which is stated in those that came in, has none.
    """

    cautious: ClassVar[bool] = True
    top: int | None

    @property
    @abstractmethod
    def welfare(self) -> AbstractWelfare:
        """The welfare that is maximised."""

    def choose(self, utilities: Utilities, risk: AbstractRisk = MEAN, beta: float = 0.1) -> Choice:
        """Return the lottery that shares approval fairly; see `AbstractRule.choose`."""
        found = self.welfare.choose(dichotomous(utilities, self.top), risk, beta)
        return replace(found, name=self.name, weights=None, reward=None, utilities=utilities)


@dataclass(frozen=True)
class NashLottery(AbstractFair):
    """Fair mixing: `max_p sum_v m_v log u_v` of the chance that each voter is served (Aziz, Bogomolnaia, Moulin 2019).

    Any group of voters who approve of something in common is served at least as often as its share. With `top=1`
    everyone approves of their favourite only, and it is the random dictatorship.

    Args:
        top: a ballot approves of the candidates that have fewer than so many above them; None: see `Approval`.
    """

    top: int | None = None
    kind: Literal["nash-lottery"] = "nash-lottery"

    @property
    def welfare(self) -> AbstractWelfare:
        """Nash's."""
        return Nash()

    def chances(self, profile: Profile) -> Float[np.ndarray, " candidate"]:
        """Return the lottery; of several with the same utilities, that of least norm.

        Its certificate is that `sum_v m_v [v approves of y] / u_v <= 1` for every y.
        """
        likes, mass = merged(approved(profile, self.top).T, profile.mass)
        lottery, root = np.full(likes.shape[1], 1 / likes.shape[1]), np.sqrt(mass)
        for _ in range(STEPS):
            u = likes @ lottery
            worth = (mass / u) @ likes
            if worth.max() <= 1 + NEAR**2:  # who is worth just what it costs is off by the square root of this
                break
            # Newton's step is a least-squares problem: to second order, m log u' is -(sqrt(m) (u' / u - 2))^2 / 2 and a
            # constant. Chances need not sum to 1 in it: multiplying them all only adds to welfare.
            table = np.vstack([(root / u)[:, None] * likes, np.ones(len(lottery))])
            step = nnls(table, np.append(2 * root, 1.0), maxiter=100 * len(lottery))[0]
            before, lottery = lottery, _climbed(likes, mass, lottery, step / step.sum())
            if lottery is before:  # as far as rounding lets it
                break
        over = float(((mass / (likes @ lottery)) @ likes).max() - 1)
        if not over <= NEAR:
            raise SolveError(
                f"nash-lottery was not solved: it is {over:.2g} from the optimum; please report the ballots."
            )
        return least_norm(likes.astype(float), lottery)


@dataclass(frozen=True)
class EgalitarianLottery(AbstractFair):
    """The best for whoever is served least, then for the next, and so on (Bogomolnaia, Moulin and Stong 2005).

    Leximin of `u_v` over voters with mass, whose masses do not matter. In `choose` the price for divergence makes the
    optimum unique, so there the smallest chance alone decides (`Maximin`).

    Args:
        top: a ballot approves of the candidates that have fewer than so many above them; None: see `Approval`.
    """

    top: int | None = None
    kind: Literal["egalitarian-lottery"] = "egalitarian-lottery"

    @property
    def welfare(self) -> AbstractWelfare:
        """Rawls's."""
        return Maximin()

    def chances(self, profile: Profile) -> Float[np.ndarray, " candidate"]:
        """Return the lottery; of several with the same leximin utilities, that of least norm."""
        likes, _ = merged(approved(profile, self.top).T, profile.mass)
        return leximin(likes.astype(float))


def leximin(utility: Float[np.ndarray, "voter candidate"]) -> Float[np.ndarray, " candidate"]:
    """Return the lottery whose expected utilities, sorted, are largest from the smallest on; the one of least norm.

    One linear program a level: raise the least utility of the free voters; those with a positive dual cannot have more
    in any optimum, and are held there. Candidates with a reduced cost have no chance in any optimum; once voters who
    are held and candidates who are left allow one lottery only, that is it.

    Raises:
        SolveError: a linear program was not solved.
    """
    voters, candidates = utility.shape
    held, left = np.full(voters, np.nan), np.arange(candidates)
    while True:
        free, u = np.isnan(held), utility[:, left]
        found = linprog(
            np.append(np.zeros(len(left)), -1.0),
            A_ub=np.hstack([-u, free[:, None].astype(float)]),
            b_ub=np.where(free, 0, -held + SLACK),
            A_eq=np.append(np.ones(len(left)), 0.0)[None],
            b_eq=[1.0],
            bounds=[(0, None)] * len(left) + [(None, None)],
            method="highs",
            options={"primal_feasibility_tolerance": SLACK / 100, "dual_feasibility_tolerance": SLACK / 100},
        )
        tight = free & (found.ineqlin.marginals < -DUAL) if found.status == 0 else free & False
        if not tight.any():
            raise SolveError(f"egalitarian-lottery was not solved: {found.message}")
        level = found.x[-1]
        held[tight | free & (u.max(1) <= level + SLACK)] = level  # whose best is no more cannot have more either
        stays = found.lower.marginals[:-1] <= DUAL
        left, chance = left[stays], found.x[:-1][stays]
        fixed = np.vstack([utility[~np.isnan(held)][:, left], np.ones(len(left))])
        if np.linalg.matrix_rank(fixed) == len(left) or not np.isnan(held).any():
            break
    lottery = np.zeros(candidates)
    lottery[left] = np.maximum(chance, 0)
    lottery = least_norm(utility, lottery)
    known = ~np.isnan(held)
    if not (utility[known] @ lottery >= held[known] - NEAR).all():
        raise SolveError("egalitarian-lottery was not solved: its last step gave someone less than the others do.")
    return lottery


def least_norm(
    utility: Float[np.ndarray, "voter candidate"], lottery: Float[np.ndarray, " candidate"]
) -> Float[np.ndarray, " candidate"]:
    """Return the lottery of least norm that gives every voter what this one does, `argmin_q |q|, U q = U p, q >= 0`.

    `q` is the part of p that voters see, and `N z` of what they do not; the shortest z with `N z >= -p_seen` is a
    least-squares problem (least distance programming: Lawson and Hanson 1974, chapter 23).
    """
    hidden = null_space(np.vstack([utility, np.ones(len(lottery))]), rcond=RANK)
    if not hidden.shape[1]:
        return lottery / lottery.sum()
    seen = lottery - hidden @ (hidden.T @ lottery)
    free = np.linalg.norm(hidden, axis=1) > RANK  # the chances of others are what they are
    table, target = np.vstack([hidden[free].T, -seen[free]]), np.append(np.zeros(hidden.shape[1]), 1.0)
    rest = table @ nnls(table, target, maxiter=100 * len(seen))[0] - target
    found = np.maximum(seen - hidden @ (rest[:-1] / rest[-1]), 0)
    return found / found.sum()


def _climbed(
    likes: Approved,
    mass: Float[np.ndarray, " ballot"],
    here: Float[np.ndarray, " candidate"],
    there: Float[np.ndarray, " candidate"],
) -> Float[np.ndarray, " candidate"]:
    """Return the first lottery, half the way nearer each time, that has more Nash welfare than the one here."""
    with np.errstate(divide="ignore"):
        before = mass @ np.log(likes @ here)
        for _ in range(HALVED):
            if mass @ np.log(likes @ there) > before:
                return there
            there = (here + there) / 2
    return here


def merged(
    likes: Approved, mass: Float[np.ndarray, " ballot"]
) -> tuple[Bool[np.ndarray, "kind candidate"], Float[np.ndarray, " kind"]]:
    """Return different ballots with their masses; those that approve of nobody say nothing."""
    keep = likes.any(1) & (mass > 0)
    if not keep.any():
        raise InputError("no ballot with any mass approves of anyone.")
    different, place = np.unique(likes[keep], axis=0, return_inverse=True)
    return different, np.bincount(place.ravel(), mass[keep]) / mass[keep].sum()


def dichotomous(utilities: Utilities, top: int | None) -> Utilities:
    """Return utilities of 1 for approved candidates and 0 for others; voters without mass approve of nobody."""
    draws = utilities.shape[0]
    counts = np.flatnonzero(utilities.mass > 0)
    value = np.zeros(utilities.shape)
    for x, (on, profile) in enumerate(electorates(utilities)):
        likes = approved(profile, top).reshape(len(on), draws, len(counts))
        value[:, counts[:, None], x, on] = np.moveaxis(likes, 0, -1)
    return replace(utilities, value=value, scale="share of prompts with an approved answer")
