"""Laplace's approximation: a normal distribution at the mode of the posterior, and how wrong it is."""

import time
import warnings
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from arviz_stats.base.array import array_stats
from jax.flatten_util import ravel_pytree
from jaxtyping import Float
from scipy.linalg import solve_triangular
from scipy.optimize import minimize

from pluralign.errors import FitError, InputError
from pluralign.reward import diagnose
from pluralign.reward.inference import AbstractInference, Canonical, Draws, Model, _at_least, _Density, as_drawn
from pluralign.types import FitReport

LARGEST = 3000
"""Unknowns up to which the dense Hessian is made."""

NEAR = 1e-3
"""Largest Newton decrement, in nats, of what is called a mode."""


@dataclass(frozen=True)
class Laplace(AbstractInference):
    """A normal distribution at the mode: seconds, for `Pooled` and other small models with much data.

        mode = argmax_z log p(z, outcomes)                       in unconstrained space, by L-BFGS and Newton's steps
        q = Normal(mode, H^-1),  H = minus the Hessian there     (MacKay 1992)

    Each draw has the importance weight p / q; the Pareto k of their tail says how far q is from the posterior (Yao,
    Vehtari, Simpson and Gelman 2018): above `min(1 - 1 / log10(draws), 0.7)` it is a caveat.

    The mode of a hierarchical model is no good centre: weights of people who said little and the spread that they
    have fall into a funnel, whose mass is elsewhere. The k shows it.

    Args:
        draws: from the approximation.
        steps: of L-BFGS, at most.
    """

    draws: int = 1000
    steps: int = 1000
    kind: Literal["laplace"] = "laplace"

    def __post_init__(self):
        _at_least(self, "draws", 100)
        _at_least(self, "steps", 1)

    def infer(self, model: Model, seed: int, canonical: Canonical = as_drawn) -> tuple[Draws, FitReport]:
        """Climb, and draw at the top, in double precision.

        Raises:
            InputError: there are more than `LARGEST` unknowns.
            FitError: no mode was found, or what was found is none.
        """
        begin = time.perf_counter()
        with jax.enable_x64(True):
            density = _Density(model)
            start, unravel = ravel_pytree(jax.jit(partial(density.start, radius=0.1))(jax.random.key(seed)))
            if start.size > LARGEST:
                raise InputError(
                    f"the model has {start.size:,} unknowns, and Laplace makes a dense matrix of up to {LARGEST:,}; "
                    "use Gibbs, VariationalEM or SVI."
                )
            mode, root = self._climb(lambda z: density.potential(unravel(z)), np.asarray(start), unravel)
            noise = np.random.default_rng(seed).normal(size=(self.draws, len(mode)))
            z = mode + solve_triangular(root, noise.T, lower=True, trans=1).T
            log_p = -np.asarray(jax.jit(partial(jax.lax.map, lambda z: density.potential(unravel(z))))(z))
            sites = density.constrain(jax.vmap(unravel)(jnp.asarray(z)), 1)
        sites = {name: value[0] for name, value in canonical({n: v[None] for n, v in sites.items()}).items()}
        diagnose.check_finite(sites)
        k, limit = pareto(log_p + (noise**2).sum(1) / 2), min(1 - 1 / np.log10(self.draws), 0.7)
        caveat = (
            f"The Pareto k of the importance weights is {k:.2f}, where at most {limit:.2f} is good: the posterior is "
            "not the normal distribution at its mode. Use NUTS, or Gibbs."
        )
        report = diagnose.independent(
            self.draws,
            method=f"Laplace's approximation, {len(mode)} unknowns",
            seconds=time.perf_counter() - begin,
            caveats=() if k <= limit else (caveat,),
            notes=(f"Pareto k of the importance weights: {k:.2f}.",),
        )
        return sites, report

    def _climb(self, potential: Any, start: np.ndarray, unravel: Any) -> tuple[np.ndarray, np.ndarray]:
        """Return the mode, and the Cholesky factor of minus the Hessian there."""
        slope = jax.grad(potential)

        @jax.jit
        def hessian(z: Any) -> Any:
            column = lambda direction: jax.jvp(slope, (z,), (direction,))[1]  # noqa: E731
            return jax.lax.map(column, jnp.eye(z.size, dtype=z.dtype), batch_size=min(64, z.size))

        value_and_slope = jax.jit(jax.value_and_grad(potential))
        options = {"maxiter": self.steps, "maxfun": 10 * self.steps, "maxcor": 30, "gtol": 1e-6, "ftol": 1e-15}
        both = lambda z: tuple(np.asarray(part, np.float64) for part in value_and_slope(z))  # noqa: E731
        at = np.asarray(minimize(both, start, jac=True, method="L-BFGS-B", options=options).x)
        decrement, root = np.inf, np.eye(len(at))
        for _ in range(5):
            value, gradient = both(at)
            matrix = np.asarray(hessian(at), np.float64)
            diagnose.check_finite({"the log density at its mode": np.append(gradient, value), "Hessian": matrix})
            root = _root((matrix + matrix.T) / 2, unravel)
            step = solve_triangular(root, gradient, lower=True)
            decrement = step @ step / 2
            if decrement < NEAR / 1000:
                break
            at = at - solve_triangular(root, step, lower=True, trans=1)
        if not decrement < NEAR:
            raise FitError(
                f"L-BFGS stopped {decrement:.2g} nats below where a mode should be: it has not climbed all the way, or "
                "the posterior is far from normal there. Take more `steps`, or use NUTS."
            )
        return at, root


def _root(matrix: Float[np.ndarray, "unknown unknown"], unravel: Any) -> Float[np.ndarray, "unknown unknown"]:
    try:
        return np.linalg.cholesky(matrix)
    except np.linalg.LinAlgError as error:
        value, vector = np.linalg.eigh(matrix)
        size = {name: np.linalg.norm(part) for name, part in unravel(jnp.asarray(vector[:, 0])).items()}
        name = max(size, key=lambda name: size[name])
        raise FitError(
            f"where L-BFGS stopped, the log density curves upwards ({-value[0]:.2g}, along {name.removesuffix('_z')}), "
            "so it is no mode. Usually the posterior has several, or the climb was cut short: take more `steps`, "
            "another `seed`, or use NUTS."
        ) from error


def pareto(log_weight: Float[np.ndarray, " draw"]) -> float:
    """Return the Pareto k of the largest importance weights: minus infinity if all are alike, infinity if undefined."""
    if np.ptp(log_weight) < 1e-9:
        return -np.inf
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # tails without spread, which are told by k
        k = float(array_stats.psislw(-log_weight)[1])  # it takes log likelihoods, whose weights are their inverses
    return np.inf if np.isnan(k) else k
