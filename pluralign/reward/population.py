"""What is assumed of the people behind the judgements."""

import dataclasses
import warnings
from abc import ABC, abstractmethod
from dataclasses import dataclass, field, replace
from typing import Annotated, Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
from jax.scipy.special import ndtr
from jaxtyping import Float, Int
from numpyro import distributions as dist
from pydantic import Field
from scipy.optimize import linear_sum_assignment

from pluralign.errors import ConvergenceWarning, InputError
from pluralign.reward.inference import NUTS, AbstractInference, Draws
from pluralign.reward.items import ItemEffects, advantage
from pluralign.reward.judgements import PAIRS, Judgements, Layout
from pluralign.reward.response import RATER, Noise, Response
from pluralign.reward.scatter import scattered
from pluralign.types import Features, Feedback, FitReport, RewardPosterior

OWN = {"weights", "membership", "quality", "log_temperature", "log_threshold", *RATER}
"""Sites with an entry per annotator or item; all others are `RewardPosterior.common`."""

TOLD = 0.015
"""Precision about a weight in a squared difference, about: only how well chains mix depends on it."""


@dataclass(frozen=True, eq=False)
class Voters:
    """Whoever a rule counts: the part of `RewardPosterior` that depends on the population."""

    weights: Float[np.ndarray, "draw voter objective feature"]
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

    response: Response
    items: ItemEffects | None
    group: str | None = None
    """Annotator attribute that the model looks at; none, unless a population has a field of this name."""

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

    def canonical(self, sites: Draws) -> Draws:
        """Return draws `[chain draw ...]` with names that mean the same in all; here they do already."""
        return sites

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
        layout = Layout.of(judgements, self.groups(votes))
        sites, report = (inference or NUTS()).infer(Target(self, layout), seed, self.canonical)
        report = replace(report, notes=(*report.notes, *_notes(votes, judgements)))
        if report.caveats:
            warnings.warn(" ".join(report.caveats), ConvergenceWarning, stacklevel=2)
        return self.posterior(sites, votes, phi, judgements.unit, report)

    def posterior(
        self, sites: Draws, votes: Feedback, phi: Features, unit: float, report: FitReport
    ) -> RewardPosterior:
        """Return draws of the model's sites as a posterior; `unit` is that of the judgements."""
        voters = self.voters(sites, votes)
        rater = self.response.rater_of(sites, len(votes.annotators))
        share = np.bincount(self.groups(votes)) / len(votes.annotators)
        beside = {"unit": np.float32(unit), "group_share": share.astype(np.float32)}
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
        quality = self.items.sample(layout)
        return self.response.log_likelihood(layout, lambda acts: taste(acts) + advantage(acts, quality))


def _notes(votes: Feedback, judgements: Judgements) -> list[str]:
    notes = [f"Priors are per {judgements.unit:.4g} units of feature, the root mean square length of a difference."]
    if PAIRS in judgements.blocks and not judgements.ties:
        notes.append("The feedback holds no tie, so ties are impossible in the model: plain Bradley-Terry.")
    if votes.choices.strength.any():
        stated = int((votes.choices.strength > 0).sum())
        notes.append(f"{stated:,} judgements say how strongly; the model takes only which response is preferred.")
    if judgements.demonstrations:
        notes.append(f"{judgements.demonstrations:,} demonstrations show one response alone; they were not used.")
    return notes


