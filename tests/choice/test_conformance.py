"""What every rule must satisfy, under every risk measure; a new rule or measure is one more entry in the lists.

Each check is a function that raises AssertionError, and each is run on a deliberately broken rule that must fail it.
"""

from dataclasses import dataclass, replace
from typing import ClassVar, Literal

import cvxpy as cp
import numpy as np
import pytest

from pluralign import choice
from pluralign.types import Choice, Linear, Utilities

RULES = [
    choice.Utilitarian(),
    choice.Nash(),
    choice.Maximin(),
    choice.AlphaFair(alpha=0.5),
    choice.AlphaFair(alpha=2.0),
    choice.OWA(weights=(4.0, 3.0, 2.0, 1.0)),
    choice.Gini(),
    choice.VoterCVaR(tail=0.4),
    choice.KalaiSmorodinsky(),
    choice.NashBargaining(),
    choice.KLRobust(),
    choice.ChiSquareRobust(),
    choice.TotalVariationRobust(),
]
RISKS = [
    choice.Mean(),
    choice.CVaR(tail=0.4),
    choice.WorstCase(),
    choice.Entropic(theta=2.0),
    choice.Semideviation(),
    choice.Ellipsoid(radius=1.0),
]
# Every rule with and without caution, and every measure with one that is smooth.
PAIRS = [(rule, risk) for rule in RULES for risk in RISKS if rule == choice.Nash() or RISKS.index(risk) < 2]
CLOSE = 1e-4  # of lotteries: ten times what the solver's tolerance makes of them


def easy(make, rule) -> Utilities:
    """A problem that the rule can solve: who bargains must be able to agree, here on the first candidate."""
    u = make(seed=11, shape=(4, 4, 2, 4))
    if not isinstance(rule, choice.NashBargaining):
        return u
    first = np.zeros((*u.reference.shape, 1))
    first[:, 0] = 1
    phi = np.concatenate([u.value.phi, first], -1)
    weights = np.concatenate([u.value.weights, np.full((*u.shape[:2], 1), 4.0)], -1)
    return replace(u, value=Linear(phi, weights, u.value.offset))


def shuffled(utilities, voters=None, candidates=None) -> Utilities:
    """Permute voters or candidates of dense utilities."""
    v = np.arange(utilities.shape[1]) if voters is None else voters
    y = np.arange(utilities.shape[3]) if candidates is None else candidates
    return Utilities(utilities.dense()[:, v][..., y], utilities.mass[v], utilities.reference[:, y])


def same(a: Choice, b: Choice, candidates=None) -> None:
    lottery = a.lottery if candidates is None else a.lottery[:, candidates]
    np.testing.assert_allclose(lottery, b.lottery, atol=CLOSE)


def simplex(rule, risk, u):
    chosen = rule.choose(u, risk=risk, beta=0.2)
    np.testing.assert_allclose(chosen.lottery.sum(-1), 1, atol=1e-9)
    assert (chosen.lottery >= 0).all()
    assert (chosen.lottery[u.reference == 0] == 0).all()
    assert (chosen.weights >= 0).all()


def anonymity(rule, risk, u):
    order = np.array([2, 0, 3, 1])
    a, b = rule.choose(u, risk=risk, beta=0.2), rule.choose(shuffled(u, voters=order), risk=risk, beta=0.2)
    same(a, b)


def neutrality(rule, risk, u):
    order = np.array([2, 0, 3, 1])
    a, b = rule.choose(u, risk=risk, beta=0.2), rule.choose(shuffled(u, candidates=order), risk=risk, beta=0.2)
    same(a, b, candidates=order)


def pareto(rule, risk, u):
    """What everyone likes better in every draw gains at least as much probability, relative to the reference."""
    value = u.dense().copy()
    value[..., 1, 0] = value[..., 1, 2] + 0.3
    chosen = rule.choose(Utilities(value, u.mass, u.reference), risk=risk, beta=0.2)
    ratio = chosen.lottery[1] / u.reference[1]
    assert ratio[0] > ratio[2] * (1 + 1e-3)


def nobody(rule, risk, u):
    """A voter without mass is a voter who is not there."""
    value = u.dense()
    stranger = np.random.default_rng(5).uniform(-3, 1, size=value.shape)[:, :1]
    more = Utilities(np.concatenate([value, stranger], 1), np.append(u.mass, 0), u.reference)
    chosen = rule.choose(more, risk=risk, beta=0.2)
    same(chosen, rule.choose(Utilities(value, u.mass, u.reference), risk=risk, beta=0.2))
    assert (chosen.weights[:, -1] == 0).all()


def price(rule, risk, u):
    """A higher price of divergence never buys more of it; at a very high price there is none."""
    on = np.where(u.reference > 0, u.reference, 1)
    spent = []
    # Gains over the reference are infinitely dear at 0, so who bargains comes there with the root of the price only.
    for beta in (0.03, 0.3, 1e6 if rule.positive and rule.scale else 1e4):
        lottery = rule.choose(u, risk=risk, beta=beta).lottery
        spent.append((lottery * np.log(np.where(lottery > 0, lottery, 1) / on)).sum(-1).mean())
    assert (np.diff(spent) <= 1e-3).all(), spent
    np.testing.assert_allclose(lottery, u.reference, atol=1e-3)


def factored(rule, risk, u):
    """Utilities that are kept factored and the same ones written out choose the same."""
    a = rule.choose(u, risk=risk, beta=0.2)
    b = rule.choose(Utilities(u.dense(), u.mass, u.reference), risk=risk, beta=0.2)
    same(a, b)
    # At a corner of welfare a lottery 1e-4 off may be worth as much less; what bounds both from above may not differ.
    assert a.certificate.upper_bound == pytest.approx(b.certificate.upper_bound, abs=5e-5)
    assert max(a.certificate.value, b.certificate.value) <= a.certificate.upper_bound + 5e-5


