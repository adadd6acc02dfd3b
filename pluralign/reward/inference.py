"""How a posterior is computed: from a numpyro model to draws and their diagnostics."""

import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
from jaxtyping import Float
from numpyro.infer import autoguide, reparam, util

from pluralign.errors import InputError
from pluralign.reward import diagnose
from pluralign.types import FitReport

Model = Callable[[], None]
Draws = dict[str, Float[np.ndarray, "draw ..."]]


def centred(**information: Any) -> numpyro.handlers.reparam:
    """Return a handler that samples each named site somewhere between itself and its offset from the population.

    The posterior is the same (Gorinova, Moore and Hoffman 2020), chains mix better: `c = information /
    (information + 1)` is 1 (centred) where the data say much more than the prior, 0 (not centred) where they say
    nothing. `information` is data precision over prior precision, roughly.
    """
    config: Any = {name: reparam.LocScaleReparam(value / (value + 1)) for name, value in information.items()}
    return numpyro.handlers.reparam(config=config)


class AbstractInference(ABC):
    """From a numpyro model without arguments to draws of its sites."""

    @abstractmethod
    def infer(self, model: Model, seed: int) -> tuple[Draws, FitReport]:
        """Return draws of every site in constrained space, all chains one after the other, and their diagnostics.

        Raises:
            FitError: the draws are not finite.
        """


@dataclass(frozen=True)
class NUTS(AbstractInference):
    """The No-U-Turn sampler (Hoffman and Gelman 2014; numpyro): exact up to Monte-Carlo error, if it converged.

    Args:
        draws: kept per chain.
        warmup: steps per chain that adapt step size and mass matrix and are thrown away.
        chains: independent chains; at least two, since R-hat compares them.
        target_accept: higher is slower and diverges less.
        max_tree_depth: a transition takes at most `2^max_tree_depth - 1` steps.
    """

    draws: int = 500
    warmup: int = 500
    chains: int = 2
    target_accept: float = 0.8
    max_tree_depth: int = 8
    kind: Literal["nuts"] = "nuts"

    def __post_init__(self):
        for name, least in (("draws", 4), ("warmup", 1), ("chains", 2), ("max_tree_depth", 1)):
            _at_least(self, name, least)
        if not 0 < self.target_accept < 1:
            raise InputError(f"target_accept is {self.target_accept}; it lies between 0 and 1.")

    def infer(self, model: Model, seed: int) -> tuple[Draws, FitReport]:
        """Run the chains together, vectorised, in one process and in float64."""
        start = time.perf_counter()
        with jax.enable_x64(True):
            key, start_key = jax.random.split(jax.random.key(seed))
            # Given the potential as one compiled function, numpyro does not compile each of its operations.
            sampler = numpyro.infer.MCMC(
                numpyro.infer.NUTS(
                    potential_fn=jax.jit(partial(util.potential_energy, model, (), {})),
                    target_accept_prob=self.target_accept,
                    max_tree_depth=self.max_tree_depth,
                ),
                num_warmup=self.warmup,
                num_samples=self.draws,
                num_chains=self.chains,
                chain_method="vectorized",
                progress_bar=sys.stderr.isatty(),
                postprocess_fn=partial(util.constrain_fn, model, (), {}, return_deterministic=True),
            )
            sampler.run(key, init_params=self._start(model, start_key), extra_fields=("diverging", "num_steps"))
            sites = _sites(sampler.get_samples(group_by_chain=True))
            extra = sampler.get_extra_fields()
        steps = np.asarray(extra["num_steps"])
        report = diagnose.report(
            sites,
            divergences=int(extra["diverging"].sum()),
            saturated=float((steps >= 2**self.max_tree_depth - 1).mean()),
            method=f"NUTS, {self.chains} chains, {self.warmup} steps of warm-up and {self.draws} draws each",
            seconds=time.perf_counter() - start,
        )
        return {name: value.reshape(-1, *value.shape[2:]) for name, value in sites.items()}, report

    def _start(self, model: Model, key: Any) -> Any:
        """Return where chains start: uniform in (-1, 1) for each unconstrained parameter."""
        shapes = jax.eval_shape(lambda: util.initialize_model(key, model).param_info.z)
        leaves, tree = jax.tree.flatten(shapes)
        keys = jax.random.split(key, len(leaves))
        start = [
            jax.random.uniform(k, (self.chains, *leaf.shape), leaf.dtype, -1, 1)
            for k, leaf in zip(keys, leaves, strict=True)
        ]
        return jax.tree.unflatten(tree, start)


@dataclass(frozen=True)
class SVI(AbstractInference):
    """Stochastic variational inference: a normal approximation, fast, good for predictions, too sure of itself.

    Maximises the evidence lower bound (Kucukelbir et al. 2017) over normal distributions in unconstrained space, all
    judgements at every step, with Adam whose step size falls to a hundredth along a cosine.

    Args:
        steps: of Adam.
        learning_rate: of Adam, at first.
        draws: from the approximation.
        rank: of the covariance beside its diagonal; none: independent normals (mean field).
    """

    steps: int = 3000
    learning_rate: float = 0.02
    draws: int = 500
    rank: int | None = None
    kind: Literal["svi"] = "svi"

    def __post_init__(self):
        for name, least in (("steps", 10), ("draws", 1), ("rank", 1)):
            if getattr(self, name) is not None:
                _at_least(self, name, least)
        if not self.learning_rate > 0:
            raise InputError(f"learning_rate is {self.learning_rate}; it must be positive.")

    def infer(self, model: Model, seed: int) -> tuple[Draws, FitReport]:
        """Optimise in float64 and draw."""
        start = time.perf_counter()
        with jax.enable_x64(True):
            init = numpyro.infer.init_to_uniform(radius=0.1)
            if self.rank is None:
                guide = autoguide.AutoNormal(model, init_loc_fn=init)
            else:
                guide = autoguide.AutoLowRankMultivariateNormal(model, init_loc_fn=init, rank=self.rank)
            svi = numpyro.infer.SVI(model, guide, numpyro.optim.Adam(self._step_size), numpyro.infer.Trace_ELBO())
            key, draw_key = jax.random.split(jax.random.key(seed))
            fit = svi.run(key, self.steps, progress_bar=sys.stderr.isatty())
            latent = guide.sample_posterior(draw_key, fit.params, sample_shape=(self.draws,))
            sites = _sites(latent)
            elbo = -np.asarray(fit.losses)
        report = diagnose.variational(
            sites,
            elbo,
            method=f"SVI, {'mean field' if self.rank is None else f'rank {self.rank}'}, {self.steps} steps",
            seconds=time.perf_counter() - start,
        )
        return sites, report

    def _step_size(self, step: Any) -> Any:
        return self.learning_rate * (0.01 + 0.99 * (1 + jnp.cos(jnp.pi * step / self.steps)) / 2)


def _sites(samples: Any) -> Draws:
    """Return the nodes of the model as arrays, without the auxiliaries of a reparametrisation."""
    return {name: np.asarray(value) for name, value in samples.items() if not name.endswith("_decentered")}


def _at_least(component: Any, name: str, least: int) -> None:
    if getattr(component, name) < least:
        raise InputError(f"{name} is {getattr(component, name)}; it must be at least {least}.")
