"""Annotators differ along a few directions."""

from dataclasses import dataclass, field
from typing import Any, Literal

import jax.numpy as jnp
import numpy as np
import numpyro
from numpyro import distributions as dist

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
    check_count,
    check_scale,
    feature_plate,
    objective_plate,
    sample_centre,
)
from pluralign.reward.response import Response
from pluralign.reward.scatter import scattered
from pluralign.reward.turn import turned
from pluralign.types import Feedback


@dataclass(frozen=True)
class LowRank(AbstractPopulation):
    """Annotators differ along a few directions: each annotator is a voter, a point in a space of tastes.

        centre_scale ~ LogNormal(log scale, 0.8), centre[objective, feature] ~ Normal(0, centre_scale), or Laplace
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
        centre: law of its prior: `laplace` for interpretable features of which a few matter.
    """

    directions: int = 2
    scale: float = 1.0
    response: Response = field(default_factory=Response)
    items: ItemEffects | None = None
    centre: Law = "normal"
    kind: Literal["low-rank"] = "low-rank"

    def __post_init__(self):
        check_scale(self.scale)
        check_count("directions", self.directions, 1)

    def model(self, layout: Layout) -> None:
        """Write the numpyro model."""
        centre_scale = numpyro.sample("centre_scale", dist.LogNormal(np.log(self.scale), 0.8))
        direction_scale = numpyro.sample("direction_scale", dist.LogNormal(np.log(self.scale / 2), 0.8))
        own = TOLD * layout.information.sum(0)
        centre = sample_centre(layout, self.centre, centre_scale, own / 2)
        with objective_plate(layout), feature_plate(layout):
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

    def named(self, sites: Draws) -> Draws:
        """Return draws whose directions are turned towards their mean."""
        direction = sites["direction"]
        flat = direction.reshape(-1, self.directions, int(np.prod(direction.shape[3:]))).astype(np.float64)
        found = np.einsum("sbc,scf->sbf", turned(flat), flat)
        return sites | {"direction": found.reshape(direction.shape).astype(direction.dtype)}

    def voters(self, sites: Draws, votes: Feedback) -> Voters:
        """Return the annotators, in order."""
        return annotators(sites, votes)
