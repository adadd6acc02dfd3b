"""How posterior draws are combined: what a rule does about ignorance."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar, Literal

import cvxpy as cp
import numpy as np
from cvxpy.transforms.indicator import indicator
from jaxtyping import Float

from pluralign.choice import ball
from pluralign.errors import InputError


class AbstractRisk(ABC):
    """A concave, non-decreasing function of welfare in each posterior draw.

    Attributes:
        homogeneous: True if `rho(a w + b) = a rho(w) + b` for every `a > 0` and `b`, as for every coherent risk
            measure; it lets programs be solved in good units.
    """

    homogeneous: ClassVar[bool] = False

    @abstractmethod
    def combine(self, w: cp.Expression) -> cp.Expression:
        """Return one concave scalar expression, non-decreasing in every entry of `w[draw]`."""

    def marginal(self, w: Float[np.ndarray, " draw"]) -> tuple[float, Float[np.ndarray, " draw"]] | None:
        """Return `rho(w)` with one of its supergradients, as formulas; None: cvxpy works them out, slower."""
        return None

    @property
    @abstractmethod
    def words(self) -> str:
        """The measure in words, as a report says it."""


@dataclass(frozen=True)
class Mean(AbstractRisk):
    """Neutral towards ignorance: `rho(w) = mean_draw w`, the posterior expectation of welfare."""

    kind: Literal["mean"] = "mean"
    homogeneous: ClassVar[bool] = True

    def combine(self, w: cp.Expression) -> cp.Expression:
        """Return `mean_draw w`."""
        return cp.mean(w)  # pyright: ignore[reportReturnType]

    def marginal(self, w: Float[np.ndarray, " draw"]) -> tuple[float, Float[np.ndarray, " draw"]]:
        """Return the mean; every draw has the same share."""
        return float(w.mean()), np.full(len(w), 1 / len(w))

    @property
    def words(self) -> str:
        """The measure in words."""
        return "mean over posterior draws"


@dataclass(frozen=True)
class CVaR(AbstractRisk):
    """Cautious: the mean of welfare over the worst `tail` of the posterior draws.

    `rho(w) = max_t t - sum_draw max(t - w, 0) / (tail draws)` (Rockafellar and Uryasev 2000, Optimization of
    conditional value-at-risk, Theorem 1). If `tail * draws` is not whole, one draw counts in part; if it is at
    most 1, only the worst draw counts. `tail = 1` is `Mean`.

    Args:
        tail: worst share of the draws that counts, in (0, 1].
    """

    tail: float = 0.25
    kind: Literal["cvar"] = "cvar"
    homogeneous: ClassVar[bool] = True

    def __post_init__(self):
        if not 0 < self.tail <= 1:
            raise InputError(f"tail is {self.tail}; the share of worst draws lies in (0, 1].")

    def combine(self, w: cp.Expression) -> cp.Expression:
        """Return the mean of the `tail * draws` smallest entries, the last one counted in part."""
        k = max(self.tail * w.size, 1.0)
        return cp.sum_smallest(w, k) * (1 / k)

    def marginal(self, w: Float[np.ndarray, " draw"]) -> tuple[float, Float[np.ndarray, " draw"]]:
        """Return the mean of the worst draws, each of which has the same share, but for the last one."""
        k = max(self.tail * len(w), 1.0)
        share = np.zeros(len(w))
        share[np.argsort(w, kind="stable")] = np.clip(k - np.arange(len(w)), 0, 1) / k
        # A share of 0 of a draw that is worth -inf is no number.
        return float(np.sum(share * w, where=share > 0)), share

    @property
    def words(self) -> str:
        """The measure in words."""
        return f"mean over the worst {100 * self.tail:g} % of posterior draws"


@dataclass(frozen=True)
class WorstCase(AbstractRisk):
    """Most cautious: the worst of the draws, `rho(w) = min_draw w`.

    More draws make it worse without end, so it says as much about their number as about what is known; `CVaR` does not.
    """

    kind: Literal["worst-case"] = "worst-case"
    homogeneous: ClassVar[bool] = True

    def combine(self, w: cp.Expression) -> cp.Expression:
        """Return `min_draw w`."""
        return cp.min(w)  # pyright: ignore[reportReturnType]

    def marginal(self, w: Float[np.ndarray, " draw"]) -> tuple[float, Float[np.ndarray, " draw"]]:
        """Return the least; only (one of) the worst draws has a share."""
        share = np.zeros(len(w))
        share[w.argmin()] = 1
        return float(w.min()), share

    @property
    def words(self) -> str:
        """The measure in words."""
        return "worst posterior draw"


@dataclass(frozen=True)
class Entropic(AbstractRisk):
    """Exponential utility: `rho(w) = -1/theta log mean_draw exp(-theta w)` (Foellmer and Schied 2002).

    About `mean - theta var / 2` where draws are near each other; it goes from the mean to the worst draw as theta
    grows. A draw that is worse by `1 / theta` counts e times as much, so theta has a unit, one over welfare's: after
    a change of scale the same number means another caution, and with it the program cannot be solved in good units.

    Args:
        theta: aversion, positive, in one over units of welfare.
    """

    theta: float = 1.0
    kind: Literal["entropic"] = "entropic"

    def __post_init__(self):
        if not (np.isfinite(self.theta) and self.theta > 0):
            raise InputError(f"theta is {self.theta}; aversion must be positive and finite (Mean has none).")

    def combine(self, w: cp.Expression) -> cp.Expression:
        """Return the log of the mean of exponentials."""
        return cp.log_sum_exp(-self.theta * w - np.log(w.size)) * (-1 / self.theta)

    def marginal(self, w: Float[np.ndarray, " draw"]) -> tuple[float, Float[np.ndarray, " draw"]]:
        """Return the certainty equivalent; a draw's share is proportional to `exp(-theta w)`."""
        least = w.min()
        weight = np.exp(-self.theta * (w - least))
        return float(least - np.log(weight.mean()) / self.theta), weight / weight.sum()

    @property
    def words(self) -> str:
        """The measure in words."""
        return f"entropic over posterior draws, theta {self.theta:g}"


