"""What is assumed of the people behind the judgements."""

import dataclasses
import warnings
from abc import ABC, abstractmethod
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import jax.numpy as jnp
import numpy as np
import numpyro
from jax.scipy.special import ndtr
from jaxtyping import Float, Int
from numpyro import distributions as dist

from pluralign.errors import ConvergenceWarning, InputError
from pluralign.reward.comparison import GradedComparison
from pluralign.reward.design import Design
from pluralign.reward.identify import identify
from pluralign.reward.inference import NUTS, AbstractInference, Draws
from pluralign.reward.items import ItemEffects, advantage
from pluralign.reward.judgements import PAIRS, Judgements, Layout
from pluralign.reward.noise import RATER, Noise
from pluralign.reward.response import Response
from pluralign.reward.scatter import scattered
from pluralign.types import Features, Feedback, FitReport, RewardPosterior

OWN = {"weights", "membership", "quality", "log_temperature", "log_threshold", "tradeoff", "place", *RATER}
"""Sites with an entry per annotator or item; all others are `RewardPosterior.common`."""

Law = Literal["normal", "laplace"]
"""How the centre scatters about 0: `laplace` has most weights near 0 and a few large ones (Park and Casella 2008)."""

TOLD = 0.015
"""Precision about a weight in a squared difference, about: only how well chains mix depends on it."""


@dataclass(frozen=True, eq=False)
class Voters:
    """Whoever a rule counts: the part of `RewardPosterior` that depends on the population."""

    weights: Float[np.ndarray, "draw voter objective feature"]
    mass: Float[np.ndarray, " voter"]
    names: tuple[str, ...]
    membership: Float[np.ndarray, "annotator voter"] | None
    own: dict[str, Float[np.ndarray, "draw voter ..."]] = field(default_factory=dict)


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

    response: Response
    items: ItemEffects | None
    group: str | None = None
    """Annotator attribute that the model looks at; none, unless a population has a field of this name."""
    covariates: tuple[str, ...] = ()
    """Further ones; none, unless a population has a field of this name."""
    overall: str | None = None
    """Objective that weighs up the others; none, unless a population has a field of this name."""

    @abstractmethod
    def model(self, layout: Layout) -> None:
        """Write the numpyro model, one `numpyro.sample` per node of its plate diagram."""

    @abstractmethod
    def voters(self, sites: Draws, votes: Feedback) -> Voters:
        """Return the voters from draws of the model's sites."""

    @abstractmethod
    def latents(self, objectives: int, features: int) -> int:
        """Return how many independent standard normals make a person of this population."""

    @abstractmethod
    def person(self, common: Noise, z: Any) -> Any:
        """Return the weights `[objective feature]` of the person that `z` stands for, in one draw of the population.

        Args:
            common: one draw of `RewardPosterior.common`.
            z: `[latent]`; drawn from independent standard normals it is somebody nobody has met.
        """

    def groups(self, votes: Feedback) -> Int[np.ndarray, " annotator"]:
        """Return the index of each annotator's group among those that `group` names, in alphabetical order."""
        if self.group is None:
            return np.zeros(len(votes.annotators), np.int32)
        return np.unique(votes.attribute(self.group), return_inverse=True)[1].astype(np.int32)

    def layout(self, votes: Feedback, judgements: Judgements) -> Layout:
        """Return everything that the model looks at.

        Raises:
            InputError: an attribute or objective that the model names is not there.
        """
        overall = None
        if self.overall is not None:
            if self.overall not in judgements.objectives or len(judgements.objectives) < 2:
                raise InputError(
                    f"overall is {self.overall!r}; it must be one of several objectives, and the feedback has "
                    f"{', '.join(judgements.objectives)}."
                )
            overall = judgements.objectives.index(self.overall)
        return Layout.of(judgements, self.groups(votes), Design.of(votes, self.covariates), overall)

    def named(self, sites: Draws) -> Draws:
        """Return draws `[chain draw ...]` of the population with names that mean the same in all; here they do."""
        return sites

    def canonical(self, sites: Draws) -> Draws:
        """Return draws `[chain draw ...]` with names that mean the same in all."""
        sites = self.named(sites)
        return sites if self.items is None else self.items.canonical(sites)

    def fit(
        self, votes: Feedback, phi: Features, *, inference: AbstractInference | None = None, seed: int = 0
    ) -> RewardPosterior:
        """Infer the posterior of every voter's weights.

        Comparisons, rankings and grades inform one posterior; every objective has weights of its own. The same
        arguments give the same draws on the same machine and versions.

        Args:
            votes: judgements of any form.
            phi: features of the items of `votes`.
            inference: how; default `NUTS()`.
            seed: of the draws.

        Returns:
            The posterior; `fit.caveats` says what is wrong with it, in sentences, and is empty if nothing is.

        Raises:
            InputError: there is no judgement, or the features are those of other items.
            FitError: the draws are not finite.

        Warns:
            ConvergenceWarning: there are caveats.
        """
        judgements = Judgements.read(votes, phi)
        layout = self.layout(votes, judgements)
        sites, report = (inference or NUTS()).infer(Target(self, layout), seed, self.canonical)
        told = identify(votes, judgements, self)
        notes = (*report.notes, *phi.notes, *_notes(votes, judgements, self.response), *told.notes)
        report = replace(report, notes=notes, caveats=(*report.caveats, *told.caveats))
        if report.caveats:
            warnings.warn(" ".join(report.caveats), ConvergenceWarning, stacklevel=2)
        return self.posterior(sites, votes, phi, judgements.unit, report)

    def posterior(
        self, sites: Draws, votes: Feedback, phi: Features, unit: float, report: FitReport
    ) -> RewardPosterior:
        """Return draws of the model's sites as a posterior; `unit` is that of the judgements."""
        voters = self.voters(sites, votes)
        rater = self.response.rater_of(sites, len(votes.annotators))
        design = Design.of(votes, self.covariates)
        profile = np.column_stack([self.groups(votes), design.value])
        profile, count = np.unique(profile, axis=0, return_counts=True)
        beside = {
            "unit": np.float32(unit),
            "profile_share": (count / count.sum()).astype(np.float32),
            "profile_group": profile[:, 0].astype(np.int32),
            "profile_design": profile[:, 1:].astype(np.float32),
        }
        if self.overall is not None:
            beside["overall"] = np.int32(votes.objectives.index(self.overall))
        draws = len(voters.weights)
        common = {name: np.broadcast_to(value, (draws, *value.shape)) for name, value in beside.items()}
        common |= {name: value.astype(np.float32) for name, value in sites.items() if name not in OWN}
        return RewardPosterior(
            weights=(voters.weights / unit).astype(np.float32),
            mass=voters.mass,
            voters=voters.names,
            membership=voters.membership,
            rater=rater,
            features=phi.names,
            fit=report,
            objectives=votes.objectives,
            quality=sites["quality"].astype(np.float32) if "quality" in sites else None,
            common=common,
            own={name: value.astype(np.float32) for name, value in voters.own.items()},
            covariates=design.names,
            model=dataclasses.asdict(self),  # pyright: ignore[reportArgumentType]
        )

    def _said(self, layout: Layout, taste: Any) -> Any:
        """Write the model from tastes to what was said; return its log likelihood per annotator.

        Args:
            layout: the data.
            taste: from acts to the part of their utility that features explain, `[... act (slot)]`.
        """
        if self.items is None:
            return self.response.log_likelihood(layout, taste)
        items = self.items.sample(layout)
        return self.response.log_likelihood(layout, lambda acts: taste(acts) + advantage(acts, items))


