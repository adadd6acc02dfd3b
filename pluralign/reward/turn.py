"""Directions that are known up to a rotation, made the same in all draws."""

import numpy as np
from jaxtyping import Float


def turned(direction: Float[np.ndarray, "draw b f"]) -> Float[np.ndarray, "draw b b"]:
    """Return the rotation of every draw that brings its directions as near as possible to the mean of all.

    Orthogonal Procrustes (Schoenemann 1966), the mean found in turn, starting at the last draw.

    Args:
        direction: `b` vectors per draw.
    """
    toward, turn = direction[-1], np.zeros(0)
    for _ in range(100):  # until the mean stands still, for then it matters little which draw was the first
        left, _, right = np.linalg.svd(np.einsum("bf,scf->sbc", toward, direction))
        turn = left @ right
        before, toward = toward, np.einsum("sbc,scf->bf", turn, direction) / len(direction)
        if np.abs(toward - before).max() <= 1e-6 * np.abs(toward).max():
            break
    return turn
