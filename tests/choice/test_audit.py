"""What misreports can do, against brute force over all reports and closed forms."""

import itertools

import numpy as np
import pytest
from scipy.special import softmax

from pluralign import choice
from pluralign.choice import audit, axioms
from pluralign.errors import InputError
from pluralign.types import Utilities

BURYING = np.array([[0, 1, 2]] * 3 + [[1, 2, 0]] * 2)  # Borda elects 1; a voter for 0 buries it


def lottery(rule, rankings):
    if isinstance(rule, choice.AbstractLottery):
        return rule.lottery(rankings)
    wins = rule.winners(rankings)
    p = np.zeros(rankings.shape[1])
    p[wins] = 1 / len(wins)
    return p


def by_hand(rule, rankings, group):
    """Largest move and gain over all orders that a group of voters may say alike; true utility falls evenly with place."""
    size = rankings.shape[1]
    honest, moved, gained = lottery(rule, rankings), 0.0, 0.0
    worth = np.mean([1 - np.argsort(rankings[v]) / (size - 1) for v in group], axis=0)
    for said in itertools.permutations(range(size)):
        told = rankings.copy()
        told[list(group)] = said
        p = lottery(rule, told)
        moved, gained = max(moved, np.abs(p - honest).sum() / 2), max(gained, worth @ (p - honest))
    return moved, gained


def orders(seed, voters, candidates):
    rng = np.random.default_rng(seed)
    return np.stack([rng.permutation(candidates) for _ in range(voters)])


@pytest.mark.parametrize(
    "rule",
    [choice.Borda(), choice.Plurality(), choice.IRV(), choice.Minimax(), choice.MaximalLottery()],
    ids=lambda r: r.name,
)
def test_every_report_is_tried(rule):
    for rankings in (BURYING, orders(1, 5, 3), orders(2, 4, 4)):
        found = audit.manipulation(rule, rankings)
        assert found.exhaustive
        for v, reach in enumerate(found.reaches):
            assert reach.voters == (str(v),) and reach.mass == pytest.approx(1 / len(rankings))
            assert (reach.tv, reach.gain) == pytest.approx(by_hand(rule, rankings, [v]), abs=1e-6)
        assert found.tv == max(r.tv for r in found.reaches) and "at least" not in str(found)


def test_burying():
    """0 > 1 > 2 says 0 > 2 > 1: 1 falls from 7 points to 6, as many as 0 has."""
    found = audit.manipulation(choice.Borda(), BURYING)
    np.testing.assert_allclose(found.lottery, [[0, 1, 0]])
    np.testing.assert_allclose(found.reaches[0].lottery, [[0.5, 0.5, 0]])
    assert found.reaches[0].report[0].argsort().tolist() == [1, 2, 0]
    assert found.gain == pytest.approx(0.25) and found.liars == pytest.approx(3 / 5)
    assert "gain 25 % of the way" in str(found)


def test_nobody_gains_under_a_random_dictator():
    found = audit.manipulation(choice.RandomDictatorship(), orders(3, 6, 4))
    assert found.exhaustive and found.gain == 0 and found.liars == 0
    assert [r.tv for r in found.reaches] == pytest.approx([1 / 6] * 6)  # one's own ballot goes elsewhere


def test_approvals_are_reported_as_sets():
    """Who only tells approved from other answers has no use for a lie (Brams and Fishburn 1978)."""
    society = axioms.approvals(np.random.default_rng(5), 6, 4)
    found = audit.manipulation(choice.Approval(), society)
    assert found.exhaustive and found.gain <= 1e-9 and found.tv > 0


def test_beyond_five_candidates_it_is_a_lower_bound():
    reached = []
    for seed in range(3):
        rankings = orders(seed, 5, 6)
        found = audit.manipulation(choice.Borda(), rankings, voters=[0], tries=100)
        moved, gained = by_hand(choice.Borda(), rankings, [0])
        assert not found.exhaustive and found.tried <= 202 and "at least" in str(found)
        assert found.tv <= moved + 1e-9 and found.gain <= gained + 1e-9
        reached.append((found.tv - moved, found.gain - gained))
    np.testing.assert_allclose(reached, 0, atol=1e-9)


def test_colluders_are_those_of_like_mind():
    rankings = np.array([[0, 1, 2]] * 3 + [[1, 0, 2]] * 2 + [[2, 1, 0]] * 4)
    two = audit.manipulation(choice.Borda(), rankings, coalition=2)
    assert two.reaches[3].voters == ("3", "4") and two.reaches[3].mass == pytest.approx(2 / 9)
    assert (two.reaches[3].tv, two.reaches[3].gain) == pytest.approx(by_hand(choice.Borda(), rankings, [3, 4]))
    share = audit.manipulation(choice.Borda(), rankings, coalition=0.34)
    assert {len(reach.voters) for reach in share.reaches} == {3} and not share.exhaustive
    assert share.reaches[0].voters == ("0", "1", "2")
    assert (share.reaches[0].tv, share.reaches[0].gain) == pytest.approx(by_hand(choice.Borda(), rankings, [0, 1, 2]))


