"""Cuts of a concave function that is made of parts, and the least upper bound that they prove.

The objective is `f(u) = R(w_1(u), ..., w_m(u))`, with parts `w_i` concave and `R` concave and non-decreasing: welfare
in each draw and the risk measure that combines draws, or the whole of `f` as one part. Supergradients bound both,

    w_i(u) <= a_k + <g_k, u>  for every cut k of part i,       R(w) <= b_j + <q_j, w>  for every cut j of R,

so for weights `eta` on the simplex and `theta >= 0` with `sum_{k of i} theta_k = sum_j eta_j q_ji`, and every lottery,

    f(u(p)) - beta mean KL  <=  b · eta + a · theta + <lambda, u(p)> - beta mean KL
                            <=  b · eta + a · theta + beta mean_x log sum_y ref exp(tilt / beta)  =:  D(theta, eta),

`lambda = sum theta_k g_k`, `tilt = sum lambda U`, the second with equality at `p ∝ ref exp(tilt / beta)`. Cuts of
separate parts combine freely, where cuts of the whole would need one for every combination: a minimum over voters in
each of many draws takes hundreds of those and a dozen rounds of these.
"""

from dataclasses import dataclass
from typing import Any

import clarabel
import numpy as np
import scipy.sparse as sp
from jaxtyping import Float, Int

from pluralign.types import Linear, Utilities

qp: Any = clarabel  # compiled, without type stubs

Table = Float[np.ndarray, "draw voter"]
Lottery = Float[np.ndarray, "prompt candidate"]
NEAR = 1e-12  # relative to values: a bound so near is known already
NEWTON = 50  # steps, at most, between two rounds of cuts
SPARE = 3  # rounds whose cuts are kept even without weight
TINY = 1e-11  # weights that are rounding
MANY = 80  # cuts, from which on the solver's dense factorisation is faster


@dataclass(frozen=True, eq=False)
class Part:
    """One part at one `u`.

    Attributes:
        value: `w_i(u)`.
        where: index of the block of `u` that the part depends on.
        slope: its supergradient there.
    """

    value: float
    where: Any
    slope: Float[np.ndarray, "..."]


@dataclass(frozen=True, eq=False)
class Whole:
    """All parts at one `u`, and what `R` makes of them: its value and a supergradient."""

    parts: tuple[Part, ...]
    value: float
    share: Float[np.ndarray, " part"]


@dataclass(eq=False)
class Cut:
    """`w_part(u) <= intercept + <slope, u[where]>`; `tilt` and `constant` are what that is in the lottery."""

    part: int
    where: Any
    slope: Float[np.ndarray, "..."]
    intercept: float
    tilt: Float[np.ndarray, " basis"]
    constant: float
    made: int
    weight: float

    def at(self, u: Table) -> float:
        """Return the bound at `u`."""
        return self.intercept + float(np.vdot(self.slope, u[self.where]))


@dataclass(eq=False)
class Outer:
    """`R(w) <= intercept + <share, w>`."""

    intercept: float
    share: Float[np.ndarray, " part"]
    made: int
    weight: float


def best_response(utilities: Utilities, tilt: Lottery, beta: float) -> tuple[Lottery, float]:
    """Return `p ∝ ref exp(tilt / beta)` and `beta mean_x log sum_y ref exp(tilt / beta)`."""
    scaled = np.where(utilities.reference > 0, tilt / beta, -np.inf)
    top = scaled.max(-1, keepdims=True)
    mass = utilities.reference * np.exp(scaled - top)
    total = mass.sum(-1, keepdims=True)
    return mass / total, beta * float((top + np.log(total)).mean())


