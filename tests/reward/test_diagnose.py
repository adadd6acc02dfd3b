"""Diagnostics are tested on fits that must fail, and on one that must not."""

import jax
import numpy as np
import numpyro
import pytest
from arviz_stats.base.array import array_stats
from numpyro import distributions as dist
from scipy.signal import lfilter

from pluralign import reward
from pluralign.errors import ConvergenceWarning, FitError
from pluralign.reward import diagnose
from pluralign.types import RewardPosterior


def gaussian():
    numpyro.sample("a", dist.Normal(0, 1).expand([3]).to_event(1))


def two_towns():
    numpyro.sample(
        "a", dist.MixtureSameFamily(dist.Categorical(np.full(2, 0.5)), dist.Normal(np.array([-9.0, 9.0]), 0.5))
    )


def funnel():
    """Neal (2003): a scale and what it scales, both sampled as they are."""
    scale = numpyro.sample("scale", dist.Normal(0, 3))
    numpyro.sample("a", dist.Normal(0, np.e ** (scale / 2)).expand([9]).to_event(1))


def test_a_good_fit_has_no_caveat():
    draws, report = reward.NUTS(draws=400, warmup=200).infer(gaussian, seed=0)
    assert report.converged
    assert (report.chains, report.draws, report.divergences) == (2, 400, 0)
    assert draws["a"].shape == (800, 3)
    np.testing.assert_allclose(draws["a"].mean(0), 0, atol=0.2)
    np.testing.assert_allclose(draws["a"].std(0), 1, atol=0.15)


def test_chains_in_different_modes_are_a_caveat():
    _, report = reward.NUTS(draws=300, warmup=200, chains=4).infer(two_towns, seed=0)
    assert not report.converged
    assert report.rhat["a"] > 1.5
    assert any("R-hat is up to" in caveat and "(a)" in caveat for caveat in report.caveats)


def test_divergences_are_a_caveat():
    _, report = reward.NUTS(draws=300, warmup=300, target_accept=0.6).infer(funnel, seed=0)
    assert report.divergences > 0
    assert any("diverged" in caveat for caveat in report.caveats)


def test_trees_that_are_cut_off_are_a_caveat():
    _, report = reward.NUTS(draws=200, warmup=200, max_tree_depth=1).infer(gaussian, seed=0)
    assert any("largest tree" in caveat for caveat in report.caveats)


def test_a_fit_without_warm_up_warns_and_the_words_travel_with_it(world, tmp_path):
    with pytest.warns(ConvergenceWarning, match="Too few effective draws") as seen:
        posterior = reward.Pooled().fit(world.votes, world.phi, inference=reward.NUTS(draws=10, warmup=2), seed=0)
    assert len(seen) == 1
    assert not posterior.fit.converged
    assert RewardPosterior.load(posterior.save(tmp_path / "p")).fit.caveats == posterior.fit.caveats


def sites(**draws):
    return diagnose.report(draws, divergences=0, saturated=0.0, method="", seconds=0.0)


def test_the_limit_of_rhat_is_not_exceeded_by_chance():
    """The worst of 1,000 R-hats of independent draws passes, a shift by 0.6 standard deviations does not."""
    rng = np.random.default_rng(0)
    good = rng.normal(size=(2, 300, 1000))
    report = sites(weights=good)
    assert report.converged
    assert report.rhat["weights"] > 1.01  # so the limit for few draws cannot be 1.01
    good[1, :, 7] += 0.6
    assert "R-hat" in " ".join(sites(weights=good).caveats)
    assert diagnose.rhat_limit(4000) == 1.01


def test_chains_that_stand_still_are_a_caveat():
    assert "stand still" in " ".join(sites(a=np.zeros((2, 50))).caveats)


def test_slow_chains_are_a_caveat():
    rng = np.random.default_rng(0)
    slow = np.empty((2, 2000))
    slow[:, 0] = 0
    for t in range(1, 2000):
        slow[:, t] = 0.97 * slow[:, t - 1] + rng.normal(size=2)
    assert "Too few effective draws" in " ".join(sites(a=slow).caveats)


def test_tails_that_are_seldom_visited_are_a_caveat():
    """Nearly independent in the middle, but an excursion to the far tail lasts 40 steps."""
    rng = np.random.default_rng(0)
    draws = rng.normal(size=(2, 1000))
    draws[:, 500:540] = 5 + 0.01 * rng.normal(size=(2, 40))
    words = " ".join(sites(a=draws).caveats)
    assert "effective draws in the tails" in words
    assert "Too few effective draws:" not in words


def wandering(slowness, draws=40_000):
    """Energies of two chains: an autoregression, of which the fraction is `2 (1 - slowness)` in the long run."""
    return lfilter([1], [1, -slowness], np.random.default_rng(0).normal(size=(2, draws)))


@pytest.mark.parametrize("slowness", [0.5, 0.95])
def test_the_fraction_of_missing_information_is_that_of_an_autoregression(slowness):
    found = diagnose.energy_information(wandering(slowness))
    np.testing.assert_allclose(found, 2 * (1 - slowness), rtol=0.15)
    np.testing.assert_allclose(found, array_stats.bfmi(wandering(slowness), chain_axis=0, draw_axis=1))


