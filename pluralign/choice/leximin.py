"""The worst off first, then the next, and so on."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar, Literal

import numpy as np
from jaxtyping import Bool

from pluralign.choice.bundle import Part, Table, Whole
from pluralign.choice.constraint import AbstractConstraint
from pluralign.choice.program import AbstractObjective, Demanding, certainty, demanded, meet
from pluralign.choice.risk import AbstractRisk
from pluralign.choice.rows import beside, combined, only, shifted
from pluralign.choice.rule import MEAN, AbstractRule, priced, settled
from pluralign.choice.scale import spread
from pluralign.errors import InputError
from pluralign.types import Choice, Utilities

HELD = 0.1
"""Of the largest multiplier: a level holds voters who have at least so much of it.

Some voters are at a level only because raising them costs divergence; their multipliers go to 0 with beta, and they
must stay free. The largest multiplier does not.
"""


@dataclass(frozen=True)
class Leximin(AbstractRule):
    """The best for whoever is worst off, then for the next among the others, and so on (Sen 1970; Hammond 1976).

    Each voter counts by what it can be sure of, `a_v = rho_draw(u_v)`, before it is known which draw holds. Level by
    level, with `F` the voters that no earlier level holds,

        max_p  min_{v in F} a_v(p) - beta KL(p || ref)    s.t.  a_v(p) >= t_v for every v that an earlier level holds,

    where a level holds those whose multipliers decide it, at what they have there, `t_v`. The first level is
    `Maximin` of what voters can be sure of; the others use the freedom that it leaves, each at its own price for
    divergence. As beta goes to 0 the utilities, sorted, are largest from the smallest on. Masses do not matter as long
    as they are positive. The certificate is that of the last level. Cost grows with the number of levels.

    Args:
        levels: at most so many; the last one that is done treats all voters still free alike.
    """

    levels: int = 20
    kind: Literal["leximin"] = "leximin"
    degree: ClassVar[int] = 1

    def __post_init__(self):
        if self.levels < 1:
            raise InputError(f"levels is {self.levels}; at least the worst off must count.")

    def choose(
        self,
        utilities: Utilities,
        risk: AbstractRisk = MEAN,
        beta: float = 0.1,
        constraints: Sequence[AbstractConstraint] = (),
    ) -> Choice:
        """Return the last level's lottery, and its multipliers of all voters; see `AbstractWelfare.choose`."""
        clock = time.perf_counter()
        priced(beta)
        demands, risks = demanded(constraints, utilities)
        counts = utilities.mass > 0
        kept = only(utilities, counts)
        voters = len(kept.mass)
        slope = (spread(kept) or 1.0) if risk.homogeneous else 1.0
        free, floor = np.ones(voters, bool), np.zeros(voters)
        level = 0
        while True:
            held = np.flatnonzero(~free)
            names = [f"what {(kept.voters or ())[v]} has" for v in held]
            rows = [shifted(combined(kept, np.eye(voters)[held], names), -floor[None, held])] if len(held) else []
            whole = beside(kept, [*demands, *rows]) if demands or rows else kept
            objective = Demanding(_Least(free, risk, slope), voters, [*risks, *[risk] * len(held)])
            lottery, multipliers, certificate, worth = meet(objective, whole, beta / slope, name=self.name)
            weights = slope * multipliers[:, :voters]
            decide = free & (weights.sum(0) >= HELD * weights.sum(0)[free].max())
            weights[:, held] += slope * multipliers[:, voters + len(risks) :]
            u = kept.expected(lottery)
            floor[decide] = [certainty(risk, u[:, v])[0] for v in np.flatnonzero(decide)]
            free &= ~decide
            level += 1
            if not free.any() or level == self.levels:
                break
        certificate = replace(
            certificate,
            value=slope * certificate.value,
            upper_bound=slope * certificate.upper_bound,
            gap=slope * certificate.gap,
            seconds=time.perf_counter() - clock,
        )
        spelled = np.zeros(utilities.shape[:2])
        spelled[:, counts] = weights
        prices = slope * multipliers[:, voters : voters + len(risks)]
        worth = worth[: len(risks)]
        return settled(self, lottery, spelled, prices, beta, risk, certificate, utilities, demands, worth)


@dataclass(frozen=True, eq=False)
class _Least(AbstractObjective):
    """`min_{v free} rho(u_v) / slope`, with a supergradient."""

    free: Bool[np.ndarray, " voter"]
    risk: AbstractRisk
    slope: float

    def split(self, u: Table) -> Whole:
        sure = [(v, *certainty(self.risk, u[:, v])) for v in np.flatnonzero(self.free)]
        parts = tuple(Part(worth / self.slope, (slice(None), v), slope / self.slope) for v, worth, slope in sure)
        least = int(np.argmin([part.value for part in parts]))
        return Whole(parts, parts[least].value, np.eye(len(parts))[least])

    def __call__(self, u: Table) -> tuple[float, Table]:
        sure = {v: certainty(self.risk, u[:, v]) for v in np.flatnonzero(self.free)}
        least = min(sure, key=lambda v: sure[v][0])
        gradient = np.zeros_like(u)
        gradient[:, least] = sure[least][1] / self.slope
        return sure[least][0] / self.slope, gradient
