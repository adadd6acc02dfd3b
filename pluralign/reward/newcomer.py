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
from pluralign.reward.judgements import PER_ACT, Acts, Judgements
from pluralign.reward.noise import RATER, SHARED
from pluralign.reward.population import AbstractPopulation, Population
from pluralign.reward.prediction import check
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
    draws = len(posterior.weights) * people
    repeated = posterior.at(np.repeat(np.arange(len(posterior.weights)), people))
    z = np.random.default_rng(seed).standard_normal((draws, 1, _latents(population, posterior)))
    with jax.enable_x64(False):
        return _posterior(repeated, population, z, ("newcomer",), np.ones(1))


def adapt(
    posterior: RewardPosterior,
    votes: Feedback,
    phi: Features,
    *,
    draws: int = 200,
    steps: int = 100,
    seed: int = 0,
) -> RewardPosterior:
    """Return what is known of newcomers after some judgements, without fitting anything again.

        p(z | said, draw) ∝ Normal(z; 0, 1) P(said | person(draw, z))

    A person of the population is a function of independent standard normals `z`, so elliptical slice sampling (Murray,
    Adams and MacKay 2010) applies as it is to every population and response: a chain per annotator for each of `draws`
    draws of the population, started at somebody nobody has met. What is known of the population stays as it is; a refit
    to everybody's judgements would change it by the newcomers' worth.

    Args:
        posterior: fitted to others.
        votes: judgements of the newcomers; if the posterior has item effects, of the items that it was fitted to.
        phi: features of the items of `votes`, from the same feature map.
        draws: chains per annotator, and draws of the result.
        steps: of each chain.
        seed: of the chains.

    Returns:
        A posterior whose voters are the annotators of `votes`, for `predict`, `score` and rules.

    Raises:
        InputError: features or items are not those of the posterior.
    """
    population = _population(posterior)
    if draws < 1 or steps < 1:
        raise InputError(f"draws is {draws} and steps {steps}; both must be at least 1.")
    judgements = Judgements.read(votes, phi)
    check(posterior, judgements)
    thinned = posterior.at(np.linspace(0, len(posterior.weights) - 1, draws).round().astype(int))
    shape = (draws, judgements.annotators, _latents(population, posterior))
    start = np.random.default_rng(seed).standard_normal(shape).astype(np.float32)
    with jax.enable_x64(False):
        acts = [_padded(Acts.of(form, judgements, 1.0)) for form in judgements.blocks]
        levels = tuple(len(scale.labels) for scale in judgements.scales)
        keys = jax.random.split(jax.random.key(seed), draws)
        z = _chains(population, levels, steps, keys, start, _known(thinned), acts)
        weight = np.asarray(votes.annotators["weight"], np.float64)
        names = tuple(str(name) for name in votes.annotators["id"])
        return _posterior(thinned, population, np.asarray(z), names, weight / weight.sum())


def _known(posterior: RewardPosterior) -> dict[str, Any]:
    """Return what the posterior knows of the population and of items, `[draw ...]`."""
    return posterior.common | ({} if posterior.quality is None else {"quality": posterior.quality})


def _padded(acts: Acts) -> Acts:
    """Return the acts of one newcomer padded to a power of two: compiled once, chains serve many numbers of acts."""
    if acts.annotators > 1 or len(acts.buckets) != 1:
        return acts
    count, (who, x) = len(acts.counts), acts.buckets[0]
    index = np.arange(1 << (count - 1).bit_length()) % count
    return replace(
        acts,
        buckets=((who, x[:, index]),),
        counts=np.arange(len(index)) < count,
        **{name: getattr(acts, name)[index] for name in PER_ACT},
    )


