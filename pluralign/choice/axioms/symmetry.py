"""Axioms that compare a society with one that says the same in other words, or the opposite."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import permutations
from math import factorial
from typing import Literal

import numpy as np

from pluralign.choice.axioms.axiom import AbstractComparing, Change, Evidence, Rng, some, who
from pluralign.choice.axioms.outcome import AbstractOutcome, says
from pluralign.choice.axioms.society import Society

FACTORS, SHIFTS = (0.2, 0.5, 2.0, 5.0), (-0.5, 0.5, 3.0)


@dataclass(frozen=True)
class Anonymity(AbstractComparing):
    """Who says what does not matter: voters that change places change nothing."""

    kind: Literal["anonymity"] = "anonymity"

    def changes(
        self, society: Society, outcome: AbstractOutcome, tries: int, rng: Rng
    ) -> tuple[Iterator[Change], bool]:
        """Return the society with voters in other orders."""
        del outcome
        orders, complete = _orders(society.shape[0], tries, rng)
        return (Change((society.only(voters=o),), _moved(o)) for o in orders), complete

    def clash(
        self, society: Society, outcome: AbstractOutcome, change: Change, outcomes: tuple[AbstractOutcome, ...]
    ) -> Evidence | None:
        """Return a difference."""
        if outcomes[0].same(outcome):
            return None
        after = says(change.others[0], outcomes[0])
        words = f"{says(society, outcome)}, but with ballots exchanged among {who(society, change.voters)}: {after}."
        return Evidence(words, _differ(outcome, outcomes[0]), change.voters)


@dataclass(frozen=True)
class Neutrality(AbstractComparing):
    """What candidates are called does not matter: exchanged on all ballots, they exchange their fate."""

    kind: Literal["neutrality"] = "neutrality"

    def changes(
        self, society: Society, outcome: AbstractOutcome, tries: int, rng: Rng
    ) -> tuple[Iterator[Change], bool]:
        """Return the society with candidates in other orders."""
        del outcome
        orders, complete = _orders(society.shape[1], tries, rng)
        return (Change((society.only(candidates=o),), candidates=_moved(o)) for o in orders), complete

    def clash(
        self, society: Society, outcome: AbstractOutcome, change: Change, outcomes: tuple[AbstractOutcome, ...]
    ) -> Evidence | None:
        """Return a difference."""
        other, names = change.others[0], np.array(society.candidates)
        back = np.array([other.candidates.index(name) for name in names])
        here = replace(outcomes[0], chance=outcomes[0].chance[back], wins=outcomes[0].wins[back])
        if here.same(outcome):
            return None
        words = (
            f"{says(society, outcome)}, but if candidates are listed in the order {', '.join(other.candidates)}: "
            f"{says(society, here)}."
        )
        return Evidence(words, change.candidates)


@dataclass(frozen=True)
class ScaleInvariance(AbstractComparing):
    """The units and zeros in which a voter's utilities come do not matter (rules that count orders never see them).

    Args:
        unit: utilities of one voter may be multiplied by a positive number.
        zero: a number may be added to all utilities of one voter.
    """

    unit: bool = True
    zero: bool = True
    kind: Literal["scale-invariance"] = "scale-invariance"

    @property
    def name(self) -> str:
        """The axiom's name, with what it is about if that is not both."""
        return {(True, False): "unit-invariance", (False, True): "zero-invariance"}.get(
            (self.unit, self.zero), self.kind
        )

    def changes(
        self, society: Society, outcome: AbstractOutcome, tries: int, rng: Rng
    ) -> tuple[Iterator[Change], bool]:
        """Return the society with one voter's utilities on other scales."""
        del outcome
        units, zeros = FACTORS if self.unit else (1.0,), SHIFTS if self.zero else (0.0,)
        options = [(int(kind[0]), unit, zero) for kind in society.kinds for unit in units for zero in zeros]
        picked, _ = some(options, tries, rng)
        return (self._change(society, *option) for option in picked), False

    def _change(self, society: Society, voter: int, unit: float, zero: float) -> Change:
        utility = society.utility.copy()
        utility[voter] = unit * utility[voter] + zero * np.ptp(utility[voter])
        words = " and ".join(
            part
            for part, on in ((f"multiplied by {unit:g}", self.unit), (f"raised by {zero:g} ranges", self.zero))
            if on
        )
        return Change((replace(society, utility=utility),), (voter,), words=words)

    def clash(
        self, society: Society, outcome: AbstractOutcome, change: Change, outcomes: tuple[AbstractOutcome, ...]
    ) -> Evidence | None:
        """Return a difference."""
        if outcomes[0].same(outcome):
            return None
        words = (
            f"{says(society, outcome)}, but with utilities of {who(society, change.voters)} {change.words}: "
            f"{says(change.others[0], outcomes[0])}."
        )
        return Evidence(words, _differ(outcome, outcomes[0]), change.voters)