@dataclass(frozen=True)
class Semideviation(AbstractRisk):
    """Mean less `k` semideviations: `rho(w) = mean(w) - k sqrt(mean(max(mean(w) - w, 0)^2))`.

    Only what falls short of the mean is a risk (seen as a loss, its upper semideviation). For `k` at most 1 it never
    falls when a draw gets better (Ogryczak and Ruszczynski 1999). `mean - k std` does for
    `k > 1 / sqrt(draws - 1)`: one very good draw raises the standard deviation by more than the mean. It is therefore
    no risk measure here, but see `cautious`, and `Ellipsoid`.

    Args:
        k: semideviations subtracted, in [0, 1].
    """

    k: float = 1.0
    kind: Literal["semideviation"] = "semideviation"
    homogeneous: ClassVar[bool] = True

    def __post_init__(self):
        if not 0 <= self.k <= 1:
            raise InputError(f"k is {self.k}; beyond [0, 1] a better draw may count as worse. Use Ellipsoid or CVaR.")

    def combine(self, w: cp.Expression) -> cp.Expression:
        """Return the largest `rho(y)` of any `y <= w`, which is `rho(w)`, since rho never falls."""
        y = cp.Variable(w.shape)
        short = cp.pos(cp.sum(y) / w.size - y)
        return cp.sum(y) / w.size - self.k / np.sqrt(w.size) * cp.norm(short, 2) - indicator([y <= w])

    def marginal(self, w: Float[np.ndarray, " draw"]) -> tuple[float, Float[np.ndarray, " draw"]]:
        """Return the value; a draw has an equal share, and more if it falls short."""
        short = np.maximum(w.mean() - w, 0)
        deviation = np.sqrt((short**2).mean())
        push = (short - short.mean()) / deviation if deviation > 0 else short
        return float(w.mean() - self.k * deviation), (1 + self.k * push) / len(w)

    @property
    def words(self) -> str:
        """The measure in words."""
        return f"mean less {self.k:g} semideviations over posterior draws"


@dataclass(frozen=True)
class Ellipsoid(AbstractRisk):
    """Pessimism: the least mean of welfare under any weights of the draws near equal ones.

    `rho(w) = min { q · w : q on the simplex, sqrt(draws) |q - 1/draws|_2 <= radius }`. While no weight falls to 0 this
    is `mean - radius std` (ddof 0); beyond, the best draws stop to count, so that unlike `mean - radius std` it never
    falls when a draw gets better. The lottery is that for one weight vector, `sum_draw q w[draw]`, in the hull of the
    draws. For linear rewards and many draws of a Gaussian posterior it is the least reward in a confidence ellipsoid
    around the mean, the pessimistic policy of Zhu, Jiao and Jordan (2023), whose radius in standard deviations is
    0.50, 0.94, 1.27, 1.52 for radius 0.5, 1, 1.5, 2. What they call the reference vector is the zero of the scale: the
    reference policy on `NoScale` and `GapScale`.

    Args:
        radius: of the ellipsoid in standard deviations, at least 0; from `sqrt(draws - 1)` on it is `WorstCase`.
    """

    radius: float = 1.0
    kind: Literal["ellipsoid"] = "ellipsoid"
    homogeneous: ClassVar[bool] = True

    def __post_init__(self):
        if not (np.isfinite(self.radius) and self.radius >= 0):
            raise InputError(f"radius is {self.radius}; it must be finite and not negative.")

    def combine(self, w: cp.Expression) -> cp.Expression:
        """Return the dual, `max_c c - sqrt((1 + radius^2) mean_draw max(c - w, 0)^2)`."""
        if self.radius == 0:  # c would be infinite
            return cp.mean(w)  # pyright: ignore[reportReturnType]
        level = cp.Variable()
        return level - np.sqrt((1 + self.radius**2) / w.size) * cp.norm(cp.pos(level - w), 2)

    def marginal(self, w: Float[np.ndarray, " draw"]) -> tuple[float, Float[np.ndarray, " draw"]]:
        """Return the least mean; a draw's share is its worst weight."""
        q = ball.chi_square(w[None], np.full(len(w), 1 / len(w)), self.radius**2)[0]
        return float(q @ w), q

    @property
    def words(self) -> str:
        """The measure in words."""
        return f"worst posterior mean within {self.radius:g} standard deviations"


Risk = Mean | CVaR | WorstCase | Entropic | Semideviation | Ellipsoid
