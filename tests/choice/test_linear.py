"""Linear rules against enumeration of all rankings by linear programs, cvxpy, and failures that must be told."""

import itertools

import cvxpy as cp
import numpy as np
import pytest
from scipy.optimize import linprog

from pluralign import choice
from pluralign.choice import cone
from pluralign.choice.ballots import electorates
from pluralign.errors import InputError, SolveError
from pluralign.types import Linear, Utilities

RULES = [choice.LCPO(), choice.LeximaxPlurality(), choice.LinearKemeny()]
PARETO = [choice.LeximaxPlurality(pareto=True), choice.LinearKemeny(pareto=True)]


def of(phi, weights, mass=None) -> Utilities:
    """Voters with these weight vectors, one draw."""
    phi, weights = np.asarray(phi, float), np.asarray(weights, float)
    phi = phi if phi.ndim == 3 else phi[None]
    mass = np.full(len(weights), 1 / len(weights)) if mass is None else np.asarray(mass)
    reference = np.full(phi.shape[:2], 1 / phi.shape[1])
    return Utilities(Linear(phi, weights[None], np.zeros((1, len(weights)))), mass / mass.sum(), reference)


def random(seed, prompts=1, candidates=4, features=2, voters=5) -> Utilities:
    rng = np.random.default_rng(seed)
    phi = rng.normal(size=(prompts, candidates, features))
    return of(phi, rng.normal(size=(voters, features)) + 0.5, rng.dirichlet(np.full(voters, 5.0)))


# The oracle: all rankings of all prompts that one weight vector induces.


def induced(orders, phi) -> bool:
    """Whether `theta · (phi_x - phi_y) >= 1` for neighbours has a solution, by HiGHS."""
    rows = np.concatenate([p[list(o[:-1])] - p[list(o[1:])] for o, p in zip(orders, phi, strict=True)])
    found = linprog(np.zeros(rows.shape[1]), A_ub=-rows, b_ub=-np.ones(len(rows)), bounds=(None, None), method="highs")
    assert found.status in (0, 2)
    return found.status == 0


def every(phi):
    """Prompts one by one first, then together."""
    own = [[o for o in itertools.permutations(range(len(p))) if induced([o], [p])] for p in phi]
    return [orders for orders in itertools.product(*own) if len(phi) == 1 or induced(orders, phi)]


def unanimous(orders, margins):
    return all(
        m[b, a] < 1 - 1e-12 for o, m in zip(orders, margins, strict=True) for a, b in itertools.combinations(o, 2)
    )


def by_definition(score, margins, orders):
    """Places from the top over all prompts; in each, whoever has most goes first, if some ranking still has it there."""
    for place in range(len(margins[0]) - 1):
        turn = [
            (tuple(np.round([s[a], m[a].sum()], 9)), x, a)
            for x, (s, m) in enumerate(zip(score, margins, strict=True))
            for a in range(len(m))
        ]
        filled = set()
        for _, x, a in sorted(turn, reverse=True):
            left = [o for o in orders if o[x][place] == a]
            if x not in filled and left:
                orders, _ = left, filled.add(x)
    assert len(orders) == 1
    return orders[0]


def lost(orders, margins):
    return sum(max(m[b, a], 0) for o, m in zip(orders, margins, strict=True) for a, b in itertools.combinations(o, 2))


SIZES = [(1, 4, 2, 5), (1, 4, 3, 3), (1, 5, 3, 4), (2, 3, 2, 5), (3, 3, 2, 2)]


@pytest.mark.parametrize("size", SIZES, ids=str)
def test_the_rankings_are_those_of_the_definitions(size):
    met = 0
    for seed in range(6):
        u = random(seed, *size)
        phi = u.value.phi
        profiles = [profile for _, profile in electorates(u)]
        margins = [profile.margins() for profile in profiles]
        orders = every(phi)
        kept = [o for o in orders if unanimous(o, margins)]
        duels, first = [np.sign(m).sum(1) for m in margins], [(p.level == 0) @ p.mass for p in profiles]
        expected = {
            choice.LCPO(): by_definition(duels, margins, kept),
            choice.LeximaxPlurality(): by_definition(first, margins, orders),
            choice.LeximaxPlurality(pareto=True): by_definition(first, margins, kept),
            choice.LinearKemeny(): min(orders, key=lambda o: lost(o, margins)),
            choice.LinearKemeny(pareto=True): min(kept, key=lambda o: lost(o, margins)),
        }
        met += len({str(o) for o in expected.values()}) > 1
        for rule, order in expected.items():
            found = rule.rank(u)
            assert np.argsort(found.above, axis=1).tolist() == [list(o) for o in order], rule
            assert found.lost == pytest.approx(lost(order, margins))
            if found.least is not None:
                assert found.least == pytest.approx(found.lost)
    assert met  # the rules are told apart


