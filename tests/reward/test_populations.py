"""Simulated communities of every kind: what was put in is found again."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from arviz_stats.base.array import array_stats
from scipy.optimize import minimize
from scipy.special import expit, logsumexp

from pluralign import reward
from pluralign.types import Choices, Grades, Scale

SVI = reward.SVI(steps=1200, learning_rate=0.05, draws=200)
LONGER = replace(SVI, steps=4000)
QUIET = replace(reward.PLAIN, slates=reward.PlackettLuce(), grades=reward.OrderedLogit(leniency=False, stretch=False))
unfinished = pytest.mark.filterwarnings("ignore::pluralign.errors.ConvergenceWarning")


def pairs(simulation, seed, weights, judgements, items=40, quality=None, temperature: Any = 1.0, position: Any = 0.0):
    """Bradley-Terry comparisons by annotators with these weights `[annotator feature]`."""
    rng = np.random.default_rng(seed)
    phi = rng.normal(size=(items, weights.shape[1]))
    annotator = np.repeat(np.arange(len(weights)), judgements)
    first = rng.integers(0, items, len(annotator))
    second = (first + rng.integers(1, items, len(annotator))) % items
    eta = ((phi[first] - phi[second]) * weights[annotator]).sum(1)
    if quality is not None:
        eta = eta + quality[first] - quality[second]
    temperature, position = (np.broadcast_to(value, len(weights))[annotator] for value in (temperature, position))
    outcome = (rng.random(len(eta)) > expit(eta / temperature + position)).astype(int)
    ids = [f"a{a:02d}" for a in range(len(weights))]
    return simulation.feedback(first, second, outcome, annotator, items, ids), simulation.features(phi)


KINDS, OF_KIND = np.array([[2.0, 0.0], [-1.0, 1.5]]), np.array([0] * 16 + [1] * 8)


@pytest.fixture(scope="module")
def two_kinds(simulation):
    return pairs(simulation, 0, KINDS[OF_KIND], 25)


def test_a_mixture_finds_two_kinds_who_is_of_them_and_that_no_third_is_needed(two_kinds):
    population = reward.Mixture(4, sticks=True, response=reward.PLAIN)
    found = population.fit(*two_kinds, inference=SVI, seed=0)
    assert found.membership is not None
    assert (found.membership.argmax(1) == OF_KIND).mean() > 0.95
    mass = found.common["mass"].mean(0)
    assert (np.diff(mass) <= 0).all()
    assert found.mass[:2].sum() > 0.9 and mass[2:].max() < 0.15
    assert found.mass[0] == pytest.approx(2 / 3, abs=0.1)
    kinds = found.weights[:, :2, 0].mean(0)
    for k in range(2):
        assert np.dot(kinds[k], KINDS[k]) / np.linalg.norm(kinds[k]) / np.linalg.norm(KINDS[k]) > 0.95


@pytest.mark.slow
@unfinished
def test_kinds_have_the_same_name_in_all_chains(two_kinds):
    """With a seed whose chains start in differently named modes, which the canonical names make one."""
    population = reward.Mixture(2, response=reward.PLAIN)
    raw = {}

    class Watched(reward.AbstractInference):
        def infer(self, model, seed, canonical=lambda sites: sites):
            def keep(sites):
                raw.setdefault("sites", sites)
                return canonical(sites)

            return reward.NUTS(draws=100, warmup=150, chains=4).infer(model, seed, keep)

    found = population.fit(*two_kinds, inference=Watched(), seed=1)
    rhat = lambda value: np.max(array_stats.rhat(value.reshape(4, 100, -1), chain_axis=0, draw_axis=1))  # noqa: E731
    assert rhat(raw["sites"]["kind_weights"]) > 1.5
    assert found.fit.rhat["kind_weights"] < 1.1
    assert found.fit.rhat["mass"] < 1.1


def test_low_rank_finds_the_direction_in_which_people_differ(simulation):
    rng = np.random.default_rng(2)
    direction = np.array([0.0, 1.5, -1.5, 0.0])
    place = rng.normal(size=30)
    votes, phi = pairs(simulation, 2, np.array([1.0, 0, 0, 0]) + place[:, None] * direction, 30)
    found = reward.LowRank(1, response=reward.PLAIN).fit(votes, phi, inference=SVI, seed=0)
    learnt = found.common["direction"].mean(0)[0, 0]
    assert abs(learnt @ direction) / np.linalg.norm(learnt) / np.linalg.norm(direction) > 0.97
    taste = found.weights[:, :, 0].mean(0) @ direction
    assert np.corrcoef(taste, place)[0, 1] > 0.9


def test_item_effects_hold_what_features_miss(simulation):
    """All comparisons are of the same few items, whose qualities no feature knows."""
    quality = np.random.default_rng(30).normal(size=12)
    votes, phi = pairs(simulation, 3, np.tile([1.0, 0.0], (10, 1)), 60, items=12, quality=quality)
    plain = reward.Pooled(response=reward.PLAIN)
    with_items = replace(plain, items=reward.ItemEffects()).fit(votes, phi, inference=SVI, seed=0)
    without = plain.fit(votes, phi, inference=SVI, seed=0)

    def off(p):
        """Root mean square error of the items' utilities, in logits."""
        u = p.weights[:, 0, 0].astype(float) @ phi.phi.T.astype(float)
        u = u + p.quality[:, :, 0] if p.quality is not None else u
        truth = phi.phi[:, 0] + quality
        return np.sqrt(np.mean(((u - u.mean(1, keepdims=True)).mean(0) - truth + truth.mean()) ** 2))

    assert off(with_items) < 0.35 < 0.6 < off(without)
    a, b = (reward.score(p, votes, phi).log_loss for p in (with_items, without))
    assert a < b - 0.02


