"""Rules that leave it to chance: maximal lotteries, a dictator drawn at random, and fair shares of approval."""

import time
from abc import abstractmethod
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
from jaxtyping import Float, Int
from scipy.special import rel_entr

from pluralign.choice import game
from pluralign.choice.ballots import TIE, Margins, Profile, ballots
from pluralign.choice.orders import smith
from pluralign.choice.risk import AbstractRisk
from pluralign.choice.rule import MEAN, AbstractRule
from pluralign.choice.solve import TOLERANCE
from pluralign.choice.voting import batched, chosen, counts, neutral
from pluralign.errors import SolveError
from pluralign.types import Choice, Utilities

Lotteries = Float[np.ndarray, "*batch candidate"]
ENUMERATED = 10  # candidates whose sets are enumerated, at most


class AbstractLottery(AbstractRule):
    """A rule that gives chances to candidates from everyone's order of them."""

    cautious: ClassVar[bool] = False

    @abstractmethod
    def chances(self, profile: Profile) -> Float[np.ndarray, " candidate"]:
        """Return the lottery of one profile, where divergence costs nothing."""

    def lottery(
        self,
        rankings: Int[np.ndarray, "voter slot"],
        weights: Float[np.ndarray, " voter"] | None = None,
        candidates: int | None = None,
    ) -> Float[np.ndarray, " candidate"]:
        """Return the chances of each candidate from hard ballots, where divergence costs nothing.

        Args:
            rankings: candidate indices, best first; a ballot that names fewer ends in -1 and ties all others last.
            weights: how much each voter counts, in any unit; None: all the same.
            candidates: how many there are; None: one more than the largest index.

        Raises:
            InputError: these are no ballots; see `ballots.ballots`.
            SolveError: a program was not solved to its certificate.
        """
        return self.chances(ballots(rankings, weights, candidates))


