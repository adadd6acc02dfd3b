"""Laplace's approximation where it is exact, where it is good, and where it must say that it is neither."""

import jax.numpy as jnp
import numpy as np
import numpyro
import pytest
from numpyro import distributions as dist
from scipy.integrate import simpson
from scipy.special import log_expit
from scipy.stats import norm

from pluralign import reward
from pluralign.errors import ConvergenceWarning, FitError, InputError
from pluralign.reward import laplace


def test_a_normal_posterior_is_met_exactly():
    x = np.random.default_rng(0).normal(size=(20, 3)) @ np.diag([1.0, 3.0, 0.2])
    y = x @ [1.0, -1.0, 2.0]

    def model():
        w = numpyro.sample("w", dist.Normal(0, 2).expand([3]).to_event(1))
        numpyro.sample("y", dist.Normal(jnp.asarray(x) @ w, 1.5), obs=jnp.asarray(y))

    sites, report = reward.Laplace(draws=20_000).infer(model, 0)
    precision = x.T @ x / 1.5**2 + np.eye(3) / 4
    covariance = np.linalg.inv(precision)
    mean = covariance @ x.T @ y / 1.5**2
    sd = np.sqrt(np.diag(covariance))
    assert report.converged
    assert (abs(sites["w"].mean(0) - mean) < 4.5 * sd / np.sqrt(20_000)).all()
    np.testing.assert_allclose(np.cov(sites["w"].T), covariance, atol=0.04 * sd.max() ** 2)


def test_pooled_bradley_terry_is_near_quadrature(simulation):
    world = simulation.simulate(3, annotators=20, judgements=30, features=1, teams=1, careless=0, tie=-20.0)
    votes = world.votes
    inference = reward.Laplace(draws=4000)
    posterior = reward.Pooled(response=reward.PLAIN).fit(votes, world.phi, inference=inference, seed=1)
    c, x = votes.choices, world.phi.phi[:, 0].astype(float)
    x = x[c.slate[:, 0]] - x[c.slate[:, 1]]
    unit = np.sqrt((x**2).mean())
    signed = x / unit * np.where(c.rank[:, 0] == 0, 1, -1)
    w, log_spread = np.linspace(-1, 4, 2001), np.linspace(-5, 5, 801)
    prior = norm.pdf(w[:, None], scale=np.exp(log_spread)) * norm.pdf(log_spread, scale=0.8)
    log_p = log_expit(w[:, None] * signed).sum(1)
    p = simpson(prior, x=log_spread) * np.exp(log_p - log_p.max())
    p /= p.sum()
    mean = (p * w).sum()
    sd = np.sqrt((p * (w - mean) ** 2).sum())
    draws = posterior.weights[:, 0, 0, 0] * unit
    assert abs(draws.mean() - mean) < 0.3 * sd
    assert draws.std() == pytest.approx(sd, rel=0.1)
    assert "Pareto k" in " ".join(posterior.fit.notes)


def test_the_mode_of_a_hierarchical_model_is_flagged(simulation):
    world = simulation.simulate(5, annotators=24, judgements=20, features=2, teams=1, careless=0)
    with pytest.warns(ConvergenceWarning, match="Pareto k"):
        reward.Hierarchical(response=reward.PLAIN).fit(world.votes, world.phi, inference=reward.Laplace(), seed=0)


def test_pareto_of_known_tails():
    """Weights from a Pareto distribution of shape 1 / k, and weights with a bound."""
    uniform = (np.arange(20_000) + 0.5) / 20_000
    for k in (0.3, 0.9):
        assert laplace.pareto(-k * np.log(uniform)) == pytest.approx(k, abs=0.06)
    assert laplace.pareto(np.log(uniform)) < 0
    assert laplace.pareto(np.zeros(500)) == -np.inf


def test_what_is_no_mode_or_too_large_is_refused(world, monkeypatch):
    unravel = lambda v: {"weights_z": v[:1], "spread": v[1:]}  # noqa: E731
    with pytest.raises(FitError, match=r"upwards \(2, along spread"):
        laplace._root(np.diag([1.0, -2.0]), unravel)
    np.testing.assert_allclose(laplace._root(np.diag([4.0, 9.0]), unravel), np.diag([2.0, 3.0]))
    monkeypatch.setattr(laplace, "LARGEST", 5)
    with pytest.raises(InputError, match="VariationalEM"):
        reward.Hierarchical().fit(world.votes, world.phi, inference=reward.Laplace())
    with pytest.raises(InputError, match="draws is 99"):
        reward.Laplace(draws=99)
    with pytest.raises(InputError, match="steps is 0"):
        reward.Laplace(steps=0)


def test_every_inference_is_its_own_yaml():
    from pydantic import TypeAdapter

    from pluralign.config import Inference

    adapter = TypeAdapter(Inference)
    for inference in (reward.Laplace(draws=300), reward.SVI(batch=7, devices=2), reward.SVI()):
        assert adapter.validate_json(adapter.dump_json(inference)) == inference