@partial(jax.jit, static_argnums=(0, 1, 2))
def _chains(
    population: AbstractPopulation,
    levels: tuple[int, ...],
    steps: int,
    keys: Any,
    start: Any,
    known: dict[str, Any],
    blocks: list[Acts],
) -> Any:
    """Return where elliptical slice sampling ends, `[draw annotator latent]`."""

    def chain(key: Any, z: Any, known: dict[str, Any]) -> Any:
        def density(z: Any) -> Any:
            """Log likelihood of what each annotator said."""
            weights, noise, items = _people(population, known, z)
            total = jnp.zeros(len(z))
            for acts in blocks:
                utility = acts.utility(weights / known["unit"])
                if items:
                    utility = utility + advantage(acts, items)
                total += acts.total(population.response.log_probability(acts, utility, noise, levels))
            return total

        def step(state: Any, key: Any) -> Any:
            z, here = state
            ellipse, level, turn, shrink = jax.random.split(key, 4)
            other = jax.random.normal(ellipse, z.shape)
            bar = here + jnp.log(jax.random.uniform(level, here.shape))
            angle = 2 * jnp.pi * jax.random.uniform(turn, here.shape)

            def point(angle: Any) -> Any:
                return z * jnp.cos(angle)[:, None] + other * jnp.sin(angle)[:, None]

            def outside(state: Any) -> Any:
                # NaN counts as outside. The bracket shrinks to the present point, which rounding may call outside too:
                # then the chain stays, else the loop would not end.
                _, low, high, there, _ = state
                return ~(there >= bar) & (high - low > 1e-6)

            def narrow(state: Any) -> Any:
                angle, low, high, _, key = state
                key, now = jax.random.split(key)
                out = outside(state)
                low, high = jnp.where(out & (angle < 0), angle, low), jnp.where(out & (angle >= 0), angle, high)
                angle = jnp.where(out, jax.random.uniform(now, here.shape, minval=low, maxval=high), angle)
                return angle, low, high, density(point(angle)), key

            first = (angle, angle - 2 * jnp.pi, angle, density(point(angle)), shrink)
            found = jax.lax.while_loop(lambda state: outside(state).any(), narrow, first)
            return (point(found[0]), found[3]), None

        return jax.lax.scan(step, (z, density(z)), jax.random.split(key, steps))[0][0]

    return jax.vmap(chain)(keys, start, known)


def _people(
    population: AbstractPopulation, known: dict[str, Any], z: Any
) -> tuple[Any, dict[str, Any], dict[str, Any]]:
    """Return weights `[annotator objective feature]`, noise, items as seen by the people at `z [annotator latent]`."""
    factors = population.items.factors if population.items else 0
    place, z = z[:, :factors], z[:, factors:]
    own = z.shape[1] - population.response.latents()
    weights = jax.vmap(partial(population.person, known))(z[:, :own])
    noise = jax.vmap(partial(population.response.person, known))(z[:, own:])
    items = {"quality": known["quality"]} if "quality" in known else {}
    if factors:
        items |= {"factor": known["item_factor"], "place": place}
    return weights, noise | {name: known[name] for name in SHARED if name in known}, items


def _population(posterior: RewardPosterior) -> AbstractPopulation:
    if not posterior.model:
        raise InputError("the posterior does not say of what model it is; it was not made by `fit`.")
    return TypeAdapter(Population).validate_python(posterior.model)


def _latents(population: AbstractPopulation, posterior: RewardPosterior) -> int:
    factors = population.items.factors if population.items else 0
    return factors + population.latents(*posterior.weights.shape[2:]) + population.response.latents()


def _posterior(
    like: RewardPosterior, population: AbstractPopulation, z: np.ndarray, names: tuple[str, ...], mass: np.ndarray
) -> RewardPosterior:
    """Return the people at `z [draw annotator latent]` as the voters of a posterior."""
    weights, noise, items = jax.jit(jax.vmap(partial(_people, population)))(_known(like), z.astype(np.float32))
    return replace(
        like,
        weights=np.asarray(weights) / like.common["unit"][:, None, None, None],
        mass=mass,
        voters=names,
        membership=None,
        own={"place": np.asarray(items["place"])} if "place" in items else {},
        rater={name: np.asarray(noise[name]) for name in RATER if name in noise},
    )
