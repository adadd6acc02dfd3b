"""Rules that do not trust the voters' masses: the least welfare under any masses near the stated ones.

    W(u) = min_q sum_v q_v u_v,    q in a ball around m, on the simplex

Who was asked need not be who is concerned. A ball says how wrong the shares may be; within it the rule counts whoever
is worse off as more numerous (Ben-Tal, den Hertog, De Waegenaere, Melenberg and Rennen 2013). Radius 0 is
`Utilitarian`; a ball that holds every mass is `Maximin`.
"""

from abc import abstractmethod
from dataclasses import dataclass
from typing import ClassVar, Literal

import cvxpy as cp
import numpy as np
from jaxtyping import Float

from pluralign.choice import ball
from pluralign.choice.bundle import Table
from pluralign.choice.ranked import worst_off
from pluralign.choice.rule import AbstractWelfare
from pluralign.errors import InputError


class AbstractRobust(AbstractWelfare):
    """A rule that takes the worst masses in a ball around the stated ones; `worst` says which.

    A voter without mass does not enter: no ball here gives mass to whom nobody counts.
    """

    degree: ClassVar[int | None] = 1
    radius: float

    def __post_init__(self):
        if not (np.isfinite(self.radius) and self.radius >= 0):
            raise InputError(f"radius is {self.radius}; it must be finite and not negative.")

    @abstractmethod
    def worst(self, u: Table, mass: Float[np.ndarray, " voter"]) -> Table:
        """Return the worst masses in every draw, `q[draw, voter]`."""

    def marginal(self, u: Table, mass: Float[np.ndarray, " voter"]) -> tuple[Float[np.ndarray, " draw"], Table]:
        """Return welfare; a voter's slope is its worst mass."""
        q = self.worst(u, mass)
        return (q * u).sum(1), q


@dataclass(frozen=True)
class KLRobust(AbstractRobust):
    """The least welfare under masses with `sum_v q_v log(q_v / m_v) <= radius` (Hu and Hong 2013).

    The worst masses are `q ∝ m exp(-theta u)`: everyone who is worse off counts exponentially more. At
    `-log` of the mass of the worst off the ball is so large that only they count.

    Args:
        radius: of the ball, in nats.
    """

    radius: float = 0.1
    kind: Literal["kl-robust"] = "kl-robust"

    def worst(self, u: Table, mass: Float[np.ndarray, " voter"]) -> Table:
        """Return the worst masses."""
        return ball.relative_entropy(u, mass, self.radius)

    def welfare(self, u: cp.Expression, mass: Float[np.ndarray, " voter"]) -> cp.Expression:
        """Return the dual, `max_{c, eta >= 0} c + (1 - radius) eta - eta sum_v m_v exp((c - u_v) / eta)`."""
        if self.radius == 0 or self.radius >= -np.log(mass.min()):  # eta would be infinite or 0
            return u @ mass if self.radius == 0 else cp.min(u, axis=1)
        eta, share = cp.Variable((u.shape[0], 1), nonneg=True), cp.Variable(u.shape)
        # share >= eta exp((c - u) / eta) says that c <= u - eta log(eta / share).
        level = cp.min(u - cp.rel_entr(eta @ np.ones((1, u.shape[1])), share), axis=1)
        return level + (1 - self.radius) * eta[:, 0] - share @ mass


@dataclass(frozen=True)
class ChiSquareRobust(AbstractRobust):
    """The least welfare under masses with `sum_v (q_v - m_v)^2 / m_v <= radius` (Duchi and Namkoong 2021).

    While no mass falls to 0 it is `mean - sqrt(radius) std` over voters, the standard deviation by mass; beyond, the
    best off stop to count, which keeps it from falling when somebody gains. Hashimoto et al. (2018) use it to protect
    groups whose members are not known.

    Args:
        radius: of the ball; masses that give one group of mass `m` everything are `1 / m - 1` away.
    """

    radius: float = 0.5
    kind: Literal["chi-square-robust"] = "chi-square-robust"

    def worst(self, u: Table, mass: Float[np.ndarray, " voter"]) -> Table:
        """Return the worst masses."""
        return ball.chi_square(u, mass, self.radius)

    def welfare(self, u: cp.Expression, mass: Float[np.ndarray, " voter"]) -> cp.Expression:
        """Return the dual, `max_c c - sqrt((1 + radius) sum_v m_v max(c - u_v, 0)^2)`."""
        if self.radius == 0:  # c would be infinite
            return u @ mass
        level = cp.Variable((u.shape[0], 1))
        weighed = cp.pos(level - u) @ np.diag(np.sqrt((1 + self.radius) * mass))
        return level[:, 0] - cp.norm(weighed, 2, axis=1)


@dataclass(frozen=True)
class TotalVariationRobust(AbstractRobust):
    """The least welfare when a share `radius` of the mass may be anyone's: `sum_v |q_v - m_v| / 2 <= radius`.

    That share moves from the best to the worst off: `W(u) = radius min_v u_v + (1 - radius) VoterCVaR(1 - radius)`
    (Jiang and Guan 2018). It is what to use against a share of answers that may be forged.

    Args:
        radius: share of the mass that may move; from 1 on, all of it.
    """

    radius: float = 0.1
    kind: Literal["total-variation-robust"] = "total-variation-robust"

    def worst(self, u: Table, mass: Float[np.ndarray, " voter"]) -> Table:
        """Return the worst masses."""
        return ball.total_variation(u, mass, self.radius)

    def welfare(self, u: cp.Expression, mass: Float[np.ndarray, " voter"]) -> cp.Expression:
        """Return the mixture of the least and the mean over the worst off."""
        least = cp.min(u, axis=1)
        if self.radius >= 1:
            return least
        return self.radius * least + (1 - self.radius) * worst_off(u, mass, 1 - self.radius)
