"""Voting methods of the package pref_voting as rules."""

import difflib
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from jaxtyping import Float, Int

from pluralign.choice.ballots import TIE, Profile
from pluralign.choice.scoring import Scores
from pluralign.choice.voting import AbstractVoting, Winners
from pluralign.errors import InputError, SolveError

PARTS = 1000  # votes into which the smallest ballot may have to be split, at most


@dataclass(frozen=True)
class PrefVoting(AbstractVoting):
    """Any voting method of pref_voting that names winners (Holliday and Pacuit 2025, pref_voting). Extra: `voting`.

    A method that can be computed from margins gets the expected ones, in whole multiples of 1e-10 of the mass, so that
    its equalities are exact. Any other gets the ballots themselves: their masses must be in the ratio of whole numbers
    (all equal, mostly), and ballots with ties are passed only to methods that take them.

    Args:
        method: name in `pref_voting.voting_methods`, such as "split_cycle", "stable_voting", "bucklin" or "benham".
    """

    method: str = "split_cycle"
    kind: Literal["pref-voting"] = "pref-voting"

    def count(self, profile: Profile) -> Float[np.ndarray, " candidate"]:
        """Return 1 for winners, 0 for others.

        Raises:
            InputError: pref_voting is not installed, has no such method, or cannot be given these ballots.
            SolveError: the method named no winner.
        """
        method, kinds = _method(self.method)
        size = len(profile.level)
        if kinds.MARGIN_GRAPH in method.input_types:
            from pref_voting.weighted_majority_graphs import MarginGraph  # pyright: ignore[reportMissingImports]

            whole = np.rint(profile.margins() / TIE).astype(int)
            edges = [(int(a), int(b), int(whole[a, b])) for a, b in np.argwhere(whole > 0)]
            election = MarginGraph(list(range(size)), edges)
        else:
            election = _election(self.method, profile, kinds.PROFILE_WITH_TIES in method.input_types)
        found = method(election)
        if not found:
            raise SolveError(f"pref-voting: {self.method} named no winner; it may give up on hard cases.")
        wins = np.zeros(size)
        wins[[int(c) for c in found]] = 1
        return wins

    def decide(self, counted: Scores) -> Winners:
        """Return the winners."""
        return counted > 0


def _method(name: str) -> tuple[Any, Any]:
    """Return a method and the kinds of elections."""
    try:
        from pref_voting import voting_methods  # pyright: ignore[reportMissingImports]
        from pref_voting.voting_method import VotingMethod  # pyright: ignore[reportMissingImports]
        from pref_voting.voting_method_properties import ElectionTypes  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        raise InputError(
            f"pref-voting needs a package that is missing ({error}): pip install 'pluralign[voting]'."
        ) from error
    known = {key: value for key, value in vars(voting_methods).items() if isinstance(value, VotingMethod)}
    if name not in known:
        near = difflib.get_close_matches(name, known, n=1)
        raise InputError(f"pref_voting has no method {name!r}.{f' Did you mean {near[0]!r}?' if near else ''}")
    return known[name], ElectionTypes


def _election(name: str, profile: Profile, ties: bool) -> Any:
    """Return the ballots as pref_voting takes them."""
    from pref_voting.profiles import Profile as Linear  # pyright: ignore[reportMissingImports]
    from pref_voting.profiles_with_ties import ProfileWithTies  # pyright: ignore[reportMissingImports]

    levels, place = np.unique(profile.level, axis=1, return_inverse=True)
    votes = _votes(name, np.bincount(place.ravel(), profile.mass))
    levels, votes = levels.T[votes > 0], votes[votes > 0].tolist()
    size = levels.shape[1]
    if (np.sort(levels, axis=1) == np.arange(size)).all():
        return Linear(np.argsort(levels, axis=1).tolist(), votes)
    if not ties:
        raise InputError(f"pref-voting: {name} takes complete orders only, and some ballots tie candidates.")
    return ProfileWithTies(
        [{c: int(x) + 1 for c, x in enumerate(row)} for row in levels], votes, candidates=list(range(size))
    )


def _votes(name: str, mass: Float[np.ndarray, " ballot"]) -> Int[np.ndarray, " ballot"]:
    unit = mass[mass > 0].min()
    for parts in range(1, PARTS + 1):
        votes = mass / unit * parts
        if (np.abs(votes - np.rint(votes)) < 1e-6).all():
            return np.rint(votes).astype(int)
    raise InputError(
        f"pref-voting: {name} counts whole ballots, but these have masses that are not in the ratio of whole numbers "
        f"up to {PARTS}. Give voters equal masses, or use a method that can be computed from margins."
    )