def test_temperatures_and_favourite_sides_are_recovered_in_order(simulation):
    """Tastes are the same, so what differs is how consistent people are, and how they favour the first."""
    temperature = np.exp(np.linspace(-1, 1, 12))
    position = np.tile([-1.0, 1.0, 0.0], 4)
    same = np.tile([1.5, -1.0], (12, 1))
    votes, phi = pairs(simulation, 4, same, 80, temperature=temperature, position=position)
    rater = reward.Rater(lapse=False, temperature=True, position_spread=True)
    found = reward.Pooled(response=reward.Response(rater=rater)).fit(votes, phi, inference=SVI, seed=0).rater
    assert np.corrcoef(np.log(found["temperature"].mean(0)), np.log(temperature))[0, 1] > 0.8
    side = found["position"].mean(0)
    assert side[position < 0].max() < side[position == 0].mean() < side[position > 0].min()


@unfinished
def test_plackett_luce_worths_are_those_of_maximum_likelihood(simulation):
    """One-hot features and a weak prior; the likelihood by scipy, stage by stage."""
    rng = np.random.default_rng(5)
    worth = np.array([1.0, 0.3, 0.0, -0.5, -1.2])
    n = 400
    slate = np.array([rng.permutation(5)[:4] for _ in range(n)])
    order = np.argsort(-(worth[slate] + rng.gumbel(size=slate.shape)), 1)
    rank = np.argsort(order, 1)
    none = np.zeros(n, int)
    votes = simulation.feedback(none[:1], none[:1] + 1, none[:1], none[:1], 5, "a")
    votes = replace(votes, choices=Choices(slate, rank, none, none, none - 1))
    phi = simulation.features(np.eye(5))
    found = reward.Pooled(scale=3.0, response=QUIET).fit(votes, phi, inference=SVI, seed=0)
    best = np.take_along_axis(slate, order, 1)

    def loss(u):
        return -sum((u[best[:, k]] - logsumexp(u[best[:, k:]], axis=1)).sum() for k in range(4))

    exact = minimize(loss, np.zeros(5)).x
    utility = found.weights[:, 0, 0].astype(float).mean(0)
    np.testing.assert_allclose(utility - utility.mean(), exact - exact.mean(), atol=0.08)


@pytest.mark.slow
def test_comparisons_and_grades_together_tell_more_than_either(simulation):
    rng = np.random.default_rng(6)
    weight = np.array([1.0, -0.5])
    votes, phi = pairs(simulation, 6, np.tile(weight, (2, 1)), 60)
    n = 120
    item, who = rng.integers(0, 40, n), np.arange(n) % 2
    value = (rng.logistic(size=n) + phi.phi[item] @ weight > np.array([[-1.0], [0.5]])).sum(0)
    none = np.zeros(n, int)
    graded = Grades(item, value, none, who, none, none - 1)
    both = replace(votes, grades=graded, scales=(Scale("s", ("low", "middle", "high")),))
    spread = {}
    for name, v in (("both", both), ("pairs", votes), ("grades", replace(both, choices=Choices.none()))):
        draws = reward.Pooled(response=QUIET).fit(v, phi, inference=SVI, seed=0).weights[:, 0, 0].astype(float)
        spread[name] = draws.std(0)
        assert np.abs(draws.mean(0) - weight).max() < 4.5 * draws.std(0).max() + 0.1
    assert (spread["both"] < 0.9 * np.minimum(spread["pairs"], spread["grades"])).all()


@pytest.mark.slow
def test_an_objective_that_was_not_judged_is_predicted_from_one_that_was(simulation):
    """Tastes in two objectives agree; half the annotators judge only the first of them."""
    rng = np.random.default_rng(7)
    people, rho = 30, 0.9
    first = 1.5 * rng.normal(size=(people, 2))
    second = rho * first + 1.5 * np.sqrt(1 - rho**2) * rng.normal(size=(people, 2))
    a, phi = pairs(simulation, 7, first, 25)
    b = pairs(simulation, 7, second, 25)[0]
    c, d = a.choices, b.choices
    slate, rank, annotator = (
        np.concatenate([getattr(c, name), getattr(d, name)]) for name in ("slate", "rank", "annotator")
    )
    merged = Choices(slate, rank, annotator, np.repeat([0, 1], [len(c), len(d)]), np.full(len(slate), -1))
    votes = replace(a, objectives=("one", "two"), choices=merged)
    hidden = (merged.objective == 1) & (merged.annotator < people // 2)
    found = reward.Hierarchical(response=reward.PLAIN).fit(votes.where(~hidden), phi, inference=LONGER, seed=0)
    assert (found.common["correlation"][:, 0, 1] > 0).mean() > 0.95
    alone = reward.Hierarchical(response=reward.PLAIN).fit(
        replace(b, choices=b.choices.where(d.annotator >= people // 2)), phi, inference=LONGER, seed=0
    )
    unseen = slice(people // 2)
    both, one = found.weights[:, unseen, 1].mean(0), alone.weights[:, unseen, 0].mean(0)
    assert np.corrcoef(both.ravel(), second[unseen].ravel())[0, 1] > 0.7
    together = reward.log_predictive(found, votes.where(hidden), phi)["pairs"].mean()
    apart = reward.log_predictive(alone, b.where(d.annotator < people // 2), phi)["pairs"].mean()
    assert together > apart + 0.03
    assert one.std(0).max() < both.std(0).max()  # of people who said nothing the model alone thinks alike
