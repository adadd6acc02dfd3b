"""How surely a lottery, or what is decided in every draw, keeps to what was demanded of it."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float

from pluralign.choice.constraint import AbstractConstraint
from pluralign.choice.program import SHORT, certainty, demanded, units
from pluralign.choice.rows import beside, each_draw
from pluralign.errors import InputError
from pluralign.types import Utilities


@dataclass(frozen=True, eq=False)
class Met:
    """How surely demands are met.

    Attributes:
        names: of the demands.
        worth: of each, draw by draw: at least 0 where it is met.
        stated: what the constraint asks about, `rho(worth)` by its own risk.
        unit: standard deviation of what candidates are worth to the demand; a thousandth of it counts as rounding.
    """

    names: tuple[str, ...]
    worth: Float[np.ndarray, "draw demand"]
    stated: Float[np.ndarray, " demand"]
    unit: Float[np.ndarray, " demand"]

    @property
    def probability(self) -> Float[np.ndarray, " demand"]:
        """Probability that each demand is met, over draws."""
        return (self.worth >= -SHORT * self.unit).mean(0)

    @property
    def kept(self) -> Bool[np.ndarray, " demand"]:
        """Whether each demand is met as it is stated: on average, or over the worst draws."""
        return self.stated >= -SHORT * self.unit

    def __str__(self) -> str:
        told = zip(self.names, self.kept, self.stated, self.probability, strict=True)
        return "\n".join(
            f"{name}: {'kept' if kept else 'broken'} as stated (worth {stated:+.3g}), met with probability {p:.2f}"
            for name, kept, stated, p in told
        )


def met(
    lottery: Float[np.ndarray, "*draw prompt candidate"],
    utilities: Utilities,
    constraints: Sequence[AbstractConstraint],
) -> Met:
    """Return how surely a lottery of any rule meets demands, whether the rule knows them or not.

    Args:
        lottery: probability of each candidate; with a first axis of draws what is decided in each (`Decision.shares`),
            which is then asked whether it meets the demand in that draw.
        utilities: of every voter for every candidate, in posterior draws.
        constraints: what is demanded.

    Raises:
        InputError: the lottery is not one of these prompts and candidates, or nothing is demanded.
    """
    p = np.asarray(lottery, np.float64)
    if p.shape not in (utilities.reference.shape, (utilities.shape[0], *utilities.reference.shape)):
        raise InputError(
            f"lottery has shape {p.shape}; it is [prompt candidate] of the utilities, or one in each draw."
        )
    parts, risks = demanded(constraints, utilities)
    if not parts:
        raise InputError("nothing is demanded: give at least one constraint.")
    rows = beside(parts[0], parts[1:])
    if p.ndim == 2:
        worth = rows.expected(p)
    else:
        worth = np.concatenate([one.expected(own) for one, own in zip(each_draw(rows), p, strict=True)])
    stated = np.array([certainty(risk, worth[:, row])[0] for row, risk in enumerate(risks)])
    return Met(rows.voters or (), worth, stated, units(rows, len(risks)))
