"""Comparisons that say how strongly, and votes that may pass: probabilities by hand, and what was put in is found."""

import dataclasses
from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import logistic

from pluralign import reward
from pluralign.types import Choices, FitReport, Grades, RewardPosterior, Scale

SVI = reward.SVI(steps=1500, learning_rate=0.05, draws=1000)
FIT = FitReport("by hand", 1, 1, 0, {}, {}, {}, 0.0)
PEOPLE, ITEMS = 20, 30


@pytest.fixture(scope="module")
def phi(simulation):
    return simulation.features(np.random.default_rng(0).normal(size=(ITEMS, 2)))


def asked(simulation, level, pairs, annotator, people):
    """Comparisons with a level from -3 (the second is much better) to 3; 0 is a tie."""
    outcome = np.select([level > 0, level < 0], [0, 1], 2)
    votes = simulation.feedback(*pairs, outcome, annotator, ITEMS, [f"a{a:02d}" for a in range(people)])
    c = votes.choices
    choices = Choices(c.slate, c.rank, c.annotator, c.objective, c.context, strength=np.abs(level))
    return replace(votes, choices=choices)


def by_hand(response, people=1, **numbers) -> RewardPosterior:
    rater = {name: np.full((1, people), value) for name, value in numbers.items() if np.ndim(value) == 0}
    return RewardPosterior(
        weights=np.array([[[[0.8, -0.3]]]] * people).reshape(1, people, 1, 2),
        mass=np.full(people, 1 / people),
        voters=tuple(f"a{a:02d}" for a in range(people)),
        membership=None,
        rater=rater,
        features=("f0", "f1"),
        fit=FIT,
        common={name: np.asarray(value)[None] for name, value in numbers.items() if np.ndim(value)},
        model=dataclasses.asdict(reward.Hierarchical(response=response)),
    )


@pytest.mark.parametrize("lapse", [0.0, 0.3])
def test_strengths_have_the_probabilities_of_a_latent_logistic_difference(simulation, phi, lapse):
    """Levels are where a logistic variable about the difference falls; a win of no stated strength is their sum."""
    level = np.arange(-3, 4)
    none = np.zeros(7, int)
    votes = asked(simulation, level, (none, none + 1), none, 1)
    numbers = {"threshold": 0.4, "emphasis": 0.5, "strength_step": np.array([0.7, 1.1])}
    p = by_hand(reward.Response(reward.GradedComparison()), lapse=max(lapse, 1e-12), **numbers)
    cut = 0.4 + np.exp(0.5) * np.array([0, 0.7, 1.8])
    eta = (phi.phi[0] - phi.phi[1]) @ [0.8, -0.3]
    expected = np.diff(logistic.cdf(np.concatenate([[-np.inf], -cut[::-1], cut, [np.inf]]), loc=eta))
    expected = (1 - lapse) * expected + lapse / 7
    found = np.exp(reward.log_predictive(p, votes, phi)["pairs"])
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    plain = reward.predict(p, votes, phi)[0]
    np.testing.assert_allclose(plain, [expected[4:].sum(), expected[:3].sum(), expected[3]], rtol=1e-5)


def test_strengths_sharpen_tastes_and_tell_who_exaggerates(simulation, phi):
    rng = np.random.default_rng(1)
    weights, n = np.array([1.0, -0.7]), PEOPLE * 40
    who = np.repeat(np.arange(PEOPLE), 40)
    first = rng.integers(0, ITEMS, n)
    second = (first + rng.integers(1, ITEMS, n)) % ITEMS
    emphasis = np.linspace(-0.8, 0.8, PEOPLE)
    cut = np.array([0.3, 0.3, 0.3]) + np.exp(emphasis[who])[:, None] * [0, 0.8, 2.0]
    perceived = (phi.phi[first] - phi.phi[second]) @ weights + rng.logistic(size=n)
    level = np.sign(perceived).astype(int) * (np.abs(perceived)[:, None] > cut).sum(1)
    votes = asked(simulation, level, (first, second), who, PEOPLE)
    rater = reward.Rater(lapse=False, position=False)
    graded = reward.GradedComparison(tie_spread=False)
    found = reward.Pooled(response=reward.Response(graded, rater=rater)).fit(votes, phi, inference=SVI, seed=0)
    coarse = reward.RaoKupper(tie_spread=False)
    less = reward.Pooled(response=reward.Response(coarse, rater=rater)).fit(votes, phi, inference=SVI, seed=0)
    for p in (found, less):
        w = p.weights[:, 0, 0].astype(float)
        assert (np.abs(w.mean(0) - weights) < 5 * w.std(0)).all()
    assert np.linalg.norm(found.weights.std(0)) < 0.93 * np.linalg.norm(less.weights.std(0))
    assert np.corrcoef(found.rater["emphasis"].mean(0), emphasis)[0, 1] > 0.9
    np.testing.assert_allclose(found.common["strength_step"].mean(0), [0.8, 1.2], rtol=0.15)
    assert any("say how strongly" in note for note in less.fit.notes)
    assert not any("say how strongly" in note for note in found.fit.notes)


def voted(simulation, value, item, who, people):
    none = np.zeros(len(value), int)
    votes = simulation.feedback(none[:1], none[:1] + 1, none[:1], none[:1], ITEMS, [f"a{a:02d}" for a in range(people)])
    grades = Grades(item, value, none, who, none, none - 1)
    scale = Scale("votes", ("disagree", "pass", "agree"), "vote")
    return replace(votes, choices=Choices.none(), grades=grades, scales=(scale,))


def test_votes_have_the_probabilities_of_a_softmax(simulation, phi):
    none = np.zeros(3, int)
    votes = voted(simulation, np.arange(3), none, none, 1)
    p = by_hand(reward.Response(), agreeing=0.6, passing=-0.2, lapse=0.1)
    eta = phi.phi[0] @ [0.8, -0.3] + 0.6
    odds = np.exp([-eta / 2, -0.2, eta / 2])
    found = np.exp(reward.log_predictive(p, votes, phi)["votes"])
    np.testing.assert_allclose(found, 0.9 * odds / odds.sum() + 0.1 / 3, rtol=1e-5)


def test_votes_tell_tastes_thresholds_and_who_passes(simulation, phi):
    rng = np.random.default_rng(2)
    n, weights = PEOPLE * 60, np.array([1.2, 0.5])
    who, item = np.repeat(np.arange(PEOPLE), 60), rng.integers(0, ITEMS, PEOPLE * 60)
    agreeing, passing = rng.normal(0, 1, PEOPLE), rng.normal(-0.5, 1, PEOPLE)
    eta = phi.phi[item] @ weights + agreeing[who]
    odds = np.exp(np.stack([-eta / 2, passing[who], eta / 2], 1))
    value = (rng.random((n, 1)) > (odds / odds.sum(1, keepdims=True)).cumsum(1)).sum(1)
    votes = voted(simulation, value, item, who, PEOPLE)
    response = reward.Response(rater=reward.Rater(lapse=False))
    found = reward.Pooled(response=response).fit(votes, phi, inference=SVI, seed=0)
    w = found.weights[:, 0, 0].astype(float)
    assert (np.abs(w.mean(0) - weights) < 5 * w.std(0)).all()
    assert np.corrcoef(found.rater["agreeing"].mean(0), agreeing)[0, 1] > 0.9
    assert np.corrcoef(found.rater["passing"].mean(0), passing)[0, 1] > 0.85
