"""What a chain of Gibbs sweeps knows, and how it accepts."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from pluralign.reward.em import Annotators, Marginal, Population, by_group, marginal
from pluralign.reward.surrogate import LOG_SCALE, Draw, Expected, Problem, answer

SCARCE = 0.3
"""Information on a `log spread`, as a share of what known weights would give, below which judgements are scarce."""


class Frozen(NamedTuple):
    """What does not change while the chain runs.

    Attributes:
        precision: `[annotator feature feature]`, of the surrogates.
        linear: `[annotator feature]`, that times their means.
        marginal: what the surrogates tell of the population.
        annotators, population: the start.
        sizes: `[group 1]`, number of annotators.
        scarce: whether judgements tell little of each annotator.
    """

    precision: Any
    linear: Any
    marginal: Marginal
    annotators: Annotators
    population: Population
    sizes: Any
    scarce: Any

    @classmethod
    def of(cls, problem: Problem, q: Annotators, p: Population) -> "Frozen":
        """Freeze the surrogates that variational EM arrived at."""
        told = marginal(problem, q, p.log_spread)
        sizes = by_group(problem, jnp.ones((problem.annotators, 1)))
        known = (jnp.diagonal(told.log_spread) - LOG_SCALE**-2) / (2 * problem.annotators)
        linear = jax.jit(Expected.linear)(q.expects, q.mean)
        return cls(q.expects.precision, linear, told, q, p, sizes, known.min() < SCARCE)

    def learnt(self, log_spread: Float[np.ndarray, "draw feature"]) -> "Frozen":
        """Return the same with proposals of the spreads about where warm-up found them, and at least as wide."""
        covariance = np.linalg.inv(np.asarray(self.marginal.log_spread, np.float64))
        wider = np.maximum(log_spread[len(log_spread) // 2 :].std(0) / np.sqrt(np.diag(covariance)), 1)
        told = np.linalg.inv(covariance * wider[:, None] * wider).astype(np.float32)
        middle = log_spread[len(log_spread) // 2 :].mean(0)
        return self._replace(
            marginal=self.marginal._replace(log_spread=jnp.asarray(told)),
            population=self.population._replace(log_spread=jnp.asarray(middle)),
        )


class Chain(NamedTuple):
    """A chain between sweeps.

    Attributes:
        key: of its random numbers.
        at: where it is.
        advantage: `[choice]`, of the weights.
        value: `[annotator]`, log likelihood.
    """

    key: Any
    at: Draw
    advantage: Any
    value: Any


def value_of(problem: Problem, advantage: Any, shared: Any) -> Any:
    """Return the log likelihood of each annotator's choices."""
    return problem.judged.total(answer(problem.judged, advantage, shared).log_p)


def accepts(uniform: Any, log_ratio: Any) -> Any:
    """Return whether to accept proposals (Metropolis et al. 1953; Hastings 1970); never those that are not numbers."""
    return jnp.log(uniform) < log_ratio


def angle(uniform: Any) -> Any:
    """Return how far to turn a proposal: half the time a right angle, which is an independent draw, else any angle."""
    return jnp.where(uniform < 0.5, jnp.pi / 2, 2 * jnp.pi * (uniform - 0.5))


def above(problem: Problem, at: Draw) -> tuple[Any, Any]:
    """Return mean and precision, per feature, of the population that `mean` is from."""
    centre, log_scale = (at.centre, at.log_group_spread) if problem.grouped else (0.0, at.log_centre_scale)
    return centre, jnp.broadcast_to(jnp.exp(-2 * log_scale), (problem.features,))
