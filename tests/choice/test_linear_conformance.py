"""What linear rules must satisfy, and the axioms that each is published to satisfy or to break.

Each check is a function that raises AssertionError, and each is run on a deliberately broken rule that must fail it.
"""

from dataclasses import dataclass, replace
from itertools import combinations
from typing import Literal

import numpy as np
import pytest
from scipy.optimize import minimize
from scipy.special import expit

from pluralign import choice
from pluralign.choice.ballots import electorates
from pluralign.types import LinearReward, Utilities
from tests.choice.test_linear import of, random

LCPO, PLURALITY, KEMENY = choice.LCPO(), choice.LeximaxPlurality(), choice.LinearKemeny()
RULES = [LCPO, PLURALITY, KEMENY, choice.LeximaxPlurality(pareto=True), choice.LinearKemeny(pareto=True)]
BETA = 0.2


def problem() -> Utilities:
    """Three prompts, an empty slot in the first, two draws of four unequal voters."""
    u = random(4, prompts=3, candidates=4, features=3, voters=4)
    draws = np.concatenate([u.value.weights, u.value.weights + np.random.default_rng(9).normal(size=(1, 4, 3))])
    reference = np.random.default_rng(2).dirichlet(np.full(4, 3.0), size=3)
    reference[0, 3] = 0
    reference /= reference.sum(1, keepdims=True)
    return replace(u, value=replace(u.value, weights=draws, offset=np.zeros((2, 4))), reference=reference)


def close(a, b):
    np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-9)


def simplex(rule, u):
    chosen = rule.choose(u, beta=BETA)
    close(chosen.lottery.sum(1), 1)
    assert (chosen.lottery[u.reference == 0] == 0).all() and chosen.weights is None and chosen.name == rule.name
    assert 0 <= chosen.certificate.gap and chosen.certificate.tv_bound < 1e-6


def rewarded(rule, u):
    """The lottery is that of the reward at price beta, whose range is 1 on average."""
    chosen = rule.choose(u, beta=BETA)
    score = chosen.reward.score(u.value.phi)
    p = u.reference * np.exp(score / BETA)
    close(chosen.lottery, p / p.sum(1, keepdims=True))
    close(np.mean([np.ptp(s[r > 0]) for s, r in zip(score, u.reference, strict=True)]), 1)


def anonymity(rule, u):
    k = np.array([2, 0, 3, 1])
    turned = replace(u, value=replace(u.value, weights=u.value.weights[:, k]), mass=u.mass[k])
    close(rule.choose(u).reward.weights, rule.choose(turned).reward.weights)


def neutrality(rule, u):
    """Neither the numbers of candidates nor those of prompts matter."""
    k, x = np.array([2, 0, 3, 1]), np.array([1, 2, 0])
    turned = replace(u, value=replace(u.value, phi=u.value.phi[x][:, k]), reference=u.reference[x][:, k])
    a, b = rule.choose(u, beta=BETA), rule.choose(turned, beta=BETA)
    close(a.reward.weights, b.reward.weights)
    close(a.lottery[x][:, k], b.lottery)


def nobody(rule, u):
    """A voter without mass is a voter who is not there."""
    stranger = np.random.default_rng(0).normal(size=(2, 1, 3))
    weights = np.concatenate([u.value.weights, stranger], 1)
    more = Utilities(replace(u.value, weights=weights, offset=np.zeros((2, 5))), np.append(u.mass, 0), u.reference)
    close(rule.choose(u).reward.weights, rule.choose(more).reward.weights)


def order_only(rule, u):
    """Units and zeros of voters do not matter, draw by draw."""
    rng = np.random.default_rng(3)
    weights = u.value.weights * (rng.gamma(1.0, size=(2, 4, 1)) + 0.01)
    other = replace(u, value=replace(u.value, weights=weights, offset=rng.normal(size=(2, 4))))
    close(rule.choose(u).reward.weights, rule.choose(other).reward.weights)


def rotation(rule, u):
    """Features in other coordinates make the same reward; so do features with another origin."""
    turn = np.linalg.qr(np.random.default_rng(4).normal(size=(3, 3)))[0]
    phi, weights = u.value.phi @ turn + np.array([5.0, -2, 1]), u.value.weights @ turn
    other = replace(u, value=replace(u.value, phi=phi, weights=weights))
    close(rule.choose(u).reward.weights @ turn, rule.choose(other).reward.weights)