@dataclass(frozen=True)
class Pooled(AbstractPopulation):
    """Everyone wants the same: one weight vector, one voter.

        spread ~ LogNormal(log scale, 0.8)
        w[objective, feature] ~ Normal(0, spread)

    With `response=reward.PLAIN` it is the pooled Bradley-Terry model that most pipelines fit, with a prior in place of
    a penalty.

    Args:
        scale: prior median of the spread of a typical pair's utility differences, in logits.
        response: how utilities become outcomes.
        items: what an item is worth beyond its features; none: nothing.
    """

    scale: float = 1.0
    response: Response = field(default_factory=Response)
    items: ItemEffects | None = None
    kind: Literal["pooled"] = "pooled"

    def __post_init__(self):
        _check_scale(self.scale)

    def model(self, layout: Layout) -> None:
        """Write the numpyro model."""
        spread = numpyro.sample("spread", dist.LogNormal(np.log(self.scale), 0.8))
        with _objective(layout), _feature(layout):
            centre = numpyro.deterministic("centre", scattered("centre", 0.0, spread, TOLD * layout.information.sum(0)))
        numpyro.factor("said", self._said(layout, lambda acts: acts.shared(centre)).sum())

    def latents(self, objectives: int, features: int) -> int:
        """Return 0: all are alike."""
        return 0

    def person(self, common: Noise, z: Any) -> Any:
        """Return the weights that everybody has."""
        return common["centre"]

    def voters(self, sites: Draws, votes: Feedback) -> Voters:
        """Return the one voter, to whom every annotator belongs."""
        return Voters(sites["centre"][:, None], np.ones(1), ("everyone",), np.ones((len(votes.annotators), 1)))


@dataclass(frozen=True)
class Hierarchical(AbstractPopulation):
    """Every annotator has weights of their own, drawn from a population: each annotator is a voter.

        centre_scale ~ LogNormal(log scale, 0.8)
        centre[objective, feature] ~ Normal(0, centre_scale)
        spread[objective, feature] ~ LogNormal(log(scale / 2), 0.8)
        correlation ~ LKJ(2)                                          of objectives, within an annotator
        weights[annotator, :, feature] ~ Normal(centre, spread correlation spread)

    With `group`, annotators scatter about their group, and groups about the centre:

        group_spread[objective, feature] ~ LogNormal(log scale, 0.8)
        group_centre[group, objective, feature] ~ Normal(centre, group_spread)
        weights[annotator, :, feature] ~ Normal(group_centre[group of annotator], spread correlation spread)

    An annotator without judgements is a voter too: what is known of it is the population.

    Spreads have log-normal priors, nine tenths between a quarter and four times their median: people are never exactly
    alike, and without a mode at zero the sampler does not diverge (half-normal priors did, at 30 judgements each).

    Args:
        group: annotator attribute whose values have centres of their own; none: one centre for all.
        scale: prior median of the spread of a typical pair's utility differences, in logits.
        response: how utilities become outcomes.
        items: what an item is worth beyond its features; none: nothing.
    """

    group: str | None = None
    scale: float = 1.0
    response: Response = field(default_factory=Response)
    items: ItemEffects | None = None
    kind: Literal["hierarchical"] = "hierarchical"

    def __post_init__(self):
        _check_scale(self.scale)

    def model(self, layout: Layout) -> None:
        """Write the numpyro model."""
        with _objective(layout), _feature(layout):
            spread = numpyro.sample("spread", dist.LogNormal(np.log(self.scale / 2), 0.8))
        # `own` and `told` are what the data tell of each level, for `scattered` alone: 1 / told is the variance of the
        # level below about it, own noise included. 1e-6 is for annotators without judgements.
        own = TOLD * layout.information + 1e-6
        told = 1 / (spread**2 + 1 / own)
        if self.group is None:
            mean = self._centre(layout, told.sum(0))
        else:
            told = jax.ops.segment_sum(told, layout.group, layout.groups)
            with _objective(layout), _feature(layout):
                group_spread = numpyro.sample("group_spread", dist.LogNormal(np.log(self.scale), 0.8))
            centre = self._centre(layout, (1 / (group_spread**2 + 1 / told)).sum(0))
            with numpyro.plate("group", layout.groups, dim=-3), _objective(layout), _feature(layout):
                group_centre = scattered("group_centre", centre, group_spread, told)
                numpyro.deterministic("group_centre", group_centre)
            mean = group_centre[layout.group]
        weights = numpyro.deterministic("weights", self._weights(layout, mean, spread, own))
        numpyro.factor("said", self._said(layout, lambda acts: acts.utility(weights)).sum())

    def _centre(self, layout: Layout, told: Any) -> Any:
        scale = numpyro.sample("centre_scale", dist.LogNormal(np.log(self.scale), 0.8))
        with _objective(layout), _feature(layout):
            return numpyro.deterministic("centre", scattered("centre", 0.0, scale, told))

    def _weights(self, layout: Layout, mean: Any, spread: Any, own: Any) -> Any:
        annotator = numpyro.plate("annotator", layout.annotators, dim=-3)
        if layout.objectives == 1:
            with annotator, _objective(layout), _feature(layout):
                return scattered("weights", mean, spread, own)
        # One objective after the other, given those before: `root` is the Cholesky factor of their correlation.
        root: Any = numpyro.sample("objective_root", dist.LKJCholesky(layout.objectives, 2.0))
        numpyro.deterministic("correlation", root @ root.T)
        mean = jnp.broadcast_to(mean, own.shape)
        weights, z = [], []
        for o in range(layout.objectives):
            given = mean[:, o] + spread[o] * sum(root[o, k] * z[k] for k in range(o))
            rest = spread[o] * root[o, o]
            with numpyro.plate("annotator", layout.annotators, dim=-2), _feature(layout):
                weights.append(scattered(f"weights_{o}", given, rest, own[:, o]))
            z.append((weights[o] - given) / rest)
        return jnp.stack(weights, 1)

    def latents(self, objectives: int, features: int) -> int:
        """Return one per weight, and one that decides on the group."""
        return objectives * features + (self.group is not None)

    def person(self, common: Noise, z: Any) -> Any:
        """Return weights that scatter about the centre, or about that of a group drawn by its share of annotators."""
        mean, spread = common["centre"], common["spread"]
        if self.group is not None:
            mean, z = common["group_centre"][_category(common["group_share"], z[0])], z[1:]
        z = z.reshape(spread.shape)
        return mean + spread * (common["objective_root"] @ z if "objective_root" in common else z)

    def voters(self, sites: Draws, votes: Feedback) -> Voters:
        """Return the annotators, in order."""
        return _annotators(sites, votes)


