"""Many small concave programs side by side: one lottery each, by cuts, in the same few array operations.

    max_p  h(p) - KL(p || ref)        h concave, in nats

As in `solve`, a supergradient at any lottery bounds `h` everywhere: `h(p) <= c_k · p`, where `c_k[y]` is what cut `k`
allows where candidate `y` is certain. For weights `theta` on the simplex and every lottery,

    h(p) - KL(p || ref)  <=  log sum_y ref exp( sum_k theta_k c_k[y] )  =:  D(theta),

so whatever an inner solver does, the gap between a lottery's objective and `D` is a proof. The weights that make `D`
least are found by a primal-dual interior-point method (Wright 1997), one step of all programs at a time.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy.special import rel_entr

from pluralign.choice.solve import HALVINGS, TARGET

Lotteries = Float[np.ndarray, "program candidate"]
Cuts = Float[np.ndarray, "program cut candidate"]
Weights = Float[np.ndarray, "program cut"]
Values = Float[np.ndarray, " program"]
Rows = Int[np.ndarray, " program"]
Look = Callable[[Rows, Lotteries], tuple[Values, Lotteries]]

GAP = 2 * TARGET**2  # in nats: no optimal lottery is farther than TARGET (see `certify`)
ROUNDS = 60  # of cuts, at most
STEPS = 30  # of the interior-point method in a round, at most
NEAR = 0.1  # of a program's gap, to which its weights are found
INWARD = 0.01  # of the way to equal weights, from which they start
SHRINK = 0.1  # of complementarity, in a step
EDGE = 0.95  # of the way to the edge of the simplex, at most
ROUNDING = 1e-14  # of the largest entry of a matrix
BACK = 2.0**-20  # of a step, at least
FRESH = 1e-3  # weight of a new cut, so that it is not the one that makes room for the next
NOTHING = 1e-200  # weight of a place without a cut


@dataclass(frozen=True, eq=False)
class Ends:
    """Where cutting ended, for each program; values are in nats.

    Attributes:
        lottery: best under the weighted cuts.
        value: objective there.
        lower: best objective of any lottery met on the way; `-inf` if none was in the domain.
        upper: `D`.
        cuts: how many were made.
    """

    lottery: Lotteries
    value: Values
    lower: Values
    upper: Values
    cuts: Rows

    @property
    def solved(self) -> Bool[np.ndarray, " program"]:
        """True where the bounds meet."""
        return self.upper - self.lower <= GAP


class Board:
    """The cuts of every program that matter, with their weights."""

    def __init__(self, programs: int, candidates: int):
        places = 2 * candidates + 2  # no more than `candidates` have weight where D is least
        self.cut = np.zeros((programs, places, candidates))
        self.weight = np.full((programs, places), NOTHING)
        self.made = np.zeros(programs, int)

    def add(self, rows: Rows, cut: Lotteries) -> None:
        """Add a cut to each of these programs, in the first place of those with least weight."""
        place = self.weight[rows].argmin(1)
        self.cut[rows, place], self.weight[rows, place] = cut, FRESH
        self.made[rows] += 1


def ascend(look: Look, start: Lotteries, reference: Lotteries) -> Ends:
    """Add cuts to all programs until each one's bounds meet.

    Args:
        look: values and supergradients of `h` at lotteries of some of the programs; not finite outside its domain.
        start: lotteries to begin with, in the domain.
        reference: rows sum to 1; 0 = not a candidate.

    Returns:
        What was reached. Programs are not solved whose start is outside the domain, or whose bounds stay apart.
    """
    programs = len(reference)
    board, rows = Board(*reference.shape), np.arange(programs)
    lottery, best = start.copy(), start.copy()
    value, lower, upper = np.full(programs, -np.inf), np.full(programs, -np.inf), np.full(programs, np.inf)

    def cut(rows: Rows, point: Lotteries) -> Values:
        """Cut at these lotteries, keep those that are better, and return their objectives."""
        h, slope = look(rows, point)
        inside = np.isfinite(h) & np.isfinite(slope).all(1)
        reached = np.where(inside, h - rel_entr(point, reference[rows]).sum(1), -np.inf)
        # Cuts from far below, at the edge of the domain, would only add large numbers.
        inside &= reached >= lower[rows] - (upper[rows] - lower[rows])
        at, flat, steep = rows[inside], h[inside], slope[inside]
        board.add(at, (flat - (steep * point[inside]).sum(1))[:, None] + steep)
        better = reached > lower[rows]
        lower[rows[better]], best[rows[better]] = reached[better], point[better]
        return reached

    for _ in range(ROUNDS):
        before = lower[rows]
        value[rows] = cut(rows, lottery[rows])
        # A lottery that is worse than the best so far, or outside the domain, overshot: cut on the way to it as well.
        over, point, back = (value[rows] <= before) & np.isfinite(before), lottery.copy(), 1.0
        while over.any() and back > HALVINGS:
            some, back = rows[over], back / 2
            point[some] = (point[some] + best[some]) / 2
            over[over] = cut(some, point[some]) <= before[over]
        rows = rows[(upper[rows] - lower[rows] > GAP) & (board.made[rows] > 0)]
        if not len(rows):
            break
        fine = NEAR * np.minimum(upper[rows] - lower[rows], 1.0)
        board.weight[rows], lottery[rows], bound = least(board.cut[rows], board.weight[rows], reference[rows], fine)
        upper[rows] = np.minimum(upper[rows], bound)
    else:
        value[rows] = cut(rows, lottery[rows])
    return Ends(lottery, value, lower, upper, board.made)


def least(cut: Cuts, weight: Weights, reference: Lotteries, fine: Values) -> tuple[Weights, Lotteries, Values]:
    """Return weights that make `D` least up to `fine`, the lotteries that are best under them, and `D`.

    The conditions are `c_k · p - t = s_k`, `theta_k s_k = mu`, `sum theta = 1` and `p ∝ ref exp(sum theta c)`, with mu
    to 0. The Hessian of `D` is the covariance of cuts under the lottery. The gap of Frank and Wolfe (1956),
    `sum theta c · p - min_k c_k · p`, bounds the error of `D`.
    """
    places = int((weight > NOTHING).sum(1).max())  # they fill up in order
    live = weight[:, :places] > NOTHING
    found, cut = np.full_like(weight, NOTHING), cut[:, :places]
    theta, count = np.where(live, weight[:, :places], 0), live.sum(1)
    theta = (1 - INWARD) * theta / theta.sum(1, keepdims=True) + INWARD * live / count[:, None]
    lottery, bound = _respond(cut, theta, reference)
    lotteries, bounds = lottery.copy(), bound.copy()
    rows, slack, level = np.arange(len(cut)), np.ones_like(theta), np.zeros(len(cut))
    for step in range(STEPS):
        worth = (cut @ lottery[..., None])[..., 0]
        lowest = np.where(live, worth, np.inf).min(1)
        excess = (theta * worth).sum(1) - lowest
        found[rows, :places] = np.where(live, theta, NOTHING)
        lotteries[rows], bounds[rows] = lottery, bound
        on = excess > fine
        if not on.any():
            break
        if step == 0:
            level = lowest - excess / count
            slack = np.where(live, worth - level[:, None], 1.0)
        rows, cut, reference, fine, live, count, theta, slack, level, lottery, bound, worth = _only(
            on, rows, cut, reference, fine, live, count, theta, slack, level, lottery, bound, worth
        )
        mu = SHRINK * (theta * slack).sum(1) / count
        along, tighten, rise = _newton(cut, lottery, worth, live, theta, slack, level, mu)
        length = np.minimum(1, EDGE * np.minimum(_room(theta, along), _room(slack, tighten)))
        start = bound - mu * _logs(theta, live)
        while True:
            tried = theta + length[:, None] * along
            lottery, bound = _respond(cut, tried, reference)
            over = bound - mu * _logs(tried, live) > start + 1e-12 * np.abs(start)
            if not (over & (length > BACK)).any():
                break
            length = np.where(over, length / 2, length)
        theta = np.where(live, np.maximum(tried, 2 * NOTHING), 0)
        slack, level = slack + length[:, None] * tighten, level + length * rise
    return found, lotteries, bounds


def _newton(
    cut: Cuts,
    lottery: Lotteries,
    worth: Weights,
    live: Bool[np.ndarray, "program cut"],
    theta: Weights,
    slack: Weights,
    level: Values,
    mu: Values,
) -> tuple[Weights, Weights, Values]:
    """Return the step of weights, slack and level to where the conditions hold, by their derivatives here."""
    diagonal = np.arange(cut.shape[1])
    inverse = 1 / np.where(live, theta, 1.0)
    spread = (cut - worth[..., None]) * np.sqrt(lottery)[:, None]
    system = spread @ spread.swapaxes(1, 2)
    # The covariance has a rank below `candidate`, so that rounding could make the system singular.
    size = system[:, diagonal, diagonal].max(1, keepdims=True)
    system[:, diagonal, diagonal] += np.where(live, np.maximum(slack * inverse, ROUNDING * size + NOTHING), 1.0)
    right = np.stack([live.astype(float), mu[:, None] * inverse - worth + level[:, None]], -1)
    system *= live[:, None] & live[..., None] | np.eye(len(diagonal), dtype=bool)
    one, both = np.moveaxis(np.linalg.solve(system, right * live[..., None]), -1, 0)
    rise = -both.sum(1) / one.sum(1)
    along = both + rise[:, None] * one
    tighten = np.where(live, mu[:, None] * inverse - slack - slack * inverse * along, 0)
    return along, tighten, rise


def _only(on: Bool[np.ndarray, " program"], *arrays: np.ndarray) -> Iterator[np.ndarray]:
    return (x[on] for x in arrays)


def _respond(cut: Cuts, theta: Weights, reference: Lotteries) -> tuple[Lotteries, Values]:
    """Return `p ∝ ref exp(sum theta c)` and `D`; theta sums to 1 but for rounding."""
    theta = theta / theta.sum(1, keepdims=True)
    tilt = np.where(reference > 0, (theta[:, None] @ cut)[:, 0], -np.inf)
    top = tilt.max(1, keepdims=True)
    mass = reference * np.exp(tilt - top)
    total = mass.sum(1, keepdims=True)
    return mass / total, (top + np.log(total))[:, 0]


def _room(x: Weights, step: Weights) -> Values:
    """Return how many times the step fits between x and 0."""
    return (x / np.maximum(-step, NOTHING)).min(1, where=step < 0, initial=np.inf)


def _logs(theta: Weights, live: Bool[np.ndarray, "program cut"]) -> Values:
    return np.log(np.where(live, theta, 1.0)).sum(1)
