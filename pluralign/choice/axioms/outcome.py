"""What a rule makes of a society: winners, or a lottery, and who likes which outcome better."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import singledispatch
from typing import ClassVar

import numpy as np
from jaxtyping import Bool

from pluralign.choice.axioms.society import Row, Society, as_utilities
from pluralign.choice.decision import World, best_alone, shares
from pluralign.choice.leximin import Leximin
from pluralign.choice.linear import DENSE, AbstractLinear, Electorate
from pluralign.choice.lottery import AbstractLottery
from pluralign.choice.rule import AbstractRule, AbstractWelfare
from pluralign.choice.voting import AbstractVoting
from pluralign.errors import InputError

SMALL = 1e-3  # chances that differ by less are not told apart
PRICED = 1e-2  # the same, of lotteries that pay for divergence
PRICE = 0.01  # beta of rules that know no other way to decide than `choose`
ORDINAL = (AbstractVoting, AbstractLottery, AbstractLinear)  # rules that see orders only


@dataclass(frozen=True, eq=False)
class AbstractOutcome(ABC):
    """What a rule decided.

    Attributes:
        chance: of each candidate; winners share alike.
        wins: who has a chance worth speaking of.
        ordinal: True if the rule saw orders only.
        is_set: True if it says who wins, not how often.
    """

    chance: Row
    wins: Bool[np.ndarray, " candidate"]
    ordinal: bool = True
    is_set: ClassVar[bool] = False

    @abstractmethod
    def same(self, other: "AbstractOutcome") -> bool:
        """Return whether another outcome on the same candidates is the same one."""

    @abstractmethod
    def better(self, than: "AbstractOutcome", utility: Row) -> bool:
        """Return whether a voter with these utilities is sure to like this outcome better."""

    @abstractmethod
    def falls(self, before: "AbstractOutcome", candidate: int) -> bool:
        """Return whether the candidate stands worse here than before."""


@dataclass(frozen=True, eq=False)
class Winners(AbstractOutcome):
    """A set of candidates, of which somebody else will take one.

    A voter likes one set better than another if nothing in it is worse than anything in the other, and something is
    better (Kelly 1977, Strategy-proofness and social choice functions without single-valuedness).
    """

    is_set: ClassVar[bool] = True

    def same(self, other: AbstractOutcome) -> bool:
        """Return whether the same candidates win."""
        return bool((self.wins == other.wins).all())

    def better(self, than: AbstractOutcome, utility: Row) -> bool:
        """Return whether every winner here is worth as much as every one there, and some pair differs."""
        here, there = utility[self.wins], utility[than.wins]
        return bool(here.min() >= there.max() and here.max() > there.min())

    def falls(self, before: AbstractOutcome, candidate: int) -> bool:
        """Return whether the candidate won and no longer does."""
        return bool(before.wins[candidate] and not self.wins[candidate])


@dataclass(frozen=True, eq=False)
class Lottery(AbstractOutcome):
    """Chances of candidates, judged by orders.

    A voter likes one lottery better than another if, of every top part of its order, it has at least as much chance
    of getting something there, and of some part more (stochastic dominance: Bogomolnaia and Moulin 2001).
    """

    def same(self, other: AbstractOutcome) -> bool:
        """Return whether chances are the same."""
        return bool((np.abs(self.chance - other.chance) <= SMALL).all())

    def better(self, than: AbstractOutcome, utility: Row) -> bool:
        """Return whether this stochastically dominates."""
        parts = utility >= np.unique(utility)[:, None]
        gain = parts @ (self.chance - than.chance)
        return bool((gain >= -SMALL / 10).all() and (gain > SMALL).any())

    def falls(self, before: AbstractOutcome, candidate: int) -> bool:
        """Return whether the chance is smaller."""
        return bool(self.chance[candidate] < before.chance[candidate] - SMALL)


@dataclass(frozen=True, eq=False)
class Expected(AbstractOutcome):
    """Chances of candidates, judged by expected utility, in shares of the voter's distance from worst to best."""

    ordinal: bool = False

    def same(self, other: AbstractOutcome) -> bool:
        """Return whether chances are about the same."""
        return bool((np.abs(self.chance - other.chance) <= PRICED).all())

    def better(self, than: AbstractOutcome, utility: Row) -> bool:
        """Return whether the expectation is larger."""
        return bool(utility @ (self.chance - than.chance) > PRICED * np.ptp(utility))

    def falls(self, before: AbstractOutcome, candidate: int) -> bool:
        """Return whether the chance is smaller."""
        return bool(self.chance[candidate] < before.chance[candidate] - PRICED)


