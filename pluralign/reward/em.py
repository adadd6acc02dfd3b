"""Variational EM: a normal posterior of every annotator's weights, at the best scales of the population."""

import time
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from pluralign.errors import InputError
from pluralign.reward import diagnose
from pluralign.reward.inference import AbstractInference, Canonical, Draws, Model, _at_least, _progress, as_drawn
from pluralign.reward.roots import each, inverse, normal, solve_each
from pluralign.reward.surrogate import LOG_SCALE, SHARED_SCALE, Draw, Expected, Problem, expected, read
from pluralign.types import FitReport

UNDERSTATED = (
    "The spreads are about their best values, and weights are given those: with few annotators, or few judgements of "
    "each, intervals are too narrow; use Gibbs, which is exact, where an interval matters. "
    "At 200 annotators with 200 judgements each, means were off by 0.05 posterior standard deviations, and standard "
    "deviations of spreads 4 percent too small; at 40 with 50 each, spreads were off by 0.4 standard deviations."
)

ROUNDING = 1e-6
"""Relative fall of an annotator's bound that is put down to rounding."""


@dataclass(frozen=True)
class VariationalEM(AbstractInference):
    """A normal posterior of annotators' weights at the best scales of the population: seconds, for predictions.

        q(weights[annotator]) = Normal(mean, covariance)      full covariance, one per annotator
        ELBO = E_q[log P(outcomes, weights, centres | scales)] + H(q) + log P(scales)

    Each step climbs in q by the fixed point of Opper and Archambeau (2009) and in the population by Newton's method,
    and keeps nothing that would lower the bound. Draws are from the normal model with the likelihoods' surrogates:
    scales about their estimates, centres with weights integrated out, weights given centres at the estimated scales.

    It covers `Hierarchical` whose raters differ in what they want alone: no lapse, one tie propensity for all.

    Args:
        draws: from the approximation.
        steps: at most.
        tolerance: rise of the bound, in nats, below which no further step is taken.
    """

    draws: int = 500
    steps: int = 100
    tolerance: float = 0.01
    kind: Literal["variational-em"] = "variational-em"

    def __post_init__(self):
        _at_least(self, "draws", 1)
        _at_least(self, "steps", 1)
        if not self.tolerance > 0:
            raise InputError(f"tolerance is {self.tolerance}; it is a rise in nats and must be positive.")

    def infer(self, model: Model, seed: int, canonical: Canonical = as_drawn) -> tuple[Draws, FitReport]:
        """Climb and draw, in float32."""
        begin = time.perf_counter()
        with jax.enable_x64(False):
            problem = read(model, "VariationalEM")
            q, p, bound = ascend(problem, self.steps, self.tolerance)
            keys: Any = jax.random.split(jax.random.key(seed), self.draws)
            draws = jax.device_get(draw(problem, q, p, keys))
            sites = problem.sites(draws)
        sites = {name: value[0] for name, value in canonical({n: v[None] for n, v in sites.items()}).items()}
        diagnose.check_finite(sites)
        rise = bound[-1] - bound[-2]
        caveat = f"The evidence lower bound still rose by {rise:.2f} nats in the last step; take more `steps`."
        report = diagnose.independent(
            self.draws,
            method=f"variational EM, {len(bound) - 1} steps",
            seconds=time.perf_counter() - begin,
            caveats=() if rise < self.tolerance else (caveat,),
            notes=(UNDERSTATED,),
        )
        return sites, report


class Population(NamedTuple):
    """A population: estimates of its scales, normal approximations (mean, variance) of its centres.

    Attributes:
        log_spread: `[feature]`.
        log_group_spread: `[feature]`; not used without groups, like `centre`.
        log_centre_scale: `[]`.
        mean: `[group feature]`, of the annotators of each group; without groups, the one centre.
        mean_variance: the same.
        centre: `[feature]`, of the groups.
        centre_variance: the same.
        shared: `[2]`, of the response.
    """

    log_spread: Any
    log_group_spread: Any
    log_centre_scale: Any
    mean: Any
    mean_variance: Any
    centre: Any
    centre_variance: Any
    shared: Any

    def above(self, problem: Problem) -> tuple[Any, Any, Any]:
        """Return the normal distribution of `mean`: its own mean, the variance of that, and its log scale."""
        if problem.grouped:
            return self.centre, self.centre_variance, self.log_group_spread
        return 0.0, 0.0, self.log_centre_scale


