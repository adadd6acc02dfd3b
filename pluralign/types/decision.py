"""What rules decide in every posterior draw."""

from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Bool, Float

from pluralign.types.checks import Array, check, freeze, simplex


def _apart(a: Array, b: Array) -> Array:
    """Return total variation along the last axis."""
    return np.abs(a - b).sum(-1) / 2


def _stderr(values: Array) -> Array:
    """Return the standard error of the mean over the first axis; NaN for one value."""
    n = len(values)
    return values.std(0, ddof=1) / np.sqrt(n) if n > 1 else np.full(values.shape[1:], np.nan)


@dataclass(frozen=True, eq=False)
class Decision:
    """What a rule decides on each prompt in every posterior draw alone, and on posterior mean utilities.

    How far two decisions are apart is `sum_candidate |a - b| / 2` of their shares: 1 or 0 where each has one winner;
    with ties and lotteries, how often the two would answer differently if they followed one lot as far as they can.

    Attributes:
        name: of the rule.
        shares: 1 for the only winner, 1 / k for each of k tied winners, a lottery's chances; rows sum to 1.
        plug_in: the same on posterior mean utilities.
        enough: the data decide on a prompt if some candidate wins with at least this probability; in (0, 1].
    """

    name: str
    shares: Float[Array, "draw prompt candidate"]
    plug_in: Float[Array, "prompt candidate"]
    enough: float = 0.5

    def __post_init__(self):
        freeze(self, shares=(self.shares, np.float64), plug_in=(self.plug_in, np.float64))
        check(self.shares.ndim == 3, f"shares must be [draw prompt candidate], got shape {self.shares.shape}.")
        check(self.plug_in.shape == self.shares.shape[1:], "plug_in and shares disagree on prompts or candidates.")
        simplex("shares", self.shares)
        simplex("plug_in", self.plug_in)
        check(0 < self.enough <= 1, f"enough is {self.enough}; the probability from which data decide is in (0, 1].")

    @property
    def probability(self) -> Float[Array, "prompt candidate"]:
        """Probability that each candidate wins: the mean over draws."""
        return self.shares.mean(0)

    @property
    def stderr(self) -> Float[Array, "prompt candidate"]:
        """Monte Carlo standard error of `probability` from independent draws; NaN if there is only one."""
        return _stderr(self.shares)

    @property
    def likeliest(self) -> Float[Array, " prompt"]:
        """Probability of the most probable winner; with few draws that of a long shot among many is too high."""
        return self.probability.max(-1)

    @property
    def decided(self) -> Bool[Array, " prompt"]:
        """Whether some candidate wins with probability `enough`, but for rounding."""
        return self.likeliest >= self.enough - 1e-9

    @property
    def differs(self) -> Float[Array, " prompt"]:
        """Probability that a draw decides otherwise than posterior means do."""
        return _apart(self.shares, self.plug_in).mean(0)

    @property
    def differs_stderr(self) -> Float[Array, " prompt"]:
        """Monte Carlo standard error of `differs`; NaN if there is only one draw."""
        return _stderr(_apart(self.shares, self.plug_in))

    @property
    def ignorance(self) -> Float[Array, " prompt"]:
        """Probability that two different draws decide differently, over all pairs of draws; NaN if there is only one.

        The mean distance of all pairs of numbers comes from their order, `sum_i (2 i - n + 1) x_(i) * 2 / (n (n - 1))`
        with i from 0 (Gini's mean difference).
        """
        n = len(self.shares)
        if n < 2:
            return np.full(self.shares.shape[1], np.nan)
        rank = 2 * np.arange(n) - n + 1
        return np.einsum("s,sxy->x", rank, np.sort(self.shares, axis=0)) / (n * (n - 1))

    def apart(self, other: "Decision") -> Float[Array, "draw prompt"]:
        """Return how far another rule's decision is from this one in the same draw."""
        here, there = self.shares.shape, other.shares.shape
        check(here == there, f"{self.name} decided on {here} draws, prompts, candidates, {other.name} on {there}.")
        return _apart(self.shares, other.shares)


@dataclass(frozen=True, eq=False)
class Decisions:
    """What several rules decide on one posterior.

    Attributes:
        rules: of each rule that decides in every draw.
        reasons: why others do not, by the name of the rule.
    """

    rules: tuple[Decision, ...]
    reasons: dict[str, str] = field(default_factory=dict)
