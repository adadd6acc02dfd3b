"""What a certificate says is true, and what is not optimal gets none."""

import cvxpy as cp
import numpy as np
import pytest
from scipy.optimize import minimize

from pluralign import choice
from pluralign.choice.bundle import best_response
from pluralign.choice.solve import Stated, attainable, solve
from pluralign.errors import SolveError
from pluralign.types import Utilities

RULES = [choice.Utilitarian(), choice.Nash(), choice.Maximin()]


@pytest.fixture(params=[(rule, risk) for rule in RULES for risk in (choice.Mean(), choice.CVaR(0.4))], ids=str)
def solved(request, make):
    rule, risk = request.param
    utilities, beta = make(seed=2), 0.2
    chosen = rule.choose(utilities, risk=risk, beta=beta)
    return lambda u: risk.combine(rule.welfare(u, utilities.mass)), utilities, beta, chosen


def objective(f, utilities, beta, lottery):
    ratio = lottery / np.where(utilities.reference > 0, utilities.reference, 1)
    divergence = (lottery * np.log(np.where(ratio > 0, ratio, 1))).sum(-1).mean()
    return float(f(cp.Constant(utilities.expected(lottery))).value) - beta * divergence


def test_a_conic_solver_finds_the_same_lottery_between_the_bounds(solved, cone):
    f, utilities, beta, chosen = solved
    lottery, _, value = cone.primal(f, utilities, beta)
    assert chosen.certificate.value - 1e-7 <= value <= chosen.certificate.upper_bound + 1e-7
    assert np.abs(lottery - chosen.lottery).sum(-1).mean() / 2 <= chosen.certificate.tv_bound + 1e-4


def test_value_and_gap_are_what_they_say(solved):
    f, utilities, beta, chosen = solved
    certificate = chosen.certificate
    assert certificate.value == pytest.approx(objective(f, utilities, beta, chosen.lottery), abs=1e-10)
    assert certificate.gap == pytest.approx(certificate.upper_bound - certificate.value, abs=1e-12)
    assert certificate.tv_bound <= 1e-4
    assert certificate.seconds > 0


def test_the_multipliers_alone_prove_the_upper_bound(solved, cone):
    """The Lagrangian dual at the multipliers, its part in `u` maximised by a conic solver."""
    f, utilities, beta, chosen = solved
    tilt = utilities.weighted(chosen.weights)
    in_p = beta * np.log((utilities.reference * np.exp(tilt / beta)).sum(-1)).mean()
    in_u = cone.conjugate(f, *attainable(utilities), chosen.weights)
    assert in_p + in_u <= chosen.certificate.upper_bound + 1e-6
    assert in_p + in_u >= chosen.certificate.value - 1e-6


@pytest.mark.parametrize("spoil", ["one voter", "unit", "sign"])
def test_wrong_multipliers_prove_less(solved, spoil, cone):
    f, utilities, beta, chosen = solved
    wrong = chosen.weights.copy()
    wrong[:, 0] += 0.3 * wrong.sum() / len(wrong)
    wrong = {"one voter": wrong, "unit": 1.3 * chosen.weights, "sign": -chosen.weights}[spoil]
    lottery, in_p = best_response(utilities, utilities.weighted(wrong), beta)
    upper = in_p + cone.conjugate(f, *attainable(utilities), wrong)
    gap = upper - objective(f, utilities, beta, lottery)
    assert np.sqrt(gap / (2 * beta)) > 1e-2  # far beyond what is accepted
    distance = np.abs(lottery - chosen.lottery).sum(-1).mean() / 2
    assert distance <= np.sqrt((upper - chosen.certificate.value) / (2 * beta))  # the bound on the distance is one


def test_no_lottery_beats_the_upper_bound(solved):
    f, utilities, beta, chosen = solved
    rng = np.random.default_rng(0)
    for spread in (0.05, 0.5, 5):
        for _ in range(50):
            tilt = rng.normal(size=chosen.lottery.shape) * spread
            lottery, _ = best_response(utilities, utilities.weighted(chosen.weights) + beta * tilt, beta)
            assert objective(f, utilities, beta, lottery) <= chosen.certificate.upper_bound


