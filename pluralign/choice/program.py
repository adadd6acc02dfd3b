"""What a rule, a risk and constraints make of `u[draw, voter]`: one concave function with a supergradient."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import cvxpy as cp
import numpy as np
from jaxtyping import Float

from pluralign.choice.bundle import Lottery, Part, Table, Whole
from pluralign.choice.constraint import AbstractConstraint
from pluralign.choice.risk import AbstractRisk
from pluralign.choice.solve import Stated, as_one, reach, solve
from pluralign.errors import SolveError
from pluralign.types import Certificate, Utilities

Draws = Float[np.ndarray, " draw"]
PRICES = (10.0, 1e3, 1e5)  # of falling short, in units of welfare per standard deviation of the row
SHORT = 1e-3  # of a standard deviation: what rounding and the lottery's own tolerance may leave


class AbstractObjective(ABC):
    """A concave function with a supergradient, whole and in parts."""

    @abstractmethod
    def __call__(self, u: Table) -> tuple[float, Table | None]:
        """Return the value and a supergradient; `-inf` and None outside the domain."""

    @abstractmethod
    def split(self, u: Table) -> Whole | None:
        """Return parts with supergradients; None outside the domain."""


@dataclass(frozen=True, eq=False)
class Cautious(AbstractObjective):
    """`(rho(W(u)) - shift) / slope`, by the formulas of rule and risk if both have one, else by cvxpy.

    Args:
        welfare: `W` as an expression, and `marginal` as formulas; both of `u[draw, voter]`.
        marginal: value and supergradient of `W` in every draw, or None.
        risk: `rho`.
        shape: of `u`.
        slope: what a welfare of size 1 is divided by.
        shift: welfare that is no one's doing.
    """

    welfare: Callable[[cp.Expression], cp.Expression]
    marginal: Callable[[Table], tuple[Draws, Table] | None]
    risk: AbstractRisk
    shape: tuple[int, int]
    slope: float = 1.0
    shift: float = 0.0

    @cached_property
    def stated(self) -> Stated:
        """The expression, made only if it is needed."""
        return Stated(lambda u: self.risk.combine(self.welfare(u)), self.shape)

    def __call__(self, u: Table) -> tuple[float, Table | None]:
        """Return the value and a supergradient; `-inf` and None outside the domain."""
        with np.errstate(all="ignore"):
            inner = self.marginal(u)
            outer = None if inner is None else self.risk.marginal(inner[0])
            if inner is None or outer is None:
                value, gradient = self.stated(u)
                gradient = None if gradient is None else gradient / self.slope
            else:
                value, gradient = outer[0], (outer[1] / self.slope)[:, None] * inner[1]
        if gradient is None or not (np.isfinite(value) and np.isfinite(gradient).all()):
            return -np.inf, None
        return (value - self.shift) / self.slope, gradient

    def split(self, u: Table) -> Whole | None:
        """Return welfare in each draw by itself and what the risk measure makes of it; None outside the domain."""
        with np.errstate(all="ignore"):
            inner = self.marginal(u)
            if inner is None:
                return as_one(self, u)
            w = (inner[0] - self.shift) / self.slope
            value, share = certainty(self.risk, w)
        if not (np.isfinite(value) and np.isfinite(inner[1]).all()):
            return None
        everyone = slice(0, u.shape[1])
        parts = [Part(float(w[s]), (s, everyone), inner[1][s] / self.slope) for s in range(len(w))]
        return Whole(tuple(parts), value, share)


class Demanding(AbstractObjective):
    """A concave function of the voters' part of `u`, less a price for what the rows after them fall short of 0.

        f(u_voters) - sum_row price_row max(0, -rho_row(u_row))

    Where the price is above a row's multiplier, the maximum keeps all demands: the penalty is exact (Zangwill 1967).
    """

    def __init__(self, f: AbstractObjective, voters: int, risks: list[AbstractRisk]):
        self.f, self.voters, self.risks = f, voters, risks
        self.price = np.zeros(len(risks))

    def __call__(self, u: Table) -> tuple[float, Table | None]:
        """Return the value and a supergradient; `-inf` and None outside the domain."""
        value, inner = self.f(u[:, : self.voters])
        if inner is None or not len(self.price):
            return value, inner
        gradient = np.concatenate([inner, np.zeros((len(u), len(self.price)))], axis=1)
        for row, (worth, slope) in enumerate(self.worth(u)):
            if worth < 0:
                value += self.price[row] * worth
                gradient[:, self.voters + row] = self.price[row] * slope
        return value, gradient

    def split(self, u: Table) -> Whole | None:
        """Return the parts of the function, and each demand's shortfall as one more."""
        inner = self.f.split(u[:, : self.voters])
        if inner is None:
            return None
        parts, value = list(inner.parts), inner.value
        for row, (worth, slope) in enumerate(self.worth(u)):
            short = self.price[row] * min(worth, 0.0)
            where = (slice(None), self.voters + row)
            parts.append(Part(short, where, self.price[row] * slope if worth < 0 else np.zeros(len(u))))
            value += short
        return Whole(tuple(parts), value, np.append(inner.share, np.ones(len(self.price))))

    def worth(self, u: Table) -> list[tuple[float, Draws]]:
        """Return what each demand is worth, `rho_row(u_row)`, with a supergradient."""
        return [certainty(risk, u[:, self.voters + row]) for row, risk in enumerate(self.risks)]


