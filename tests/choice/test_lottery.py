"""Lotteries of chance: closed forms, published numbers, linear programs, and brute force."""

import itertools
from fractions import Fraction

import cvxpy as cp
import numpy as np
import pytest
from scipy.optimize import linprog, minimize

from pluralign import choice
from pluralign.choice import game
from pluralign.choice.ballots import electorates
from pluralign.errors import InputError, SolveError
from pluralign.types import Utilities

# 2 x (R > G > B), 3 x (B > R > G), as shares that prefer row to column: R, G, B.
JACKPOT = np.array([[0.5, 1, 0.4], [0, 0.5, 0.4], [0.6, 0.6, 0.5]])
CIRCLE = np.array([[0.0, 1, -1], [-1, 0, 1], [1, -1, 0]])


def skew(rng, *shape):
    m = np.triu(rng.normal(size=(*shape, shape[-1])), 1)
    return m - m.swapaxes(-1, -2)


def by_program(m):
    """Some lottery that nothing gains against, by HiGHS."""
    found = linprog(np.zeros(len(m)), A_ub=m, b_ub=np.zeros(len(m)), A_eq=np.ones((1, len(m))), b_eq=[1.0])
    assert found.status == 0
    return found.x


@pytest.mark.parametrize("candidates", [1, 2, 3, 4, 5, 6, 7, 8, 10, 13])
def test_a_single_maximal_lottery_is_the_one_of_a_linear_program(candidates):
    m = skew(np.random.default_rng(candidates), 25, candidates)
    found = choice.MaximalLottery().from_margins(m)
    for one, p in zip(m, found, strict=True):
        np.testing.assert_allclose(p, by_program(one), atol=1e-8)
        assert (p > 0).sum() % 2 == 1
    assert np.einsum("nab,nb->na", m, found).max() <= 1e-12


def exact_lottery(m):
    """Enumerate supports of a game of Fractions; Gauss elimination."""
    size = len(m)
    for count in range(1, size + 1, 2):
        for support in itertools.combinations(range(size), count):
            rows = [[Fraction(m[a][b]) for b in support] + [Fraction(0)] for a in support[:-1]]
            rows.append([Fraction(1)] * count + [Fraction(1)])
            for i in range(count):
                pivot = next((r for r in range(i, count) if rows[r][i] != 0), None)
                if pivot is None:
                    break
                rows[i], rows[pivot] = rows[pivot], rows[i]
                rows[i] = [x / rows[i][i] for x in rows[i]]
                for r in range(count):
                    if r != i:
                        rows[r] = [x - rows[r][i] * y for x, y in zip(rows[r], rows[i], strict=True)]
            else:
                p = [Fraction(0)] * size
                for a, row in zip(support, rows, strict=True):
                    p[a] = row[-1]
                if min(p) >= 0 and all(sum(Fraction(m[a][b]) * p[b] for b in range(size)) <= 0 for a in range(size)):
                    return p
    raise AssertionError


def test_odd_margins_of_whole_votes_give_the_rational_lottery():
    rng = np.random.default_rng(0)
    for size in (3, 4, 5, 6) * 4:
        m = np.triu(2 * rng.integers(-5, 5, (size, size)) + 1, 1)
        m = m - m.T
        exact = [float(x) for x in exact_lottery(m.tolist())]
        np.testing.assert_allclose(choice.MaximalLottery().from_margins(m), exact, atol=1e-14)


def of_least(m, size):
    """Least norm (1) or most entropy (2) of all lotteries that nothing gains against, by cvxpy."""
    p = cp.Variable(len(m), nonneg=True)
    objective = cp.Minimize(cp.sum_squares(p)) if size == 1 else cp.Maximize(cp.sum(cp.entr(p)))
    problem = cp.Problem(objective, [cp.sum(p) == 1, m @ p <= 0])
    problem.solve(solver=cp.CLARABEL, tol_gap_abs=1e-9, tol_gap_rel=1e-9, tol_feas=1e-9)
    return p.value


