import jax
import numpy as np
import pytest
from scipy.special import expit, logit

from pluralign.reward.response import log_probability

rng = np.random.default_rng(0)
ETA, TIE, LAPSE = rng.normal(0, 3, 200), rng.normal(0, 2, 200), rng.uniform(0.001, 0.999, 200)


@pytest.fixture(autouse=True)
def _float64():
    with jax.enable_x64(True):
        yield


def probabilities(eta, tie=None, lapse=None):
    outcomes = range(2 if tie is None else 3)
    return np.stack(
        [np.exp(log_probability(k, eta, tie, None if lapse is None else logit(lapse))) for k in outcomes], -1
    )


def test_davidsons_own_form():
    """Davidson (1970): worths pi_i, pi_j, tie in proportion to nu sqrt(pi_i pi_j)."""
    pi_i, pi_j, nu = rng.gamma(1, size=200), rng.gamma(1, size=200), rng.gamma(1, size=200)
    total = pi_i + pi_j + nu * np.sqrt(pi_i * pi_j)
    published = np.stack([pi_i, pi_j, nu * np.sqrt(pi_i * pi_j)], -1) / total[:, None]
    np.testing.assert_allclose(probabilities(np.log(pi_i / pi_j), np.log(nu)), published, rtol=1e-10)


def test_a_rater_who_lapses_mixes_with_the_uniform():
    odds = np.exp(np.stack([ETA / 2, -ETA / 2, TIE], -1))
    careful = odds / odds.sum(-1, keepdims=True)
    by_hand = [(1 - q) * p + q * np.full(3, 1 / 3) for p, q in zip(careful, LAPSE, strict=True)]
    np.testing.assert_allclose(probabilities(ETA, TIE, LAPSE), by_hand, rtol=1e-10)


def test_without_ties_it_is_bradley_terry_and_ties_vanish_continuously():
    np.testing.assert_allclose(probabilities(ETA)[:, 0], expit(ETA), rtol=1e-12)
    np.testing.assert_allclose(probabilities(ETA, np.full(200, -60.0))[:, :2], probabilities(ETA), rtol=1e-12)
    two = 0.3 * 0.5 + 0.7 * expit(ETA)
    np.testing.assert_allclose(probabilities(ETA, lapse=np.full(200, 0.3))[:, 0], two, rtol=1e-12)


def test_outcomes_are_all_there_is():
    np.testing.assert_allclose(probabilities(ETA, TIE, LAPSE).sum(-1), 1, rtol=1e-12)
    np.testing.assert_allclose(probabilities(ETA, lapse=LAPSE).sum(-1), 1, rtol=1e-12)


@pytest.mark.parametrize("extreme", [(900.0, 0.0, -60.0), (-900.0, 300.0, 60.0), (0.0, -300.0, -800.0)])
def test_extremes_are_finite_with_their_gradients(extreme):
    value, slope = jax.value_and_grad(lambda e: log_probability(1, *e))(extreme)
    assert np.isfinite(value)
    assert np.isfinite(slope).all()