class Annotators(NamedTuple):
    """Normal distributions of the annotators' weights, and what they expect of the likelihood.

    Attributes:
        mean: `[annotator feature]`.
        covariance: `[annotator feature feature]`.
        precision: its inverse.
        log_det: log determinant of `covariance`.
        expects: of the log likelihood.
    """

    mean: Any
    covariance: Any
    precision: Any
    log_det: Any
    expects: Expected


def ascend(problem: Problem, steps: int, tolerance: float) -> tuple[Annotators, Population, list[float]]:
    """Return the best normal posterior and population, and the evidence lower bound before each step and at the end.

    Raises:
        FitError: the bound is not finite.
    """
    q, p = start(problem)
    paces = jnp.ones(problem.annotators), jnp.ones(())
    bounds: list[float] = []
    for _ in _progress(steps + 1, "variational EM"):
        bounds.append(sum(float(np.asarray(part, np.float64).sum()) for part in parts(problem, q, p)))
        diagnose.check_finite({"bound": np.array(bounds)})
        if len(bounds) > steps or (len(bounds) > 1 and bounds[-1] - bounds[-2] < tolerance):
            break
        q, p, paces = climb(problem, q, p, paces)
    return q, p, bounds


@jax.jit
def climb(problem: Problem, q: Annotators, p: Population, paces: Any) -> Any:
    """Return all after one step up in each part, and the lengths of the next steps."""
    p = maximise(problem, q, p)
    q, of_annotators = fit_annotators(problem, q, p, paces[0])
    q, p, of_population = fit_population(problem, q, p, paces[1])
    return q, p, (of_annotators, of_population)


@jax.jit
def parts(problem: Problem, q: Annotators, p: Population) -> tuple[Any, Any]:
    """Return the evidence lower bound, in parts to be added up in double precision."""
    return bound_of_annotators(problem, q, p), bound_of_population(problem, p)


@jax.jit
def draw(problem: Problem, q: Annotators, p: Population, keys: Any) -> Draw:
    """Return draws from the normal model of `VariationalEM`, one per key."""
    return jax.lax.map(normal_model(problem, q, p), keys)


def normal_model(problem: Problem, q: Annotators, p: Population) -> Any:
    """Return the function from a random key to a draw from the normal model of `VariationalEM`."""
    told = marginal(problem, q, p.log_spread)
    tight = jnp.exp(-2 * p.log_spread)
    upper, _, log_scale = p.above(problem)
    above = jnp.broadcast_to(jnp.exp(-2 * log_scale), (problem.features,))
    within = told.centres + jnp.diag(above)
    root = jnp.linalg.cholesky(q.covariance)
    linear = q.expects.linear(q.mean)
    free = np.array(problem.free, int)
    within_inverse = each(lambda matrix: inverse(jnp.linalg.cholesky(matrix)), within)

    def draw(key: Any) -> Draw:
        annotators, population = jax.random.split(key)
        noise = jax.random.normal(population, (problem.groups + 5, problem.features))
        wide = normal(noise[0], p.log_spread, told.log_spread)
        centre, top = upper, p.log_group_spread
        if problem.grouped:
            below = jnp.diag(above) - above[:, None] * within_inverse * above
            ahead = (solve_each(within, told.linear) * above).sum(0)
            over = below.sum(0) + jnp.exp(-2 * p.log_centre_scale) * jnp.eye(problem.features)
            centre = normal(noise[1], solve_each(over, ahead), over)
            top = about_mode(noise[2], top, problem.groups, problem.log_medians[1])
        mean = normal(noise[5:], solve_each(within, told.linear + above * centre), within)
        given = linear + tight * mean[problem.judged.group]
        own = jax.random.normal(annotators, given.shape)
        weights = jnp.einsum("afg,ag->af", q.covariance, given) + jnp.einsum("afg,ag->af", root, own)
        scale = about_mode(noise[3, 0], p.log_centre_scale, problem.features, problem.log_medians[2])
        shared = p.shared
        if problem.free:
            hessian = q.expects.shared[1][np.ix_(free, free)] + jnp.diag(
                jnp.array([SHARED_SCALE[k] ** -2 for k in problem.free])
            )
            two = jax.random.normal(jax.random.fold_in(population, 0), (len(free),))
            shared = shared.at[free].set(normal(two, shared[free], hessian))
        return Draw(weights, wide, mean, jnp.broadcast_to(centre, wide.shape), top, scale, shared)

    return draw


