"""Predictions and scores of a posterior written down by hand: nothing is fitted here."""

from dataclasses import replace

import numpy as np
import pytest

from pluralign import reward
from pluralign.errors import InputError
from pluralign.types import FitReport, RewardPosterior

rng = np.random.default_rng(0)
DRAWS, ANNOTATORS, FEATURES = 7, 24, 3
FIT = FitReport("by hand", 1, DRAWS, 0, {}, {}, {}, 0.0)


def posterior(world, *, membership=None, voters=ANNOTATORS, rater=("lapse", "tie", "position")) -> RewardPosterior:
    make = {"lapse": rng.beta(1, 9, (DRAWS, ANNOTATORS)), "tie": rng.normal(size=(DRAWS, ANNOTATORS))}
    make["position"] = np.repeat(rng.normal(size=(DRAWS, 1)), ANNOTATORS, 1)
    return RewardPosterior(
        weights=rng.normal(size=(DRAWS, voters, 1, FEATURES)),
        mass=np.full(voters, 1 / voters),
        voters=tuple(f"v{v}" for v in range(voters)),
        membership=membership,
        rater={name: make[name].astype(np.float32) for name in rater},
        features=world.phi.names,
        fit=FIT,
    )


def by_loop(p: RewardPosterior, votes, phi) -> np.ndarray:
    """The definition, one number at a time."""
    membership = np.eye(ANNOTATORS) if p.membership is None else p.membership
    out = np.zeros((len(votes.choices), 3))
    for i, ((first, second), a) in enumerate(zip(votes.choices.slate, votes.choices.annotator, strict=True)):
        for s in range(DRAWS):
            for v, share in enumerate(membership[a]):
                eta = float((phi.phi[first] - phi.phi[second]).astype(float) @ p.weights[s, v, 0].astype(float))
                eta += float(p.rater["position"][s, a]) if "position" in p.rater else 0.0
                odds = [np.exp(eta / 2), np.exp(-eta / 2)]
                if "tie" in p.rater:
                    odds.append(np.exp(float(p.rater["tie"][s, a])))
                lapse = float(p.rater["lapse"][s, a]) if "lapse" in p.rater else 0.0
                for k, o in enumerate(odds):
                    out[i, k] += share / DRAWS * ((1 - lapse) * o / sum(odds) + lapse / len(odds))
    return out


@pytest.fixture
def few(world):
    return world.votes.where(rng.random(len(world.votes.choices)) < 0.1)


@pytest.mark.parametrize("rater", [("lapse", "tie", "position"), ("lapse",), ("tie",), ()])
def test_predictions_are_the_mean_over_draws(world, few, rater):
    p = posterior(world, rater=rater)
    np.testing.assert_allclose(reward.predict(p, few, world.phi), by_loop(p, few, world.phi), rtol=1e-6)


def test_predictions_mix_over_voters(world, few):
    p = posterior(world, membership=rng.dirichlet(np.ones(4), ANNOTATORS), voters=4)
    np.testing.assert_allclose(reward.predict(p, few, world.phi), by_loop(p, few, world.phi), rtol=1e-6)


def test_predictions_in_blocks_are_the_same(world, monkeypatch):
    p = posterior(world)
    whole = reward.predict(p, world.votes, world.phi)
    monkeypatch.setattr("pluralign.reward.pointwise.BLOCK", 2000)
    np.testing.assert_allclose(reward.predict(p, world.votes, world.phi), whole, rtol=1e-12)


def test_predictions_do_not_look_at_outcomes(world, few):
    p = posterior(world)
    flipped = replace(few, choices=replace(few.choices, rank=few.choices.rank[:, ::-1]))
    np.testing.assert_array_equal(reward.predict(p, few, world.phi), reward.predict(p, flipped, world.phi))


def test_a_posterior_comes_back_from_disk_and_predicts_the_same(world, few, tmp_path):
    p = posterior(world)
    back = RewardPosterior.load(p.save(tmp_path / "posterior"))
    assert (back.voters, back.features, back.fit) == (p.voters, p.features, p.fit)
    np.testing.assert_array_equal(back.weights, p.weights)
    assert set(back.rater) == set(p.rater)
    np.testing.assert_array_equal(reward.predict(back, few, world.phi), reward.predict(p, few, world.phi))


def test_log_loss_and_accuracy(world, few):
    p = rng.dirichlet(np.ones(3), len(few.choices))
    score = reward.score(p, few, world.phi, "dice")
    rank, loss, hits = few.choices.rank, [], []
    for (a, b), q in zip(rank, p, strict=True):
        outcome = 2 if a == b else (0 if a < b else 1)
        loss.append(-np.log(q[outcome]))
        hits.append(outcome == int(np.argmax(q)))
    assert score.model == "dice"
    assert score.judgements == len(few.choices)
    assert score.log_loss == pytest.approx(np.mean(loss))
    assert score.accuracy == pytest.approx(np.mean(hits))


def test_the_standard_error_is_that_of_resampled_annotators(world):
    """Annotators differ in how well they are predicted, so resampling them differs much from resampling rows."""
    votes = world.votes
    annotator, n = votes.choices.annotator, len(votes.choices)
    sure = rng.uniform(0.05, 0.95, ANNOTATORS)[annotator]
    p = np.stack([sure, (1 - sure) / 2, (1 - sure) / 2], 1)
    score = reward.score(p, votes, world.phi)
    rank = votes.choices.rank
    outcome = np.where(rank[:, 0] == rank[:, 1], 2, (rank[:, 0] > rank[:, 1]).astype(int))
    loss = -np.log(p[np.arange(n), outcome])
    groups = [loss[annotator == a] for a in range(ANNOTATORS)]
    means = [np.concatenate([groups[a] for a in rng.integers(0, ANNOTATORS, ANNOTATORS)]).mean() for _ in range(4000)]
    assert score.stderr == pytest.approx(np.std(means), rel=0.08)
    rows = loss.std() / np.sqrt(n)
    assert score.stderr > 1.25 * rows  # what it would be if judgements were independent


def test_the_constant_is_the_frequency_of_outcomes_in_training(world):
    half = np.arange(len(world.votes.choices)) % 2 == 0
    train, test = world.votes.where(half), world.votes.where(~half)
    rank = train.choices.rank
    share = [np.mean(rank[:, 0] < rank[:, 1]), np.mean(rank[:, 0] > rank[:, 1]), np.mean(rank[:, 0] == rank[:, 1])]
    by_hand = reward.score(np.tile(share, (len(test.choices), 1)), test, world.phi, "constant")
    assert reward.constant(train, test) == by_hand


def test_an_outcome_that_was_impossible_is_an_error_not_an_infinite_loss(world, few):
    with pytest.raises(InputError, match=r"gives probability 0.0 .* a tie"):
        reward.score(posterior(world, rater=("lapse",)), few, world.phi)


def test_predictions_for_other_people_or_features_are_refused(world, few, simulation):
    p = posterior(world)
    with pytest.raises(InputError, match="24 annotators, the posterior was fitted to 3"):
        reward.predict(posterior(world, membership=np.ones((3, 1)), voters=1), few, world.phi)
    with pytest.raises(InputError, match="was fitted to"):
        reward.predict(p, few, simulation.features(np.zeros((40, 2))))