def test_of_several_lotteries_the_one_that_was_asked_for():
    rng = np.random.default_rng(0)
    for _ in range(12):
        m = np.triu(rng.integers(-1, 2, (6, 6)), 1)
        m = (m - m.T).astype(float)
        norm, entropy = choice.MaximalLottery().from_margins(m), choice.MaximalLottery(entropy=True).from_margins(m)
        np.testing.assert_allclose(norm, of_least(m, 1), atol=1e-4)
        assert norm @ norm <= np.square(of_least(m, 1)).sum() + 1e-7
        np.testing.assert_allclose(entropy, of_least(m, 2), atol=1e-4)
        assert (m @ norm).max() < 1e-9 and (m @ entropy).max() < 1e-9
    # A circle, whose lottery is v = (2, 1, 3) / 6, and a candidate that ties all: a v and 1 - a, a between 0 and 1.
    m, v = np.zeros((4, 4)), np.array([2, 1, 3]) / 6
    m[:3, :3] = [[0, 3, -1], [-3, 0, 2], [1, -2, 0]]
    a = 1 / (1 + v @ v)  # least of a^2 v·v + (1 - a)^2
    np.testing.assert_allclose(choice.MaximalLottery().from_margins(m), [*(a * v), 1 - a], atol=1e-12)
    a = 1 / (1 + np.exp(v @ np.log(v)))  # most of a H(v) + H(a)
    np.testing.assert_allclose(choice.MaximalLottery(entropy=True).from_margins(m), [*(a * v), 1 - a], atol=1e-12)
    np.testing.assert_allclose(choice.MaximalLottery().from_margins(np.zeros((4, 4))), 0.25, atol=1e-12)


def test_margins_that_only_rounding_makes_are_ties():
    noise = 1e-16 * skew(np.random.default_rng(0), 4)
    np.testing.assert_allclose(choice.MaximalLottery().from_margins(noise), 0.25, atol=1e-12)
    assert choice.Borda().from_margins(noise).all()
    blurred = np.array([[0, 1, -1, 0], [-1, 0, 1, 0], [1, -1, 0, 0], [0, 0, 0, 0.0]])
    expected = choice.MaximalLottery().from_margins(blurred)
    np.testing.assert_allclose(choice.MaximalLottery().from_margins(blurred + noise), expected, atol=1e-9)


def test_what_is_not_optimal_raises():
    with pytest.raises(SolveError, match="a candidate gains 1 against the lottery"):
        game.certified(np.array([1.0, 0, 0]), CIRCLE)
    with pytest.raises(SolveError, match="not solved"):
        game.certified(np.full(3, np.nan), CIRCLE)
    np.testing.assert_array_equal(game.certified(np.full(3, 1 / 3), CIRCLE), 1 / 3)


# Published cases.


def test_an_irrelevant_alternative_does_not_turn_the_maximal_lottery():
    """Maura-Rivero et al. (2025): B with G and without; the Borda winner turns from R to B."""
    m = 2 * JACKPOT - 1
    np.testing.assert_allclose(choice.MaximalLottery().from_margins(m), [0, 0, 1], atol=1e-15)
    np.testing.assert_allclose(choice.MaximalLottery().from_margins(m[::2, ::2]), [0, 1], atol=1e-15)
    assert choice.Borda().from_margins(m).tolist() == [True, False, False]
    assert choice.Borda().from_margins(m[::2, ::2]).tolist() == [False, True]
    np.testing.assert_allclose(choice.MaximalLottery().from_margins(CIRCLE), 1 / 3, atol=1e-15)


def of_orders(orders, weights) -> Utilities:
    """Voters with these orders of one prompt's candidates, best first."""
    value = -np.argsort(np.array(orders), axis=1).astype(float)
    return Utilities(
        value[None, :, None], np.array(weights) / sum(weights), np.full((1, len(orders[0])), 1 / len(orders[0]))
    )


@pytest.mark.parametrize(
    ("beta", "expected"),
    [
        (0.5, (0.3955, 0.2148, 0.3897)),
        (0.1, (0.30571, 0.05130, 0.64300)),
        (0.05, (0.14558, 0.02614, 0.82827)),
        (0.02, (0.00763, 0.00549, 0.98688)),
    ],
)
def test_the_priced_game(beta, expected):
    """Munos et al. (2023) on the population above, uniform reference, prices recomputed by iterating their equation 9."""
    chosen = choice.MaximalLottery().choose(of_orders([[0, 1, 2], [2, 0, 1]], [2, 3]), beta=beta)
    np.testing.assert_allclose(chosen.lottery[0], expected, atol=6e-5)
    assert chosen.certificate.tv_bound < 1e-6
    assert chosen.certificate.upper_bound == 0.5


