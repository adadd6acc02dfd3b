"""Rules that count places on ballots, or first places round by round."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Bool, Float

from pluralign.choice.ballots import TIE, Profile
from pluralign.choice.voting import AbstractVoting, Winners
from pluralign.errors import InputError, SolveError

Scores = Float[np.ndarray, "batch candidate"]
SETS = 20_000  # sets of candidates that rounds with ties may lead to, at most


def largest(scores: Scores) -> Winners:
    """Return who has the largest score."""
    return scores >= scores.max(-1, keepdims=True) - TIE


@dataclass(frozen=True)
class Plurality(AbstractVoting):
    """Who is most often ranked first. A ballot that ties several first is shared among them."""

    kind: Literal["plurality"] = "plurality"

    def count(self, profile: Profile) -> Float[np.ndarray, " candidate"]:
        """Return the mass of ballots that rank each candidate first."""
        return profile.tops(np.ones(len(profile.level), bool))

    def decide(self, counted: Scores) -> Winners:
        """Return who has the largest mass."""
        return largest(counted)


@dataclass(frozen=True)
class Positional(AbstractVoting):
    """Who has most points, when a ballot gives `scores[place]` (Young 1975).

    Candidates that a ballot ties, such as those that it does not name, share the points of their places equally.

    Args:
        scores: of the places, best first, not increasing; all further places have the last one. `(1, 0)` is
            `Plurality`; `(3, 2, 1, 0)` looks at the first three places only.
    """

    scores: tuple[float, ...] = (3.0, 2.0, 1.0, 0.0)
    kind: Literal["positional"] = "positional"

    def __post_init__(self):
        s = np.asarray(self.scores, float)
        if len(s) < 2 or not np.isfinite(s).all() or (np.diff(s) > 0).any() or s[0] == s[-1]:
            raise InputError(
                f"scores are {self.scores}; they need two places or more, finite, the best first, and not all the same."
            )

    def count(self, profile: Profile) -> Float[np.ndarray, " candidate"]:
        """Return each candidate's points, in units of the difference between first and last."""
        s = np.asarray(self.scores, float)
        s = (s - s[-1]) / (s[0] - s[-1])
        places = len(profile.level)
        return profile.scores(np.append(s, np.zeros(places))[:places])

    def decide(self, counted: Scores) -> Winners:
        """Return who has most points."""
        return largest(counted)


@dataclass(frozen=True)
class Approval(AbstractVoting):
    """Who is approved of by most (Brams and Fishburn 1978).

    Args:
        top: a ballot approves of the candidates that have fewer than so many above them. None: a hard ballot approves
            of those that it names; a voter in a posterior draw, of those worth at least what the reference gives on
            average (which, of all thresholds, makes the approved ones as much better than the rest as can be when all
            are equally likely to win: Brams and Fishburn 1983).
    """

    top: int | None = None
    kind: Literal["approval"] = "approval"

    def __post_init__(self):
        if self.top is not None and self.top < 1:
            raise InputError(f"top is {self.top}; a ballot approves of at least 1 candidate.")

    def count(self, profile: Profile) -> Float[np.ndarray, " candidate"]:
        """Return the mass that approves of each candidate.

        Raises:
            InputError: every ballot approves of everyone.
        """
        return approved(profile, self.top) @ profile.mass

    def decide(self, counted: Scores) -> Winners:
        """Return who is approved of by most."""
        return largest(counted)


def approved(profile: Profile, top: int | None) -> Bool[np.ndarray, "candidate ballot"]:
    """Return who approves of whom.

    Raises:
        InputError: every ballot names everyone, and `top` does not say how many are approved of.
    """
    if top is not None:
        return profile.level < top
    if len(profile.level) > 1 and profile.approved.all() and profile.level.any():
        raise InputError("every ballot names every candidate, so all would be approved of; say `top`, such as top=2.")
    return profile.approved


@dataclass(frozen=True)
class IRV(AbstractVoting):
    """Who is left when the candidate with fewest first places goes out, round by round (Hare; Ware 1871).

    A ballot counts for its best candidate that is still in, shared if it ties several; one that names none of those
    left no longer tells them apart. Where several have fewest first places, everyone wins who does so in some order
    of going out (parallel universes: Conitzer, Rognlie and Xia 2009). More support can make a candidate lose.
    """

    kind: Literal["irv"] = "irv"

    def count(self, profile: Profile) -> Float[np.ndarray, " candidate"]:
        """Return 1 for winners, 0 for others.

        Raises:
            SolveError: too many orders of going out lead to different rounds.
        """
        size = len(profile.level)
        wins, todo, seen = np.zeros(size), [np.ones(size, bool)], set()
        while todo:
            among = todo.pop()
            if among.tobytes() in seen:
                continue
            seen.add(among.tobytes())
            if len(seen) > SETS:
                raise SolveError(
                    f"irv: equal first places can be broken in ways that lead to more than {SETS} different rounds. "
                    "This happens with many candidates and few voters of equal mass; use schulze."
                )
            if among.sum() == 1:
                wins[among] = 1
                continue
            todo += _next_rounds(profile.tops(among), among)
        return wins

    def decide(self, counted: Scores) -> Winners:
        """Return the winners."""
        return counted > 0


def _next_rounds(share: Float[np.ndarray, " candidate"], among: Bool[np.ndarray, " candidate"]) -> list[np.ndarray]:
    """Return who may be left after those with fewest first places, `share`, went out."""
    last = among & (share <= share[among].min() + TIE)
    rest = among & ~last
    # Together they have less than anyone else: whoever goes first, the others go before the rest.
    if rest.any() and share[last].sum() < share[rest].min() - TIE:
        return [rest]
    if last.sum() > 1 and (none := last & (share <= TIE)).any() and rest.any():
        return [among & ~none]  # nobody's first choice: no other's share changes
    return [among & ~(np.arange(len(among)) == a) for a in np.flatnonzero(last)]
