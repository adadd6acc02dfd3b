"""What rules decide in every draw: by brute force over draws, in closed form, and on tables where the answer is known."""

import itertools
from dataclasses import dataclass
from typing import ClassVar, Literal

import cvxpy as cp
import numpy as np
import pytest
from scipy.stats import norm

from pluralign import choice
from pluralign.choice import decision
from pluralign.choice.rule import AbstractRule, AbstractWelfare
from pluralign.errors import InputError
from pluralign.types import Decision, Utilities


def table(value, mass=None, reference=None) -> Utilities:
    """Utilities of one prompt, `[draw voter candidate]`."""
    value = np.asarray(value, float)[:, :, None]
    voters, candidates = value.shape[1], value.shape[3]
    mass = np.full(voters, 1 / voters) if mass is None else np.asarray(mass)
    return Utilities(value, mass, np.full((1, candidates), 1 / candidates) if reference is None else reference)


def each_draw(u):
    """Yield draw, prompt, candidates and `[voter candidate]` of voters who count."""
    value = u.dense()[:, u.mass > 0]
    for s, x in np.ndindex(len(value), len(u.reference)):
        on = np.flatnonzero(u.reference[x] > 0)
        yield s, x, on, value[s, :, x][:, on]


# Against rules on hard ballots, one draw and prompt at a time.

VOTING = [
    choice.Plurality(), choice.Positional(), choice.Borda(), choice.Copeland(), choice.Minimax(), choice.Schulze(),
    choice.RankedPairs(), choice.Kemeny(), choice.Black(), choice.IRV(), choice.Condorcet(), choice.Approval(top=2),
    choice.PrefVoting("split_cycle"),
]  # fmt: skip
LOTTERIES = [choice.MaximalLottery(), choice.RandomDictatorship(), choice.NashLottery(top=2)]


@pytest.mark.parametrize("rule", VOTING, ids=lambda rule: rule.name)
def test_winners_are_those_of_each_draw_s_ballots(make, rule):
    u = make(seed=4, shape=(7, 5, 3, 4))
    found = choice.decide(rule, u)
    for s, x, on, value in each_draw(u):
        winners = on[rule.winners(np.argsort(-value, axis=1), u.mass, len(on))]
        expected = np.isin(np.arange(4), winners) / len(winners)
        np.testing.assert_allclose(found.shares[s, x], expected, atol=1e-12)
    np.testing.assert_allclose(found.probability, found.shares.mean(0))


@pytest.mark.parametrize("rule", LOTTERIES, ids=lambda rule: rule.name)
def test_chances_are_those_of_each_draw_s_ballots(make, rule):
    u = make(seed=4, shape=(4, 5, 2, 4))
    found = choice.decide(rule, u)
    for s, x, on, value in each_draw(u):
        lottery = rule.lottery(np.argsort(-value, axis=1), u.mass, len(on))
        np.testing.assert_allclose(found.shares[s, x, on], lottery, atol=1e-6)


def test_the_plug_in_is_the_same_rule_on_posterior_means(make):
    u = make(seed=5, shape=(6, 5, 3, 4))
    means = u.dense().mean(0)
    for rule in (choice.Schulze(), choice.Borda()):
        plug_in = choice.decide(rule, u).plug_in
        for x, reference in enumerate(u.reference):
            on = np.flatnonzero(reference > 0)
            winners = on[rule.winners(np.argsort(-means[:, x][:, on], axis=1), u.mass, len(on))]
            assert np.flatnonzero(plug_in[x]).tolist() == winners.tolist()


# Welfare, in loops.


def nash_by_hand(value, mass):
    """Candidates that leave least mass at its worst come first, then the product of what the others have."""
    above = value - value.min(1, keepdims=True)
    scores = []
    for column in above.T:
        served = sum(m for m, u in zip(mass, column, strict=True) if u > 0)
        product = np.prod([u**m for m, u in zip(mass, column, strict=True) if u > 0])
        scores.append((round(served, 9), product))
    return scores.index(max(scores))


def kalai_smorodinsky_by_hand(value, mass, reference):
    zero = value @ reference
    return ((value - zero[:, None]) / (value.max(1) - zero)[:, None]).min(0).argmax()