def _notes(votes: Feedback, judgements: Judgements, response: Response) -> list[str]:
    notes = [f"Priors are per {judgements.unit:.4g} units of feature, the root mean square length of a difference."]
    if PAIRS in judgements.blocks and not judgements.ties:
        notes.append("The feedback holds no tie, so ties are impossible in the model: plain Bradley-Terry.")
    if votes.choices.strength.any() and not isinstance(response.pairs, GradedComparison):
        stated = int((votes.choices.strength > 0).sum())
        notes.append(
            f"{stated:,} judgements say how strongly; the model takes only which response is preferred. "
            "`Response(pairs=GradedComparison())` takes both."
        )
    if judgements.demonstrations:
        notes.append(f"{judgements.demonstrations:,} demonstrations show one response alone; they were not used.")
    return notes


def category(share: Any, z: Any) -> Any:
    """Return the category that a standard normal `z` stands for: its quantile among the shares, the first lowest."""
    return jnp.minimum(jnp.searchsorted(jnp.cumsum(share), ndtr(z)), share.shape[0] - 1)


def objective_plate(layout: Layout) -> Any:
    """Return the plate of the objectives that do not weigh up others."""
    return numpyro.plate("objective", len(layout.parts), dim=-2)


def sample_centre(layout: Layout, law: Law, scale: Any, told: Any) -> Any:
    """Write the model of what people want on average, `centre[objective, feature]`.

        normal:   centre ~ Normal(0, scale)
        laplace:  centre ~ Laplace(0, scale), as Normal(0, scale (2 centre_local)^(1/2)), centre_local ~ Exponential(1)

    Args:
        layout: the data.
        law: of the prior.
        scale: of the prior.
        told: precision of what the level below tells of it, see `scattered`.
    """
    with objective_plate(layout), feature_plate(layout):
        if law == "laplace":
            scale = scale * jnp.sqrt(2 * numpyro.sample("centre_local", dist.Exponential(1.0)))
        return numpyro.deterministic("centre", scattered("centre", 0.0, scale, told))


def feature_plate(layout: Layout) -> Any:
    """Return the plate of features."""
    return numpyro.plate("feature", layout.features, dim=-1)


def annotators(sites: Draws, votes: Feedback) -> Voters:
    """Return the annotators as voters, in order, with the mass that their weights give them."""
    own = {name: sites[name] for name in ("tradeoff", "place") if name in sites}
    return Voters(sites["weights"], mass_of(votes), tuple(str(a) for a in votes.annotators["id"]), None, own)


def mass_of(votes: Feedback) -> Float[np.ndarray, " annotator"]:
    """Return the annotators' weights as shares."""
    mass = np.asarray(votes.annotators["weight"], np.float64)
    if not (mass >= 0).all() or not 0 < mass.sum() < np.inf:
        raise InputError("the annotators' weights must be non-negative and not all zero.")
    return mass / mass.sum()


def check_scale(scale: float) -> None:
    """Raise unless a prior scale is positive."""
    if not scale > 0:
        raise InputError(f"scale is {scale}; a prior scale in logits is positive.")


def check_no_factors(items: ItemEffects | None) -> None:
    """Raise if items have factors, where annotators have no place of their own."""
    if items is not None and items.factors:
        raise InputError(
            f"items have {items.factors} factors, which are tastes of annotators; use Hierarchical or LowRank, whose "
            "voters are the annotators, or `factors=0`."
        )


def check_count(name: str, value: int, least: int) -> None:
    """Raise if a count is below the least that makes sense."""
    if value < least:
        raise InputError(f"{name} is {value}; it must be at least {least}.")
