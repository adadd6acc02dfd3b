"""Groups of voters weighed while the policy learns: whoever has it worst counts for more.

The weights `q[group]` are on the simplex, start as the groups' masses and are updated once a step in proportion to
themselves (mirror ascent); a group that counts nothing at the start never counts. They belong to the state of the
training loop, as does the last that was seen of each candidate's log-ratio.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Float, Int
from scipy.special import softmax

from pluralign.errors import InputError, TrainError
from pluralign.policy.labels import Labels


@dataclass(frozen=True, eq=False)
class State:
    """What is remembered from step to step.

    Attributes:
        weight: `q`.
        seen: `log(pi / pi_ref)` of every candidate when it was last trained on; 0 before.
    """

    weight: Float[np.ndarray, " group"]
    seen: Float[np.ndarray, " candidate"]

    @classmethod
    def start(cls, labels: Labels) -> "State":
        """Return the state before the first step, when the policy is the reference."""
        return cls(labels.mass, np.zeros(len(labels.candidates.item)))

    def saw(self, candidates: Int[np.ndarray, "slate place"], log_ratio: Float[np.ndarray, "slate place"]) -> "State":
        """Return the state after these candidates were seen; where one was twice, the last counts."""
        seen = self.seen.copy()
        seen[candidates[candidates >= 0]] = log_ratio[candidates >= 0]
        return State(self.weight, seen)

    def moved(self, gain: Float[np.ndarray, " group"], rate: float) -> "State":
        """Return the state with `q <- q exp(rate gain) / Z`."""
        with np.errstate(divide="ignore"):
            weight = softmax(np.log(self.weight) + rate * gain)
        if not np.isfinite(weight).all():
            raise TrainError(f"the weights of the groups became {weight}; lower the rate of reweighing.")
        return State(weight, self.seen)

    def utility(self, labels: Labels, candidates: Int[np.ndarray, "slate place"]) -> Float[np.ndarray, " group"]:
        """Return `u_group = mean_slate sum_y q(y) U_group(y)` over all candidates of the slates' prompts.

        `q ∝ reference exp(log(pi / pi_ref))`, with log-ratios as last seen: exact when slates hold all candidates.
        """
        rows = labels.candidates.rows
        rows = rows[np.searchsorted(rows[:, 0], candidates[:, 0], side="right") - 1]
        with np.errstate(divide="ignore"):
            rho = np.log(np.where(rows >= 0, labels.candidates.reference[rows], 0))
        q = softmax(rho + self.seen[rows], axis=1)
        return np.einsum("nk,nkg->g", q, labels.utility[rows]) / len(rows)


class AbstractReweighing(ABC):
    """A way to weigh groups while training.

    Attributes:
        rate: of the weights, above 0.
    """

    rate: float

    def __post_init__(self):
        if not self.rate > 0:
            raise InputError(f"reweigh.rate is {self.rate}; it must be above 0.")

    @abstractmethod
    def split(
        self, weight: Float[np.ndarray, " group"]
    ) -> tuple[Float[np.ndarray, " group"] | None, Float[np.ndarray, " label"]]:
        """Return by what the groups' targets are mixed (None: they stay apart), and by what their losses are."""

    @abstractmethod
    def gain(
        self,
        state: State,
        labels: Labels,
        candidates: Int[np.ndarray, "slate place"],
        loss: Float[np.ndarray, " group"],
    ) -> Float[np.ndarray, " group"]:
        """Return by what the logarithm of each group's weight grows, over the rate; arguments are those of `update`."""

    def update(
        self,
        state: State,
        labels: Labels,
        candidates: Int[np.ndarray, "slate place"],
        loss: Float[np.ndarray, " group"],
        pace: float,
    ) -> State:
        """Return the state after a step.

        Args:
            state: with the step's log-ratios seen.
            labels: of the groups.
            candidates: slates of the step.
            loss: each group's mean loss in this step.
            pace: learning rate over its peak, to which the weights keep their distance.
        """
        return state.moved(self.gain(state, labels, candidates, loss), self.rate * pace)


@dataclass(frozen=True)
class GroupRobust(AbstractReweighing):
    """Group-robust preference optimisation (Ramesh et al. 2024): `min_pi max_group l_group(pi)`.

    `q_g <- q_g exp(rate l_g) / Z`, and the policy lowers `sum_g q_g l_g`, where `l_g` is the loss with the group's own
    labels: `sigmoid(beta_loss (U_g(y1) - U_g(y2)) / beta)`, or its members' votes. It makes all groups be *explained*
    as well as the worst explained one can be, which is not the same as making them well off.

    Args:
        rate: of the weights, per nat of loss and step, above 0; it follows the learning rate's schedule.
    """

    rate: float = 0.05
    kind: Literal["group-robust"] = "group-robust"

    def split(
        self, weight: Float[np.ndarray, " group"]
    ) -> tuple[Float[np.ndarray, " group"] | None, Float[np.ndarray, " label"]]:
        """Keep targets apart and weigh losses."""
        return None, weight

    def gain(
        self,
        state: State,
        labels: Labels,
        candidates: Int[np.ndarray, "slate place"],
        loss: Float[np.ndarray, " group"],
    ) -> Float[np.ndarray, " group"]:
        """Return the groups' losses."""
        return loss


@dataclass(frozen=True)
class MaxMin(AbstractReweighing):
    """MaxMin (Chakraborty et al. 2024): `max_pi min_group u_group(pi) - beta KL(pi || pi_ref)`.

    By duality it is `min_q max_pi sum_g q_g u_g - beta KL`: labels ask for `pi_ref exp(sum_g q_g U_g / beta)`, and
    `q_g <- q_g exp(-rate u_g(pi)) / Z` with `u_g` the group's expected utility under the policy, on the candidates
    that it trains on. At the saddle point all groups with `q_g > 0` are equally well off. It is the minimum of
    expectations and not the expectation of the minimum, so no response has to please everybody.

    Args:
        rate: of the weights, per unit of utility and step, above 0; it follows the learning rate's schedule.
    """

    rate: float = 0.1
    kind: Literal["maxmin"] = "maxmin"

    def split(
        self, weight: Float[np.ndarray, " group"]
    ) -> tuple[Float[np.ndarray, " group"] | None, Float[np.ndarray, " label"]]:
        """Mix targets to one."""
        return weight, np.ones(1)

    def gain(
        self,
        state: State,
        labels: Labels,
        candidates: Int[np.ndarray, "slate place"],
        loss: Float[np.ndarray, " group"],
    ) -> Float[np.ndarray, " group"]:
        """Return how badly groups are off."""
        return -state.utility(labels, candidates)


Reweighing = GroupRobust | MaxMin
