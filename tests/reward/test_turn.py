"""Rotations are undone, and what is found hardly depends on the draw that one starts at."""

import numpy as np
import pytest

from pluralign.reward.turn import turned

rng = np.random.default_rng(1)


def scattered(noise, draws=300):
    """Return two directions in a space of six, seen with noise, each draw turned at random."""
    directions = rng.normal(size=(2, 6)) + noise * rng.normal(size=(draws, 2, 6))
    return np.einsum("sbc,scf->sbf", np.linalg.qr(rng.normal(size=(draws, 2, 2)))[0], directions)


def spread(directions):
    """Return what Procrustes makes small: the squared distances of turned draws from their mean."""
    straight = np.einsum("sbc,scf->sbf", turned(directions), directions)
    return ((straight - straight.mean(0)) ** 2).sum()


def test_draws_that_differ_by_rotations_alone_become_one():
    assert spread(scattered(0.0)) == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize("noise", [0.2, 0.5, 1.0])
def test_the_draw_to_start_at_matters_little(noise):
    for _ in range(10):
        directions = scattered(noise)
        found = [spread(np.roll(directions, at, axis=0)) for at in (0, 17, 101, 203)]
        assert max(found) < 1.005 * min(found)


def test_turns_are_no_worse_than_any_other_common_target():
    """A thousand random targets: none makes the draws lie closer together."""
    directions = scattered(0.5)
    best = spread(directions)
    for _ in range(1000):
        left, _, right = np.linalg.svd(np.einsum("bf,scf->sbc", rng.normal(size=(2, 6)), directions))
        straight = np.einsum("sbc,scf->sbf", left @ right, directions)
        assert ((straight - straight.mean(0)) ** 2).sum() > 0.999 * best
