"""The one place that calls a solver: a concave program, its multipliers, and a certificate made without trusting it.

    max_{p, u}  f(u) - beta mean_x KL(p_x || ref_x)    s.t.  u[draw, voter] <= mean_x sum_y p U    (multipliers lambda)

`f` is any concave, non-decreasing function that cvxpy can state. The Lagrangian splits into one part in `p`, whose
maximum is `beta mean_x log sum_y ref exp(sum lambda U / beta)` at `p ∝ ref exp(sum lambda U / beta)`, and one in `u`,
`max_u f(u) - <lambda, u>`. Any `lambda >= 0` so gives an upper bound, and any lottery a lower one. If the two meet,
the lottery is optimal whatever the solver did.
"""

import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import cvxpy as cp
import numpy as np
import scipy.sparse as sp
from jaxtyping import Float, Int
from scipy.special import rel_entr

from pluralign.choice.scale import best, chunks, worst
from pluralign.errors import SolveError
from pluralign.types import Certificate, Linear, Utilities

Objective = Callable[[cp.Expression], cp.Expression]
Table = Float[np.ndarray, "draw voter"]
Lottery = Float[np.ndarray, "prompt candidate"]

TV = 1e-3  # largest accepted total variation, in any prompt, between the solver's lottery and the rebuilt one
TV_BOUND = 1e-2  # largest accepted bound on the mean total variation to the optimum
DEFAULT = {"accept_unknown": True}
TIGHT = {"accept_unknown": True, "tol_gap_abs": 1e-11, "tol_gap_rel": 1e-11, "tol_feas": 1e-11, "max_iter": 500}
SOLVED = (cp.OPTIMAL, cp.OPTIMAL_INACCURATE)


def solve(
    objective: Objective, utilities: Utilities, beta: float, *, name: str, positive: bool
) -> tuple[Lottery, Table, Certificate]:
    """Return the lottery, the multipliers and the certificate.

    The lottery is the one rebuilt from the multipliers, and the certificate is about that one. Whether it holds is
    decided by the certificate, not by the solver's own word ("optimal" or "optimal, inaccurate"); where it fails, the
    program is solved once more with tighter tolerances.

    Args:
        objective: makes the concave expression `f(u)` of an expression `u[draw, voter]`.
        utilities: of voters with positive mass, which lotteries move by about 1.
        beta: price of a nat of divergence.
        name: of the rule, for messages.
        positive: True if `f` is defined for positive utilities only.

    Raises:
        SolveError: no certified solution.
    """
    start = time.perf_counter()
    failure = ""
    for settings in (DEFAULT, TIGHT):
        status, lottery, multipliers = _primal(objective, utilities, beta, settings)
        if lottery is None or multipliers is None:
            failure = f"the solver ended with status {status!r}"
            continue
        try:
            certificate = certify(objective, utilities, beta, multipliers, lottery)
        except SolveError as error:
            failure = f"{error} (solver status {status!r})"
            continue
        certificate = replace(certificate, solver=f"Clarabel, {status}", seconds=time.perf_counter() - start)
        return rebuild(utilities, multipliers, beta)[0], multipliers, certificate
    raise SolveError(f"{name} was not solved: {failure}. {_advice(utilities, beta, positive)}")


def rebuild(utilities: Utilities, multipliers: Table, beta: float) -> tuple[Lottery, float]:
    """Return `p ∝ ref exp(tilt / beta)`, `tilt = sum multipliers U`, and `mean_x log sum_y ref exp(tilt / beta)`."""
    tilt = np.where(utilities.reference > 0, utilities.weighted(multipliers) / beta, -np.inf)
    top = tilt.max(-1, keepdims=True)
    mass = utilities.reference * np.exp(tilt - top)
    total = mass.sum(-1, keepdims=True)
    return mass / total, float((top + np.log(total)).mean())


