"""Rules between sum and minimum: their limits, textbook numbers, and what they refuse."""

import itertools

import cvxpy as cp
import numpy as np
import pytest
from scipy.optimize import brentq, linprog, minimize

from pluralign import choice
from pluralign.errors import InputError, SolveError
from pluralign.types import Utilities

RNG = np.random.default_rng(0)
U = RNG.gamma(2.0, size=(5, 4)) + 0.1
MASS = np.array([0.1, 0.4, 0.2, 0.3])


def table(value, mass=None, reference=None) -> Utilities:
    value = np.asarray(value, float)
    _, voters, prompts, candidates = value.shape
    mass = np.full(voters, 1 / voters) if mass is None else mass
    return Utilities(value, mass, np.full((prompts, candidates), 1 / candidates) if reference is None else reference)


def value_of(rule, u=U, mass=MASS):
    return rule.marginal(np.asarray(u, float), np.asarray(mass, float))[0]


# Aversion to inequality.


@pytest.mark.parametrize(("alpha", "same"), [(0.0, choice.Utilitarian()), (1.0, choice.Nash())])
def test_alpha_0_is_the_sum_and_alpha_1_is_nash(make, alpha, same):
    u, risk = make(seed=20), choice.CVaR(0.5)
    a, b = choice.AlphaFair(alpha).choose(u, risk, 0.2), same.choose(u, risk, 0.2)
    np.testing.assert_allclose(a.lottery, b.lottery, atol=1e-5)
    assert a.certificate.value == pytest.approx(b.certificate.value, abs=1e-8)


def test_alpha_near_1_is_near_nash_from_both_sides(make):
    u = make(seed=21)
    nash = choice.Nash().choose(u, beta=0.2).lottery
    for alpha in (1 - 1e-4, 1 + 1e-4):
        np.testing.assert_allclose(choice.AlphaFair(alpha).choose(u, beta=0.2).lottery, nash, atol=1e-3)
    assert np.abs(choice.AlphaFair(2.0).choose(u, beta=0.2).lottery - nash).max() > 0.02


def test_a_large_alpha_is_maximin():
    """With the equal level `e = (sum m u^(1-a))^(1/(1-a))`, W grows by `e^-a` per unit of it: beta in its units."""
    rng = np.random.default_rng(2)
    u = table(1 + rng.random((1, 3, 2, 3)), [0.5, 0.2, 0.3])
    for alpha, near in ((4.0, 0.1), (60.0, 0.01)):
        fair = choice.AlphaFair(alpha).choose(u, beta=0.3)
        gains = u.expected(fair.lottery)[0]
        level = float((u.mass @ gains ** (1 - alpha)) ** (1 / (1 - alpha)))
        maximin = choice.Maximin().choose(u, beta=0.3 * level**alpha)
        off = np.abs(fair.lottery - maximin.lottery).sum(-1).mean() / 2
        assert off < near
        if alpha == 4.0:
            assert off > 0.01


@pytest.mark.parametrize("alpha", [0.5, 2.0, 3.5])
def test_alpha_fair_shares_follow_the_closed_form(alpha):
    """Two voters, each wants one of two answers: `beta log(p / q) = m_1 p^-a - m_2 q^-a`; without beta a power law."""
    m, beta, u = [0.8, 0.2], 0.25, table([[[[1, 0]], [[0, 1]]]], [0.8, 0.2])

    def slope(p):
        return beta * np.log(p / (1 - p)) - m[0] * p**-alpha + m[1] * (1 - p) ** -alpha

    p = choice.AlphaFair(alpha).choose(u, beta=beta).lottery[0, 0]
    assert p == pytest.approx(brentq(slope, 1e-9, 1 - 1e-9), abs=2e-4)
    p, q = choice.AlphaFair(alpha).choose(u, beta=1e-4).lottery[0]
    assert p / q == pytest.approx((m[0] / m[1]) ** (1 / alpha), rel=5e-3)


def test_what_alpha_cannot_be_and_whom_it_cannot_serve():
    for alpha in (-0.1, np.nan, np.inf, 1 + 1e-9):
        with pytest.raises(InputError, match="alpha is"):
            choice.AlphaFair(alpha)
    stuck = table([[[[1, 2]], [[0, 0]]]])
    for alpha in (0.5, 1.0, 2.0):
        with pytest.raises(InputError, match=r"alpha-fair\S* needs positive utilities.*voter 1"):
            choice.AlphaFair(alpha).choose(stuck)
    choice.AlphaFair(0.0).choose(stuck)