def about_mode(noise: Any, mode: Any, count: Any, log_median: Any) -> Any:
    """Return a draw of the logarithm of a scale, normal about its mode with the curvature there."""
    fall = count + (mode - log_median) / LOG_SCALE**2
    return mode + noise / jnp.sqrt(2 * fall + 1 / LOG_SCALE**2)


def log_scale_mode(count: Any, squares: Any, log_median: Any) -> Any:
    """Return the `u` that maximises `-count u - squares exp(-2 u) / 2 - (u - log_median)^2 / (2 LOG_SCALE^2)`.

    It is the mode of the logarithm of a scale, given `count` normal numbers of that scale with that sum of squares.
    The derivative is convex and falls, so that Newton's steps from where it is positive never pass its zero.
    """
    at = 0.5 * jnp.log(jnp.maximum(squares, 1e-30) / jnp.maximum(count, 1e-30))

    def step(_: Any, u: Any) -> Any:
        fall = squares * jnp.exp(-2 * u)
        return u + (fall - count - (u - log_median) / LOG_SCALE**2) / (2 * fall + 1 / LOG_SCALE**2)

    return jax.lax.fori_loop(0, 20, step, jnp.minimum(at, log_median))


def by_group(problem: Problem, value: Any) -> Any:
    """Return the sum over the annotators of each group."""
    return jax.ops.segment_sum(value, problem.judged.group, problem.groups)


def maximise(problem: Problem, q: Annotators, p: Population) -> Population:
    """Return the best population for given annotators, by turns: scales, and normal distributions of centres.

    With `n[group]` annotators, `E[(w - mean)^2] = (E w - E mean)^2 + Var w + Var mean` per feature, and the normal
    distribution of a centre that conjugacy gives.
    """
    spread_median, group_median, centre_median = problem.log_medians
    own = jnp.diagonal(q.covariance, axis1=1, axis2=2)
    n = by_group(problem, jnp.ones_like(q.mean))
    total = by_group(problem, q.mean)

    def turn(_: Any, p: Population) -> Population:
        upper, _, log_scale = p.above(problem)
        precision = n * jnp.exp(-2 * p.log_spread) + jnp.exp(-2 * log_scale)
        mean = (total * jnp.exp(-2 * p.log_spread) + upper * jnp.exp(-2 * log_scale)) / precision
        p = p._replace(mean=mean, mean_variance=1 / precision)
        group = problem.judged.group
        squares = ((q.mean - mean[group]) ** 2 + own + p.mean_variance[group]).sum(0)
        p = p._replace(log_spread=log_scale_mode(len(group), squares, spread_median))
        if problem.grouped:
            precision = problem.groups * jnp.exp(-2 * p.log_group_spread) + jnp.exp(-2 * p.log_centre_scale)
            centre = mean.sum(0) * jnp.exp(-2 * p.log_group_spread) / precision
            squares = ((mean - centre) ** 2 + p.mean_variance + 1 / precision).sum(0)
            p = p._replace(
                centre=centre,
                centre_variance=1 / precision,
                log_group_spread=log_scale_mode(problem.groups, squares, group_median),
            )
            squares = centre**2 + p.centre_variance
        else:
            squares = mean[0] ** 2 + p.mean_variance[0]
        return p._replace(log_centre_scale=log_scale_mode(problem.features, squares.sum(), centre_median))

    return jax.lax.fori_loop(0, 5, turn, p)


