"""Caution about every response by itself, after a rule has weighed the voters."""

import time
from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from scipy.special import rel_entr

from pluralign.choice.bundle import best_response
from pluralign.errors import InputError
from pluralign.types import CautiousReward, Certificate, Choice, Linear


class AbstractCaution(ABC):
    """How a response is valued by what it is worth in every draw."""

    @abstractmethod
    def applied(self, reward: CautiousReward) -> CautiousReward:
        """Return the reward with this caution."""

    @property
    @abstractmethod
    def words(self) -> str:
        """The caution in words."""


@dataclass(frozen=True)
class LowerBound(AbstractCaution):
    """The mean less `k` standard deviations over draws, with ddof 0 (Coste et al. 2023 subtract variances).

    Args:
        k: standard deviations subtracted.
    """

    k: float = 1.0
    kind: Literal["lower-bound"] = "lower-bound"

    def applied(self, reward: CautiousReward) -> CautiousReward:
        """Return the reward with this caution."""
        return replace(reward, k=self.k)

    @property
    def words(self) -> str:
        """The caution in words."""
        return f"each response valued at its mean less {self.k:g} standard deviations (ddof 0)"


@dataclass(frozen=True)
class LowerTail(AbstractCaution):
    """The mean over the worst `tail` of the draws; 0 takes the worst draw, the "worst case" of Coste et al. (2023).

    Args:
        tail: share of draws that counts, in [0, 1]; the worst draws are other ones for every response.
    """

    tail: float = 0.25
    kind: Literal["lower-tail"] = "lower-tail"

    def applied(self, reward: CautiousReward) -> CautiousReward:
        """Return the reward with this caution."""
        return replace(reward, tail=self.tail)

    @property
    def words(self) -> str:
        """The caution in words."""
        return "each response valued at its worst" + (f" {100 * self.tail:g} % of draws" if self.tail > 0 else " draw")


BOUND = LowerBound()


def cautious(chosen: Choice, caution: AbstractCaution = BOUND) -> Choice:
    """Return a choice by the same weights of voters that is cautious about every response by itself.

        r(x, y) = caution_draw( sum_v lambda_v (U[draw, v](x, y) - sum_y' ref U[draw, v](x, y')) )

    and `p ∝ ref exp(r / beta)`, with `lambda_v` the rule's multipliers, summed over draws. A risk measure asks how
    welfare may turn out, and lets what is uncertain about one response be made good by another; this asks it of each
    response alone, which is more cautious, and is what is usually done with ensembles of reward models (Coste et al.
    2023). It is no program over draws: `mean - k std` is not monotone, and nobody's utility stands behind it. Without
    caution it is the rule's own reward where multipliers are the same in every draw, as for `Utilitarian` with `Mean`.
    Caution is counted twice if the choice was already made with a cautious risk.

    Args:
        chosen: by a rule that has multipliers; constraints hold for its lottery, and need not for this one.
        caution: how a response is valued.

    Raises:
        InputError: the choice has no multipliers.
    """
    clock = time.perf_counter()
    if chosen.weights is None:
        raise InputError(f"{chosen.name} has no weights of voters, so there is no reward to be cautious about.")
    utilities, beta = chosen.utilities, chosen.beta
    reference, value, of_voter = utilities.reference, utilities.value, chosen.weights.sum(0)
    if isinstance(value, Linear):
        weights = np.einsum("v,svf->sf", of_voter, value.weights, optimize=True)
        origin = np.einsum("xy,xyf->f", reference, value.phi) / len(reference)
        worth = np.einsum("sf,xyf->sxy", weights, value.phi, optimize=True)
    else:
        weights, origin = np.zeros((utilities.shape[0], 0)), np.zeros(0)
        worth = np.einsum("v,svxy->sxy", of_voter, value, optimize=True)
    reward = caution.applied(CautiousReward(weights, origin))
    score = reward.of(worth - np.einsum("xy,sxy->sx", reference, worth)[..., None])
    lottery, bound = best_response(utilities, score, beta)
    gain = float(((lottery * score).sum(-1) - beta * rel_entr(lottery, reference).sum(-1)).mean())
    gap = max(bound - gain, 0.0)
    certificate = Certificate(gain, bound, gap, float(np.sqrt(gap / (2 * beta))), 0, time.perf_counter() - clock)
    risk = f"{chosen.risk}; then {caution.words}"
    own = reward if isinstance(value, Linear) else None
    return Choice(chosen.name, lottery, None, own, beta, risk, certificate, utilities)