# Places.


def test_owa_of_equal_voters_is_the_weighted_sum_of_sorted_utilities():
    """Yager 1988, equation (1), with the worst first."""
    weights = (0.4, 0.3, 0.2, 0.1)
    for row, value in zip(U, value_of(choice.OWA(weights), U, np.full(4, 0.25)), strict=True):
        assert value == pytest.approx(sum(w * x for w, x in zip(weights, sorted(row), strict=True)))
    np.testing.assert_allclose(value_of(choice.OWA((8.0, 6.0, 4.0, 2.0))), value_of(choice.OWA(weights)))


def test_a_place_is_split_by_mass():
    """Weights 3, 1 for the worse and the better half: 0.4 of the mass at 1, then 0.6 at 2."""
    value = value_of(choice.OWA((3.0, 1.0)), [[2.0, 1.0]], [0.6, 0.4])
    assert value[0] == pytest.approx((3 * (0.4 * 1 + 0.1 * 2) + 1 * 0.5 * 2) / (3 * 0.5 + 1 * 0.5))


def test_the_gini_of_a_textbook_income_table():
    """Incomes 1, 2, 3, 4 have a Gini index of 1/4, and 0, 0, 0, 1 one of 3/4; welfare is mean (1 - Gini)."""
    incomes = np.array([[1.0, 2, 3, 4], [0, 0, 0, 1], [5, 5, 5, 5]])
    expected = incomes.mean(1) * (1 - np.array([0.25, 0.75, 0]))
    np.testing.assert_allclose(value_of(choice.Gini(), incomes, np.full(4, 0.25)), expected, atol=1e-12)


@pytest.mark.parametrize("delta", [1, 2, 4])
def test_gini_is_the_expected_worst_of_so_many_voters(delta):
    drawn = list(itertools.product(range(4), repeat=delta))
    chance = [np.prod([MASS[v] for v in who]) for who in drawn]
    for row, value in zip(U, value_of(choice.Gini(delta)), strict=True):
        assert value == pytest.approx(sum(c * min(row[v] for v in who) for c, who in zip(chance, drawn, strict=True)))


@pytest.mark.parametrize("tail", [0.05, 0.25, 0.6, 1.0])
def test_voter_cvar_is_the_mean_of_the_lowest_quantiles(tail):
    level = (np.arange(200_000) + 0.5) / 200_000 * tail
    for row, value in zip(U, value_of(choice.VoterCVaR(tail)), strict=True):
        order = row.argsort()
        quantile = row[order][np.searchsorted(MASS[order].cumsum(), level, side="right").clip(max=3)]
        assert value == pytest.approx(quantile.mean(), abs=1e-4)


RANKED = [choice.OWA((4.0, 2.0, 1.0)), choice.Gini(3), choice.VoterCVaR(0.4)]
ROBUST = [choice.KLRobust(0.1), choice.ChiSquareRobust(0.4), choice.TotalVariationRobust(0.2)]


def merges(rule):
    """Voters who want the same are one voter with the mass of both."""
    twice = np.concatenate([U, U], 1)
    np.testing.assert_allclose(value_of(rule, twice, np.append(0.3 * MASS, 0.7 * MASS)), value_of(rule), atol=1e-9)


@pytest.mark.parametrize("rule", RANKED + ROBUST, ids=str)
def test_masses_add_up(rule):
    merges(rule)


def test_a_rule_that_counts_heads_does_not_merge():
    class Heads:
        def marginal(self, u, mass):
            return np.sort(u, 1) @ np.arange(u.shape[1], 0, -1) / u.shape[1], None

    with pytest.raises(AssertionError):
        merges(Heads())


@pytest.mark.parametrize(
    ("rule", "same"),
    [
        (choice.OWA((1.0,)), choice.Utilitarian()),
        (choice.OWA((2.0, 2.0, 2.0)), choice.Utilitarian()),
        (choice.OWA((1.0, 0.0, 0.0, 0.0)), choice.VoterCVaR(0.25)),
        (choice.Gini(1), choice.Utilitarian()),
        (choice.VoterCVaR(1.0), choice.Utilitarian()),
        (choice.VoterCVaR(0.1), choice.Maximin()),
        (choice.KLRobust(0.0), choice.Utilitarian()),
        (choice.KLRobust(2.4), choice.Maximin()),
        (choice.ChiSquareRobust(0.0), choice.Utilitarian()),
        (choice.ChiSquareRobust(9.1), choice.Maximin()),
        (choice.TotalVariationRobust(0.0), choice.Utilitarian()),
        (choice.TotalVariationRobust(0.95), choice.Maximin()),
    ],
    ids=str,
)
def test_limits(rule, same):
    """The smallest mass is 0.1: `-log 0.1 = 2.3` nats, `1 / 0.1 - 1 = 9` and `1 - 0.1 = 0.9` away."""
    np.testing.assert_allclose(value_of(rule), value_of(same), atol=1e-12)
    np.testing.assert_allclose(rule.marginal(U, MASS)[1], same.marginal(U, MASS)[1], atol=1e-12)


