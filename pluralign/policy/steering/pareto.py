"""Which policies nobody improves on for every group at once, and how much of the possible they cover."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Float

from pluralign.errors import InputError
from pluralign.types import Estimate

INTERVAL = (0.05, 0.95)


def on_front(points: Float[np.ndarray, "point group"]) -> Bool[np.ndarray, " point"]:
    """Return which points no other dominates, larger being better for every group.

    A point dominates another if it is at least as good for all groups and better for one; equal points stand together.
    """
    points = np.asarray(points, np.float64)
    kept = np.ones(len(points), bool)
    for i, point in enumerate(points):
        kept[i] = not ((points >= point).all(1) & (points > point).any(1)).any()
    return kept


def hypervolume(points: Float[np.ndarray, "point group"], reference: Float[np.ndarray, " group"]) -> float:
    """Return the volume of what is worse than some point and better than the reference for every group.

    `volume( union_i [reference, point_i] )` (Zitzler and Thiele 1999), exactly. One point after another adds its box
    less what the others have of it, which is a smaller problem of the same kind (While, Bradstreet and Barone 2012, A
    fast way of calculating exact hypervolumes); two groups are a staircase. A thousand points of two groups, 200 of
    three or 50 of five take less than a second.

    Args:
        points: what each policy gives to each group.
        reference: the corner, such as what the base model gives; points that are not above it for every group add
            nothing.

    Raises:
        InputError: sizes differ, or a number is not finite.
    """
    points, corner = np.asarray(points, np.float64), np.asarray(reference, np.float64)
    if points.ndim != 2 or corner.shape != points.shape[1:] or not corner.size:
        raise InputError(
            f"points are {points.shape}, the reference {corner.shape}: one number per group, at least one."
        )
    if not (np.isfinite(points).all() and np.isfinite(corner).all()):
        raise InputError("points and reference must be finite; leave out policies that were not measured.")
    return _volume(points - corner)


def _volume(sides: Float[np.ndarray, "point group"]) -> float:
    """Return the volume of a union of boxes that share the corner 0."""
    sides = np.unique(sides[(sides > 0).all(1)], axis=0)
    sides = sides[on_front(sides)][::-1]  # the first group falls
    if len(sides) < 2 or sides.shape[1] == 1:
        return float(sides.prod(1).sum())
    if sides.shape[1] == 2:
        return float(sides[:, 0] @ np.diff(sides[:, 1], prepend=0))
    # The box of each, less what the boxes that follow have of it.
    return float(sum(side.prod() - _volume(np.minimum(side, sides[i + 1 :])) for i, side in enumerate(sides)))


@dataclass(frozen=True, eq=False)
class Front:
    """Policies by what they give to each group, and which of them are on the Pareto front.

    Attributes:
        names: of the policies, such as rules or soups.
        groups: names of the groups.
        welfare: what each policy gives to each group, in every posterior or bootstrap draw; a draw is one for all
            policies and groups, so that what is uncertain about all alike does not blur who is ahead.
        reference: what each group has without any of them, such as 0 for gains over the base model.
    """

    names: tuple[str, ...]
    groups: tuple[str, ...]
    welfare: Float[np.ndarray, "draw point group"]
    reference: Float[np.ndarray, " group"]

    @classmethod
    def of(
        cls,
        names: Sequence[str],
        groups: Sequence[str],
        welfare: Float[np.ndarray, "*draw point group"],
        reference: Float[np.ndarray, " group"] | None = None,
    ) -> "Front":
        """Read the front off a table of welfare.

        Args:
            names: of the policies.
            groups: their names.
            welfare: of each group under each policy, in draws or not.
            reference: what they have without; None: 0, for gains.

        Raises:
            InputError: sizes differ, or a number is not finite.
        """
        welfare = np.asarray(welfare, np.float64)
        table = welfare[None] if welfare.ndim == 2 else welfare
        corner = np.zeros(len(groups)) if reference is None else np.asarray(reference, np.float64)
        if table.shape[1:] != (len(names), len(groups)) or corner.shape != (len(groups),) or not table.size:
            raise InputError(
                f"welfare is {welfare.shape} and reference {corner.shape} for {len(names)} policies and {len(groups)} "
                "groups; welfare is [point group] or [draw point group]."
            )
        if not (np.isfinite(table).all() and np.isfinite(corner).all()):
            raise InputError("welfare and reference must be finite; leave out policies that were not measured.")
        return cls(tuple(names), tuple(groups), table, corner)

    @property
    def mean(self) -> Float[np.ndarray, "point group"]:
        """Mean welfare over draws."""
        return self.welfare.mean(0)

    @property
    def low(self) -> Float[np.ndarray, "point group"]:
        """Lower end of the 90 % interval of welfare."""
        return np.quantile(self.welfare, INTERVAL[0], axis=0)

    @property
    def high(self) -> Float[np.ndarray, "point group"]:
        """Upper end of the 90 % interval of welfare."""
        return np.quantile(self.welfare, INTERVAL[1], axis=0)

    @property
    def on(self) -> Bool[np.ndarray, " point"]:
        """Whether a policy is on the front of mean welfare."""
        return on_front(self.mean)

    @property
    def share(self) -> Float[np.ndarray, " point"]:
        """Share of draws in which a policy is on the front: how sure it is that no other is better for everyone."""
        return np.mean([on_front(points) for points in self.welfare], axis=0)

    @property
    def worst(self) -> Float[np.ndarray, " point"]:
        """Mean welfare above the reference of the group that gains least, under each policy."""
        return (self.mean - self.reference).min(1)

    @property
    def volume(self) -> Estimate:
        """Hypervolume above the reference: its mean over draws with the 90 % interval."""
        values = [hypervolume(points, self.reference) for points in self.welfare]
        return Estimate(float(np.mean(values)), *(float(q) for q in np.quantile(values, INTERVAL)))

    def table(self) -> dict[str, Any]:
        """Return all of it as plain objects, which `report.front` draws."""
        parts = zip(self.mean, self.low, self.high, self.on, self.share, self.worst, self.names, strict=True)
        points = [
            {
                "name": name,
                "on": bool(on),
                "share": float(share),
                "worst": float(worst),
                "welfare": [
                    dict(zip(("mean", "low", "high"), map(float, ends), strict=True))
                    for ends in zip(mean, low, high, strict=True)
                ],
            }
            for mean, low, high, on, share, worst, name in parts
        ]
        corner = [float(value) for value in self.reference]
        return {"groups": list(self.groups), "reference": corner, "points": points, "volume": asdict(self.volume)}
