"""Profiles of the textbooks, each known for what it does to some rule; candidates are numbered from 0."""

import numpy as np

from pluralign.choice.axioms.society import Society

Counts = dict[tuple[int, ...], int]

PROFILES: dict[str, Counts] = {
    # Condorcet 1785: majorities go in a circle
    "circle": {(0, 1, 2): 1, (1, 2, 0): 1, (2, 0, 1): 1},
    # de Borda 1784: plurality elects who loses to everyone
    "borda": {(0, 1, 2): 1, (0, 2, 1): 7, (1, 2, 0): 7, (2, 1, 0): 6},
    # Borda's rule does not follow a majority (Condorcet's objection, in its smallest form)
    "majority": {(0, 1, 2): 3, (1, 2, 0): 2},
    # eliminating by first places: two voters raise the winner, who then loses
    "irv raised": {(0, 1, 2): 6, (2, 0, 1): 5, (1, 2, 0): 4, (1, 0, 2): 2},
    # Moulin 1988, Condorcet's principle implies the no show paradox, as told in the Handbook (2016, chapter 2)
    "moulin": {(0, 3, 2, 1): 3, (0, 3, 1, 2): 3, (3, 1, 2, 0): 5, (1, 2, 0, 3): 4},
    # the same with those who join, and had better stayed away
    "moulin joined": {(0, 3, 2, 1): 3, (0, 3, 1, 2): 3, (3, 1, 2, 0): 5, (1, 2, 0, 3): 4, (2, 0, 1, 3): 4},
    "moulin joined by others": {(0, 3, 2, 1): 3, (0, 3, 1, 2): 3, (3, 1, 2, 0): 5, (1, 2, 0, 3): 4, (3, 0, 1, 2): 4},
    "moulin joined by some": {(0, 3, 2, 1): 3, (0, 3, 1, 2): 3, (3, 1, 2, 0): 5, (1, 2, 0, 3): 4, (1, 2, 3, 0): 5},
    # a circle of three who all lose to a fourth candidate, but narrowly, where minimax elects one of them or it
    "minimax loser": {
        (3, 0, 1, 2): 1,
        (0, 1, 2, 3): 2,
        (3, 1, 2, 0): 1,
        (1, 2, 0, 3): 2,
        (3, 2, 0, 1): 1,
        (2, 0, 1, 3): 2,
    },
    # the capital of Tennessee: Memphis, Nashville, Chattanooga, Knoxville, in shares of voters
    "tennessee": {(0, 1, 2, 3): 42, (1, 2, 3, 0): 26, (2, 3, 1, 0): 15, (3, 2, 1, 0): 17},
    # two who want opposite things, and what both like almost as well
    "compromise": {(0, 1, 2, 3): 1, (3, 1, 2, 0): 1},
    # a majority split between two near copies
    "split vote": {(0, 1, 2): 3, (1, 0, 2): 2, (2, 0, 1): 4},
}


def profile(counts: Counts) -> Society:
    """Return a society of single voters from how many cast each ballot."""
    rows = [ballot for ballot, count in counts.items() for _ in range(count)]
    return Society.of_rankings(np.array(rows))


def named(name: str) -> Society:
    """Return one of `PROFILES`."""
    return profile(PROFILES[name])