@pytest.mark.parametrize(
    ("make_it", "message"),
    [
        (lambda: choice.OWA((1.0, 2.0)), "weights are"),
        (lambda: choice.OWA(()), "weights are"),
        (lambda: choice.OWA((0.0, 0.0)), "weights are"),
        (lambda: choice.OWA((1.0, -1.0)), "weights are"),
        (lambda: choice.Gini(0), "delta is"),
        (lambda: choice.VoterCVaR(0.0), "tail is"),
        (lambda: choice.VoterCVaR(1.5), "tail is"),
        (lambda: choice.KLRobust(-0.1), "radius is"),
        (lambda: choice.ChiSquareRobust(np.inf), "radius is"),
    ],
)
def test_what_is_refused(make_it, message):
    with pytest.raises(InputError, match=message):
        make_it()


# Masses that may be wrong.


def least(u, constraints):
    """The program over masses, one draw after the other, by a conic solver."""
    found = []
    for row in u:
        q = cp.Variable(4, nonneg=True)
        problem = cp.Problem(cp.Minimize(row @ q), [cp.sum(q) == 1, *constraints(q)])
        found.append(problem.solve(solver=cp.CLARABEL))
    return found


@pytest.mark.parametrize("radius", [1e-3, 0.05, 0.3, 1.0])
def test_the_worst_masses_of_each_ball(radius):
    kl = least(U, lambda q: [cp.sum(cp.rel_entr(q, MASS)) <= radius])
    np.testing.assert_allclose(value_of(choice.KLRobust(radius)), kl, atol=1e-5)
    chi_square = least(U, lambda q: [cp.sum(cp.square(q - MASS) / MASS) <= radius])
    np.testing.assert_allclose(value_of(choice.ChiSquareRobust(radius)), chi_square, atol=1e-5)
    for row, value in zip(U, value_of(choice.TotalVariationRobust(radius)), strict=True):
        moved = np.vstack([np.append(np.zeros(4), np.ones(4))])
        split = np.vstack([np.hstack([np.eye(4), -np.eye(4)]), np.hstack([-np.eye(4), -np.eye(4)])])
        found = linprog(
            np.append(row, np.zeros(4)),
            A_ub=np.vstack([split, moved]),
            b_ub=np.concatenate([MASS, -MASS, [2 * radius]]),
            A_eq=np.append(np.ones(4), np.zeros(4))[None],
            b_eq=[1],
        )
        assert value == pytest.approx(found.fun, abs=1e-9)


def test_worst_masses_lie_in_their_ball():
    u = np.concatenate([U, 1e6 + U, 1e-6 * U, np.round(U), np.array([[1, 1, 1, 1 + 1e-12]])])
    for radius in (1e-12, 1e-6, 0.01, 0.5, 1.2):
        for rule in (choice.KLRobust(radius), choice.ChiSquareRobust(radius), choice.TotalVariationRobust(radius)):
            q = rule.worst(u, MASS)
            assert (q >= 0).all()
            np.testing.assert_allclose(q.sum(1), 1, atol=1e-12)
            away = {
                "kl-robust": (q * np.log(np.where(q > 0, q, 1) / MASS)).sum(1),
                "chi-square-robust": ((q - MASS) ** 2 / MASS).sum(1),
                "total-variation-robust": np.abs(q - MASS).sum(1) / 2,
            }[rule.kind]
            assert (away <= radius * (1 + 1e-8) + 1e-12).all()


def test_a_small_chi_square_ball_subtracts_standard_deviations():
    mean = U @ MASS
    std = np.sqrt(((U - mean[:, None]) ** 2) @ MASS)
    np.testing.assert_allclose(value_of(choice.ChiSquareRobust(0.01)), mean - 0.1 * std, atol=1e-12)
    beyond = value_of(choice.ChiSquareRobust(4.0))
    assert (beyond > mean - 2 * std + 1e-3).all()


# Bargaining.