@pytest.mark.parametrize(("slowness", "bad"), [(0.5, False), (0.95, True)])
def test_energy_that_wanders_is_a_caveat(slowness, bad):
    good = np.random.default_rng(1).normal(size=(2, 4000))
    report = diagnose.report(
        {"a": good}, divergences=0, saturated=0.0, method="", seconds=0.0, energy=wandering(slowness)
    )
    assert len(report.bfmi) == 2
    assert any("E-BFMI 0.1" in caveat and "2 of 2 chains" in caveat for caveat in report.caveats) == bad
    assert report.converged != bad


def test_energy_that_stands_still_is_a_caveat():
    good = np.random.default_rng(1).normal(size=(2, 4000))
    report = diagnose.report({"a": good}, divergences=0, saturated=0.0, method="", seconds=0.0, energy=np.ones((2, 9)))
    assert "2 of 2 chains" in " ".join(report.caveats)


def test_the_sampler_hands_on_its_energies():
    """Neal's funnel is the standard case of energies that momenta cannot reach."""
    _, easy = reward.NUTS(draws=400, warmup=200).infer(gaussian, seed=0)
    _, hard = reward.NUTS(draws=400, warmup=300).infer(funnel, seed=0)
    assert len(easy.bfmi) == len(hard.bfmi) == 2
    assert min(easy.bfmi) > 0.6 > 0.45 > min(hard.bfmi)


def test_numbers_that_are_not_finite_are_an_error():
    with pytest.raises(FitError, match="b: not finite"):
        sites(a=np.zeros((2, 50)), b=np.full((2, 50), np.inf))

    def broken():
        a = numpyro.sample("a", dist.Normal(0, 1))
        numpyro.factor("broken", np.nan * a)

    with pytest.raises(FitError, match="elbo: not finite"):
        reward.SVI(steps=20).infer(broken, seed=0)


def test_a_variational_fit_that_was_cut_short_says_so():
    def far():
        numpyro.sample("a", dist.Normal(100, 1))

    _, short = reward.SVI(steps=100, learning_rate=0.1).infer(far, seed=0)
    assert "still rose" in " ".join(short.caveats)
    draws, done = reward.SVI(steps=2000).infer(gaussian, seed=0)
    assert done.converged
    assert any("too narrow" in note for note in done.notes)
    np.testing.assert_allclose(draws["a"].std(0), 1, atol=0.15)


def test_a_low_rank_approximation_sees_correlation_that_mean_field_does_not():
    def correlated():
        covariance = np.array([[1.0, 0.9], [0.9, 1.0]])
        numpyro.sample("a", dist.MultivariateNormal(np.zeros(2), covariance))

    wide, _ = reward.SVI(steps=3000, rank=1, draws=2000).infer(correlated, seed=0)
    narrow, _ = reward.SVI(steps=3000, draws=2000).infer(correlated, seed=0)
    np.testing.assert_allclose(np.cov(wide["a"].T), [[1, 0.9], [0.9, 1]], atol=0.15)
    # The best independent normal has the inverse of the diagonal of the precision: 1 - 0.9^2.
    np.testing.assert_allclose(narrow["a"].var(0), 0.19, atol=0.05)


def test_a_joint_approximation_has_the_correlations_within_annotators():
    """Two parts of a person, of which only the sum was seen: the posterior is normal and known in closed form."""
    error, seen = np.array([0.5, 1.0, 2.0]), np.array([1.0, -1.0, 3.0])

    def sums():
        numpyro.sample("common", dist.Normal(0, 1).expand([4]).to_event(1))
        with numpyro.plate("annotator", 3, dim=-2), numpyro.plate("part", 2, dim=-1):
            part = numpyro.sample("a_part", dist.Normal(0, 1))
        with numpyro.plate("annotator", 3):
            other = numpyro.sample("z_other", dist.Normal(0, 1))
            numpyro.sample("seen", dist.Normal(part.sum(-1) + other, error), obs=seen)

    joint, report = reward.SVI(steps=3000, joint=True, draws=4000).infer(sums, seed=0)
    assert "jointly normal" in report.method and report.converged
    apart, _ = reward.SVI(steps=3000, draws=4000).infer(sums, seed=0)
    np.testing.assert_allclose(joint["common"].std(0), 1, atol=0.1)
    for a in range(3):
        exact = np.linalg.inv(np.eye(3) + np.ones((3, 3)) / error[a] ** 2)
        own, narrow = (np.column_stack([d["a_part"][:, a], d["z_other"][:, a]]) for d in (joint, apart))
        np.testing.assert_allclose(np.cov(own.T), exact, atol=0.08)
        np.testing.assert_allclose(own.mean(0), exact.sum(1) * seen[a] / error[a] ** 2, atol=0.1)
        assert abs(np.cov(narrow.T)[0, 1]) < 0.03 < abs(exact[0, 1])


def test_fits_are_deterministic_and_leave_no_global_trace():
    a, b, c = (reward.SVI(steps=500, draws=20).infer(gaussian, seed=s)[0]["a"] for s in (1, 1, 2))
    np.testing.assert_array_equal(a, b)
    assert not np.array_equal(a, c)
    x, y = (reward.NUTS(draws=20, warmup=20).infer(gaussian, seed=5)[0]["a"] for _ in range(2))
    np.testing.assert_array_equal(x, y)
    assert not jax.config.jax_enable_x64
