"""People whom the fit has not seen: what is expected of them, and what a few judgements of theirs tell."""

from dataclasses import replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from pydantic import TypeAdapter

from pluralign.errors import InputError
from pluralign.reward.items import advantage
from pluralign.reward.judgements import Acts, Judgements
from pluralign.reward.population import AbstractPopulation, Population
from pluralign.reward.response import RATER
from pluralign.types import Features, Feedback, RewardPosterior


def newcomer(posterior: RewardPosterior, *, people: int = 1, seed: int = 0) -> RewardPosterior:
    """Return what is known of somebody who has not judged yet: weights and noise drawn from the population.

    Draw by draw of the posterior `people` persons are drawn, so the draws of the result hold ignorance of the
    population and disagreement within it. The result has one voter and one annotator.

    Args:
        posterior: fitted to others.
        people: drawn per draw.
        seed: of the persons.

    Raises:
        InputError: the posterior does not say of what model it is.
    """
    population = _population(posterior)
    common = {name: np.repeat(value, people, 0) for name, value in posterior.common.items()}
    z = np.random.default_rng(seed).standard_normal((len(posterior.weights) * people, _latents(population, posterior)))
    with jax.enable_x64(False):
        return _posterior(posterior, population, common, z, people)


def adapt(
    posterior: RewardPosterior,
    votes: Feedback,
    phi: Features,
    *,
    draws: int = 200,
    steps: int = 100,
    seed: int = 0,
) -> RewardPosterior:
    """Return what is known of a newcomer after some judgements, without fitting anything again.

        p(z | said, draw) ∝ Normal(z; 0, 1) P(said | person(draw, z))

    A person of the population is a function of independent standard normals `z`, so elliptical slice sampling (Murray,
    Adams and MacKay 2010) applies as it is to every population and response: a chain for each of `draws` draws of the
    population, started at a newcomer. What is known of the population stays as it is; a refit to everybody's judgements
    would change it by one person's worth.

    Args:
        posterior: fitted to others.
        votes: judgements of one annotator; if the posterior has item effects, of the items that it was fitted to.
        phi: features of the items of `votes`, from the same feature map.
        draws: chains, and draws of the result.
        steps: of each chain.
        seed: of the chains.

    Returns:
        A posterior with one voter and one annotator, for `predict`, `score` and rules.

    Raises:
        InputError: `votes` has another number of annotators than one, or features and items are others.
    """
    population = _population(posterior)
    if len(votes.annotators) != 1:
        raise InputError(f"votes holds {len(votes.annotators)} annotators; adapt to one at a time.")
    if draws < 1 or steps < 1:
        raise InputError(f"draws is {draws} and steps {steps}; both must be at least 1.")
    judgements = Judgements.read(votes, phi)
    if judgements.names != posterior.features:
        raise InputError(f"phi has the features {judgements.names}, the posterior was fitted to {posterior.features}.")
    quality = posterior.quality
    if quality is not None and quality.shape[1] != len(judgements.phi):
        raise InputError(
            f"votes has {len(judgements.phi)} items, the posterior's item effects are of {quality.shape[1]}; keep the "
            "items of the fit in the feedback of the newcomer."
        )
    keep = np.linspace(0, len(posterior.weights) - 1, draws).round().astype(int)
    thinned = replace(
        posterior,
        weights=posterior.weights[keep],
        rater={name: value[keep] for name, value in posterior.rater.items()},
        common={name: value[keep] for name, value in posterior.common.items()},
        quality=None if quality is None else quality[keep],
    )
    latents = _latents(population, posterior)
    with jax.enable_x64(False):
        acts = [_padded(Acts.of(form, judgements, 1.0)) for form in judgements.blocks]
        levels = tuple(len(scale.labels) for scale in judgements.scales)
        keys = jax.random.split(jax.random.key(seed), draws)
        start = np.random.default_rng(seed).standard_normal((draws, latents)).astype(np.float32)
        z = _chains(population, levels, steps, keys, start, thinned.common, thinned.quality, acts)
        return _posterior(thinned, population, thinned.common, np.asarray(z), 1)


