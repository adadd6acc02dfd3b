"""R-hat and effective sample sizes of many quantities at once, against ArviZ's of one after the other."""

from typing import Any

import numpy as np
import pytest
from arviz_stats.base.array import array_stats
from scipy.signal import lfilter

from pluralign.reward import effective

AXES: Any = {"chain_axis": 0, "draw_axis": 1}


def slow(rng, chains, draws, entries):
    """Autoregressions from independent to nearly stuck, some of them alternating, some with another centre per chain."""
    noise = rng.normal(size=(chains, draws, entries))
    x = np.stack([lfilter([1], [1, -r], noise[..., i]) for i, r in enumerate(np.linspace(-0.9, 0.999, entries))], -1)
    return x + np.where(np.arange(entries) % 5 == 0, 0.8, 0) * np.arange(chains)[:, None, None]


def rejected(x):
    """The same where three of four steps are rejected: equal draws, as a Metropolis chain has them."""
    return x[:, np.arange(x.shape[1]) // 4 * 4]


@pytest.mark.parametrize("chains, draws", [(2, 4), (2, 9), (2, 10), (2, 11), (2, 100), (3, 101), (4, 250)])
@pytest.mark.parametrize("change", [lambda x: x, rejected, np.round], ids=["smooth", "rejected", "rounded"])
@pytest.mark.filterwarnings("ignore:invalid value:RuntimeWarning", "ignore:divide by zero:RuntimeWarning")
def test_every_entry_has_the_numbers_of_arviz(chains, draws, change):
    x = change(slow(np.random.default_rng(draws), chains, draws, 40))
    ours = np.array([effective.worst(x[..., [i]]) for i in range(40)])
    theirs = [
        array_stats.rhat(x, **AXES),
        array_stats.ess(x, **AXES),
        array_stats.ess(x, **AXES, method="tail", prob=0.95),
    ]
    np.testing.assert_allclose(ours, np.transpose(theirs), rtol=1e-8)


def test_the_worst_entry_counts_wherever_it_is(monkeypatch):
    x = np.random.default_rng(0).normal(size=(2, 100, 50))
    x[1, :, 17] += 1
    x[:, :, 31] = np.cumsum(x[:, :, 31], 1)
    alone = np.array([effective.worst(x[..., [i]]) for i in range(50)])
    monkeypatch.setattr(effective, "TOGETHER", 7 * 200)  # seven entries at once
    rhat, bulk, tail = effective.worst(x)
    assert rhat == alone[:, 0].max() == alone[[17, 31], 0].max()
    assert bulk == alone[31, 1] < 20
    assert tail == alone[:, 2].min()


@pytest.mark.filterwarnings("ignore:invalid value:RuntimeWarning")
def test_what_stands_still_or_is_too_short_is_no_number():
    x = np.random.default_rng(0).normal(size=(2, 100, 3))
    x[..., 1] = 5.0
    assert np.isnan(effective.worst(x)[0])
    assert np.isnan(effective.worst(x[:, :3])).all()
    x[0, :, 1] = 4.0  # each chain stands still, at a place of its own
    assert not effective.worst(x)[0] < 2
    assert effective.worst(x)[1] < 5
