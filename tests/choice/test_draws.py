"""Axioms, rewards, policies and lies in every draw: on draws of which a known share breaks, gains or gives what."""

import numpy as np
import pytest

from pluralign import choice
from pluralign.choice import audit, axioms, draws
from pluralign.errors import InputError
from pluralign.types import Linear, Utilities
from tests.choice.test_axioms_learned import feedback

# Borda elects 1, whom two like best, although three like 0 best; with six against four, and with two more it does not.
PASSED = [[2.0, 1, 0]] * 3 + [[0, 2, 1]] * 2
FOLLOWED = [[2.0, 1, 0]] * 3 + [[1, 2, 0]] * 2


def table(*worlds, share=(1,)) -> Utilities:
    """One prompt; each world is drawn as often as its share says."""
    value = np.repeat(np.array(worlds, float), share, axis=0)[:, :, None]
    voters, candidates = value.shape[1], value.shape[-1]
    return Utilities(value, np.full(voters, 1 / voters), np.full((1, candidates), 1 / candidates))


def test_an_axiom_is_broken_as_often_as_draws_are_made_so():
    u = table(PASSED, FOLLOWED, share=(3, 7))
    majority = [axioms.Majority(), axioms.Pareto(), axioms.Homogeneity()]
    found = draws.check(choice.Borda(), u, majority)
    assert found["majority"].found[:, 0].tolist() == [True] * 3 + [False] * 7
    assert found["majority"].anywhere == found["majority"].probability[0] == pytest.approx(0.3)
    assert found["majority"].stderr == pytest.approx(np.sqrt(0.3 * 0.7 / 9))
    assert found["majority"].complete and "60 % like 0 best, yet 1 wins" in found["majority"].example.words
    assert "with probability 0.30 ± 0.15" in str(found["majority"])
    assert found["pareto"].anywhere == 0 and found["pareto"].example is None and found["pareto"].complete
    assert not found["homogeneity"].complete and "at least 0.00" in str(found["homogeneity"])
    assert draws.check(choice.Schulze(), u, majority)["majority"].anywhere == 0
    # The means hide it: on average 0 is as good as anything to Borda.
    assert axioms.check(choice.Borda(), u, majority)["majority"].violation is None


def test_prompts_are_told_apart():
    value = np.stack(
        [np.array([PASSED, PASSED, FOLLOWED, FOLLOWED]), np.array([FOLLOWED, PASSED, PASSED, FOLLOWED])], 2
    )
    u = Utilities(value, np.full(5, 0.2), np.full((2, 3), 1 / 3))
    found = draws.check(choice.Borda(), u, [axioms.Majority()])["majority"]
    np.testing.assert_allclose(found.probability, [0.5, 0.5])
    assert found.anywhere == pytest.approx(0.75)


def test_linear_rules_are_checked_with_the_features_of_each_prompt():
    rng = np.random.default_rng(0)
    weights = rng.normal(size=(6, 3, 2)) + 0.4
    u = Utilities(
        Linear(rng.normal(size=(2, 4, 2)), weights, np.zeros((6, 3))), np.full(3, 1 / 3), np.full((2, 4), 0.25)
    )
    found = draws.check(choice.LCPO(), u, [axioms.Pareto(), axioms.Majority(), axioms.PopulationProportionality()])
    assert found["pareto"].anywhere == found["majority"].anywhere == 0
    assert found["population-proportionality"].anywhere > 0.5  # one winner is not for everyone


def test_a_reward_is_wrong_as_often_as_voters_are_drawn_so():
    up, down = [[3.0, 2, 1]] * 3, [[1.0, 2, 3]] * 3
    mixed = [[3.0, 2, 1], [3, 2, 1], [1, 2, 3]]  # as the first, by two of three
    u = table(up, down, mixed, share=(6, 3, 1))
    found = draws.of_reward(np.array([3.0, 2, 1]), u)
    np.testing.assert_array_equal(found.pareto.value, [0] * 6 + [3] * 3 + [0])
    assert found.pareto.beyond() == pytest.approx(0.3) and found.pareto.mean == pytest.approx(0.9)
    assert found.contradicted.beyond() == pytest.approx(0.3) and found.contradicted.interval == (0, 3)
    assert {((p.better, p.worse), share) for p, share in found.pairs} == {((2, 1), 0.3), ((2, 0), 0.3), ((1, 0), 0.3)}
    turned = draws.of_reward(np.array([1.0, 2, 3]), u)
    assert turned.pareto.beyond() == pytest.approx(0.6) and turned.contradicted.beyond() == pytest.approx(0.7)
    assert "some with probability 0.70" in str(turned) and "0.70: prompt 0, item 0 before 1" in str(turned)


def test_a_reward_with_draws_is_judged_by_the_same_votes_or_by_those_of_its_draw():
    votes = feedback([[0, 1, -1]] * 2, [[0, 1, -1]] * 2, [0, 1])  # two prefer item 0 to item 1
    right, wrong = [2.0, 1, 0, 0, 0], [1.0, 2, 0, 0, 0]
    found = draws.of_reward(np.array([right, right, right, wrong]), votes)
    assert found.pareto.value.tolist() == [0, 0, 0, 1] and found.pairs[0][1] == 0.25
    u = table([[1.0, 0]] * 2, [[0.0, 1]] * 2, share=(2, 2))
    assert draws.of_reward(np.array([[1.0, 0], [0, 1], [1, 0], [0, 1]]), u).pareto.value.tolist() == [0, 1, 1, 0]
    with pytest.raises(InputError, match="4 draws"):
        draws.of_reward(np.zeros((3, 2)), u)
    with pytest.raises(InputError, match="2 finite"):
        draws.of_reward(np.array([np.nan, 0]), u)


def test_a_policy_is_judged_in_every_draw():
    u = table([[2.0, 1, 0]] * 2, [[0.0, 1, 2], [0, 2, 1]], share=(4, 1))
    found = draws.of_policy(np.array([[0.5, 0.3, 0.2]]), u)
    # all like 0 best, so 1 and 2 are dominated; or 0 is dominated by both, and nobody beats both
    np.testing.assert_allclose(found["dominated"].value, [0.5] * 4 + [0.5])
    np.testing.assert_allclose(found["condorcet"].value, [0.5] * 4 + [np.nan])
    np.testing.assert_allclose(found["loser"].value, [0.2] * 4 + [0.5])
    assert found["condorcet"].mean == 0.5 and found["condorcet"].beyond(0.4) == 0.8
    assert found["loser"].interval == pytest.approx((0.2, 0.44)) and "loser: 0.26 [0.2, 0.44]" in str(found["loser"])


def test_what_a_lie_gains_is_known_as_well_as_wishes_are():
    burying, content = [[2.0, 1, 0]] * 3 + [[0, 2, 1]] * 2, [[2.0, 1, 0]] * 5
    found = draws.manipulation(choice.Borda(), table(burying, content, share=(2, 2)))
    one = audit.manipulation(choice.Borda(), np.array([[0, 1, 2]] * 3 + [[1, 2, 0]] * 2))
    np.testing.assert_allclose(found["gain"].value, [one.gain] * 2 + [0] * 2)
    np.testing.assert_allclose(found["liars"].value, [one.liars] * 2 + [0] * 2)
    np.testing.assert_allclose(found["tv"].value[:2], one.tv)
    assert found["gain"].beyond(1e-3) == 0.5 and one.gain > 0.1
