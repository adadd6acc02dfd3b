import itertools

import numpy as np
import pytest
from datasets import Dataset
from scipy import stats

from pluralign.feedback import Community, Group
from pluralign.feedback import suspects as module
from pluralign.feedback.agreement import answers
from pluralign.feedback.suspects import (
    _beta_binomial_tail,
    _in_common,
    _meetings,
    at_least,
    at_most,
    crowded,
    discovery_rate,
    suspects,
)
from pluralign.types import Choices, Feedback, Grades, Scale

STYLES = {"a": ("dear", "sweet"), "b": ("grim", "harsh"), "c": ("exact", "number")}


def judged(says, pairs, people, **columns) -> Feedback:
    """`says[annotator, pair]` 1 = the first of the pair wins, 0 = the second, -1 = not asked; sides are drawn."""
    rng = np.random.default_rng(0)
    who, pair = np.nonzero(says >= 0)
    order = rng.permutation(len(who))
    who, pair = who[order], pair[order]
    slate = np.array(pairs)[pair]
    loses = 1 - says[who, pair]
    swap = rng.random(len(who)) < 0.5
    slate[swap], loses[swap] = slate[swap][:, ::-1], 1 - loses[swap]
    return feedback(people, choices=Choices(slate, np.stack([loses, 1 - loses], 1), who, *np.zeros((2, len(who)))))


def feedback(people, choices=None, grades=None, scales=(), items=60) -> Feedback:
    nobody = Choices(np.zeros((0, 2), int), np.zeros((0, 2), int), *np.zeros((3, 0)))
    return Feedback(
        items=Dataset.from_dict({"prompt_id": [0] * items, "prompt": ["p"] * items, "response": ["r"] * items}),
        annotators=Dataset.from_dict({"id": [f"w{a}" for a in range(people)], "weight": [1.0] * people}),
        objectives=("overall",),
        choices=choices or nobody,
        grades=grades or Grades.none(),
        scales=scales,
    )


def everyone(votes):
    given = answers(votes)
    return suspects(votes, given, tuple(a.shared() for a in given))


def told(votes) -> dict[str, set]:
    found: dict[str, set] = {}
    for s in everyone(votes):
        assert 0 <= s.p <= s.q <= 0.05
        who = s.annotators if len(s.annotators) > 1 else s.annotators[0]
        found.setdefault(s.reason, set()).add(who)
    return found


PAIRS = list(itertools.combinations(range(16), 2))


def crowd(rng, people=40, right=0.8) -> np.ndarray:
    """Honest annotators who find the better of each pair, which is the same for all, with one probability."""
    return (rng.random((people, len(PAIRS))) < right).astype(int)


def test_tails_are_those_of_scipy():
    n, rate = np.array([1, 7, 30, 30, 30]), np.array([0.2, 0.9, 0.5, 0.01, 0.99])
    for k in (np.array([0, 3, 12, 30, 0]), np.array([1, 7, 29, 1, 30])):
        np.testing.assert_allclose(at_most(k, n, rate), stats.binom.cdf(k, n, rate), rtol=1e-9)
        np.testing.assert_allclose(at_least(k, n, rate), stats.binom.sf(k - 1, n, rate), rtol=1e-9)
        a, b = rate * 9, (1 - rate) * 9  # correlation 1 / (a + b + 1)
        np.testing.assert_allclose(
            _beta_binomial_tail(k, n, rate, 0.1), stats.betabinom.sf(k - 1, n, a, b), rtol=1e-6, atol=1e-13
        )


def test_the_discovery_rate_is_that_of_scipy():
    p = np.random.default_rng(0).random(50) ** 3
    np.testing.assert_allclose(discovery_rate(p, 50), stats.false_discovery_control(p))
    kept = np.sort(p)[:10]
    np.testing.assert_allclose(discovery_rate(kept, 50), np.sort(stats.false_discovery_control(p))[:10], atol=0.08)


def test_honest_annotators_are_left_alone():
    """With a false discovery rate of 5 %, a crowd without suspects has any in 5 % of cases for each of five reasons."""
    rng = np.random.default_rng(1)
    crowds = [told(judged(crowd(rng, 30), PAIRS, 30)) for _ in range(12)]
    assert sum(bool(found) for found in crowds) <= 7  # binomial(12, 0.25): P(more than 7) = 0.0004


def test_who_answers_at_random_is_careless_and_who_answers_the_wrong_way_round_is_opposite():
    rng = np.random.default_rng(2)
    says = crowd(rng)
    says[:4] = rng.integers(2, size=(4, len(PAIRS)))
    says[4] = 1 - says[4]
    found = told(judged(says, PAIRS, 40))
    # 120 answers: honest 0.8 right, +-0.037; random 0.5, +-0.046: far apart, so none is missed and none is wrong
    assert found == {"careless": {0, 1, 2, 3}, "opposite": {4}}


