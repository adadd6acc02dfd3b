"""Axioms that compare societies of different voters or candidates."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import chain, combinations
from typing import Literal

import numpy as np

from pluralign.choice.axioms.axiom import AbstractComparing, Change, Evidence, Rng, groups, some, who
from pluralign.choice.axioms.outcome import AbstractOutcome, says, winners
from pluralign.choice.axioms.society import Society, ballot

CIRCLE = np.array([[1, -1], [-2, -1], [1, 2]])  # where every third voter puts two copies
APART = 0.25  # distance of a clone, in the smallest distance between two of a voter's candidates


@dataclass(frozen=True)
class Participation(AbstractComparing):
    """Nobody does better by staying away (Fishburn and Brams 1983; Moulin 1988).

    Looked at are single voters and groups of the same opinion. Between sets of winners "better" is sure only if nothing
    that is had is worse (Kelly's extension), between lotteries if one stochastically dominates (Brandl, Brandt and
    Hofbauer 2019); a rule may so break stricter forms of the axiom that are not looked at.
    """

    kind: Literal["participation"] = "participation"

    def changes(
        self, society: Society, outcome: AbstractOutcome, tries: int, rng: Rng
    ) -> tuple[Iterator[Change], bool]:
        """Return the society without some voters of one opinion."""
        del outcome
        every = np.arange(society.shape[0])
        picked, complete = some([g for g in groups(society) if len(g) < len(every)], tries, rng)
        return (Change((society.only(np.setdiff1d(every, g)),), g) for g in picked), complete

    def clash(
        self, society: Society, outcome: AbstractOutcome, change: Change, outcomes: tuple[AbstractOutcome, ...]
    ) -> Evidence | None:
        """Return those who had better stayed away."""
        first = change.voters[0]
        if not outcomes[0].better(outcome, society.utility[first]):
            return None
        words = (
            f"{who(society, change.voters)} ({ballot(society, first)}) had better stayed away: with them "
            f"{says(society, outcome)}, without them {says(change.others[0], outcomes[0])}."
        )
        return Evidence(words, tuple(int(y) for y in np.flatnonzero(outcome.wins | outcomes[0].wins)), change.voters)


@dataclass(frozen=True)
class Reinforcement(AbstractComparing):
    """What two electorates choose alike, they choose together (Young 1975).

    Sets of winners: if both have winners in common, these and no others win together. Lotteries: if both choose the
    same one, so they do together.
    """

    kind: Literal["reinforcement"] = "reinforcement"

    def changes(
        self, society: Society, outcome: AbstractOutcome, tries: int, rng: Rng
    ) -> tuple[Iterator[Change], bool]:
        """Return the society in two parts."""
        del outcome
        size = society.shape[0]
        complete = size <= 20 and 2 ** (size - 1) - 1 <= tries
        if complete:
            inside = ((np.arange(1, 2 ** (size - 1))[:, None] >> np.arange(size)) & 1).astype(bool)
        else:
            inside = rng.random((tries, size)) < 0.5
        parts = (np.flatnonzero(row) for row in inside if 0 < row.sum() < size)
        every = np.arange(size)
        split = (
            Change((society.only(part), society.only(np.setdiff1d(every, part))), tuple(int(v) for v in part))
            for part in parts
        )
        return split, complete

    def clash(
        self, society: Society, outcome: AbstractOutcome, change: Change, outcomes: tuple[AbstractOutcome, ...]
    ) -> Evidence | None:
        """Return the two parts, if they agree on what the whole does not choose."""
        one, two = outcomes
        common = one.wins & two.wins
        ok = outcome.same(winners(common)) if outcome.is_set and common.any() else True
        if not outcome.is_set and one.same(two):
            ok = outcome.same(one)
        if ok:
            return None
        rest = tuple(v for v in range(society.shape[0]) if v not in change.voters)
        words = (
            f"for {who(society, change.voters)}: {says(change.others[0], one)}; for {who(society, rest)}: "
            f"{says(change.others[1], two)}; but for all together: {says(society, outcome)}."
        )
        return Evidence(words, tuple(int(y) for y in np.flatnonzero(common)), change.voters)


@dataclass(frozen=True)
class Clones(AbstractComparing):
    """A near copy of a candidate, next to it on every ballot, takes from nobody but the candidate (Tideman 1987).

    The copy is put just above or below, voter by voter, in all ways or a sample of them, and then two copies so that
    the three beat each other in a circle; where voters may be indifferent (approvals, utilities) it is one exact copy.
    Who wins apart from the copies stays the same, and one of them or the candidate wins if the candidate did; of
    lotteries, chances stay the same, those of the copies added up. Copies share the candidate's part of the reference,
    and have its features.
    """

    kind: Literal["clones"] = "clones"

    def changes(
        self, society: Society, outcome: AbstractOutcome, tries: int, rng: Rng
    ) -> tuple[Iterator[Change], bool]:
        """Return the society with a copy of one candidate."""
        voters, candidates = society.shape
        if society.dichotomous or not outcome.ordinal:
            return (Change((cloned(society, y, 0),), candidates=(y,)) for y in range(candidates)), False
        if voters <= 20 and 2**voters * candidates <= tries:
            above = (np.arange(2**voters)[:, None] >> np.arange(voters)) & 1
        else:
            sample = rng.integers(0, 2, (tries // candidates, voters))
            above = np.concatenate([[np.ones(voters), np.zeros(voters)], sample])
        sides = [*(2 * above - 1)[:, :, None], CIRCLE[np.arange(voters) % 3]]
        return (Change((cloned(society, y, s),), candidates=(y,)) for s in sides for y in range(candidates)), False

    def clash(
        self, society: Society, outcome: AbstractOutcome, change: Change, outcomes: tuple[AbstractOutcome, ...]
    ) -> Evidence | None:
        """Return the copied candidate."""
        y, after, size = change.candidates[0], outcomes[0], society.shape[1]
        merged = replace(after, chance=after.chance[:size].copy(), wins=after.wins[:size].copy())
        merged.chance[y] += after.chance[size:].sum()
        merged.wins[y] |= after.wins[size:].any()
        if merged.same(outcome):
            return None
        words = (
            f"{says(society, outcome)}, but with {' and '.join(change.others[0].candidates[size:])}, near "
            f"{society.candidates[y]} on every ballot: {says(change.others[0], after)}."
        )
        return Evidence(words, (y,))


@dataclass(frozen=True)
class IrrelevantAlternatives(AbstractComparing):
    """Candidates that are not chosen do not matter: without some of them, the same ones are chosen.

    The form for one society of Arrow's condition, also called independence of losers or property alpha-hat (Chernoff
    1954; Brandt, Brill and Harrenstein 2016, chapter 3 of the Handbook of Computational Social Choice).
    """

    kind: Literal["irrelevant-alternatives"] = "irrelevant-alternatives"

    def changes(
        self, society: Society, outcome: AbstractOutcome, tries: int, rng: Rng
    ) -> tuple[Iterator[Change], bool]:
        """Return the society without some candidates who are not chosen."""
        losers = [int(y) for y in np.flatnonzero(~outcome.wins)]
        every = np.arange(society.shape[1])
        sets = list(chain.from_iterable(combinations(losers, k) for k in range(1, min(len(losers), 8) + 1)))
        picked, complete = some(sets, tries, rng)
        changes = (Change((society.only(candidates=np.setdiff1d(every, out)),), candidates=out) for out in picked)
        return changes, complete and len(losers) <= 8

    def clash(
        self, society: Society, outcome: AbstractOutcome, change: Change, outcomes: tuple[AbstractOutcome, ...]
    ) -> Evidence | None:
        """Return those who mattered."""
        stay = np.setdiff1d(np.arange(society.shape[1]), change.candidates)
        kept = outcome.chance[stay]
        if outcomes[0].same(replace(outcome, chance=kept / kept.sum(), wins=outcome.wins[stay])):
            return None
        names = ", ".join(society.candidates[y] for y in change.candidates)
        words = f"{says(society, outcome)}, but without {names}: {says(change.others[0], outcomes[0])}."
        return Evidence(words, change.candidates)


def cloned(society: Society, y: int, sides: np.ndarray | int) -> Society:
    """Return the society with copies of candidate `y`, last: above it (side 1 or 2), below it (-1, -2) or tied (0).

    Args:
        society: to which copies are added.
        y: who is copied.
        sides: of each voter and copy, `[voter copy]`; 0: one exact copy.
    """
    u, sides = society.utility, np.broadcast_to(np.atleast_2d(sides), (society.shape[0], np.atleast_2d(sides).shape[1]))
    gaps = np.diff(np.sort(u, 1), axis=1)
    apart = APART * np.where(gaps > 0, gaps, np.inf).min(1, initial=np.inf)[:, None]
    copies = u[:, [y]] + sides * np.where(np.isfinite(apart), apart, APART)
    many = sides.shape[1]
    reference = np.append(society.reference, np.full(many, society.reference[y] / (many + 1)))
    reference[y] /= many + 1
    return replace(
        society,
        utility=np.column_stack([u, copies]),
        approved=np.column_stack([society.approved, np.repeat(society.approved[:, [y]], many, 1)]),
        reference=reference,
        phi=None if society.phi is None else np.vstack([society.phi, np.repeat(society.phi[[y]], many, 0)]),
        candidates=(*society.candidates, *(society.candidates[y] + "'" * (k + 1) for k in range(many))),
    )
