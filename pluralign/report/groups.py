"""Which voters form a group, and what a group has when its voters have something each."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float

from pluralign.types import Estimate, Feedback

EVERYONE = "everyone"
MOST = 12  # more groups than this make neither a readable table nor a readable figure


@dataclass(frozen=True, eq=False)
class Groups:
    """Voters by group, the largest group first.

    Attributes:
        names: of the groups.
        member: True if the voter belongs to the group.
        mass: how much each voter counts, sums to 1.
        annotators: True if voters are the annotators, in order.
    """

    names: tuple[str, ...]
    member: Bool[np.ndarray, "group voter"]
    mass: Float[np.ndarray, " voter"]
    annotators: bool

    @property
    def share(self) -> Float[np.ndarray, " group"]:
        """Return each group's share of the mass."""
        return self.member @ self.mass

    @property
    def label(self) -> tuple[str, ...]:
        """Return the name of each voter's group."""
        return tuple(self.names[g] for g in self.member.argmax(0))

    def mean(self, value: Float[np.ndarray, "... voter"]) -> Float[np.ndarray, "... group"]:
        """Return `sum_v mass_v value_v / sum_v mass_v` over the voters of each group."""
        weight = self.member * self.mass
        return value @ (weight / weight.sum(1, keepdims=True)).T

    def with_everyone(self) -> "Groups":
        """Return the same groups and, if there is more than one, all voters together as a last group."""
        if len(self.names) == 1:
            return self
        member = np.concatenate([self.member, np.ones_like(self.member[:1])])
        return Groups((*self.names, EVERYONE), member, self.mass, self.annotators)


def default_attribute(feedback: Feedback | None) -> str | None:
    """Return the first attribute of annotators that has 2 to 12 distinct values; None if there is none."""
    columns = feedback.annotators.column_names if feedback is not None else []
    for name in columns:
        if name not in ("id", "weight") and feedback and 2 <= len(set(feedback.attribute(name))) <= MOST:
            return name
    return None


def group(
    voters: tuple[str, ...], mass: Float[np.ndarray, " voter"], feedback: Feedback | None, attribute: str | None
) -> Groups:
    """Group voters that are annotators by `attribute`; other voters form one group each, or all one if many.

    Args:
        voters: their names.
        mass: how much each counts.
        feedback: the judgements; voters are its annotators if there are as many of them.
        attribute: of annotators; None puts all of them in one group.
    """
    annotators = feedback is not None and len(feedback.annotators) == len(voters)
    labels = voters if not annotators and len(voters) <= MOST else (EVERYONE,) * len(voters)
    if feedback is not None and annotators and attribute is not None:
        labels = feedback.attribute(attribute)
    words = np.array(labels, dtype=object)
    member = {name: words == name for name in dict.fromkeys(labels)}
    # A group of voters that do not count has no welfare.
    named = sorted((name for name in member if mass[member[name]].sum() > 0), key=lambda n: (-mass[member[n]].sum(), n))
    return Groups(tuple(named), np.stack([member[name] for name in named]), mass, annotators)


def estimate(values: Float[np.ndarray, " draw"]) -> Estimate:
    """Return the mean of draws with their 5 % and 95 % quantiles."""
    low, high = np.quantile(values, [0.05, 0.95])
    return Estimate(float(values.mean()), float(low), float(high))