def certainty(risk: AbstractRisk, w: Draws) -> tuple[float, Draws]:
    """Return `rho(w)` and a supergradient, whether the risk has formulas or not."""
    found = risk.marginal(w)
    if found is not None:
        return found
    value, gradient = Stated(lambda u: risk.combine(u[:, 0]), (len(w), 1))(w[:, None])  # pyright: ignore[reportArgumentType]
    assert gradient is not None  # a risk is defined for every welfare
    return value, gradient[:, 0]


def demanded(
    constraints: Sequence[AbstractConstraint], utilities: Utilities
) -> tuple[list[Utilities], list[AbstractRisk]]:
    """Return the rows of all constraints, and the risk of each row."""
    rows = [constraint.rows(utilities) for constraint in constraints]
    return rows, [c.risk for c, r in zip(constraints, rows, strict=True) for _ in r.mass]


def meet(
    f: Demanding, utilities: Utilities, beta: float, *, name: str, positive: bool = False
) -> tuple[Lottery, Table, Certificate, Float[np.ndarray, " row"]]:
    """Return what `solve` does and what each demand is worth, with a price of falling short that is high enough.

    Raises:
        SolveError: also if no lottery was found that meets all demands.
    """
    unit, worth = units(utilities, len(f.price)), np.zeros(0)
    for price in PRICES:
        f.price[:] = price / unit
        lottery, multipliers, certificate = solve(
            f, utilities, beta, name=name, positive=f.voters if positive else 0, split=f.split
        )
        # Without demands there is nothing to look at, and utilities can be large.
        worth = np.array([w for w, _ in f.worth(utilities.expected(lottery))] if len(unit) else [])
        if (worth >= -SHORT * unit).all():
            return lottery, multipliers, certificate, worth
        if price == PRICES[0]:
            _possible(f, utilities, beta, unit, name)
    raise SolveError(
        f"{name} was not solved under its constraints: {_short(f, utilities, worth, unit)}. They leave hardly any "
        "lottery to choose from; loosen them a little."
    )


def _possible(f: Demanding, utilities: Utilities, beta: float, unit: np.ndarray, name: str) -> None:
    """Refuse demands that no lottery meets."""

    def least(u: Table) -> tuple[float, Table]:
        worth = f.worth(u)
        row = int(np.argmin([w / k for (w, _), k in zip(worth, unit, strict=True)]))
        slope = np.zeros_like(u)
        slope[:, f.voters + row] = worth[row][1] / unit[row]
        return worth[row][0] / unit[row], slope

    lottery = reach(least, utilities, beta / 100, lambda u: least(u)[0] >= 0)
    worth = np.array([w for w, _ in f.worth(utilities.expected(lottery))])
    if (worth < -SHORT * unit).any():
        raise SolveError(
            f"{name} found no lottery that meets all constraints; where the worst is met best, "
            f"{_short(f, utilities, worth, unit)}. They ask for more than these candidates offer, or for things that "
            "exclude each other; loosen them."
        )


def _short(f: Demanding, utilities: Utilities, worth: np.ndarray, unit: np.ndarray) -> str:
    names = (utilities.voters or ())[f.voters :]
    short = [f"{n!r} falls short by {-w:.4g}" for n, w, u in zip(names, worth, unit, strict=True) if w < -SHORT * u]
    return ", ".join(short[:5]) + (f" and {len(short) - 5} more" if len(short) > 5 else "")


def units(utilities: Utilities, rows: int) -> Float[np.ndarray, " row"]:
    """Return the standard deviation within a prompt under the reference of the last rows, in the mean draw."""
    found = np.ones(rows)
    for row in range(rows):
        only = np.zeros(utilities.shape[:2])
        only[:, row - rows] = 1 / len(only)
        tilt, reference = utilities.weighted(only), utilities.reference
        centred = tilt - (reference * tilt).sum(-1, keepdims=True)
        found[row] = np.sqrt((reference * centred**2).sum(-1).mean()) or 1.0
    return found
