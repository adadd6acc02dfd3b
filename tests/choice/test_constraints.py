"""Constraints: the same program stated in full for a conic solver, and demands that cannot be met."""

from dataclasses import replace

import cvxpy as cp
import numpy as np
import pytest

from pluralign import choice
from pluralign.errors import InputError, SolveError
from pluralign.types import Utilities

BETA = 0.1


@pytest.fixture
def grouped(make):
    return replace(make(seed=5), groups=("a", "a", "b", "b"))


def oracle(rule, risk, utilities, demands):
    """Return lottery, value and duals; `demands(gain)` makes expressions `[draw]` with their risk and least value."""
    reference, value = utilities.reference, utilities.dense()
    x, y = np.nonzero(reference > 0)
    p = cp.Variable(len(x), nonneg=True)
    rows = np.zeros((len(reference), len(x)))
    rows[x, np.arange(len(x))] = 1
    flat = value[..., x, y].reshape(-1, len(x)) / len(reference)
    u = cp.reshape(flat @ p, utilities.shape[:2], order="C")
    held = [how.combine(w) >= least for how, w, least in demands(u, lambda table: table[..., x, y] @ p)]
    divergence = cp.sum(cp.rel_entr(p, reference[x, y])) / len(reference)
    f = risk.combine(rule.welfare(u, utilities.mass))
    problem = cp.Problem(cp.Maximize(f - BETA * divergence), [rows @ p == 1, *held])
    problem.solve(solver=cp.CLARABEL, tol_gap_abs=1e-10, tol_gap_rel=1e-10, tol_feas=1e-10)
    assert problem.status == cp.OPTIMAL
    lottery = np.zeros_like(reference)
    lottery[x, y] = p.value
    return lottery, problem.value, [float(h.dual_value) for h in held]


def floors(utilities, groups, eps, risk):
    base = utilities.expected(utilities.reference)
    share = [utilities.mass[g] / utilities.mass[g].sum() for g in groups]
    return lambda u, _: [(risk, (u - base)[:, g] @ m, -eps) for g, m in zip(groups, share, strict=True)]


@pytest.mark.parametrize(
    ("rule", "risk", "floor", "binds"),
    [
        (choice.Utilitarian(), choice.Mean(), choice.Floor(eps=0.1, each="voter"), True),
        (choice.Utilitarian(), choice.Mean(), choice.Floor(eps=0.2, each="voter", risk=choice.CVaR(0.3)), True),
        (choice.Nash(), choice.CVaR(0.5), choice.Floor(eps=-0.15), True),
        (choice.Maximin(), choice.Mean(), choice.Floor(eps=-0.05), True),
        (choice.Nash(), choice.Mean(), choice.Floor(eps=1.0), False),
    ],
)
def test_a_floor_is_the_conic_programs(grouped, rule, risk, floor, binds):
    groups = [[0], [1], [2], [3]] if floor.each == "voter" else [[0, 1], [2, 3]]
    chosen = rule.choose(grouped, risk, BETA, constraints=[floor])
    lottery, value, duals = oracle(rule, risk, grouped, floors(grouped, groups, floor.eps, floor.risk))
    certificate = chosen.certificate
    assert np.abs(lottery - chosen.lottery).sum(-1).mean() / 2 <= certificate.tv_bound + 1e-4
    assert certificate.value - 1e-6 <= value <= certificate.upper_bound + 1e-6
    assert (max(duals) > 1e-3) == binds
    np.testing.assert_allclose([d.multiplier for d in chosen.demands], duals, atol=2e-3)
    assert min(d.value for d in chosen.demands) > -1e-3
    if not binds:
        np.testing.assert_allclose(chosen.lottery, rule.choose(grouped, risk, BETA).lottery, atol=1e-4)


