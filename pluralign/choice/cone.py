"""Which comparisons some weight vector can make true all at once, and the shortest weight vector that does.

Each comparison is a row `d = (phi_x - phi_y) / |phi_x - phi_y|`, and is true for `theta` if `theta · d > 0`. Either
some unit vector makes all rows true, or some weights `y >= 0` of sum 1 have `sum y d = 0` (Gordan 1873):

    max_{|theta| <= 1} min_d theta · d  =  min_{y in simplex} |sum y d|,

so a weight vector proves that a margin is reached, and weights `y` that none larger is. One least-squares problem with
`y >= 0` (Lawson and Hanson 1974, chapter 23) finds both.
"""

import time
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy.optimize import Bounds, LinearConstraint, milp, nnls

from pluralign.choice.ballots import TIE
from pluralign.errors import SolveError

Rows = Float[np.ndarray, "row feature"]

MARGIN = 1e-11  # comparisons that no unit weight vector makes true by more cannot be made true
NEAR = 0.1  # of the largest margin there is, which a weight vector that is good enough reaches
ADDED = 20  # rows that are looked at more closely after each solve
EXACT = 1e-6  # relative, of the length of the shortest weight vector
MEND = (
    "Usually features of some candidates differ by rounding only (round them, so that such candidates are the same), "
    "or thousands of prompts leave hardly any freedom to the weights: use fewer prompts."
)
FEWER = "Exact search is for few prompts and features: use lcpo, fewer prompts, or more seconds."
SMALL = 1e-4  # margins below which a mean of rows no longer has digits for them
REFINED = 3  # times that what rounding left of an equation is solved again


@dataclass(frozen=True, eq=False)
class Separation:
    """A weight vector that makes all comparisons true, or a proof that there is none.

    Attributes:
        theta: of length 1; None if there is none.
        margin: `min_d theta · d`; without theta, what no unit vector exceeds.
        rows: those that matter: tight ones, or comparisons of which at least one is false.
        weights: theirs in the proof, positive, of sum 1.
    """

    theta: Float[np.ndarray, " feature"] | None
    margin: float
    rows: Int[np.ndarray, " tight"]
    weights: Float[np.ndarray, " tight"]


def separate(rows: Rows, start: Int[np.ndarray, " start"]) -> Separation:
    """Return a unit weight vector that makes all comparisons true by nearly the largest margin, or why there is none.

    Args:
        rows: of length 1; at least one.
        start: rows to look at first; only those that turn out to matter are added.

    Raises:
        SolveError: neither was found; numerics.
    """
    working = np.unique(start) if len(start) else np.arange(min(ADDED, len(rows)))
    unit = 1.0
    while True:
        y = _least(np.vstack([rows[working].T / unit, np.ones(len(working))]))
        inside = np.flatnonzero(y)
        share = y[inside] / y.sum()
        mean = share @ rows[working[inside]]
        size = float(np.linalg.norm(mean))
        if size <= MARGIN:
            return Separation(None, size, working[inside], share)
        direction = _level(rows[working[inside]]) if size < SMALL else mean
        product = rows @ (direction / np.linalg.norm(direction))
        least = float(product.min())
        if least >= NEAR * size:
            return Separation(direction / np.linalg.norm(direction), least, working[inside], share)
        worst = np.setdiff1d(np.argsort(product)[:ADDED], working)
        worst = worst[product[worst] < NEAR * size]
        if len(worst):
            working = np.append(working, worst)
        elif size < NEAR * unit:
            unit = size  # margins are so small that the sum of y, near 1, no longer has digits for them
        else:
            raise SolveError(
                f"whether a weight vector makes {len(rows)} comparisons true was not decided: the best margin lies "
                f"between {least:.3g} and {size:.3g}. {MEND}"
            )


def shortest(differences: Rows, theta: Float[np.ndarray, " feature"]) -> Float[np.ndarray, " feature"]:
    """Return `argmin |w|` with `w · d >= 1` for every difference d: the weight vector of hard margin, which is unique.

    Args:
        differences: of features.
        theta: a weight vector for which all are positive.

    Raises:
        SolveError: no weight vector was shown to be shortest.
    """
    unit = float((differences @ theta).min()) / float(np.linalg.norm(theta))
    rows = differences / unit  # of these, theta / |theta| is a solution: the shortest has length 1 at most
    long = np.maximum(1, np.linalg.norm(rows, axis=1))
    y = _least(np.vstack([rows.T, np.ones(len(rows))]) / long)
    tight = rows[y > 0]
    w = _level(tight)  # the same to the last digits
    duals = np.maximum(np.linalg.lstsq(tight.T, w)[0], 0)
    short, bound = float((rows @ w).min()), 2 * duals.sum() - np.square(duals @ tight).sum()
    # Weak duality: every solution has |w|^2 >= 2 sum y - |sum y d|^2. The negation also catches what is not a number.
    if not (short >= 1 - EXACT and w @ w <= (1 + EXACT) * bound):
        raise SolveError(
            f"the shortest weight vector was not found: a difference that should be 1 is {short:.6g}. {MEND}"
        )
    return w / short / unit