def bound_of_annotators(problem: Problem, q: Annotators, p: Population) -> Any:
    """Return each annotator's part of the evidence lower bound.

    E_q[log P(outcomes | w)] - E_q[KL(q(w) || Normal(mean, spread^2))]
    """
    group = problem.judged.group
    own = jnp.diagonal(q.covariance, axis1=1, axis2=2)
    squares = (q.mean - p.mean[group]) ** 2 + own + p.mean_variance[group]
    terms = 1 - 2 * p.log_spread - squares * jnp.exp(-2 * p.log_spread)
    return q.expects.value + 0.5 * (q.log_det + terms.sum(1))


def bound_of_population(problem: Problem, p: Population) -> Any:
    """Return the population's part of the evidence lower bound, log prior of the logarithms of scales included."""

    def scatter(mean: Any, variance: Any, upper: Any, upper_variance: Any, log_scale: Any) -> Any:
        squares = (mean - upper) ** 2 + variance + upper_variance
        return 0.5 * (1 + jnp.log(variance) - 2 * log_scale - squares * jnp.exp(-2 * log_scale)).sum()

    def prior(log_scale: Any, log_median: float) -> Any:
        return -0.5 * (((log_scale - log_median) / LOG_SCALE) ** 2).sum()

    spread, group_spread, centre_scale = problem.log_medians
    free = np.array(problem.free, int)
    bound = (
        scatter(p.mean, p.mean_variance, *p.above(problem))
        - 0.5 * ((p.shared / jnp.array(SHARED_SCALE))[free] ** 2).sum()
    )
    bound += prior(p.log_spread, spread) + prior(p.log_centre_scale, centre_scale)
    if problem.grouped:
        bound += scatter(p.centre, p.centre_variance, 0.0, 0.0, p.log_centre_scale)
        bound += prior(p.log_group_spread, group_spread)
    return bound


@jax.jit
def start(problem: Problem) -> tuple[Annotators, Population]:
    """Return the prior, about which the first steps are taken."""
    features = problem.features
    spread, group_spread, centre_scale = problem.log_medians
    zero = jnp.zeros(features)
    p = Population(
        log_spread=zero + spread,
        log_group_spread=zero + group_spread,
        log_centre_scale=jnp.asarray(centre_scale, float),
        mean=jnp.zeros((problem.groups, features)),
        mean_variance=jnp.ones((problem.groups, features)),
        centre=zero,
        centre_variance=zero + 1,
        shared=jnp.asarray(problem.shared, float),
    )
    precision = jnp.broadcast_to(jnp.diag(jnp.exp(-2 * p.log_spread)), (problem.annotators, features, features))
    mean = jnp.zeros((problem.annotators, features))
    return look(problem, precision, mean, p.shared), p


def look(problem: Problem, precision: Any, linear: Any, shared: Any) -> Annotators:
    """Return the normal distributions with these natural parameters."""
    root = jnp.linalg.cholesky(precision)
    covariance = inverse(root)
    mean = jnp.einsum("afg,ag->af", covariance, linear)
    log_det = -2 * jnp.log(jnp.diagonal(root, axis1=1, axis2=2)).sum(1)
    return Annotators(mean, covariance, precision, log_det, expected(problem.judged, mean, covariance, shared))


def fit_annotators(problem: Problem, q: Annotators, p: Population, pace: Any) -> tuple[Annotators, Any]:
    """Take a step of each annotator to the fixed point of Opper and Archambeau (2009); keep it where the bound rises.

        precision = diag(1 / spread^2) + minus the expected Hessian
        precision mean = mean of the group / spread^2 + expected gradient + minus the expected Hessian · mean

    A step of length `pace` in these natural parameters is one along the natural gradient, so that a short one rises.
    """
    tight = jnp.exp(-2 * p.log_spread)
    pull = q.expects.linear(q.mean) + tight * p.mean[problem.judged.group]
    linear = jnp.einsum("afg,ag->af", q.precision, q.mean)
    linear += pace[:, None] * (pull - linear)
    precision = q.precision + pace[:, None, None] * (q.expects.precision + jnp.diag(tight) - q.precision)
    new = look(problem, precision, linear, p.shared)
    before = bound_of_annotators(problem, q, p)
    better = bound_of_annotators(problem, new, p) >= before - ROUNDING * jnp.abs(before)

    def chosen(new: Any, old: Any) -> Any:
        return jnp.where(better.reshape(-1, *[1] * (new.ndim - 1)), new, old)

    kept = Annotators(
        *jax.tree.map(chosen, tuple(new[:4]), tuple(q[:4])),
        expects=Expected(*jax.tree.map(chosen, tuple(new.expects[:3]), tuple(q.expects[:3])), shared=q.expects.shared),
    )
    return kept, jnp.where(better, jnp.minimum(2 * pace, 1), pace / 2)


