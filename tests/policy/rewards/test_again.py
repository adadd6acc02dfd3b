import numpy as np
import pytest

from pluralign import choice
from pluralign.errors import InputError
from pluralign.policy.rewards.again import again
from pluralign.types import Linear, Utilities

REWARDS = np.array([[1.0, 0.0, 0.4], [0.0, 0.6, 0.4]])  # of two voters; the second has less to gain


def utilities() -> Utilities:
    value = Linear(np.eye(3)[None], REWARDS[None], np.zeros((1, 2)))
    return Utilities(value, [0.5, 0.5], np.full((1, 3), 1 / 3))


@pytest.mark.parametrize("trust", [0.5, 1.0])
def test_a_policy_that_follows_the_rule_asked_again_comes_to_the_rules_optimum(trust):
    beta = 0.1

    def solve(table, price):
        return choice.Maximin().choose(table, beta=price)

    chosen = solve(utilities(), beta)
    pi, reward = np.full(3, 1 / 3), np.zeros(3)
    for _ in range(12):
        samples = np.repeat(np.arange(3), np.round(3000 * pi).astype(int))
        found = again(chosen, solve, np.eye(3)[samples][None], np.log(3 * pi)[samples][None], trust)
        reward = (reward + found.reward.weights) / 2  # half of the way, as in training
        pi = np.exp(reward / beta)
        pi /= pi.sum()
    np.testing.assert_allclose(pi, chosen.lottery[0], atol=5e-3)
    weights = found.weights.sum(0) / found.weights.sum()
    np.testing.assert_allclose(weights, chosen.weights.sum(0) / chosen.weights.sum(), atol=5e-3)
    assert weights[1] > 0.55  # the voter with less to gain counts more


def test_the_price_goes_with_the_trust():
    """Without it the fixed point would be the optimum of another price."""
    beta, optimum = 0.1, choice.Maximin().choose(utilities(), beta=0.1)
    samples = np.repeat(np.arange(3), np.round(3000 * optimum.lottery[0]).astype(int))
    log_ratio = np.log(3 * optimum.lottery[0])[samples][None]
    phi = np.eye(3)[samples][None]
    asked = []

    def solve(table, price):
        asked.append(price)
        return choice.Maximin().choose(table, beta=price)

    right = again(optimum, solve, phi, log_ratio, 0.5)
    assert asked == [pytest.approx(2 * beta)]
    assert np.abs(right.lottery - 1 / len(samples)).max() * len(samples) < 0.01  # it stays where it is
    wrong = again(optimum, lambda table, price: choice.Maximin().choose(table, beta=beta), phi, log_ratio, 0.5)
    assert np.abs(wrong.lottery - 1 / len(samples)).max() * len(samples) > 0.05


def test_dense_utilities_cannot_be_asked_again():
    dense = Utilities(REWARDS[None, :, None], [0.5, 0.5], np.full((1, 3), 1 / 3))
    chosen = choice.Maximin().choose(dense, beta=0.1)
    with pytest.raises(InputError, match="set reestimate to 0"):
        again(chosen, lambda table, price: chosen, np.zeros((1, 2, 3)), np.zeros((1, 2)))