def certify(
    objective: Objective,
    utilities: Utilities,
    beta: float,
    multipliers: Table,
    lottery: Lottery,
    *,
    tv_tolerance: float = TV,
    bound_tolerance: float = TV_BOUND,
) -> Certificate:
    """Return evidence that the lottery rebuilt from `multipliers` is optimal, and is the solver's `lottery`.

    The part of the Lagrangian in `p` is `max - beta mean_x KL(p_x || rebuilt_x)` exactly, so at the optimum `p*`
    `upper_bound - F(p*) >= beta mean_x KL(p*_x || rebuilt_x)`. With `TV^2 <= KL / 2` (Pinsker) and `F(p*) >= F(p)` for
    whichever of the two lotteries is better, `mean_x TV(p*_x, rebuilt_x) <= sqrt((upper_bound - F(p)) / (2 beta))`.

    Two checks: `tv` compares two routes to the same lottery, primal and dual, and is far below its tolerance when
    the signs and units of the multipliers are right; `tv_bound` is a proof, but grows as the square root of the
    solver's accuracy, hence its wider tolerance.

    Raises:
        SolveError: either is beyond its tolerance.
    """

    def value(p: Lottery) -> float:
        divergence = float(rel_entr(p, utilities.reference).sum()) / len(p)
        return float(np.asarray(objective(cp.Constant(utilities.expected(p))).value)) - beta * divergence

    with np.errstate(all="ignore"):  # outside the domain of the welfare; found below
        rebuilt, log_mean = rebuild(utilities, multipliers, beta)
        upper = beta * log_mean + _conjugate(objective, utilities, multipliers)
        reached = value(rebuilt)
        gap = upper - reached
        lower = np.fmax(reached, value(lottery))
        tv = float(np.abs(rebuilt - lottery).sum(-1).max() / 2)
        tv_bound = float(np.sqrt(abs(upper - lower) / (2 * beta)))
    # The negation also catches what is not a number.
    if not (np.isfinite(gap) and tv <= tv_tolerance and tv_bound <= bound_tolerance):
        raise SolveError(
            f"the certificate failed: the objective is {reached:.8g} at the lottery, its upper bound {upper:.8g} (gap "
            f"{gap:.2g}); in total variation the optimum may be {tv_bound:.2g} away (tolerance {bound_tolerance:g}), "
            f"and the solver's own lottery is {tv:.2g} away (tolerance {tv_tolerance:g})"
        )
    return Certificate(reached, upper, gap, tv, tv_bound, tv_tolerance, solver="", seconds=0.0)


def attainable(utilities: Utilities) -> tuple[Table, Table]:
    """Return the lowest and the highest `u[draw, voter]` that any lottery gives."""
    low, high = np.empty(utilities.shape[:2]), np.empty(utilities.shape[:2])
    for draws, values in chunks(utilities):
        low[draws], high[draws] = worst(values, utilities.reference), best(values, utilities.reference)
    return low, high


def _run(problem: cp.Problem, settings: dict) -> str:
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        # "Solution may be inaccurate", or outside the domain of the welfare: the certificate decides that.
        warnings.simplefilter("ignore", UserWarning)
        try:
            problem.solve(solver=cp.CLARABEL, **settings)
        except cp.SolverError:
            return cp.SOLVER_ERROR
    return problem.status


@dataclass(frozen=True, eq=False)
class _Link:
    """Variables and constraints that every program shares: lotteries, and what they give to whom."""

    x: Int[np.ndarray, " entry"]
    y: Int[np.ndarray, " entry"]
    p: cp.Variable
    u: cp.Variable
    link: Any
    constraints: list[Any]


