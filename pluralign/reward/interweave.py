"""Centres and spreads of a population moved at once, with people's places in it kept."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from pluralign.reward.chain import Chain, Frozen, above, accepts, angle, value_of
from pluralign.reward.em import by_group
from pluralign.reward.roots import solve, solve_triangular
from pluralign.reward.surrogate import LOG_SCALE, Problem, answer

TURNS = 4
"""How often in a sweep, of up to `CHEAP` judgements: there a turn costs little beside the rest of the sweep."""

CHEAP = 20_000


def interweave(problem: Problem, frozen: Frozen, chain: Chain, key: Any) -> tuple[Chain, Any]:
    """Move every annotator within the population, and then the population with everybody in it; several times."""

    def turn(chain: Chain, key: Any) -> tuple[Chain, Any]:
        own, common = jax.random.split(key)
        return move_population(problem, frozen, move_within(problem, chain, own), common)

    turns = TURNS if len(chain.advantage) <= CHEAP else 1
    chain, rates = jax.lax.scan(turn, chain, jax.random.split(key, turns))
    return chain, rates.mean()


def move_within(problem: Problem, chain: Chain, key: Any) -> Chain:
    """Turn every annotator's weights about their centre, as the population alone would; accept by the likelihood."""
    judged, at = problem.judged, chain.at
    normal_key, uniform_key = jax.random.split(key)
    uniform = jax.random.uniform(uniform_key, (2, problem.annotators))
    theta = angle(uniform[0])[:, None]
    mean = at.mean[judged.group]
    noise = jnp.exp(at.log_spread) * jax.random.normal(normal_key, at.weights.shape)
    weights = mean + jnp.cos(theta) * (at.weights - mean) + jnp.sin(theta) * noise
    advantage = judged.advantage(weights)
    value = value_of(problem, advantage, at.shared)
    taken = accepts(uniform[1], value - chain.value)
    return Chain(
        key=chain.key,
        at=at._replace(weights=jnp.where(taken[:, None], weights, at.weights)),
        advantage=jnp.where(judged.per_choice(taken), advantage, chain.advantage),
        value=jnp.where(taken, value, chain.value),
    )


def move_population(problem: Problem, frozen: Frozen, chain: Chain, key: Any) -> tuple[Chain, Any]:
    """Move all centres and spreads, and everybody along: `z = (weights - mean) / spread` stays.

    Given `z`, judgements are a logistic regression on `mean[group]` and `spread`, of the differences `x` and `x z`. The
    proposal is normal: Newton's step from the answer that the surrogates give, so that it depends on `z` alone; it is
    turned as in `move_weights`. Spreads below zero are rejected.
    """
    judged, at = problem.judged, chain.at
    group, spread = judged.group, jnp.exp(at.log_spread)
    normal_key, uniform_key = jax.random.split(key)
    centre, weak = above(problem, at)
    z = (at.weights - at.mean[group]) / spread
    usual = jnp.exp(frozen.population.log_spread)
    loose = (LOG_SCALE * usual) ** -2

    def regress(precision: Any, linear: Any) -> Regression:
        return Regression.of(
            by_group(problem, precision) + jnp.diag(weak),
            by_group(problem, precision * z[:, None, :]),
            jnp.einsum("af,afg,ag->fg", z, precision, z) + jnp.diag(loose),
            by_group(problem, linear) + weak * centre,
            (z * linear).sum(0) + loose * usual,
        )

    first, middle = regress(frozen.precision, frozen.linear).back(jnp.zeros((problem.groups + 1, problem.features)))
    weights = first[group] + middle * z
    said = answer(judged, judged.advantage(weights), at.shared)
    precision = judged.squares(said.curvature)
    told = regress(precision, judged.directions(said.slope) + jnp.einsum("afg,ag->af", precision, weights))

    noise = jax.random.normal(normal_key, (problem.groups + 1, problem.features))
    uniform = jax.random.uniform(uniform_key, (2,))
    theta = angle(uniform[0])
    old = told.standard(at.mean, spread)
    new = jnp.cos(theta) * old + jnp.sin(theta) * noise
    mean, wide = told.back(new)
    log_spread = jnp.log(wide)  # not a number below zero
    weights = mean[group] + wide * z
    advantage = judged.advantage(weights)
    value = value_of(problem, advantage, at.shared)

    def prior(mean: Any, log_spread: Any) -> Any:
        away = ((log_spread - problem.log_medians[0]) / LOG_SCALE) ** 2
        return -(weak * (mean - centre) ** 2).sum() / 2 - (away / 2 + log_spread).sum()  # of spread, not of its log

    ratio = (value - chain.value).sum() + prior(mean, log_spread) - prior(at.mean, at.log_spread)
    taken = accepts(uniform[1], ratio + ((new**2).sum() - (old**2).sum()) / 2)
    moved = Chain(chain.key, at._replace(mean=mean, log_spread=log_spread, weights=weights), advantage, value)
    return Chain(
        chain.key, *jax.tree.map(lambda new, old: jnp.where(taken, new, old), moved[1:], chain[1:])
    ), 1.0 * taken


class Regression(NamedTuple):
    """A normal distribution of centres `[group feature]` and spreads `[feature]`, groups independent given spreads.

    Attributes:
        root: `[group feature feature]`, Cholesky factors of the precisions of centres given spreads.
        slope: `[group feature feature]`, `root^-1` times the mixed block of the precision.
        ahead: `[group feature]`, `root^-1` times the linear term.
        foot: `[feature feature]`, Cholesky factor of the precision of spreads.
        middle: `[feature]`, mean of spreads.
    """

    root: Any
    slope: Any
    ahead: Any
    foot: Any
    middle: Any

    @classmethod
    def of(cls, centres: Any, mixed: Any, spreads: Any, linear: Any, linear_spread: Any) -> "Regression":
        """Factorise: blocks of the precision, and the precision times the mean."""

        def one(group: Any) -> Any:
            root = jnp.linalg.cholesky(group[0])
            return root, solve_triangular(root, group[1])

        # One group after the other, see `roots.after`.
        root, right = jax.lax.map(one, (centres, jnp.concatenate([mixed, linear[..., None]], -1)))
        slope, ahead = right[..., :-1], right[..., -1]
        foot = jnp.linalg.cholesky(spreads - jnp.einsum("gef,geh->fh", slope, slope))
        return cls(root, slope, ahead, foot, solve(foot, linear_spread - jnp.einsum("gef,ge->f", slope, ahead)))

    def standard(self, mean: Any, spread: Any) -> Any:
        """Return the independent standard normals `[group + 1, feature]` that these values are made of."""
        rest = jnp.einsum("gef,ge->gf", self.root, mean) + jnp.einsum("gef,f->ge", self.slope, spread) - self.ahead
        return jnp.concatenate([rest, (self.foot.T @ (spread - self.middle))[None]])

    def back(self, normals: Any) -> tuple[Any, Any]:
        """Undo `standard`."""
        spread = self.middle + solve_triangular(self.foot, normals[-1][:, None], transpose_a=True)[:, 0]
        rest = normals[:-1] + self.ahead - jnp.einsum("gef,f->ge", self.slope, spread)

        def one(group: Any) -> Any:
            return solve_triangular(group[0], group[1][:, None], transpose_a=True)[:, 0]

        return jax.lax.map(one, (self.root, rest)), spread
