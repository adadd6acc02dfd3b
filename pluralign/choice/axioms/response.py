"""Axioms on how outcomes follow what voters say: more support, and lies."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import permutations, product
from typing import Literal

import numpy as np
from jaxtyping import Float

from pluralign.choice.axioms.axiom import AbstractComparing, Change, Evidence, Rng, groups, some, who
from pluralign.choice.axioms.outcome import AbstractOutcome, says
from pluralign.choice.axioms.society import Row, Society, ballot

EVERY_ORDER = 5  # candidates of which every order is a possible report, at most
EVERY_SET = 8  # candidates of which every set is a possible report, at most


@dataclass(frozen=True)
class Monotonicity(AbstractComparing):
    """More support never harms: who is raised on some ballots, all else equal, does not stand worse.

    Raised is each winner (or candidate with a chance), on ballots of one opinion at a time, by any number of places.
    """

    kind: Literal["monotonicity"] = "monotonicity"

    def changes(
        self, society: Society, outcome: AbstractOutcome, tries: int, rng: Rng
    ) -> tuple[Iterator[Change], bool]:
        """Return the society with one winner raised."""
        options = [
            (group, int(y), int(over))
            for y in np.flatnonzero(outcome.wins)
            for group in groups(society)
            for over in np.flatnonzero(society.utility[group[0]] >= society.utility[group[0], y])
            if over != y
        ]
        picked, _ = some(options, tries, rng)
        return (self._change(society, *option) for option in picked), False

    def _change(self, society: Society, group: tuple[int, ...], y: int, over: int) -> Change:
        row = raised(society.utility[group[0]], y, over, society.dichotomous)
        return Change((society.saying(np.array(group), row),), group, (y,))

    def clash(
        self, society: Society, outcome: AbstractOutcome, change: Change, outcomes: tuple[AbstractOutcome, ...]
    ) -> Evidence | None:
        """Return who is raised and stands worse."""
        y, first = change.candidates[0], change.voters[0]
        if not outcomes[0].falls(outcome, y):
            return None
        words = (
            f"{says(society, outcome)}, but if {who(society, change.voters)} raise {society.candidates[y]} "
            f"({ballot(society, first)} becomes {ballot(change.others[0], first)}): "
            f"{says(change.others[0], outcomes[0])}."
        )
        return Evidence(words, (y,), change.voters)


@dataclass(frozen=True)
class StrategyProofness(AbstractComparing):
    """Nobody gains by lying (Gibbard 1973; Satterthwaite 1975).

    Between sets of winners a gain is sure only if nothing that is got is worse than anything that was had (Kelly's
    extension), between lotteries that count orders if one stochastically dominates, else if expected utility is larger.
    Reports: all orders of up to five candidates, all sets of approvals of up to eight, utilities at the ends of the
    voter's own scale; else those with one candidate first or last, or one first and one last.

    Args:
        together: largest number of voters of one opinion who may lie alike.
    """

    together: int = 1
    kind: Literal["strategy-proofness"] = "strategy-proofness"

    def changes(
        self, society: Society, outcome: AbstractOutcome, tries: int, rng: Rng
    ) -> tuple[Iterator[Change], bool]:
        """Return the society with a lie."""
        lists = {int(k[0]): reports(society.utility[k[0]], society.dichotomous, outcome.ordinal) for k in society.kinds}
        options = [
            (group, i)
            for group in groups(society)
            if len(group) <= self.together
            for i in range(len(lists[group[0]][0]))
        ]
        picked, complete = some(options, tries, rng)
        lies = (Change((society.saying(np.array(g), lists[g[0]][0][i]),), g) for g, i in picked)
        return lies, complete and all(whole for _, whole in lists.values())

    def clash(
        self, society: Society, outcome: AbstractOutcome, change: Change, outcomes: tuple[AbstractOutcome, ...]
    ) -> Evidence | None:
        """Return who gains by which lie."""
        first, other = change.voters[0], change.others[0]
        if not outcomes[0].better(outcome, society.utility[first]):
            return None
        words = (
            f"{says(society, outcome)}, but if {who(society, change.voters)} ({ballot(society, first)}) say "
            f"{ballot(other, first)}: {says(other, outcomes[0])}."
        )
        return Evidence(words, tuple(int(y) for y in np.flatnonzero(outcome.wins | outcomes[0].wins)), change.voters)


def raised(row: Row, y: int, over: int, tie: bool) -> Row:
    """Return a voter's utilities with `y` put just above `over`, or tied with it."""
    above = row[row > row[over]]
    row = row.copy()
    row[y] = row[over] if tie else (row[over] + above.min()) / 2 if len(above) else row[over] + 1
    return row


def reports(row: Row, dichotomous: bool, ordinal: bool) -> tuple[Float[np.ndarray, "report candidate"], bool]:
    """Return what a voter with these utilities could say instead, and whether that is all.

    Args:
        row: what is true.
        dichotomous: True: a report is a set of approved candidates.
        ordinal: True: the rule sees the order only; False: utilities between the voter's worst and best may be said.
    """
    size, low, high = len(row), row.min(), row.max()
    if dichotomous or not ordinal:
        complete = dichotomous and size <= EVERY_SET
        if size <= EVERY_SET:
            sets = np.array(list(product([False, True], repeat=size))[1:-1])
        else:
            levels = row >= np.unique(row)[1:, None]
            flips = (row == high) ^ np.eye(size, dtype=bool)
            sets = np.concatenate([levels, np.eye(size, dtype=bool), ~np.eye(size, dtype=bool), flips])
        told = np.where(sets.reshape(-1, size), high, low).astype(float)
        differs = (told != row).any(1)
        return told[differs], complete
    down = np.sort(row)[::-1]
    mine = np.argsort(-row, kind="stable")
    if size <= EVERY_ORDER:
        orders = np.array(list(permutations(range(size))))
    else:
        ways = [_moved(mine, first, last) for first in (None, *range(size)) for last in (None, *range(size))]
        orders = np.array(list(dict.fromkeys(tuple(w) for w in ways)))
    told = np.empty(orders.shape)
    np.put_along_axis(told, orders, np.broadcast_to(down, orders.shape), 1)
    return told[(told != row).any(1)], size <= EVERY_ORDER and len(np.unique(row)) == size


def _moved(mine: np.ndarray, first: int | None, last: int | None) -> list[int]:
    """Return an order with one candidate moved to the top and one to the bottom."""
    middle = [int(y) for y in mine if y not in (first, last)]
    return ([] if first is None else [first]) + middle + ([] if last is None or last == first else [last])
