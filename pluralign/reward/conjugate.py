"""Centres and scales of a population given everybody's weights, which judgements then say nothing about."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from pluralign.reward.chain import Frozen, above
from pluralign.reward.em import by_group, log_scale_mode
from pluralign.reward.surrogate import LOG_SCALE, Draw, Problem


def draw_population(problem: Problem, frozen: Frozen, at: Draw, key: Any) -> Draw:
    """Draw centres and scales given weights.

    Centres are normal, the common centre with those of groups integrated out; scales are sliced.
    """
    normal_key, uniform_key = jax.random.split(key)
    noise = jax.random.normal(normal_key, (problem.groups + 1, problem.features))
    uniform = jax.random.uniform(uniform_key, (2, 2 * problem.features + 1))
    group, n, total = problem.judged.group, frozen.sizes, by_group(problem, at.weights)
    tight = jnp.exp(-2 * at.log_spread)
    if problem.grouped:
        # Given the common centre, a group's sum of weights has the variance n (n group_spread^2 + spread^2).
        told = 1 / (n * jnp.exp(2 * at.log_group_spread) + 1 / tight)
        precision = (n * told).sum(0) + jnp.exp(-2 * at.log_centre_scale)
        at = at._replace(centre=(total * told).sum(0) / precision + noise[-1] / jnp.sqrt(precision))
    centre, weak = above(problem, at)
    precision = n * tight + weak
    at = at._replace(mean=(total * tight + weak * centre) / precision + noise[:-1] / jnp.sqrt(precision))
    top = at.centre if problem.grouped else at.mean[0]
    squares = [((at.weights - at.mean[group]) ** 2).sum(0), ((at.mean - at.centre) ** 2).sum(0), (top**2).sum()[None]]
    scales = [at.log_spread, at.log_group_spread, at.log_centre_scale[None]]
    lengths = [problem.features, problem.features, 1]
    new = slice_log_scale(
        uniform,
        jnp.concatenate(scales),
        np.repeat([problem.annotators, problem.groups, problem.features], lengths),
        jnp.concatenate(squares),
        np.repeat(problem.log_medians, lengths),
    )
    spread, group_spread, centre_scale = jnp.split(new, np.cumsum(lengths)[:2])
    return at._replace(log_spread=spread, log_group_spread=group_spread, log_centre_scale=centre_scale[0])


def slice_log_scale(uniform: Any, u: Any, count: Any, squares: Any, log_median: Any) -> Any:
    """Return a slice-sampling update (Neal 2003) of the logarithm of a scale, as in `log_scale_mode`.

    About its mode the log density falls by

        fall (exp(-2 t) - 1 + 2 t) / 2 + t^2 / (2 LOG_SCALE^2),    fall = squares exp(-2 mode)

    at a distance `t`: convex, and at least the last term, which brackets both ends of a slice for bisection.
    """
    mode = log_scale_mode(count, squares, log_median)
    fall = squares * jnp.exp(-2 * mode)

    def depth(t: Any) -> Any:
        return fall * (jnp.expm1(-2 * t) + 2 * t) / 2 + t**2 / (2 * LOG_SCALE**2)

    level = depth(u - mode) - jnp.log1p(-uniform[0])
    reach = LOG_SCALE * jnp.sqrt(2 * level)

    def end(side: int) -> Any:
        def halve(_: Any, ends: Any) -> Any:
            middle = (ends[0] + ends[1]) / 2
            inside = depth(middle) <= level
            return jnp.where(inside, middle, ends[0]), jnp.where(inside, ends[1], middle)

        return jax.lax.fori_loop(0, 30, halve, (jnp.zeros_like(reach), side * reach))[0]

    low, high = end(-1), end(1)
    return mode + low + uniform[1] * (high - low)
