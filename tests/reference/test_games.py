"""Policies that learn against themselves, and KL control: iterations and losses that end where a rule says."""

import numpy as np
import pytest
from scipy.optimize import minimize
from scipy.special import softmax

from pluralign import choice
from pluralign.choice.ballots import electorates
from pluralign.errors import InputError
from pluralign.types import Utilities

CIRCLE = np.array([[0.0, 1, -1], [-1, 0, 1], [1, -1, 0]])


def of_orders(orders, mass) -> Utilities:
    value = -np.argsort(np.array(orders), axis=1).astype(float)
    size = value.shape[1]
    return Utilities(value[None, :, None], np.array(mass) / sum(mass), np.full((1, size), 1 / size))


def nash_md(prefer, mu, tau, rate, steps):
    """Munos et al. (2023), section 6.1: `p_mix ∝ p^(1 - rate tau) mu^(rate tau)`, `p <- p_mix exp(rate P(. > p_mix))`."""
    log = np.log(mu)
    for _ in range(steps):
        mix = (1 - rate * tau) * log + rate * tau * np.log(mu)
        log = mix + rate * prefer @ softmax(mix)
    return softmax(log)


@pytest.mark.parametrize(
    ("tau", "expected"),
    [
        (0.5, (0.3955, 0.2148, 0.3897)),
        (0.1, (0.30571, 0.05130, 0.64300)),
        (0.05, (0.14558, 0.02614, 0.82827)),
        (0.02, (0.00763, 0.00549, 0.98688)),
    ],
)
def test_nash_md_comes_to_the_priced_maximal_lottery(tau, expected):
    """Population 2 x (R > G > B), 3 x (B > R > G) of Maura-Rivero et al. (2025), uniform reference: beta is tau."""
    prefer = np.array([[0.5, 1, 0.4], [0, 0.5, 0.4], [0.6, 0.6, 0.5]])
    iterated = nash_md(prefer, np.full(3, 1 / 3), tau, 5e-4 / tau, 40_000)
    np.testing.assert_allclose(iterated, expected, atol=6e-5)
    found = choice.MaximalLottery().choose(of_orders([[0, 1, 2], [2, 0, 1]], [2, 3]), beta=tau)
    np.testing.assert_allclose(found.lottery[0], expected, atol=6e-5)


def test_nash_md_from_any_reference():
    rng = np.random.default_rng(5)
    u = Utilities(rng.normal(size=(1, 5, 2, 4)), rng.dirichlet(np.ones(5)), rng.dirichlet(np.full(4, 3.0), size=2))
    for tau in (0.1, 0.5):
        found = choice.MaximalLottery().choose(u, beta=tau)
        for x, (_, profile) in enumerate(electorates(u)):
            prefer = (1 + profile.margins()) / 2
            # Its fixed point answers a mixture with the reference, which is off by some rate times tau.
            coarse, fine = (nash_md(prefer, u.reference[x], tau, e / tau, int(20 / e)) for e in (2e-3, 1e-3))
            np.testing.assert_allclose(found.lottery[x], 2 * fine - coarse, atol=1e-5)


def test_self_play_is_right_on_average_only():
    """Swamy et al. (2024): where majorities go in circles the mean is near 1/3 each, the last lottery above .8 on one."""
    start = np.array([0.5, 0.3, 0.2])
    played = [choice.self_play(CIRCLE, steps, start=start) for steps in range(4000, 4200, 20)]
    np.testing.assert_allclose([mean for mean, _ in played], 1 / 3, atol=0.1)
    assert max(last.max() for _, last in played) > 0.8
    expected, p = np.zeros(3), start  # by hand
    for _ in range(50):
        expected += p / 50
        p = p * np.exp(0.05 * np.array([p[1] - p[2], p[2] - p[0], p[0] - p[1]]))
        p = p / p.sum()
    mean, last = choice.self_play(7 * CIRCLE, steps=50, start=start)  # whatever votes are counted in
    np.testing.assert_allclose(mean, expected)
    np.testing.assert_allclose(last, p)
    np.testing.assert_allclose(choice.self_play(CIRCLE, steps=3)[0], 1 / 3)
    np.testing.assert_allclose(choice.self_play(np.zeros((2, 2)))[1], 0.5)


