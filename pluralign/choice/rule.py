"""What a rule is, and what those share that maximise a concave welfare at a price for divergence."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import MISSING, Field, fields, replace
from typing import Any, ClassVar

import cvxpy as cp
import numpy as np
from jaxtyping import Float

from pluralign.choice.constraint import AbstractConstraint
from pluralign.choice.program import Cautious, Demanding, demanded, meet
from pluralign.choice.risk import AbstractRisk, Mean
from pluralign.choice.rows import beside, only
from pluralign.choice.scale import AbstractScale, affine, measured, spread
from pluralign.errors import InputError
from pluralign.types import Certificate, Choice, Demand, Linear, LinearReward, Utilities

MEAN = Mean()


class AbstractRule(ABC):
    """A way to turn everyone's utilities into one lottery per prompt.

    Attributes:
        cautious: True if the rule takes every `risk`; False if it must be `Mean`.
    """

    cautious: ClassVar[bool] = True

    @abstractmethod
    def choose(self, utilities: Utilities, risk: AbstractRisk = MEAN, beta: float = 0.1) -> Choice:
        """Return the lottery, and what trains a policy towards it.

        Args:
            utilities: of every voter for every candidate, in posterior draws.
            risk: how draws are combined.
            beta: price of a nat of divergence from the reference, in units of welfare; positive.

        Raises:
            InputError: `beta` is not positive, or utilities lie outside the rule's domain.
            SolveError: the program was not solved to its certificate.
        """

    @property
    def name(self) -> str:
        """The rule's name in configs, file names and reports: its `kind`, with whatever is not as usual."""
        unusual = [f for f in fields(self) if f.name != "kind" and getattr(self, f.name) != _usual(f)]  # pyright: ignore[reportArgumentType]
        return "-".join([vars(self)["kind"], *(_word(f.name, getattr(self, f.name)) for f in unusual)])


class AbstractWelfare(AbstractRule):
    """A rule that maximises welfare, with caution, at a price for divergence from the reference.

        max_p  rho_draw( W(u[draw, :]) ) - beta mean_x KL(p_x || ref_x),    u[draw, voter] = mean_x sum_y p U

    With `lambda[draw, voter]` the multipliers of `u <= mean_x sum_y p U`, the optimum is
    `p ∝ ref exp( sum lambda U / beta )`: the rule acts as one reward `sum lambda U`, and the lottery is the
    Bayesian posterior with likelihood `exp(reward / beta)` (Korbak et al. 2022, RL with KL penalties is better
    viewed as Bayesian inference). Voters with mass 0 do not enter.

    Attributes:
        degree: `W(c u) = c^degree W(u)` for every `c > 0` (0: `W(u) + log c`); None claims nothing. It lets the
            program be solved in good units, and says what `beta` is measured in: 1 = utility, 0 = a pure number.
        positive: True if `W` is defined only where every utility is positive.
        scale: on which the rule measures utilities, whatever scale they come on; None: on that one.
    """

    degree: ClassVar[int | None] = None
    positive: ClassVar[bool] = False
    scale: ClassVar[AbstractScale | None] = None

    @abstractmethod
    def welfare(self, u: cp.Expression, mass: Float[np.ndarray, " voter"]) -> cp.Expression:
        """Return `W(u)` in every draw, concave and non-decreasing in `u[draw, voter]`; masses are positive.

        It may hold variables of its own that are chosen to make it largest; then `marginal` is needed.
        """

    def marginal(
        self, u: Float[np.ndarray, "draw voter"], mass: Float[np.ndarray, " voter"]
    ) -> tuple[Float[np.ndarray, " draw"], Float[np.ndarray, "draw voter"]] | None:
        """Return `W(u)` in every draw with one of its supergradients, as formulas; None: cvxpy works them out, slower.

        What lies outside the domain is worth `-inf`, and its supergradient is not read.
        """
        return None

    def choose(
        self,
        utilities: Utilities,
        risk: AbstractRisk = MEAN,
        beta: float = 0.1,
        constraints: Sequence[AbstractConstraint] = (),
    ) -> Choice:
        """Return the lottery that maximises welfare less divergence, and its certificate; see `AbstractRule.choose`.

        Args:
            utilities: of every voter for every candidate, in posterior draws.
            risk: how draws are combined.
            beta: price of a nat of divergence from the reference, in units of welfare; positive.
            constraints: what the lottery must give whatever the rule would like. Their multipliers enter the reward.

        Raises:
            SolveError: also if no lottery was found that meets all constraints; names what falls short.
        """
        priced(beta)
        rows, risks = demanded(constraints, utilities)
        whole = beside(utilities, rows) if rows else utilities
        counts = np.append(utilities.mass > 0, np.ones(len(risks), bool))
        kept = whole if counts.all() else only(whole, counts)
        voters = kept.shape[1] - len(risks)
        mass = kept.mass[:voters]
        own = np.ones(kept.shape[:2])
        if self.scale is not None:
            zero, own = measured(kept, self.scale)
            zero[:, voters:], own[:, voters:] = 0, 1
            kept = affine(replace(kept, scale=self.scale.words), zero, own)
        # In units of `unit`, W(u) = slope W(u / unit) + shift: welfare over slope is of size 1, whatever utilities are.
        slope, shift = 1.0, 0.0
        if self.degree is not None and risk.homogeneous:
            unit = float(spread(kept) or np.abs(kept.expected(kept.reference)).mean() or 1.0)
            slope, shift = unit**self.degree, np.log(unit) if self.degree == 0 else 0.0
        shape = (kept.shape[0], voters)
        welfare = Cautious(lambda u: self.welfare(u, mass), lambda u: self.marginal(u, mass), risk, shape, slope, shift)
        lottery, multipliers, certificate, worth = meet(
            Demanding(welfare, voters, risks), kept, beta / slope, name=self.name, positive=self.positive
        )
        certificate = replace(
            certificate,
            value=float(slope * certificate.value + shift),
            upper_bound=float(slope * certificate.upper_bound + shift),
            gap=float(slope * certificate.gap),
        )
        spelled = np.zeros(whole.shape[:2])
        spelled[:, counts] = multipliers * slope / own
        weights, prices = np.split(spelled, [utilities.shape[1]], axis=1)
        return settled(self, lottery, weights, prices, beta, risk, certificate, utilities, rows, worth)