@pytest.mark.parametrize("rule", RULES + PARETO, ids=str)
def test_the_weight_vector_is_the_shortest(rule):
    for seed in range(4):
        u = random(seed, prompts=4, candidates=4, features=5, voters=4)
        found = rule.rank(u)
        order = np.argsort(found.above, axis=1)
        ranked = np.take_along_axis(u.value.phi, order[..., None], 1)
        rows = (ranked[:, :-1] - ranked[:, 1:]).reshape(-1, 5)
        theta = cp.Variable(5)
        problem = cp.Problem(cp.Minimize(cp.sum_squares(theta)), [rows @ theta >= 1])
        problem.solve(solver=cp.CLARABEL, tol_gap_abs=1e-12, tol_gap_rel=1e-12, tol_feas=1e-12)
        np.testing.assert_allclose(found.theta, theta.value, rtol=1e-4, atol=1e-5 * np.abs(theta.value).max())
        assert (rows @ found.theta).min() == pytest.approx(1)
        size = np.linalg.norm(rows, axis=1) * np.linalg.norm(found.theta)
        assert found.margin == pytest.approx((rows @ found.theta / size).min())


@pytest.mark.parametrize("rule", RULES, ids=str)
def test_what_is_chosen(rule):
    """Reward, lottery and certificate, from the weights alone; an item that is no candidate does not count."""
    u = random(3, prompts=3, candidates=4, features=3)
    reference = np.array([[0.4, 0.3, 0.3, 0], [0.25] * 4, [0.1, 0.2, 0.3, 0.4]])
    u = Utilities(u.value, u.mass, reference)
    found, beta = rule.choose(u, beta=0.3), 0.3
    theta, phi = rule.rank(u).theta, u.value.phi
    ranges = [np.ptp((p @ theta)[r > 0]) for p, r in zip(phi, reference, strict=True)]
    np.testing.assert_allclose(found.reward.weights, theta / np.mean(ranges))
    p = reference * np.exp(found.reward.score(phi) / beta)
    np.testing.assert_allclose(found.lottery, p / p.sum(1, keepdims=True), atol=1e-12)
    assert found.weights is None and found.certificate.tv_bound < 1e-6
    gain = ((found.lottery - reference) * (phi @ found.reward.weights)).sum(1).mean()
    ratio = np.log(np.where(reference > 0, found.lottery, 1) / np.where(reference > 0, reference, 1))
    assert found.certificate.value == pytest.approx(gain - beta * (found.lottery * ratio).sum(1).mean())
    assert (rule.rank(u).above == -1).tolist() == (reference == 0).tolist()


def test_equal_features_share_a_place():
    """A copy changes neither weights nor ranking; only copies: nothing is to be ranked, and the reference stays."""
    u = random(1, prompts=2, candidates=4, features=3)
    phi = u.value.phi[:, [0, 1, 2, 3, 1, 1]]
    more = of(phi, u.value.weights[0], u.mass)
    for rule in RULES + PARETO:
        one, other = rule.rank(u), rule.rank(more)
        np.testing.assert_allclose(one.theta, other.theta, rtol=1e-9)
        np.testing.assert_array_equal(one.above[:, [0, 1, 2, 3, 1, 1]], other.above)
        same = of(np.ones((2, 3, 2)), [[1.0, 0], [0, 1]])
        assert not rule.rank(same).theta.any() and not rule.rank(same).above.any()
        np.testing.assert_allclose(rule.choose(same, beta=0.01).lottery, 1 / 3)


def test_voters_may_be_indifferent():
    """Two of three do not care between the first two; the third decides. Nobody cares at all: some order all the same."""
    u = of([[1.0, 0, 0], [0, 1, 0], [0, 0, 1]], [[2.0, 2, 1], [1, 1, 2], [0, 3, 2]], [0.5, 0.3, 0.2])
    # Margins: 1 over 0 .2, 0 over 2 0, 1 over 2 .4; first places, a tie being shared: .25, .45, .3.
    for rule, above in zip(RULES, ([1, 0, 2], [2, 0, 1], [1, 0, 2]), strict=True):
        assert rule.rank(u).above.tolist() == [above], rule
        nobody = rule.rank(of([[1.0, 0], [0, 1]], [[1.0, 1], [0, 0]]))
        assert sorted(nobody.above[0]) == [0, 1] and nobody.lost == 0


def test_several_prompts_share_one_weight_vector():
    """The same two features, opposed: the stronger majority gets its way, and the other prompt follows."""
    phi = [[[1.0, 0], [0, 1]], [[1.0, 0.1], [0.1, 1]], [[2, 0.5], [0, 2]]]
    u = of(phi, [[1.0, 0.5], [0.5, 1], [1, 0.9]], [0.4, 0.45, 0.15])
    # The third prompt compares (2, -1.5): weights of the third voter say the first, as in all prompts; 55 % do.
    for rule in RULES:
        assert rule.rank(u).above.tolist() == [[0, 1]] * 3
    opposed = of([[[1.0, 0], [0, 1]], [[0.0, 1.01], [1, 0.01]]], [[1.0, 0.5], [0.5, 1]], [0.6, 0.4])
    assert choice.LCPO().rank(opposed).above.tolist() == [[0, 1], [1, 0]]