def price(rule, u):
    """A higher price of divergence never buys more of it; at a very high price there is none."""
    on, spent = np.where(u.reference > 0, u.reference, 1), []
    for beta in (0.03, 0.3, 3.0, 1e4):
        lottery = rule.choose(u, beta=beta).lottery
        spent.append((lottery * np.log(np.where(lottery > 0, lottery, 1) / on)).sum())
    assert (np.diff(spent) < 0).all()
    np.testing.assert_allclose(lottery, u.reference, atol=1e-3)


@dataclass(frozen=True)
class Off(choice.AbstractRule):
    """LCPO but for one thing."""

    wrong: str
    kind: Literal["lcpo"] = "lcpo"

    def choose(self, utilities, risk=choice.Mean(), beta=0.1):  # noqa: B008
        u = utilities
        if self.wrong == "counts everyone":
            u = replace(u, mass=(u.mass + 1) / (u.mass + 1).sum())
        if self.wrong == "counts the first":
            u = replace(u, mass=np.eye(u.shape[1])[0])
        if self.wrong == "ignores beta":
            beta = 0.1
        if self.wrong == "adds utilities":
            return choice.Utilitarian().choose(u, beta=beta)
        found = LCPO.choose(u, beta=beta)
        if self.wrong == "favours the first candidate":
            found = replace(found, lottery=0.9 * found.lottery + 0.1 * np.eye(u.shape[3])[:1])
        if self.wrong == "leaves the reference":
            found = replace(found, lottery=0.9 * found.lottery + 0.1 / u.shape[3])
        if self.wrong == "another reward":
            found = replace(found, reward=LinearReward(2 * found.reward.weights))
        if self.wrong == "favours the first feature":
            found = replace(found, reward=LinearReward(found.reward.weights + np.eye(3)[0]))
        return found


CHECKS = {
    simplex: "leaves the reference",
    rewarded: "another reward",
    anonymity: "counts the first",
    neutrality: "favours the first candidate",
    nobody: "counts everyone",
    order_only: "adds utilities",
    rotation: "favours the first feature",
    price: "ignores beta",
}


@pytest.mark.parametrize("check", CHECKS, ids=lambda c: c.__name__)
@pytest.mark.parametrize("rule", RULES, ids=str)
def test_rule(rule, check):
    check(rule, problem())


@pytest.mark.parametrize("check", CHECKS, ids=lambda c: c.__name__)
def test_a_broken_rule_fails(check):
    with pytest.raises(AssertionError):
        check(Off(CHECKS[check]), problem())


def test_the_list_names_every_rule():
    final = [r for r in vars(choice).values() if isinstance(r, type) and hasattr(r, "kind")]
    assert {r for r in final if issubclass(r, choice.AbstractLinear)} == {type(rule) for rule in RULES}


# Axioms on one prompt, theorems 4.3, C.2 to C.6: on how many of many electorates a rule breaks them. Who keeps an axiom
# never does; who does not is caught at it.

TRIES = range(40)


def order(rule, u) -> list[int]:
    return np.argsort(rule.rank(u).above[0]).tolist()


def ballots(u):
    return np.argsort(-u.dense()[0, :, 0], axis=1)


def pareto(rule):
    """What all prefer is ranked above."""
    broken = 0
    e = 0.01  # theorem 3.1
    phi = [[2, 1], [2 - e, 1], [1, 1], [1 - e, 1], [-e, e / 2], [0, 0]]
    hard = of(phi, [[1, 4], [-1, 0]], [0.9, 0.1])
    for u in (hard, *(random(seed, candidates=6, features=3, voters=3) for seed in TRIES)):
        place = rule.rank(u).above[0]
        better = (u.dense()[0, :, 0, :, None] > u.dense()[0, :, 0, None]).all(0)
        broken += (better & (place[:, None] > place)).any()
    return broken


def majorities(rule):
    """If the majorities' order is one, and a voter has it, so that it is induced, it is returned."""
    broken = met = 0
    for seed in TRIES:
        u = random(seed, candidates=4, features=3, voters=5)
        m = next(electorates(u))[1].margins()
        wanted = np.argsort(-(m > 0).sum(1))
        if (np.triu(m[np.ix_(wanted, wanted)], 1) >= 0).all() and (ballots(u) == wanted).all(1).any():
            met += 1
            broken += order(rule, u) != wanted.tolist()
    assert met > 10
    return broken


