"""The sampler against posteriors that can be had otherwise: numerical quadrature, maximum likelihood, invariances."""

from dataclasses import replace
from functools import partial

import jax
import numpy as np
import pytest
from scipy.integrate import simpson
from scipy.special import log_expit
from scipy.stats import lognorm, norm

from pluralign import reward
from pluralign.reward.inference import _Density
from pluralign.reward.judgements import Judgements


def prior_of_weight(w, scale):
    """The density of `w ~ Normal(0, spread)`, `spread ~ LogNormal(log scale, 0.8)`, by quadrature over `log spread`."""
    log_spread = np.linspace(np.log(scale) - 6, np.log(scale) + 6, 2001)
    spread = np.exp(log_spread)
    density = lognorm.pdf(spread, 0.8, scale=scale) * spread
    return simpson(norm.pdf(w[:, None], scale=spread) * density, x=log_spread)


def differences(votes, phi):
    """Features of the first less those of the second, and who won."""
    c, x = votes.choices, phi.phi.astype(float)
    return x[c.slate[:, 0]] - x[c.slate[:, 1]], np.where(c.rank[:, 0] == c.rank[:, 1], 2, c.rank.argmin(1))


def moments(density, *axes):
    """Mean and sd of each coordinate under an unnormalised density on a grid."""
    p = density / density.sum()
    mesh = np.meshgrid(*axes, indexing="ij")
    mean = [(p * m).sum() for m in mesh]
    return np.array(mean), np.array([np.sqrt((p * (m - mu) ** 2).sum()) for m, mu in zip(mesh, mean, strict=True)])


def assert_same_moments(draws, ess, mean, sd):
    """Within four Monte-Carlo standard errors (of an sd: sd / sqrt(2 ess))."""
    assert abs(draws.mean() - mean) < 4 * sd / np.sqrt(ess)
    assert abs(draws.std() - sd) < 4 * sd / np.sqrt(2 * ess) + 0.01 * sd


@pytest.mark.slow
def test_pooled_davidson_agrees_with_quadrature(simulation):
    """One feature and a tie propensity: a posterior on a plane."""
    world = simulation.simulate(3, annotators=4, judgements=10, features=1, teams=1, careless=0)
    posterior = reward.Pooled(response=reward.PLAIN).fit(
        world.votes, world.phi, inference=reward.NUTS(draws=1500), seed=1
    )
    x, outcome = differences(world.votes, world.phi)
    unit, x = np.sqrt((x**2).mean()), x[:, 0] / np.sqrt((x**2).mean())
    w, tie = np.linspace(-2, 6, 401), np.linspace(-4, 3, 301)
    eta = w[:, None, None] * x / 2
    weight = np.select([outcome == 0, outcome == 1], [eta, -eta], tie[None, :, None])
    log_p = (weight - np.log(np.exp(eta) + np.exp(-eta) + np.exp(tie[None, :, None]))).sum(-1)
    prior = prior_of_weight(w, 1.0)[:, None] * norm.pdf(tie, scale=1.5)
    mean, sd = moments(prior * np.exp(log_p - log_p.max()), w, tie)
    ess = min(posterior.fit.ess_bulk.values())
    assert ess > 400
    assert_same_moments(posterior.weights[:, 0, 0, 0] * unit, ess, mean[0], sd[0])
    assert_same_moments(posterior.rater["tie"][:, 0], ess, mean[1], sd[1])
    flat = moments(np.exp(log_p - log_p.max()), w, tie)[0]
    assert abs(flat[0] - mean[0]) > 4 * sd[0] / np.sqrt(ess)  # the comparison is fine enough to see the prior


@pytest.mark.slow
def test_pooled_bradley_terry_agrees_with_quadrature_in_two_dimensions(simulation):
    world = simulation.simulate(4, annotators=3, judgements=12, features=2, teams=1, careless=0)
    won = world.votes.where((world.votes.choices.rank == 0).sum(1) == 1)
    posterior = reward.Pooled(response=reward.PLAIN).fit(won, world.phi, inference=reward.NUTS(draws=1500), seed=1)
    assert any("no tie" in note for note in posterior.fit.notes)
    assert "tie" not in posterior.rater
    assert (reward.predict(posterior, won, world.phi)[:, 2] == 0).all()
    x, outcome = differences(won, world.phi)
    unit = np.sqrt((x**2).sum(1).mean())
    signed = x / unit * np.where(outcome == 0, 1, -1)[:, None]
    grid = np.linspace(-12, 12, 301)
    a, b = np.meshgrid(grid, grid, indexing="ij")
    log_p = log_expit(a[..., None] * signed[:, 0] + b[..., None] * signed[:, 1]).sum(-1)
    # Both weights share one spread, so the prior is a function of the radius.
    log_spread = np.linspace(-6, 6, 601)
    spread = np.exp(log_spread)
    density = lognorm.pdf(spread, 0.8) * spread
    radius = np.linspace(0, 17, 2001)
    prior = simpson(norm.pdf(radius[:, None], scale=spread) * norm.pdf(0, scale=spread) * density, x=log_spread)
    mean, sd = moments(np.interp(np.hypot(a, b), radius, prior) * np.exp(log_p - log_p.max()), grid, grid)
    ess = min(posterior.fit.ess_bulk.values())
    assert ess > 400
    for f in range(2):
        assert_same_moments(posterior.weights[:, 0, 0, f] * unit, ess, mean[f], sd[f])


