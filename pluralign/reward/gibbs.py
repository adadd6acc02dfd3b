"""Metropolised Gibbs sampling of hierarchical logistic models: exact, and fast where NUTS is out of reach."""

import time
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from pluralign.reward import diagnose
from pluralign.reward.chain import Chain, Frozen, above, accepts, angle, value_of
from pluralign.reward.conjugate import draw_population
from pluralign.reward.em import ascend, by_group, normal_model
from pluralign.reward.inference import AbstractInference, Canonical, Draws, Model, _at_least, _progress, as_drawn
from pluralign.reward.interweave import interweave
from pluralign.reward.roots import after, normal, solve, solve_each, solve_triangular
from pluralign.reward.surrogate import LOG_SCALE, SHARED_SCALE, Draw, Problem, answer, read, told_of_shared
from pluralign.types import FitReport


@dataclass(frozen=True)
class Gibbs(AbstractInference):
    """Metropolised Gibbs sampling with frozen surrogates: exact up to Monte-Carlo error, if it converged.

    `VariationalEM` gives each annotator a normal surrogate of the likelihood, `N(w) = exp(linear · w - w precision w /
    2)`. A sweep then updates in turn, each by a proposal that would be exact if the surrogates were, accepted by the
    exact ratio:

        weights[annotator]      all at once, from surrogate times Normal(mean, spread^2), each accepted or not
        mean[group]             from the surrogate posterior with weights integrated out, weights moved along
        spread                  the same
        mean and spread         given standardised weights, where judgements tell little of each annotator
        mean, spread, scales    given weights: conjugate normals, and slices of the scales
        position, tie           given weights, from a Newton step

    In the second and third, weights keep their standardised place in surrogate times population; in the fourth, in the
    population alone. So the chain mixes whether annotators judged much or little (Yu and Meng 2011).

    It covers `Hierarchical` whose raters differ in what they want alone: no lapse, one tie propensity for all.

    Args:
        draws: kept per chain; each holds the weights of all annotators.
        warmup: sweeps per chain that find where to propose spreads, and are thrown away.
        thin: sweeps per kept draw.
        chains: independent chains; at least two, since R-hat compares them.
    """

    draws: int = 1000
    warmup: int = 200
    thin: int = 1
    chains: int = 2
    kind: Literal["gibbs"] = "gibbs"

    def __post_init__(self):
        for name, least in (("draws", 4), ("warmup", 1), ("thin", 1), ("chains", 2)):
            _at_least(self, name, least)

    def infer(self, model: Model, seed: int, canonical: Canonical = as_drawn) -> tuple[Draws, FitReport]:
        """Climb by variational EM, then run the chains by turns, in float32."""
        begin = time.perf_counter()
        with jax.enable_x64(False):
            problem = read(model, "Gibbs")
            frozen = Frozen.of(problem, *ascend(problem, steps=100, tolerance=0.1)[:2])
            keys: Any = jax.random.split(jax.random.key(seed, impl="rbg"), self.chains)
            chains = [enter(problem, frozen, key) for key in keys]
            length = -(-self.draws // 20)
            warm, rounds = -(-self.warmup // (self.thin * length)), -(-self.draws // length)
            history = []
            # One after the other: in two at once, jax's batches of factorisations could wait for each other (`after`).
            for done in _progress(warm + rounds, "Gibbs"):
                if done == warm:
                    frozen = frozen.learnt(np.concatenate([at.log_spread for part in history for at, _ in part]))
                    history = []
                parts = [advance(problem, frozen, chain, self.thin, length) for chain in chains]
                chains = [chain for chain, _ in parts]
                history.append(jax.device_get([kept for _, kept in parts]))
        kept: Any = [_last(self.draws, [part[chain] for part in history]) for chain in range(self.chains)]
        del history
        draws, accepted = jax.tree.map(lambda *chains: np.stack(chains), *kept)
        sites = canonical(problem.sites(draws))
        report = diagnose.report(
            sites,
            divergences=0,
            saturated=0.0,
            method=f"Metropolised Gibbs, {self.chains} chains, {self.warmup} sweeps of warm-up and {self.draws} draws "
            f"each, every {self.thin} sweeps",
            seconds=time.perf_counter() - begin,
        )
        weights, centres, spread, population, shared = (f"{share.mean():.2f}" for share in accepted)
        note = f"Accepted: {weights} of weights, {centres} of centres, {spread} of spreads"
        note += f", {population} of both together" if frozen.scarce else ""
        note += f", {shared} of the response's parameters." if problem.free else "."
        report = replace(report, notes=(note,))
        return {name: value.reshape(-1, *value.shape[2:]) for name, value in sites.items()}, report


def _last(draws: int, parts: list[Any]) -> Any:
    return jax.tree.map(lambda *parts: np.concatenate(parts)[-draws:], *parts)


class Accepted(NamedTuple):
    """Shares of proposals that were accepted."""

    weights: Any
    centres: Any
    spread: Any
    population: Any
    shared: Any


@jax.jit
def enter(problem: Problem, frozen: Frozen, key: Any) -> Chain:
    """Return a chain at a draw from the normal model, its population twice as far out as that has it."""
    key, start = jax.random.split(key)
    p = frozen.population
    at = normal_model(problem, frozen.annotators, p)(start)
    at = at._replace(mean=2 * at.mean - p.mean, log_spread=2 * at.log_spread - p.log_spread)
    advantage = problem.judged.advantage(at.weights)
    return Chain(key, at, advantage, value_of(problem, advantage, at.shared))


@partial(jax.jit, static_argnums=(3, 4))
def advance(problem: Problem, frozen: Frozen, chain: Chain, thin: int, length: int) -> tuple[Chain, Any]:
    """Return the chain after `length` times `thin` sweeps, and the place and acceptance after each `thin`."""

    def keep(chain: Chain, _: None) -> Any:
        chain, accepted = jax.lax.scan(lambda chain, _: sweep(problem, frozen, chain), chain, length=thin)
        return chain, (chain.at, jax.tree.map(lambda share: share.mean(0), accepted))

    return jax.lax.scan(keep, chain, length=length)


def sweep(problem: Problem, frozen: Frozen, chain: Chain) -> tuple[Chain, Accepted]:
    """Update everything once."""
    key, *keys = jax.random.split(chain.key, 7)
    chain, root, weights = move_weights(problem, frozen, chain, keys[0])
    chain, shift, centres = move_centres(problem, frozen, chain, root, keys[1])
    chain, spread = move_spread(problem, frozen, chain, after(root, shift), keys[2])
    # Few judgements: centres and spreads hold each other, and weights hold both.
    chain, population = jax.lax.cond(
        frozen.scarce, partial(interweave, problem, frozen), lambda chain, _: (chain, jnp.nan), chain, keys[5]
    )
    chain = chain._replace(at=draw_population(problem, frozen, chain.at, keys[3]))
    shared = jnp.ones(())
    if problem.free:
        chain, shared = move_shared(problem, chain, keys[4])
    return chain._replace(key=key), Accepted(weights, centres, spread, population, shared)


def linear(problem: Problem, frozen: Frozen, at: Draw, log_spread: Any) -> Any:
    """Return, per annotator, the precision of surrogate times population, times its mean."""
    return frozen.linear + jnp.exp(-2 * log_spread) * at.mean[problem.judged.group]


def move_weights(problem: Problem, frozen: Frozen, chain: Chain, key: Any) -> tuple[Chain, Any, Any]:
    """Propose every annotator's weights from surrogate times population, and accept by the exact ratio.

    With `centre` and `noise` of that normal distribution, `(weights - centre, noise)` may be turned by any angle: first
    by a right one, which makes an independent draw, then by a small one, so that nobody is stuck in the tails, where
    surrogates fall faster than likelihoods.
    """
    judged, at = problem.judged, chain.at
    normal_key, uniform_key = jax.random.split(key)
    root = jnp.linalg.cholesky(frozen.precision + jnp.diag(jnp.exp(-2 * at.log_spread)))
    half = solve_triangular(root, linear(problem, frozen, at, at.log_spread)[..., None])
    both = jnp.concatenate([half, jax.random.normal(normal_key, (*at.weights.shape, 1))], -1)
    both = solve_triangular(root, both, transpose_a=True)
    uniform = jax.random.uniform(uniform_key, (3, problem.annotators))

    def exceed(weights: Any, value: Any) -> Any:
        quadratic = jnp.einsum("afg,ag->af", frozen.precision, weights)
        return value - ((frozen.linear - quadratic / 2) * weights).sum(1)

    centre = both[..., 0]
    base = judged.advantage(centre)

    def turn(place: Any, chance: Any) -> tuple[Any, Any]:
        off, noise, advantage_off, advantage_noise, value, excess = place
        theta, uniform = chance
        cos, sin = jnp.cos(theta), jnp.sin(theta)
        new_off = cos[:, None] * off + sin[:, None] * noise
        cos, sin = judged.per_choice(cos), judged.per_choice(sin)
        new_advantage = cos * advantage_off + sin * advantage_noise
        new_value = value_of(problem, base + new_advantage, at.shared)
        new_excess = exceed(centre + new_off, new_value)
        taken = accepts(uniform, new_excess - excess)
        each = judged.per_choice(taken)
        # The partner of a turn is only needed for the next one, after a right angle.
        new = (
            jnp.where(taken[:, None], new_off, off),
            jnp.where(taken[:, None], -off, noise),
            jnp.where(each, new_advantage, advantage_off),
            jnp.where(each, -advantage_off, advantage_noise),
            jnp.where(taken, new_value, value),
            jnp.where(taken, new_excess, excess),
        )
        return new, taken.mean()

    theta = jnp.stack([jnp.full(problem.annotators, jnp.pi / 2), uniform[2] - 0.5])
    off = at.weights - centre
    place = (off, both[..., 1], chain.advantage - base, judged.advantage(both[..., 1]), chain.value)
    place, rates = jax.lax.scan(turn, (*place, exceed(at.weights, chain.value)), (theta, uniform[:2]))
    chain = chain._replace(at=at._replace(weights=centre + place[0]), advantage=base + place[2], value=place[4])
    return chain, after(root, both), rates[0]


def move_centres(problem: Problem, frozen: Frozen, chain: Chain, root: Any, key: Any) -> tuple[Chain, Any, Any]:
    """Move the centre of each group, and its annotators along: `weights - centre of surrogate times population` stays.

    The proposal is from the surrogate posterior of the centres with weights integrated out, and turned as in
    `move_weights`; the ratio is that of the exact density.
    """
    judged, at = problem.judged, chain.at
    normal_key, uniform_key = jax.random.split(key)
    centre, weak = above(problem, at)
    precision = frozen.marginal.centres + jnp.diag(weak)
    middle = solve_each(precision, frozen.marginal.linear + weak * centre)
    noise = normal(jax.random.normal(normal_key, at.mean.shape), 0.0, precision)
    uniform = jax.random.uniform(uniform_key, (2, problem.groups))
    theta = angle(uniform[0])[:, None]
    mean = middle + jnp.cos(theta) * (at.mean - middle) + jnp.sin(theta) * noise

    group, tight = judged.group, jnp.exp(-2 * at.log_spread)
    shift = solve(root, tight * (mean - at.mean)[group])
    weights = at.weights + shift
    advantage = judged.advantage(weights)
    value = value_of(problem, advantage, at.shared)

    def scatter(weights: Any, mean: Any) -> Any:
        return (tight * (weights - mean[group]) ** 2).sum(1) / 2

    def excess(mean: Any) -> Any:
        off = mean - middle
        proposed = (jnp.einsum("gef,gf->ge", precision, off) * off).sum(1)
        return (proposed - (weak * (mean - centre) ** 2).sum(1)) / 2

    ratio = by_group(problem, value - chain.value - scatter(weights, mean) + scatter(at.weights, at.mean))
    taken = accepts(uniform[1], ratio + excess(mean) - excess(at.mean))
    theirs = taken[group]
    at = at._replace(
        mean=jnp.where(taken[:, None], mean, at.mean), weights=jnp.where(theirs[:, None], weights, at.weights)
    )
    advantage = jnp.where(judged.per_choice(theirs), advantage, chain.advantage)
    return chain._replace(at=at, advantage=advantage, value=jnp.where(theirs, value, chain.value)), shift, taken.mean()


def move_spread(problem: Problem, frozen: Frozen, chain: Chain, root: Any, key: Any) -> tuple[Chain, Any]:
    """Move the spreads, and all annotators along: `root^T (weights - centre)` stays, with root and centre as above.

    The proposal is normal in `log spread`: half the time independent, about the estimate of variational EM, later of
    warm-up, with the Fisher information of the surrogates, weights integrated out; else a step of any length from where
    it is, so that nothing is stuck. The ratio has the exact density and the volume `det(root) / det(root')`.
    """
    judged, at = problem.judged, chain.at
    normal_key, uniform_key = jax.random.split(key)
    middle, information = frozen.population.log_spread, frozen.marginal.log_spread
    noise = normal(jax.random.normal(normal_key, (problem.features,)), 0.0, information)
    uniform = jax.random.uniform(uniform_key, (3,))
    independent = uniform[0] < 0.5
    step = 4 / problem.features**0.5 * jnp.exp(-4 * uniform[2])
    log_spread = jnp.where(independent, middle + noise, at.log_spread + step * noise)

    # root^T (weights - centre) = root^T weights - root^-1 linear, before and after.
    new_root = jnp.linalg.cholesky(after(frozen.precision, root) + jnp.diag(jnp.exp(-2 * log_spread)))
    half = solve_triangular(after(root, new_root), linear(problem, frozen, at, at.log_spread)[..., None])
    place = jnp.einsum("agf,ag->af", root, at.weights)[..., None] - half
    half = solve_triangular(after(new_root, half), linear(problem, frozen, at, log_spread)[..., None])
    weights = solve_triangular(new_root, half + place, transpose_a=True)[..., 0]
    advantage = judged.advantage(weights)
    value = value_of(problem, advantage, at.shared)
    off = at.mean[judged.group]

    def density(weights: Any, log_spread: Any, root: Any) -> Any:
        volume = jnp.log(jnp.diagonal(root, axis1=1, axis2=2))
        return -(log_spread + ((weights - off) * jnp.exp(-log_spread)) ** 2 / 2 + volume).sum(1)

    def excess(log_spread: Any) -> Any:
        off = log_spread - middle
        prior = ((log_spread - problem.log_medians[0]) / LOG_SCALE) ** 2
        return (independent * (off @ information @ off) - prior.sum()) / 2

    ratio = value - chain.value + density(weights, log_spread, new_root) - density(at.weights, at.log_spread, root)
    taken = accepts(uniform[1], ratio.sum() + excess(log_spread) - excess(at.log_spread))
    at = at._replace(
        log_spread=jnp.where(taken, log_spread, at.log_spread), weights=jnp.where(taken, weights, at.weights)
    )
    advantage = jnp.where(taken, advantage, chain.advantage)
    return chain._replace(at=at, advantage=advantage, value=jnp.where(taken, value, chain.value)), 1.0 * taken


def move_shared(problem: Problem, chain: Chain, key: Any) -> tuple[Chain, Any]:
    """Propose the free entries of `shared` by a Newton step from where they started, and accept by the exact ratio.

    Mean and precision of the proposal depend on the advantages alone, so that it is an independent one.
    """
    judged, at = problem.judged, chain.at
    free = np.array(problem.free)
    weak = jnp.array([SHARED_SCALE[k] ** -2 for k in problem.free])
    normal_key, uniform_key = jax.random.split(key)
    start = jnp.asarray(problem.shared, at.mean.dtype)

    def newton(_: Any, place: Any) -> Any:
        start, _ = place
        gradient, hessian = told_of_shared(judged, answer(judged, chain.advantage, start))
        precision = hessian[np.ix_(free, free)] + jnp.diag(weak)
        return start.at[free].add(solve_each(precision, gradient[free] - weak * start[free])), precision

    start, precision = jax.lax.fori_loop(0, 3, newton, (start, jnp.diag(weak)))
    noise = normal(jax.random.normal(normal_key, (len(free),)), 0.0, precision)
    uniform = jax.random.uniform(uniform_key, (2,))
    theta, off = angle(uniform[0]), at.shared[free] - start[free]
    turned = jnp.cos(theta) * off + jnp.sin(theta) * noise
    shared = start.at[free].add(turned)
    value = value_of(problem, chain.advantage, shared)
    ratio = (value - chain.value).sum() + (turned @ precision @ turned - off @ precision @ off) / 2
    ratio -= (weak * (shared[free] ** 2 - at.shared[free] ** 2)).sum() / 2
    taken = accepts(uniform[1], ratio)
    at = at._replace(shared=jnp.where(taken, shared, at.shared))
    return chain._replace(at=at, value=jnp.where(taken, value, chain.value)), 1.0 * taken
