"""The one place that solves: a concave program by cuts, each of which is also a proof.

    max_p  F(p) = f(u(p)) - beta mean_x KL(p_x || ref_x),        u[draw, voter](p) = mean_x sum_y p U

`f = rho(W(.))` is whatever concave function rule and risk state. A supergradient at any `u0` bounds it everywhere: a
cut. Lotteries that are best under the cuts so far are tried in turn, each gives a cut, and what the cuts prove
(`bundle`) comes down to what the lotteries reach (Kelley 1960; with a strongly convex term kept exact as in the bundle
method of Teo, Vishwanathan, Smola and Le 2010). The divergence is never approximated, every iterate is a lottery with
a bound on its error, and draws and voters enter only through `u(p)`: with linear utilities, through `E_p phi`. First
`f` is cut as a whole, which is enough where it is smooth; then its parts, where it has corners.
"""

import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass

import cvxpy as cp
import numpy as np
import scipy.sparse as sp
from scipy.special import rel_entr

from pluralign.choice.bundle import Bundle, Lottery, Part, Table, Whole
from pluralign.choice.scale import best, chunks, spread, worst
from pluralign.errors import InputError, SolveError
from pluralign.types import Certificate, Utilities

Concave = Callable[[Table], tuple[float, Table | None]]
Split = Callable[[Table], Whole | None]

TARGET = 1e-4  # cuts are added until no optimal lottery is farther than this, in mean total variation
TOLERANCE = 1e-3  # a lottery that is not certified to this is not returned
CUTS = 1000  # at most
PATIENCE = 100  # cuts that may pass without a smaller gap
ROUNDS = 45  # of cuts of the whole, before its parts are cut
NOTHING = 1e-9  # of the spread of utilities: less than so much above 0 is rounding
HALVINGS = 2.0**-12  # of the way back to the best lottery, at most


def solve(
    f: Concave,
    utilities: Utilities,
    beta: float,
    *,
    name: str,
    positive: int = 0,
    split: Split | None = None,
    tolerance: float = TOLERANCE,
) -> tuple[Lottery, Table, Certificate]:
    """Return the lottery `p ∝ ref exp(tilt / beta)`, its multipliers and its certificate.

    Args:
        f: concave in `u[draw, voter]`: its value and a supergradient; `-inf` and None outside its domain.
        utilities: of voters with positive mass, roughly of size 1.
        beta: price of a nat of divergence.
        name: of the rule, for messages.
        positive: so many voters, the first ones, must have positive utilities for `f` to be defined.
        split: the same function in parts, if it has any, to be cut apart if it turns out to have many corners.
        tolerance: largest accepted distance to the optimum, in mean total variation.

    Raises:
        SolveError: no lottery could be certified.
    """
    clock = time.perf_counter()
    start = utilities.reference
    if positive and not (utilities.expected(start)[:, :positive] > NOTHING * spread(utilities)).all():
        start = _positive(utilities, positive, beta, name)
    end = _descend(f, split, utilities, beta, start)
    found = certify(end, beta, time.perf_counter() - clock)
    # The negation also catches what is not a number.
    if not found.tv_bound <= tolerance:
        raise SolveError(
            f"{name} was not solved: after {end.cuts} cuts the objective is {found.value:.8g} and its upper bound "
            f"{found.upper_bound:.8g}, so the optimal lottery may be {found.tv_bound:.2g} away in total variation "
            f"(tolerance {tolerance:g}). {_advice(utilities, beta)}"
        )
    return end.lottery, end.multipliers, found


def reach(f: Concave, utilities: Utilities, beta: float, enough: Callable[[Table], bool]) -> Lottery:
    """Return a lottery whose utilities are `enough`, or the one that maximises `f`, at a price for divergence."""
    return _descend(f, None, utilities, beta, utilities.reference, enough).inside


def attainable(utilities: Utilities) -> tuple[Table, Table]:
    """Return the lowest and the highest `u[draw, voter]` that any lottery gives."""
    low, high = np.empty(utilities.shape[:2]), np.empty(utilities.shape[:2])
    for draws, values in chunks(utilities):
        low[draws], high[draws] = worst(values, utilities.reference), best(values, utilities.reference)
    return low, high


class Stated:
    """A concave function that is stated as an expression of `u[draw, voter]`: cvxpy finds value and supergradient."""

    def __init__(self, objective: Callable[[cp.Expression], cp.Expression], shape: tuple[int, ...]):
        self.u = cp.Variable(shape)
        self.expression = objective(self.u)

    def __call__(self, u: Table) -> tuple[float, Table | None]:
        """Return the value and a supergradient; `-inf` and None outside the domain."""
        self.u.value = u
        with warnings.catch_warnings(), np.errstate(all="ignore"):
            warnings.simplefilter("ignore", RuntimeWarning)
            value = float(np.asarray(self.expression.value).item())
            gradient = self.expression.grad[self.u] if np.isfinite(value) else None
        if gradient is None:
            return -np.inf, None
        dense = gradient.todense() if sp.issparse(gradient) else gradient  # one by one, cvxpy gives a number
        return value, np.asarray(dense, np.float64).reshape(u.shape, order="F")


@dataclass(frozen=True, eq=False)
class Descent:
    """Where cutting ended.

    Attributes:
        lottery: rebuilt from the multipliers.
        inside: the best lottery that was met.
        multipliers: weighted supergradients.
        value: objective at `lottery`.
        lower: best objective of any lottery met on the way.
        upper: `D`.
        cuts: how many were made.
    """

    lottery: Lottery
    inside: Lottery
    multipliers: Table
    value: float
    lower: float
    upper: float
    cuts: int


