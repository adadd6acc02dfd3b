"""Fair lotteries against a conic solver, and the one of least norm among those that voters cannot tell apart."""

import cvxpy as cp
import numpy as np
import pytest

from pluralign import choice
from pluralign.choice.ballots import Profile
from pluralign.choice.fair import least_norm

TIGHT = {"solver": cp.CLARABEL, "tol_gap_abs": 1e-9, "tol_gap_rel": 1e-9, "tol_feas": 1e-9}


def profile(seed, voters, candidates, share=0.4) -> Profile:
    rng = np.random.default_rng(seed)
    likes = rng.random((voters, candidates)) < share
    likes[np.arange(voters), rng.integers(0, candidates, voters)] = True
    return Profile(np.where(likes, 0, likes.sum(1, keepdims=True)).T, rng.dirichlet(np.full(voters, 3.0)), likes.T)


def solved(objective, p, *rows):
    problem = cp.Problem(objective, [cp.sum(p) == 1, *rows])
    problem.solve(**TIGHT)
    assert problem.status in (cp.OPTIMAL, cp.OPTIMAL_INACCURATE)
    return p.value


def leximin_by_hand(likes):
    """Raise all who can be raised together, hold whoever cannot be raised alone, go on."""
    held = np.full(len(likes), np.nan)
    while np.isnan(held).any():
        p, least, free = cp.Variable(likes.shape[1], nonneg=True), cp.Variable(), np.isnan(held)
        rows = [likes[free] @ p >= least, *([likes[~free] @ p >= held[~free] - 1e-9] if (~free).any() else [])]
        solved(cp.Maximize(least), p, *rows)
        level = float(least.value)
        for v in np.flatnonzero(free):
            q = cp.Variable(likes.shape[1], nonneg=True)
            floor = np.where(np.isnan(held), level, held) - 1e-8
            if (likes @ solved(cp.Maximize(likes[v] @ q), q, likes @ q >= floor))[v] < level + 1e-5:
                held[v] = level
    return held


@pytest.mark.parametrize(("voters", "candidates"), [(4, 3), (5, 6), (12, 5), (20, 12)])
def test_the_nash_lottery_is_the_conic_programs(voters, candidates):
    for seed in range(4):
        ballots = profile(seed, voters, candidates)
        likes = ballots.approved.T.astype(float)
        p = cp.Variable(candidates, nonneg=True)
        best = likes @ solved(cp.Maximize(ballots.mass @ cp.log(likes @ p)), p)
        found = choice.NashLottery().chances(ballots)
        np.testing.assert_allclose(likes @ found, best, atol=2e-5)
        assert found.min() >= 0 and found.sum() == pytest.approx(1)
        assert ballots.mass @ np.log(likes @ found) >= ballots.mass @ np.log(best) - 1e-9


@pytest.mark.parametrize(("voters", "candidates"), [(4, 3), (5, 6), (9, 5)])
def test_the_egalitarian_lottery_gives_what_raising_one_by_one_gives(voters, candidates):
    for seed in range(3):
        ballots = profile(seed, voters, candidates)
        likes = ballots.approved.T.astype(float)
        np.testing.assert_allclose(
            likes @ choice.EgalitarianLottery().chances(ballots), leximin_by_hand(likes), atol=1e-4
        )


def test_of_lotteries_that_are_the_same_to_voters_the_shortest_is_taken():
    rng, shorter = np.random.default_rng(0), 0
    for _ in range(30):
        likes = (rng.random((3, 6)) < 0.5).astype(float)
        p = rng.dirichlet(np.full(6, 0.4))
        q = cp.Variable(6, nonneg=True)
        expected = solved(cp.Minimize(cp.sum_squares(q)), q, likes @ q == likes @ p)
        found = least_norm(likes, p)
        np.testing.assert_allclose(found, expected, atol=1e-6)
        shorter += bool(found @ found < p @ p - 1e-3)
    assert shorter > 10


def test_copies_share_alike_and_what_nobody_sees_has_its_share_of_what_is_left():
    """Candidates 0 and 1 are the same on every ballot; the last two voters make chances of 1/2."""
    likes = np.array([[1, 1, 0, 0], [1, 1, 1, 0], [0, 0, 0, 1]], bool)
    ballots = Profile(np.where(likes, 0, likes.sum(1, keepdims=True)).T, np.array([0.25, 0.25, 0.5]), likes.T)
    for rule in (choice.NashLottery(), choice.EgalitarianLottery()):
        np.testing.assert_allclose(rule.chances(ballots), [0.25, 0.25, 0, 0.5], atol=1e-6)
