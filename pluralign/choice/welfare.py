"""Social-choice rules that maximise a concave welfare: whose gain counts how much."""

from dataclasses import dataclass
from typing import ClassVar, Literal

import cvxpy as cp
import numpy as np
from jaxtyping import Float

from pluralign.choice.bundle import Table
from pluralign.choice.rule import AbstractWelfare
from pluralign.choice.scale import AbstractScale, GapScale, NoScale
from pluralign.errors import InputError


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


@dataclass(frozen=True)
class AlphaFair(AbstractWelfare):
    """Between the most for all and the best for the worst off: `W(u) = sum_v m_v u_v^(1-alpha) / (1-alpha)`.

    `alpha` says how averse to inequality the rule is (Atkinson 1970; in networks, Mo and Walrand 2000): 0 is
    `Utilitarian`, 1 is `Nash` (`sum m log u`), and as alpha grows it comes to rank as `Maximin` does. A voter's slope
    is `m_v u_v^-alpha`: who has twice as much counts `2^alpha` times less per unit.

    `beta` is measured in units of utility to the power `1 - alpha`, so that the same number means something else for
    every alpha: divide it by `level^alpha` to compare with `Utilitarian` where utilities are about `level`.

    For `alpha > 0` utilities must be positive. Below 1 the formula has a value at 0, but no slope, and so no
    multiplier for a voter who gets 0 from every lottery: give such voters mass 0.

    Args:
        alpha: aversion to inequality, at least 0, and not within 1e-6 of 1 unless it is 1 (the power then keeps no
            digits).
    """

    alpha: float = 2.0
    kind: Literal["alpha-fair"] = "alpha-fair"

    def __post_init__(self):
        if not (np.isfinite(self.alpha) and self.alpha >= 0) or 0 < abs(self.alpha - 1) < 1e-6:
            raise InputError(f"alpha is {self.alpha}; it must be finite, at least 0, and 1 or not nearly so.")

    @property
    def degree(self) -> float:  # pyright: ignore[reportIncompatibleVariableOverride]
        """`1 - alpha`."""
        return 1.0 - self.alpha

    @property
    def positive(self) -> bool:  # pyright: ignore[reportIncompatibleVariableOverride]
        """True for every alpha but 0."""
        return self.alpha > 0

    def welfare(self, u: cp.Expression, mass: Float[np.ndarray, " voter"]) -> cp.Expression:
        """Return `sum_v m_v u_v^(1-alpha) / (1-alpha)`."""
        if self.alpha == 1:
            return cp.log(u) @ mass
        return cp.power(u, self.degree, approx=False) @ (mass / self.degree)

    def marginal(self, u: Table, mass: Float[np.ndarray, " voter"]) -> tuple[Float[np.ndarray, " draw"], Table]:
        """Return welfare; a voter's slope is `m_v u_v^-alpha`."""
        if self.alpha == 0:
            return u @ mass, np.broadcast_to(mass, u.shape)
        inside = np.where(u > 0, u, np.nan)  # what is outside the domain makes welfare no number
        slope = inside**-self.alpha
        power = np.log(inside) if self.alpha == 1 else inside * slope / self.degree
        return power @ mass, mass * slope


@dataclass(frozen=True)
class KalaiSmorodinsky(AbstractWelfare):
    """Everyone gets the same share of what they could gain: `Maximin` on `GapScale` (Kalai and Smorodinsky 1975).

    `W(u) = min_v g_v`, where `g_v` is the voter's gain over the reference as a share of the most that it could gain if
    it alone decided. The reference is the point of no agreement, whatever scale the utilities come on. As beta goes to
    0 it is the Kalai-Smorodinsky solution where all shares can be equal, and else the largest least share. Better
    opportunities for a voter never cost it anything, as with `NashBargaining` they may. Masses do not matter.
    """

    kind: Literal["kalai-smorodinsky"] = "kalai-smorodinsky"
    degree: ClassVar[int | None] = 1
    scale: ClassVar[AbstractScale | None] = GapScale()

    def welfare(self, u: cp.Expression, mass: Float[np.ndarray, " voter"]) -> cp.Expression:
        """Return `min_v u_v`."""
        return Maximin().welfare(u, mass)

    def marginal(self, u: Table, mass: Float[np.ndarray, " voter"]) -> tuple[Float[np.ndarray, " draw"], Table]:
        """Return welfare; only (one of) the worst off has a slope."""
        return Maximin().marginal(u, mass)


@dataclass(frozen=True)
class NashBargaining(AbstractWelfare):
    """The largest product of gains over the reference: `Nash` on `NoScale` (Nash 1950).

    `W(u) = sum_v m_v log(u_v - ref_v)`: the reference is the point of no agreement, whatever scale the utilities come
    on, and units do not matter. Every voter must be able to gain at the same time, in every draw; where posterior
    draws disagree about who gains from what, nobody can agree on anything, and the rule says so.
    """

    kind: Literal["nash-bargaining"] = "nash-bargaining"
    degree: ClassVar[int | None] = 0
    positive: ClassVar[bool] = True
    scale: ClassVar[AbstractScale | None] = NoScale()

    def welfare(self, u: cp.Expression, mass: Float[np.ndarray, " voter"]) -> cp.Expression:
        """Return `sum_v m_v log u_v`."""
        return Nash().welfare(u, mass)

    def marginal(self, u: Table, mass: Float[np.ndarray, " voter"]) -> tuple[Float[np.ndarray, " draw"], Table]:
        """Return welfare; a voter's slope is `m_v / u_v`."""
        return Nash().marginal(u, mass)
