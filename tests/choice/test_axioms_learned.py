"""Axioms of learned rewards and of policies: the published counterexample, and numbers by hand."""

import datasets
import numpy as np
import pytest
from scipy.optimize import minimize

from pluralign import choice
from pluralign.choice import axioms
from pluralign.errors import InputError
from pluralign.types import Choices, Feedback, Grades, Utilities

# Ge et al. 2024, Theorem 3.1: (p, delta, theta_1, theta_2, r(c') - r(c)) of the Bradley-Terry minimiser, e = 0.01.
PUBLISHED = [
    (0.6, 0.5, 0.26688, 0.00826, -0.002628),
    (0.8, 0.5, 0.96886, 0.00533, -0.009662),
    (0.6, 2.0, 0.25913, 0.02399, -0.002112),
]
E = 0.01
UP, DOWN = [0, 3, 1, 4, 5, 2], [5, 2, 4, 1, 3, 0]  # a > a' > b > b' > c' > c, and its like from the other side
A, B, C, A1, B1, C1 = range(6)


def responses(delta):
    x = np.array([[2.0, 1.0], [1.0, 1.0], [0.0, 0.0]])
    return np.concatenate([x, x + np.array([[-E, 0], [-E, 0], [-E, delta * E]])])


def ranked(order):
    value = np.empty(6)
    value[order] = np.arange(6)[::-1]
    return value


def society(p):
    value = np.stack([ranked(UP), ranked([C1, C, B1, B, A1, A])])
    return Utilities(value[None, :, None], np.array([p, 1 - p]), np.full((1, 6), 1 / 6))


def bradley_terry(p, delta):
    x = responses(delta)
    pairs = [(i, j) for i in range(6) for j in range(6) if i != j]
    first, second = np.array(pairs).T
    votes = sum(w * (ranked(o)[first] > ranked(o)[second]) for w, o in ((p, UP), (1 - p, [C1, C, B1, B, A1, A])))

    def loss(theta):
        return votes @ np.logaddexp(0, -(x[first] - x[second]) @ theta)

    return minimize(loss, np.zeros(2), method="BFGS", options={"gtol": 1e-10}).x, x


@pytest.mark.parametrize("p, delta, one, two, gap", PUBLISHED)
def test_bradley_terry_breaks_pareto(p, delta, one, two, gap):
    theta, x = bradley_terry(p, delta)
    np.testing.assert_allclose(theta, [one, two], atol=2e-5)
    found = axioms.of_reward(x @ theta, society(p))
    assert [(pair.better, pair.worse) for pair in found.pareto] == [(C1, C)]
    assert found.pareto[0].gap == pytest.approx(gap, abs=2e-6)
    assert found.unanimous == 1 and found.majorities == 15
    # The majority of p ranks like its first ballot, so a pair is contradicted exactly where the reward leaves that.
    r = x @ theta
    wrong = {(UP[i], UP[j]) for i in range(6) for j in range(i + 1, 6) if r[UP[i]] <= r[UP[j]]}
    assert {(pair.better, pair.worse) for pair in found.contradicted} == wrong
    assert "100 % of 2 voters prefer item 5 to item 2, but its reward is 0.00" in str(found)


def test_a_reward_that_follows_the_majority_breaks_nothing():
    found = axioms.of_reward(responses(0.5) @ [1.0, 2.1], society(0.6))  # (1, t) with t > 1 / delta: no pair is wrong
    assert found.pareto == () and found.contradicted == ()


def test_circles_cannot_be_avoided():
    value = np.stack([[2.0, 1, 0], [0, 2, 1], [1, 0, 2]])
    votes = Utilities(value[None, :, None], np.full(3, 1 / 3), np.full((1, 3), 1 / 3))
    found = axioms.of_reward(np.array([3.0, 2, 1]), votes)
    assert found.unanimous == 0 and found.majorities == 3
    assert [(pair.better, pair.worse, pair.cyclic) for pair in found.contradicted] == [(2, 0, True)]
    assert found.contradicted[0].share == pytest.approx(2 / 3)
    assert "0 of them in no circle" in str(found)


def feedback(slate, rank, annotator, weight=(1.0, 1.0, 1.0)):
    items = datasets.Dataset.from_dict(
        {"prompt_id": [0, 0, 0, 1, 1], "prompt": ["x"] * 5, "response": list("abcde"), "source": [""] * 5}
    )
    people = datasets.Dataset.from_dict({"id": ["p", "q", "r"], "weight": list(weight)})
    n = len(slate)
    choices = Choices(np.array(slate), np.array(rank), np.array(annotator), np.zeros(n, int), np.full(n, -1))
    return Feedback(items, people, ("overall",), choices, Grades.none())


