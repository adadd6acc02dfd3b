"""How a posterior is computed: from a numpyro model to draws and their diagnostics."""

import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
from jax.flatten_util import ravel_pytree
from jaxtyping import Float, Int
from numpyro import distributions as dist
from numpyro import handlers
from numpyro.infer import util
from rich.console import Console
from rich.progress import track

from pluralign.errors import InputError
from pluralign.reward import diagnose
from pluralign.reward.portions import Portions
from pluralign.types import FitReport

Model = Callable[[], None]
Draws = dict[str, Float[np.ndarray, "draw ..."]]
Canonical = Callable[[Draws], Draws]


def as_drawn(sites: Draws) -> Draws:
    """Return draws as they are."""
    return sites


class AbstractInference(ABC):
    """From a numpyro model without arguments to draws of its sites."""

    @abstractmethod
    def infer(self, model: Model, seed: int, canonical: Canonical = as_drawn) -> tuple[Draws, FitReport]:
        """Return draws of every site in constrained space, all chains one after the other, and their diagnostics.

        Args:
            model: writes the numpyro model.
            seed: of the draws.
            canonical: from draws `[chain draw ...]` to draws whose labels mean the same in all, before diagnostics.

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

    draws: int = 1000
    warmup: int = 500
    chains: int = 2
    target_accept: float = 0.9
    max_tree_depth: int = 10
    kind: Literal["nuts"] = "nuts"

    def __post_init__(self):
        for name, least in (("draws", 4), ("warmup", 1), ("chains", 2), ("max_tree_depth", 1)):
            _at_least(self, name, least)
        if not 0 < self.target_accept < 1:
            raise InputError(f"target_accept is {self.target_accept}; it lies between 0 and 1.")

    def infer(self, model: Model, seed: int, canonical: Canonical = as_drawn) -> tuple[Draws, FitReport]:
        """Run the chains side by side, each on a thread, in float32."""
        start = time.perf_counter()
        with jax.enable_x64(False):
            density = _Density(model)
            kernel = numpyro.infer.NUTS(
                potential_fn=density.potential,
                target_accept_prob=self.target_accept,
                max_tree_depth=self.max_tree_depth,
            )

            def begin(key: Any) -> Any:
                return kernel.init(key, self.warmup, density.start(key, 1.0), (), {})

            def advance(state: Any) -> Any:
                def step(state: Any, _: None) -> Any:
                    state = kernel.sample(state, (), {})
                    return state, (state.z, state.diverging, state.num_steps, state.energy)

                return jax.lax.scan(step, state, length=length)

            total = self.warmup + self.draws
            rounds = -(-total // 25)
            length = -(-total // rounds)
            states = [jax.jit(begin)(key) for key in jax.random.split(jax.random.key(seed), self.chains)]
            # Compiled once for all chains; threads then only execute, since numpyro cannot trace in two at a time.
            compiled = jax.jit(advance).lower(states[0]).compile()
            history = []
            with ThreadPoolExecutor(self.chains) as pool:
                for _ in _progress(rounds, "NUTS"):
                    outcome = list(pool.map(lambda state: jax.block_until_ready(compiled(state)), states))
                    states = [state for state, _ in outcome]
                    history.append(
                        jax.device_get(jax.tree.map(lambda *chains: np.stack(chains), *[o for _, o in outcome]))
                    )
            z, diverging, steps, energy = jax.tree.map(
                lambda *rounds: np.concatenate(rounds, 1)[:, self.warmup : total], *history
            )
            sites = canonical(density.constrain(z, 2))
        report = diagnose.report(
            sites,
            divergences=int(diverging.sum()),
            saturated=float((steps >= 2**self.max_tree_depth - 1).mean()),
            energy=energy,
            method=f"NUTS, {self.chains} chains, {self.warmup} steps of warm-up and {self.draws} draws each",
            seconds=time.perf_counter() - start,
        )
        return {name: value.reshape(-1, *value.shape[2:]) for name, value in sites.items()}, report


@dataclass(frozen=True)
class SVI(AbstractInference):
    """Stochastic variational inference: a normal approximation, fast, good for predictions, too sure of itself.

        q = Normal(loc, covariance)                              in unconstrained space
        ELBO = E_q[log p(z, outcomes)] + H(q)                    one draw per step
        covariance = diag(scale)^2                               by default: mean field
        covariance = diag(scale)^2 + factor factor^T             with `rank`
        covariance = root root^T, root = diag(scale) (I + lower) with `joint`; lower: within each annotator

    With `joint`, all that is unknown of an annotator (weights or place, temperature, ties and so on) is one normal
    vector. What people said seldom tells these apart, which independent normals cannot express: with one ranking of
    each of 4,000 people they predict worse.

    Adam climbs with a step size that falls to a hundredth along a cosine (Kucukelbir et al. 2017; the factor: Ong, Nott
    and Smith 2018). With `batch`, a step sees the judgements of some annotators alone, until all had a turn; its
    gradient is unbiased (Hoffman, Blei, Wang and Paisley 2013). A step costs less, and more of them are needed.

    Args:
        steps: of Adam.
        learning_rate: of Adam, at first.
        draws: from the approximation.
        rank: columns of `factor`; none: independent normals (mean field).
        joint: let the unknowns of an annotator correlate, by a matrix of their own, so for up to some tens of them.
        batch: annotators per step, at most; none: all.
        devices: of jax, over which annotators are spread.
    """

    steps: int = 3000
    learning_rate: float = 0.02
    draws: int = 500
    rank: int | None = None
    joint: bool = False
    batch: int | None = None
    devices: int = 1
    kind: Literal["svi"] = "svi"

    def __post_init__(self):
        for name, least in (("steps", 10), ("draws", 1), ("rank", 1), ("batch", 1), ("devices", 1)):
            if getattr(self, name) is not None:
                _at_least(self, name, least)
        if not self.learning_rate > 0:
            raise InputError(f"learning_rate is {self.learning_rate}; it must be positive.")
        if self.joint and self.rank is not None:
            raise InputError(f"rank is {self.rank} and joint is set; choose one form of the covariance.")

    def infer(self, model: Model, seed: int, canonical: Canonical = as_drawn) -> tuple[Draws, FitReport]:
        """Optimise in float32 and draw."""
        start = time.perf_counter()
        with jax.enable_x64(False):
            density = _Density(model)
            keys: Any = jax.random.split(jax.random.key(seed), 3)
            start_key, step_key, draw_key = keys
            loc, unravel = ravel_pytree(jax.jit(partial(density.start, radius=0.1))(start_key))
            optimizer = numpyro.optim.Adam(self._step_size)
            parameters = {"loc": loc, "log_scale": jnp.full(loc.shape, -2, loc.dtype)}
            if self.rank is not None:
                parameters["factor"] = 0.01 * jax.random.normal(start_key, (loc.size, self.rank))
            own = density.members("annotator") if self.joint else np.zeros((0, 0), int)
            if own.size:
                parameters["lower"] = jnp.zeros((*own.shape, own.shape[1]), loc.dtype)
            state = optimizer.init(parameters), jnp.zeros(self.steps, loc.dtype)
            portions, data = None, {}
            if self.batch is not None or self.devices > 1:
                portions = Portions.of(model, self.batch, self.devices, seed)
                state, data = jax.device_put(state, portions.everywhere), portions.data
            keys, turns = (
                jax.random.split(step_key, self.steps),
                _turns(portions.count if portions else 1, self.steps, seed),
            )

            def loss(parameters: Any, key: Any, turn: Any, data: Any) -> Any:
                there = unravel(self._draw(parameters, own, key))
                energy = portions.potential(there, data, turn) if portions else density.potential(there)
                return energy - self._approximation(parameters).entropy()

            # One compilation whatever the number of steps, so that the bounds of the loop are arguments.
            @partial(jax.jit, donate_argnums=0, out_shardings=portions and portions.everywhere)
            def advance(state: Any, first: Any, last: Any, keys: Any, turns: Any, data: Any) -> Any:
                def step(i: Any, state: Any) -> Any:
                    at, elbo = state
                    value, gradient = jax.value_and_grad(loss)(optimizer.get_params(at), keys[i], turns[i], data)
                    return optimizer.update(gradient, at), elbo.at[i].set(-value)

                return jax.lax.fori_loop(first, last, step, state)

            ends = np.linspace(0, self.steps, 1 + -(-self.steps // 100)).astype(np.int32)
            for part in _progress(len(ends) - 1, "SVI"):
                state = advance(state, ends[part], ends[part + 1], keys, turns, data)
            at, elbo = state
            elbo = np.asarray(elbo)
            diagnose.check_finite({"elbo": elbo})
            z = self._draw(jax.device_get(optimizer.get_params(at)), own, draw_key, self.draws)
            sites = density.constrain(jax.vmap(unravel)(z), 1)
        sites = {name: value[0] for name, value in canonical({n: v[None] for n, v in sites.items()}).items()}
        report = diagnose.variational(
            sites,
            elbo,
            method=f"SVI, {self._form()}, {self.steps} steps"
            + (f" with {self.batch} annotators each" if self.batch else ""),
            seconds=time.perf_counter() - start,
        )
        return sites, report

    def _step_size(self, step: Any) -> Any:
        return self.learning_rate * (0.01 + 0.99 * (1 + jnp.cos(jnp.pi * step / self.steps)) / 2)

    def _form(self) -> str:
        if self.joint:
            return "annotators jointly normal"
        return "mean field" if self.rank is None else f"rank {self.rank}"

    def _draw(self, parameters: Any, own: Int[np.ndarray, "annotator unknown"], key: Any, *shape: int) -> Any:
        """Return draws of all unknowns; `own` are the places of those that correlate."""
        if "lower" not in parameters:
            return self._approximation(parameters).rsample(key, shape)
        noise = jax.random.normal(key, (*shape, parameters["loc"].size), parameters["loc"].dtype)
        more = jnp.einsum("akj,...aj->...ak", jnp.tril(parameters["lower"], -1), noise[..., own])
        return parameters["loc"] + jnp.exp(parameters["log_scale"]) * noise.at[..., own].add(more)

    def _approximation(self, parameters: Any) -> dist.Distribution:
        """Return the approximation, or with `lower`, whose determinant is 1, one of the same entropy."""
        loc, scale = parameters["loc"], jnp.exp(parameters["log_scale"])
        if self.rank is None:
            return dist.Normal(loc, scale).to_event(1)
        return dist.LowRankMultivariateNormal(loc, parameters["factor"], scale**2)


def _turns(count: int, steps: int, seed: int) -> np.ndarray:
    """Return which portion each step sees: all in random order, then all again."""
    rng = np.random.default_rng(seed)
    rounds = [rng.permutation(count) for _ in range(-(-steps // count))]
    return np.concatenate(rounds)[:steps].astype(np.int32)


class _Density:
    """The unconstrained posterior density of a numpyro model.

    Given as one compiled function: numpyro would otherwise compile every operation of the model apart.
    """

    def __init__(self, model: Model):
        self.model = model
        self.potential = jax.jit(partial(util.potential_energy, model, (), {}))
        self.shapes = jax.eval_shape(lambda: util.initialize_model(jax.random.key(0), model).param_info.z)

    def start(self, key: Any, radius: float) -> Any:
        """Return a point, uniform in (-radius, radius) in each coordinate."""
        leaves, tree = jax.tree.flatten(self.shapes)
        keys = jax.random.split(key, len(leaves))
        return jax.tree.unflatten(
            tree,
            [jax.random.uniform(k, v.shape, v.dtype, -radius, radius) for k, v in zip(keys, leaves, strict=True)],
        )

    def members(self, plate: str) -> Int[np.ndarray, "member unknown"]:
        """Return the places, in the flat vector, of all that is unknown of each member of a plate."""
        axis: dict[str, int] = {}

        def look(key: Any) -> None:
            for name, node in handlers.trace(handlers.seed(self.model, key)).get_trace().items():
                for frame in node["cond_indep_stack"] if name in self.shapes else ():
                    if frame.name == plate:
                        axis[name] = len(node["fn"].batch_shape) + frame.dim

        jax.eval_shape(look, jax.random.key(0))
        leaves, tree = jax.tree.flatten(self.shapes)
        ends = np.cumsum([leaf.size for leaf in leaves])
        spans = [np.arange(e - v.size, e).reshape(v.shape) for e, v in zip(ends, leaves, strict=True)]
        places = jax.tree.unflatten(tree, spans)
        parts = [np.moveaxis(places[name], at, 0) for name, at in axis.items()]
        return np.concatenate([part.reshape(len(part), -1) for part in parts], 1) if parts else np.zeros((0, 0), int)

    def constrain(self, z: Any, batch_ndims: int) -> Draws:
        """Return the nodes of the model at `z`, without the coordinates that stand in for them."""
        constrain = partial(util.constrain_fn, self.model, (), {}, return_deterministic=True, batch_ndims=batch_ndims)
        return {name: np.asarray(value) for name, value in jax.jit(constrain)(z).items() if not name.endswith("_z")}


def _progress(steps: Any, name: str) -> Any:
    """Iterate under a progress bar, which is quiet when stderr is no terminal."""
    console = Console(stderr=True)
    steps = range(steps) if isinstance(steps, int) else steps
    return track(steps, name, console=console, transient=True, disable=not console.is_terminal)


def _at_least(component: Any, name: str, least: int) -> None:
    if getattr(component, name) < least:
        raise InputError(f"{name} is {getattr(component, name)}; it must be at least {least}.")
