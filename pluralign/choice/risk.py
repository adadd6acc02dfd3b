"""How posterior draws are combined: what a rule does about ignorance."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar, Literal

import cvxpy as cp

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

    @property
    def words(self) -> str:
        """The measure in words."""
        return f"mean over the worst {100 * self.tail:g} % of posterior draws"