def test_the_priced_game_is_solved_from_both_sides(make):
    """No lottery found by a general solver does better against p, at the same prices."""
    u = make(seed=3)
    for beta in (0.02, 0.3):
        chosen = choice.MaximalLottery().choose(u, beta=beta)
        for x, (on, profile) in enumerate(electorates(u)):
            m, p, ref = profile.margins(), chosen.lottery[x, on], u.reference[x, on]

            def gain(z, m=m, p=p, ref=ref, beta=beta):
                q = np.exp(z - z.max())
                q /= q.sum()
                cost = [(r * np.log(r / ref)).sum() for r in (q, p)]
                return -(q @ m @ p / 2 - beta * cost[0] + beta * cost[1])

            starts = (np.zeros(len(on)), np.log(p), *(5 * np.eye(len(on))))
            assert min(minimize(gain, z).fun for z in starts) == pytest.approx(0, abs=1e-7)


def test_the_price_leads_to_the_lottery_of_most_entropy():
    orders = [[0, 1, 2, 3], [1, 0, 3, 2], [0, 1, 3, 2], [1, 0, 2, 3]]  # 0 and 1 tie above all others
    chosen = choice.MaximalLottery().choose(of_orders(orders, [1, 1, 1, 1]), beta=1e-3)
    np.testing.assert_allclose(chosen.lottery[0], [0.5, 0.5, 0, 0], atol=1e-9)


def test_comparisons_rank_by_borda():
    """Casper et al. (2023), 3.1.4: A is worth 1; B is worth 10 to 40 % and 0 to the others. Siththaranjan et al. (2023)."""
    u = Utilities(np.array([[1.0, 10], [1, 0]])[None, :, None], np.array([0.4, 0.6]), np.full((1, 2), 0.5))
    for rule in (choice.Borda(), choice.Plurality(), choice.MaximalLottery(), choice.Schulze()):
        assert rule.choose(u, beta=0.05).lottery[0].argmax() == 0, rule
    assert choice.Utilitarian().choose(u, beta=0.05).lottery[0].argmax() == 1


def test_borda_s_winner_is_not_who_is_worth_most():
    """Siththaranjan et al. (2023): E u = a, yet the Borda count is a + .1 below .8 and .275 + .25 a above."""
    a = (np.arange(100) + 0.5) / 100
    worth = np.where(a < 0.8, a, 2 * a), np.where(a < 0.8, a, 0)
    m = np.mean([np.sign(x[:, None] - y) for x in worth for y in worth], axis=0)
    np.fill_diagonal(m, 0)
    assert a[choice.Borda().from_margins(m)].tolist() == [0.795]


def test_bradley_terry_s_best_is_borda_s_winner_where_all_pairs_are_compared_equally_often():
    """300 tournaments; the fit by Zermelo's fixed point (1929), `p_a = wins_a / sum_b n / (p_a + p_b)`."""
    rng = np.random.default_rng(0)
    upper = np.triu(rng.integers(1, 10, (300, 6, 6)), 1)
    wins = upper + np.tril(10 - upper.swapaxes(1, 2), -1)
    p = np.ones((300, 6))
    for _ in range(2000):
        p = wins.sum(-1) / (10 / (p[:, :, None] + p[:, None]) * (1 - np.eye(6))).sum(-1)
        p /= p.sum(-1, keepdims=True)
    best = p >= p.max(-1, keepdims=True) * (1 - 1e-9)
    np.testing.assert_array_equal(choice.Borda().from_margins(wins - wins.swapaxes(1, 2)), best)
    assert (best != choice.Copeland().from_margins(wins - wins.swapaxes(1, 2))).any()


def test_self_play_comes_to_the_maximal_lottery_on_average():
    """Swamy et al. (2024): the mean of the iterates of multiplicative weights; the last iterate goes round in circles."""
    last, mean, rounds, far = np.array([0.5, 0.3, 0.2]), np.zeros(3), 20_000, 0.0
    for _ in range(rounds):
        mean += last / rounds
        last = last * np.exp(0.05 * CIRCLE @ last)
        last /= last.sum()
        far = max(far, last.max())
    np.testing.assert_allclose(mean, choice.MaximalLottery().from_margins(CIRCLE), atol=0.1)
    assert far > 0.8


# A dictator at random, and fair shares.


