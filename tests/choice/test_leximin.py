"""Leximin: linear programs for the limit without a price, a conic solver level by level with one."""

import cvxpy as cp
import numpy as np
import pytest

from pluralign import choice
from pluralign.choice.fair import leximin
from pluralign.errors import InputError
from pluralign.types import Utilities


def table(value, mass=None):
    value = np.asarray(value, float)[None, :, None]
    return Utilities(
        value,
        np.full(value.shape[1], 1 / value.shape[1]) if mass is None else mass,
        np.full((1, value.shape[3]), 1 / value.shape[3]),
    )


@pytest.mark.parametrize("seed", range(6))
def test_where_divergence_is_nearly_free_it_is_the_linear_programs(seed):
    value = np.random.default_rng(seed).random((4, 5)).round(1)
    chosen = choice.Leximin().choose(table(value), beta=1e-3)
    sorted_gains = np.sort(chosen.utilities.expected(chosen.lottery)[0])
    np.testing.assert_allclose(sorted_gains, np.sort(value @ leximin(value)), atol=5e-3)


def test_maximin_leaves_on_the_table_what_leximin_takes():
    """Two voters in conflict decide the minimum; the third, who is better off, likes one of two equal ways more."""
    value = [[1, 0, 1, 0], [0, 1, 0, 1], [0.9, 0.9, 2, 2]]
    least, next_too = (r.choose(table(value), beta=0.1) for r in (choice.Maximin(), choice.Leximin()))
    np.testing.assert_allclose(least.lottery[0], 0.25, atol=1e-3)
    np.testing.assert_allclose(next_too.utilities.expected(next_too.lottery)[0, :2], 0.5, atol=1e-3)
    # The second level: of two equal halves, that of 1.1 more, at 0.1 a nat.
    share = 1 / (1 + np.exp(-1.1 / 0.1))
    assert next_too.lottery[0, 2:].sum() == pytest.approx(share, abs=1e-3)


@pytest.mark.parametrize("risk", [choice.Mean(), choice.CVaR(0.4)], ids=lambda r: r.kind)
def test_two_levels_are_a_conic_solvers(make, risk):
    utilities, beta = make(seed=8), 0.1
    reference, value = utilities.reference, utilities.dense()
    x, y = np.nonzero(reference > 0)
    rows = np.zeros((len(reference), len(x)))
    rows[x, np.arange(len(x))] = 1
    floor, held = {}, []
    while len(held) < 2 and len(floor) < 4:
        p = cp.Variable(len(x), nonneg=True)
        u = [value[:, v][..., x, y] @ p / len(reference) for v in range(4)]
        least = cp.Variable()
        free = [risk.combine(u[v]) >= least for v in range(4) if v not in floor]
        keep = [risk.combine(u[v]) >= t for v, t in floor.items()]
        cost = beta * cp.sum(cp.rel_entr(p, reference[x, y])) / len(reference)
        cp.Problem(cp.Maximize(least - cost), [rows @ p == 1, *free, *keep]).solve(
            solver=cp.CLARABEL, tol_gap_abs=1e-10, tol_gap_rel=1e-10, tol_feas=1e-10
        )
        prices = {v: c.dual_value for v, c in zip([v for v in range(4) if v not in floor], free, strict=True)}
        now = [v for v, price in prices.items() if price >= 0.1 * max(prices.values())]
        held.append(now)
        floor |= {v: float(risk.combine(u[v]).value) for v in now}
    lottery = np.zeros_like(reference)
    lottery[x, y] = p.value
    chosen = choice.Leximin(levels=2).choose(utilities, risk, beta)
    np.testing.assert_allclose(chosen.lottery, lottery, atol=5e-4)
    assert chosen.certificate.tv_bound <= 1e-3
    assert sum(map(len, held)) <= 4


def test_the_first_level_is_maximin_of_what_voters_expect(make):
    utilities = make(seed=8)
    expected = Utilities(utilities.dense().mean(0, keepdims=True), utilities.mass, utilities.reference)
    one = choice.Leximin(levels=1).choose(utilities, beta=0.2)
    np.testing.assert_allclose(one.lottery, choice.Maximin().choose(expected, beta=0.2).lottery, atol=1e-4)
    # The reward of its multipliers makes its lottery.
    score = one.reward.score(utilities.value.phi.reshape(-1, 3)).reshape(one.lottery.shape) / 0.2
    tilted = utilities.reference * np.exp(score)
    np.testing.assert_allclose(one.lottery, tilted / tilted.sum(-1, keepdims=True), atol=1e-9)


def test_who_does_not_count_holds_no_level():
    value = [[1, 0, 0.4], [0, 1, 0.4], [-5, -6, -7]]
    absent = choice.Leximin().choose(table(value, [0.5, 0.5, 0.0]), beta=0.05)
    np.testing.assert_allclose(absent.lottery, choice.Leximin().choose(table(value[:2]), beta=0.05).lottery, atol=1e-4)
    assert (absent.weights[:, 2] == 0).all()


def test_levels_are_counted_from_one():
    with pytest.raises(InputError, match="levels is 0"):
        choice.Leximin(levels=0)