@dataclass(frozen=True)
class Homogeneity(AbstractComparing):
    """Only shares of ballots matter: every voter twice, or three times, changes nothing (Fishburn 1977)."""

    kind: Literal["homogeneity"] = "homogeneity"

    def changes(
        self, society: Society, outcome: AbstractOutcome, tries: int, rng: Rng
    ) -> tuple[Iterator[Change], bool]:
        """Return the society twice and three times."""
        del outcome, tries, rng
        every = np.arange(society.shape[0])
        return (Change((society.only(np.tile(every, times)),), words=str(times)) for times in (2, 3)), False

    def clash(
        self, society: Society, outcome: AbstractOutcome, change: Change, outcomes: tuple[AbstractOutcome, ...]
    ) -> Evidence | None:
        """Return a difference."""
        if outcomes[0].same(outcome):
            return None
        after = says(change.others[0], outcomes[0])
        words = f"{says(society, outcome)}, but with every ballot cast {change.words} times: {after}."
        return Evidence(words, _differ(outcome, outcomes[0]))


@dataclass(frozen=True)
class ReversalSymmetry(AbstractComparing):
    """Who wins alone does not win if everyone's order is turned round (Saari 1994, Geometry of Voting)."""

    kind: Literal["reversal-symmetry"] = "reversal-symmetry"

    def changes(
        self, society: Society, outcome: AbstractOutcome, tries: int, rng: Rng
    ) -> tuple[Iterator[Change], bool]:
        """Return the society turned round, each voter's utilities between the same worst and best."""
        del tries, rng
        u = society.utility
        turned = u.max(1, keepdims=True) + u.min(1, keepdims=True) - u
        other = replace(society, utility=turned, approved=~society.approved)
        return iter([Change((other,))] if outcome.wins.sum() == 1 < society.shape[1] else []), True

    def clash(
        self, society: Society, outcome: AbstractOutcome, change: Change, outcomes: tuple[AbstractOutcome, ...]
    ) -> Evidence | None:
        """Return the one who wins either way."""
        a = int(outcome.wins.argmax())
        # A lottery breaks it where it gives the same candidate everything, both times.
        if not (outcomes[0].wins[a] and (outcome.is_set or outcomes[0].wins.sum() == 1)):
            return None
        name = society.candidates[a]
        return Evidence(f"{name} wins, and with every ballot turned round {says(change.others[0], outcomes[0])}.", (a,))


def _moved(order: np.ndarray) -> tuple[int, ...]:
    return tuple(int(i) for i in np.flatnonzero(order != np.arange(len(order))))


def _differ(before: AbstractOutcome, after: AbstractOutcome) -> tuple[int, ...]:
    return tuple(int(y) for y in np.flatnonzero(np.abs(before.chance - after.chance) > 1e-6))


def _orders(size: int, tries: int, rng: Rng) -> tuple[Iterator[np.ndarray], bool]:
    """Return all orders but the present one, or a sample."""
    if size <= 10 and factorial(size) <= tries:
        every = permutations(range(size))
        next(every)
        return (np.array(order) for order in every), True
    return (rng.permutation(size) for _ in range(tries)), False
