"""How far differences of features are from those that the data hold: the geometry of the guard's leverage."""

import numpy as np
from jaxtyping import Bool, Float


def square(
    phi: Float[np.ndarray, "prompt candidate feature"], on: Bool[np.ndarray, "prompt candidate"]
) -> Float[np.ndarray, "feature feature"]:
    """Return the sum of `d d'` over pairs of candidates of one prompt.

    `sum_{i<j} (x_i - x_j) (x_i - x_j)' = n sum_i c_i c_i'` with `c_i` the distance from the mean of the n.
    """
    n = on.sum(1)
    mean = np.einsum("xy,xyf->xf", on, phi) / n[:, None]
    rows = ((phi - mean[:, None]) * np.sqrt(n)[:, None, None])[on]
    return rows.T @ rows


def as_new(
    phi: Float[np.ndarray, "prompt candidate feature"], reference: Float[np.ndarray, "prompt candidate"]
) -> Float[np.ndarray, "row feature"]:
    """Return candidates less what the reference writes, as far as a new response of the same kind would be.

    A candidate is part of the mean that it is measured from, so it is nearer. If candidates are independent draws, the
    squared distance from the mean with weights rho is `1 - 2 rho_i + sum rho^2` variances, and that of a new one
    `1 + sum rho^2`.
    """
    x, y = np.nonzero((reference > 0) & (reference < 1))
    square = (reference**2).sum(1)[x]
    own = np.einsum("xy,xyf->xf", reference, phi)
    return (phi[x, y] - own[x]) * np.sqrt((1 + square) / (1 - 2 * reference[x, y] + square))[:, None]


def directions(
    spread: Float[np.ndarray, "feature feature"], ridge: float
) -> tuple[Float[np.ndarray, "feature direction"], Float[np.ndarray, "feature unknown"]]:
    """Return directions scaled to add up to the leverage, and those in which it is infinite."""
    value, vector = np.linalg.eigh(spread)
    told = value > value.max() * len(value) * np.finfo(np.float64).eps * 10
    value = np.where(told, value, 0) + ridge * value[told].mean()
    held = value > 0
    return vector[:, held] / np.sqrt(value[held] * told.sum()), vector[:, ~held]


def distance(
    away: Float[np.ndarray, "row feature"],
    whiten: Float[np.ndarray, "feature direction"],
    beyond: Float[np.ndarray, "feature unknown"],
) -> Float[np.ndarray, " row"]:
    """Return the leverage of rows; infinite if they leave what the data say anything of."""
    leaves = ((away @ beyond) ** 2).sum(1) > 1e-12 * (away**2).sum(1)  # more than rounding
    return np.where(leaves, np.inf, ((away @ whiten) ** 2).sum(1))
