"""Noise of annotators written down by hand."""

import numpy as np
import pytest
from scipy.stats import beta, norm

from pluralign import reward
from pluralign.errors import InputError
from pluralign.types import FitReport, RewardPosterior

DRAWS = 4000


def posterior(membership=None, **rater) -> RewardPosterior:
    voters = 2 if membership is None else membership.shape[1]
    return RewardPosterior(
        weights=np.zeros((DRAWS, voters, 1, 1)),
        mass=np.full(voters, 1 / voters),
        voters=tuple(f"v{v}" for v in range(voters)),
        membership=membership,
        rater=rater,
        features=("f",),
        fit=FitReport("by hand", 1, DRAWS, 0, {}, {}, {}, 0.0),
    )


def test_intervals_and_probabilities_are_those_of_the_distribution():
    """Lapses at the quantiles of beta distributions, temperatures at those of normal ones."""
    u = (np.arange(DRAWS) + 0.5) / DRAWS
    lapse = np.stack([beta.ppf(u, 2, 8), beta.ppf(u, 6, 4)], 1).astype(np.float32)
    heat = np.stack([norm.ppf(u, 1, 0.1), norm.ppf(u, 2, 0.3)], 1).astype(np.float32)
    first, second = reward.reliability(posterior(lapse=lapse, temperature=heat), level=0.8)
    assert (first.annotator, second.annotator) == ("v0", "v1")
    assert first.random == pytest.approx(beta.sf(0.5, 2, 8), abs=1e-3)
    assert second.random == pytest.approx(beta.sf(0.5, 6, 4), abs=1e-3)
    found = second.noise["temperature"]
    np.testing.assert_allclose([found.mean, found.low, found.high], [2, *norm.ppf([0.1, 0.9], 2, 0.3)], atol=1e-3)
    assert first.noise["lapse"].high == pytest.approx(beta.ppf(0.9, 2, 8), abs=1e-3)


def test_without_lapses_nobody_is_called_random(simulation):
    bias = np.zeros((DRAWS, 3), np.float32)
    rows = reward.reliability(posterior(np.ones((3, 1)), position=bias))
    assert [(row.annotator, row.random) for row in rows] == [(f"annotator {a}", None) for a in range(3)]
    votes = simulation.feedback([0], [1], np.array([0]), [0], 2, ["x", "y", "z"])
    assert [row.annotator for row in reward.reliability(posterior(np.ones((3, 1)), position=bias), votes)] == [*"xyz"]
    with pytest.raises(InputError, match="3 annotators, the posterior was fitted to 2"):
        reward.reliability(posterior(position=bias[:, :2]), votes)


def test_what_cannot_be_said_is_refused():
    with pytest.raises(InputError, match="no noise of raters"):
        reward.reliability(posterior())
    with pytest.raises(InputError, match="level is 90"):
        reward.reliability(posterior(lapse=np.zeros((DRAWS, 2), np.float32)), level=90.0)
