from collections import Counter
from dataclasses import replace
from functools import partial

import jax
import numpy as np
import pytest

from pluralign import reward
from pluralign.errors import ConvergenceWarning, InputError
from pluralign.reward.inference import _Density
from pluralign.reward.judgements import Judgements, Layout, outcomes
from pluralign.types import FORMS, Choices, Grades, Scale


def changed(votes, **fields):
    return replace(votes, choices=replace(votes.choices, **fields))


def test_what_won_is_read_from_ranks(world):
    votes = world.votes.where(np.arange(len(world.votes.choices)) < 5)
    rank = np.array([[0, 1], [1, 0], [0, 0], [0, -1], [-1, 0]])
    np.testing.assert_array_equal(outcomes(changed(votes, rank=rank)), [0, 1, 2, 0, 1])


def test_the_padded_layout_holds_every_judgement_once(simulation):
    """Against a plain loop over choices, with counts so skewed that there are several buckets and an idle annotator."""
    rng = np.random.default_rng(0)
    annotator = rng.permutation(np.repeat([0, 1, 2, 4, 5], [1, 40, 7, 13, 3]))
    n = len(annotator)
    first = rng.integers(0, 9, n)
    phi = simulation.features(rng.normal(size=(9, 3)))
    votes = simulation.feedback(first, (first + 1) % 9, rng.integers(0, 3, n), annotator, 9, "abcdef")
    judgements = Judgements.read(votes, phi)
    layout = Layout.of(judgements, np.zeros(6, np.int32))
    acts = layout.acts["pairs"]
    assert len(acts.buckets) > 2
    weights = rng.normal(size=(6, 3)).astype(np.float32)
    eta, who = np.asarray(acts.utility(weights[:, None])), np.asarray(acts.each(np.arange(6)))
    found = Counter(
        (int(a), int(y), round(float(e), 3))
        for a, y, e, counts in zip(who, acts.said, eta, acts.counts, strict=True)
        if counts
    )
    by_hand = Counter()
    for f, y, a in zip(first, outcomes(votes), annotator, strict=True):
        x = (phi.phi[f] - phi.phi[(f + 1) % 9]) / judgements.unit
        by_hand[int(a), int(y), round(float(x @ weights[a]), 3)] += 1
    assert sum((found - by_hand).values()) <= 1  # a difference rounds the other way now and then
    np.testing.assert_array_equal(layout.judged, [1, 40, 7, 0, 13, 3])


YES = Scale("good", ("no", "yes"), "label")


def test_feedback_that_says_nothing_is_refused(world):
    one = [0]
    alone = Choices([[0, -1]], [[0, -1]], one, one, [-1])
    for feedback in (world.votes.where(np.zeros(len(world.votes.choices), bool)), replace(world.votes, choices=alone)):
        with pytest.raises(InputError, match="no comparison, ranking or grade"):
            reward.Pooled().fit(feedback, world.phi)


def test_outcomes_are_those_of_comparisons_of_two(world):
    one = [0]
    three = Choices([[0, 1, 2]], [[0, 1, 2]], one, one, [-1])
    graded = replace(world.votes, grades=Grades(one, one, one, one, one, one), scales=(YES,))
    for feedback in (replace(world.votes, choices=three), graded):
        with pytest.raises(InputError, match="1 judgements are not comparisons of two"):
            outcomes(feedback)


def test_features_of_other_items_are_refused(world, simulation):
    with pytest.raises(InputError, match="phi has 3 rows and the feedback 40 items"):
        reward.Pooled().fit(world.votes, simulation.features(np.eye(3)))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: reward.Pooled(scale=0.0), "scale is 0.0"),
        (lambda: reward.Hierarchical(scale=-1.0), "scale is -1.0"),
        (lambda: reward.NUTS(chains=1), "chains is 1; it must be at least 2"),
        (lambda: reward.NUTS(target_accept=1.0), "target_accept is 1.0"),
        (lambda: reward.SVI(learning_rate=0.0), "learning_rate is 0.0"),
        (lambda: reward.SVI(rank=0), "rank is 0"),
        (lambda: reward.SVI(rank=2, joint=True), "rank is 2 and joint"),
    ],
)
def test_hyperparameters_out_of_range_are_named(make, message):
    with pytest.raises(InputError, match=message):
        make()


def test_strength_is_not_used_and_that_is_said(world):
    votes = changed(world.votes, strength=np.arange(len(world.votes.choices)) % 3)
    inference = reward.SVI(steps=20, draws=5)
    plain, strong = (reward.Pooled().fit(v, world.phi, inference=inference, seed=0) for v in (world.votes, votes))
    np.testing.assert_array_equal(plain.weights, strong.weights)
    stated = len(world.votes.choices) * 2 // 3
    assert any(f"{stated:,} judgements say how strongly" in note for note in strong.fit.notes)
    assert not any("how strongly" in note for note in plain.fit.notes)


def test_a_correction_has_no_first_slot(world):
    """Its density does not feel the position bonus, that of a comparison does; nor does its prediction."""
    votes = world.votes.where(np.arange(len(world.votes.choices)) < 40)
    corrections = changed(votes, form=np.full(40, FORMS.index("correction")))
    population, energy = reward.Pooled(response=reward.Response(rater=reward.Rater(lapse=False))), {}
    for name, v in (("comparison", votes), ("correction", corrections)):
        density = _Density(partial(population.model, population.layout(v, Judgements.read(v, world.phi))))
        z = jax.device_get(density.start(jax.random.key(0), 1.0))
        prior = lambda p: p**2 / (2 * 0.5**2)  # noqa: E731
        energy[name] = [float(density.potential(z | {"position_centre": np.float32(p)})) - prior(p) for p in (0.0, 1.0)]
    assert energy["correction"][0] == pytest.approx(energy["correction"][1], rel=1e-5)
    assert abs(energy["comparison"][0] - energy["comparison"][1]) > 0.1
    with pytest.warns(ConvergenceWarning):
        posterior = population.fit(votes, world.phi, inference=reward.NUTS(draws=10, warmup=5), seed=0)
    moved = replace(posterior, rater=posterior.rater | {"position": posterior.rater["position"] + 1})
    for v, same in ((corrections, True), (votes, False)):
        before, after = (reward.predict(p, v, world.phi) for p in (posterior, moved))
        assert np.allclose(before, after) == same
