"""Everyone wants something of their own, drawn from a population."""

from dataclasses import dataclass, field
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
from numpyro import distributions as dist

from pluralign.errors import InputError
from pluralign.reward.inference import Draws
from pluralign.reward.items import ItemEffects
from pluralign.reward.judgements import Layout
from pluralign.reward.noise import Noise
from pluralign.reward.population.base import (
    TOLD,
    AbstractPopulation,
    Law,
    Voters,
    annotators,
    category,
    check_scale,
    feature_plate,
    objective_plate,
    sample_centre,
)
from pluralign.reward.response import Response
from pluralign.reward.scatter import scattered
from pluralign.types import Feedback


@dataclass(frozen=True)
class Hierarchical(AbstractPopulation):
    """Every annotator has weights of their own, drawn from a population: each annotator is a voter.

        centre_scale ~ LogNormal(log scale, 0.8)
        centre[objective, feature] ~ Normal(0, centre_scale), or Laplace(0, centre_scale)
        spread[objective, feature] ~ LogNormal(log(scale / 2), 0.8)
        correlation ~ LKJ(2)                                          of objectives, within an annotator
        weights[annotator, :, feature] ~ Normal(centre, spread correlation spread)

    With `group`, annotators scatter about their group, and groups about the centre; with `covariates`, a regression
    moves what they scatter about (Gelman and Hill 2007, section 13.1):

        group_spread[objective, feature] ~ LogNormal(log scale, 0.8)
        group_centre[group, objective, feature] ~ Normal(centre, group_spread)
        covariate_spread[covariate] ~ LogNormal(log(scale / 2), 0.8)
        effect[column, objective, feature] ~ Normal(0, covariate_spread[covariate of column])
        mean[annotator] = group_centre[group of annotator] + sum_column design[annotator, column] effect[column]

    With `overall`, the objective of this name weighs up the others, everybody in their own way:

        tradeoff_centre[objective] ~ Normal(1 / others, 0.5), tradeoff_spread[objective] ~ LogNormal(log 0.25, 0.8)
        tradeoff[annotator, objective] ~ Normal(tradeoff_centre, tradeoff_spread)
        rest_centre[feature] ~ Normal(0, scale / 2), rest_spread[feature] ~ LogNormal(log(scale / 4), 0.8)
        weights[annotator, overall] = sum_objective tradeoff[annotator, objective] weights[annotator, objective] + rest,
        rest[annotator, feature] ~ Normal(rest_centre, rest_spread)

    Trade-offs want NUTS: a mean-field approximation puts their spread at 0 and all that differs into the rest.

    An annotator without judgements is a voter too: what is known of it is the population.

    Spreads have log-normal priors, nine tenths between a quarter and four times their median: people are never exactly
    alike, and without a mode at zero the sampler does not diverge (half-normal priors did, at 30 judgements each).

    Args:
        group: annotator attribute whose values have centres of their own; none: one centre for all.
        scale: prior median of the spread of a typical pair's utility differences, in logits.
        response: how utilities become outcomes.
        items: what an item is worth beyond its features; none: nothing.
        covariates: annotator attributes that regress the mean; numbers are slopes, anything else levels.
        overall: objective that weighs up the others; none: all are on a par.
        centre: law of its prior: `laplace` for interpretable features of which a few matter.
    """

    group: str | None = None
    scale: float = 1.0
    response: Response = field(default_factory=Response)
    items: ItemEffects | None = None
    covariates: tuple[str, ...] = ()
    overall: str | None = None
    centre: Law = "normal"
    kind: Literal["hierarchical"] = "hierarchical"

    def __post_init__(self):
        check_scale(self.scale)
        if len(set(self.covariates)) < len(self.covariates) or self.group in self.covariates:
            raise InputError(f"covariates are {self.covariates} and group {self.group!r}; name each attribute once.")

    def model(self, layout: Layout) -> None:
        """Write the numpyro model."""
        with objective_plate(layout), feature_plate(layout):
            spread = numpyro.sample("spread", dist.LogNormal(np.log(self.scale / 2), 0.8))
        # `own` and `told` are what the data tell of each level, for `scattered` alone: 1 / told is the variance of the
        # level below about it, own noise included. 1e-6 is for annotators without judgements.
        own = TOLD * layout.information[:, layout.parts] + 1e-6
        told = 1 / (spread**2 + 1 / own)
        mean: Any = self._mean(layout, told)
        if self.covariates:
            mean = mean + self._regression(layout, told)
        weights = self._weights(layout, mean, spread, own)
        if layout.overall is not None:
            overall = self._overall(layout, weights)[:, None]
            weights = jnp.concatenate([weights[:, : layout.overall], overall, weights[:, layout.overall :]], 1)
        weights = numpyro.deterministic("weights", weights)
        numpyro.factor("said", self._said(layout, lambda acts: acts.utility(weights)).sum())

    def _mean(self, layout: Layout, told: Any) -> Any:
        scale = dist.LogNormal(np.log(self.scale), 0.8)
        if self.group is None:
            return sample_centre(layout, self.centre, numpyro.sample("centre_scale", scale), told.sum(0))
        told = jax.ops.segment_sum(told, layout.group, layout.groups)
        with objective_plate(layout), feature_plate(layout):
            spread = numpyro.sample("group_spread", scale)
        above = (1 / (spread**2 + 1 / told)).sum(0)
        centre = sample_centre(layout, self.centre, numpyro.sample("centre_scale", scale), above)
        with numpyro.plate("group", layout.groups, dim=-3), objective_plate(layout), feature_plate(layout):
            group_centre: Any = numpyro.deterministic("group_centre", scattered("group_centre", centre, spread, told))
        return group_centre[layout.group]

    def _regression(self, layout: Layout, told: Any) -> Any:
        with numpyro.plate("covariate", len(self.covariates)):
            scale: Any = numpyro.sample("covariate_spread", dist.LogNormal(np.log(self.scale / 2), 0.8))
        spread = scale[np.array(layout.covariate)][:, None, None]
        told = jnp.einsum("ac,aof->cof", layout.design**2, told)
        with numpyro.plate("column", layout.design.shape[1], dim=-3), objective_plate(layout), feature_plate(layout):
            effect = numpyro.deterministic("effect", scattered("effect", 0.0, spread, told))
        return jnp.einsum("ac,cof->aof", layout.design, effect)

    def _weights(self, layout: Layout, mean: Any, spread: Any, own: Any) -> Any:
        annotator = numpyro.plate("annotator", layout.annotators, dim=-3)
        objectives = len(layout.parts)
        if objectives == 1:
            with annotator, objective_plate(layout), feature_plate(layout):
                return scattered("weights", mean, spread, own)
        # One objective after the other, given those before: `root` is the Cholesky factor of their correlation.
        root: Any = numpyro.sample("objective_root", dist.LKJCholesky(objectives, 2.0))
        numpyro.deterministic("correlation", root @ root.T)
        mean = jnp.broadcast_to(mean, own.shape)
        weights, z = [], []
        for o in range(objectives):
            given = mean[:, o] + spread[o] * sum(root[o, k] * z[k] for k in range(o))
            rest = spread[o] * root[o, o]
            with numpyro.plate("annotator", layout.annotators, dim=-2), feature_plate(layout):
                weights.append(scattered(f"weights_{o}", given, rest, own[:, o]))
            z.append((weights[o] - given) / rest)
        return jnp.stack(weights, 1)

    def _overall(self, layout: Layout, weights: Any) -> Any:
        others = weights.shape[1]
        own = TOLD * layout.information[:, layout.overall]
        annotator = numpyro.plate("annotator", layout.annotators, dim=-2)
        with numpyro.plate("other", others, dim=-1):
            centre = numpyro.sample("tradeoff_centre", dist.Normal(1 / others, 0.5))
            spread = numpyro.sample("tradeoff_spread", dist.LogNormal(np.log(0.25), 0.8))
            with annotator:
                # A judgement of a difference of length 1 tells of a trade-off about as it does of a weight.
                told = self.scale**2 * own.sum(1, keepdims=True)
                tradeoff = numpyro.deterministic("tradeoff", scattered("tradeoff", centre, spread, told))
        with feature_plate(layout):
            rest_centre = numpyro.sample("rest_centre", dist.Normal(0, self.scale / 2))
            rest_spread = numpyro.sample("rest_spread", dist.LogNormal(np.log(self.scale / 4), 0.8))
            with annotator:
                rest = scattered("rest", rest_centre, rest_spread, own)
        return jnp.einsum("ao,aof->af", tradeoff, weights) + rest

    def latents(self, objectives: int, features: int) -> int:
        """Return one per weight of its own, one per trade-off, and one that decides on group and covariates."""
        others = objectives - (self.overall is not None)
        own = others * features + bool(self.group or self.covariates)
        return own + (others + features if self.overall is not None else 0)

    def person(self, common: Noise, z: Any) -> Any:
        """Return weights that scatter about what is expected of somebody with the profile of one of the annotators."""
        mean, spread = common["centre"], common["spread"]
        if self.group or self.covariates:
            profile, z = category(common["profile_share"], z[0]), z[1:]
            if self.group:
                mean = common["group_centre"][common["profile_group"][profile].astype(int)]
            if self.covariates:
                mean = mean + jnp.einsum("c,cof->of", common["profile_design"][profile], common["effect"])
        own, z = z[: spread.size].reshape(spread.shape), z[spread.size :]
        weights = mean + spread * (common["objective_root"] @ own if "objective_root" in common else own)
        if self.overall is None:
            return weights
        tradeoff = common["tradeoff_centre"] + common["tradeoff_spread"] * z[: len(weights)]
        rest = common["rest_centre"] + common["rest_spread"] * z[len(weights) :]
        return jnp.insert(weights, common["overall"].astype(int), tradeoff @ weights + rest, axis=0)

    def voters(self, sites: Draws, votes: Feedback) -> Voters:
        """Return the annotators, in order."""
        return annotators(sites, votes)
