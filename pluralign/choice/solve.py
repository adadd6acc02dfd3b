"""The one place that solves: a concave program by cuts, each of which is also a proof.

    max_p  F(p) = f(u(p)) - beta mean_x KL(p_x || ref_x),        u[draw, voter](p) = mean_x sum_y p U

`f = rho(W(.))` is whatever concave function rule and risk state in cvxpy. A supergradient `g` at any `u0` bounds it
everywhere, `f(u) <= f(u0) + <g, u - u0>`: a cut, with intercept `f(u0) - <g, u0>`. Weigh cuts by `theta` on the
simplex, let `lambda = sum theta g`, `c` the weighted intercept, and `tilt = sum_{draw, voter} lambda U`. Then for
every lottery

    F(p)  <=  c + <lambda, u(p)> - beta mean KL  <=  c + beta mean_x log sum_y ref exp(tilt / beta)  =:  D(theta),

the second with equality at `p ∝ ref exp(tilt / beta)`. `D` is smooth and convex, its least value over all cuts is the
optimum, and its minimiser gives the multipliers (Kelley 1960; with a strongly convex term kept exact as in the bundle
method of Teo, Vishwanathan, Smola and Le 2010). The divergence is never approximated, every iterate is a lottery with
a bound on its error, and draws and voters enter only through `u(p)`: with linear utilities, through `E_p phi`.
"""

import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import clarabel
import cvxpy as cp
import numpy as np
import scipy.sparse as sp
from jaxtyping import Float
from scipy.special import rel_entr

from pluralign.choice.scale import best, chunks, worst
from pluralign.errors import InputError, SolveError
from pluralign.types import Certificate, Utilities

qp: Any = clarabel  # compiled, without type stubs

Table = Float[np.ndarray, "draw voter"]
Lottery = Float[np.ndarray, "prompt candidate"]
Concave = Callable[[Table], tuple[float, Table | None]]  # value and supergradient; -inf and None outside the domain

TARGET = 1e-4  # cuts are added until no optimal lottery is farther than this, in mean total variation
TOLERANCE = 1e-3  # a lottery that is not certified to this is not returned
CUTS = 1000  # at most
PATIENCE = 100  # cuts that may pass without a smaller gap
NEWTON = 50  # steps, at most, between two cuts
HALVINGS = 2.0**-12  # of the way back to the best lottery, at most
SPARE = 20  # newest cuts are kept even without weight


def solve(
    f: Concave, utilities: Utilities, beta: float, *, name: str, positive: int = 0, tolerance: float = TOLERANCE
) -> tuple[Lottery, Table, Certificate]:
    """Return the lottery `p ∝ ref exp(tilt / beta)`, its multipliers and its certificate.

    Args:
        f: concave in `u[draw, voter]`.
        utilities: of voters with positive mass, roughly of size 1.
        beta: price of a nat of divergence.
        name: of the rule, for messages.
        positive: so many voters, the first ones, must have positive utilities for `f` to be defined.
        tolerance: largest accepted distance to the optimum, in mean total variation.

    Raises:
        SolveError: no lottery could be certified.
    """
    clock = time.perf_counter()
    start = utilities.reference
    if not (utilities.expected(start)[:, :positive] > 0).all():
        start = _positive(utilities, positive, beta, name)
    end = _descend(f, utilities, beta, start)
    found = certify(end, beta, time.perf_counter() - clock)
    # The negation also catches what is not a number.
    if not found.tv_bound <= tolerance:
        raise SolveError(
            f"{name} was not solved: after {end.cuts} cuts the objective is {found.value:.8g} and its upper bound "
            f"{found.upper_bound:.8g}, so the optimal lottery may be {found.tv_bound:.2g} away in total variation "
            f"(tolerance {tolerance:g}). {_advice(utilities, beta)}"
        )
    return end.lottery, end.multipliers, found


def best_response(utilities: Utilities, tilt: Lottery, beta: float) -> tuple[Lottery, float]:
    """Return `p ∝ ref exp(tilt / beta)` and `beta mean_x log sum_y ref exp(tilt / beta)`."""
    scaled = np.where(utilities.reference > 0, tilt / beta, -np.inf)
    top = scaled.max(-1, keepdims=True)
    mass = utilities.reference * np.exp(scaled - top)
    total = mass.sum(-1, keepdims=True)
    return mass / total, beta * float((top + np.log(total)).mean())


