"""Ordinal rules on posteriors, and those of pref_voting."""

import numpy as np
import pytest
from pref_voting import voting_methods as peers
from pref_voting.profiles import Profile
from pref_voting.weighted_majority_graphs import MarginGraph

from pluralign import choice
from pluralign.choice.ballots import electorates
from pluralign.errors import InputError
from pluralign.types import Linear, Utilities


def test_every_draw_of_a_voter_is_a_ballot(make):
    """The ballots behind `choose`, counted one by one."""
    u = make(seed=2)
    value = u.dense()
    for x, (on, profile) in enumerate(electorates(u)):
        m = np.zeros((len(on), len(on)))
        for s, v in np.ndindex(value.shape[:2]):
            own = value[s, v, x, on]
            m += u.mass[v] / len(value) * np.sign(own[:, None] - own)
        np.testing.assert_allclose(profile.margins(), m, atol=1e-12)
        np.testing.assert_array_equal(on, np.flatnonzero(u.reference[x] > 0))


def test_who_wins_gets_the_odds_that_beta_says(make):
    u = make(seed=2)
    chosen = choice.Schulze().choose(u, beta=0.5)
    for x, (on, profile) in enumerate(electorates(u)):
        wins = np.zeros(u.shape[3])
        wins[on[choice.Schulze().from_margins(profile.margins())]] = 1
        tilted = u.reference[x] * np.exp(wins / 0.5)
        np.testing.assert_allclose(chosen.lottery[x], tilted / tilted.sum(), atol=1e-12)
    assert chosen.weights is None and chosen.reward is None
    assert chosen.certificate.tv_bound < 1e-7
    assert choice.Schulze().choose(u, beta=1e-3).lottery.max(-1).min() == pytest.approx(1)


def test_equal_features_are_ties_however_they_are_rounded():
    """Two candidates of the same features are equal to everyone, though sums of products may differ in the last digit."""
    rng = np.random.default_rng(0)
    phi = rng.normal(size=(1, 3, 40))
    phi[0, 1] = phi[0, 0] * (1 + 1e-15)
    u = Utilities(
        Linear(phi, rng.normal(size=(50, 7, 40)), np.zeros((50, 7))), np.full(7, 1 / 7), np.full((1, 3), 1 / 3)
    )
    ((_, profile),) = electorates(u)
    assert profile.margins()[0, 1] == 0
    assert (profile.level[0] == profile.level[1]).all()


def test_ordinal_rules_are_not_cautious(make):
    with pytest.raises(InputError, match=r"schulze counts every draw.*risk must be Mean\(\), not CVaR"):
        choice.Schulze().choose(make(), risk=choice.CVaR(tail=0.5))
    with pytest.raises(InputError, match="beta is 0"):
        choice.Borda().choose(make(), beta=0.0)


# pref_voting's methods as rules.


@pytest.mark.parametrize("method", ["split_cycle", "uc_gill", "bucklin", "benham", "stable_voting", "dowdall"])
def test_methods_of_pref_voting_are_rules(method):
    rng = np.random.default_rng(4)
    for voters in (4, 5, 7):
        rankings = np.argsort(rng.normal(size=(voters, 4)), axis=1)
        expected = sorted(getattr(peers, method)(Profile(rankings.tolist())))
        assert choice.PrefVoting(method).winners(rankings).tolist() == expected


def test_methods_of_pref_voting_on_a_posterior(make):
    u = make(seed=5, shape=(4, 3, 2, 4))
    chosen = choice.PrefVoting("split_cycle").choose(u, beta=0.01)
    for x, (on, profile) in enumerate(electorates(u)):
        m = np.round(profile.margins(), 9)
        graph = MarginGraph(list(range(len(on))), [(int(a), int(b), m[a, b]) for a, b in np.argwhere(m > 0)])
        assert sorted(on[peers.split_cycle(graph)]) == np.flatnonzero(chosen.lottery[x] > 0.05).tolist()


def test_what_pref_voting_cannot_take(make):
    with pytest.raises(InputError, match=r"no method 'split_cycl'.*'split_cycle'"):
        choice.PrefVoting("split_cycl").winners(np.array([[0, 1]]))
    with pytest.raises(InputError, match="ratio of whole numbers"):
        choice.PrefVoting("bucklin").winners(np.array([[0, 1], [1, 0]]), np.array([1, np.pi]))
    with pytest.raises(InputError, match="complete orders only"):
        choice.PrefVoting("dowdall").winners(np.array([[0, -1, -1], [1, 2, 0]]))
