"""Communities whose wishes are known."""

import numpy as np
import pytest

from pluralign import reward
from pluralign.reward.together import fit_together


def team_means(weights, team):
    return np.stack([weights[..., team == t, :].mean(-2) for t in np.unique(team)], -2)


def test_a_good_fit_says_so(hierarchical, world):
    assert hierarchical.fit.converged, hierarchical.fit.caveats
    assert hierarchical.weights.shape == (2000, 24, 1, 3)
    assert hierarchical.voters == tuple(world.votes.annotators["id"])
    assert hierarchical.membership is None
    np.testing.assert_allclose(hierarchical.mass, 1 / 24)
    assert {"weights", "spread", "centre", "lapse", "tie"} <= set(hierarchical.fit.rhat)
    assert {name: value.shape for name, value in hierarchical.rater.items()} == {
        "lapse": (2000, 24),
        "tie": (2000, 24),
        "position": (2000, 24),
    }


def test_weights_are_recovered(hierarchical, world):
    weights = hierarchical.weights[:, :, 0].astype(float)
    mean, sd = weights.mean(0), weights.std(0)
    assert np.corrcoef(mean.ravel(), world.weights.ravel())[0, 1] > 0.85
    z = (world.weights - mean) / sd
    assert 0.7 < z.std() < 1.3
    low, high = np.quantile(weights, [0.05, 0.95], axis=0)
    assert ((low < world.weights) & (world.weights < high)).mean() > 0.8


def test_careless_raters_are_told_from_careful_ones(hierarchical, world):
    lapse = hierarchical.rater["lapse"].mean(0)
    assert lapse[world.careless].mean() > 0.5
    assert lapse[~world.careless].mean() < 0.25


def test_the_position_bonus_is_found(hierarchical):
    low, high = np.quantile(hierarchical.rater["position"][:, 0], [0.005, 0.995])
    assert 0 < low < 0.5 < high


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::pluralign.errors.ConvergenceWarning")  # one annotator's lapse may mix slowly
def test_intervals_of_team_means_cover_the_truth(simulation):
    """Nine in ten should; a pooled model, sure that everyone wants the same, misses most of them."""
    worlds = [simulation.simulate(100 + seed, annotators=20, judgements=30, features=3) for seed in range(3)]
    votes, phi = [world.votes for world in worlds], [world.phi for world in worlds]
    inference = reward.NUTS(draws=250, warmup=250)

    def covered(population, per_team):
        found = []
        for world, posterior in zip(worlds, fit_together(population, votes, phi, inference=inference), strict=True):
            truth, draws = team_means(world.weights, world.team), posterior.weights[:, :, 0]
            low, high = np.quantile(team_means(draws, world.team) if per_team else draws, [0.05, 0.95], axis=0)
            found.append((low < truth) & (truth < high))
        return np.array(found)

    # 18 intervals: 12 or fewer hits at nine in ten each happen once in 150 tries.
    assert covered(reward.Hierarchical(group="team"), True).sum() >= 13
    assert covered(reward.Pooled(response=reward.PLAIN), False).mean() <= 0.5


def test_an_annotator_without_judgements_is_a_voter_of_whom_the_population_is_known(world, simulation):
    c = world.votes.choices
    outcome = np.where(c.rank[:, 0] == c.rank[:, 1], 2, c.rank.argmin(1))
    ids, weight = world.votes.annotators["id"], np.arange(24) + 1.0
    votes = simulation.feedback(c.slate[:, 0], c.slate[:, 1], outcome, c.annotator, 40, ids, weight=weight)
    votes = votes.where(c.annotator != 5)
    posterior = reward.Hierarchical().fit(votes, world.phi, inference=reward.SVI(), seed=0)
    np.testing.assert_allclose(posterior.mass, weight / 300)
    sd = posterior.weights[:, :, 0].std(0).mean(-1)
    assert len(sd) == 24
    assert sd[5] > np.quantile(sd, 0.9)


def test_variational_means_are_near_those_of_the_sampler(hierarchical, world):
    """In units of the sampler's posterior sd; and predictions are nearly as good."""
    quick = reward.Hierarchical(group="team").fit(world.votes, world.phi, inference=reward.SVI(), seed=0)
    exact = hierarchical.weights[:, :, 0].astype(float)
    off = (quick.weights[:, :, 0].mean(0) - exact.mean(0)) / exact.std(0)
    assert np.sqrt((off**2).mean()) < 0.5
    np.testing.assert_allclose(
        reward.predict(quick, world.votes, world.phi), reward.predict(hierarchical, world.votes, world.phi), atol=0.12
    )
    a, b = (reward.score(p, world.votes, world.phi) for p in (quick, hierarchical))
    assert abs(a.log_loss - b.log_loss) < 0.02