def _padded(acts: Acts) -> Acts:
    """Return acts whose number is a power of two: chains compiled for it serve all numbers down to the one below."""
    if len(acts.buckets) != 1:  # several objectives
        return acts
    count, (who, x) = len(acts.counts), acts.buckets[0]
    index = np.arange(1 << (count - 1).bit_length()) % count
    return replace(
        acts,
        buckets=((who, x[:, index]),),
        counts=np.arange(len(index)) < count,
        **{name: getattr(acts, name)[index] for name in ("item", "said", "aside", "row")},
    )


@partial(jax.jit, static_argnums=(0, 1, 2))
def _chains(
    population: AbstractPopulation,
    levels: tuple[int, ...],
    steps: int,
    keys: Any,
    start: Any,
    common: dict[str, Any],
    quality: Any,
    blocks: list[Acts],
) -> Any:
    """Return where elliptical slice sampling ends, a chain per draw."""

    def log_likelihood(z: Any, common: dict[str, Any], quality: Any) -> Any:
        weights, noise = _person(population, common, z)
        total = jnp.zeros(())
        for acts in blocks:
            utility = acts.utility(weights[None] / common["unit"])
            if quality is not None:
                utility = utility + advantage(acts, quality)
            total += acts.total(population.response.log_probability(acts, utility, noise, levels)).sum()
        return total

    def chain(key: Any, z: Any, common: dict[str, Any], quality: Any) -> Any:
        density = lambda z: log_likelihood(z, common, quality)  # noqa: E731

        def step(state: Any, key: Any) -> Any:
            z, here = state
            ellipse, level, turn, shrink = jax.random.split(key, 4)
            other = jax.random.normal(ellipse, z.shape)
            bar = here + jnp.log(jax.random.uniform(level))
            angle = 2 * jnp.pi * jax.random.uniform(turn)

            def point(angle: Any) -> Any:
                return z * jnp.cos(angle) + other * jnp.sin(angle)

            def narrow(state: Any) -> Any:
                angle, low, high, _, key = state
                low, high = jnp.where(angle < 0, angle, low), jnp.where(angle < 0, high, angle)
                key, now = jax.random.split(key)
                angle = jax.random.uniform(now, minval=low, maxval=high)
                return angle, low, high, density(point(angle)), key

            # The bracket shrinks to the present point, so the loop ends; NaN counts as outside.
            found = jax.lax.while_loop(
                lambda state: ~(state[3] > bar),
                narrow,
                (angle, angle - 2 * jnp.pi, angle, density(point(angle)), shrink),
            )
            return (point(found[0]), found[3]), None

        return jax.lax.scan(step, (z, density(z)), jax.random.split(key, steps))[0][0]

    return jax.vmap(chain, (0, 0, 0, None if quality is None else 0))(keys, start, common, quality)


def _person(population: AbstractPopulation, common: dict[str, Any], z: Any) -> tuple[Any, dict[str, Any]]:
    own = z.shape[0] - population.response.latents()
    return population.person(common, z[:own]), population.response.person(common, z[own:])


def _population(posterior: RewardPosterior) -> AbstractPopulation:
    if not posterior.model:
        raise InputError("the posterior does not say of what model it is; it was not made by `fit`.")
    return TypeAdapter(Population).validate_python(posterior.model)


def _latents(population: AbstractPopulation, posterior: RewardPosterior) -> int:
    return population.latents(*posterior.weights.shape[2:]) + population.response.latents()


def _posterior(
    like: RewardPosterior, population: AbstractPopulation, common: dict[str, Any], z: np.ndarray, people: int
) -> RewardPosterior:
    """Return the persons at `z [draw latent]` as the one voter of a posterior."""
    weights, noise = jax.jit(jax.vmap(partial(_person, population)))(common, z.astype(np.float32))
    weights = np.asarray(weights) / np.asarray(common["unit"])[:, None, None]
    return replace(
        like,
        weights=weights[:, None],
        mass=np.ones(1),
        voters=("newcomer",),
        membership=None,
        rater={name: np.asarray(noise[name]) for name in RATER if name in noise},
        common=common,
        quality=None if like.quality is None else np.repeat(like.quality, people, 0),
    )
