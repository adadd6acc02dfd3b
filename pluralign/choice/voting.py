"""What ordinal rules share: they see who ranks what above what, in every posterior draw, and name winners."""

import time
from abc import abstractmethod
from collections.abc import Callable, Iterator
from typing import ClassVar

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy.special import rel_entr

from pluralign.choice.ballots import Margins, Profile, ballots, electorates
from pluralign.choice.bundle import best_response
from pluralign.choice.risk import AbstractRisk, Mean
from pluralign.choice.rule import MEAN, AbstractRule, priced
from pluralign.errors import InputError
from pluralign.types import Certificate, Choice, Utilities

Winners = Bool[np.ndarray, "*batch candidate"]
Batch = Float[np.ndarray, "candidate candidate batch"]
CHUNK = 32_000  # margins in hand at once: they stay in the processor's cache


class AbstractVoting(AbstractRule):
    """A rule that names winners from everyone's order of the candidates.

    Every voter in every posterior draw casts one ballot, of mass `mass / draws`, so rules that need margins only see
    the expected ones, `m[a, b] = mean_draw sum_voter mass sign(u_a - u_b)`. What the rule maximises is the chance to
    answer with a winner, at the same price for divergence as other rules:

        max_p  mean_x sum_y p [y wins] - beta KL(p || ref),    p ∝ ref exp([y wins] / beta)

    As beta goes to 0 that is the reference among the winners. There are no multipliers, and no reward for responses
    that were not candidates. The certificate is that of this program, whose solution is a formula: its gap is
    rounding. Who wins is decided by comparing sums of masses; what separates a tie from a difference is
    `ballots.TIE`, and up to 1e10 ballots of equal mass every such comparison is exact.

    Ordinal rules do not see how much anyone gains or loses, so they need no scale. Nor can they be cautious about
    ignorance: a draw is one more voter, and `risk` must be `Mean`.
    """

    cautious: ClassVar[bool] = False

    @abstractmethod
    def count(self, profile: Profile) -> Float[np.ndarray, "..."]:
        """Return all that the rule needs to know of the ballots on one prompt."""

    @abstractmethod
    def decide(self, counted: Float[np.ndarray, "batch ..."]) -> Winners:
        """Return who wins, for a batch of what `count` returns."""

    def winners(
        self,
        rankings: Int[np.ndarray, "voter slot"],
        weights: Float[np.ndarray, " voter"] | None = None,
        candidates: int | None = None,
    ) -> Int[np.ndarray, " winner"]:
        """Return the winners of hard ballots, in the order of their numbers.

        Args:
            rankings: candidate indices, best first; a ballot that names fewer ends in -1 and ties all others last.
            weights: how much each voter counts, in any unit; None: all the same.
            candidates: how many there are; None: one more than the largest index.

        Raises:
            InputError: these are no ballots; see `ballots.ballots`.
        """
        return np.flatnonzero(self.decide(self.count(ballots(rankings, weights, candidates))[None])[0])

    def choose(self, utilities: Utilities, risk: AbstractRisk = MEAN, beta: float = 0.1) -> Choice:
        """Return `p ∝ ref exp([y wins] / beta)`; see `AbstractRule.choose`.

        Raises:
            InputError: `beta` is not positive, or `risk` is not `Mean`.
        """
        clock = time.perf_counter()
        neutral(self, risk, beta)
        wins = np.zeros(utilities.reference.shape)
        for rows, on, counted in counts(utilities, self.count):
            wins[rows[:, None], on] = self.decide(counted)
        lottery, bound = best_response(utilities, wins, beta)
        spent = rel_entr(lottery, utilities.reference).sum(-1)
        value = float(((lottery * wins).sum(-1) - beta * spent).mean())
        return chosen(self, utilities, risk, beta, lottery, value, bound, clock)


