"""A certificate holds for what is optimal and for nothing else."""

import cvxpy as cp
import numpy as np
import pytest
from scipy.optimize import minimize

from pluralign import choice
from pluralign.choice.solve import _conjugate, attainable, certify, rebuild, solve
from pluralign.errors import SolveError

RULES = [choice.Utilitarian(), choice.Nash(), choice.Maximin()]


def program(rule, mass, risk):
    return lambda u: risk.combine(rule.welfare(u, mass))


@pytest.fixture(params=[(rule, risk) for rule in RULES for risk in (choice.Mean(), choice.CVaR(0.4))], ids=str)
def solved(request, make):
    rule, risk = request.param
    utilities, beta = make(seed=2), 0.2
    chosen = rule.choose(utilities, risk=risk, beta=beta)
    return program(rule, utilities.mass, risk), utilities, beta, chosen


def test_the_optimum_is_certified(solved):
    f, utilities, beta, chosen = solved
    certificate = certify(f, utilities, beta, chosen.weights, chosen.lottery)
    assert certificate.value == pytest.approx(chosen.certificate.value, abs=1e-9)
    assert certificate.upper_bound == pytest.approx(chosen.certificate.upper_bound, abs=1e-6)
    assert certificate.gap == pytest.approx(certificate.upper_bound - certificate.value)
    assert certificate.tv < 1e-12  # both lotteries are the rebuilt one here
    assert chosen.certificate.solver.startswith("Clarabel")
    assert chosen.certificate.seconds > 0


def test_a_lottery_that_is_not_the_multipliers_own_is_refused(solved):
    f, utilities, beta, chosen = solved
    tampered = 0.99 * chosen.lottery + 0.01 * utilities.reference[:, ::1]
    with pytest.raises(SolveError, match=r"solver's own lottery is 0\.0"):
        certify(f, utilities, beta, chosen.weights, tampered)


@pytest.mark.parametrize("spoil", ["one voter", "unit", "sign"])
def test_wrong_multipliers_are_refused_even_with_their_own_lottery(solved, spoil):
    f, utilities, beta, chosen = solved
    wrong = chosen.weights.copy()
    if spoil == "one voter":
        wrong[:, 0] += 0.3 * wrong.sum() / len(wrong)
    wrong = {"one voter": wrong, "unit": 1.3 * wrong, "sign": -wrong}[spoil]
    lottery, _ = rebuild(utilities, wrong, beta)
    with pytest.raises(SolveError, match="certificate failed"):
        certify(f, utilities, beta, wrong, lottery)


def test_no_tolerance_is_met_by_no_floating_point(solved):
    f, utilities, beta, chosen = solved
    solver = 0.999999 * chosen.lottery + 1e-6 * utilities.reference
    with pytest.raises(SolveError, match="certificate failed"):
        certify(f, utilities, beta, chosen.weights, solver, tv_tolerance=0.0, bound_tolerance=0.0)


def test_any_multipliers_bound_every_lottery(solved):
    """Weak duality, with multipliers drawn at random; the bound at the solution is the lowest of all."""
    f, utilities, beta, chosen = solved
    rng = np.random.default_rng(0)
    on = utilities.reference > 0
    values = []
    for _ in range(100):
        lottery = np.where(on, rng.gamma(0.7, size=on.shape), 0)
        lottery /= lottery.sum(-1, keepdims=True)
        ratio = lottery / np.where(on, utilities.reference, 1)
        divergence = (lottery * np.log(np.where(ratio > 0, ratio, 1))).sum(-1).mean()
        values.append(float(f(cp.Constant(utilities.expected(lottery))).value) - beta * divergence)
    assert max(values) <= chosen.certificate.upper_bound + 1e-6
    for _ in range(5):
        multipliers = chosen.weights * rng.gamma(1.0, size=chosen.weights.shape)
        loose = certify(f, utilities, beta, multipliers, chosen.lottery, tv_tolerance=1.0, bound_tolerance=np.inf)
        assert loose.upper_bound >= chosen.certificate.upper_bound - 1e-6
        true_distance = np.abs(rebuild(utilities, multipliers, beta)[0] - chosen.lottery).sum(-1).mean() / 2
        assert true_distance <= loose.tv_bound + 1e-4  # Pinsker: the bound on the distance is one


def test_the_box_holds_what_can_be_reached_and_is_touched(make):
    utilities = make(seed=4)
    low, high = attainable(utilities)
    value, on = utilities.dense(), utilities.reference > 0
    for s, v in np.ndindex(low.shape):
        each = [value[s, v, x][on[x]] for x in range(len(on))]
        assert low[s, v] == pytest.approx(np.mean([r.min() for r in each]))
        assert high[s, v] == pytest.approx(np.mean([r.max() for r in each]))


def test_the_conjugate_of_nash_is_the_closed_form(make):
    """`max sum_s m log u / S - lambda u` over the box: each entry alone, at `m / (S lambda)` clipped to the box."""
    utilities = make(seed=5)
    low, high = attainable(utilities)
    share = np.tile(utilities.mass / len(low), (len(low), 1))
    multipliers = np.random.default_rng(1).gamma(1.0, size=low.shape) * share
    u = np.clip(share / multipliers, low, high)
    by_hand = (share * np.log(u) - multipliers * u).sum()
    f = program(choice.Nash(), utilities.mass, choice.Mean())
    assert _conjugate(f, utilities, multipliers) == pytest.approx(by_hand, abs=1e-6)


def test_an_impossible_program_is_an_error(make):
    """An objective that is unbounded within the box's reach of no lottery: the solver's status is told."""
    utilities = make(seed=6)
    with pytest.raises(SolveError, match="made up was not solved: the solver ended with status"):
        solve(lambda u: cp.sum(cp.log(u - 100)), utilities, 0.1, name="made up", positive=False)


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
            moved = type(utilities)(utilities.dense() + offset[..., None, None], utilities.mass, utilities.reference)
            values.append(rule.choose(moved, beta=beta).certificate.value)
        assert (values[0] - values[1]) / 0.04 == pytest.approx(chosen.weights[s, v], rel=2e-2)


def test_the_dual_has_its_minimum_at_the_multipliers():
    """One voter, one draw, two candidates: minimise the dual over its one multiplier with scipy."""
    from pluralign.types import Utilities

    beta, value = 0.4, np.array([0.2, 1.5])
    chosen = choice.Nash().choose(Utilities(value[None, None, None], [1.0], [[0.5, 0.5]]), beta=beta)

    def dual(x):
        lam = float(np.exp(x[0]))
        u = np.clip(1 / lam, *value)
        return beta * np.log(np.exp(lam * value / beta).mean()) + np.log(u) - lam * u

    found = minimize(dual, [0.0], method="Nelder-Mead", options={"xatol": 1e-9, "fatol": 1e-13})
    assert chosen.weights[0, 0] == pytest.approx(np.exp(found.x[0]), rel=1e-4)
    assert chosen.certificate.upper_bound == pytest.approx(found.fun, abs=1e-7)
