"""Fair shares of approval: voters approve of some candidates, and gain the chance of an approved answer."""

import contextlib
import warnings
from abc import abstractmethod
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal

import cvxpy as cp
import numpy as np
from jaxtyping import Bool, Float
from scipy.optimize import linprog

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
SMALL = 1e-3  # a chance that may be 0
STEPS = 1000  # at most


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
        """Return the lottery; its certificate is that `sum_v m_v [v approves of y] / u_v <= 1` for every y."""
        likes, mass = merged(approved(profile, self.top).T, profile.mass)
        p = cp.Variable(likes.shape[1], nonneg=True)
        problem = cp.Problem(cp.Maximize(mass @ cp.log(likes @ p)), [cp.sum(p) == 1])  # pyright: ignore[reportArgumentType]
        found = _solved(problem, p)
        lottery, over = found, np.inf
        for start in (np.where(found < SMALL, 0, found), found):  # without those who seem to have no chance, or with
            lottery, over = start, np.inf
            for _ in range(STEPS):
                # Cover (1984): each step multiplies a chance by its marginal worth, and welfare never falls.
                with np.errstate(divide="ignore", invalid="ignore"):
                    worth = (mass / (likes @ lottery)) @ likes
                over = float(worth.max() - 1)
                if not over > NEAR / 100:
                    break
                lottery = lottery * worth
            if over <= NEAR / 100:
                break
        if not over <= NEAR:
            raise SolveError(
                f"nash-lottery was not solved: it is {over:.2g} from the optimum; please report the ballots."
            )
        return lottery / lottery.sum()


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
    in any optimum, and are held there.

    Raises:
        SolveError: a linear program was not solved.
    """
    voters, candidates = utility.shape
    held = np.full(voters, np.nan)
    while np.isnan(held).any():
        free = np.isnan(held)
        table = np.hstack([-utility, free[:, None].astype(float)])
        found = linprog(
            np.append(np.zeros(candidates), -1.0),
            A_ub=table,
            b_ub=np.where(free, 0, -held + SLACK),
            A_eq=np.append(np.ones(candidates), 0.0)[None],
            b_eq=[1.0],
            bounds=[(0, None)] * candidates + [(None, None)],
            method="highs",
            options={"primal_feasibility_tolerance": SLACK / 100, "dual_feasibility_tolerance": SLACK / 100},
        )
        tight = free & (found.ineqlin.marginals < -1e-9) if found.status == 0 else free & False
        if not tight.any():
            raise SolveError(f"egalitarian-lottery was not solved: {found.message}")
        held[tight] = found.x[-1]
    p = cp.Variable(candidates, nonneg=True)
    rows: list[Any] = [cp.sum(p) == 1, cp.Constant(utility) @ p >= held - SLACK]
    lottery = _solved(cp.Problem(cp.Minimize(cp.sum_squares(p)), rows), p)
    if not (utility @ lottery >= held - NEAR).all():
        raise SolveError("egalitarian-lottery was not solved: its last program gave someone less than the others do.")
    return lottery / lottery.sum()


def _solved(problem: cp.Problem, p: cp.Variable) -> Float[np.ndarray, " candidate"]:
    """Return what the solver has to say, to be certified by who asked; NaN if nothing."""
    with warnings.catch_warnings(), contextlib.suppress(cp.SolverError):
        warnings.simplefilter("ignore", UserWarning)  # that it may be inaccurate
        problem.solve(solver=cp.CLARABEL, tol_gap_abs=1e-10, tol_gap_rel=1e-10, tol_feas=1e-10)
    return np.full(p.size, np.nan) if p.value is None else np.maximum(np.asarray(p.value, float), 0)


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