@dataclass(frozen=True)
class MaximalLottery(AbstractLottery):
    """The lottery to which no other is preferred by a majority, `m p <= 0` (Kreweras 1965; Fishburn 1984).

    Of the expected answer of any other policy, at least half the voters like this one's as much or better. It follows a
    majority where there is one, mixes where majorities go in circles, and neither copies of a candidate nor losers
    change it (Brandl, Brandt and Seedig 2016; for language models: Maura-Rivero et al. 2025).

    `choose` is the equilibrium of the game where both sides pay beta for each nat of divergence, and win by the share
    who prefer their answer,

        max_p min_q  sum_{a, b} p_a q_b (1 + m[a, b]) / 2 - beta KL(p, ref) + beta KL(q, ref),

    `p ∝ ref exp(m p / (2 beta))`: the regularised maximal lottery, to which Nash-MD converges (Munos et al. 2023, Nash
    learning from human feedback; beta is their tau, ref their mu). It is unique and worth 1/2; the certificate says how
    much less p is sure of, and thereby how far it can be from the equilibrium. As beta goes to 0 it goes to the maximal
    lottery nearest to the reference.

    Args:
        entropy: where several lotteries are maximal (margins that are 0, mostly), take the one of largest entropy, to
            which `choose` goes under a uniform reference; else the one of least norm, which is faster. Either is
            unique and favours no candidate.
    """

    entropy: bool = False
    kind: Literal["maximal-lottery"] = "maximal-lottery"

    def from_margins(self, margins: Margins) -> Lotteries:
        """Return maximal lotteries: where there is only one, exactly, from Pfaffians; else by a program.

        Args:
            margins: `m[..., a, b]`, votes or share of votes for a over b less those for b over a; any batch.

        Raises:
            InputError: `m[a, b] = -m[b, a]` does not hold, or an entry is not finite.
            SolveError: some candidate gains against the lottery that was found.
        """
        return batched(self._best, margins, float)

    def chances(self, profile: Profile) -> Float[np.ndarray, " candidate"]:
        """Return the lottery of one profile."""
        return self.from_margins(profile.margins())

    def choose(self, utilities: Utilities, risk: AbstractRisk = MEAN, beta: float = 0.1) -> Choice:
        """Return the equilibrium at price beta on the expected margins; see `AbstractRule.choose`."""
        clock = time.perf_counter()
        neutral(self, risk, beta)
        lottery, loss = np.zeros(utilities.reference.shape), 0.0
        for rows, on, m in counts(utilities, Profile.margins):
            p, gain = game.priced(m, utilities.reference[rows[:, None], on], beta)
            lottery[rows[:, None], on] = p
            loss += float(gain.sum()) / len(lottery)
        choice = chosen(self, utilities, risk, beta, lottery, 0.5 - loss, 0.5, clock)
        if not choice.certificate.tv_bound <= TOLERANCE:
            raise SolveError(
                f"maximal-lottery was not solved: the equilibrium may be {choice.certificate.tv_bound:.2g} away in "
                f"total variation (tolerance {TOLERANCE:g}). beta is {beta:g}; it is in units of the chance to be "
                "preferred, so 0.01 to 1 is common. Use a larger one."
            )
        return choice

    def _best(self, m: game.Batch) -> Float[np.ndarray, "candidate batch"]:
        m = np.where(np.abs(m) > TIE, m, 0)
        m = m / np.maximum(np.abs(m).max((0, 1)), TIE)  # products of margins neither overflow nor vanish
        if len(m) > ENUMERATED:
            return np.stack([self._of_many(m[..., i]) for i in range(m.shape[2])], axis=1)
        lottery, sure = game.strict(m)
        gain = np.einsum("abn,bn->an", m, lottery).max(0)
        sure &= gain <= game.RESIDUAL
        for i in np.flatnonzero(~sure):
            lottery[:, i] = game.program(m[..., i], self.entropy)
        return lottery

    def _of_many(self, m: game.Square) -> Float[np.ndarray, " candidate"]:
        """Return the lottery among those who beat everyone else: nobody else has a chance."""
        top = np.flatnonzero(smith(m))
        lottery, inner = np.zeros(len(m)), m[np.ix_(top, top)]
        if len(top) <= ENUMERATED:
            lottery[top] = self._best(inner[..., None])[:, 0]
        else:
            lottery[top] = game.program(inner, self.entropy)
        return lottery


@dataclass(frozen=True)
class RandomDictatorship(AbstractLottery):
    """A voter is drawn by mass and gets what it likes best (Gibbard 1977).

    The only rule that gives nobody a reason to lie and never answers with what all like less than something else.
    Everyone's favourite has a chance, however much the others dislike it. In `choose` the dictator too pays beta for
    each nat, `p = sum_a first(a) ref exp([y = a] / beta) / Z_a`; favourites that are tied share the ballot.
    """

    kind: Literal["random-dictatorship"] = "random-dictatorship"

    def chances(self, profile: Profile) -> Float[np.ndarray, " candidate"]:
        """Return the share of first places."""
        return profile.tops(np.ones(len(profile.level), bool))

    def choose(self, utilities: Utilities, risk: AbstractRisk = MEAN, beta: float = 0.1) -> Choice:
        """Return the mean of what the dictators choose; see `AbstractRule.choose`."""
        clock = time.perf_counter()
        neutral(self, risk, beta)
        share = np.zeros(utilities.reference.shape)
        for rows, on, first in counts(utilities, self.chances):
            share[rows[:, None], on] = first
        # The dictator for a gives it `own`, and everyone else `rest` times the reference.
        reference, low = utilities.reference, np.exp(-1 / beta)
        scale = np.where(share > 0, reference + (1 - reference) * low, 1)
        own, rest = reference / scale, low / scale
        lottery = share * (own - reference * rest) + reference * (share * rest).sum(-1, keepdims=True)
        spent = rel_entr(own, reference) + rel_entr(1 - own, 1 - reference)
        value, bound = (
            (share * (own - beta * spent)).sum(-1).mean(),
            (share * (1 + beta * np.log(scale))).sum(-1).mean(),
        )
        return chosen(self, utilities, risk, beta, lottery, float(value), float(bound), clock)
