"""Risk measures against loops, closed forms and published examples; that a better draw never counts as worse."""

import itertools

import cvxpy as cp
import numpy as np
import pytest
from scipy.optimize import brentq, minimize_scalar
from scipy.special import expit
from scipy.stats import norm

from pluralign import choice
from pluralign.errors import InputError
from pluralign.types import Linear, Utilities

RISKS = [
    choice.Mean(),
    choice.CVaR(0.3),
    choice.WorstCase(),
    choice.Entropic(1.5),
    choice.Semideviation(1.0),
    choice.Semideviation(0.3),
    choice.Ellipsoid(0.5),
    choice.Ellipsoid(1.0),
    choice.Ellipsoid(2.0),
]
W = np.random.default_rng(0).normal(size=9)


def test_each_measure_is_its_formula():
    mean = sum(W) / 9
    below = (sum(max(mean - w, 0) ** 2 for w in W) / 9) ** 0.5
    assert choice.WorstCase().marginal(W)[0] == sorted(W)[0]
    assert choice.Semideviation(0.7).marginal(W)[0] == pytest.approx(mean - 0.7 * below)
    assert choice.Entropic(2.0).marginal(np.array([-0.4, 0.4]))[0] == pytest.approx(-np.log(np.cosh(0.8)) / 2)
    normal = norm.ppf((np.arange(100_000) + 0.5) / 100_000)
    assert choice.Entropic(0.8).marginal(3 + 2 * normal)[0] == pytest.approx(3 - 0.8 * 4 / 2, abs=1e-2)


def test_limits_of_caution():
    for neutral in (choice.Entropic(1e-6), choice.Semideviation(0.0), choice.Ellipsoid(0.0)):
        assert neutral.marginal(W)[0] == pytest.approx(W.mean(), abs=1e-5)
    for extreme in (choice.Entropic(1e4), choice.CVaR(1e-6), choice.Ellipsoid(np.sqrt(8) + 1e-9)):
        assert extreme.marginal(W)[0] == pytest.approx(W.min(), abs=1e-3)
    assert choice.Entropic(1.0).marginal(1e6 + W)[0] == pytest.approx(1e6 + choice.Entropic(1.0).marginal(W)[0])


def monotone(value):
    """Raise one draw at a time, by little and by much, from draws that are near each other, spread, or skewed."""
    rng = np.random.default_rng(1)
    for draws, spread, up in itertools.product((2, 3, 9), (0.1, 1.0), (1e-3, 0.5, 30.0)):
        for base in (rng.normal(size=draws), np.append(np.zeros(draws - 1), 1.0)):
            for s in range(draws):
                better = spread * base.copy()
                before = value(better)
                better[s] += up
                assert value(better) >= before - 1e-9


@pytest.mark.parametrize("risk", RISKS, ids=str)
def test_a_better_draw_never_counts_as_worse(risk):
    monotone(lambda w: risk.marginal(w)[0])


@pytest.mark.parametrize("k", [0.8, 1.0, 2.0])
def test_mean_less_standard_deviations_falls_when_a_draw_gets_better(k):
    with pytest.raises(AssertionError):
        monotone(lambda w: w.mean() - k * w.std())


def test_more_than_one_semideviation_is_refused():
    with pytest.raises(AssertionError):
        monotone(lambda w: w.mean() - 1.3 * np.sqrt((np.maximum(w.mean() - w, 0) ** 2).mean()))
    for make_it, name in (
        (lambda: choice.Semideviation(1.3), "k is"),
        (lambda: choice.Semideviation(-0.1), "k is"),
        (lambda: choice.Entropic(0.0), "theta is"),
        (lambda: choice.Ellipsoid(-1.0), "radius is"),
    ):
        with pytest.raises(InputError, match=name):
            make_it()


@pytest.mark.parametrize("radius", [0.1, 0.6, 1.0, 2.0, 2.7])
def test_the_ellipsoid_is_the_worst_weight_of_draws(radius):
    q = cp.Variable(9, nonneg=True)
    near = cp.norm(q - 1 / 9, 2) * 3 <= radius
    found = cp.Problem(cp.Minimize(q @ W), [cp.sum(q) == 1, near]).solve(solver=cp.CLARABEL)
    value, share = choice.Ellipsoid(radius).marginal(W)
    assert value == pytest.approx(found, abs=1e-6)
    np.testing.assert_allclose(share, q.value, atol=1e-4)
    y = cp.Variable(9)  # the largest mean less deviations of anything that is nowhere better
    mean = cp.sum(y) / 9
    stated = cp.Problem(cp.Maximize(mean - radius / 3 * cp.norm(y - mean, 2)), [y <= W]).solve(solver=cp.CLARABEL)
    assert value == pytest.approx(stated, abs=1e-6)