def bargain(reference=(0.96, 0.02, 0.02)) -> Utilities:
    """No agreement is worth (0, 0); the frontier goes from (0, 1) to (1, 0.7), and the best for each is 1."""
    return table([[[[0, 0, 1]], [[0, 1, 0.7]]]], reference=np.array([reference]))


def test_kalai_and_smorodinsky_go_straight_to_the_ideal_point():
    """The line from d to (1, 1) meets the frontier `y = 1 - 0.3 x`; Nash's product is largest at (1, 0.7)."""
    u = bargain()
    d = u.expected(u.reference)[0]

    def off(t):
        x, y = d + t * (1 - d)
        return y - (1 - 0.3 * x)

    kalai = choice.KalaiSmorodinsky().choose(u, beta=1e-3)
    np.testing.assert_allclose(u.expected(kalai.lottery)[0], d + brentq(off, 0, 1) * (1 - d), atol=3e-3)
    nash = choice.NashBargaining().choose(u, beta=1e-3)
    np.testing.assert_allclose(u.expected(nash.lottery)[0], [1, 0.7], atol=3e-3)
    products = [np.prod(u.expected(c.lottery)[0] - d) for c in (nash, kalai)]
    assert products[0] > products[1]


def test_nash_divides_a_cake_by_bargaining_power():
    """Nash 1950 with masses: of `x + y <= 1` each gets what it has anyhow, and a share of the rest by its mass."""
    u = table([[[[0, 1, 0]], [[0, 0, 1]]]], [0.7, 0.3], np.array([[0.5, 0.3, 0.2]]))
    shares = u.expected(choice.NashBargaining().choose(u, beta=1e-3).lottery)[0]
    np.testing.assert_allclose(shares, [0.3 + 0.7 * 0.5, 0.2 + 0.3 * 0.5], atol=3e-3)


@pytest.mark.parametrize("rule", [choice.KalaiSmorodinsky(), choice.NashBargaining()], ids=lambda r: r.kind)
def test_bargaining_does_not_feel_units_and_zeros(rule):
    u = bargain((0.5, 0.2, 0.3))
    moved = table(u.value * np.array([3.0, 1e-3])[None, :, None, None] - 7, reference=u.reference)
    a, b = (rule.choose(x, beta=0.05) for x in (u, moved))
    np.testing.assert_allclose(a.lottery, b.lottery, atol=1e-4)
    np.testing.assert_allclose(b.weights / a.weights, [[1 / 3, 1e3]], rtol=1e-3)


def test_who_cannot_gain_cannot_bargain():
    content = table([[[[1, 0]], [[2, 2]]]])
    with pytest.raises(InputError, match=r"nash-bargaining needs positive utilities.*best lottery for voter 1"):
        choice.NashBargaining().choose(content)
    with pytest.raises(InputError, match=r"GapScale.*indifferent.*voter 1"):
        choice.KalaiSmorodinsky().choose(content)
    opposed = table([[[[1, 0]], [[0, 1]]]])
    with pytest.raises(SolveError, match="stand in each other's way"):
        choice.NashBargaining().choose(opposed)
    still = choice.KalaiSmorodinsky().choose(opposed)  # nobody gains: the reference
    np.testing.assert_allclose(still.lottery, opposed.reference, atol=1e-4)


def test_the_lottery_between_sum_and_minimum():
    """A majority's favourite loses probability as the rule looks further down; scipy finds nothing better."""
    u = table([[[[1.0, 0.2, 0.0]], [[0.3, 1.0, 0.1]], [[0.1, 0.2, 1.0]]]], [0.6, 0.25, 0.15])
    shares = []
    for rule in (choice.Utilitarian(), choice.TotalVariationRobust(0.2), choice.Gini(2), choice.Maximin()):
        chosen = rule.choose(u, beta=0.1)

        def loss(logits, rule=rule):
            p = np.exp(logits - logits.max())
            p /= p.sum()
            return 0.1 * (p * np.log(p * 3)).sum() - value_of(rule, u.expected(p[None]), u.mass)[0]

        found = -min(
            minimize(loss, start, method="Nelder-Mead", options={"xatol": 1e-9, "fatol": 1e-13, "maxiter": 4000}).fun
            for start in np.random.default_rng(3).normal(size=(3, 3))
        )
        assert chosen.certificate.upper_bound >= found - 1e-9
        assert chosen.certificate.value == pytest.approx(found, abs=1e-4)
        shares.append(chosen.lottery[0, 0])
    assert (np.diff(shares) < -0.02).all(), shares