@pytest.mark.slow
def test_much_data_and_a_weak_prior_reach_the_published_maximum_likelihood(simulation):
    """Maura-Rivero et al. (2025): 2 x (R > G > B) + 3 x (B > R > G); Bradley-Terry has R on top, the majority has B."""
    rankings = 2 * [(0, 1, 2)] + 3 * [(2, 0, 1)]
    pairs = np.array([(r[i], r[j]) for r in rankings for i in range(3) for j in range(i + 1, 3)] * 200)
    votes = simulation.feedback(pairs[:, 0], pairs[:, 1], np.zeros(len(pairs), int), np.zeros(len(pairs), int), 3, "a")
    population = reward.Pooled(scale=5.0, response=reward.PLAIN)
    phi = simulation.features([[1, 0], [0, 0], [0, 1]])  # an indicator per item, but for the second, which is the zero
    posterior = population.fit(votes, phi, inference=reward.NUTS(draws=500), seed=0)
    utility = phi.phi @ posterior.weights[:, 0, 0].mean(0)
    np.testing.assert_allclose(utility - utility.mean(), [0.616977, -0.928850, 0.311873], atol=0.03)


def density(population, votes, phi):
    layout = population.layout(votes, Judgements.read(votes, phi))
    return _Density(partial(population.model, layout))


def rearranged(z, order):
    """Move each annotator's own coordinates."""
    own = ("weights_z", "tie_z", "lapse_z")
    return {name: value[order] if name in own else value for name, value in z.items()}


def test_annotators_have_no_order(world, simulation):
    """The density is the same, up to rounding, if annotators and their coordinates are rearranged together."""
    population = reward.Hierarchical(group="team")
    order = np.random.default_rng(0).permutation(len(world.team))
    place = np.argsort(order)
    choices = replace(world.votes.choices, annotator=place[world.votes.choices.annotator])
    renamed = replace(world.votes, choices=choices, annotators=world.votes.annotators.select(order))
    before, after = density(population, world.votes, world.phi), density(population, renamed, world.phi)
    for seed in range(3):
        z = jax.device_get(before.start(jax.random.key(seed), 1.0))
        same, other = float(after.potential(rearranged(z, order))), float(after.potential(z))
        assert same == pytest.approx(float(before.potential(z)), rel=2e-5)
        assert other != pytest.approx(same, rel=1e-3)


@pytest.mark.parametrize("position", [False, True])
def test_slots_matter_only_through_the_position_bonus(world, position):
    population = reward.Hierarchical(response=reward.Response(rater=reward.Rater(position=position)))
    choices = world.votes.choices
    swapped = replace(world.votes, choices=replace(choices, slate=choices.slate[:, ::-1], rank=choices.rank[:, ::-1]))
    before, after = density(population, world.votes, world.phi), density(population, swapped, world.phi)
    z = jax.device_get(before.start(jax.random.key(0), 1.0))
    same = float(after.potential(z)) == pytest.approx(float(before.potential(z)), rel=2e-6)
    assert same is not position
    if position:
        turned = z | {"position_centre": -z["position_centre"]}
        assert float(after.potential(turned)) == pytest.approx(float(before.potential(z)), rel=2e-6)


def test_coordinates_do_not_change_the_model():
    """`scattered` is Normal(centre, spread) whatever `information` is: moments of its own draws from the prior."""
    import numpyro

    from pluralign.reward.scatter import scattered

    for information in (0.0, 0.3, 50.0):
        with numpyro.handlers.seed(rng_seed=0), numpyro.plate("annotator", 20000):
            value = np.asarray(scattered("w", 2.0, 0.7, information))
        assert value.mean() == pytest.approx(2.0, abs=4 * 0.7 / np.sqrt(20000))
        assert value.std() == pytest.approx(0.7, rel=0.03)


def test_units_of_features_do_not_matter(world, simulation):
    """Features a thousand times as large have the same density, and weights that are a thousand times as small."""
    population = reward.Pooled()
    before = density(population, world.votes, world.phi)
    after = density(population, world.votes, simulation.features(world.phi.phi * 1024))
    z = jax.device_get(before.start(jax.random.key(0), 1.0))
    assert float(after.potential(z)) == pytest.approx(float(before.potential(z)), rel=1e-6)
    small, large = (Judgements.read(world.votes, simulation.features(world.phi.phi * s)).unit for s in (1, 1024))
    assert large == pytest.approx(1024 * small)
