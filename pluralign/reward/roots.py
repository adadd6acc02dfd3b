"""Batches of small positive definite matrices by their Cholesky factors, one batch at a time."""

from typing import Any

import jax
import jax.numpy as jnp


def normal(noise: Any, mean: Any, precision: Any) -> Any:
    """Return a draw from a normal distribution, or one for each group, given its precision and standard noise."""

    def colour(precision: Any, noise: Any) -> Any:
        return solve_triangular(jnp.linalg.cholesky(precision), noise[..., None], transpose_a=True)[..., 0]

    return mean + each(colour, precision, noise)


def solve_each(matrix: Any, vector: Any) -> Any:
    """Return `matrix^-1 vector`, for one or for each group."""
    return each(lambda matrix, vector: solve(jnp.linalg.cholesky(matrix), vector), matrix, vector)


def each(function: Any, matrix: Any, *rest: Any) -> Any:
    """Apply to one matrix, or to each of a few, one after the other (see `after`)."""
    if matrix.ndim == 2:
        return function(matrix, *rest)
    return jax.lax.map(lambda one: function(*one), (matrix, *rest))


def solve(root: Any, vector: Any) -> Any:
    """Return `(root root^T)^-1 vector`."""
    return solve_triangular(root, solve_triangular(root, vector[..., None]), transpose_a=True)[..., 0]


def inverse(root: Any) -> Any:
    """Return `(root root^T)^-1`."""
    one = solve_triangular(root, jnp.broadcast_to(jnp.eye(root.shape[-1], dtype=root.dtype), root.shape))
    return jnp.einsum("...ef,...eg->...fg", one, one)


def solve_triangular(root: Any, value: Any, *, transpose_a: bool = False) -> Any:
    """Return `root^-1 value`, or `root^-T value`, with matrices in the last two axes, `root` a lower triangle."""
    return jax.lax.linalg.triangular_solve(root, value, left_side=True, lower=True, transpose_a=transpose_a)


def after(value: Any, earlier: Any) -> Any:
    """Return `value`, which cannot be computed before `earlier` is there.

    On a processor, jax factorises a batch of matrices in tasks for which the call waits inside the thread pool. Two
    such calls at once can hold all of its threads and wait forever (jax 0.10, two cores): all must come in turn.
    """
    return value + (earlier.ravel()[0] > jnp.finfo(value.dtype).max)