def test_what_is_not_solved_is_an_error(make, monkeypatch):
    monkeypatch.setattr("pluralign.choice.solve.CUTS", 3)
    with pytest.raises(SolveError, match=r"maximin was not solved: after 3 cuts .* may be [\d.]+ away"):
        choice.Maximin().choose(make(seed=2), beta=0.02)


def test_nobody_can_be_served_names_who_stands_in_the_way():
    """What one voter gains, the other loses: above the reference for both is nothing."""
    value = np.array([[1.0, 0.0], [0.0, 1.0]]).reshape(1, 2, 1, 2)
    utilities = choice.rescale(Utilities(value, np.full(2, 0.5), np.full((1, 2), 0.5)), choice.GapScale())
    with pytest.raises(SolveError, match=r"stand in each other's way: voter \d, voter \d"):
        choice.Nash().choose(utilities)


def test_a_start_outside_the_domain_is_left(cone):
    """Gains over the reference: everyone starts at 0, where Nash welfare is minus infinity."""
    value = np.array([[0.0, 1.0, 0.8], [0.0, 0.3, 0.8]]).reshape(1, 2, 1, 3)
    utilities = choice.rescale(Utilities(value, np.full(2, 0.5), np.array([[0.8, 0.1, 0.1]])), choice.GapScale())
    chosen = choice.Nash().choose(utilities, beta=0.5)
    lottery, *_ = cone.primal(lambda u: cp.sum(cp.log(u) @ utilities.mass), utilities, 0.5)
    np.testing.assert_allclose(chosen.lottery, lottery, atol=1e-4)


def test_an_objective_without_a_domain_in_reach_is_an_error(make):
    with pytest.raises(SolveError, match="made up was not solved"):
        made_up = Stated(lambda u: cp.sum(cp.log(u - 100)), (6, 4))
        solve(made_up, make(seed=6), 0.1, name="made up", positive=False)


def test_the_box_holds_what_can_be_reached_and_is_touched(make):
    utilities = make(seed=4)
    low, high = attainable(utilities)
    value, on = utilities.dense(), utilities.reference > 0
    for s, v in np.ndindex(low.shape):
        each = [value[s, v, x][on[x]] for x in range(len(on))]
        assert low[s, v] == pytest.approx(np.mean([r.min() for r in each]))
        assert high[s, v] == pytest.approx(np.mean([r.max() for r in each]))


def test_multipliers_are_the_slope_of_the_optimal_value(make):
    """Envelope theorem: adding `e` to one voter's utilities in one draw raises the optimum by `lambda e`."""
    utilities, beta = make(seed=7), 0.3
    rule = choice.Nash()
    chosen = rule.choose(utilities, beta=beta)
    offset = np.zeros(utilities.shape[:2])
    for s, v in [(0, 0), (3, 2)]:
        values = []
        for e in (0.02, -0.02):
            offset[:] = 0
            offset[s, v] = e
            moved = Utilities(utilities.dense() + offset[..., None, None], utilities.mass, utilities.reference)
            values.append(rule.choose(moved, beta=beta).certificate.value)
        assert (values[0] - values[1]) / 0.04 == pytest.approx(chosen.weights[s, v], rel=2e-2)


def test_the_dual_has_its_minimum_at_the_multipliers():
    """One voter, one draw, two candidates: minimise the dual over its one multiplier with scipy."""
    beta, value = 0.4, np.array([0.2, 1.5])
    utilities = Utilities(value[None, None, None], np.ones(1), np.full((1, 2), 0.5))
    chosen = choice.Nash().choose(utilities, beta=beta)

    def dual(x):
        lam = float(np.exp(x[0]))
        u = np.clip(1 / lam, *value)
        return beta * np.log(np.exp(lam * value / beta).mean()) + np.log(u) - lam * u

    found = minimize(dual, [0.0], method="Nelder-Mead", options={"xatol": 1e-9, "fatol": 1e-13})
    assert chosen.weights[0, 0] == pytest.approx(np.exp(found.x[0]), rel=1e-4)
    assert chosen.certificate.upper_bound == pytest.approx(found.fun, abs=1e-7)
