"""Social-choice rules that maximise a concave welfare: whose gain counts how much."""

from dataclasses import dataclass
from typing import ClassVar, Literal

import cvxpy as cp
import numpy as np
from jaxtyping import Float

from pluralign.choice.rule import AbstractWelfare
from pluralign.choice.solve import Table


@dataclass(frozen=True)
class Utilitarian(AbstractWelfare):
    """The most good for all together: `W(u) = sum_v m_v u_v`.

    With `Mean` over draws it is the usual pipeline with a pooled reward, `p ∝ ref exp(mean U / beta)`. A large
    majority outvotes a small group whatever the group stands to lose. The scale decides whose stakes are high.
    """

    kind: Literal["utilitarian"] = "utilitarian"
    degree: ClassVar[int | None] = 1

    def welfare(self, u: cp.Expression, mass: Float[np.ndarray, " voter"]) -> cp.Expression:
        """Return `sum_v m_v u_v`."""
        return u @ mass

    def marginal(self, u: Table, mass: Float[np.ndarray, " voter"]) -> tuple[Float[np.ndarray, " draw"], Table]:
        """Return welfare; a voter's slope is its mass."""
        return u @ mass, np.broadcast_to(mass, u.shape)


@dataclass(frozen=True)
class Nash(AbstractWelfare):
    """Nash welfare: `W(u) = sum_v m_v log u_v` (Nash 1950; with masses, Kaneko and Nakamura 1979).

    Doubling anyone's utility counts the same for everyone, so a voter who has little counts more per unit and nobody
    is left at the zero of the scale. Multiplying one voter's utilities by a constant changes nothing: units need no
    comparison, only the zeros (what counts as no agreement) are a value judgement. `beta` is a pure number.
    """

    kind: Literal["nash"] = "nash"
    degree: ClassVar[int | None] = 0
    positive: ClassVar[bool] = True

    def welfare(self, u: cp.Expression, mass: Float[np.ndarray, " voter"]) -> cp.Expression:
        """Return `sum_v m_v log u_v`."""
        return cp.log(u) @ mass

    def marginal(self, u: Table, mass: Float[np.ndarray, " voter"]) -> tuple[Float[np.ndarray, " draw"], Table]:
        """Return welfare; a voter's slope is `m_v / u_v`."""
        return np.log(np.where(u > 0, u, 0)) @ mass, mass / u


@dataclass(frozen=True)
class Maximin(AbstractWelfare):
    """The best for whoever is worst off: `W(u) = min_v u_v` over voters with positive mass (Rawls 1971).

    The minimum is over expected utilities of a whole policy, as in MaxMin-RLHF (Chakraborty et al. 2024), not over
    each response: the lottery may please everyone in turn, where a minimum per response picks what displeases nobody
    much. Masses do not matter as long as they are positive, so one voter can hold up all others, and noise in one
    voter's posterior does so too; name groups as voters to avoid both. The leximin refinement (Sen 1970) is not
    needed for a unique lottery, since the divergence is strictly convex.
    """

    kind: Literal["maximin"] = "maximin"
    degree: ClassVar[int | None] = 1

    def welfare(self, u: cp.Expression, mass: Float[np.ndarray, " voter"]) -> cp.Expression:
        """Return `min_v u_v`."""
        return cp.min(u, axis=1)

    def marginal(self, u: Table, mass: Float[np.ndarray, " voter"]) -> tuple[Float[np.ndarray, " draw"], Table]:
        """Return welfare; only (one of) the worst off has a slope."""
        slope = np.zeros_like(u)
        slope[np.arange(len(u)), u.argmin(1)] = 1
        return u.min(1), slope