def certify(end: Descent, beta: float, seconds: float) -> Certificate:
    """Return what the bounds prove.

    `D - F(p)` is at least `beta mean KL(p || lottery)` for every `p`, the optimum included, and `TV^2 <= KL / 2`
    (Pinsker). So `mean TV <= sqrt((D - lower) / (2 beta))`.
    """
    bound = float(np.sqrt(np.maximum(end.upper - end.lower, 0) / (2 * beta)))
    return Certificate(end.value, end.upper, end.upper - end.value, bound, end.cuts, seconds)


def _descend(
    f: Concave,
    split: Split | None,
    utilities: Utilities,
    beta: float,
    start: Lottery,
    enough: Callable[[Table], bool] = lambda _: False,
) -> Descent:
    """Add cuts until the bounds meet, the gap no longer shrinks, or some utilities are `enough`."""
    bundle, apart = Bundle(utilities, beta), False
    lottery, gains = start, utilities.expected(start)
    inside, held = lottery, gains
    lower, upper, least, reached = -np.inf, np.inf, np.inf, -np.inf
    since, before, blunt = 0, 0, 0.1

    def look(point: Lottery, u: Table) -> tuple[float, Whole | None]:
        whole = split(u) if apart and split is not None else as_one(f, u)
        if whole is None:
            return -np.inf, None
        return whole.value - beta * float(rel_entr(point, utilities.reference).sum()) / len(point), whole

    while before + bundle.made < CUTS:
        new: list[tuple[Table, Whole]] = []
        reached, whole = look(lottery, gains)
        if whole is not None and reached >= lower - (upper - lower):  # cuts from far below only add large numbers
            new.append((gains, whole))
        # A lottery that is worse than the best so far, or outside the domain, overshot: cut on the way to it as well.
        best_here, where, there, back = reached, lottery, gains, 1.0
        while best_here <= lower and back > HALVINGS:
            back /= 2
            where, there = (1 - back) * inside + back * lottery, (1 - back) * held + back * gains
            best_here, whole = look(where, there)
            if whole is not None and (best_here > lower or not new):
                new.append((there, whole))
        if best_here > lower:
            lower, inside, held = best_here, where, there
        gap = upper - lower
        least, since = (gap, 0) if gap < 0.9 * least else (least, since + 1)
        if not new or gap <= 2 * beta * TARGET**2 or since > PATIENCE or enough(held):
            break
        if bundle.rounds == ROUNDS and split is not None and not apart:
            apart, before, bundle = True, bundle.made, Bundle(utilities, beta)
            lottery, gains, lower, upper, least = inside, held, -np.inf, np.inf, np.inf
            continue
        bundle.age()
        # While bounds are far apart, cuts are worth more than weights to the last digit; where nothing is new, only
        # better weights bring them nearer.
        blunt = blunt if any([bundle.add(*point) for point in new]) else blunt / 100
        if blunt < 1e-6:
            break
        lottery, upper = bundle.least(blunt * max(2 * TARGET**2, min(gap / beta, 1.0)))
        gains = utilities.expected(lottery)
    return Descent(lottery, inside, bundle.multipliers(), reached, lower, upper, before + bundle.made)


def as_one(f: Concave, u: Table) -> Whole | None:
    """Return a function's value and supergradient as those of one part."""
    value, gradient = f(u)
    if gradient is None:
        return None
    return Whole((Part(value, (slice(None), slice(None)), gradient),), value, np.ones(1))


def _positive(utilities: Utilities, voters: int, beta: float, name: str) -> Lottery:
    """Return a lottery that gives each of the first voters a positive utility in every draw.

    Raises:
        InputError: even the best lottery for somebody does not; names who.
        SolveError: there is none, or none was found; names who stand in each other's way.
    """
    high = attainable(utilities)[1][:, :voters]
    if (high <= 0).any():
        draw, voter = (int(i) for i in np.argwhere(high <= 0)[0])
        who, hopeless = np.asarray(utilities.voters)[voter], int((high <= 0).any(0).sum())
        raise InputError(
            f"{name} needs positive utilities, but even the best lottery for {who} gives it {high[draw, voter]:.6g} in "
            f"draw {draw} ({hopeless} of {high.shape[1]} voters are so, in some draw). The scale is "
            f"{utilities.scale!r}; StdScale and RangeScale make every utility at least 0."
        )

    unit = spread(utilities)

    def worst_off(u: Table) -> tuple[float, Table]:
        slope = np.zeros_like(u)
        draw, voter = np.unravel_index(u[:, :voters].argmin(), (len(u), voters))
        slope[draw, voter] = 1 / unit
        return float(u[draw, voter]) / unit, slope

    def enough(u: Table) -> bool:
        return bool((u[:, :voters] > NOTHING * unit).all())

    end = _descend(worst_off, None, utilities, beta / 100, utilities.reference, enough)
    if enough(utilities.expected(end.inside)):
        return end.inside
    holding = unit * end.multipliers.sum(0)
    names = [str(np.asarray(utilities.voters)[i]) for i in np.argsort(-holding)[:5] if holding[i] > 0.01]
    raise SolveError(
        f"{name} needs a positive utility for every voter in every draw, and no lottery was found that gives that: "
        f"these stand in each other's way: {', '.join(names)}. The scale is {utilities.scale!r}; StdScale and "
        "RangeScale measure from the worst candidate, which avoids this, and fewer draws make it rarer."
    )


def _advice(utilities: Utilities, beta: float) -> str:
    low, high = attainable(utilities)
    ratio = (high - low).mean() / beta
    if ratio > 3000:
        return f"Utilities differ by {ratio:.2g} beta, so the lottery is nearly deterministic; use a larger beta."
    return (
        "Usually utilities of voters differ by many orders of magnitude (use StdScale or RangeScale), or beta is very "
        f"small or large for them: they differ by {ratio:.2g} beta on average, 1 to 100 is common."
    )