def _usual(field: Field[Any]) -> Any:
    return field.default if field.default_factory is MISSING else field.default_factory()


def _word(name: str, value: Any) -> str:
    if isinstance(value, bool):
        return name if value else f"no-{name}"
    return "-".join(
        f"{v:g}" if isinstance(v, float) else str(v) for v in (value if isinstance(value, tuple) else [value])
    )


def priced(beta: float) -> None:
    """Refuse a price of divergence that is not positive."""
    if not (np.isfinite(beta) and beta > 0):
        raise InputError(f"beta is {beta}; the price of a nat of divergence must be positive (try 0.03 to 1).")


def settled(
    rule: AbstractRule,
    lottery: Float[np.ndarray, "prompt candidate"],
    weights: Float[np.ndarray, "draw voter"],
    prices: Float[np.ndarray, "draw row"],
    beta: float,
    risk: AbstractRisk,
    certificate: Certificate,
    utilities: Utilities,
    rows: Sequence[Utilities],
    worth: Float[np.ndarray, " row"],
) -> Choice:
    """Return the choice that multipliers of voters and of demands make, with its reward if utilities have features."""
    demanded = beside(rows[0], rows[1:]) if rows else None
    reward = None
    for part, multipliers in ((utilities, weights), (demanded, prices)):
        if part is not None and isinstance(part.value, Linear):
            own = np.ravel(multipliers) @ part.value.weights.reshape(multipliers.size, -1)
            reward = own if reward is None else reward + own
        elif part is not None:
            reward = None
            break
    names = () if demanded is None else demanded.voters or ()
    return Choice(
        name=rule.name,
        lottery=lottery,
        weights=weights,
        reward=None if reward is None else LinearReward(reward),
        beta=beta,
        risk=risk.words,
        certificate=certificate,
        utilities=utilities,
        demands=tuple(Demand(n, float(w), float(p)) for n, w, p in zip(names, worth, prices.sum(0), strict=True)),
        rows=demanded,
        prices=None if demanded is None else prices,
    )
