"""Social-choice rules that maximise a concave welfare: whose gain counts how much."""

from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from typing import ClassVar, Literal

import cvxpy as cp
import numpy as np
from jaxtyping import Float

from pluralign.choice.risk import AbstractRisk, Mean
from pluralign.choice.scale import affine
from pluralign.choice.solve import attainable, solve
from pluralign.errors import InputError
from pluralign.types import Choice, Linear, LinearReward, Utilities

MEAN = Mean()


class AbstractRule(ABC):
    """A way to turn everyone's utilities into one lottery per prompt.

    Attributes:
        cautious: True if the rule takes every `risk`; False if it must be `Mean`.
    """

    cautious: ClassVar[bool] = True

    @abstractmethod
    def choose(self, utilities: Utilities, risk: AbstractRisk = MEAN, beta: float = 0.1) -> Choice:
        """Return the lottery, and what trains a policy towards it.

        Args:
            utilities: of every voter for every candidate, in posterior draws.
            risk: how draws are combined.
            beta: price of a nat of divergence from the reference, in units of welfare; positive.

        Raises:
            InputError: `beta` is not positive, or utilities lie outside the rule's domain.
            SolveError: the program was not solved to its certificate.
        """

    @property
    def name(self) -> str:
        """The rule's name in configs, file names and reports: its `kind`."""
        return vars(self)["kind"]


class AbstractWelfare(AbstractRule):
    """A rule that maximises welfare, with caution, at a price for divergence from the reference.

        max_p  rho_draw( W(u[draw, :]) ) - beta mean_x KL(p_x || ref_x),    u[draw, voter] = mean_x sum_y p U

    With `lambda[draw, voter]` the multipliers of `u <= mean_x sum_y p U`, the optimum is
    `p ∝ ref exp( sum lambda U / beta )`: the rule acts as one reward `sum lambda U`, and the lottery is the
    Bayesian posterior with likelihood `exp(reward / beta)` (Korbak et al. 2022, RL with KL penalties is better
    viewed as Bayesian inference). Voters with mass 0 do not enter.

    Attributes:
        degree: `W(c u) = c^degree W(u)` for every `c > 0` (0: `W(u) + log c`); None claims nothing. It lets the
            program be solved in good units, and says what `beta` is measured in: 1 = utility, 0 = a pure number.
        positive: True if `W` is defined only where every utility is positive.
    """

    degree: ClassVar[int | None] = None
    positive: ClassVar[bool] = False

    @abstractmethod
    def welfare(self, u: cp.Expression, mass: Float[np.ndarray, " voter"]) -> cp.Expression:
        """Return `W(u)` in every draw, concave and non-decreasing in `u[draw, voter]`; masses are positive."""

    def choose(self, utilities: Utilities, risk: AbstractRisk = MEAN, beta: float = 0.1) -> Choice:
        """Return the lottery that maximises welfare less divergence, and its certificate; see `AbstractRule.choose`."""
        if not (np.isfinite(beta) and beta > 0):
            raise InputError(f"beta is {beta}; the price of a nat of divergence must be positive (try 0.03 to 1).")
        counts = utilities.mass > 0
        kept = _only(utilities, counts)
        low, high = attainable(kept)
        if self.positive and (high <= 0).any():
            draw, voter = (int(i) for i in np.argwhere(high <= 0)[0])
            who, hopeless = np.asarray(kept.voters)[voter], int((high <= 0).any(0).sum())
            raise InputError(
                f"{self.name} needs positive utilities, but even the best lottery for {who} gives it "
                f"{high[draw, voter]:.6g} in draw {draw} ({hopeless} of {len(kept.mass)} voters are so, in some draw). "
                f"The scale is {utilities.scale!r}; StdScale and RangeScale make every utility at least 0."
            )
        # The program is solved for z = u / unit, where W(u) = slope W(z) + shift.
        unit, slope, shift = 1.0, 1.0, 0.0
        if self.degree is not None and risk.homogeneous:
            unit = float((high - low).mean() or np.abs(high).mean() or 1.0)
            slope, shift = unit**self.degree, np.log(unit) if self.degree == 0 else 0.0
        lottery, multipliers, certificate = solve(
            lambda z: risk.combine(self.welfare(z, kept.mass)),
            affine(kept, np.zeros((1, 1)), np.full((1, 1), unit)),
            beta / slope,
            name=self.name,
            positive=self.positive,
        )
        certificate = replace(
            certificate,
            value=float(slope * certificate.value + shift),
            upper_bound=float(slope * certificate.upper_bound + shift),
            gap=float(slope * certificate.gap),
        )
        weights = np.zeros(utilities.shape[:2])
        weights[:, counts] = multipliers * slope / unit
        value = utilities.value
        reward = LinearReward(np.einsum("sv,svf->f", weights, value.weights)) if isinstance(value, Linear) else None
        return Choice(self.name, lottery, weights, reward, beta, risk.words, certificate, utilities)


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


def _only(utilities: Utilities, counts: np.ndarray) -> Utilities:
    """Return the utilities of the voters for whom `counts` is True."""
    value = utilities.value
    if isinstance(value, Linear):
        value = Linear(value.phi, value.weights[:, counts], value.offset[:, counts])
    else:
        value = value[:, counts]
    voters = tuple(v for v, keep in zip(utilities.voters or (), counts, strict=True) if keep)
    return replace(utilities, value=value, mass=utilities.mass[counts], voters=voters)
