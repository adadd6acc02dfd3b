"""Rules that look for an order of all candidates: Kemeny's and Tideman's."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Bool, Float

from pluralign.choice.ballots import TIE
from pluralign.choice.voting import AbstractMargins, Batch
from pluralign.errors import InputError, SolveError

Wins = Bool[np.ndarray, "candidate batch"]
Square = Float[np.ndarray, "candidate candidate"]
SUBSETS = 16  # candidates whose subsets are enumerated, at most
WAYS = 2000  # ways to break ties that are followed, at most


@dataclass(frozen=True)
class Kemeny(AbstractMargins):
    """First in an order that agrees with most: `max_order sum_{a before b} m[a, b]` (Kemeny 1959; Young 1988).

    The order has the least total distance to the ballots, in pairs ordered the other way. Exact, by dynamic programming
    over sets of candidates: `best(S) = max_{a in S} best(S - a) + sum_{b in S} m[a, b]`. With more than eight
    candidates only the smallest set that beats everyone outside is searched, since its members come first in every
    best order.
    """

    kind: Literal["kemeny"] = "kemeny"

    def best(self, m: Batch) -> Wins:
        """Return who is first in a best order.

        Raises:
            SolveError: more than 16 candidates are in the smallest set that beats everyone outside.
        """
        if len(m) <= 8:
            return _first(m)
        wins = np.zeros((len(m), m.shape[2]), bool)
        for i in range(m.shape[2]):
            top = np.flatnonzero(smith(m[..., i]))
            if len(top) > SUBSETS:
                raise SolveError(
                    f"kemeny: {len(top)} candidates beat each other in a circle, and orders of more than {SUBSETS} are "
                    "too many to search. Use schulze or ranked-pairs, or fewer candidates."
                )
            wins[top, i] = _first(m[np.ix_(top, top)][..., i, None])[:, 0]
        return wins


@dataclass(frozen=True)
class RankedPairs(AbstractMargins):
    """Who is first when defeats are locked in, largest margin first, without making a circle (Tideman 1987).

    Where margins are equal, everyone wins who does so in some order of the equal ones (parallel universes: Conitzer,
    Rognlie and Xia 2009), so no candidate is favoured. Copies of a candidate do not change who wins, apart from which.
    """

    kind: Literal["ranked-pairs"] = "ranked-pairs"

    def best(self, m: Batch) -> Wins:
        """Return who is first for some order of equal margins.

        Raises:
            InputError: more than 62 candidates.
            SolveError: too many orders of equal margins lead to different results.
        """
        size, many = m.shape[1:]
        if size > 62:
            raise InputError(f"ranked-pairs takes at most 62 candidates, got {size}; use schulze.")
        first, second = np.triu_indices(size, 1)
        pairs = m[first, second]
        order = np.argsort(-np.abs(pairs), axis=0)
        strength = np.take_along_axis(np.abs(pairs), order, 0)
        tied = ((strength[:-1] - strength[1:] <= TIE) & (strength[:-1] > TIE)).any(0)
        forth = np.take_along_axis(pairs, order, 0) > 0
        winner, loser = np.where(forth, first[order], second[order]), np.where(forth, second[order], first[order])
        below = np.repeat(1 << np.arange(size)[:, None], many, axis=1)  # bits: who is reached from whom, or is it
        every = np.arange(many)
        for step in range(len(pairs)):
            w, x = winner[step], loser[step]
            added = below[x, every]
            locks = (strength[step] > TIE) & (added >> w & 1 == 0)
            below |= np.where(locks & (below >> w & 1 == 1), added, 0)
        wins = _unreached(below)
        for i in np.flatnonzero(tied):
            wins[:, i] = _every_way(m[..., i])
        return wins


def smith(m: Square) -> Bool[np.ndarray, " candidate"]:
    """Return the smallest set whose members each beat everyone outside."""
    loses = m <= TIE  # a does not beat b
    inside = np.zeros(len(m), bool)
    inside[(m > TIE).sum(1).argmax()] = True  # who beats most belongs to it
    while (grown := inside | loses[inside].any(0)).sum() > inside.sum():
        inside = grown
    return inside


def _first(m: Batch) -> Wins:
    """Return who is first in a best order of all."""
    size = len(m)
    best = np.zeros((1 << size, m.shape[2]))
    over = np.zeros((1 << size, *m.shape[1:]))  # over[S, a] = sum_{b in S} m[a, b]
    for top in range(size):
        part = slice(1 << top, 2 << top)  # the sets whose largest member is `top`
        over[part] = over[: 1 << top] + m[:, top]
    sets = np.arange(1 << size)
    for count in range(1, size + 1):
        these = sets[np.bitwise_count(sets) == count]
        members = np.nonzero(these[:, None] >> np.arange(size) & 1)[1].reshape(-1, count)
        best[these] = -np.inf
        for a in members.T:
            best[these] = np.maximum(best[these], best[these ^ (1 << a)] + over[these, a])
    whole = (1 << size) - 1
    value = best[whole ^ (1 << np.arange(size))] + over[whole]
    return value >= best[whole] - TIE * size**2


def _unreached(below: np.ndarray) -> np.ndarray:
    """Return who is below nobody, from bits `below[candidate ...]` that include the candidate itself."""
    above = np.zeros(below.shape, bool)
    for a, reached in enumerate(below):
        others = np.arange(len(below)).reshape(-1, *[1] * reached.ndim)
        above |= (others != a) & (reached >> others & 1 == 1)
    return ~above


def _every_way(m: Square) -> Bool[np.ndarray, " candidate"]:
    """Return who wins for some order of equal margins."""
    winner, loser = np.nonzero(m > TIE)
    order = np.argsort(-m[winner, loser])
    starts = np.flatnonzero(np.append(True, -np.diff(m[winner, loser][order]) > TIE))
    states = {tuple(1 << a for a in range(len(m)))}
    for group in np.split(order, starts[1:]):
        edges = frozenset((int(winner[e]), int(loser[e])) for e in group)
        states = {end for state in states for end in _orders_of(state, edges)}
        _check_ways(len(states))
    return np.any([_unreached(np.array(state)) for state in states], axis=0)


def _orders_of(state: tuple[int, ...], edges: frozenset[tuple[int, int]]) -> set[tuple[int, ...]]:
    """Return where locking these equal edges leads to, in any order."""
    ends, seen, todo = set(), set(), [(state, edges)]
    while todo:
        state, edges = todo.pop()
        edges = frozenset((w, x) for w, x in edges if not state[x] >> w & 1)  # those that would close a circle
        union = state
        for w, x in edges:
            union = _lock(union, w, x)
        safe = frozenset((w, x) for w, x in edges if not union[x] >> w & 1)  # in no circle, whatever comes first
        for w, x in safe:
            state = _lock(state, w, x)
        edges -= safe
        if not edges:
            ends.add(state)
        elif (state, edges) not in seen:
            seen.add((state, edges))
            _check_ways(len(seen))
            todo += [(_lock(state, w, x), edges - {(w, x)}) for w, x in edges]
    return ends


def _lock(state: tuple[int, ...], winner: int, loser: int) -> tuple[int, ...]:
    return tuple(bits | state[loser] if bits >> winner & 1 else bits for bits in state)


def _check_ways(ways: int) -> None:
    if ways > WAYS:
        raise SolveError(
            f"ranked-pairs: equal margins can be ordered in more than {WAYS} ways with different results. This happens "
            "with few voters of equal mass; use schulze, which has no such ties to break."
        )
