"""Ballots: weak orders of one prompt's candidates, each with a mass; from hard rankings or from a posterior's draws."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int, Num

from pluralign.errors import InputError
from pluralign.types import Linear, Utilities

Margins = Num[np.ndarray, "*batch candidate candidate"]

TIE = 1e-10
"""Sums of masses (or of whole votes) that differ by less are equal.

All mass is 1 and sums of it are off by about 1e-16, so rounding never makes or breaks a tie; and equal masses of `n`
ballots differ by at least `1 / n` or not at all, so up to 1e10 ballots (draws times voters) every comparison is exact.
"""
SAME = 1e-12  # utilities that differ by less, relative to the ballot's largest, are equal: rounding of `phi · weights`


@dataclass(frozen=True, eq=False)
class Profile:
    """Everyone's order of the candidates of one prompt.

    Attributes:
        level: how many candidates the ballot puts above this one; equal levels are a tie.
        mass: of each ballot, sums to 1.
        approved: whether the ballot approves of the candidate.
    """

    level: Int[np.ndarray, "candidate ballot"]
    mass: Float[np.ndarray, " ballot"]
    approved: Bool[np.ndarray, "candidate ballot"]

    def margins(self) -> Float[np.ndarray, "candidate candidate"]:
        """Return `m[a, b] = sum_ballot mass sign(level_b - level_a)`: who is above whom, by how much mass."""
        m = np.stack([np.sign(self.level - own) @ self.mass for own in self.level])
        return (m - m.T) / 2  # to the last digit

    def scores(self, of_place: Float[np.ndarray, " place"]) -> Float[np.ndarray, " candidate"]:
        """Return `sum_ballot mass of_place[place]`; candidates that a ballot ties share the mean of their places."""
        upto = np.append(0, np.cumsum(of_place))
        tied = np.stack([(self.level == own).sum(0) for own in self.level])
        return (upto[self.level + tied] - upto[self.level]) / tied @ self.mass

    def tops(self, among: Bool[np.ndarray, " candidate"]) -> Float[np.ndarray, " candidate"]:
        """Return the mass whose best candidate `among` these it is; a tie for best shares the ballot."""
        level = self.level[among]
        best = level == level.min(0)
        share = np.zeros(len(self.level))
        share[among] = best @ (self.mass / best.sum(0))
        return share


def ballots(
    rankings: Int[np.ndarray, "voter slot"],
    weights: Float[np.ndarray, " voter"] | None = None,
    candidates: int | None = None,
) -> Profile:
    """Return hard ballots as a profile.

    Candidates that a ballot does not name are tied below those that it names, and not approved of.

    Args:
        rankings: candidate indices, best first; ballots that name fewer end in -1.
        weights: how much each voter counts, in any unit; None: all the same.
        candidates: how many there are; None: one more than the largest index.

    Raises:
        InputError: a ballot names a candidate twice or one that is not there, or goes on after -1; weights are
            negative, not finite, or all 0.
    """
    order = np.asarray(rankings)
    if order.ndim != 2 or not order.size or not np.issubdtype(order.dtype, np.integer):
        raise InputError(f"rankings must be whole numbers [voter slot], got {order.dtype} of shape {order.shape}.")
    count = int(order.max()) + 1 if candidates is None else candidates
    if order.min() < -1 or order.max() >= count or count < 1:
        raise InputError(f"rankings hold {order.min()} to {order.max()}; candidates are 0 to {count - 1}, -1 is none.")
    named = order >= 0
    if (named[:, 1:] & ~named[:, :-1]).any():
        row = int((named[:, 1:] & ~named[:, :-1]).any(1).argmax())
        raise InputError(f"rankings[{row}] = {order[row].tolist()} goes on after -1; put -1 at the end only.")
    times = np.zeros((len(order), count), int)
    row, slot = np.nonzero(named)
    np.add.at(times, (row, order[row, slot]), 1)
    if (times > 1).any():
        row = int((times > 1).any(1).argmax())
        raise InputError(f"rankings[{row}] = {order[row].tolist()} names a candidate twice.")
    level = np.repeat(named.sum(1)[:, None], count, axis=1)
    level[row, order[row, slot]] = slot
    return Profile(level.T.copy(), _mass(weights, len(order)), times.T > 0)


def electorates(utilities: Utilities) -> Iterator[tuple[Int[np.ndarray, " candidate"], Profile]]:
    """Yield each prompt's candidates and the ballots on them, one for each draw and voter, of mass `mass / draws`.

    A ballot orders by `U[draw, voter, prompt, :]` and approves of what is worth at least the mean under the reference.
    Voters without mass cast none. Units and zeros of utilities do not matter.
    """
    counts = utilities.mass > 0
    draws = utilities.shape[0]
    mass = np.tile(utilities.mass[counts] / draws, draws)
    for x, reference in enumerate(utilities.reference):
        on = np.flatnonzero(reference > 0)
        if isinstance(utilities.value, Linear):
            weights = utilities.value.weights[:, counts].reshape(len(mass), -1)
            value = utilities.value.phi[x, on] @ weights.T
        else:
            value = utilities.value[:, counts, x][..., on].reshape(len(mass), -1).T
        rounding = SAME * np.abs(value).max(0)
        level = np.stack([(value > own + rounding).sum(0) for own in value])
        yield on, Profile(level, mass, value >= reference[on] @ value - rounding)


def _mass(weights: Float[np.ndarray, " voter"] | None, count: int) -> Float[np.ndarray, " voter"]:
    mass = np.ones(count) if weights is None else np.asarray(weights, np.float64)
    if mass.shape != (count,) or not np.isfinite(mass).all() or (mass < 0).any() or not mass.sum() > 0:
        raise InputError(f"weights must be {count} finite numbers, not negative and not all 0; got {weights}.")
    return mass / mass.sum()