def test_a_minority_of_one_mind_is_not_careless():
    """One of four wants the contrary on half of the pairs: they agree with all others as by chance."""
    rng = np.random.default_rng(3)
    says = crowd(rng, right=0.9)
    other = rng.random(len(PAIRS)) < 0.5
    says[:10, other] = 1 - says[:10, other]
    assert told(judged(says, PAIRS, 40)) == {}


def test_the_careless_of_a_community_are_found_and_the_honest_are_not():
    power, wrong, honest, careless = 0, 0, 0, 0
    for seed in range(4):
        votes = Community(
            groups=(Group("x", 60, {"a": 2.0, "b": -1.0}), Group("y", 40, {"b": 2.0, "c": 1.0})),
            styles=STYLES, prompts=20, candidates=4, judgements=100, careless=0.1, tie=None, seed=seed,
        ).load()  # fmt: skip
        found = told(votes).get("careless", set())
        truly = set(np.flatnonzero(votes.truth.careless).tolist())
        careless, honest = careless + len(truly), honest + 100 - len(truly)
        power, wrong = power + len(found & truly), wrong + len(found - truly)
    assert power >= stats.binom.ppf(0.01, careless, 0.6)
    assert wrong <= stats.binom.ppf(0.99, honest, 0.02)


def test_two_who_copy_are_coordinated_and_like_minds_are_not():
    rng = np.random.default_rng(4)
    says = crowd(rng, right=0.75)
    says[:20, ::2] = 1 - says[:20, ::2]  # two camps
    says[1] = np.where(rng.random(len(PAIRS)) < 0.02, 1 - says[0], says[0])
    says[25] = says[26] = says[27]
    assert told(judged(says, PAIRS, 40)) == {"coordinated": {(0, 1), (25, 26), (25, 27), (26, 27)}}


def test_who_contradicts_themselves_is_told():
    rng = np.random.default_rng(5)
    who, pair = np.repeat(np.arange(30), 80), np.tile(np.arange(40), 60)  # every pair twice
    second = rng.random(len(who)) < np.where(who == 7, 0.5, 0.05)
    c = Choices(np.array(PAIRS)[pair], np.stack([second, ~second], 1), who, *np.zeros((2, len(who))))
    found = [s for s in everyone(feedback(30, c)) if s.reason == "contradictory"]
    assert [s.annotators for s in found] == [(7,)]
    outcome = second.reshape(30, 2, 40)
    differs = (outcome[:, 0] != outcome[:, 1]).sum(1)
    rest = differs.sum() - differs[7]
    fisher = stats.fisher_exact([[differs[7], 40 - differs[7]], [rest, 29 * 40 - rest]], alternative="greater")
    assert (found[0].answers, found[0].observed) == (40, differs[7] / 40)
    assert found[0].p == pytest.approx(fisher.pvalue)


def test_straight_liners_of_sides_and_of_grades():
    rng = np.random.default_rng(6)
    who, n = np.repeat(np.arange(20), 15), 300
    slate = np.array(PAIRS)[rng.integers(len(PAIRS), size=n)]
    second = (rng.random(n) < 0.5) & (who != 3)
    c = Choices(slate, np.stack([second, ~second], 1), who, *np.zeros((2, n)))
    stars = np.where(who == 11, 4, rng.integers(5, size=n))
    g = Grades(rng.integers(60, size=n), stars, np.zeros(n), who, *np.zeros((2, n)))
    found = told(feedback(20, c, g, (Scale("stars", tuple("12345")),)))
    assert found["straight"] == {3, 11}
    always = Choices(slate, np.tile([0, 1], (n, 1)), who, *np.zeros((2, n)))  # the chosen one stands first
    assert "straight" not in told(feedback(20, always))


def test_careless_grades_are_found_by_their_order():
    rng = np.random.default_rng(7)
    quality = rng.normal(size=60)
    mild = rng.normal(size=(30, 1))  # annotators use the scale in their own way
    grade = np.clip(np.round(3 + mild + 1.5 * quality + 0.7 * rng.normal(size=(30, 60))), 0, 6)
    grade[5] = rng.permutation(grade[5])
    who, item = np.divmod(np.arange(1800), 60)
    g = Grades(item, grade.ravel(), np.zeros(1800), who, *np.zeros((2, 1800)))
    assert told(feedback(30, grades=g, scales=(Scale("seven", tuple("abcdefg")),))) == {"careless": {5}}


def test_the_hurried_are_told_where_times_are_known():
    rng = np.random.default_rng(8)
    who = np.repeat(np.arange(20), 25)
    gap = np.round(rng.lognormal(4, 0.5, size=500)) // np.where(who == 4, 6, 1)
    slate = np.array(PAIRS)[rng.integers(len(PAIRS), size=500)]
    rank = rng.permuted(np.tile([0, 1], (500, 1)), axis=1)
    rest = (who, *np.zeros((2, 500)))
    assert "hurried" not in told(feedback(20, Choices(slate, rank, *rest)))
    assert told(feedback(20, Choices(slate, rank, *rest, time=np.cumsum(gap))))["hurried"] == {4}


