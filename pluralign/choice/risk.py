"""How posterior draws are combined: what a rule does about ignorance."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar, Literal

import cvxpy as cp
import numpy as np
from jaxtyping import Float

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
