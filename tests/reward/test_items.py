"""What items are worth beyond their features, to everybody and to each: by hand, and found again."""

import dataclasses
from dataclasses import replace

import numpy as np
import pytest
from scipy.special import expit

from pluralign import reward
from pluralign.errors import InputError
from pluralign.types import FitReport, RewardPosterior

FIT = FitReport("by hand", 1, 1, 0, {}, {}, {}, 0.0)
PEOPLE, ITEMS, DRAWS = 40, 12, 3


def by_hand(seed=0, draws=DRAWS, people=2):
    rng = np.random.default_rng(seed)
    normal = lambda *shape: rng.normal(size=shape).astype(np.float32)  # noqa: E731
    population = reward.Hierarchical(items=reward.ItemEffects(factors=2), response=reward.PLAIN)
    return RewardPosterior(
        weights=normal(draws, people, 1, 2),
        mass=np.full(people, 1 / people),
        voters=tuple("ab"[:people]),
        membership=None,
        rater={},
        features=("f0", "f1"),
        fit=FIT,
        quality=normal(draws, ITEMS, 1),
        common={"item_factor": normal(draws, ITEMS, 1, 2), "unit": np.full(draws, 2.0)},
        own={"place": normal(draws, people, 2)},
        model=dataclasses.asdict(population),
    )


def utility(p, phi, s, v, item):
    """The formula of the class, one number at a time."""
    seen = sum(float(p.own["place"][s, v, k]) * float(p.common["item_factor"][s, item, 0, k]) for k in range(2))
    return float(phi.phi[item] @ p.weights[s, v, 0]) + float(p.quality[s, item, 0]) + seen


@pytest.fixture(scope="module")
def phi(simulation):
    return simulation.features(np.random.default_rng(0).normal(size=(ITEMS, 2)))


def test_predictions_are_those_of_the_formula(simulation, phi):
    p, first, second = by_hand(), np.array([0, 3, 5]), np.array([7, 2, 1])
    votes = simulation.feedback(first, second, np.zeros(3, int), np.array([0, 1, 1]), ITEMS, "ab")
    who = votes.choices.annotator
    expected = [
        np.mean([expit(utility(p, phi, s, v, i) - utility(p, phi, s, v, j)) for s in range(DRAWS)])
        for i, j, v in zip(first, second, who, strict=True)
    ]
    np.testing.assert_allclose(reward.predict(p, votes, phi)[:, 0], expected, rtol=1e-5)
    pairs = np.stack([first, second], 1)
    each = np.array(
        [
            [[expit(utility(p, phi, s, v, i) - utility(p, phi, s, v, j)) for v in range(2)] for s in range(DRAWS)]
            for i, j in pairs
        ]
    )
    found = reward.decompose(p, phi, pairs)
    np.testing.assert_allclose(found.disagreement, each.var(2).mean(1), rtol=1e-4)
    np.testing.assert_allclose(found.ignorance, each.mean(2).var(1), rtol=1e-4)
    u = np.array([[[utility(p, phi, s, v, i) for i in range(ITEMS)] for v in range(2)] for s in range(DRAWS)])
    u = u - u.mean(2, keepdims=True)
    between, within = u.mean(1).var(1), u.var(1).mean(1)
    np.testing.assert_allclose(reward.hidden_context(p, phi), between / (between + within), rtol=1e-4)


def test_newcomers_have_places_of_their_own(phi):
    p = by_hand(draws=2000, people=1)
    spread = np.ones((2000, 1, 2), np.float32)
    p = replace(p, common=p.common | {"centre": np.zeros_like(spread), "spread": spread})
    place = reward.newcomer(p, people=2).own["place"]
    assert place.shape == (4000, 1, 2)
    np.testing.assert_allclose(place[:, 0].mean(0), 0, atol=0.07)
    np.testing.assert_allclose(np.cov(place[:, 0].T), np.eye(2), atol=0.1)


def test_factors_are_named_alike_in_all_draws_and_mean_the_same():
    """Draws that differ by a rotation alone become one, and what places and factors say together stays."""
    rng = np.random.default_rng(3)
    factor, place = rng.normal(size=(ITEMS, 1, 2)), rng.normal(size=(PEOPLE, 2))
    angle = rng.uniform(0, 2 * np.pi, (2, 20))
    turn = np.moveaxis(np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]), (0, 1), (2, 3))
    sites = {
        "item_factor": np.einsum("cskj,ioj->csiok", turn, factor),
        "place": np.einsum("cskj,aj->csak", turn, place),
    }
    found = reward.ItemEffects(factors=2).canonical(sites)
    np.testing.assert_allclose(found["item_factor"].std((0, 1)), 0, atol=1e-5)
    both = [np.einsum("csak,csiok->csaio", s["place"], s["item_factor"]) for s in (sites, found)]
    np.testing.assert_allclose(*both, atol=1e-5)
    assert sites["item_factor"].std((0, 1)).max() > 0.5


def test_items_that_people_see_differently_are_found(simulation):
    """No feature tells the items apart; half the people like what the other half does not."""
    rng = np.random.default_rng(4)
    side, taste = np.where(np.arange(PEOPLE) % 2, 1.5, -1.5), rng.normal(size=ITEMS)
    who = np.repeat(np.arange(PEOPLE), 40)
    first = rng.integers(0, ITEMS, len(who))
    second = (first + rng.integers(1, ITEMS, len(who))) % ITEMS
    outcome = (rng.random(len(who)) > expit(side[who] * (taste[first] - taste[second]))).astype(int)
    votes = simulation.feedback(first, second, outcome, who, ITEMS, [f"a{a:02d}" for a in range(PEOPLE)])
    phi = simulation.features(rng.normal(size=(ITEMS, 1)))
    held = np.arange(len(who)) % 5 == 0
    svi = reward.SVI(steps=1500, learning_rate=0.05, draws=200)
    loss = {}
    for factors in (0, 1):
        items = reward.ItemEffects(factors=factors)
        population = reward.Hierarchical(items=items, response=reward.PLAIN)
        found = population.fit(votes.where(~held), phi, inference=svi, seed=0)
        loss[factors] = reward.score(found, votes.where(held), phi).log_loss
    assert np.abs(np.corrcoef(found.own["place"].mean(0)[:, 0], side)[0, 1]) > 0.9
    assert np.abs(np.corrcoef(found.common["item_factor"].mean(0)[:, 0, 0], taste)[0, 1]) > 0.9
    assert loss[1] < loss[0] - 0.1
    some = votes.where(who < 2)
    known = reward.adapt(found, replace(some, annotators=some.annotators.select(range(2))), phi, draws=50, steps=60)
    u = known.beyond(np.arange(ITEMS)).mean(0)
    assert all(np.corrcoef(u[a], side[a] * taste)[0, 1] > 0.8 for a in range(2))


def test_factors_need_annotators_who_are_voters():
    for make in (reward.Pooled, reward.Mixture):
        with pytest.raises(InputError, match="items have 1 factors"):
            make(items=reward.ItemEffects(factors=1))
    with pytest.raises(InputError, match="factors is -1"):
        reward.ItemEffects(factors=-1)
