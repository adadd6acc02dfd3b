"""Axioms of one profile: unanimity, and what majorities may ask for."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Float

from pluralign.choice.axioms.axiom import AbstractStanding, Evidence
from pluralign.choice.axioms.outcome import AbstractOutcome
from pluralign.choice.axioms.society import Society
from pluralign.choice.ballots import TIE
from pluralign.choice.cone import separate
from pluralign.choice.orders import smith

Square = Float[np.ndarray, "candidate candidate"]


@dataclass(frozen=True)
class Pareto(AbstractStanding):
    """Nobody wins who is dominated: who is worse to some voter than another candidate is, and better to none.

    Args:
        strict: True: only who is worse to every voter counts as dominated (weak efficiency).
    """

    strict: bool = False
    kind: Literal["pareto"] = "pareto"

    def fault(self, society: Society, outcome: AbstractOutcome) -> Evidence | None:
        """Return the dominated winner with the largest chance."""
        dominates = dominated(society, self.strict)
        bad = np.where(outcome.wins & dominates.any(0), outcome.chance, 0)
        if not bad.any():
            return None
        b = int(bad.argmax())
        a = int(dominates[:, b].argmax())
        x, y = society.candidates[a], society.candidates[b]
        who = np.flatnonzero((society.level[:, a] < society.level[:, b]) & (society.mass > 0))
        alike = (society.mass > 0).sum() > len(who)
        prefer = f"{len(who)} voters prefer" if len(who) > 1 else "1 voter prefers"
        rest = ", the others like both alike" if alike else ""
        words = f"{prefer} {x} to {y}{rest}, yet {y} {_has(outcome, b)}."
        return Evidence(words, (a, b), tuple(int(v) for v in who))


@dataclass(frozen=True)
class PairwiseMajority(AbstractStanding):
    """Where majorities agree on one order of all candidates, its first one is chosen alone.

    Of linear rules it is asked only if some weight vector induces that order.

    For rankings, such as those of a learned reward, the whole order must be that of the majorities (pairwise majority
    consistency: Ge et al. 2024); see `of_reward`.
    """

    kind: Literal["pairwise-majority"] = "pairwise-majority"

    def fault(self, society: Society, outcome: AbstractOutcome) -> Evidence | None:
        """Return the first of the common order, if others have a chance."""
        beats = (society.margins > TIE).sum(1)
        order = np.argsort(-beats)
        if (beats[order] != np.arange(len(beats))[::-1]).any():
            return None
        a = int(order[0])
        b = _other(outcome, a)
        if b is None or not (society.phi is None or induced(society.phi[order])):
            return None
        names = " > ".join(society.candidates[y] for y in order)
        return Evidence(f"majorities agree on {names}, yet {society.candidates[b]} {_has(outcome, b)}.", (a, b))


@dataclass(frozen=True)
class CondorcetWinner(AbstractStanding):
    """Who beats everyone else by a majority is chosen alone (Condorcet 1785)."""

    kind: Literal["condorcet-winner"] = "condorcet-winner"

    def fault(self, society: Society, outcome: AbstractOutcome) -> Evidence | None:
        """Return the one who beats everyone, if others have a chance."""
        a = condorcet(society.margins)
        b = None if a is None else _other(outcome, a)
        if a is None or b is None:
            return None
        words = f"{_duels(society, a, 1)}, yet {society.candidates[b]} {_has(outcome, b)}."
        return Evidence(words, (a, b))


@dataclass(frozen=True)
class CondorcetLoser(AbstractStanding):
    """Who loses to everyone else by a majority is not chosen."""

    kind: Literal["condorcet-loser"] = "condorcet-loser"

    def fault(self, society: Society, outcome: AbstractOutcome) -> Evidence | None:
        """Return the one who loses to everyone, if it has a chance."""
        a = condorcet(-society.margins)
        if a is None or not outcome.wins[a]:
            return None
        return Evidence(f"{_duels(society, a, -1)}, yet it {_has(outcome, a)}.", (a,))


@dataclass(frozen=True)
class Majority(AbstractStanding):
    """Whom more than half of all mass like best is chosen alone."""

    kind: Literal["majority"] = "majority"

    def fault(self, society: Society, outcome: AbstractOutcome) -> Evidence | None:
        """Return the favourite of more than half, if others have a chance."""
        best = (society.level == 0) & ((society.level == 0).sum(1, keepdims=True) == 1)
        share = society.share @ best
        a = int(share.argmax())
        b = _other(outcome, a)
        if share[a] <= 0.5 + TIE or b is None:
            return None
        words = (
            f"{100 * share[a]:.4g} % like {society.candidates[a]} best, yet {society.candidates[b]} {_has(outcome, b)}."
        )
        return Evidence(words, (a, b), tuple(int(v) for v in np.flatnonzero(best[:, a])))


@dataclass(frozen=True)
class Smith(AbstractStanding):
    """Only members of the smallest set that beats everyone outside are chosen (Smith 1973)."""

    kind: Literal["smith"] = "smith"

    def fault(self, society: Society, outcome: AbstractOutcome) -> Evidence | None:
        """Return a winner outside the set."""
        inside = smith(society.margins)
        bad = np.where(outcome.wins & ~inside, outcome.chance, 0)
        if not bad.any():
            return None
        b, top = int(bad.argmax()), np.flatnonzero(inside)
        names = ", ".join(society.candidates[y] for y in top)
        beat = "beats" if len(top) == 1 else "beat"
        words = f"{names} {beat} everyone else, yet {society.candidates[b]} {_has(outcome, b)}."
        return Evidence(words, (*(int(y) for y in top), b))


def dominated(society: Society, strict: bool = False) -> np.ndarray:
    """Return whether a dominates b, `[a, b]`."""
    level = society.level[society.mass > 0]
    less, more = level[:, :, None] < level[:, None, :], level[:, :, None] > level[:, None, :]
    return np.asarray(less.all(0) if strict else less.any(0) & ~more.any(0))


def condorcet(margins: Square) -> int | None:
    """Return who beats everyone else."""
    wins = (margins > TIE).sum(1) == len(margins) - 1
    return int(wins.argmax()) if wins.any() else None


def induced(phi: Float[np.ndarray, "candidate feature"]) -> bool:
    """Return whether some weight vector ranks these candidates in this order."""
    difference = phi[:-1] - phi[1:]
    size = np.linalg.norm(difference, axis=1, keepdims=True)
    return not len(size) or bool(size.all() and separate(difference / size, np.arange(0)).theta is not None)


def _other(outcome: AbstractOutcome, a: int) -> int | None:
    """Return who else has the largest chance."""
    chance = np.where(outcome.wins, outcome.chance, 0)
    chance[a] = 0
    if chance.any():
        return int(chance.argmax())
    return None


def _has(outcome: AbstractOutcome, a: int) -> str:
    if outcome.is_set:
        return "wins" if outcome.wins.sum() == 1 else "is among the winners"
    return f"has {100 * outcome.chance[a]:.3g} %"


def _duels(society: Society, a: int, sign: int) -> str:
    """Return everyone whom `a` beats (sign 1) or to whom it loses, with shares."""
    names, verb = society.candidates, "beats" if sign == 1 else "loses to"
    others = [b for b in range(len(names)) if b != a]
    above = [society.share @ (society.level[:, a] < society.level[:, b]) for b in others]
    below = [society.share @ (society.level[:, a] > society.level[:, b]) for b in others]
    duels = (f"{names[b]} ({100 * x:.3g} to {100 * y:.3g} %)" for b, x, y in zip(others, above, below, strict=True))
    return f"{names[a]} {verb} {', '.join(duels)}"