class AbstractMargins(AbstractVoting):
    """A rule that needs to know only by how much each candidate beats each other one."""

    @abstractmethod
    def best(self, m: Batch) -> Bool[np.ndarray, "candidate batch"]:
        """Return who wins, for a batch of margins whose profiles come last (there, loops over candidates are fast)."""

    def from_margins(self, margins: Margins) -> Winners:
        """Return who wins.

        Args:
            margins: `m[..., a, b]`, votes or share of votes for a over b less those for b over a; any batch.

        Raises:
            InputError: `m[a, b] = -m[b, a]` does not hold, or an entry is not finite.
        """
        return batched(self.best, margins, bool)

    def count(self, profile: Profile) -> Float[np.ndarray, "candidate candidate"]:
        """Return the margins."""
        return profile.margins()

    def decide(self, counted: Float[np.ndarray, "batch candidate candidate"]) -> Winners:
        """Return who wins."""
        return self.from_margins(counted)


def neutral(rule: AbstractRule, risk: AbstractRisk, beta: float) -> None:
    """Refuse what an ordinal rule cannot take."""
    priced(beta)
    if not isinstance(risk, Mean):
        raise InputError(
            f"{rule.name} counts every draw of a voter as a ballot, so it cannot be cautious: risk must be Mean(), "
            f"not {risk}. Choose with it apart from rules that are to be cautious."
        )


def counts(
    utilities: Utilities, count: Callable[[Profile], np.ndarray]
) -> Iterator[tuple[Int[np.ndarray, " prompt"], Int[np.ndarray, "prompt candidate"], np.ndarray]]:
    """Yield what `count` says of prompts with equally many candidates: their rows, their candidates, and that."""
    counted = [(on, count(profile)) for on, profile in electorates(utilities)]
    sizes = np.array([len(on) for on, _ in counted])
    for size in np.unique(sizes):
        rows = np.flatnonzero(sizes == size)
        yield rows, np.stack([counted[x][0] for x in rows]), np.stack([counted[x][1] for x in rows])


def chosen(
    rule: AbstractRule,
    utilities: Utilities,
    risk: AbstractRisk,
    beta: float,
    lottery: Float[np.ndarray, "prompt candidate"],
    value: float,
    bound: float,
    clock: float,
) -> Choice:
    """Return a choice without multipliers whose objective is `value`, and is at most `bound`."""
    gap = max(bound - value, 0.0)
    certificate = Certificate(value, bound, gap, float(np.sqrt(gap / (2 * beta))), 0, time.perf_counter() - clock)
    return Choice(rule.name, lottery, None, None, beta, risk.words, certificate, utilities)


def batched(f: Callable[[Batch], np.ndarray], margins: Margins, dtype: type) -> np.ndarray:
    """Return `f(m[candidate candidate batch])[candidate batch]` of all margins, in their shape, candidates last.

    Raises:
        InputError: they are no margins.
    """
    shape = np.shape(margins)
    if len(shape) < 2 or shape[-1] != shape[-2] or not shape[-1]:
        raise InputError(f"margins must be [..., candidate, candidate], got shape {shape}.")
    size = shape[-1]
    flat = np.asarray(margins, np.float64).reshape(-1, size * size)
    # x^T m x = 0 for every x if and only if m[a, b] = -m[b, a]; one x that is nothing special tells.
    x = np.sqrt(np.arange(2.0, size + 2))
    with np.errstate(invalid="ignore"):
        form = np.abs(flat @ np.outer(x, x).ravel())
    limit = 1e-9 * x.sum() ** 2 * max(1.0, flat.max(initial=0))
    # The negation also catches what is not a number.
    if not (limit < np.inf and (form <= limit).all()):
        raise InputError(
            "margins must be finite with m[a, b] = -m[b, a]: votes for a over b less votes for b over a. "
            "If these are shares that prefer a to b, pass shares - shares.swapaxes(-1, -2)."
        )
    result = np.empty((len(flat), size), dtype)
    step = max(1, CHUNK // size**2)
    for start in range(0, len(flat), step):
        part = flat[start : start + step]
        result[start : start + step] = f(np.ascontiguousarray(part.T).reshape(size, size, -1)).T
    return result.reshape(shape[:-1])
