"""What a social-choice rule decided, and the reward that it makes."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from pluralign.types.checks import Array, check, finite, freeze, simplex
from pluralign.types.utilities import Utilities


@dataclass(frozen=True)
class Certificate:
    """Proof of how near a lottery is to the optimum of its program.

    Attributes:
        value: objective at the lottery, in units of welfare.
        upper_bound: no lottery reaches more.
        gap: `upper_bound - value`.
        tv_bound: no optimal lottery is farther than this from the returned one, mean total variation over prompts:
            `sqrt(gap / (2 beta))` with the best value met, by strong concavity and Pinsker's inequality.
        cuts: supergradients that the bound is made of.
        seconds: wall time of the solve.
    """

    value: float
    upper_bound: float
    gap: float
    tv_bound: float
    cuts: int
    seconds: float


@dataclass(frozen=True)
class Demand:
    """What a constraint demanded of a lottery, and what it cost.

    Attributes:
        name: what had to be worth at least 0.
        value: what it is worth at the lottery, in its own units.
        multiplier: welfare that one unit less of it would have bought; 0: it did not bind.
    """

    name: str
    value: float
    multiplier: float


@dataclass(frozen=True, eq=False)
class LinearReward:
    """A reward for any response: `r = phi · weights`; only differences within a prompt mean something."""

    weights: Float[Array, " feature"]

    def __post_init__(self):
        freeze(self, weights=(self.weights, np.float64))
        finite("weights", self.weights)

    def score(self, phi: Float[Array, "item feature"]) -> Float[Array, " item"]:
        """Return the reward of responses with these features.

        Raises:
            InputError: the features are not those that the reward was made from.
        """
        phi = np.asarray(phi, np.float64)
        have, need = phi.shape[-1], len(self.weights)
        check(have == need, f"{have} features, but this reward was made from {need}; encode with the same map.")
        return phi @ self.weights


@dataclass(frozen=True, eq=False)
class CautiousReward:
    """A reward that is sure of itself response by response, over draws of linear rewards.

        r = mean of the worst `tail` of (phi - origin) · weights[draw], less k times their standard deviation (ddof 0)

    It is no expectation of one reward, so the draws stay. What is uncertain about all responses to a prompt alike must
    not count: values are measured from what the reference writes, and that must be told for each prompt (`against`).

    Attributes:
        weights: of the features, in every draw.
        origin: mean features of what the reference writes, over all prompts.
        k: standard deviations subtracted, at least 0.
        tail: share of draws, the worst ones, whose mean is taken; in [0, 1], 0 is the worst draw.
    """

    weights: Float[Array, "draw feature"]
    origin: Float[Array, " feature"]
    k: float = 0.0
    tail: float = 1.0

    def __post_init__(self):
        freeze(self, weights=(self.weights, np.float64), origin=(self.origin, np.float64))
        finite("weights", self.weights)
        finite("origin", self.origin)
        check(self.weights.shape[1:] == self.origin.shape, "weights and origin disagree on features.")
        check(bool(np.isfinite(self.k)) and self.k >= 0, f"k is {self.k}; it must be finite and not negative.")
        check(0 <= self.tail <= 1, f"tail is {self.tail}; the share of worst draws lies in [0, 1].")

    def score(
        self, phi: Float[Array, "item feature"], against: Float[Array, "#item feature"] | None = None
    ) -> Float[Array, " item"]:
        """Return the reward of responses with these features.

        Args:
            phi: of the responses.
            against: mean features of what the reference writes on each response's own prompt; None: `origin`, which
                counts the uncertainty about how far the prompt is from others as the response's.

        Raises:
            InputError: the features are not those that the reward was made from.
        """
        phi = np.asarray(phi, np.float64)
        have, need = phi.shape[-1], len(self.origin)
        check(have == need, f"{have} features, but this reward was made from {need}; encode with the same map.")
        return self.of(self.weights @ (phi - (self.origin if against is None else against)).T)

    def of(self, values: Float[Array, "draw *shape"]) -> Float[Array, "*shape"]:
        """Return the cautious value of what is worth `values` in every draw."""
        k = max(self.tail * len(values), 1.0)
        share = np.clip(k - np.arange(len(values)), 0, 1) / k
        worst = np.tensordot(share, np.sort(values, axis=0), axes=1) if self.tail < 1 else values.mean(0)
        return worst - self.k * values.std(0)


@dataclass(frozen=True, eq=False)
class Choice:
    """What a social-choice rule decided.

    Attributes:
        name: of the rule, as in configs and file names.
        lottery: probability of each candidate, rows sum to 1.
        weights: the rule's multipliers of `u[draw, voter]`; None for rules that have none.
        reward: how to score a response that was not a candidate; None if utilities have no features.
        beta: price of a nat of divergence from the reference, in units of welfare.
        risk: in words, how draws were combined.
        certificate: evidence of optimality.
        utilities: the problem that was solved.
        demands: what constraints demanded, each a row of `rows`.
        rows: what each demand is worth, in place of voters; None without constraints.
        prices: multipliers of `rows`.
    """

    name: str
    lottery: Float[Array, "prompt candidate"]
    weights: Float[Array, "draw voter"] | None
    reward: LinearReward | CautiousReward | None
    beta: float
    risk: str
    certificate: Certificate
    utilities: Utilities
    demands: tuple[Demand, ...] = ()
    rows: Utilities | None = None
    prices: Float[Array, "draw row"] | None = None

    def __post_init__(self):
        freeze(self, lottery=(self.lottery, np.float64))
        simplex("lottery", self.lottery)

    @property
    def caveats(self) -> tuple[str, ...]:
        """What the user must know before trusting any number made from this choice."""
        return self.utilities.caveats

    def log_ratio(self) -> Float[Array, "prompt candidate"]:
        """Return `log(lottery / reference)`, centred to mean 0 under the reference; 0 where the reference is 0.

        It is what a policy has to learn. From the multipliers it is exact even where the lottery underflows.
        """
        reference = self.utilities.reference
        if self.weights is not None:
            ratio = self.utilities.weighted(self.weights) / self.beta
            if self.rows is not None and self.prices is not None:
                ratio = ratio + self.rows.weighted(self.prices) / self.beta
        else:
            counts = (reference > 0) & (self.lottery > 0)
            ratio = np.log(np.where(counts, self.lottery, 1e-12) / np.where(reference > 0, reference, 1))
        ratio = np.where(reference > 0, ratio, 0)
        return np.where(reference > 0, ratio - (reference * ratio).sum(-1, keepdims=True), 0)