def test_votes_are_counted_by_annotator():
    """Slates give pairs; ties give none; who contradicts itself has no side; a pair that one saw does not count."""
    votes = feedback(
        #  p: a > b > c    q: b > a, a > b   q: b > c      r: a > b     r: d = e      p: d > e
        [[0, 1, 2], [1, 0, -1], [0, 1, -1], [1, 2, -1], [1, 0, -1], [3, 4, -1], [3, 4, -1]],
        [[0, 1, -1], [0, 1, -1], [0, 1, -1], [0, 1, -1], [1, 0, -1], [0, 0, -1], [0, 1, -1]],
        [0, 1, 1, 1, 2, 2, 0],
    )
    found = axioms.of_reward(np.array([0.0, 1, 2, 0, 1]), votes)
    # a > b by p and r, b > c by p and q; a > c by p alone, d > e by p alone
    assert {(p.better, p.worse, p.voters) for p in found.pareto} == {(0, 1, 2), (1, 2, 2)}
    assert found.unanimous == found.majorities == 2
    alone = axioms.of_reward(np.array([0.0, 1, 2, 0, 1]), votes, voters=1)
    assert {(p.prompt, p.better, p.worse) for p in alone.pareto} == {(0, 0, 1), (0, 1, 2), (0, 0, 2), (1, 3, 4)}


def test_weights_decide_majorities():
    votes = feedback([[0, 1]] * 3, [[0, 1], [1, 0], [1, 0]], [0, 1, 2], weight=(5.0, 1.0, 2.0))
    found = axioms.of_reward(np.array([1.0, 2, 0, 0, 0]), votes)
    assert [(p.better, p.worse, p.share, p.unanimous) for p in found.contradicted] == [(0, 1, 5 / 8, False)]
    even = feedback([[0, 1]] * 3, [[0, 1], [1, 0], [1, 0]], [0, 1, 2], weight=(3.0, 1.0, 2.0))
    assert axioms.of_reward(np.array([1.0, 2, 0, 0, 0]), even).majorities == 0


def test_a_policy_by_hand():
    value = np.array(
        [  # [prompt voter candidate]
            [[3.0, 2, 1], [3, 1, 2], [1, 3, 2]],  # 0 beats both, 2 loses to both
            [[2.0, 1, 0], [0, 2, 1], [1, 0, 2]],  # a circle
        ]
    )
    u = Utilities(value.transpose(1, 0, 2)[None], np.full(3, 1 / 3), np.full((2, 3), 1 / 3))
    lottery = np.array([[0.5, 0.3, 0.2], [0.2, 0.3, 0.5]])
    found = axioms.of_policy(lottery, u)
    assert found.dominated == 0
    assert (found.condorcet_prompts, found.condorcet) == (1, 0.5)
    assert (found.loser_prompts, found.loser) == (1, pytest.approx(0.2))
    # voters 0 and 1, two thirds of all, like 0 best on the first prompt; voter 0, a third, likes 0 on the second
    assert found.shortfall == pytest.approx((2 / 3 - 0.5 + 1 / 3 - 0.2) / 2)
    # worth of each candidate: mean over voters of u(y) / u(p), utilities from the worst on
    first = np.array([[1, 0.5, 0], [1, 0, 0.5], [0, 1, 0.5]])
    second = np.array([[1, 0.5, 0], [0, 1, 0.5], [0.5, 0, 1]])
    worth = [(each / (each @ p)[:, None]).mean(0).max() for each, p in zip((first, second), lottery, strict=True)]
    assert found.proportional == pytest.approx(np.mean(worth))
    assert "gets 50 % (on 1 prompts)" in str(found) and "falls short by 15 %" in str(found)


def test_dominated_answers_are_found_and_the_fair_policy_is_fair():
    rng = np.random.default_rng(0)
    value = rng.random((1, 5, 3, 4))
    value[:, :, 1, 2] = value[:, :, 1, 0] - 0.1  # on prompt 1 candidate 2 is worse than 0 to everyone
    u = choice.rescale(Utilities(value, np.full(5, 0.2), np.full((3, 4), 0.25)), choice.RangeScale())
    uniform = axioms.of_policy(u.reference, u)
    assert uniform.worst == 1 and uniform.worst_dominated >= 0.25
    one = Utilities(value[:, :, :1], u.mass, u.reference[:1])
    nash = choice.Nash().choose(choice.rescale(one, choice.RangeScale()), beta=0.01)
    assert axioms.of_policy(nash.lottery, one).proportional < 1.05 < axioms.of_policy(one.reference, one).proportional


def test_log_ratios_are_lotteries():
    u = society(0.6)
    chosen = choice.Utilitarian().choose(u, beta=0.5)
    np.testing.assert_allclose(axioms.lottery_of(chosen.log_ratio(), u.reference), chosen.lottery, atol=1e-9)
    sparse = axioms.lottery_of(np.array([[1000.0, 0.0, 999.0]]), np.array([[0.5, 0.5, 0.0]]))
    np.testing.assert_allclose(sparse, [[1.0, 0.0, 0.0]])


def test_what_does_not_fit_is_refused():
    u = society(0.6)
    with pytest.raises(InputError, match="6 finite"):
        axioms.of_reward(np.zeros(5), u)
    with pytest.raises(InputError, match="finite"):
        axioms.of_reward(np.full(6, np.nan), u)
    with pytest.raises(InputError, match="sum to 1"):
        axioms.of_policy(np.full((1, 6), 0.2), u)
    padded = Utilities(u.dense(), u.mass, np.array([[0.5, 0.5, 0, 0, 0, 0]]))
    with pytest.raises(InputError, match="do not know"):
        axioms.of_policy(np.full((1, 6), 1 / 6), padded)
    with pytest.raises(InputError, match="ratio"):
        axioms.lottery_of(np.full((1, 6), np.inf), u.reference)