def favourite(rule):
    """Who is ranked first by more than half is first."""
    broken = met = 0
    for seed in TRIES:
        u = random(seed, candidates=6, features=3, voters=5)
        first = np.bincount(ballots(u)[:, 0], u.mass, 6)
        if first.max() > 0.5:
            met += 1
            broken += order(rule, u)[0] != first.argmax()
    assert met > 10
    return broken


def raised(rule):
    """The winner stays when a voter raises it and changes nothing else."""
    broken = met = 0
    rng = np.random.default_rng(0)
    for seed in TRIES:
        u = random(seed, candidates=5, features=3, voters=3)
        top, old = order(rule, u)[0], ballots(u)
        tried = rng.normal(size=(400, 3))
        new = np.argsort(-tried @ u.value.phi[0].T, axis=1)
        rest = lambda b, top=top: b[b != top].reshape(-1, 4)  # noqa: E731
        higher = (new == top).argmax(1) < (old[:1] == top).argmax(1)
        fits = np.flatnonzero((rest(new) == rest(old[:1])).all(1) & higher)
        for i in fits[:2]:
            met += 1
            weights = u.value.weights[0].copy()
            weights[0] = tried[i]
            broken += order(rule, of(u.value.phi, weights, u.mass))[0] != top
    assert met > 10
    return broken


def together(rule):
    """A ranking on which two electorates agree is that of both."""
    rng, phi, groups = np.random.default_rng(1), np.eye(5), {}
    for voters in rng.choice([1, 2, 3], 200):
        weights = rng.normal(size=(voters, 5))
        groups.setdefault(tuple(order(rule, of(phi, weights))), []).append(weights)
    pairs = [(o, pair) for o, same in groups.items() for pair in combinations(same, 2)]
    assert len(pairs) > 50
    return sum(order(rule, of(phi, np.concatenate(pair))) != list(o) for o, pair in pairs)


class BradleyTerry:
    """The weights of largest likelihood, a little shrunk so that there always are some."""

    def rank(self, u):
        phi = u.value.phi[0]
        a, b = np.nonzero(~np.eye(len(phi), dtype=bool))
        share = u.mass @ (u.dense()[0, :, 0][:, a] > u.dense()[0, :, 0][:, b])

        def loss(theta):
            z = (phi[a] - phi[b]) @ theta
            return share @ np.logaddexp(0, -z) + 5e-7 * theta @ theta, -(share * expit(-z)) @ (
                phi[a] - phi[b]
            ) + 1e-6 * theta

        score = phi @ minimize(loss, np.zeros(phi.shape[1]), jac=True).x
        return replace(LCPO.rank(u), above=np.argsort(np.argsort(-score))[None])


@dataclass(frozen=True)
class Fickle:
    """The winner is who stands last with most voters: to be raised is to lose."""

    def rank(self, u):
        return replace(LCPO.rank(u), above=np.argsort(np.argsort(u.mass @ u.dense()[0, :, 0]))[None])


KEPT = {
    pareto: [LCPO, choice.LeximaxPlurality(pareto=True), choice.LinearKemeny(pareto=True)],
    majorities: [LCPO, KEMENY, choice.LinearKemeny(pareto=True)],
    favourite: [LCPO, PLURALITY, choice.LeximaxPlurality(pareto=True)],
    raised: [LCPO, PLURALITY],
    together: [PLURALITY, KEMENY],
}
BROKEN = {
    pareto: [BradleyTerry(), PLURALITY],
    majorities: [BradleyTerry(), PLURALITY],
    favourite: [BradleyTerry()],
    raised: [Fickle()],
    together: [LCPO],
}


def named(value) -> str:
    """The same in every process, so that tests can be shared out."""
    return getattr(value, "__name__", None) or getattr(value, "name", type(value).__name__)


@pytest.mark.parametrize(("axiom", "rule"), [(a, r) for a, rules in KEPT.items() for r in rules], ids=named)
def test_an_axiom_is_kept(axiom, rule):
    assert axiom(rule) == 0


@pytest.mark.parametrize(("axiom", "rule"), [(a, r) for a, rules in BROKEN.items() for r in rules], ids=named)
def test_an_axiom_is_broken(axiom, rule):
    assert axiom(rule) > 0
