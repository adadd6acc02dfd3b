"""Prompts that are judged by themselves, solved side by side, against a conic solver that is given each in full."""

from dataclasses import dataclass
from typing import Literal

import cvxpy as cp
import numpy as np
import pytest

from pluralign import choice
from pluralign.choice import batch
from pluralign.choice.rule import AbstractWelfare
from pluralign.choice.scale import rescale
from pluralign.types import Utilities

RULES = [
    choice.Utilitarian(),
    choice.Nash(),
    choice.AlphaFair(0.5),
    choice.AlphaFair(3.0),
    choice.OWA((3.0, 1.0)),
    choice.Gini(3),
    choice.VoterCVaR(0.5),
    choice.Maximin(),
    choice.KalaiSmorodinsky(),
    choice.NashBargaining(),
    choice.KLRobust(0.1),
    choice.ChiSquareRobust(0.3),
    choice.TotalVariationRobust(0.2),
]
RISKS = [
    choice.CVaR(0.5),
    choice.Mean(),
    choice.Semideviation(1.0),
    choice.WorstCase(),
    choice.Entropic(2.0),
    choice.Ellipsoid(0.7),
]
CIRCUMSTANCES = {
    "plain": {},
    "beta 0.003": dict(beta=3e-3),
    "beta 10": dict(beta=10.0),
    "ties": dict(decimals=0),
    "one draw": dict(draws=1),
    "one voter counts": dict(nobody=3),
    "millions": dict(unit=1e6),
}


# Half of all pairs: every rule meets every second circumstance, and the next rule the others.
PAIRS = [(r, c) for i, r in enumerate(RULES) for j, c in enumerate(CIRCUMSTANCES) if (i + j) % 2 == 0]


def made(draws=3, nobody=1, decimals=None, unit=1.0) -> Utilities:
    """Random positive utilities of three prompts, one of which lacks a candidate; the first suits everyone."""
    rng = np.random.default_rng([draws, nobody])
    value = 0.3 + rng.gamma(2.0, size=(draws, 4, 3, 3))
    if decimals is not None:
        value = np.round(value, decimals) + 0.5
    value[..., 0] = value[..., 1:].mean(-1) + rng.uniform(0.1, 0.6, size=(draws, 4, 3))
    reference = np.full((3, 3), 1 / 3)
    reference[1] = 0.5, 0.5, 0
    value[:, :, 1, 0] = np.maximum(value[:, :, 1, 0], value[:, :, 1, 1] + 0.1)
    mass = np.append(np.arange(4 - nobody) + 1.0, np.zeros(nobody))
    return Utilities(value * unit, mass / mass.sum(), reference)


def alone(utilities: Utilities, x: int) -> Utilities:
    on, counts = utilities.reference[x] > 0, utilities.mass > 0
    value = utilities.dense()[:, counts, x : x + 1][..., on]
    return Utilities(value, utilities.mass[counts], utilities.reference[x : x + 1, on])


def right(cone, rule, risk, beta=0.1, unit=1.0, **how) -> None:
    """Each prompt has the lottery that the conic solver finds, asked in units of 1 with its own error granted."""
    power = unit ** (0 if rule.scale else rule.degree)
    given = choice.Entropic(risk.theta / power) if isinstance(risk, choice.Entropic) else risk
    chosen = choice.each_prompt(rule, made(**how, unit=unit), given, beta * power)
    plain, values = made(**how), []
    for x in range(3):
        program = alone(plain, x)
        if rule.scale is not None:
            program = rescale(program, rule.scale)
        lottery, _, value = cone.primal(lambda u, m=program.mass: risk.combine(rule.welfare(u, m)), program, beta)
        values.append(value + (np.log(unit) if rule.degree == 0 else 0))
        apart = np.abs(lottery[0] - chosen.lottery[x, plain.reference[x] > 0]).sum() / 2
        assert apart <= 1e-4 + 1e-4 + 1e-6 / beta
        assert (chosen.lottery[x, plain.reference[x] == 0] == 0).all()
    scale = max(1.0, np.abs(values).max())
    assert (
        chosen.certificate.value / power - 1e-6 * scale
        <= np.mean(values)
        <= (chosen.certificate.upper_bound / power + 1e-6 * scale)
    )
    assert chosen.certificate.tv_bound <= 1e-4


@pytest.mark.parametrize(("rule", "case"), PAIRS, ids=str)
def test_a_conic_solver_agrees_on_every_prompt(cone, rule, case):
    place = RULES.index(rule) + list(CIRCUMSTANCES).index(case)
    right(cone, rule, RISKS[place % len(RISKS)], **CIRCUMSTANCES[case])


def test_the_comparison_can_fail(cone):
    class Other:
        def primal(self, f, utilities, beta):
            return cone.primal(lambda u: cp.sum(u @ utilities.mass) / 3, utilities, beta)

    with pytest.raises(AssertionError):
        right(Other(), choice.Gini(3), choice.Mean())