def test_a_dictator_is_drawn_by_mass(make):
    u = of_orders([[0, 1, 2], [1, 2, 0], [1, 0, 2]], [5, 2, 3])
    np.testing.assert_allclose(choice.RandomDictatorship().choose(u, beta=0.01).lottery[0], [0.5, 0.5, 0], atol=1e-12)
    found = choice.RandomDictatorship().lottery(np.array([[0, 1, 2], [1, -1, -1], [-1, -1, -1]]), np.array([3.0, 2, 3]))
    np.testing.assert_allclose(found, [0.5, 0.375, 0.125])
    u = make(seed=4)
    beta = 0.3
    chosen = choice.RandomDictatorship().choose(u, beta=beta)
    expected = np.zeros_like(chosen.lottery)
    value = u.dense()
    for s, v, x in np.ndindex(value.shape[:3]):
        top = np.where(u.reference[x] > 0, value[s, v, x], -np.inf)
        own = u.reference[x] * np.exp((top == top.max()) / beta)
        expected[x] += u.mass[v] / len(value) * own / own.sum()
    np.testing.assert_allclose(chosen.lottery, expected, atol=1e-12)
    assert chosen.certificate.tv_bound < 1e-6


def test_fair_mixing():
    """Aziz, Bogomolnaia and Moulin (2019): approvals {a}, {a, b}, {b}, {c}: c gets its quarter, a and b the rest."""
    rankings = np.array([[0, -1], [0, 1], [1, -1], [2, -1]])
    found = choice.NashLottery().lottery(rankings)
    np.testing.assert_allclose(found, [0.375, 0.375, 0.25], atol=1e-6)
    np.testing.assert_allclose(choice.NashLottery(top=1).lottery(rankings), [0.5, 0.25, 0.25], atol=1e-6)
    np.testing.assert_allclose(choice.EgalitarianLottery().lottery(rankings), 1 / 3, atol=1e-6)
    # At the border: candidate 2 is worth exactly what it costs, and gets nothing.
    border = np.array([[0, 1, 2], [1, 2, 0], [2, 0, 1], [0, 1, -1]])
    np.testing.assert_allclose(choice.NashLottery(top=2).lottery(border), [0.5, 0.5, 0], atol=1e-5)


def test_the_egalitarian_lottery_goes_on_after_the_least():
    """Whoever has least is stuck at a half; among the others the next least is raised, not the sum."""
    likes = [[0], [1], [0, 2], [1, 2], [0], [0]]
    rankings = np.array([row + [-1] * (2 - len(row)) for row in likes])
    np.testing.assert_allclose(choice.EgalitarianLottery().lottery(rankings), [0.5, 0.5, 0], atol=1e-6)
    rng = np.random.default_rng(0)
    for _ in range(6):
        approvals = rng.random((5, 3)) < 0.5
        approvals[~approvals.any(1), 0] = True
        grid = np.array([(a, b, 60 - a - b) for a in range(61) for b in range(61 - a)]) / 60
        served = np.sort(grid @ approvals.T, axis=1)
        best = max(map(tuple, served.round(9)))  # tuples compare by the first entry that differs: leximin
        ranked = np.array([[*np.flatnonzero(row), *[-1] * (3 - row.sum())] for row in approvals])
        found = choice.EgalitarianLottery().lottery(ranked, candidates=3)
        np.testing.assert_allclose(np.sort(approvals @ found), best, atol=1e-6)


def test_fair_shares_on_a_posterior(make):
    u = make(seed=6)
    for rule, plain in (
        (choice.NashLottery(top=1), choice.Nash()),
        (choice.EgalitarianLottery(top=1), choice.Maximin()),
    ):
        value = u.dense()
        value = np.where(u.reference > 0, value, -np.inf)
        likes = (value == value.max(-1, keepdims=True)).astype(float)
        expected = plain.choose(Utilities(likes, u.mass, u.reference), risk=choice.CVaR(tail=0.5), beta=0.2)
        found = rule.choose(u, risk=choice.CVaR(tail=0.5), beta=0.2)
        np.testing.assert_allclose(found.lottery, expected.lottery, atol=1e-3)
        assert found.utilities is u and found.weights is None and found.name == rule.name
    with pytest.raises(InputError, match="cannot be cautious"):
        choice.MaximalLottery().choose(u, risk=choice.CVaR(tail=0.5))