@pytest.mark.parametrize("dense", [False, True])
def test_an_objective_is_kept_at_most_so_high(make, dense):
    """Another table, such as harm, on the same candidates, in dense or factored utilities."""
    utilities, harm = make(seed=5), make(seed=6)
    if dense:
        utilities = Utilities(utilities.dense(), utilities.mass, utilities.reference)
    harm = replace(harm, reference=utilities.reference)
    free = choice.Nash().choose(utilities, beta=BETA)
    before = float((harm.expected(free.lottery) @ harm.mass).mean())
    limit = before - 0.2
    bound = choice.Bound(of=harm, at_most=limit, name="harm")
    chosen = choice.Nash().choose(utilities, beta=BETA, constraints=[bound])
    table = np.einsum("svxy,v->sxy", harm.dense(), harm.mass) / 3
    lottery, _, duals = oracle(
        choice.Nash(), choice.Mean(), utilities, lambda u, of: [(choice.Mean(), -of(table), -limit)]
    )
    np.testing.assert_allclose(chosen.lottery, lottery, atol=2e-4)
    assert float((harm.expected(chosen.lottery) @ harm.mass).mean()) <= limit + 1e-4
    (demand,) = chosen.demands
    assert demand.name == f"harm at most {limit:g}"
    assert demand.multiplier == pytest.approx(duals[0], abs=2e-3)


def test_multipliers_enter_the_reward(grouped):
    """Optimal under constraints is optimal without, once each demand is a voter with its multiplier as weight."""
    chosen = choice.Utilitarian().choose(grouped, beta=BETA, constraints=[choice.Floor(each="voter")])
    assert chosen.rows.voters == tuple(f"floor: voter {v}" for v in range(4))
    assert chosen.weights.shape == grouped.shape[:2]
    assert max(d.multiplier for d in chosen.demands) > 0.01
    score = chosen.reward.score(grouped.value.phi.reshape(-1, 3)).reshape(chosen.lottery.shape)
    tilted = grouped.reference * np.exp(score / BETA)
    np.testing.assert_allclose(chosen.lottery, tilted / tilted.sum(-1, keepdims=True), atol=1e-9)
    np.testing.assert_allclose(chosen.prices.sum(0), [d.multiplier for d in chosen.demands], atol=1e-12)
    on = grouped.reference > 0
    ratio = np.where(on, np.log(np.where(on, chosen.lottery / np.where(on, grouped.reference, 1), 1)), 0)
    centred = np.where(on, ratio - (grouped.reference * ratio).sum(-1, keepdims=True), 0)
    np.testing.assert_allclose(chosen.log_ratio(), centred, atol=1e-9)


def test_what_cannot_be_had_is_named(grouped):
    with pytest.raises(SolveError, match=r"no lottery that meets all constraints.*'floor: voter \d' falls short by"):
        choice.Utilitarian().choose(grouped, beta=BETA, constraints=[choice.Floor(eps=-0.5, each="voter")])


def test_a_constraint_that_makes_no_sense_is_refused(make):
    utilities = make(seed=5)
    with pytest.raises(InputError, match="groups"):
        choice.Utilitarian().choose(utilities, constraints=[choice.Floor()])
    with pytest.raises(InputError, match="demands nothing"):
        choice.Bound(of=utilities)
    with pytest.raises(InputError, match="other candidates"):
        choice.Utilitarian().choose(utilities, constraints=[choice.Bound(of=make(shape=(6, 4, 2, 4)), at_least=0.0)])
    with pytest.raises(InputError, match="draws"):
        choice.Utilitarian().choose(utilities, constraints=[choice.Bound(of=make(shape=(5, 4, 3, 4)), at_least=0.0)])


def test_leximin_keeps_constraints_at_every_level(grouped):
    floor = choice.Floor(eps=-0.1)
    chosen = choice.Leximin().choose(grouped, beta=BETA, constraints=[floor])
    gain = (grouped.expected(chosen.lottery) - grouped.expected(grouped.reference)).mean(0)
    share = grouped.mass.reshape(2, 2) / grouped.mass.reshape(2, 2).sum(1, keepdims=True)
    assert ((gain.reshape(2, 2) * share).sum(1) > 0.1 - 1e-3).all()
    free = choice.Leximin().choose(grouped, beta=BETA)
    gain = (grouped.expected(free.lottery) - grouped.expected(grouped.reference)).mean(0)
    assert ((gain.reshape(2, 2) * share).sum(1) < 0.1 - 1e-3).any()  # so the floor does bind
