"""What is known of rewards, and whether to trust it."""

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from pluralign.types.checks import Array, check, finite, freeze, simplex


@dataclass(frozen=True)
class LeaveOneOut:
    """How well judgements are predicted from all the others, by importance sampling.

    Attributes:
        elpd: expected log predictive density, the sum over all judgements of `log P(judgement | all others)`, in nats.
        stderr: its standard error, clustered by annotator.
        p_loo: effective number of parameters, by how much the log predictive density falls when judgements are left
            out.
        bad: share of judgements whose Pareto k is above `limit`; what is said of these cannot be trusted.
        limit: the largest k that is good with so many draws.
        sampled: of how many judgements it was computed.
        judgements: how many there are.
    """

    elpd: float
    stderr: float
    p_loo: float
    bad: float
    limit: float
    sampled: int
    judgements: int


@dataclass(frozen=True)
class PredictiveCheck:
    """What somebody did beside what the fitted model would have them do.

    Attributes:
        statistic: what was counted.
        who: name of the annotator or group.
        of: "annotator" or "group".
        judgements: how many it is about.
        observed: what they did.
        expected: its posterior predictive mean.
        low: 5 % quantile of the posterior predictive distribution, about.
        high: 95 % quantile, about.
        p: two-sided posterior predictive p value.
        q: the same, corrected for how many annotators (or groups) were looked at (Benjamini and Hochberg 1995).
    """

    statistic: str
    who: str
    of: str
    judgements: int
    observed: float
    expected: float
    low: float
    high: float
    p: float
    q: float


@dataclass(frozen=True)
class CalibrationCurve:
    """Predicted probabilities that the first of two wins beside how often it won, by bins of the prediction.

    Attributes:
        of: "in sample" or "left out".
        error: expected calibration error, `sum_bin count / total |observed - predicted|`.
        by_chance: what the error would be on average if every prediction were right.
        p: p value of the bins' deviations if every prediction were right.
        predicted: mean prediction of each bin that is not empty.
        observed: share of wins of the first.
        count: judgements.
    """

    of: str
    error: float
    by_chance: float
    p: float
    predicted: tuple[float, ...]
    observed: tuple[float, ...]
    count: tuple[int, ...]


@dataclass(frozen=True)
class FitReport:
    """Whether the numbers of a posterior can be trusted.

    Attributes:
        method: what made the draws.
        chains: how many independent chains.
        draws: draws per chain.
        divergences: divergent transitions after warm-up.
        rhat: worst rank-normalised split R-hat of each site (Vehtari et al. 2021).
        ess_bulk: smallest bulk effective sample size of each site.
        ess_tail: smallest tail effective sample size of each site.
        seconds: wall time of the fit.
        caveats: what is wrong, in sentences; empty means that every check passed.
        notes: facts about the fit that are no fault (conventions, what was not identified and how it is pinned).
        bfmi: estimated Bayesian fraction of missing information of each chain; empty unless the sampler has energies.
        loo: predictions of judgements that are left out one by one; None if nobody asked.
        checks: posterior predictive checks, of all groups and of the annotators that are off.
        calibration: of predicted wins of the first of two.
    """

    method: str
    chains: int
    draws: int
    divergences: int
    rhat: dict[str, float]
    ess_bulk: dict[str, float]
    ess_tail: dict[str, float]
    seconds: float
    caveats: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    bfmi: tuple[float, ...] = ()
    loo: LeaveOneOut | None = None
    checks: tuple[PredictiveCheck, ...] = ()
    calibration: tuple[CalibrationCurve, ...] = ()

    @property
    def converged(self) -> bool:
        """True if no check failed."""
        return not self.caveats


@dataclass(frozen=True, eq=False)
class RewardPosterior:
    """Draws of every voter's reward weights: `r[draw, voter](item) = phi[item] · weights[draw, voter, objective]`.

    Attributes:
        weights: in logits per unit of feature.
        mass: how much each voter counts, sums to 1.
        voters: their names.
        membership: probability that an annotator is a voter; None if voters are the annotators, in order.
        rater: per annotator and draw, parameters of noise: `lapse` (probability of a random answer),
            `temperature` (utilities are divided by it), `position` (logit bonus of the first slot), `tie` (log tie
            propensity), `threshold` (an advantage that is needed to win), `leniency` (logits by which grades are
            raised), `stretch` (log factor of the cutpoints of grades); only those in the model.
        features: names of the features.
        fit: diagnostics.
        objectives: names of the objectives.
        quality: what each judged item is worth beyond its features, in logits; None if the model has no item effects.
        common: per draw, parameters that all annotators share, and those of the population.
        own: per draw and voter, what is known of it besides weights: `tradeoff` (how much each of the other objectives
            counts in the overall one), `place` (along the factors of items, `common["item_factor"]`).
        covariates: names of the columns that regress the population's mean, `common["effect"]`.
        model: the population with its settings, as plain values.
    """

    weights: Float[Array, "draw voter objective feature"]
    mass: Float[Array, " voter"]
    voters: tuple[str, ...]
    membership: Float[Array, "annotator voter"] | None
    rater: dict[str, Float[Array, "draw annotator"]]
    features: tuple[str, ...]
    fit: FitReport
    objectives: tuple[str, ...] = ("overall",)
    quality: Float[Array, "draw item objective"] | None = None
    common: dict[str, Float[Array, "draw ..."]] = field(default_factory=dict)
    own: dict[str, Float[Array, "draw voter ..."]] = field(default_factory=dict)
    covariates: tuple[str, ...] = ()
    model: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self):
        freeze(self, weights=(self.weights, np.float32), mass=(self.mass, np.float64))
        check(self.weights.ndim == 4, f"weights must be [draw voter objective feature], got {self.weights.shape}.")
        finite("weights", self.weights)
        simplex("mass", self.mass)
        check(len(self.mass) == self.weights.shape[1] == len(self.voters), "mass, voters and weights disagree.")
        check(len(self.features) == self.weights.shape[3], "feature names and weights disagree.")
        check(len(self.objectives) == self.weights.shape[2], "objectives and weights disagree.")

    def at(self, draws: Int[Array, " draw"]) -> "RewardPosterior":
        """Return the posterior of these draws alone."""
        chosen = {name: {n: v[draws] for n, v in getattr(self, name).items()} for name in ("rater", "common", "own")}
        quality = None if self.quality is None else self.quality[draws]
        return replace(self, weights=self.weights[draws], quality=quality, **chosen)

    def beyond(self, items: Int[Array, "..."], objective: int = 0) -> Float[Array, "draw voter ..."]:
        """Return what items are worth beyond their features to each voter, in logits; 0 without item effects.

        Args:
            items: their indices.
            objective: index of what is asked.
        """
        if self.quality is None:
            return np.zeros((len(self.weights), 1, *np.shape(items)))
        worth = self.quality[:, items, objective].astype(np.float64)[:, None]
        if "item_factor" in self.common:
            factor = self.common["item_factor"][:, items, objective].astype(np.float64)
            worth = worth + np.einsum("s...k,svk->sv...", factor, self.own["place"].astype(np.float64))
        return worth

    def save(self, path: str | Path) -> Path:
        """Write the posterior with its diagnostics to a folder, atomically."""
        from pluralign import artifacts

        return artifacts.save(self, path)

    @classmethod
    def load(cls, path: str | Path) -> "RewardPosterior":
        """Read what `save` wrote.

        Raises:
            InputError: the folder does not hold a posterior, or was changed since it was written.
        """
        from pluralign import artifacts

        return artifacts.load(path, cls)
