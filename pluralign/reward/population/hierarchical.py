"""Everyone wants something of their own, drawn from a population."""

from dataclasses import dataclass, field
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
from numpyro import distributions as dist

from pluralign.reward.inference import Draws
from pluralign.reward.items import ItemEffects
from pluralign.reward.judgements import Layout
from pluralign.reward.population.base import (
    TOLD,
    AbstractPopulation,
    Voters,
    annotators,
    category,
    check_scale,
    feature_plate,
    objective_plate,
)
from pluralign.reward.response import Noise, Response
from pluralign.reward.scatter import scattered
from pluralign.types import Feedback


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
        check_scale(self.scale)

    def model(self, layout: Layout) -> None:
        """Write the numpyro model."""
        with objective_plate(layout), feature_plate(layout):
            spread = numpyro.sample("spread", dist.LogNormal(np.log(self.scale / 2), 0.8))
        # `own` and `told` are what the data tell of each level, for `scattered` alone: 1 / told is the variance of the
        # level below about it, own noise included. 1e-6 is for annotators without judgements.
        own = TOLD * layout.information + 1e-6
        told = 1 / (spread**2 + 1 / own)
        if self.group is None:
            mean = self._centre(layout, told.sum(0))
        else:
            told = jax.ops.segment_sum(told, layout.group, layout.groups)
            with objective_plate(layout), feature_plate(layout):
                group_spread = numpyro.sample("group_spread", dist.LogNormal(np.log(self.scale), 0.8))
            centre = self._centre(layout, (1 / (group_spread**2 + 1 / told)).sum(0))
            with numpyro.plate("group", layout.groups, dim=-3), objective_plate(layout), feature_plate(layout):
                group_centre = scattered("group_centre", centre, group_spread, told)
                numpyro.deterministic("group_centre", group_centre)
            mean = group_centre[layout.group]
        weights = numpyro.deterministic("weights", self._weights(layout, mean, spread, own))
        numpyro.factor("said", self._said(layout, lambda acts: acts.utility(weights)).sum())

    def _centre(self, layout: Layout, told: Any) -> Any:
        scale = numpyro.sample("centre_scale", dist.LogNormal(np.log(self.scale), 0.8))
        with objective_plate(layout), feature_plate(layout):
            return numpyro.deterministic("centre", scattered("centre", 0.0, scale, told))

    def _weights(self, layout: Layout, mean: Any, spread: Any, own: Any) -> Any:
        annotator = numpyro.plate("annotator", layout.annotators, dim=-3)
        if layout.objectives == 1:
            with annotator, objective_plate(layout), feature_plate(layout):
                return scattered("weights", mean, spread, own)
        # One objective after the other, given those before: `root` is the Cholesky factor of their correlation.
        root: Any = numpyro.sample("objective_root", dist.LKJCholesky(layout.objectives, 2.0))
        numpyro.deterministic("correlation", root @ root.T)
        mean = jnp.broadcast_to(mean, own.shape)
        weights, z = [], []
        for o in range(layout.objectives):
            given = mean[:, o] + spread[o] * sum(root[o, k] * z[k] for k in range(o))
            rest = spread[o] * root[o, o]
            with numpyro.plate("annotator", layout.annotators, dim=-2), feature_plate(layout):
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
            mean, z = common["group_centre"][category(common["group_share"], z[0])], z[1:]
        z = z.reshape(spread.shape)
        return mean + spread * (common["objective_root"] @ z if "objective_root" in common else z)

    def voters(self, sites: Draws, votes: Feedback) -> Voters:
        """Return the annotators, in order."""
        return annotators(sites, votes)
