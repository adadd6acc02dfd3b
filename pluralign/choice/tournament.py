"""Rules that look at margins and scores only; each is a few lines on a whole batch of profiles."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Bool

from pluralign.choice.ballots import TIE
from pluralign.choice.voting import AbstractMargins, Batch

Wins = Bool[np.ndarray, "candidate batch"]


@dataclass(frozen=True)
class Borda(AbstractMargins):
    """Who beats the others by most in total: `max_a sum_b m[a, b]` (de Borda 1784; Young 1974).

    The same as giving K - 1, K - 2, ..., 0 points for places, with ties and unnamed candidates sharing the points of
    their places. In a complete tournament the pooled Bradley-Terry reward orders candidates so, whatever they are
    worth to whom (Siththaranjan, Laidlaw and Hadfield-Menell 2023). One more candidate can change who wins.
    """

    kind: Literal["borda"] = "borda"

    def best(self, m: Batch) -> Wins:
        """Return who has the largest sum of margins."""
        score = m.sum(1)
        return score >= score.max(0) - TIE * len(score)


@dataclass(frozen=True)
class Copeland(AbstractMargins):
    """Who wins most duels, less those lost: `max_a #{b: m[a, b] > 0} - #{b: m[a, b] < 0}` (Copeland 1951).

    A duel won by one vote counts as much as one won by all; ties are common.
    """

    kind: Literal["copeland"] = "copeland"

    def best(self, m: Batch) -> Wins:
        """Return who has the largest number of duels won less duels lost."""
        score = (m > TIE).sum(1, dtype=np.int16) - (m < -TIE).sum(1, dtype=np.int16)
        return score == score.max(0)


@dataclass(frozen=True)
class Minimax(AbstractMargins):
    """Whose worst defeat is smallest: `min_a max_b m[b, a]` (Simpson 1969; Kramer 1977).

    Not to be taken for `Maximin`, which looks after the voter who is worst off. The winner may lose to everyone, if to
    none by much.
    """

    kind: Literal["minimax"] = "minimax"

    def best(self, m: Batch) -> Wins:
        """Return whose worst defeat is smallest; who loses to nobody has a worst defeat of 0."""
        worst = m.max(0)  # m[a, a] = 0, so nobody's is below
        return worst <= worst.min(0) + TIE


@dataclass(frozen=True)
class Condorcet(AbstractMargins):
    """Who beats everyone, if there is such a one: `m[a, b] > 0` for all b; else everyone wins (Condorcet 1785).

    Where no candidate beats all others the rule decides nothing, and the lottery is the reference.
    """

    kind: Literal["condorcet"] = "condorcet"

    def best(self, m: Batch) -> Wins:
        """Return the Condorcet winner, or everyone."""
        wins = undefeated(m)
        return wins | ~wins.any(0)


@dataclass(frozen=True)
class Black(AbstractMargins):
    """The Condorcet winner, or else the Borda winners (Black 1958)."""

    kind: Literal["black"] = "black"

    def best(self, m: Batch) -> Wins:
        """Return the Condorcet winner, or the Borda winners."""
        wins = undefeated(m)
        return np.where(wins.any(0), wins, Borda().best(m))


@dataclass(frozen=True)
class Schulze(AbstractMargins):
    """Who has no stronger path against them than their own (Schulze 2011, A new monotonic, clone-independent, ...).

    `p[a, b]` is the strength of the strongest path of defeats from a to b, a path being as strong as its narrowest
    defeat. Winners: `p[a, b] >= p[b, a]` for all b. Candidates that are near copies of each other do not change who
    wins, apart from which of the copies.
    """

    kind: Literal["schulze"] = "schulze"

    def best(self, m: Batch) -> Wins:
        """Return who is not beaten through any path: the widest-path algorithm of Floyd and Warshall."""
        path = np.maximum(m, 0)
        narrow = np.empty_like(path)
        for via in range(len(path)):
            np.minimum(path[:, via, None], path[via], out=narrow)
            np.maximum(path, narrow, out=path)
        return np.all(path >= path.swapaxes(0, 1) - TIE, axis=1)


def undefeated(m: Batch) -> Wins:
    """Return who beats all others; at most one does."""
    return (m > TIE).sum(1, dtype=np.int16) == len(m) - 1
