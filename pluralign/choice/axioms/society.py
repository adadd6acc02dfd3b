"""What axioms are about: voters with preferences over the candidates of one prompt."""

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from jaxtyping import Bool, Float, Int

from pluralign.choice.ballots import SAME, Profile, ballots
from pluralign.errors import InputError
from pluralign.types import Linear, Utilities

Row = Float[np.ndarray, " candidate"]


@dataclass(frozen=True, eq=False)
class Society:
    """Voters and their preferences; rules that count orders see only the order.

    Attributes:
        utility: of each candidate to each voter; from a ranking, `candidates - place`, and 0 for who is not named.
        mass: how much each voter counts, in any unit.
        approved: whether the voter's ballot approves of the candidate.
        reference: the policy to stay near, sums to 1; rules that count orders do not see it.
        candidates: their names.
        voters: their names.
        cardinal: True if utilities mean something beyond the order.
        phi: features of candidates, for linear rules.
    """

    utility: Float[np.ndarray, "voter candidate"]
    mass: Float[np.ndarray, " voter"]
    approved: Bool[np.ndarray, "voter candidate"]
    reference: Float[np.ndarray, " candidate"]
    candidates: tuple[str, ...]
    voters: tuple[str, ...]
    cardinal: bool = True
    phi: Float[np.ndarray, "candidate feature"] | None = None

    @classmethod
    def of_utility(
        cls,
        utility: Float[np.ndarray, "voter candidate"],
        mass: Float[np.ndarray, " voter"] | None = None,
        approved: Bool[np.ndarray, "voter candidate"] | None = None,
        reference: Row | None = None,
    ) -> "Society":
        """Return a society from what candidates are worth to voters.

        Args:
            utility: in any unit.
            mass: how much each voter counts, in any unit; None: all the same.
            approved: None: a voter approves of what is worth at least the mean under the reference.
            reference: None: uniform.

        Raises:
            InputError: an entry is not finite, or shapes disagree.
        """
        u = np.asarray(utility, np.float64)
        if u.ndim != 2 or not u.size or not np.isfinite(u).all():
            raise InputError(f"utility must be finite numbers [voter candidate], got shape {u.shape}.")
        voters, candidates = u.shape
        m = np.ones(voters) if mass is None else np.asarray(mass, np.float64)
        if m.shape != (voters,) or not np.isfinite(m).all() or (m < 0).any() or not m.sum() > 0:
            raise InputError(f"mass must be {voters} finite numbers, not negative and not all 0; got {mass}.")
        ref = np.full(candidates, 1 / candidates) if reference is None else np.asarray(reference, np.float64)
        likes = u >= (u @ ref)[:, None] - SAME * np.abs(u).max(1, keepdims=True) if approved is None else approved
        names = tuple(map(str, range(candidates))), tuple(map(str, range(voters)))
        return cls(u, m, np.asarray(likes, bool), ref, *names)

    @classmethod
    def of_rankings(
        cls,
        rankings: Int[np.ndarray, "voter slot"],
        weights: Float[np.ndarray, " voter"] | None = None,
        candidates: int | None = None,
    ) -> "Society":
        """Return a society from ballots, best first; who is not named (-1 ends the ballot) is tied last.

        Raises:
            InputError: these are no ballots; see `ballots.ballots`.
        """
        profile = ballots(np.asarray(rankings), weights, candidates)
        size = len(profile.level)
        utility = np.where(profile.approved, size - profile.level, 0).T.astype(float)
        return replace(cls.of_utility(utility, weights, profile.approved.T), cardinal=False)

    @classmethod
    def of_utilities(cls, utilities: Utilities) -> tuple["Society", ...]:
        """Return one society per prompt, of voters with mass and the mean of utilities over posterior draws."""
        counts = utilities.mass > 0
        mean = utilities.dense()[:, counts].mean(0)
        phi = utilities.value.phi if isinstance(utilities.value, Linear) else None
        found = []
        for x, reference in enumerate(utilities.reference):
            on = np.flatnonzero(reference > 0)
            part = cls.of_utility(mean[:, x, on], utilities.mass[counts], reference=reference[on])
            names = tuple(map(str, on)), tuple(v for v, c in zip(utilities.voters or (), counts, strict=True) if c)
            features = None if phi is None else phi[x, on]
            found.append(replace(part, candidates=names[0], voters=names[1], phi=features))
        return tuple(found)

    @property
    def shape(self) -> tuple[int, int]:
        """How many voters and candidates there are."""
        return self.utility.shape  # pyright: ignore[reportReturnType]

    @cached_property
    def share(self) -> Float[np.ndarray, " voter"]:
        """Masses that sum to 1."""
        return self.mass / self.mass.sum()

    @cached_property
    def level(self) -> Int[np.ndarray, "voter candidate"]:
        """How many candidates the voter puts above this one."""
        u = self.utility
        noise = SAME * np.abs(u).max(1)[:, None, None]
        return (u[:, None, :] > u[:, :, None] + noise).sum(2)

    @cached_property
    def profile(self) -> Profile:
        """The ballots, as rules that count orders see them."""
        return Profile(self.level.T, self.share, self.approved.T)

    @cached_property
    def margins(self) -> Float[np.ndarray, "candidate candidate"]:
        """Mass that puts a above b, less mass that puts b above a."""
        return self.profile.margins()

    @cached_property
    def kinds(self) -> tuple[Int[np.ndarray, " voter"], ...]:
        """Voters grouped by equal ballots and masses."""
        table = np.column_stack([self.utility, self.approved, self.mass])
        place = np.unique(table, axis=0, return_inverse=True)[1].ravel()
        return tuple(np.flatnonzero(place == k) for k in range(place.max() + 1))

    @property
    def dichotomous(self) -> bool:
        """True if every voter only tells approved from other candidates."""
        worst = self.approved.sum(1)[:, None]
        return bool((self.level == np.where(self.approved, 0, worst)).all())

    def only(
        self, voters: Int[np.ndarray, " voter"] | None = None, candidates: Int[np.ndarray, " candidate"] | None = None
    ) -> "Society":
        """Return the society of these voters and candidates alone, in this order."""
        v = np.arange(self.shape[0]) if voters is None else np.asarray(voters)
        y = np.arange(self.shape[1]) if candidates is None else np.asarray(candidates)
        reference = self.reference[y]
        return replace(
            self,
            utility=self.utility[v][:, y],
            mass=self.mass[v],
            approved=self.approved[v][:, y],
            reference=reference / reference.sum(),
            candidates=tuple(self.candidates[i] for i in y),
            voters=tuple(self.voters[i] for i in v),
            phi=None if self.phi is None else self.phi[y],
        )

    def saying(self, voters: Int[np.ndarray, " voter"], row: Row) -> "Society":
        """Return the society in which these voters say that candidates are worth `row` to them.

        They approve of what is worth as much as the first of them approved of before.
        """
        old, likes = self.utility[voters[0]], self.approved[voters[0]]
        utility, approved = self.utility.copy(), self.approved.copy()
        utility[voters] = row
        approved[voters] = row >= old[likes].min() if likes.any() else False
        return replace(self, utility=utility, approved=approved)

    @property
    def words(self) -> tuple[str, ...]:
        """Each kind of ballot with how many cast it, as a person writes it; features first, if there are any."""
        told = tuple(f"{_times(self.mass[rows])} {ballot(self, int(rows[0]))}" for rows in self.kinds)
        if self.phi is None:
            return told
        points = (
            f"{name} ({', '.join(f'{x:.3g}' for x in p)})" for name, p in zip(self.candidates, self.phi, strict=True)
        )
        return (f"features: {', '.join(points)}", *told)


def _times(mass: np.ndarray) -> str:
    whole = bool((mass == 1).all())
    return f"{len(mass)} x" if whole else f"{len(mass)} x (mass {mass[0]:.4g})"


def ballot(society: Society, voter: int) -> str:
    """Return a voter's ballot, such as `0 > 1 = 2`, with utilities in parentheses where they mean something."""
    level, row = society.level[voter], society.utility[voter]
    places = [np.flatnonzero(level == k) for k in np.unique(level)]
    worth = [f" ({row[place[0]]:.3g})" if society.cardinal else "" for place in places]
    return " > ".join(" = ".join(society.candidates[i] for i in p) + w for p, w in zip(places, worth, strict=True))


def as_utilities(society: Society) -> Utilities:
    """Return the society's voters with mass as utilities of one draw and one prompt."""
    on = society.mass > 0
    names = tuple(v for v, keep in zip(society.voters, on, strict=True) if keep)
    mass = society.mass[on] / society.mass[on].sum()
    return Utilities(society.utility[on][None, :, None], mass, society.reference[None], voters=names)
