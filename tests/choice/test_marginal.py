"""Formulas of value and supergradient against what rule or risk states as a convex program, solved by a conic solver."""

from dataclasses import dataclass

import cvxpy as cp
import numpy as np
import pytest

from pluralign import choice
from pluralign.choice import ball, scale
from pluralign.types import Linear, Utilities

RULES = [
    choice.Utilitarian(),
    choice.Nash(),
    choice.Maximin(),
    *(choice.AlphaFair(alpha) for alpha in (0.0, 0.37, 1.0, 1.5, 4.0)),
    choice.OWA((4.0, 3.0, 2.0, 1.0)),
    choice.OWA((1.0, 1.0, 0.5, 0.0, 0.0, 0.0)),
    choice.OWA((2.0,)),
    *(choice.Gini(delta) for delta in (1, 2, 3)),
    *(choice.VoterCVaR(tail) for tail in (0.05, 0.3, 0.77, 1.0)),
    choice.KalaiSmorodinsky(),
    choice.NashBargaining(),
    *(choice.KLRobust(radius) for radius in (0.0, 0.01, 0.2, 5.0)),
    *(choice.ChiSquareRobust(radius) for radius in (0.0, 0.01, 0.4, 2.0, 50.0)),
    *(choice.TotalVariationRobust(radius) for radius in (0.0, 0.1, 0.5, 1.0)),
]
RISKS = [
    choice.Mean(),
    choice.CVaR(0.4),
    choice.WorstCase(),
    *(choice.Entropic(theta) for theta in (0.1, 1.0, 20.0)),
    *(choice.Semideviation(k) for k in (0.0, 0.6, 1.0)),
    *(choice.Ellipsoid(radius) for radius in (0.0, 0.3, 1.0, 2.0, 9.0)),
]
UTILITIES = {
    "some": np.random.default_rng(0).gamma(1.0, size=(3, 4)) + 0.2,
    "tied": np.array([[2.0, 1, 2, 1], [1, 1, 1, 1], [3, 3, 1, 1 + 1e-13]]),
    "one voter": np.array([[0.4], [2.0]]),
    "one draw": np.array([[3.0, 0.5, 1.0, 9.0]]),
    "far from 0": 1e3 + np.random.default_rng(1).random((2, 4)),
    "negative": np.random.default_rng(2).normal(size=(3, 4)) - 1,
}
WELFARE = {
    "some": np.random.default_rng(3).normal(size=7),
    "tied": np.array([1.0, 2, 2, 1, 1]),
    "all the same": np.full(4, -0.3),
    "one draw": np.array([0.7]),
    "one far off": np.array([0.0, 0.1, 0.2, 50.0]),
}


def solved(expression) -> float:
    """Return the largest value of an expression over the variables that it holds."""
    problem = cp.Problem(cp.Maximize(cp.sum(expression)))
    problem.solve(solver=cp.CLARABEL)
    assert problem.status == cp.OPTIMAL
    return problem.value


def agrees(rule, u):
    mass = np.random.default_rng(u.shape[1]).dirichlet(np.full(u.shape[1], 2.0))
    value, slope = rule.marginal(u, mass)
    assert value.shape == u.shape[:1]
    assert slope.shape == u.shape
    assert (slope >= 0).all()
    size = max(1.0, float(np.abs(value).max()))
    assert value.sum() == pytest.approx(solved(rule.welfare(cp.Constant(u), mass)), abs=2e-6 * size)
    rng = np.random.default_rng(4)
    for spread in (1e-3, 0.3, 3.0):
        for _ in range(20):
            other = u + spread * rng.normal(size=u.shape)
            other = np.abs(other) + 1e-3 if rule.positive else other
            reached, _ = rule.marginal(other, mass)
            assert (reached <= value + (slope * (other - u)).sum(1) + 1e-9 * size).all()


