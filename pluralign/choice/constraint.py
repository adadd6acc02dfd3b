"""What a lottery must give, whatever the rule would like: each constraint is a voter with a veto and no vote.

A constraint adds rows to the table of utilities, one for each thing that it demands, made so that the demand reads

    rho_draw( u[draw, row] ) >= 0,    u[draw, row] = mean_x sum_y p U[draw, row]

Rows are linear in the lottery like every voter's utility, so the multiplier of a demand enters the reward as the row's
weight. With `risk=CVaR(tail)` a demand is a chance constraint: what is worth at least 0 on average over the worst
`tail` of the draws is below 0 in less than that share of them (Nemirovski and Shapiro 2006, Convex approximations of
chance constrained programs, section 3).
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np

from pluralign.choice.risk import Mean, Risk
from pluralign.choice.rows import combined, only, shifted
from pluralign.errors import InputError
from pluralign.types import Utilities


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
        if self.each == "voter":
            alone = only(utilities, utilities.mass > 0)
            gained = replace(alone, voters=tuple(f"floor: {name}" for name in alone.voters or ()), groups=None)
        else:
            label = np.asarray(utilities.groups)
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
