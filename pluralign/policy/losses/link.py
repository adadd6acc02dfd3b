"""How the log-ratio of a response is read as its reward."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Float
from scipy.special import logsumexp, wrightomega
from torch import Tensor

from pluralign.errors import InputError


class AbstractLink(ABC):
    """How the log-ratio of a response is read as its reward, and with it which divergence holds the policy back."""

    @abstractmethod
    def score(self, log_ratio: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
        """Return the reward over `beta` that `log(pi / pi_ref)` stands for, up to a constant per prompt."""

    @abstractmethod
    def difference(self, margin: Float[Tensor, "*shape"], beta: float) -> Float[Tensor, "*shape"]:
        """Return the difference of two scores as the loss sees it."""

    @abstractmethod
    def settle(
        self, score: Float[np.ndarray, "... place"], reference: Float[np.ndarray, "... place"]
    ) -> Float[np.ndarray, "... place"]:
        """Return the log-ratios with these scores up to a constant and `sum_place reference exp(log-ratio) = 1`.

        Args:
            score: -inf = the policy must never write it; one in each row must be finite.
            reference: rows sum to 1; 0 = an empty place.
        """


@dataclass(frozen=True)
class LogRatio(AbstractLink):
    """`s = log z`, `z = pi / pi_ref`: the KL divergence holds the policy back (Rafailov et al. 2023, eq. 5)."""

    kind: Literal["log-ratio"] = "log-ratio"

    def score(self, log_ratio: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
        """Return the log-ratio itself."""
        return log_ratio

    def difference(self, margin: Float[Tensor, "*shape"], beta: float) -> Float[Tensor, "*shape"]:
        """Return the margin itself."""
        return margin

    def settle(
        self, score: Float[np.ndarray, "... place"], reference: Float[np.ndarray, "... place"]
    ) -> Float[np.ndarray, "... place"]:
        """Return `score - log sum_place reference exp(score)`."""
        return score - logsumexp(score, axis=-1, b=reference, keepdims=True)


@dataclass(frozen=True)
class ChiSquare(AbstractLink):
    """`s = z + log z`, `z = pi / pi_ref`: chi-PO (Huang et al. 2024, "Correcting the mythos of KL-regularization").

    The optimum is that of `max_pi E_pi r - beta [KL(pi || pi_ref) + 1/2 E_ref (z - 1)^2]`, where
    `beta (z + log z) = r + constant`: as `z` grows with `r` and no longer with `exp(r / beta)`, a response that only
    an error of the reward makes good is followed less far. Above `z = exp(20)` the exponential goes on as its
    tangent, so that nothing overflows and the gradient keeps its direction.

    Args:
        largest: `R_max`, the largest difference of rewards that there is, in the units of `beta` times a score, that
            is of the log odds of labels; margins are clipped to `±2 R_max` as in algorithm 1. null = not clipped:
            labels are soft, so no margin runs away.
    """

    largest: float | None = None
    kind: Literal["chi-square"] = "chi-square"

    def __post_init__(self):
        if self.largest is not None and not self.largest > 0:
            raise InputError(f"link.largest is {self.largest}; it must be above 0.")

    def score(self, log_ratio: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
        """Return `z + log z`."""
        below = log_ratio.clamp(max=20.0)
        return below.exp() * (1 + log_ratio - below) + log_ratio

    def difference(self, margin: Float[Tensor, "*shape"], beta: float) -> Float[Tensor, "*shape"]:
        """Return the margin, clipped to `±2 largest / beta`."""
        return margin if self.largest is None else margin.clamp(-2 * self.largest / beta, 2 * self.largest / beta)

    def settle(
        self, score: Float[np.ndarray, "... place"], reference: Float[np.ndarray, "... place"]
    ) -> Float[np.ndarray, "... place"]:
        """Return `log omega(score + c)`, omega the inverse of `z + log z` (Wright's), `c` found by halving."""
        there = np.isfinite(score) & (reference > 0)
        # where every score is at most 1, so is every z, and their mean; and the other way round
        low = 1 - np.where(there, score, -np.inf).max(-1, keepdims=True)
        high = 1 - np.where(there, score, np.inf).min(-1, keepdims=True)
        for _ in range(60):
            middle = (low + high) / 2
            over = (reference * np.where(there, wrightomega(score + middle), 0)).sum(-1, keepdims=True) > 1
            low, high = np.where(over, low, middle), np.where(over, middle, high)
        with np.errstate(divide="ignore"):
            return np.log(np.where(there, wrightomega(score + high), 0))


Link = LogRatio | ChiSquare