def reach(f: Concave, utilities: Utilities, beta: float, enough: Callable[[Table], bool]) -> Lottery:
    """Return a lottery whose utilities are `enough`, or the one that maximises `f`, at a price for divergence."""
    return _descend(f, utilities, beta, utilities.reference, enough).inside


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
    f: Concave, utilities: Utilities, beta: float, start: Lottery, enough: Callable[[Table], bool] = lambda _: False
) -> Descent:
    """Add cuts until the bounds meet, the gap no longer shrinks, or some utilities are `enough`."""
    intercepts, gradients, tilts = np.zeros(0), [], []
    theta = np.zeros(0)
    lottery, gains = start, utilities.expected(start)
    inside, held = lottery, gains
    lower, upper, least, reached = -np.inf, np.inf, np.inf, -np.inf
    made = since = 0

    def look(point: Lottery, u: Table) -> tuple[float, float, Table | None]:
        value, gradient = f(u)
        return value - beta * float(rel_entr(point, utilities.reference).sum()) / len(point), value, gradient

    while made < CUTS:
        new: list[tuple[Table, float, Table]] = []
        reached, value, gradient = look(lottery, gains)
        if gradient is not None and reached >= lower - (upper - lower):  # cuts from far below only add large numbers
            new.append((gains, value, gradient))
        # A lottery that is worse than the best so far, or outside the domain, overshot: cut on the way to it as well.
        best_here, where, there, back = reached, lottery, gains, 1.0
        while best_here <= lower and back > HALVINGS:
            back /= 2
            where, there = (1 - back) * inside + back * lottery, (1 - back) * held + back * gains
            best_here, value, gradient = look(where, there)
            if gradient is not None and (best_here > lower or not new):
                new.append((there, value, gradient))
        if best_here > lower:
            lower, inside, held = best_here, where, there
        gap = upper - lower
        least, since = (gap, 0) if gap < 0.9 * least else (least, since + 1)
        if not new or gap <= 2 * beta * TARGET**2 or since > PATIENCE or enough(held):
            break
        keep = [i for i in range(len(theta)) if theta[i] > 0 or i >= len(theta) - SPARE]
        intercepts = np.append(intercepts[keep], [v - float(np.vdot(g, u)) for u, v, g in new])
        gradients = [gradients[i] for i in keep] + [g for *_, g in new]
        tilts = [tilts[i] for i in keep] + [utilities.weighted(g) for *_, g in new]
        theta = np.append(0.9 * theta[keep], np.full(len(new), 0.1 / len(new)))
        theta, lottery, upper = _least_bound(utilities, beta, intercepts, np.stack(tilts), theta)
        gains = utilities.expected(lottery)
        made += len(new)
    multipliers = np.zeros(utilities.shape[:2])
    for weight, gradient in zip(theta, gradients, strict=True):
        multipliers += weight * gradient
    return Descent(lottery, inside, multipliers, reached, lower, upper, made)


def _least_bound(
    utilities: Utilities, beta: float, intercepts: np.ndarray, tilts: np.ndarray, theta: np.ndarray
) -> tuple[Float[np.ndarray, " cut"], Lottery, float]:
    """Return the minimiser of `D` over the simplex, from `theta`, with its lottery and `D`.

    By Newton steps that are quadratic programs. In units of beta: `D = c · theta + mean_x log sum_y ref exp(T theta)`,
    whose Hessian is the mean over prompts of the covariance of the tilts under the lottery.
    `gradient · theta - min gradient` bounds the error of `D` (Frank and Wolfe 1956).
    """
    theta = theta / theta.sum()
    flat = tilts.reshape(len(theta), -1)

    def carried(weights: np.ndarray) -> Lottery:
        return (weights @ flat).reshape(utilities.reference.shape)

    tilt = carried(theta)
    lottery, rest = best_response(utilities, tilt, beta)
    value = (intercepts @ theta + rest) / beta
    for _ in range(NEWTON):
        mean = np.einsum("xy,kxy->kx", lottery, tilts)
        gradient = (intercepts + mean.mean(-1)) / beta
        if gradient @ theta - gradient.min() <= 0.1 * 2 * TARGET**2:
            break
        spread = tilts - mean[..., None]
        spread *= np.sqrt(lottery / len(lottery)) / beta
        spread = spread.reshape(len(theta), -1)
        hessian = spread @ spread.T
        step = _on_simplex(hessian, gradient - hessian @ theta) - theta
        along, length, slope = carried(step), 1.0, gradient @ step
        while length > 1e-10:
            tried, rest = best_response(utilities, tilt + length * along, beta)
            reached = (intercepts @ (theta + length * step) + rest) / beta
            if reached <= value + 1e-4 * length * slope:
                break
            length /= 2
        else:
            break  # rounding: no step is an improvement any more
        stalled = value - reached <= 1e-14 * abs(value)
        theta, tilt, value, lottery = theta + length * step, tilt + length * along, reached, tried
        if stalled:
            break  # rounding again
    # Anew from the weights, so that rounding does not add up.
    lottery, rest = best_response(utilities, carried(theta), beta)
    return theta, lottery, float(intercepts @ theta + rest)


def _on_simplex(
    quadratic: Float[np.ndarray, "cut cut"], linear: Float[np.ndarray, " cut"]
) -> Float[np.ndarray, " cut"]:
    """Return `argmin theta^T quadratic theta / 2 + linear · theta` over the simplex."""
    n = len(linear)
    scale = max(np.abs(quadratic).max(), np.ptp(linear), 1e-300)
    settings = qp.DefaultSettings()
    settings.verbose = False
    settings.tol_gap_abs = settings.tol_gap_rel = settings.tol_feas = 1e-12
    program = qp.DefaultSolver(
        sp.csc_matrix(np.triu(quadratic / scale)),
        (linear - linear.min()) / scale,
        sp.vstack([np.ones((1, n)), -sp.eye(n)], format="csc"),
        np.append(1.0, np.zeros(n)),
        [qp.ZeroConeT(1), qp.NonnegativeConeT(n)],
        settings,
    )
    theta = np.maximum(np.asarray(program.solve().x), 0)
    theta[theta < 1e-11] = 0
    return theta / theta.sum()


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

    def worst_off(u: Table) -> tuple[float, Table]:
        slope = np.zeros_like(u)
        draw, voter = np.unravel_index(u[:, :voters].argmin(), (len(u), voters))
        slope[draw, voter] = 1
        return float(u[draw, voter]), slope

    end = _descend(worst_off, utilities, beta / 100, utilities.reference, lambda u: bool((u[:, :voters] > 0).all()))
    if (utilities.expected(end.inside)[:, :voters] > 0).all():
        return end.inside
    holding = end.multipliers.sum(0)
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