@pytest.mark.parametrize("shape", [(9, 4, 3, 4), (9, 2, 3, 5)])  # with two voters some candidate is nobody's worst
def test_welfare_decides_for_the_best_sole_answer(make, shape):
    u = make(seed=6, shape=shape)
    hands = {
        choice.Utilitarian(): lambda v, x, on: (v.T @ u.mass).argmax(),
        choice.Maximin(): lambda v, x, on: max(range(len(on)), key=lambda y: min(v[:, y])),
        choice.Nash(): lambda v, x, on: nash_by_hand(v, u.mass),
        choice.KalaiSmorodinsky(): lambda v, x, on: kalai_smorodinsky_by_hand(v, u.mass, u.reference[x, on]),
    }
    for rule, by_hand in hands.items():
        found = choice.decide(rule, u)
        for s, x, on, value in each_draw(u):
            expected = np.arange(shape[-1]) == on[by_hand(value, x, on)]
            np.testing.assert_array_equal(found.shares[s, x], expected, err_msg=f"{rule.name} {s} {x}")


def test_leximin_asks_the_next_voter_where_the_worst_off_are_equal():
    rng = np.random.default_rng(2)
    u = table(rng.integers(3, size=(200, 4, 5)))
    found = choice.decide(choice.Leximin(), u)
    for s, _, _, value in each_draw(u):
        have = [tuple(sorted(column)) for column in value.T]
        expected = np.array([h == max(have) for h in have])
        np.testing.assert_allclose(found.shares[s, 0], expected / expected.sum())


def test_nash_does_not_answer_with_anybody_s_worst_if_it_need_not():
    """The second is two voters' best and one's worst; the third is nobody's worst, and wins although its sum is less."""
    u = table([[[0.0, 9, 5], [0, 9, 5], [9, 0, 1]]])
    assert choice.decide(choice.Utilitarian(), u).probability.tolist() == [[0, 1, 0]]
    assert choice.decide(choice.Nash(), u).probability.tolist() == [[0, 0, 1]]
    shifted = table(u.dense()[:, :, 0] + np.array([[[-50.0], [3], [8]]]))
    assert choice.decide(choice.Nash(), shifted).probability.tolist() == [[0, 0, 1]]


def test_voters_who_do_not_care_or_do_not_count_have_no_say():
    value = [[[0.0, 9, 5], [0, 9, 5], [9, 0, 1], [2, 2, 2]]]
    assert choice.decide(choice.Nash(), table(value)).probability.tolist() == [[0, 0, 1]]
    value = [[[0.0, 1], [0, 1], [5, -5]]]
    for rule in (choice.Maximin(), choice.Borda(), choice.Nash()):
        assert choice.decide(rule, table(value, mass=[0.5, 0.5, 0])).probability.tolist() == [[0, 1]], rule.name


def test_ties_share_the_win_and_candidates_that_are_none_have_no_part():
    u = table([[[1.0, 1, 0, 7]]], reference=np.array([[1 / 3, 1 / 3, 1 / 3, 0]]))
    for rule in (choice.Utilitarian(), choice.Nash(), choice.Maximin(), choice.Schulze(), choice.RandomDictatorship()):
        assert choice.decide(rule, u).probability.tolist() == [[0.5, 0.5, 0, 0]], rule.name


# Closed form.


@pytest.mark.parametrize(("mean", "spread"), [(0.3, 1.0), (-1.0, 0.7), (0.0, 2.0)])
def test_one_voter_and_two_candidates_is_the_normal_distribution(mean, spread):
    """`U_0 - U_1 ~ Normal(mean, spread^2)`, at its quantiles: P(first wins) = Phi(mean / spread)."""
    n = 2000
    gap = norm.ppf((np.arange(n) + 0.5) / n, mean, spread)
    u = table(np.stack([gap, np.zeros(n)], -1)[:, None])
    p = norm.cdf(mean / spread)
    for rule in (choice.Utilitarian(), choice.Nash(), choice.Maximin(), choice.Borda(), choice.Plurality()):
        found = choice.decide(rule, u)
        assert found.probability[0, 0] == pytest.approx(p, abs=1 / n)
        assert found.stderr[0, 0] == pytest.approx(np.sqrt(p * (1 - p) / n), rel=1e-3)
        assert found.ignorance[0] == pytest.approx(2 * p * (1 - p), abs=2 / n)
        if mean:
            assert found.plug_in[0].tolist() == [float(mean > 0), float(mean < 0)]
            assert found.differs[0] == pytest.approx(norm.cdf(-abs(mean) / spread), abs=1 / n)
            assert found.differs_stderr[0] == pytest.approx(found.stderr[0, 0])


