"""What every rule that counts orders must satisfy; a new one is one more entry in the list.

Each check is a function that raises AssertionError, and each is run on a deliberately broken rule that must fail it.
"""

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import pytest

from pluralign import choice
from pluralign.types import Utilities

RULES = [
    choice.Plurality(),
    choice.Borda(),
    choice.Positional((5.0, 2.0, 1.0, 0.0)),
    choice.Copeland(),
    choice.Minimax(),
    choice.Schulze(),
    choice.RankedPairs(),
    choice.Kemeny(),
    choice.Black(),
    choice.IRV(),
    choice.Approval(),
    choice.Condorcet(),
    choice.PrefVoting("split_cycle"),
    choice.MaximalLottery(),
    choice.RandomDictatorship(),
    choice.NashLottery(),
    choice.EgalitarianLottery(),
]
BETA = 0.2
CLOSE = 1e-4


def same(a, b, candidates=slice(None)):
    np.testing.assert_allclose(a.lottery[:, candidates], b.lottery, atol=CLOSE)


def simplex(rule, u):
    chosen = rule.choose(u, beta=BETA)
    np.testing.assert_allclose(chosen.lottery.sum(-1), 1, atol=1e-9)
    assert (chosen.lottery[u.reference == 0] == 0).all()
    assert chosen.weights is None and chosen.name == rule.name
    assert 0 <= chosen.certificate.gap and chosen.certificate.tv_bound <= 1e-3
    assert np.isfinite(chosen.log_ratio()).all()


def anonymity(rule, u):
    order = np.array([2, 0, 3, 1])
    same(rule.choose(u, beta=BETA), rule.choose(Utilities(u.dense()[:, order], u.mass[order], u.reference), beta=BETA))


def neutrality(rule, u):
    order = np.array([2, 0, 3, 1])
    turned = Utilities(u.dense()[..., order], u.mass, u.reference[:, order])
    same(rule.choose(u, beta=BETA), rule.choose(turned, beta=BETA), order)


def unanimity(rule, u):
    """What all like best in every draw, by far, gains most on the reference, and what all like least no more."""
    value = u.dense().copy()
    value[..., 1] += 100
    value[..., 2] -= 100
    ratio = rule.choose(Utilities(value, u.mass, u.reference), beta=BETA).lottery / np.where(
        u.reference, u.reference, 1
    )
    assert (ratio[:, 1, None] > ratio[:, [0, 2]]).all()
    assert (ratio[:, 2] <= ratio[:, 0] + CLOSE).all()


def nobody(rule, u):
    """A voter without mass is a voter who is not there."""
    value = u.dense()
    stranger = np.random.default_rng(5).normal(size=value.shape)[:, :1]
    more = Utilities(np.concatenate([value, stranger], 1), np.append(u.mass, 0), u.reference)
    same(rule.choose(more, beta=BETA), rule.choose(u, beta=BETA))


def price(rule, u):
    """A higher price of divergence never buys more of it; at a very high price there is none."""
    on, spent = np.where(u.reference > 0, u.reference, 1), []
    for beta in (0.03, 0.3, 3.0, 1e4):
        lottery = rule.choose(u, beta=beta).lottery
        spent.append((lottery * np.log(np.where(lottery > 0, lottery, 1) / on)).sum(-1).mean())
    assert (np.diff(spent) <= 1e-3).all(), spent
    np.testing.assert_allclose(lottery, u.reference, atol=1e-3)


def order_only(rule, u):
    """Units and zeros of each voter do not matter, draw by draw, nor how far apart candidates are."""
    rng = np.random.default_rng(3)
    unit, zero = rng.gamma(1.0, size=(*u.shape[:3], 1)) + 0.01, rng.normal(size=(*u.shape[:3], 1))
    same(rule.choose(u, beta=BETA), rule.choose(Utilities(u.dense() * unit + zero, u.mass, u.reference), beta=BETA))


def factored(rule, u):
    same(rule.choose(u, beta=BETA), rule.choose(Utilities(u.dense(), u.mass, u.reference), beta=BETA))


def by_prompt(rule, u):
    """What is chosen for a prompt does not hang on the other prompts."""
    if isinstance(rule, choice.NashLottery | choice.EgalitarianLottery):
        return  # who was served by one prompt need not be by the next
    part = Utilities(u.dense()[:, :, 1:], u.mass, u.reference[1:])
    np.testing.assert_allclose(rule.choose(part, beta=BETA).lottery, rule.choose(u, beta=BETA).lottery[1:], atol=CLOSE)


@dataclass(frozen=True)
class Off(choice.AbstractRule):
    """A rule that is right but for one thing."""

    wrong: str
    kind: Literal["off"] = "off"

    def choose(self, utilities, risk=choice.Mean(), beta=0.1):  # noqa: B008
        u = utilities
        if self.wrong == "ignores beta":
            beta = 0.1
        if self.wrong == "counts everyone":
            u = replace(u, mass=(u.mass + 1) / (u.mass + 1).sum())
        if self.wrong == "counts the first" and u.shape[1] > 1:
            u = replace(u, mass=np.eye(u.shape[1])[0])
        if self.wrong == "dense differs" and not hasattr(u.value, "phi"):
            beta = 3 * beta
        if self.wrong == "adds utilities":
            return replace(choice.Utilitarian().choose(u, beta=beta), weights=None)
        if self.wrong == "counts prompts":
            beta = beta * u.shape[2]
        chosen = choice.RandomDictatorship().choose(u, beta=beta)
        if self.wrong == "favours the first candidate":
            chosen = replace(chosen, lottery=0.9 * chosen.lottery + 0.1 * np.eye(u.shape[3])[:1])
        if self.wrong == "leaves the reference":
            chosen = replace(chosen, lottery=0.9 * chosen.lottery + 0.1 / u.shape[3])
        if self.wrong == "the wrong way round":
            inverse = np.where(u.reference > 0, u.reference**2 / np.where(chosen.lottery > 0, chosen.lottery, 1), 0)
            chosen = replace(chosen, lottery=inverse / inverse.sum(-1, keepdims=True))
        return chosen


CHECKS = {
    simplex: "leaves the reference",
    anonymity: "counts the first",
    neutrality: "favours the first candidate",
    unanimity: "the wrong way round",
    nobody: "counts everyone",
    price: "ignores beta",
    order_only: "adds utilities",
    factored: "dense differs",
    by_prompt: "counts prompts",
}


@pytest.mark.parametrize("check", CHECKS, ids=lambda c: c.__name__)
@pytest.mark.parametrize("rule", RULES, ids=lambda r: r.name)
def test_rule(make, rule, check):
    if check in (order_only, unanimity) and hasattr(rule, "top"):
        rule = replace(rule, top=1)  # without, they ask what is better than the reference on average
    fair = isinstance(rule, choice.NashLottery | choice.EgalitarianLottery)  # whose programs take longer
    check(rule, make(seed=11, shape=(2, 4, 2, 4)) if fair else make(seed=11))


@pytest.mark.parametrize("check", CHECKS, ids=lambda c: c.__name__)
def test_a_broken_rule_fails(make, check):
    with pytest.raises(AssertionError):
        check(Off(CHECKS[check]), make(seed=11))


def test_the_list_names_every_rule():
    named = {type(rule) for rule in RULES}
    final = [r for r in vars(choice).values() if isinstance(r, type) and hasattr(r, "kind")]
    ordinal = {r for r in final if issubclass(r, choice.AbstractVoting | choice.AbstractLottery)}
    assert ordinal == named