class Bundle:
    """Cuts with weights, those that make `D` least."""

    def __init__(self, utilities: Utilities, beta: float):
        self.utilities, self.beta = utilities, beta
        self.cuts: list[Cut] = []
        self.outer: list[Outer] = []
        self.made = self.rounds = 0

    def add(self, u: Table, whole: Whole) -> bool:
        """Add what values and supergradients at `u` prove that was not known; return whether there was anything."""
        first, values = not self.outer, np.array([part.value for part in whole.parts])
        model = np.full(len(values), np.inf)
        if len(values) > 1:  # one part alone is never known at a new `u`
            for cut in self.cuts:
                model[cut.part] = min(model[cut.part], cut.at(u))
        new = np.flatnonzero(~(model <= values + NEAR * np.maximum(1, np.abs(values))))
        for i in new:
            part = whole.parts[i]
            intercept = part.value - float(np.vdot(part.slope, u[part.where]))
            weight = float(whole.share[i]) if first else 0.0
            self.cuts.append(Cut(int(i), part.where, part.slope, intercept, *self._carried(part), self.rounds, weight))
        bound = min((o.intercept + o.share @ values for o in self.outer), default=np.inf)
        further = not bound <= whole.value + NEAR * max(1, abs(whole.value))
        if further:
            self.outer.append(Outer(whole.value - float(whole.share @ values), whole.share, self.rounds, float(first)))
        self.made += max(len(new), int(further))
        return bool(len(new)) or further

    def age(self) -> None:
        """Begin a round: forget cuts that have long had no weight."""
        self.cuts = [cut for cut in self.cuts if cut.weight > 0 or cut.made > self.rounds - SPARE]
        self.outer = [cut for cut in self.outer if cut.weight > 0 or cut.made > self.rounds - SPARE]
        self.rounds += 1

    def multipliers(self) -> Table:
        """Return `lambda = sum theta g`."""
        found = np.zeros(self.utilities.shape[:2])
        for cut in self.cuts:
            if cut.weight > 0:
                found[cut.where] += cut.weight * cut.slope
        return found

    def least(self, fine: float) -> tuple[Lottery, float]:
        """Find the weights that make `D` least; return their lottery, and `D`.

        By Newton steps that are quadratic programs. In units of beta, `D = c · x + mean_x log sum_y ref exp(tilt)`,
        whose Hessian is the mean over prompts of the covariance of the cuts' tilts under the lottery. The gradient
        bounds the error of `D` (Frank and Wolfe 1956); it may be `fine`.
        """
        cuts, outer, beta = self.cuts, self.outer, self.beta
        tilts = np.stack([cut.tilt for cut in cuts])
        constant = np.array([cut.intercept + cut.constant for cut in cuts] + [o.intercept for o in outer]) / beta
        part, share = np.array([cut.part for cut in cuts]), np.stack([o.share for o in outer])
        x = np.array([cut.weight for cut in cuts] + [o.weight for o in outer])
        n = len(cuts)
        tilt = self._spread(x[:n] @ tilts)
        lottery, rest = best_response(self.utilities, tilt, beta)
        value = constant @ x + rest / beta
        for _ in range(NEWTON):
            mean, hessian = self._moments(tilts, lottery)
            gradient = constant + np.append(mean / beta, np.zeros(len(outer)))
            if _excess(gradient, x, part, share) <= fine:
                break
            step = _program(hessian, gradient, x, part, share) - x
            along, length, slope = self._spread(step[:n] @ tilts), 1.0, gradient @ step
            while length > 1e-10:
                tried, rest = best_response(self.utilities, tilt + length * along, beta)
                reached = constant @ (x + length * step) + rest / beta
                if reached <= value + 1e-4 * length * slope:
                    break
                length /= 2
            else:
                break  # rounding: no step is an improvement any more
            stalled = value - reached <= 1e-14 * abs(value)
            x, tilt, value, lottery = x + length * step, tilt + length * along, reached, tried
            if stalled:
                break  # rounding again
        for entry, weight in zip([*cuts, *outer], x, strict=True):
            entry.weight = float(weight)
        # Anew from the weights, so that rounding does not add up.
        lottery, rest = best_response(self.utilities, self._spread(x[:n] @ tilts), beta)
        return lottery, float(beta * (constant @ x) + rest)

    def _carried(self, part: Part) -> tuple[np.ndarray, float]:
        """Return the part's slope as a vector in features, or as a reward of each candidate; and what is constant."""
        value, slope, constant = self.utilities.value, np.ravel(part.slope), 0.0
        if isinstance(value, Linear):
            constant, value = float(np.vdot(part.slope, value.offset[part.where])), value.weights
        rows, on = value[part.where].reshape(slope.size, -1), np.flatnonzero(slope)
        # A minimum has a slope for one voter a draw: then most of the table need not be read.
        return (slope[on] @ rows[on] if 8 * len(on) < len(slope) else slope @ rows), constant

    def _spread(self, vector: Float[np.ndarray, " basis"]) -> Lottery:
        """Return the reward of each candidate."""
        value = self.utilities.value
        if isinstance(value, Linear):
            return value.phi @ vector
        return vector.reshape(self.utilities.reference.shape)

    def _moments(
        self, tilts: Float[np.ndarray, "cut basis"], lottery: Lottery
    ) -> tuple[Float[np.ndarray, " cut"], Float[np.ndarray, "cut cut"]]:
        """Return each cut's mean tilt under the lottery, and the mean covariance within a prompt in units of beta."""
        value, prompts = self.utilities.value, len(lottery)
        if isinstance(value, Linear):
            middle = lottery[:, None] @ value.phi
            centred = value.phi - middle
            centred *= (np.sqrt(lottery / prompts) / self.beta)[..., None]
            flat = centred.reshape(-1, centred.shape[-1])
            return tilts @ middle.mean((0, 1)), tilts @ (flat.T @ flat) @ tilts.T
        table = tilts.reshape(len(tilts), *lottery.shape)
        middle = np.einsum("xy,kxy->kx", lottery, table)
        centred = table - middle[..., None]
        centred *= np.sqrt(lottery / prompts) / self.beta
        flat = centred.reshape(len(tilts), -1)
        return middle.mean(-1), flat @ flat.T