def test_the_plug_in_may_be_what_no_draw_decides():
    """A compromise is best on average, and never in any draw."""
    found = choice.decide(choice.Utilitarian(), table([[[3.0, 0, 2]], [[0, 3, 2]]]), enough=0.5)
    assert found.probability.tolist() == [[0.5, 0.5, 0]]
    assert found.plug_in.tolist() == [[0, 0, 1]]
    assert found.differs.tolist() == [1] and found.ignorance.tolist() == [1]
    assert found.decided.tolist() == [True]
    assert not choice.decide(choice.Utilitarian(), table([[[3.0, 0, 2]], [[0, 3, 2]]]), enough=0.51).decided.any()


# Rules against each other, and draws.


def test_where_rules_are_known_to_differ_the_matrix_says_so():
    """Two of three slightly prefer the first, one greatly the second, in three of four draws; in one all agree."""
    split, one = [[1.0, 0.9], [1, 0.9], [0, 9]], [[1.0, 0]] * 3
    u = table([split, split, split, one])
    found = choice.decisions([choice.Utilitarian(), choice.Schulze(), choice.Plurality()], u)
    apart = choice.disagreement(found.rules)
    assert apart.names == ("utilitarian", "schulze", "plurality")
    np.testing.assert_allclose(apart.rules, [[0, 0.75, 0.75], [0.75, 0, 0], [0.75, 0, 0]])
    np.testing.assert_allclose(apart.draws, [0.5, 0, 0])  # 3 of 6 pairs of draws
    np.testing.assert_allclose(apart.stderr[0, 1], np.std([1, 1, 1, 0], ddof=1) / 2)


def test_ignorance_is_the_mean_over_all_pairs_of_draws():
    rng = np.random.default_rng(0)
    shares = rng.dirichlet(np.full(4, 0.3), size=(6, 2))
    shares[:, 1] = np.eye(4)[rng.integers(4, size=6)]
    shares[0, 1] = [0.5, 0.5, 0, 0]
    found = Decision("some", shares, shares[0])
    for x in range(2):
        pairs = [np.maximum(shares[s, x] - shares[t, x], 0).sum() for s, t in itertools.combinations(range(6), 2)]
        assert found.ignorance[x] == pytest.approx(np.mean(pairs))


def test_one_draw_knows_nothing_of_ignorance():
    found = choice.decide(choice.Utilitarian(), table([[[1.0, 0]]]))
    assert found.likeliest.tolist() == [1]
    assert np.isnan(found.ignorance).all() and np.isnan(found.stderr).all() and np.isnan(found.differs_stderr).all()
    assert np.isnan(choice.disagreement([found]).stderr).all()


# How it is computed does not matter.


def test_few_draws_at_a_time_and_factors_change_nothing(make, monkeypatch):
    u = make(seed=7, shape=(9, 4, 3, 4))
    rules = [choice.Nash(), choice.Schulze(), choice.RandomDictatorship(), choice.KalaiSmorodinsky()]
    whole = choice.decisions(rules, u)
    dense = choice.decisions(rules, Utilities(u.dense(), u.mass, u.reference))
    monkeypatch.setattr(decision, "CHUNK", 100)
    parts = choice.decisions(rules, u)
    for a, b, c in zip(whole.rules, dense.rules, parts.rules, strict=True):
        np.testing.assert_allclose(a.shares, b.shares, atol=1e-12)
        np.testing.assert_allclose(a.shares, c.shares, atol=1e-12)
        np.testing.assert_allclose(a.plug_in, b.plug_in, atol=1e-12)
    assert [d.name for d in whole.rules] == [rule.name for rule in rules]


@dataclass(frozen=True)
class Stated(AbstractWelfare):
    """Nash's welfare without a formula for its supergradient; `inner` gives it a variable."""

    positive: ClassVar[bool] = True
    inner: bool = False
    kind: Literal["stated"] = "stated"

    def welfare(self, u, mass):
        return cp.log(u) @ mass + (cp.Variable() if self.inner else 0)


