"""What a lottery must give, whatever the rule would like: each constraint is a voter with a veto and no vote.

A constraint adds rows to the table of utilities, one for each thing that it demands, made so that the demand reads

    rho_draw( u[draw, row] ) >= 0,    u[draw, row] = mean_x sum_y p U[draw, row]

Rows are linear in the lottery like every voter's utility, so the multiplier of a demand enters the reward as the row's
weight. With `risk=CVaR(tail)` a demand is a chance constraint: what is worth at least 0 on average over the worst
`tail` of the draws is below 0 in less than that share of them (Nemirovski and Shapiro 2006, Convex approximations of
chance constrained programs, section 3).
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np
from jaxtyping import Float

from pluralign.choice.risk import Mean, Risk
from pluralign.errors import InputError
from pluralign.types import Linear, Utilities


class AbstractConstraint(ABC):
    """Demands on a lottery, each of which is a row that must be worth at least 0.

    Attributes:
        risk: how posterior draws are combined before they are compared with 0.
    """

    risk: Risk

    @abstractmethod
    def rows(self, utilities: Utilities) -> Utilities:
        """Return one row for each demand, in place of voters, on the same prompts and candidates."""


@dataclass(frozen=True)
class Floor(AbstractConstraint):
    """No group falls below what the reference gives it by more than `eps`: `rho(u_g - u_g(reference)) >= -eps`.

    Args:
        eps: what a group may lose, in units of the utilities' scale; negative demands a gain.
        each: who is a group: every voter with mass by itself, or `utilities.groups` (its voters weighted by mass).
        risk: how posterior draws are combined.
    """

    eps: float = 0.0
    each: Literal["voter", "group"] = "group"
    risk: Risk = field(default_factory=Mean)
    kind: Literal["floor"] = "floor"

    def rows(self, utilities: Utilities) -> Utilities:
        """Return a row for every group: what it gains, plus `eps`."""
        if self.each == "group" and utilities.groups is None:
            raise InputError(
                "Floor(each='group') needs to know the voters' groups: give `groups` to choice.utilities (in a config: "
                "`groups`), or use each='voter'."
            )
        label = np.asarray(utilities.voters if self.each == "voter" else utilities.groups)
        names = list(dict.fromkeys(label[utilities.mass > 0]))
        share = np.stack([np.where(label == name, utilities.mass, 0) for name in names])
        gained = combined(utilities, share / share.sum(1, keepdims=True), [f"floor: {name}" for name in names])
        return shifted(gained, self.eps - gained.expected(utilities.reference))


@dataclass(frozen=True)
class Bound(AbstractConstraint):
    """An objective's expectation, all voters together, is at least or at most so much.

    Args:
        of: the objective's own utilities, on the same prompts and candidates (`choice.utilities` with other
            `objectives`); voters count by its `mass`.
        at_least: the least that `rho(E)` may be, in units of `of`.
        at_most: the most that `-rho(-E)` may be.
        risk: how posterior draws are combined.
        name: in reports.
    """

    of: Utilities
    at_least: float | None = None
    at_most: float | None = None
    risk: Risk = field(default_factory=Mean)
    name: str = "objective"
    kind: Literal["bound"] = "bound"

    def __post_init__(self):
        if self.at_least is None and self.at_most is None:
            raise InputError(f"Bound on {self.name!r} demands nothing; give at_least or at_most.")

    def rows(self, utilities: Utilities) -> Utilities:
        """Return a row for each limit: how far the expectation is on its right side."""
        of = self.of
        if of.shape[2:] != utilities.shape[2:] or not (of.item == utilities.item).all():
            raise InputError(
                f"Bound on {self.name!r} is about other candidates: [prompt candidate] is {of.shape[2:]} there and "
                f"{utilities.shape[2:]} here; make both with the same `prompts` and `reference`."
            )
        if of.shape[0] != utilities.shape[0]:
            raise InputError(
                f"Bound on {self.name!r} has {of.shape[0]} draws, the utilities {utilities.shape[0]}; use the same."
            )
        limits = [(1, self.at_least, "at least"), (-1, self.at_most, "at most")]
        demands = [(sign, limit, words) for sign, limit, words in limits if limit is not None]
        share = np.stack([sign * of.mass for sign, *_ in demands])
        rows = combined(of, share, [f"{self.name} {words} {limit:g}" for _, limit, words in demands])
        return shifted(rows, -np.array([[sign * float(limit) for sign, limit, _ in demands]]))


def combined(utilities: Utilities, share: Float[np.ndarray, "row voter"], names: Sequence[str]) -> Utilities:
    """Return rows that are `sum_voter share U`."""
    value = utilities.value
    if isinstance(value, Linear):
        value = Linear(value.phi, np.einsum("rv,svf->srf", share, value.weights), value.offset @ share.T)
    else:
        value = np.einsum("rv,svxy->srxy", share, value, optimize=True)
    mass = np.full(len(share), 1 / len(share))
    return replace(utilities, value=value, mass=mass, voters=tuple(names), groups=None)


def shifted(utilities: Utilities, by: Float[np.ndarray, "#draw #voter"]) -> Utilities:
    """Return `U + by`."""
    value = utilities.value
    moved = (
        Linear(value.phi, value.weights, value.offset + by)
        if isinstance(value, Linear)
        else value + np.broadcast_to(by, value.shape[:2])[..., None, None]
    )
    return replace(utilities, value=moved)


def beside(utilities: Utilities, rows: Sequence[Utilities]) -> Utilities:
    """Return the utilities with rows after their voters, as voters without mass."""
    parts = (utilities, *rows)
    values = [part.value for part in parts]
    first = values[0]
    if isinstance(first, Linear) and all(isinstance(v, Linear) and np.array_equal(v.phi, first.phi) for v in values):
        linear = [v for v in values if isinstance(v, Linear)]
        value = Linear(
            first.phi, np.concatenate([v.weights for v in linear], 1), np.concatenate([v.offset for v in linear], 1)
        )
    else:
        value = np.concatenate([part.dense() for part in parts], 1)
    voters = tuple(name for part in parts for name in part.voters or ())
    mass = np.append(utilities.mass, np.zeros(len(voters) - len(utilities.mass)))
    groups = None if utilities.groups is None else (*utilities.groups, *voters[len(utilities.mass) :])
    return replace(utilities, value=value, mass=mass, voters=voters, groups=groups)