@dataclass(frozen=True)
class LowRank(AbstractPopulation):
    """Annotators differ along a few directions: each annotator is a voter, a point in a space of tastes.

        centre_scale ~ LogNormal(log scale, 0.8), centre[objective, feature] ~ Normal(0, centre_scale)
        direction_scale ~ LogNormal(log(scale / 2), 0.8)
        direction[b, objective, feature] ~ Normal(0, direction_scale)
        weights[annotator] = centre + sum_b place[annotator, b] direction[b],    place[annotator, b] ~ Normal(0, 1)

    An ideal-point model with linear utilities: a probabilistic principal-component analysis of tastes (Tipping and
    Bishop 1999) seen through judgements. Directions are known up to a rotation; `direction` is reported turned so that
    every draw is as near as possible to the mean one (orthogonal Procrustes).

    Args:
        directions: how many.
        scale: prior median of the spread of a typical pair's utility differences, in logits.
        response: how utilities become outcomes.
        items: what an item is worth beyond its features; none: nothing.
    """

    directions: int = 2
    scale: float = 1.0
    response: Response = field(default_factory=Response)
    items: ItemEffects | None = None
    kind: Literal["low-rank"] = "low-rank"

    def __post_init__(self):
        _check_scale(self.scale)
        _check_count("directions", self.directions, 1)

    def model(self, layout: Layout) -> None:
        """Write the numpyro model."""
        centre_scale = numpyro.sample("centre_scale", dist.LogNormal(np.log(self.scale), 0.8))
        direction_scale = numpyro.sample("direction_scale", dist.LogNormal(np.log(self.scale / 2), 0.8))
        own = TOLD * layout.information.sum(0)
        with _objective(layout), _feature(layout):
            centre = numpyro.deterministic("centre", scattered("centre", 0.0, centre_scale, own / 2))
            with numpyro.plate("taste", self.directions, dim=-3):
                direction = scattered("direction", 0.0, direction_scale, own / 2)
        numpyro.deterministic("direction", direction)
        with numpyro.plate("annotator", layout.annotators, dim=-2), numpyro.plate("taste", self.directions, dim=-1):
            place = numpyro.sample("place_z", dist.Normal(0, 1))
        weights = numpyro.deterministic("weights", centre + jnp.einsum("ab,bof->aof", place, direction))
        numpyro.factor("said", self._said(layout, lambda acts: acts.utility(weights)).sum())

    def latents(self, objectives: int, features: int) -> int:
        """Return one per direction."""
        return self.directions

    def person(self, common: Noise, z: Any) -> Any:
        """Return the weights at the place `z`."""
        return common["centre"] + jnp.einsum("b,bof->of", z, common["direction"])

    def canonical(self, sites: Draws) -> Draws:
        """Return draws whose directions are turned towards their mean."""
        direction = sites["direction"]
        flat = direction.reshape(-1, self.directions, int(np.prod(direction.shape[3:]))).astype(np.float64)
        turned = flat
        for step in range(5):
            toward = turned.mean(0) if step else flat[-1]
            left, _, right = np.linalg.svd(np.einsum("bf,scf->sbc", toward, flat))
            turned = np.einsum("sbc,scf->sbf", left @ right, flat)
        return sites | {"direction": turned.reshape(direction.shape).astype(direction.dtype)}

    def voters(self, sites: Draws, votes: Feedback) -> Voters:
        """Return the annotators, in order."""
        return _annotators(sites, votes)


