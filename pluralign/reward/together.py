"""Many feedbacks of one shape fitted at once, each for itself: compiled once, where a fit apiece compiles each time."""

import copy
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
from jax.flatten_util import ravel_pytree
from numpyro import distributions as dist
from numpyro.infer import util

from pluralign.errors import InputError
from pluralign.reward.inference import SVI, AbstractInference, Draws
from pluralign.reward.judgements import Judgements, Layout
from pluralign.reward.population import AbstractPopulation
from pluralign.types import Features, Feedback, FitReport, RewardPosterior


def fit_together(
    population: AbstractPopulation,
    votes: Sequence[Feedback],
    phi: Sequence[Features],
    *,
    inference: AbstractInference,
    seed: int = 0,
) -> list[RewardPosterior]:
    """Return the posterior of each feedback, as `population.fit` of each alone would give it.

    The joint density is the product of theirs, so NUTS draws from each as from all. With independent normals the bound
    of SVI is a sum, and every step of Adam concerns one coordinate: the fits do not feel each other. Diagnostics are of
    all together, the worst coordinate of the worst fit.

    Args:
        population: of each.
        votes: as many annotators, judgements by each of them and features in all of them.
        phi: features of the items of each.
        inference: NUTS, or SVI with independent normals.
        seed: of the draws.

    Raises:
        InputError: the feedbacks differ in shape, or the inference is an SVI with correlations.
        FitError: the draws are not finite.
    """
    judged = [Judgements.read(v, f) for v, f in zip(votes, phi, strict=True)]
    ties = any(j.ties for j in judged)
    layouts = [replace(population.layout(v, j), ties=ties) for j, v in zip(judged, votes, strict=True)]
    draws, report = sample_together(population, layouts, inference=inference, seed=seed)
    found = []
    for own, v, f, j in zip(draws, votes, phi, judged, strict=True):
        own = {name: value[None] for name, value in own.items() if not name.endswith("_z")}
        own = {name: value[0] for name, value in population.canonical(own).items()}
        found.append(population.posterior(own, v, f, j.unit, report))
    return found


def sample_together(
    population: AbstractPopulation, layouts: Sequence[Layout], *, inference: AbstractInference, seed: int
) -> tuple[list[Draws], FitReport]:
    """Return draws of the sites of the model of each layout, in the names that the chains had, and their diagnostics.

    Args:
        population: of each.
        layouts: of one shape.
        inference: NUTS, or SVI with independent normals.
        seed: of the draws.

    Raises:
        InputError: the layouts differ in shape, or the inference is an SVI with correlations.
        FitError: the draws are not finite.
    """
    if isinstance(inference, SVI) and (inference.joint or inference.rank is not None):
        raise InputError(
            f"rank is {inference.rank} and joint {inference.joint}; feedbacks are fitted together by independent "
            "normals: rank none, joint false."
        )
    stack = _Stack.of(layouts)
    potential = lambda z, data: util.potential_energy(partial(population.model, stack.layout(data)), (), {}, z)  # noqa: E731
    one = partial(population.model, layouts[0])
    shapes = jax.eval_shape(lambda: util.initialize_model(jax.random.key(0), one).param_info.z)
    flat, unravel = ravel_pytree(jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes))

    def model() -> None:
        shape = (len(layouts), flat.size)
        z = numpyro.sample("together", dist.ImproperUniform(dist.constraints.real, (), shape))
        with numpyro.handlers.block():  # nodes of the single models are no nodes of this one
            energy = jax.vmap(lambda row, data: potential(unravel(row), data))(z, stack.data)
        numpyro.factor("density", -jnp.sum(jnp.asarray(energy)))

    sites, report = inference.infer(model, seed)
    constrain = jax.jit(
        jax.vmap(
            lambda row, data: util.constrain_fn(
                partial(population.model, stack.layout(data)), (), {}, unravel(row), return_deterministic=True
            ),
            (0, None),
        )
    )
    rows = [jax.tree.map(lambda leaf, r=r: leaf[r], stack.data) for r in range(len(layouts))]
    draws = [constrain(sites["together"][:, r], row) for r, row in enumerate(rows)]
    return [{name: np.asarray(value) for name, value in own.items()} for own in draws], report


@dataclass(frozen=True, eq=False)
class _Stack:
    """Layouts of one shape: what they have in common once, and the rest stacked."""

    first: Layout
    tree: Any
    leaves: list[Any]
    differ: list[int]
    data: list[np.ndarray]

    @classmethod
    def of(cls, layouts: Sequence[Layout]) -> "_Stack":
        flat = [jax.tree.flatten(vars(layout)) for layout in layouts]
        rows = list(zip(*(leaves for leaves, _ in flat), strict=True))
        shapes = {str(tree) + str([np.shape(leaf) for leaf in leaves]) for leaves, tree in flat}
        if len(shapes) > 1:
            raise InputError("feedbacks that are fitted together need as many annotators and judgements by each.")
        differ = [i for i, row in enumerate(rows) if any(not np.array_equal(row[0], leaf) for leaf in row)]
        return cls(layouts[0], flat[0][1], flat[0][0], differ, [np.stack(rows[i]) for i in differ])

    def layout(self, data: list[Any]) -> Layout:
        """Return the layout of one feedback, whose own arrays may be traced."""
        leaves = list(self.leaves)
        for i, own in zip(self.differ, data, strict=True):
            leaves[i] = own
        layout = copy.copy(self.first)
        vars(layout).update(jax.tree.unflatten(self.tree, leaves))  # past __init__, which wants numpy
        return layout
