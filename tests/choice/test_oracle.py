"""Every rule and risk measure against a conic solver that is given the same program in full."""

import cvxpy as cp
import numpy as np
import pytest

from pluralign import choice
from pluralign.choice.scale import affine, measured
from pluralign.errors import InputError
from pluralign.types import Utilities

RULES = [
    choice.AlphaFair(0.5),
    choice.AlphaFair(3.0),
    choice.OWA((3.0, 1.0)),
    choice.Gini(3),
    choice.VoterCVaR(0.5),
    choice.KalaiSmorodinsky(),
    choice.NashBargaining(),
    choice.KLRobust(0.1),
    choice.ChiSquareRobust(0.3),
    choice.ChiSquareRobust(1.5),
    choice.TotalVariationRobust(0.2),
    choice.Utilitarian(),
    choice.Nash(),
]
RISKS = [
    choice.Mean(),
    choice.Semideviation(1.0),
    choice.WorstCase(),
    choice.Ellipsoid(0.7),
    choice.CVaR(0.5),
    choice.Entropic(2.0),
    choice.Ellipsoid(1.5),
]
EASY = dict(shape=(3, 3, 2, 3), beta=0.1)
CIRCUMSTANCES = {
    "negative": EASY | dict(shift=-9.0),
    "ties": EASY | dict(decimals=0),
    "one draw": EASY | dict(shape=(1, 3, 2, 3)),
    "one voter": EASY | dict(shape=(3, 1, 2, 3)),
    "one candidate": EASY | dict(shape=(3, 3, 2, 1)),
    "no mass": EASY | dict(nobody=True),
    "beta 0.001": EASY | dict(beta=1e-3),
    "beta 0.01": EASY | dict(beta=1e-2),
    "beta 10": EASY | dict(beta=10.0),
    "millionths": EASY | dict(unit=1e-6),
    "millions": EASY | dict(unit=1e6),
}


def made(shape, beta, shift=0.0, decimals=None, nobody=False, unit=1.0) -> Utilities:
    """Random positive utilities; the first candidate of every prompt is better than the reference for everyone."""
    rng = np.random.default_rng([*shape, 5])
    reference = rng.dirichlet(np.full(shape[3], 3.0), size=shape[2])
    value = 0.3 + rng.gamma(2.0, size=shape)
    if decimals is not None:
        value = np.round(value, decimals) + 0.5
    if shape[3] > 1:
        others = reference[:, 1:] / (1 - reference[:, :1])
        value[..., 0] = (value[..., 1:] * others).sum(-1) + rng.uniform(0.1, 0.6, size=shape[:3])
    mass = rng.dirichlet(np.full(shape[1], 4.0))
    if nobody:
        mass = np.append(mass[:-1] / mass[:-1].sum(), 0.0)
        value[:, -1] = -50.0
    return Utilities((value + shift) * unit, mass, reference)


def answer(rule, risk, given):
    """Choose in units of `unit`; beta and theta in the units of welfare that this makes."""
    power = given.get("unit", 1.0) ** (0 if rule.scale else rule.degree)
    if isinstance(risk, choice.Entropic):
        risk = choice.Entropic(risk.theta / power)
    return rule.choose(made(**given), risk=risk, beta=given["beta"] * power), power


def right(cone, rule, risk, given):
    """The conic solver is asked in units of 1, and its own error is granted it."""
    chosen, power = answer(rule, risk, given)
    beta, plain = given["beta"], made(**given | dict(unit=1.0))
    plain = Utilities(plain.value[:, plain.mass > 0], plain.mass[plain.mass > 0], plain.reference)
    if rule.scale is not None:
        plain = affine(plain, *measured(plain, rule.scale))
    lottery, _, value = cone.primal(lambda u: risk.combine(rule.welfare(u, plain.mass)), plain, beta)
    allowed = chosen.certificate.tv_bound + 1e-4 + 1e-6 / beta
    assert np.abs(lottery - chosen.lottery).sum(-1).mean() / 2 <= allowed
    assert chosen.certificate.tv_bound <= 1e-3
    if rule.degree != 0:
        low, high = chosen.certificate.value / power, chosen.certificate.upper_bound / power
        assert low - 1e-6 * max(1, abs(low)) <= value <= high + 1e-6 * max(1, abs(high))


@pytest.mark.parametrize(("rule", "case"), [(r, c) for r in RULES for c in CIRCUMSTANCES], ids=str)
def test_a_conic_solver_agrees(cone, rule, case):
    given = CIRCUMSTANCES[case]
    place = RULES.index(rule) + 3 * list(CIRCUMSTANCES).index(case)  # every measure meets every rule and circumstance
    risk = RISKS[place % len(RISKS)]
    if rule.positive and rule.scale is None and given.get("shift", 0) < 0:
        with pytest.raises(InputError, match="needs positive utilities"):
            answer(rule, risk, given)
    elif rule.scale is not None and given["shape"][3] == 1:
        with pytest.raises(InputError, match=r"indifferent|needs positive utilities"):
            answer(rule, risk, given)
    else:
        right(cone, rule, risk, given)


def test_the_comparison_can_fail(cone):
    """A conic solver that is given another program disagrees."""

    class Other:
        def primal(self, f, utilities, beta):
            return cone.primal(lambda u: cp.sum(u @ utilities.mass) / 3, utilities, beta)

    for rule in (choice.Gini(3), choice.KLRobust(0.1)):
        with pytest.raises(AssertionError):
            right(Other(), rule, choice.Mean(), EASY)