@pytest.mark.parametrize("rule", RULES, ids=lambda r: r.name)
def test_no_prompt_is_solved_by_itself(monkeypatch, rule):
    def never(*_):
        raise AssertionError("one after the other")

    monkeypatch.setattr(AbstractWelfare, "choose", never)
    choice.each_prompt(rule, made(), choice.CVaR(0.5))


@dataclass(frozen=True)
class Stranger(AbstractWelfare):
    """`sum m sqrt(u)`, known only as an expression."""

    kind: Literal["stranger"] = "stranger"

    def welfare(self, u, mass):
        return cp.sqrt(u) @ mass


def test_rules_without_formulas_are_solved_one_after_the_other(cone):
    utilities = made()
    chosen = choice.each_prompt(Stranger(), utilities, beta=0.1)
    for x in range(3):
        program = alone(utilities, x)
        mass = program.mass
        lottery, _, _ = cone.primal(lambda u, m=mass: choice.Mean().combine(cp.sqrt(u) @ m), program, 0.1)
        np.testing.assert_allclose(chosen.lottery[x, utilities.reference[x] > 0], lottery[0], atol=2e-4)


def test_prompts_whose_bounds_stay_apart_are_solved_by_themselves(monkeypatch):
    utilities = made()
    usual = choice.each_prompt(choice.Gini(), utilities, choice.CVaR(0.5))
    monkeypatch.setattr(batch, "ROUNDS", 2)
    hard = choice.each_prompt(choice.Gini(), utilities, choice.CVaR(0.5))
    np.testing.assert_allclose(hard.lottery, usual.lottery, atol=2e-4)
    assert hard.certificate.tv_bound <= 1e-4


def test_a_reference_outside_the_domain_is_no_obstacle(cone):
    """Nash is not defined where the reference is, but where the first candidate is."""
    value = np.array([[[[2.0, -5.0, -1.0]], [[1.0, -3.0, -2.0]]]])
    utilities = Utilities(np.repeat(value, 2, axis=2), [0.4, 0.6], np.full((2, 3), 1 / 3))
    chosen = choice.each_prompt(choice.Nash(), utilities, beta=0.1)
    lottery, _, _ = cone.primal(
        lambda u: choice.Mean().combine(choice.Nash().welfare(u, utilities.mass)), alone(utilities, 0), 0.1
    )
    np.testing.assert_allclose(chosen.lottery, np.repeat(lottery, 2, axis=0), atol=2e-4)


@pytest.mark.parametrize("places", [1, 4])
def test_weights_make_the_bound_least(places):
    """Against a conic solver: the least `log sum ref exp(sum theta c)` over the simplex."""
    rng = np.random.default_rng(places)
    cut, reference = 3 * rng.normal(size=(5, places, 3)), rng.dirichlet(np.ones(3), size=5)
    empty = np.full((5, 2), batch.NOTHING)
    weight = np.concatenate([np.full((5, places), 1 / places), empty], 1)
    cuts = np.concatenate([cut, np.full((5, 2, 3), 1e9)], 1)
    found, lottery, bound = batch.least(cuts, weight, reference, np.full(5, 1e-10))
    for i in range(5):
        theta = cp.Variable(places, nonneg=True)
        program = cp.Problem(cp.Minimize(cp.log_sum_exp(theta @ cut[i] + np.log(reference[i]))), [cp.sum(theta) == 1])
        program.solve(solver=cp.CLARABEL)
        assert bound[i] == pytest.approx(program.value, abs=1e-7)
    np.testing.assert_allclose(found[:, places:], 0, atol=1e-100)
    np.testing.assert_allclose(lottery.sum(1), 1)


@pytest.mark.parametrize(
    ("rule", "scale", "units", "beta"),
    [
        (choice.Maximin(), None, (1.0, 50.0, 0.01), 1e-3),
        (choice.Gini(), None, (1.0, 50.0, 0.01), 1e-3),
        (choice.AlphaFair(3.0), choice.RangeScale(), (1.0, 1.0, 1.0), 1e-2),
    ],
    ids=lambda value: getattr(value, "name", None),
)
def test_hard_prompts_disturb_nobody(rule, scale, units, beta):
    """Utilities of thousands of beta, and a domain with an edge: all are solved, as one by one, without a warning."""
    value = np.random.default_rng(3).normal(size=(4, 3, 2, 5)) * np.array(units)[:, None, None]
    utilities = Utilities(value, [0.2, 0.3, 0.5], np.full((2, 5), 0.2))
    chosen = choice.each_prompt(rule, utilities, choice.CVaR(0.5), beta, scale)
    for x in range(2):
        program = alone(utilities, x)
        lottery = rule.choose(program if scale is None else rescale(program, scale), choice.CVaR(0.5), beta).lottery
        np.testing.assert_allclose(chosen.lottery[x : x + 1], lottery, atol=2e-3)
    assert chosen.certificate.tv_bound <= 1e-3