def _level(rows: Rows) -> Float[np.ndarray, " feature"]:
    """Return the shortest `w` with `w · d = 1` for every row d."""
    w = np.zeros(rows.shape[1])
    for _ in range(REFINED):
        w += np.linalg.lstsq(rows, 1 - rows @ w)[0]
    return w


def give_up(
    rows: Rows, cost: Float[np.ndarray, " row"], fixed: Bool[np.ndarray, " row"], seconds: float
) -> tuple[Bool[np.ndarray, " row"], float]:
    """Return the rows to keep so that a weight vector makes them true, those given up being cheapest; and their cost.

    Args:
        rows: of length 1.
        cost: of giving each up, positive.
        fixed: rows that must be kept.
        seconds: how long to search, at most.

    Raises:
        SolveError: it is not known whether there is a cheaper way.
    """
    clock = time.perf_counter()
    if not len(rows):
        return np.ones(0, bool), 0.0
    cover, best, keep, bound = np.zeros((0, len(rows)), bool), np.inf, fixed, 0.0
    while (left := seconds - time.perf_counter() + clock) > 0:
        dropped, least = _cheapest(cover, cost, left)
        bound = max(bound, least)
        if dropped is None:
            break
        trial = ~dropped
        while True:
            index = np.flatnonzero(trial)
            found = separate(rows[index], np.arange(0))
            if found.theta is not None:
                break
            clash = index[found.rows]
            clash = clash[~fixed[clash]]
            if not len(clash):
                raise SolveError("no weight vector makes all comparisons true that are to be kept.")
            cover = np.vstack([cover, np.isin(np.arange(len(rows)), clash)])
            trial[clash[cost[clash].argmin()]] = False
        holds = rows @ found.theta > MARGIN
        if cost[~holds].sum() < best:
            best, keep = float(cost[~holds].sum()), holds
        if best <= bound + TIE * len(cost):
            return keep, bound
    raise SolveError(
        f"the cheapest comparisons to give up were not found: the least cost that was met is {best:.6g}, and none is "
        f"below {bound:.6g}. {FEWER}"
    )


def _cheapest(
    cover: Bool[np.ndarray, "set row"], cost: Float[np.ndarray, " row"], seconds: float
) -> tuple[Bool[np.ndarray, " row"] | None, float]:
    """Return the cheapest rows that hit every set, None if time is up, and a bound on their cost from below.

    Raises:
        SolveError: the integer program was not solved, for another reason.
    """
    if not len(cover):
        return np.zeros(len(cost), bool), 0.0
    used = np.flatnonzero(cover.any(0))
    unit = cost.max() / 1e4  # HiGHS stops at an absolute gap of 1e-6
    found = milp(
        cost[used] / unit,
        integrality=np.ones(len(used)),
        bounds=Bounds(0, 1),
        constraints=LinearConstraint(cover[:, used].astype(float), lb=1),
        options={"mip_rel_gap": 0.0, "time_limit": seconds},
    )
    if found.status == 1:
        return None, max(float(found.mip_dual_bound or 0) * unit, 0.0)
    if found.status != 0:
        raise SolveError(f"the cheapest comparisons to give up were not found: {found.message} {FEWER}")
    dropped = np.zeros(len(cost), bool)
    dropped[used[found.x > 0.5]] = True
    return dropped, float(cost[dropped].sum())


def _least(columns: Float[np.ndarray, "feature row"]) -> Float[np.ndarray, " row"]:
    """Return `argmin |columns y - (0, ..., 0, 1)|` over y >= 0."""
    target = np.zeros(len(columns))
    target[-1] = 1
    try:
        return nnls(columns, target, maxiter=100 * sum(columns.shape))[0]
    except RuntimeError as error:
        raise SolveError(f"comparisons were not decided: {error}. {MEND}") from error