@dataclass(frozen=True)
class Mixture(AbstractPopulation):
    """Annotators are of a few kinds: each kind is a voter, its mass the share of annotators that are of it.

        mass ~ Dirichlet(concentration)
        with `sticks`: mass[k] = v[k] prod_{j<k} (1 - v[j]), v ~ Beta(1, concentration)
        centre_scale ~ LogNormal(log scale, 0.8), centre[objective, feature] ~ Normal(0, centre_scale)
        spread ~ LogNormal(log scale, 0.8)
        kind_weights[k, objective, feature] ~ Normal(centre, spread)
        P(all that an annotator said) = sum_k mass[k] P(all that it said | kind_weights[k])

    The sum makes membership a posterior probability per annotator, not a sampled number. Components have no names:
    every draw's are put into the order in which memberships agree best with their mean (Stephens 2000, algorithm 2,
    with squared error), and that order is by falling mass. Mixtures of rankings are not identified from one judgement
    per annotator (Zhao, Piech and Xia 2016).

    Args:
        components: how many kinds; with `sticks` at most so many.
        sticks: truncated stick-breaking prior (Ishwaran and James 2001): kinds that are not needed get mass near 0.
        concentration: of the prior of the masses.
        scale: prior median of the spread of a typical pair's utility differences, in logits.
        response: how utilities become outcomes.
        items: what an item is worth beyond its features; none: nothing.
    """

    components: int = 3
    sticks: bool = False
    concentration: float = 1.0
    scale: float = 1.0
    response: Response = field(default_factory=Response)
    items: ItemEffects | None = None
    kind: Literal["mixture"] = "mixture"

    def __post_init__(self):
        _check_scale(self.scale)
        _check_count("components", self.components, 1)
        if not self.concentration > 0:
            raise InputError(f"concentration is {self.concentration}; it must be positive.")

    def model(self, layout: Layout) -> None:
        """Write the numpyro model."""
        if self.components == 1:
            log_mass = jnp.zeros(1)
        elif self.sticks:
            stick = dist.Beta(1.0, self.concentration).expand([self.components - 1]).to_event(1)
            v = jnp.append(numpyro.sample("stick", stick), 1.0)
            log_mass = jnp.log(v) + jnp.append(0.0, jnp.cumsum(jnp.log1p(-v[:-1])))
        else:
            mass = numpyro.sample("mass_", dist.Dirichlet(jnp.full(self.components, self.concentration)))
            log_mass = jnp.log(mass)
        scale = numpyro.sample("centre_scale", dist.LogNormal(np.log(self.scale), 0.8))
        spread = numpyro.sample("spread", dist.LogNormal(np.log(self.scale), 0.8))
        own = TOLD * layout.information.sum(0) / self.components
        with _objective(layout), _feature(layout):
            told = self.components / (spread**2 + 1 / (own + 1e-6))
            centre = numpyro.deterministic("centre", scattered("centre", 0.0, scale, told))
            with numpyro.plate("component", self.components, dim=-3):
                weights = scattered("kind_weights", centre, spread, own)
        said = self._said(layout, lambda acts: acts.shared(weights)) + log_mass[:, None]
        numpyro.factor("said", jax.nn.logsumexp(said, 0).sum())
        numpyro.deterministic("kind_weights", weights)
        numpyro.deterministic("mass", jnp.exp(log_mass))
        numpyro.deterministic("membership", jax.nn.softmax(said, 0).T)

    def latents(self, objectives: int, features: int) -> int:
        """Return 1, which decides on the kind."""
        return 1

    def person(self, common: Noise, z: Any) -> Any:
        """Return the weights of a kind drawn by its mass."""
        return common["kind_weights"][_category(common["mass"], z[0])]

    def canonical(self, sites: Draws) -> Draws:
        """Return draws whose components are in one order."""
        lead = sites["mass"].shape[:2]
        labelled = ("mass", "membership", "kind_weights")
        flat = {name: sites[name].reshape(-1, *sites[name].shape[2:]) for name in labelled}
        order = _agreeing(flat["membership"])
        mass = np.take_along_axis(flat["mass"], order, 1)
        order = order[:, np.argsort(-mass.mean(0), kind="stable")]
        turned = {
            "mass": np.take_along_axis(flat["mass"], order, 1),
            "membership": np.take_along_axis(flat["membership"], order[:, None], 2),
            "kind_weights": np.take_along_axis(flat["kind_weights"], order[:, :, None, None], 1),
        }
        rest = {name: value for name, value in sites.items() if name not in ("stick", "mass_")}
        return rest | {name: value.reshape(*lead, *value.shape[1:]) for name, value in turned.items()}

    def voters(self, sites: Draws, votes: Feedback) -> Voters:
        """Return the components; their mass is that of their members, each counted with its weight."""
        membership = sites["membership"].mean(0).astype(np.float64)
        membership /= membership.sum(1, keepdims=True)
        names = tuple(f"kind {k + 1}" for k in range(self.components))
        return Voters(sites["kind_weights"], _mass(votes) @ membership, names, membership)