def agrees_in_draws(risk, w):
    value, share = risk.marginal(w)
    assert (share >= 0).all()
    assert share.sum() == pytest.approx(1)
    assert value == pytest.approx(solved(risk.combine(cp.Constant(w))), abs=2e-6 * max(1.0, np.abs(w).max()))
    rng = np.random.default_rng(5)
    for spread in (1e-3, 0.3, 3.0):
        for _ in range(20):
            other = w + spread * rng.normal(size=w.shape)
            assert risk.marginal(other)[0] <= value + share @ (other - w) + 1e-9


@pytest.mark.parametrize("case", UTILITIES)
@pytest.mark.parametrize("rule", RULES, ids=str)
def test_a_rule_is_the_program_that_it_states(rule, case):
    if case == "negative" and rule.positive:
        with np.errstate(all="ignore"):
            assert not np.isfinite(rule.marginal(UTILITIES[case], np.full(4, 0.25))[0]).any()
        return
    agrees(rule, UTILITIES[case])


@pytest.mark.parametrize("case", WELFARE)
@pytest.mark.parametrize("risk", RISKS, ids=str)
def test_a_risk_is_the_program_that_it_states(risk, case):
    agrees_in_draws(risk, WELFARE[case])


@dataclass(frozen=True)
class Steep(choice.AbstractWelfare):
    """The right value, and a slope that is right but for one voter."""

    def welfare(self, u, mass):
        return cp.min(u, axis=1)

    def marginal(self, u, mass):
        value, slope = choice.Maximin().marginal(u, mass)
        return value, slope + 0.1 * (np.arange(u.shape[1]) == 0)


@dataclass(frozen=True)
class High(choice.AbstractWelfare):
    """The slope of the worst off, and the value of the mean."""

    def welfare(self, u, mass):
        return cp.min(u, axis=1)

    def marginal(self, u, mass):
        return u @ mass, choice.Maximin().marginal(u, mass)[1]


@dataclass(frozen=True)
class Spread(choice.AbstractRisk):
    """`mean - std`, which falls when the best draw gets much better."""

    words = "mean less std"

    def combine(self, w):
        return cp.sum(w) / w.size - cp.norm(w - cp.sum(w) / w.size, 2) / np.sqrt(w.size)

    def marginal(self, w):
        off = w - w.mean()
        return w.mean() - off.std(), (1 - off / max(off.std(), 1e-300)) / len(w)


def test_wrong_formulas_fail():
    for wrong in (Steep(), High()):
        with pytest.raises(AssertionError):
            agrees(wrong, UTILITIES["some"])
    with pytest.raises(AssertionError):
        agrees_in_draws(Spread(), WELFARE["one far off"])


def test_worst_masses_of_many_voters_are_optimal():
    """Conditions of the optimum: on the edge of the ball, and `log(q / m)` falls in proportion to utility."""
    rng = np.random.default_rng(0)
    u, mass = rng.normal(size=(5, ball.BLOCK // 2)), rng.dirichlet(np.full(ball.BLOCK // 2, 9.0))
    logs = np.log(ball.relative_entropy(u, mass, 0.3) / mass)
    np.testing.assert_allclose((np.exp(logs) * mass * logs).sum(1), 0.3, rtol=1e-9)
    for row, log in zip(u, logs, strict=True):
        slope, level = np.polyfit(row, log, 1)
        assert slope < 0
        np.testing.assert_allclose(log, level + slope * row, atol=1e-9)


def test_the_yardstick_of_many_voters_is_nearly_that_of_all():
    """Two candidates of equal chance differ by `w`, whose standard deviation is `|w| / 2`."""
    weights = np.random.default_rng(0).normal(size=(3, scale.MANY, 1))
    value = Linear(np.array([[[0.0], [1.0]]]), weights, np.zeros((3, scale.MANY)))
    utilities = Utilities(value, np.full(scale.MANY, 1 / scale.MANY), np.full((1, 2), 0.5))
    assert scale.spread(utilities) == pytest.approx(np.abs(weights).mean() / 2, rel=0.01)