def test_nothing_is_told_of_nothing():
    assert told(feedback(3)) == {}
    assert told(feedback(1, Choices([[0, 1]] * 30, [[0, 1]] * 30, [0] * 30, *np.zeros((2, 30))))) == {}


def test_copies_are_found_by_a_sample_of_units_where_all_are_too_many(monkeypatch):
    rng = np.random.default_rng(9)
    pairs = list(itertools.combinations(range(60), 2))[:1000]
    says = np.where(rng.random((60, 1000)) < 0.3, rng.random((60, 1000)) < 0.7, -1).astype(int)
    says[1], says[8] = (
        says[0],
        np.where(rng.random(1000) < 0.03, (1 - says[7]) * (says[7] >= 0) - (says[7] < 0), says[7]),
    )
    votes = judged(says, pairs, 60)
    (given,) = answers(votes)
    assert told(votes) == {"coordinated": {(0, 1), (7, 8)}}  # all meetings are counted
    monkeypatch.setattr(module, "PRODUCTS", 0)
    monkeypatch.setattr(module, "MEETINGS", 100_000)  # of about 1000 * 18 ** 2
    assert told(votes) == {"coordinated": {(0, 1), (7, 8)}}
    assert not crowded((given.shared(),), 60)
    monkeypatch.setattr(module, "MEETINGS", 5_000)  # about 15 units, of which each answered 5
    assert crowded((given.shared(),), 60)
    assert told(votes) == {}


def test_meetings_are_those_of_loops():
    """A sparse and a dense product, against the sets of what two have answered."""
    rng = np.random.default_rng(10)
    says = np.where(rng.random((12, 120)) < 0.4, rng.integers(2, size=(12, 120)), -1)
    votes = judged(says, PAIRS, 12)
    met = _meetings(tuple(a.shared() for a in answers(votes)))
    expected = {}
    for a, b in itertools.permutations(range(12), 2):
        both = (says[a] >= 0) & (says[b] >= 0)
        expected[a, b] = (both.sum(), (both & (says[a] == says[b])).sum())
    for full in (False, True):
        parts = list(_in_common(met.incidence(12), np.arange(12), full))
        found = {(int(a), int(b)): (n, k) for part in parts for a, b, n, k in zip(*part, strict=True)}
        assert found == {pair: nk for pair, nk in expected.items() if nk[0] >= 5}


def test_two_who_always_give_the_highest_grade_are_straight_but_did_not_copy():
    rng = np.random.default_rng(11)
    grade = np.clip(np.round(2 + rng.normal(size=60) + rng.normal(size=(30, 60))), 0, 4)
    grade[[3, 4]] = 4
    grade[6] = grade[5]
    who, item = np.divmod(np.arange(1800), 60)
    found = told(feedback(30, grades=Grades(item, grade.ravel(), np.zeros(1800), who, *np.zeros((2, 1800))),
                          scales=(Scale("stars", tuple("12345")),)))  # fmt: skip
    assert found["straight"] == {3, 4}
    assert found["coordinated"] == {(5, 6)}


def test_the_undecided_among_honest_annotators_are_seldom_contradictory(monkeypatch):
    """How often honest annotators contradict themselves differs: Beta(2, 6), so one of 16 does in half of the cases."""

    def wrong() -> int:
        told_of = 0
        for seed in range(10):
            rng = np.random.default_rng(seed)
            who, pair = np.repeat(np.arange(50), 80), np.tile(np.arange(40), 100)  # every pair twice
            second = rng.random(len(who)) < 0.5
            again = np.tile(np.repeat([False, True], 40), 50)
            second[again] = second[~again] ^ (rng.random(2000) < np.repeat(rng.beta(2, 6, size=50), 40))
            c = Choices(np.array(PAIRS)[pair], np.stack([second, ~second], 1), who, *np.zeros((2, 4000)))
            told_of += len(told(feedback(50, c)).get("contradictory", ()))
        return told_of

    few = wrong()
    monkeypatch.setattr(module, "_spread", lambda over, under: 0.0)  # as if all were alike
    assert few <= 20 and few < wrong() / 3  # of 500


def test_many_annotators_are_asked():
    rng = np.random.default_rng(12)
    people = 25_000
    pairs = np.array(list(itertools.combinations(range(60), 2))[:1000])
    who = np.concatenate([np.repeat(np.arange(20), 16), rng.integers(20, people, size=100_000)])
    pair = np.concatenate([np.arange(320) % 1000, rng.integers(1000, size=100_000)])
    second = (rng.random(1000) < 0.5)[pair] ^ (rng.random(len(who)) < 0.02) ^ (who < 20)
    votes = feedback(people, Choices(pairs[pair], np.stack([second, ~second], 1), who, *np.zeros((2, len(who)))))
    # 16 answers as by chance have p = 2^-16, 0.4 of 25,000 annotators; one that is right by a slip is one too many
    assert told(votes)["opposite"] < set(range(20)) and len(told(votes)["opposite"]) >= 10
