"""Win rates: what a response is worth under a rule that knows only who prefers what to what.

Everybody's preference between two texts follows from the posterior: voter v in draw s prefers a to b if
`U[s, v](a) > U[s, v](b)`. The margin, as `choice` counts it, is

    m(a, b) = mean_draw sum_voter mass sign( U[draw, voter](a) - U[draw, voter](b) ),    P(a over b) = (1 + m) / 2,

and a response's reward is its mean over opponents of `P - 1/2 = m / 2`. Who the opponents are makes the rule.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Float

from pluralign.errors import InputError
from pluralign.types import Linear, Utilities

Responses = Float[np.ndarray, "response feature"]
SAME = 1e-12  # utilities that differ by less, relative to the ballot's largest, are equal: rounding, as in `choice`
TIE = 1e-10  # sums of margins that differ by less are equal
CHUNK = 4_000_000  # comparisons in memory at once


@dataclass(frozen=True, eq=False)
class Field:
    """What is known to be written on one prompt.

    Attributes:
        phi: features of each text.
        share: how often the reference writes it; sums to 1.
        lottery: how often the rule would have it written; None where the rule did not decide.
    """

    phi: Float[np.ndarray, "candidate feature"]
    share: Float[np.ndarray, " candidate"]
    lottery: Float[np.ndarray, " candidate"] | None = None


@dataclass(frozen=True, eq=False)
class Ballots:
    """Everyone's order of any texts, one ballot for each draw and each voter with mass.

    Attributes:
        weights: of the features.
        mass: of each ballot, sums to 1.
    """

    weights: Float[np.ndarray, "ballot feature"]
    mass: Float[np.ndarray, " ballot"]

    @classmethod
    def of(cls, utilities: Utilities) -> "Ballots":
        """Return the ballots behind utilities.

        Raises:
            InputError: utilities are dense.
        """
        if not isinstance(utilities.value, Linear):
            raise InputError("dense utilities know only their own candidates; make them from features instead.")
        counts, draws = utilities.mass > 0, utilities.shape[0]
        weights = utilities.value.weights[:, counts]
        return cls(weights.reshape(-1, weights.shape[-1]), np.tile(utilities.mass[counts] / draws, draws))

    def margins(
        self, first: Float[np.ndarray, "first feature"], second: Float[np.ndarray, "second feature"]
    ) -> Float[np.ndarray, "first second"]:
        """Return `m[a, b]`, mass that prefers a less mass that prefers b; in [-1, 1]."""
        m, step = np.zeros((len(first), len(second))), max(1, CHUNK // max(1, len(first) * len(second)))
        texts = np.concatenate([first, second])
        for start in range(0, len(self.mass), step):
            part = slice(start, start + step)
            value = texts @ self.weights[part].T
            rounding = SAME * np.abs(value).max(0, initial=0)
            a, b = value[: len(first), None], value[None, len(first) :]
            m += ((a > b + rounding).astype(np.int8) - (b > a + rounding)) @ self.mass[part]
        return m


class AbstractOpponents(ABC):
    """Whom a response has to beat."""

    @abstractmethod
    def score(self, ballots: Ballots, phi: Responses, field: Field | None) -> Float[np.ndarray, " response"]:
        """Return the reward of all responses to one prompt.

        Args:
            ballots: of everyone.
            phi: of the policy's responses to this prompt.
            field: the candidates of this prompt, None if none are known.

        Raises:
            InputError: there are no such opponents.
        """


@dataclass(frozen=True)
class AgainstReference(AbstractOpponents):
    """What the reference writes: `r(y) = sum_b ref_b m(y, b) / 2`, Borda's scores before anyone takes the best.

    The optimum is `ref exp(r / beta)`, which is softer than `Borda().choose`: there a winner is worth 1 and all others
    0 (see `AgainstWinner`). With a uniform reference the best candidate is Borda's winner. It is a fixed reward.
    """

    kind: Literal["reference"] = "reference"

    def score(self, ballots: Ballots, phi: Responses, field: Field | None) -> Float[np.ndarray, " response"]:
        """Return the mean of `P - 1/2` over the reference."""
        known = _known(self, field)
        return ballots.margins(phi, known.phi) @ known.share / 2


@dataclass(frozen=True)
class AgainstWinner(AbstractOpponents):
    """1 for a response that does as well against all candidates as the best of them, else 0.

        r(y) = [ sum_b m(y, b) >= max_a sum_b m(a, b) ],    a and b among the prompt's candidates

    On the candidates it is what `Borda().choose` rewards, so its optimum there is that rule's lottery. A response that
    was not a candidate wins if it would be chosen in place of Borda's winner.
    """

    kind: Literal["winner"] = "winner"

    def score(self, ballots: Ballots, phi: Responses, field: Field | None) -> Float[np.ndarray, " response"]:
        """Return who would win."""
        known = _known(self, field)
        own, others = (ballots.margins(x, known.phi).sum(1) for x in (phi, known.phi))
        return (own >= others.max() - TIE * len(others)).astype(np.float64)


@dataclass(frozen=True)
class AgainstLottery(AbstractOpponents):
    """What the rule would have written: `r(y) = sum_b lottery_b m(y, b) / 2`.

    Against the equilibrium of `MaximalLottery().choose` the best response at the same beta is that equilibrium itself,
    `ref exp(m lottery / (2 beta))`. So it is a fixed reward with the rule's lottery as its optimum, and nothing runs in
    circles; but new texts are judged against the candidates alone, never against each other.
    """

    kind: Literal["lottery"] = "lottery"

    def score(self, ballots: Ballots, phi: Responses, field: Field | None) -> Float[np.ndarray, " response"]:
        """Return the mean of `P - 1/2` over the rule's lottery."""
        known = _known(self, field)
        if known.lottery is None:
            raise InputError("the rule did not decide on this prompt; train on its prompts, or use SelfPlay.")
        return ballots.margins(phi, known.phi) @ known.lottery / 2


@dataclass(frozen=True)
class SelfPlay(AbstractOpponents):
    """The policy's other responses to the same prompt: `r(y_i) = sum_{j != i} m(y_i, y_j) / (2 (n - 1))`.

    It estimates `E_{y' ~ pi} m(y, y') / 2` without bias, so a policy that stays where it is, `pi ∝ ref exp(r / beta)`,
    is the regularised maximal lottery (`MaximalLottery().choose`; Munos et al. 2023, Nash learning from human
    feedback; Swamy et al. 2024, SPO) over all texts, not only the candidates. Where majorities go in circles a policy
    that learns fast runs after them: its average is right, not its last state.
    """

    kind: Literal["self-play"] = "self-play"

    def score(self, ballots: Ballots, phi: Responses, field: Field | None) -> Float[np.ndarray, " response"]:
        """Return the mean of `P - 1/2` over the other responses."""
        if len(phi) < 2:
            raise InputError("self-play needs at least two responses to each prompt; write more per group.")
        return ballots.margins(phi, phi).sum(1) / (2 * (len(phi) - 1))


Opponents = AgainstReference | AgainstWinner | AgainstLottery | SelfPlay


def _known(opponents: AbstractOpponents, field: Field | None) -> Field:
    if field is None:
        raise InputError(
            f"{type(opponents).__name__} needs to know what the reference writes on this prompt, which is not among "
            "the choice's: tell it by `Rewards.learn`, or use SelfPlay."
        )
    return field