def worth(rule, u, mass):
    found = rule.marginal(u, mass)
    return rule.welfare(cp.Constant(u), mass).value if found is None else found[0]


def degree(rule, risk, u):
    """`W(c u) = c^degree W(u)`, so utilities times `c` and beta times `c^degree` choose the same; likewise risk.

    A rule with its own scale feels no unit of what comes in, and aversion to risk may have a unit of its own.
    """
    some = np.random.default_rng(1).gamma(1.0, size=u.shape[:2])
    a = rule.choose(u, risk=risk, beta=0.2)
    for c in (1e-6, 3.0, 1e6):
        one, other = (worth(rule, k * some, u.mass) for k in (1, c))
        np.testing.assert_allclose(other, one * c**rule.degree + (np.log(c) if rule.degree == 0 else 0))
        unit = 1.0 if rule.scale else c**rule.degree
        felt = risk if risk.homogeneous else replace(risk, theta=risk.theta / unit)
        if risk.homogeneous:
            assert risk.marginal(c * one - 7)[0] == pytest.approx(c * risk.marginal(one)[0] - 7)
        scaled = Utilities(u.dense() * c, u.mass, u.reference)
        same(a, rule.choose(scaled, risk=felt, beta=0.2 * unit))


def translation(rule, risk, u):
    """A constant per draw and prompt, the same for all voters, changes nothing where utilities may be negative."""
    if rule.positive and rule.scale is None:
        return
    shift = np.random.default_rng(3).normal(size=(1, 1, u.shape[2], 1)) - 10
    same(
        rule.choose(u, risk=risk, beta=0.2),
        rule.choose(Utilities(u.dense() + shift, u.mass, u.reference), risk=risk, beta=0.2),
    )


def beta_range(rule, risk, u):
    for beta in (1e-2, 10.0):
        certificate = rule.choose(u, risk=risk, beta=beta).certificate
        assert certificate.tv_bound <= 1e-3


@dataclass(frozen=True)
class Off(choice.AbstractRule):
    """A rule that is right but for one thing."""

    wrong: str
    kind: Literal["off"] = "off"
    degree: ClassVar[int] = 1
    positive: ClassVar[bool] = False
    scale: ClassVar[None] = None

    def choose(self, utilities, risk=choice.Mean(), beta=0.1):  # noqa: B008
        u, rule = utilities, choice.Maximin()
        if self.wrong == "ignores beta":
            beta = 0.1
        if self.wrong == "counts everyone":
            u = replace(u, mass=(u.mass + 0.1) / (u.mass + 0.1).sum())
        if self.wrong == "dense differs" and not isinstance(u.value, Linear):
            beta = 2 * beta
        chosen = rule.choose(u, risk=risk, beta=beta)
        if self.wrong == "favours the first candidate":
            chosen = replace(chosen, lottery=0.9 * chosen.lottery + 0.1 * np.eye(u.shape[3])[:1])
        if self.wrong == "leaves the reference":
            chosen = replace(chosen, lottery=0.9 * chosen.lottery + 0.1 / u.shape[3])
        if self.wrong == "the wrong way round":
            inverse = np.where(u.reference > 0, u.reference**2 / np.where(chosen.lottery > 0, chosen.lottery, 1), 0)
            chosen = replace(chosen, lottery=inverse / inverse.sum(-1, keepdims=True))
        return chosen


@dataclass(frozen=True)
class Dictator(choice.AbstractWelfare):
    """Counts the first voter only."""

    kind: Literal["dictator"] = "dictator"

    def welfare(self, u, mass):
        return u[:, 0]


@dataclass(frozen=True)
class Liar(choice.AbstractWelfare):
    """Says that its welfare grows with the unit of utilities, but it is a logarithm."""

    kind: Literal["liar"] = "liar"
    degree: ClassVar[int | None] = 1

    def welfare(self, u, mass):
        return cp.log(u) @ mass


@dataclass(frozen=True)
class Capped(choice.AbstractWelfare):
    """Does not see utilities above 0."""

    kind: Literal["capped"] = "capped"

    def welfare(self, u, mass):
        return cp.minimum(u, 0) @ mass


@dataclass(frozen=True)
class Loose(choice.AbstractRule):
    """Returns what it has, certified or not."""

    kind: Literal["loose"] = "loose"

    def choose(self, utilities, risk=choice.Mean(), beta=0.1):  # noqa: B008
        chosen = choice.Utilitarian().choose(utilities, risk=risk, beta=beta)
        return replace(chosen, certificate=replace(chosen.certificate, tv_bound=0.5))


CHECKS = {
    simplex: Off("leaves the reference"),
    anonymity: Dictator(),
    neutrality: Off("favours the first candidate"),
    pareto: Off("the wrong way round"),
    nobody: Off("counts everyone"),
    price: Off("ignores beta"),
    factored: Off("dense differs"),
    degree: Liar(),
    translation: Capped(),
    beta_range: Loose(),
}


@pytest.mark.parametrize("check", CHECKS, ids=lambda c: c.__name__)
@pytest.mark.parametrize(("rule", "risk"), PAIRS, ids=lambda x: x.kind)
def test_rule(make, rule, risk, check):
    check(rule, risk, easy(make, rule))


@pytest.mark.parametrize("check", CHECKS, ids=lambda c: c.__name__)
def test_a_broken_rule_fails(make, check):
    with pytest.raises(AssertionError):
        check(CHECKS[check], choice.Mean(), easy(make, CHECKS[check]))
