"""Worst weights near given ones: `argmin_q sum q u` over a ball of masses `q` around `m`, for each row of `u`."""

import numpy as np
from jaxtyping import Bool, Float

Rows = Float[np.ndarray, "row entry"]
Mass = Float[np.ndarray, " entry"]  # positive, sums to 1
BLOCK = 50_000  # entries that are looked at together
STEPS = 100  # of a search for a root, at most; Newton's method takes about six


def relative_entropy(u: Rows, mass: Mass, radius: float) -> Rows:
    """Return the worst `q` with `sum q log(q / m) <= radius`: `q ∝ m exp(-theta u)`.

    Theta is as large as the ball allows. Newton's method is for the square root of the divergence, which is nearly
    linear in theta where the ball is small; a step that leaves the interval that holds the root is not taken.
    """
    if len(u) > 1 and u.size > BLOCK:  # what fits the processor's cache takes half the time
        return np.concatenate([relative_entropy(part, mass, radius) for part in np.array_split(u, 2)])
    above, worst = _above(u)
    held = (worst * mass).sum(1)
    alone = radius >= -np.log(held)  # the ball reaches those who are worst off and nobody else
    q = np.where(alone[:, None], worst * mass / held[:, None], mass)
    rows = np.flatnonzero(~alone) if radius > 0 else np.zeros(0, int)
    low, high = np.zeros(len(u)), np.full(len(u), np.inf)
    spread = above**2 @ mass - (above @ mass) ** 2
    theta = np.sqrt(2 * radius / np.maximum(spread, 1e-300))
    for _ in range(STEPS):
        if not len(rows):
            break
        a, t = above[rows], theta[rows]
        weight = mass * np.exp(-t[:, None] * a)
        total = weight.sum(1)
        weight /= total[:, None]
        mean = np.einsum("rv,rv->r", weight, a)
        divergence = np.maximum(-t * mean - np.log(total), 0)
        inside = divergence <= radius
        q[rows[inside]] = weight[inside]
        low[rows[inside]], high[rows[~inside]] = t[inside], t[~inside]
        root = np.sqrt(divergence)
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            newton = t + 2 * root * (np.sqrt(radius) - root) / (t * (np.einsum("rv,rv,rv->r", weight, a, a) - mean**2))
        bound = np.where(np.isfinite(high[rows]), (low[rows] + high[rows]) / 2, 2 * t)
        theta[rows] = np.where((newton > low[rows]) & (newton < high[rows]), newton, bound)
        near = np.abs(divergence - radius) <= 1e-13 + 1e-11 * radius
        q[rows[near]] = weight[near]
        rows = rows[~near]
    return q


def chi_square(u: Rows, mass: Mass, radius: float) -> Rows:
    """Return the worst `q` with `sum (q - m)^2 / m <= radius`: `q ∝ m max(c - u, 0)`.

    If the entries below `c` have mass `A`, mean `mu` and variance `V`, the ball is touched at
    `c = mu + sqrt(V / ((1 + radius) A - 1))`. Start from all entries: those that are not below their `c` are not below
    the right one, and leave; until none does (the idea of Michelot 1986 for the simplex).
    """
    above, worst = _above(u)
    held = (worst * mass).sum(1)
    alone = (1 + radius) * held >= 1  # the ball reaches those who are worst off and nobody else
    level = np.full(len(u), np.inf)
    rows = np.flatnonzero(~alone) if radius > 0 else np.zeros(0, int)
    for _ in range(STEPS):
        if not len(rows):
            break
        a = above[rows]
        m = mass * (a < level[rows, None])
        size = m.sum(1) / mass.sum()
        mean = np.einsum("rv,rv->r", m, a) / size
        a -= mean[:, None]
        variance = np.einsum("rv,rv,rv->r", m, a, a) / size
        slack = radius * size - (1 - size)
        with np.errstate(divide="ignore", invalid="ignore"):
            up = np.where(slack > 0, np.sqrt(variance / slack), np.inf)
        level[rows] = mean + up
        rows = rows[((m > 0) & (a >= up[:, None])).any(1)]
    with np.errstate(invalid="ignore"):
        q = mass * np.maximum(level[:, None] - above, 0)
        q /= q.sum(1, keepdims=True)
    q[np.isinf(level)] = mass
    return np.where(alone[:, None], worst * mass / held[:, None], q)


def total_variation(u: Rows, mass: Mass, radius: float) -> Rows:
    """Return the worst `q` with `sum |q - m| / 2 <= radius`: as much mass moves from the best to the worst off."""
    order = u.argsort(1)
    stays = np.minimum(mass[order].cumsum(1), max(1 - radius, 0.0))
    sorted_q = np.diff(stays, axis=1, prepend=0.0)
    sorted_q[:, 0] += 1 - stays[:, -1]
    q = np.empty_like(u)
    np.put_along_axis(q, order, sorted_q, 1)
    return q


def _above(u: Rows) -> tuple[Rows, Bool[np.ndarray, "row entry"]]:
    """Return how far each entry is above the row's least, in units of the row's range, and which are the least."""
    above = u - u.min(1, keepdims=True)
    largest = above.max(1, keepdims=True)
    return above / np.where(largest > 0, largest, 1.0), above == 0
