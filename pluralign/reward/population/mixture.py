"""Annotators are of a few kinds."""

from dataclasses import dataclass, field
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
from jaxtyping import Float, Int
from numpyro import distributions as dist
from scipy.optimize import linear_sum_assignment

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
    category,
    check_count,
    check_no_factors,
    check_scale,
    feature_plate,
    mass_of,
    objective_plate,
    sample_centre,
)
from pluralign.reward.response import Response
from pluralign.reward.scatter import scattered
from pluralign.types import Feedback


@dataclass(frozen=True)
class Mixture(AbstractPopulation):
    """Annotators are of a few kinds: each kind is a voter, its mass the share of annotators that are of it.

        mass ~ Dirichlet(concentration)
        with `sticks`: mass[k] = v[k] prod_{j<k} (1 - v[j]), v ~ Beta(1, concentration)
        centre_scale ~ LogNormal(log scale, 0.8), centre[objective, feature] ~ Normal(0, centre_scale), or Laplace
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
        centre: law of what the kinds scatter about: `laplace` for interpretable features of which a few matter.
    """

    components: int = 3
    sticks: bool = False
    concentration: float = 1.0
    scale: float = 1.0
    response: Response = field(default_factory=Response)
    items: ItemEffects | None = None
    centre: Law = "normal"
    kind: Literal["mixture"] = "mixture"

    def __post_init__(self):
        check_scale(self.scale)
        check_count("components", self.components, 1)
        check_no_factors(self.items)
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
        told = self.components / (spread**2 + 1 / (own + 1e-6))
        centre = sample_centre(layout, self.centre, scale, told)
        with objective_plate(layout), feature_plate(layout):
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
        return common["kind_weights"][category(common["mass"], z[0])]

    def named(self, sites: Draws) -> Draws:
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
        return Voters(sites["kind_weights"], mass_of(votes) @ membership, names, membership)


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
