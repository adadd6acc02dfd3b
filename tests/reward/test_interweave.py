"""Gibbs sampling where judgements are few: quadrature, the prior, and how well it mixes."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.integrate import simpson
from scipy.special import log_expit
from scipy.stats import norm

from pluralign import reward
from pluralign.reward import chain, gibbs
from pluralign.reward.interweave import Regression
from pluralign.reward.judgements import Judgements
from pluralign.reward.population import Target
from pluralign.reward.surrogate import read


def target(population, votes, phi):
    return Target(population, population.layout(votes, Judgements.read(votes, phi)))


@pytest.fixture(scope="module")
def few(simulation):
    """Sixty annotators with about four judgements each, one feature."""
    world = simulation.simulate(5, annotators=60, judgements=5, features=1, teams=1, careless=0)
    return replace(world, votes=world.votes.where((world.votes.choices.rank == 0).sum(1) == 1))


@pytest.fixture(scope="module")
def exact(few):
    """Posterior mean and sd of centre and log spread, weights integrated out one by one."""
    c, x = few.votes.choices, few.phi.phi[:, 0].astype(float)
    x = x[c.slate[:, 0]] - x[c.slate[:, 1]]
    x = x / np.sqrt((x**2).mean()) * np.where(c.rank[:, 0] == 0, 1, -1)
    log_spread, centre = np.linspace(-4.5, 2.5, 71), np.linspace(-2, 6, 81)
    z, mass = np.polynomial.hermite_e.hermegauss(40)
    log_scale = np.linspace(-5, 5, 401)
    scale = np.exp(log_scale)
    prior = simpson(norm.pdf(centre[:, None], scale=scale) * norm.pdf(log_scale, scale=0.8), x=log_scale)
    weight = centre[:, None, None] + np.exp(log_spread)[:, None] * z
    log_joint = np.log(prior)[:, None] + norm.logpdf(log_spread, np.log(0.5), 0.8)
    grid = np.sinh(np.linspace(-6, 6, 4001))
    for a in range(60):
        told = log_expit(grid[:, None] * x[c.annotator == a]).sum(1)
        log_joint = log_joint + np.log((np.exp(np.interp(weight, grid, told)) * mass / mass.sum()).sum(-1))
    joint = np.exp(log_joint - log_joint.max())
    joint /= joint.sum()
    moments = {}
    for name, value in (("centre", centre[:, None]), ("spread", log_spread)):
        mean = (joint * value).sum()
        moments[name] = mean, np.sqrt((joint * (value - mean) ** 2).sum())
    return moments


def test_few_judgements_agree_with_quadrature_and_the_chain_mixes(few, exact, monkeypatch):
    model = target(reward.Hierarchical(response=reward.PLAIN), few.votes, few.phi)
    sites, report = gibbs.Gibbs(draws=2000, warmup=200).infer(model, 0)
    assert report.converged, report.caveats
    assert "both together" in report.notes[0]
    for name, (mean, sd) in exact.items():
        draws, ess = sites[name].ravel().astype(float), report.ess_bulk[name]
        draws = np.log(draws) if name == "spread" else draws
        assert abs(draws.mean() - mean) < 4 * sd / np.sqrt(ess), name
        assert abs(draws.std() / sd - 1) < 4 * np.sqrt(1.5 / ess), name
    monkeypatch.setattr(chain, "SCARCE", -1.0)
    without = gibbs.Gibbs(draws=2000, warmup=200).infer(model, 0)[1]
    assert "both together" not in without.notes[0]
    assert report.ess_bulk["spread"] > 1.5 * without.ess_bulk["spread"]


@pytest.mark.slow
def test_without_judgements_groups_and_scales_have_their_prior(simulation):
    world = simulation.simulate(1, annotators=4, judgements=4, features=2, teams=2, careless=0, tie=-20.0)
    population = reward.Hierarchical(group="team", response=reward.PLAIN)
    with jax.enable_x64(False):
        problem = read(target(population, world.votes, world.phi), "this")
        silent = replace(problem, judged=problem.judged._replace(counts=jnp.zeros_like(problem.judged.counts)))
        frozen = chain.Frozen.of(silent, *gibbs.ascend(silent, 50, 0.1)[:2])
        assert frozen.scarce
        start = gibbs.enter(silent, frozen, jax.random.key(0, impl="rbg"))
        at = gibbs.advance(silent, frozen, start, 6, 2500)[1][0]
    assert abs(np.asarray(at.log_spread) - np.log(0.5)).mean() == pytest.approx(0.8 * np.sqrt(2 / np.pi), rel=0.08)
    np.testing.assert_allclose(at.log_spread.mean(0), np.log(0.5), atol=0.08)
    np.testing.assert_allclose(at.log_spread.std(0), 0.8, rtol=0.08)
    np.testing.assert_allclose(at.log_group_spread.mean(0), 0, atol=0.08)
    np.testing.assert_allclose(at.log_group_spread.std(0), 0.8, rtol=0.08)
    z = (at.mean - at.centre[:, None]) / np.exp(at.log_group_spread)[:, None]
    np.testing.assert_allclose(z.std(0), 1, rtol=0.08)
    own = (at.weights - at.mean[:, np.asarray(silent.judged.group)]) / np.exp(at.log_spread)[:, None]
    np.testing.assert_allclose(own.std(0), 1, rtol=0.08)


def test_the_regression_is_the_normal_distribution_of_its_blocks():
    rng = np.random.default_rng(0)
    root = rng.normal(size=(6, 6))
    precision = root @ root.T + np.eye(6)
    precision[:2, 2:4] = precision[2:4, :2] = 0  # two groups, two features; then the spreads
    linear = rng.normal(size=6)
    with jax.enable_x64(True):
        told = Regression.of(
            jnp.stack([precision[:2, :2], precision[2:4, 2:4]]),
            jnp.stack([precision[:2, 4:], precision[2:4, 4:]]),
            jnp.asarray(precision[4:, 4:]),
            jnp.asarray(linear[:4].reshape(2, 2)),
            jnp.asarray(linear[4:]),
        )
        mean, spread = told.back(jnp.zeros((3, 2)))
        middle = np.linalg.solve(precision, linear)
        np.testing.assert_allclose(np.concatenate([mean.ravel(), spread]), middle, rtol=1e-10)
        at = rng.normal(size=6)
        normals = told.standard(jnp.asarray(at[:4].reshape(2, 2)), jnp.asarray(at[4:]))
        assert float((normals**2).sum()) == pytest.approx((at - middle) @ precision @ (at - middle), rel=1e-10)
        again = told.back(normals)
    np.testing.assert_allclose(np.concatenate([again[0].ravel(), again[1]]), at, rtol=1e-10)