def _program(
    hessian: Float[np.ndarray, "cut cut"],
    gradient: Float[np.ndarray, " weight"],
    x: Float[np.ndarray, " weight"],
    part: Int[np.ndarray, " cut"],
    share: Float[np.ndarray, "outer part"],
) -> Float[np.ndarray, " weight"]:
    """Return weights that minimise the quadratic model around `x`; cuts of a part sum to what `R` gives the part."""
    n, total = len(part), len(x)
    linear = gradient.copy()
    linear[:n] -= hessian @ x[:n]
    scale = max(np.abs(hessian).max(), np.ptp(linear), 1e-300)
    parts = share.shape[1]
    # Written out: for the few cuts of a small program, putting sparse blocks together would take most of the time.
    rows = np.zeros((parts + 1 + total, total))
    rows[part, np.arange(n)] = 1
    rows[:parts, n:] = -share.T
    rows[parts, n:] = 1
    rows[parts + 1 :] = -np.eye(total)
    quadratic = sp.csc_matrix(np.pad(np.triu(hessian / scale), (0, total - n)))
    settings = qp.DefaultSettings()
    settings.verbose = False
    settings.tol_gap_abs = settings.tol_gap_rel = settings.tol_feas = 1e-15
    settings.direct_solve_method = "faer" if n > MANY else "qdldl"
    settings.max_threads = 1
    program = qp.DefaultSolver(
        quadratic,
        (linear - linear.min()) / scale,
        sp.csc_matrix(rows),
        np.concatenate([np.zeros(parts), [1.0], np.zeros(total)]),
        [qp.ZeroConeT(parts + 1), qp.NonnegativeConeT(total)],
        settings,
    )
    return _feasible(np.maximum(np.asarray(program.solve().x), 0), part, share)


def _excess(
    gradient: Float[np.ndarray, " weight"],
    x: Float[np.ndarray, " weight"],
    part: Int[np.ndarray, " cut"],
    share: Float[np.ndarray, "outer part"],
) -> float:
    """Return how much a linear function is above its minimum over all weights: the gap of Frank and Wolfe."""
    least = np.full(share.shape[1], np.inf)
    np.minimum.at(least, part, gradient[: len(part)])
    return float(gradient @ x - (gradient[len(part) :] + share @ least).min())


def _feasible(
    x: Float[np.ndarray, " weight"], part: Int[np.ndarray, " cut"], share: Float[np.ndarray, "outer part"]
) -> Float[np.ndarray, " weight"]:
    """Return weights that are off by rounding as weights of which every sum is right."""
    n, parts = len(part), share.shape[1]
    theta, eta = np.where(x < TINY, 0, x)[:n], np.maximum(x[n:], 0)
    eta = eta / eta.sum()
    due, have = eta @ share, np.bincount(part, theta, minlength=parts)
    # A part that is due something and has nothing gets it on its newest cut.
    newest = np.zeros(parts, int)
    newest[part] = np.arange(n)
    missing = np.flatnonzero((have == 0) & (due > 0))
    theta[newest[missing]], have[missing] = due[missing], due[missing]
    return np.append(theta * (due / np.where(have > 0, have, 1))[part], eta)
