"""Rules that count voters by their place among the others: the worse off, the more.

    W(u) = sum_i u_(i) [ g(M_i) - g(M_{i-1}) ],    voters sorted, worst off first, M their cumulated mass

with `g` concave on [0, 1], `g(0) = 0` and `g(1) = 1`. It is the least `sum q u` over all masses `q` that give no group
more than `g` of its mass, so it is concave (Choquet 1954; Lovasz 1983). `g(t) = t` is `Utilitarian`.
"""

from abc import abstractmethod
from dataclasses import dataclass
from itertools import combinations_with_replacement
from math import factorial
from typing import ClassVar, Literal

import cvxpy as cp
import numpy as np
from jaxtyping import Float

from pluralign.choice.bundle import Table
from pluralign.choice.rule import AbstractWelfare
from pluralign.errors import InputError


class AbstractRanked(AbstractWelfare):
    """A rule that counts voters by their place among the others.

    Utilities may be negative. Masses matter: two voters who want the same are one voter with the mass of both.
    """

    degree: ClassVar[int | None] = 1

    @abstractmethod
    def upto(self, share: Float[np.ndarray, "*shape"]) -> Float[np.ndarray, "*shape"]:
        """Return `g`: how much the worst-off share of all mass counts."""

    def marginal(self, u: Table, mass: Float[np.ndarray, " voter"]) -> tuple[Float[np.ndarray, " draw"], Table]:
        """Return welfare; a voter's slope is what its place counts, and who is tied may stand in any order."""
        order = u.argsort(1)
        cumulated = mass[order if np.ptp(mass) else order[:1]].cumsum(1)  # of equal masses, every order has the same
        counted = self.upto(np.minimum(cumulated / cumulated[:, -1:], 1.0))
        slope = np.empty_like(u)
        np.put_along_axis(slope, order, np.diff(counted, axis=1, prepend=0.0), 1)
        return np.einsum("sv,sv->s", slope, u), slope


@dataclass(frozen=True)
class OWA(AbstractRanked):
    """Ordered weighted average: the k-th of equal shares of the voters, worst off first, counts `weights[k]`.

    `g` is linear between the cumulated weights. With as many voters of equal mass as weights, `W(u)` is the sum of
    `weights[k]` times the k-th smallest utility (Yager 1988, On ordered weighted averaging; with weights that do not
    increase, the generalised Gini of Weymark 1981). `(1,)` is `Utilitarian`, `(1, 0, 0, 0)` is `VoterCVaR(0.25)`.

    Args:
        weights: not negative, not increasing, in any unit.
    """

    weights: tuple[float, ...] = (4.0, 3.0, 2.0, 1.0)
    kind: Literal["owa"] = "owa"

    def __post_init__(self):
        w = np.asarray(self.weights, float)
        if not (w.size and np.isfinite(w).all() and (w >= 0).all() and (np.diff(w) <= 0).all() and w[0] > 0):
            raise InputError(
                f"weights are {self.weights}; they must be finite, not negative, not all 0, and not increase: the "
                "worst off come first, and counting them less than others is not concave."
            )

    def upto(self, share: Float[np.ndarray, "*shape"]) -> Float[np.ndarray, "*shape"]:
        """Return the weights of that share of the voters, a place in part if it is not whole."""
        counted = np.append(0.0, np.cumsum(self.weights))
        return np.interp(share, np.linspace(0, 1, len(counted)), counted / counted[-1])

    def welfare(self, u: cp.Expression, mass: Float[np.ndarray, " voter"]) -> cp.Expression:
        """Return a mixture of `VoterCVaR`: `g(t) = sum_k k (weights[k] - weights[k+1]) min(t n / k, 1)`."""
        w = np.asarray(self.weights, float)
        share = np.arange(1, len(w) + 1) * -np.diff(w, append=0.0) / w.sum()
        parts = [s * worst_off(u, mass, (k + 1) / len(w)) for k, s in enumerate(share) if s > 0]
        return cp.sum(cp.vstack(parts), axis=0)  # pyright: ignore[reportReturnType]


@dataclass(frozen=True)
class Gini(AbstractRanked):
    """What the worst off of `delta` voters drawn by mass has: `g(t) = 1 - (1-t)^delta` (Donaldson and Weymark 1980).

    With `delta = 2` it is the mean times one less the Gini index, where utilities are positive (Sen 1976): the mean
    less half the expected difference between two voters. `delta = 1` is `Utilitarian`; large ones come to `Maximin`.

    Args:
        delta: voters drawn, a whole number of at least 1. The family goes on between them, but only whole ones have a
            statement as a convex program when masses differ.
    """

    delta: int = 2
    kind: Literal["gini"] = "gini"

    def __post_init__(self):
        if self.delta < 1 or self.delta != int(self.delta):
            raise InputError(f"delta is {self.delta}; it is a number of voters, 1, 2, 3, ...")

    def upto(self, share: Float[np.ndarray, "*shape"]) -> Float[np.ndarray, "*shape"]:
        """Return the chance that one of `delta` voters is among that share."""
        return 1 - (1 - share) ** self.delta

    def welfare(self, u: cp.Expression, mass: Float[np.ndarray, " voter"]) -> cp.Expression:
        """Return the expected minimum: every way to draw `delta` voters, with its chance."""
        drawn = np.array(list(combinations_with_replacement(range(len(mass)), self.delta)))
        times = np.stack([(drawn == v).sum(1) for v in range(len(mass))], 1)
        ways = factorial(self.delta) / np.vectorize(factorial)(times).prod(1)
        least = cp.vstack([cp.min(u[:, np.unique(who)], axis=1) for who in drawn])
        return (ways * (mass**times).prod(1)) @ least


@dataclass(frozen=True)
class VoterCVaR(AbstractRanked):
    """The mean over the worst-off `tail` of the voters: `g(t) = min(t / tail, 1)` (Rockafellar and Uryasev 2000).

    Between `Maximin` and `Utilitarian`, which it is at `tail = 1`: nobody outside the tail counts, and inside it all
    count the same, by mass. A voter at the edge counts in part; if `tail` is at most the mass of the worst off, only
    the worst off counts. Not to be taken for `CVaR`, whose tail is of posterior draws.

    Args:
        tail: worst-off share of all mass that counts, in (0, 1].
    """

    tail: float = 0.25
    kind: Literal["voter-cvar"] = "voter-cvar"

    def __post_init__(self):
        if not 0 < self.tail <= 1:
            raise InputError(f"tail is {self.tail}; the share of worst-off voters lies in (0, 1].")

    def upto(self, share: Float[np.ndarray, "*shape"]) -> Float[np.ndarray, "*shape"]:
        """Return `min(t / tail, 1)`."""
        return np.minimum(share / self.tail, 1.0)

    def welfare(self, u: cp.Expression, mass: Float[np.ndarray, " voter"]) -> cp.Expression:
        """Return `max_c c - sum_v m_v max(c - u_v, 0) / tail`."""
        return worst_off(u, mass, self.tail)


def worst_off(u: cp.Expression, mass: Float[np.ndarray, " voter"], tail: float) -> cp.Expression:
    """Return the mean over the worst-off `tail` of the voters in every draw, as a maximum over a level for each."""
    level = cp.Variable((u.shape[0], 1))
    return level[:, 0] - cp.pos(level - u) @ (mass / tail)
