"""What maximum likelihood makes of disagreement: published counterexamples, on the likelihoods themselves."""

from functools import partial
from itertools import combinations, permutations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.optimize import minimize

from pluralign.reward.likelihood import davidson, davidson_luce


@pytest.fixture(autouse=True)
def _float64():
    with jax.enable_x64(True):
        yield


def minimum(loss, start):
    found = minimize(jax.jit(jax.value_and_grad(loss)), start, jac=True, method="BFGS", options={"gtol": 1e-10})
    assert np.abs(found.jac).max() < 1e-7
    return found.x


def pooled_loss(utility, wins):
    """Mean negative log probability when `wins[i, j]` is how often i was preferred to j."""
    return -(wins * davidson(0, utility[:, None] - utility[None, :])).sum()


def test_comparisons_rank_by_borda_not_by_expected_utility():
    """Siththaranjan, Laidlaw and Hadfield-Menell (2023): E u = a everywhere, yet a in (0.425, 0.8) beats a = 1.

    u(a) = a for a < 0.8; above, u = 2 a or 0 with even odds, independently for each. Borda count, the share of the
    others that a beats: a + 0.1 for a < 0.8, 0.275 + 0.25 a above. The grid has midpoints, a tie counts half.
    """
    a = np.append((np.arange(100) + 0.5) / 100, 1.0)
    worth = np.where(a < 0.8, a, 2 * a), np.where(a < 0.8, a, 0)
    wins = np.mean([0.5 + 0.5 * np.sign(x[:, None] - y[None, :]) for x in worth for y in worth], 0)
    np.fill_diagonal(wins, 0)
    utility = minimum(lambda u: pooled_loss(u, wins) / wins.sum() + 1e-9 * (u**2).sum(), np.zeros(len(a)))
    last = utility[-1]
    assert (utility[(a > 0.44) & (a < 0.8)] > last).all()
    assert (utility[a < 0.41] < last).all()
    grid = a[:-1]
    share = wins[:-1, :-1].sum(1) / 99
    np.testing.assert_allclose(share, np.where(grid < 0.8, grid + 0.1, 0.275 + 0.25 * grid), atol=0.02)
    assert (np.diff(utility[:-1][grid < 0.8]) > 0).all()


# share p, delta -> the minimiser
GE_2024 = {
    (0.6, 0.5): (0.26688, 0.00826),
    (0.6, 0.25): (0.26817, 0.00568),
    (0.8, 0.5): (0.96886, 0.00533),
    (0.9, 0.75): (1.63112, 0.00892),
    (0.6, 2.0): (0.25913, 0.02399),
}


@pytest.mark.parametrize(("p", "delta"), GE_2024)
def test_bradley_terry_ranks_against_everyone(p, delta):
    """Ge et al. (2024), theorem 3.1, e = 0.01, minimisers recomputed: all prefer c' to c, the fit does not."""
    e = 0.01
    a, b, c = np.array([2, 1.0]), np.array([1, 1.0]), np.zeros(2)
    phi = np.stack([a, a - [e, 0], b, b - [e, 0], [-e, delta * e], c])  # a a' b b' c' c, the majority's order
    minority = [4, 5, 3, 2, 1, 0]  # c' c b' b a' a
    wins = np.zeros((6, 6))
    for share, order in ((p, range(6)), (1 - p, minority)):
        for better, worse in combinations(order, 2):
            wins[better, worse] += share
    theta = minimum(lambda theta: pooled_loss(phi @ theta, wins), np.zeros(2))
    np.testing.assert_allclose(theta, GE_2024[p, delta], atol=1e-5)
    assert wins[4, 5] == 1
    assert (phi[4] - phi[5]) @ theta < -0.002


def test_an_irrelevant_alternative_turns_the_winner():
    """Maura-Rivero et al. (2025): 2 x (R > G > B), 3 x (B > R > G); without G, B wins."""
    wins = np.array([[0, 1, 0.4], [0, 0, 0.4], [0.6, 0.6, 0]])  # R G B
    utility = minimum(lambda u: pooled_loss(u, wins) + u.sum() ** 2, np.zeros(3))
    np.testing.assert_allclose(utility, [0.616977, -0.928850, 0.311873], atol=2e-6)
    pair = minimum(lambda u: pooled_loss(u, wins[::2, ::2]) + u.sum() ** 2, np.zeros(2))
    assert pair[1] > pair[0]
    cycle = np.array([[0, 2, 1], [1, 0, 2], [2, 1, 0]])
    np.testing.assert_allclose(minimum(lambda u: pooled_loss(u, cycle) + u.sum() ** 2, np.ones(3)), 0, atol=1e-8)


def test_in_complete_tournaments_the_order_is_bordas():
    """300 tournaments of six at once, every pair compared ten times (Newton's method on all of them)."""
    rng = np.random.default_rng(0)
    upper = np.triu(rng.integers(0, 11, (300, 6, 6)), 1)
    wins = upper + np.tril(10 - np.swapaxes(upper, 1, 2), -1) + 0.01 * (1 - np.eye(6))  # no one wins all or nothing
    borda = wins.sum(-1)
    loss = lambda u, wins: pooled_loss(u, wins) + u.sum() ** 2  # noqa: E731
    slope = jax.jit(jax.vmap(jax.grad(loss)))
    step = jax.jit(jax.vmap(lambda u, w: jnp.linalg.solve(jax.hessian(loss)(u, w), jax.grad(loss)(u, w))))
    utility = np.zeros((300, 6))
    for _ in range(30):
        move = step(utility, wins)
        utility = utility - move / np.maximum(1, np.abs(move).max(-1, keepdims=True))
    assert np.abs(slope(utility, wins)).max() < 1e-8
    sign = lambda x: np.sign(np.round(x[:, :, None] - x[:, None, :], 8))  # noqa: E731
    np.testing.assert_array_equal(sign(utility), sign(borda))
    wins[:, 0, 1] *= 30  # one pair compared more often than others
    wins[:, 1, 0] *= 30
    for _ in range(30):
        move = step(utility, wins)
        utility = utility - move / np.maximum(1, np.abs(move).max(-1, keepdims=True))
    assert (sign(utility) != sign(borda)).any()


def test_a_ranking_broken_into_pairs():
    """Azari Soufiani, Chen, Parkes and Xia (2013): adjacent pairs mislead, all pairs do not, but pretend to know more.

    With the exact distribution of rankings in place of a sample, what is left of the error is bias.
    """
    truth = np.array([1.5, 0.5, -0.5, -1.5])
    rank = np.array(list(permutations(range(4))))
    share = np.exp(jax.jit(davidson_luce)(truth, rank))

    def whole(u):
        return -share @ davidson_luce(u, rank) + u.sum() ** 2

    def broken(u, wins):
        return pooled_loss(u, wins) + u.sum() ** 2

    np.testing.assert_allclose(minimum(whole, np.zeros(4)), truth, atol=1e-6)
    later = rank[:, None, :] - rank[:, :, None]
    adjacent, every = (np.einsum("r,rij->ij", share, pairs) for pairs in (later == 1, later > 0))
    misled = minimum(partial(broken, wins=adjacent), np.zeros(4))
    assert np.abs(misled - truth).max() > 0.1
    np.testing.assert_allclose(minimum(partial(broken, wins=every), np.zeros(4)), truth, atol=1e-6)
    honest, vain = (np.linalg.inv(jax.jit(jax.hessian(f))(truth)) for f in (whole, partial(broken, wins=every)))
    assert (np.diag(vain) < 0.85 * np.diag(honest)).all()  # the variances that each would report