@dataclass(frozen=True)
class Careless(AbstractWelfare):
    """As above, but it does not say that it is for positive utilities only."""

    kind: Literal["careless"] = "careless"

    def welfare(self, u, mass):
        return cp.log(u) @ mass


@dataclass(frozen=True)
class Odd(AbstractRule):
    kind: Literal["odd"] = "odd"

    def choose(self, utilities, risk=None, beta=0.1):
        raise NotImplementedError


def test_welfare_that_is_only_stated_decides_as_its_formula_does(make):
    u = make(seed=8)
    found, expected = choice.decide(Stated(), u), choice.decide(choice.Nash(), u)
    np.testing.assert_array_equal(found.shares, expected.shares)


def test_who_cannot_decide_is_named_with_the_reason_and_the_others_do(make):
    u = make(seed=8)
    rules = [Odd(), choice.Borda(), Stated(inner=True), Careless(), choice.Approval(top=2)]
    found = choice.decisions(rules, u)
    assert [d.name for d in found.rules] == ["borda", "approval-2"]
    assert set(found.reasons) == {"odd", "stated-inner", "careless"}
    assert "what odd decides in one draw alone is not known" in found.reasons["odd"]
    assert "variables of its own" in found.reasons["stated-inner"]
    assert "positive = True" in found.reasons["careless"]
    for rule in (Odd(), Stated(inner=True), Careless()):
        with pytest.raises(InputError, match=r"odd|stated|careless"):
            choice.decide(rule, u)
    impatient = choice.decisions([choice.Borda()], u, patience=0.0)
    assert not impatient.rules and "borda takes more than 0 s" in impatient.reasons["borda"]


def test_what_is_no_question_is_refused(make):
    u = make()
    with pytest.raises(InputError, match="name each once"):
        choice.decisions([choice.Approval(top=2), choice.Approval(top=2)], u)
    with pytest.raises(InputError, match="enough is 0"):
        choice.decide(choice.Borda(), u, enough=0.0)
    with pytest.raises(InputError, match="at least one"):
        choice.disagreement([])
    some, other = choice.decide(choice.Borda(), u), choice.decide(choice.Borda(), make(shape=(3, 4, 3, 4)))
    with pytest.raises(InputError, match="borda decided on"):
        choice.disagreement([some, other])
    with pytest.raises(InputError, match="sums to"):
        Decision("x", some.shares * 0.9, some.plug_in)


# What a choice gives.


@pytest.mark.parametrize("rule", [choice.Nash(), choice.Schulze(), choice.MaximalLottery()], ids=lambda rule: rule.name)
def test_gains_of_voters_and_groups_are_those_of_loops(make, rule):
    u = make(seed=9, shape=(20, 4, 3, 4))
    chosen = rule.choose(u, beta=0.2)
    value = u.dense()
    after, before = (
        np.array([[np.mean([p[x] @ value[s, v, x] for x in range(3)]) for v in range(4)] for s in range(20)])
        for p in (chosen.lottery, u.reference)
    )
    found = choice.gains(chosen)
    assert found.names == u.voters
    for v in range(4):
        gain = after[:, v] - before[:, v]
        np.testing.assert_allclose(found.gain[v], [gain.mean(), *np.percentile(gain, [5, 95])], atol=1e-12)
        np.testing.assert_allclose(found.after[v], [after[:, v].mean(), *np.percentile(after[:, v], [5, 95])])
        assert found.probability[v] == sum(g > 0 for g in gain) / 20
    groups = choice.gains(chosen, ["b", "a", "b", "b"])
    assert groups.names == ("a", "b")
    np.testing.assert_allclose(groups.share, [u.mass[1], 1 - u.mass[1]])
    of_b = sum(u.mass[v] * before[:, v] for v in (0, 2, 3)) / (1 - u.mass[1])
    np.testing.assert_allclose(groups.before[1], [of_b.mean(), *np.percentile(of_b, [5, 95])])
    np.testing.assert_allclose(groups.gain[0], found.gain[1])


def test_groups_without_mass_have_no_welfare_and_everyone_has_a_group():
    u = table([[[1.0, 0], [0, 1], [5, 0]]], mass=[0.5, 0.5, 0])
    chosen = choice.Borda().choose(u)
    assert choice.gains(chosen, ["a", "a", "b"]).names == ("a",)
    with pytest.raises(InputError, match="2 groups for 3 voters"):
        choice.gains(chosen, ["a", "b"])