def test_prompts_are_lied_about_one_by_one():
    """Orders are counted prompt by prompt, so what is gained over prompts is the mean, weighed by what is at stake."""
    value = np.random.default_rng(6).random((1, 4, 3, 3))
    u = Utilities(value, np.full(4, 0.25), np.full((3, 3), 1 / 3))
    whole = audit.manipulation(choice.Borda(), u)
    parts = [audit.manipulation(choice.Borda(), value[0, :, x]) for x in range(3)]
    stakes = np.ptp(value[0], axis=2)
    for v, reach in enumerate(whole.reaches):
        assert reach.tv == pytest.approx(np.mean([p.reaches[v].tv for p in parts]))
        expected = sum(p.reaches[v].gain * stakes[v, x] for x, p in enumerate(parts)) / stakes[v].sum()
        assert reach.gain == pytest.approx(expected)
    assert whole.exhaustive and whole.lottery.shape == (3, 3)


def test_a_price_of_divergence_softens_lies():
    free, priced = (audit.manipulation(choice.Borda(), BURYING, beta=b) for b in (None, 1.0))
    # p = exp([y wins] / beta) / Z: from (0, 1, 0) to (1, 1, 0) wins
    before, after = softmax([0.0, 1, 0]), softmax([1.0, 1, 0])
    assert priced.reaches[0].gain == pytest.approx((after - before) @ [1, 0.5, 0], abs=1e-6)
    assert priced.gain < free.gain


def best_lie(u, voter, beta, middle=np.linspace(0, 1, 21)):  # noqa: B008
    """By brute force: reports that reach from 0 to 1, all others anywhere between; the sum of utilities in closed form."""
    true = (u - u.min(1, keepdims=True)) / np.ptp(u, axis=1, keepdims=True)
    honest = softmax(true.mean(0) / beta)
    moved = gained = 0.0
    for low, high in itertools.permutations(range(3), 2):
        for t in middle:
            row = np.full(3, t)
            row[low], row[high] = 0, 1
            told = true.copy()
            told[voter] = row
            p = softmax(told.mean(0) / beta)
            moved, gained = max(moved, np.abs(p - honest).sum() / 2), max(gained, true[voter] @ (p - honest))
    return moved, gained


def test_exaggeration_is_the_best_lie_about_a_sum():
    u = np.random.default_rng(7).normal(size=(5, 3))
    found = audit.manipulation(choice.Utilitarian(), u, beta=0.1)
    assert not found.exhaustive and found.gain > 0
    for v, reach in enumerate(found.reaches):
        moved, gained = best_lie(u, v, 0.1)
        assert reach.tv == pytest.approx(moved, abs=1e-3) and reach.gain == pytest.approx(gained, abs=1e-3)
        row = reach.report[0]
        assert np.isin(np.round(row / row.max(), 9), [0, 1]).all()  # at the ends of the scale


def test_one_of_many_moves_little():
    """A voter of mass m on a scale from 0 to 1 changes log-odds by 2 m / beta at most, so TV by tanh(m / (2 beta))."""
    u = np.random.default_rng(8).normal(size=(60, 4))
    found = audit.manipulation(choice.Utilitarian(), u, beta=0.1, voters=[0, 1])
    assert 0 < found.tv <= np.tanh(1 / 60 / 0.2)
    group = audit.manipulation(choice.Utilitarian(), u, beta=0.1, voters=[0, 1], coalition=0.2)
    assert len(group.reaches[0].voters) == 12 and group.tv > found.tv and group.gain > found.gain


def test_what_comes_of_a_report_is_what_the_rule_makes_of_it():
    u = np.random.default_rng(9).random((4, 3))
    for rule in (choice.Nash(), choice.Maximin()):
        reach = audit.manipulation(rule, u, beta=0.2, voters=[1], tries=15).reaches[0]
        told = u.copy()
        told[1] = reach.report[0]
        said = Utilities(told[None, :, None], np.full(4, 0.25), np.full((1, 3), 1 / 3))
        again = rule.choose(choice.rescale(said, choice.RangeScale()), beta=0.2)
        np.testing.assert_allclose(reach.lottery, again.lottery, atol=1e-3)
        assert reach.gain >= 0


def test_the_table_and_refusals():
    found = [audit.manipulation(rule, BURYING) for rule in (choice.Borda(), choice.RandomDictatorship())]
    assert audit.table(found).splitlines()[2:] == [
        "| borda | 1.000 | 25.0 % | 60 % | exact |",
        "| random-dictatorship | 0.200 | 0.0 % | 0 % | exact |",
    ]
    for wrong in (0, 6, 1.5, 0.0):
        with pytest.raises(InputError, match="coalition"):
            audit.manipulation(choice.Borda(), BURYING, coalition=wrong)
    with pytest.raises(InputError, match="same voters"):
        audit.manipulation(choice.Borda(), [axioms.named(name) for name in ("circle", "majority")])