# What must be told.


def test_what_linear_rules_do_not_take(make):
    u = make(seed=1)
    for rule in RULES:
        with pytest.raises(InputError, match="utilities are dense"):
            rule.choose(Utilities(u.dense(), u.mass, u.reference))
        with pytest.raises(InputError, match="cannot be cautious"):
            rule.choose(u, risk=choice.CVaR(tail=0.5))
        with pytest.raises(InputError, match="beta is 0"):
            rule.choose(u, beta=0.0)


def test_a_failed_solve_is_not_an_impossible_ranking(monkeypatch):
    u = random(0, prompts=2, candidates=4, features=3)

    def fails(*_, **__):
        raise RuntimeError("Maximum number of iterations reached.")

    for broken in (fails, lambda a, b, maxiter: (np.full(a.shape[1], 1 / a.shape[1]), 0.0)):
        monkeypatch.setattr(cone, "nnls", broken)
        for rule in RULES:
            with pytest.raises(SolveError, match="round them"):
                rule.rank(u)


def test_proofs_on_both_sides():
    """A weight vector with its margin, or weights of comparisons whose sum is 0; Gordan (1873) by hand."""
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(60, 4))
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    theta = rng.normal(size=4)
    ahead = rows * np.sign(rows @ theta)[:, None]
    found = cone.separate(ahead, np.arange(3))
    w = cp.Variable(4)
    best = cp.Problem(cp.Maximize(cp.min(ahead @ w)), [cp.norm(w) <= 1]).solve(solver=cp.CLARABEL)
    assert found.theta is not None and np.linalg.norm(found.theta) == pytest.approx(1)
    assert found.margin == pytest.approx((ahead @ found.theta).min()) and 0.1 * best <= found.margin <= best + 1e-7
    none = cone.separate(rows, np.arange(0))
    assert none.theta is None and none.weights.min() > 0 and none.weights.sum() == pytest.approx(1)
    np.testing.assert_allclose(none.weights @ rows[none.rows], 0, atol=1e-11)
    assert len(none.rows) <= 5  # not one of them can be spared (Gleeson and Ryan 1990)
    for i in range(len(none.rows)):
        assert cone.separate(np.delete(rows[none.rows], i, 0), np.arange(0)).theta is not None


@pytest.mark.parametrize("narrow", [1e-3, 1e-6, 1e-8, 1e-10])
def test_narrow_cones(narrow):
    """Two comparisons that leave an angle of `narrow`, or miss each other by it."""
    rows = np.array([[1.0, 0], [-np.cos(narrow), np.sin(narrow)]])
    found = cone.separate(rows, np.arange(0))
    assert found.theta is not None and found.margin == pytest.approx(np.sin(narrow / 2), rel=1e-3)
    w = cone.shortest(rows, found.theta)
    np.testing.assert_allclose(w, [1, (1 + np.cos(narrow)) / np.sin(narrow)], rtol=1e-5)
    against = np.vstack([rows, [[0.0, -1]]])
    assert cone.separate(against, np.arange(0)).theta is None


CONFLICT = {"seed": 5, "prompts": 3, "candidates": 5, "features": 2, "voters": 7}


def test_kemeny_says_when_it_gives_up(monkeypatch):
    found = choice.LinearKemeny().rank(random(**CONFLICT))
    assert 0 < found.lost == pytest.approx(found.least)
    with pytest.raises(SolveError, match=r"none is below 0\. Exact search is for few prompts"):
        choice.LinearKemeny(seconds=1e-9).rank(random(**CONFLICT))
    gave_up = type("Found", (), {"status": 1, "mip_dual_bound": 5.0, "message": "Time limit."})
    monkeypatch.setattr(cone, "milp", lambda *a, **k: gave_up)
    with pytest.raises(SolveError, match=r"that was met is 0\.4\d+, and none is below 0\.000\d+\. Exact search"):
        choice.LinearKemeny().rank(random(**CONFLICT))
    failed = type("Found", (), {"status": 4, "message": "Numerics."})
    monkeypatch.setattr(cone, "milp", lambda *a, **k: failed)
    with pytest.raises(SolveError, match=r"Numerics\. Exact search"):
        choice.LinearKemeny().rank(random(**CONFLICT))


def test_a_hundred_prompts_are_ranked():
    """100 prompts x 8 candidates x 32 features x 100 voters: the reward induces what was decided, with no one left out."""
    rng = np.random.default_rng(0)
    phi = rng.normal(size=(100, 8, 32)).astype(np.float32)
    u = of(phi, rng.normal(size=32) + 2 * rng.normal(size=(100, 32)))
    for rule in (choice.LCPO(), choice.LeximaxPlurality()):
        found = rule.rank(u)
        ranked = np.take_along_axis(u.value.phi @ found.theta, np.argsort(found.above, axis=1), 1)
        assert (np.diff(ranked) <= -1 + 1e-6).all()