def test_self_play_keeps_its_bound():
    rng = np.random.default_rng(0)
    for steps, rate in ((100, 0.3), (5_000, 0.05)):
        m = np.triu(rng.uniform(-1, 1, (6, 6)), 1)
        m -= m.T
        mean, _ = choice.self_play(m, steps, rate)
        assert (m @ mean).max() <= np.abs(m).max() * (np.log(6) / (rate * steps) + rate / 2)
    np.testing.assert_allclose(mean, choice.MaximalLottery().from_margins(m), atol=0.1)


@pytest.mark.parametrize(
    ("margins", "arguments"),
    [
        (np.full((2, 2), 0.5), {}),
        (np.full((2, 2), np.nan), {}),
        (CIRCLE, {"start": np.array([0.5, 0.5, 0])}),
        (CIRCLE, {"steps": 0}),
        (CIRCLE, {"rate": 0.0}),
    ],
)
def test_what_self_play_does_not_take(margins, arguments):
    with pytest.raises(InputError, match=r"margins must be|must be positive"):
        choice.self_play(margins, **arguments)


def test_a_policy_fitted_to_comparisons_and_margins_is_the_chosen_lottery():
    """DPO (Rafailov et al. 2023) and MODPO (Zhou et al. 2023) with exact preferences: `ref exp(w · r / beta)`.

    Loss `-log sigmoid( (beta log p/ref differences - w_1 · r_1 differences) / w_0 )` over pairs that r_0 decides by
    Bradley-Terry. Korbak et al. (2022): it is the optimum of expected reward less beta KL, a sum of utilities.
    """
    rng = np.random.default_rng(0)
    r, reference, beta = rng.normal(size=(2, 5)), rng.dirichlet(np.full(5, 3.0)), 0.4
    a, b = np.nonzero(~np.eye(5, dtype=bool))
    win = 1 / (1 + np.exp(r[0, b] - r[0, a]))
    for w in (np.array([1.0, 0]), np.array([0.7, 0.3])):

        def loss(log, w=w):
            ratio = log - np.log(reference)
            z = (beta * (ratio[a] - ratio[b]) - w[1] * (r[1, a] - r[1, b])) / w[0]
            return win @ np.logaddexp(0, -z) + (log.mean()) ** 2

        fitted = softmax(minimize(loss, np.zeros(5), method="BFGS", options={"gtol": 1e-8}).x)
        found = choice.Utilitarian().choose(Utilities(r[None, :, None], w, reference[None]), beta=beta)
        np.testing.assert_allclose(found.lottery[0], fitted, atol=1e-5)
        p = reference * np.exp(w @ r / beta)
        np.testing.assert_allclose(found.lottery[0], p / p.sum(), atol=1e-9)


def test_best_responses_are_worth_what_the_certificate_says():
    """Chakraborty et al. (2024): the primal of max-min is its dual, min over weights of the soft maximum."""
    r, beta = np.array([[1, 0, 0.4], [0, 1, 0.4]]), 0.1
    u = Utilities(r[None, :, None], np.array([0.5, 0.5]), np.full((1, 3), 1 / 3))
    weight = np.linspace(0, 1, 100_001)
    tilt = (weight[:, None] * r[0] + (1 - weight[:, None]) * r[1]) / beta
    dual = beta * np.log(np.exp(tilt).mean(1))
    found = choice.Maximin().choose(u, beta=beta)
    assert weight[dual.argmin()] == pytest.approx(0.5)
    assert found.certificate.value == pytest.approx(dual.min(), abs=1e-9) == pytest.approx(0.476338, abs=1e-6)
    assert found.lottery[0, 2] == pytest.approx(1 / (2 * np.e + 1), abs=1e-7)
