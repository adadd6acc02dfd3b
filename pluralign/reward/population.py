"""What is assumed of the people behind the judgements."""

import warnings
from abc import ABC, abstractmethod
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import jax
import numpy as np
import numpyro
from jaxtyping import Float, Int
from numpyro import distributions as dist

from pluralign.errors import ConvergenceWarning, InputError
from pluralign.reward.inference import NUTS, AbstractInference, Draws
from pluralign.reward.judgements import Judgements, Layout
from pluralign.reward.response import Davidson
from pluralign.reward.scatter import scattered
from pluralign.types import Features, Feedback, FitReport, RewardPosterior

TOLD = 0.015
"""Precision about a weight in a squared difference, about: only how well chains mix depends on it."""


@dataclass(frozen=True, eq=False)
class Voters:
    """Whoever a rule counts: the part of `RewardPosterior` that depends on the population."""

    weights: Float[np.ndarray, "draw voter feature"]
    mass: Float[np.ndarray, " voter"]
    names: tuple[str, ...]
    membership: Float[np.ndarray, "annotator voter"] | None


@dataclass(frozen=True, eq=False)
class Target:
    """The numpyro model of one feedback, which still knows what it is made of, for inference that is made for it."""

    population: "AbstractPopulation"
    layout: Layout

    def __call__(self) -> None:
        """Write the model."""
        self.population.model(self.layout)


class AbstractPopulation(ABC):
    """A numpyro model of what annotators want, and who among them are voters.

    Models work in logits per `Judgements.unit`: a weight vector of length 1 that points along the differences moves a
    typical pair by one logit. Priors so mean the same whatever the units of the features are.
    """

    response: Davidson

    @abstractmethod
    def model(self, layout: Layout) -> None:
        """Write the numpyro model, one `numpyro.sample` per node of its plate diagram."""

    @abstractmethod
    def groups(self, votes: Feedback) -> Int[np.ndarray, " annotator"]:
        """Return the index of each annotator's group."""

    @abstractmethod
    def voters(self, sites: Draws, votes: Feedback) -> Voters:
        """Return the voters from draws of the model's sites."""

    def fit(
        self, votes: Feedback, phi: Features, *, inference: AbstractInference | None = None, seed: int = 0
    ) -> RewardPosterior:
        """Infer the posterior of every voter's weights.

        The same arguments give the same draws on the same machine and versions.

        Args:
            votes: comparisons of two items, ties allowed, for one objective.
            phi: features of the items of `votes`.
            inference: how; default `NUTS()`.
            seed: of the draws.

        Returns:
            The posterior; `fit.caveats` says what is wrong with it, in sentences, and is empty if nothing is.

        Raises:
            InputError: the feedback holds what is not modelled yet.
            FitError: the draws are not finite.

        Warns:
            ConvergenceWarning: there are caveats.
        """
        judgements = Judgements.read(votes, phi)
        layout = Layout.of(judgements, self.groups(votes))
        sites, report = (inference or NUTS()).infer(Target(self, layout), seed)
        notes = [f"Priors are per {judgements.unit:.4g} units of feature, the root mean square length of a difference."]
        if not layout.ties:
            notes.append("The feedback holds no tie, so ties are impossible in the model: plain Bradley-Terry.")
        if votes.choices.strength.any():
            stated = int((votes.choices.strength > 0).sum())
            notes.append(f"{stated:,} judgements say how strongly; the model takes only which response is preferred.")
        report = replace(report, notes=(*report.notes, *notes))
        if report.caveats:
            warnings.warn(" ".join(report.caveats), ConvergenceWarning, stacklevel=2)
        return self.posterior(sites, votes, phi, judgements.unit, report)

    def posterior(
        self, sites: Draws, votes: Feedback, phi: Features, unit: float, report: FitReport
    ) -> RewardPosterior:
        """Return draws of the model's sites as a posterior; `unit` is that of the judgements."""
        voters = self.voters(sites, votes)
        return RewardPosterior(
            weights=(voters.weights / unit).astype(np.float32)[:, :, None],
            mass=voters.mass,
            voters=voters.names,
            membership=voters.membership,
            rater=self.response.rater(sites, len(votes.annotators)),
            features=phi.names,
            fit=report,
        )