def _link(utilities: Utilities) -> _Link:
    reference = utilities.reference
    x, y = np.nonzero(reference > 0)
    p, u = cp.Variable(len(x), nonneg=True), cp.Variable(utilities.shape[:2])
    total = sp.csr_array((np.ones(len(x)), (x, np.arange(len(x)))), shape=(len(reference), len(x)))
    constraints: list[Any] = [total @ p == 1]
    # Lotteries sum to 1, so utilities may be centred within prompts: digits go where differences are.
    if isinstance(utilities.value, Linear):
        phi = utilities.value.phi
        centred = (phi - np.einsum("xyf,xy->xf", phi, reference)[:, None])[x, y] / len(reference)
        embedding = cp.Variable(centred.shape[1])  # E_p phi - E_ref phi: all that utilities see of the lottery
        constraints.append(embedding == centred.T @ p)
        gain = utilities.value.weights.reshape(u.size, -1) @ embedding
    else:
        value = utilities.value
        centred = (value - np.einsum("svxy,xy->svx", value, reference)[..., None])[..., x, y] / len(reference)
        gain = centred.reshape(u.size, -1) @ p
    link = u <= utilities.expected(reference) + cp.reshape(gain, u.shape, order="C")
    return _Link(x, y, p, u, link, [*constraints, link])


def _primal(
    objective: Objective, utilities: Utilities, beta: float, settings: dict
) -> tuple[str, Lottery | None, Table | None]:
    """Return the solver's status, lottery and multipliers."""
    v = _link(utilities)
    divergence = cp.sum(cp.rel_entr(v.p, utilities.reference[v.x, v.y])) / len(utilities.reference)
    unit = 1 + beta  # welfare and divergence are of size 1
    problem = cp.Problem(cp.Maximize(objective(v.u) * (1 / unit) - (beta / unit) * divergence), v.constraints)
    status = _run(problem, settings)
    if status not in SOLVED or v.p.value is None or v.link.dual_value is None:
        return status, None, None
    lottery = np.zeros_like(utilities.reference)
    lottery[v.x, v.y] = np.maximum(v.p.value, 0)
    lottery /= lottery.sum(-1, keepdims=True)
    return status, lottery, np.maximum(v.link.dual_value, 0) * unit


def _conjugate(objective: Objective, utilities: Utilities, multipliers: Table) -> float:
    """Return `max_u f(u) - <multipliers, u>` over the box that holds every attainable `u`."""
    low, high = attainable(utilities)
    u = cp.Variable(utilities.shape[:2])
    problem = cp.Problem(cp.Maximize(objective(u) - cp.sum(cp.multiply(multipliers, u))), [u >= low, u <= high])
    status = _run(problem, DEFAULT)
    if status not in SOLVED or problem.value is None:
        raise SolveError(f"the upper bound could not be computed, its solver ended with status {status!r}")
    return float(np.asarray(problem.value))


def _advice(utilities: Utilities, beta: float, positive: bool) -> str:
    """Return what usually makes a solve fail, with names where they can be found."""
    if positive:
        least, holding = _best_worst_off(utilities)
        if least < 1e-7:  # utilities are of size 1 here, and a linear program knows 0 only to its tolerance
            return (
                "The rule needs a positive utility for every voter in every draw, and no lottery gives that: these "
                f"stand in each other's way: {', '.join(holding)}. The scale is {utilities.scale!r}; StdScale and "
                "RangeScale measure from the worst candidate, which avoids this, and fewer draws make it rarer."
            )
    low, high = attainable(utilities)
    ratio = (high - low).mean() / beta
    if ratio > 3000:
        return f"Utilities differ by {ratio:.2g} beta, so the lottery is nearly deterministic; use a larger beta."
    return (
        "Usually utilities of voters differ by many orders of magnitude (use StdScale or RangeScale), or beta is very "
        f"small or large for them: they differ by {ratio:.2g} beta on average, 1 to 100 is common."
    )


def _best_worst_off(utilities: Utilities) -> tuple[float, list[str]]:
    """Return the largest utility that everyone can have at once in every draw, and who stands in the way of more."""
    v = _link(utilities)
    problem = cp.Problem(cp.Maximize(cp.min(v.u)), v.constraints)
    if _run(problem, DEFAULT) not in SOLVED:
        return np.inf, []
    holding = v.link.dual_value.sum(0)
    names = [str(np.asarray(utilities.voters)[i]) for i in np.argsort(-holding)[:5] if holding[i] > 0.01]
    return float(np.asarray(problem.value)), names