def test_a_small_ellipsoid_subtracts_standard_deviations():
    radius = 0.9 / ((W - W.mean()) / W.std()).max()  # no weight falls to 0
    assert choice.Ellipsoid(radius).marginal(W)[0] == pytest.approx(W.mean() - radius * W.std(), abs=1e-12)
    assert choice.Ellipsoid(2.0).marginal(W)[0] > W.mean() - 2 * W.std() + 1e-3


# A Gaussian posterior, and the counterexample of Zhu, Jiao and Jordan 2023 (Principled RLHF, section 3).

PHI = np.array([[1.0, 1, 0], [1, 0, 0], [0, 0, 0], [0, 1, 0]])
TRUTH = np.array([-1.0, 0.1, 0.9])
PRIOR = 2.0  # standard deviation of each weight, about the size that weights are allowed there


def posterior(comparisons=100_000):
    """Laplace's approximation, coordinate by coordinate: a1 - a2 and a2 - a3 touch one weight each.

    All comparisons but one are of a1 and a2, answered as often as the truth says; the one of a2 and a3 came out
    wrong, as it does with probability sigmoid(-1) = 0.27, whatever their number.
    """
    wins = (comparisons - 1) * expit(TRUTH[1])
    first = brentq(lambda t: expit(-t) - t / PRIOR**2, -5, 5)
    second = brentq(lambda t: wins - (comparisons - 1) * expit(t) - t / PRIOR**2, -5, 5)
    curvature = [expit(first) * expit(-first), (comparisons - 1) * expit(second) * expit(-second), 0.0]
    return np.array([first, second, 0.0]), np.diag(1 / (np.array(curvature) + 1 / PRIOR**2))


def drawn(mean, covariance, draws=4000) -> Utilities:
    half = np.random.default_rng(2).normal(size=(draws // 2, 3))
    z = np.concatenate([half, -half])  # their mean is exact
    z = z @ np.linalg.inv(np.linalg.cholesky(z.T @ z / draws)).T  # and so is their covariance
    weights = mean + z @ np.linalg.cholesky(covariance).T
    return Utilities(Linear(PHI[None], weights[:, None], np.zeros((draws, 1))), [1.0], np.full((1, 4), 0.25))


def test_pessimism_avoids_what_one_comparison_spoke_for():
    u = drawn(*posterior())
    trusting = choice.Utilitarian().choose(u, beta=0.01)
    cautious = choice.Utilitarian().choose(u, choice.Ellipsoid(1.0), beta=0.01)
    assert trusting.lottery[0].argmax() == 0
    assert trusting.lottery[0, 0] > 0.99
    assert PHI[3] @ TRUTH - PHI[0] @ TRUTH == pytest.approx(1.0)  # what that costs
    assert cautious.lottery[0, 0] < 0.02
    assert cautious.lottery[0] @ PHI @ TRUTH > 0.05
    for chosen, best in ((trusting, 0), (cautious, 3)):  # each is one weight vector, here that of the worst draws
        assert chosen.reward.score(PHI).argmax() == best


@pytest.mark.parametrize("risk", [choice.CVaR(0.25), choice.WorstCase(), choice.Ellipsoid(2.0)], ids=str)
def test_other_caution_avoids_it_too(risk):
    assert choice.Utilitarian().choose(drawn(*posterior(), draws=200), risk, beta=0.01).lottery[0, 0] < 0.02


def in_normal_units(radius):
    """The measure of a standard normal draw, by its dual in closed form: `E max(c - z, 0)^2` is known."""

    def negative(c):
        return np.sqrt((1 + radius**2) * ((1 + c * c) * norm.cdf(c) + c * norm.pdf(c))) - c

    return -minimize_scalar(negative, bounds=(-5, 20), method="bounded", options={"xatol": 1e-10}).fun


@pytest.mark.parametrize("radius", [0.25, 1.0, 2.0])
def test_of_gaussian_draws_it_is_the_worst_reward_in_a_confidence_ellipsoid(radius):
    mean, covariance = posterior()
    u = drawn(mean, covariance, draws=20_000)
    for lottery in (np.eye(4)[[0]], np.array([[0.1, 0.2, 0.3, 0.4]])):
        embedding = lottery[0] @ PHI
        std = np.sqrt(embedding @ covariance @ embedding)
        value = choice.Ellipsoid(radius).marginal(u.expected(lottery)[:, 0])[0]
        assert value == pytest.approx(embedding @ mean + in_normal_units(radius) * std, abs=0.02 * std)
        if radius < 0.3:  # hardly any draw is so far above that its weight falls to 0
            assert value == pytest.approx(embedding @ mean - radius * std, abs=1e-3 * std)