@dataclass(frozen=True)
class Pooled(AbstractPopulation):
    """Everyone wants the same: one weight vector, one voter.

        spread ~ LogNormal(log scale, 0.8)
        w[feature] ~ Normal(0, spread)

    With `Davidson(lapse=False, tie_spread=False, position=False)` it is the pooled Bradley-Terry model that most
    pipelines fit, with a prior in place of a penalty.

    Args:
        scale: prior median of the spread of a typical pair's utility differences, in logits.
        response: how utilities become outcomes.
    """

    scale: float = 1.0
    response: Davidson = field(default_factory=Davidson)
    kind: Literal["pooled"] = "pooled"

    def __post_init__(self):
        _check_scale(self.scale)

    def model(self, layout: Layout) -> None:
        """Write the numpyro model."""
        spread = numpyro.sample("spread", dist.LogNormal(np.log(self.scale), 0.8))
        with numpyro.plate("feature", layout.features):
            weights = scattered("weights", 0.0, spread, TOLD * layout.information.sum(0))
            numpyro.deterministic("weights", weights)
        self.response.observe(layout, layout.x @ weights)

    def groups(self, votes: Feedback) -> Int[np.ndarray, " annotator"]:
        """Return one group for all."""
        return np.zeros(len(votes.annotators), np.int32)

    def voters(self, sites: Draws, votes: Feedback) -> Voters:
        """Return the one voter, to whom every annotator belongs."""
        return Voters(sites["weights"][:, None], np.ones(1), ("everyone",), np.ones((len(votes.annotators), 1)))


@dataclass(frozen=True)
class Hierarchical(AbstractPopulation):
    """Every annotator has weights of their own, drawn from a population: each annotator is a voter.

        centre_scale ~ LogNormal(log scale, 0.8)
        centre[feature] ~ Normal(0, centre_scale)
        spread[feature] ~ LogNormal(log(scale / 2), 0.8)
        weights[annotator, feature] ~ Normal(centre, spread)

    With `group`, annotators scatter about their group, and groups about the centre:

        group_spread[feature] ~ LogNormal(log scale, 0.8)
        group_centre[group, feature] ~ Normal(centre, group_spread)
        weights[annotator, feature] ~ Normal(group_centre[group of annotator], spread)

    An annotator without judgements is a voter too: what is known of it is the population.

    Spreads have log-normal priors, nine tenths between a quarter and four times their median: people are never exactly
    alike, and without a mode at zero the sampler does not diverge (half-normal priors did, at 30 judgements each).

    Args:
        group: annotator attribute whose values have centres of their own; none: one centre for all.
        scale: prior median of the spread of a typical pair's utility differences, in logits.
        response: how utilities become outcomes.
    """

    group: str | None = None
    scale: float = 1.0
    response: Davidson = field(default_factory=Davidson)
    kind: Literal["hierarchical"] = "hierarchical"

    def __post_init__(self):
        _check_scale(self.scale)

    def model(self, layout: Layout) -> None:
        """Write the numpyro model."""
        annotator = numpyro.plate("annotator", layout.annotators, dim=-2)
        group = numpyro.plate("group", layout.groups, dim=-2)
        feature = numpyro.plate("feature", layout.features, dim=-1)
        with feature:
            spread = numpyro.sample("spread", dist.LogNormal(np.log(self.scale / 2), 0.8))
        # `own` and `told` are what the data tell of each level, for `scattered` alone: 1 / told is the variance of the
        # level below about it, own noise included. 1e-6 is for annotators without judgements.
        own = TOLD * layout.information + 1e-6
        told = 1 / (spread**2 + 1 / own)
        if self.group is None:
            mean = self._centre(feature, told.sum(0))
        else:
            told = jax.ops.segment_sum(told, layout.group, layout.groups)
            with feature:
                group_spread = numpyro.sample("group_spread", dist.LogNormal(np.log(self.scale), 0.8))
            centre = self._centre(feature, (1 / (group_spread**2 + 1 / told)).sum(0))
            with group, feature:
                group_centre = scattered("group_centre", centre, group_spread, told)
                numpyro.deterministic("group_centre", group_centre)
            mean = group_centre[layout.group]
        with annotator, feature:
            weights = scattered("weights", mean, spread, own)
            numpyro.deterministic("weights", weights)
        self.response.observe(layout, layout.advantage(weights))

    def _centre(self, feature: Any, told: Any) -> Any:
        scale = numpyro.sample("centre_scale", dist.LogNormal(np.log(self.scale), 0.8))
        with feature:
            centre = scattered("centre", 0.0, scale, told)
            numpyro.deterministic("centre", centre)
        return centre

    def groups(self, votes: Feedback) -> Int[np.ndarray, " annotator"]:
        """Return the groups that `group` names, in alphabetical order."""
        if self.group is None:
            return np.zeros(len(votes.annotators), np.int32)
        return np.unique(votes.attribute(self.group), return_inverse=True)[1].astype(np.int32)

    def voters(self, sites: Draws, votes: Feedback) -> Voters:
        """Return the annotators, in order."""
        mass = np.asarray(votes.annotators["weight"], np.float64)
        if not (mass >= 0).all() or not 0 < mass.sum() < np.inf:
            raise InputError("the annotators' weights must be non-negative and not all zero.")
        return Voters(sites["weights"], mass / mass.sum(), tuple(str(a) for a in votes.annotators["id"]), None)


def _check_scale(scale: float) -> None:
    if not scale > 0:
        raise InputError(f"scale is {scale}; a prior scale in logits is positive.")