def fit_population(problem: Problem, q: Annotators, p: Population, pace: Any) -> tuple[Annotators, Population, Any]:
    """Take a Newton step in centres, log spreads and `shared` that takes the annotators along; keep it if it rises.

    With the likelihoods' normal surrogates frozen, each annotator's weights can be integrated out, `V` their covariance
    given the population and `S = diag(spread^2)`. In `mean` and `log spread` what is left has the precisions

        sum_annotator S^-1 - S^-1 V S^-1
        2 sum_annotator (1 - S^-1/2 V S^-1/2)^2                       (squared entry by entry)

    Where judgements tell little of each annotator, `maximise` alone would crawl: annotators hold the population where
    it is, and are held by it.
    """
    group, tight = problem.judged.group, jnp.exp(-2 * p.log_spread)
    told = marginal(problem, q, p.log_spread)
    upper, _, log_scale = p.above(problem)
    above = jnp.broadcast_to(jnp.exp(-2 * log_scale), (problem.features,))
    away = q.mean - p.mean[group]
    move = solve_each(told.centres + jnp.diag(above), by_group(problem, away * tight) - (p.mean - upper) * above)
    squares = away**2 + jnp.diagonal(q.covariance, axis1=1, axis2=2) + p.mean_variance[group]
    slope = squares.sum(0) * tight - len(group) - (p.log_spread - problem.log_medians[0]) / LOG_SCALE**2
    widen = pace * jnp.clip(solve_each(told.log_spread, slope), -1, 1)
    shared = p.shared
    if problem.free:
        free = np.array(problem.free)
        weak = jnp.array([SHARED_SCALE[k] ** -2 for k in problem.free])
        gradient, hessian = q.expects.shared
        toward = solve_each(hessian[np.ix_(free, free)] + jnp.diag(weak), gradient[free] - weak * shared[free])
        shared = shared.at[free].add(pace * toward)
    moved = p._replace(mean=p.mean + pace * move, log_spread=p.log_spread + widen, shared=shared)
    loose = jnp.exp(-2 * moved.log_spread)
    linear = jnp.einsum("afg,ag->af", q.precision, q.mean) + moved.mean[group] * loose - p.mean[group] * tight
    new = look(problem, q.precision + jnp.diag(loose - tight), linear, shared)
    gain = (bound_of_annotators(problem, new, moved) - bound_of_annotators(problem, q, p)).sum()
    gain += bound_of_population(problem, moved) - bound_of_population(problem, p)
    q, p = jax.tree.map(partial(jnp.where, gain >= 0), (new, moved), (q, p))
    return q, p, jnp.where(gain >= 0, jnp.minimum(2 * pace, 1), pace / 2)


class Marginal(NamedTuple):
    """What judgements tell of the population where the likelihoods are their surrogates, weights integrated out.

    Attributes:
        centres: `[group feature feature]`, precision of `mean` without its prior.
        linear: `[group feature]`, that precision times the mean.
        log_spread: `[feature feature]`, Fisher information in `log spread`, prior included.
    """

    centres: Any
    linear: Any
    log_spread: Any


@jax.jit
def marginal(problem: Problem, q: Annotators, log_spread: Any) -> Marginal:
    """Return what judgements tell of the population."""
    root = jnp.exp(-log_spread)
    share = jnp.eye(problem.features) - root[:, None] * q.covariance * root
    linear = jnp.einsum("afg,ag->af", q.covariance, q.expects.linear(q.mean)) * root**2
    return Marginal(
        centres=by_group(problem, share) * root[:, None] * root,
        linear=by_group(problem, linear),
        log_spread=2 * (share**2).sum(0) + jnp.eye(problem.features) / LOG_SCALE**2,
    )