def _agreeing(membership: Float[np.ndarray, "draw annotator component"]) -> Int[np.ndarray, "draw component"]:
    """Return, per draw, the order of components in which memberships agree best with their mean over draws."""
    toward = membership[-1].astype(np.float64)
    order = np.zeros((len(membership), toward.shape[1]), int)
    for _ in range(10):
        before = order.copy()
        cost = -np.einsum("ak,saj->skj", toward, membership, optimize=True)
        for s, c in enumerate(cost):
            order[s] = linear_sum_assignment(c)[1]
        toward = np.take_along_axis(membership, order[:, None], 2).mean(0)
        if (order == before).all():
            break
    return order


Population = Annotated[Pooled | Hierarchical | Mixture | LowRank, Field(discriminator="kind")]


def _category(share: Any, z: Any) -> Any:
    """Return the category that a standard normal `z` stands for: its quantile among the shares, the first lowest."""
    return jnp.minimum(jnp.searchsorted(jnp.cumsum(share), ndtr(z)), share.shape[0] - 1)


def _objective(layout: Layout) -> Any:
    return numpyro.plate("objective", layout.objectives, dim=-2)


def _feature(layout: Layout) -> Any:
    return numpyro.plate("feature", layout.features, dim=-1)


def _annotators(sites: Draws, votes: Feedback) -> Voters:
    return Voters(sites["weights"], _mass(votes), tuple(str(a) for a in votes.annotators["id"]), None)


def _mass(votes: Feedback) -> Float[np.ndarray, " annotator"]:
    mass = np.asarray(votes.annotators["weight"], np.float64)
    if not (mass >= 0).all() or not 0 < mass.sum() < np.inf:
        raise InputError("the annotators' weights must be non-negative and not all zero.")
    return mass / mass.sum()


def _check_scale(scale: float) -> None:
    if not scale > 0:
        raise InputError(f"scale is {scale}; a prior scale in logits is positive.")


def _check_count(name: str, value: int, least: int) -> None:
    if value < least:
        raise InputError(f"{name} is {value}; it must be at least {least}.")