def winners(wins: Bool[np.ndarray, " candidate"], ordinal: bool = True) -> Winners:
    """Return an outcome in which these win."""
    return Winners(wins / wins.sum(), np.asarray(wins, bool), ordinal)


def says(society: Society, outcome: AbstractOutcome) -> str:
    """Return the outcome in words."""
    names = [society.candidates[y] for y in np.flatnonzero(outcome.wins)]
    if isinstance(outcome, Winners):
        return " and ".join(names) + (" wins" if len(names) == 1 else " win")
    some = np.flatnonzero(outcome.wins | (outcome.chance > SMALL))
    return ", ".join(f"{society.candidates[y]} has {100 * outcome.chance[y]:.3g} %" for y in some)


@dataclass(frozen=True)
class Judge:
    """A rule as axioms judge it: on one prompt, where divergence costs nothing or little.

    Rules that count orders are asked for their winners, or their lottery. Rules that maximise welfare are asked which
    candidates have the largest welfare as the sole answer, `argmax_y W(U[:, y])`, which is how textbooks state them (of
    somebody who has nothing from each as `decide` does, with zeros as they come; below zero they are not defined); or,
    if `beta` is given, for the lottery of `choose`, which may be better for all than any sole answer. Linear rules are
    asked whom their weights put first. Any other rule is asked for the lottery of `choose`.

    Args:
        rule: to be judged.
        beta: price of divergence at which a welfare's lottery is chosen; None: the best sole answers.
    """

    rule: AbstractRule
    beta: float | None = None

    def __call__(self, society: Society) -> AbstractOutcome:
        """Return what the rule makes of a society.

        Raises:
            InputError: the rule cannot take these ballots.
            SolveError: a program was not solved to its certificate.
        """
        return _decide(self.rule, society, self.beta)


@singledispatch
def _decide(rule: AbstractRule, society: Society, beta: float | None) -> AbstractOutcome:
    chance = rule.choose(as_utilities(society), beta=PRICE if beta is None else beta).lottery[0]
    return Expected(chance, chance > PRICED)


@_decide.register(AbstractVoting)
def _(rule: AbstractVoting, society: Society, beta: float | None) -> AbstractOutcome:
    del beta
    return winners(rule.decide(rule.count(society.profile)[None])[0])


@_decide.register(AbstractLottery)
def _(rule: AbstractLottery, society: Society, beta: float | None) -> AbstractOutcome:
    del beta
    chance = rule.chances(society.profile)
    return Lottery(chance, chance > SMALL)


@_decide.register(AbstractLinear)
def _(rule: AbstractLinear, society: Society, beta: float | None) -> AbstractOutcome:
    del beta
    if society.phi is None:
        raise InputError(DENSE)
    return winners(rule.first([Electorate.of(society.phi, society.profile, 0, np.arange(society.shape[1]))])[0])


@_decide.register(AbstractWelfare)
@_decide.register(Leximin)
def _(rule: AbstractWelfare | Leximin, society: Society, beta: float | None) -> AbstractOutcome:
    if beta is not None:
        chance = rule.choose(as_utilities(society), beta=beta).lottery[0]
        return Expected(chance, chance > PRICED)
    utilities = as_utilities(society)
    world = World(utilities.dense(), utilities.mass, utilities.reference)
    share = shares(rule, world) if isinstance(rule, Leximin) else best_alone(rule, world, strict=True)
    return winners(share[0, 0] > 0, ordinal=False)
