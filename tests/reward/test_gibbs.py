"""Variational EM and Metropolised Gibbs sampling against quadrature, finite differences and NUTS."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.polynomial.legendre import leggauss
from scipy.integrate import quad, simpson
from scipy.special import log_expit
from scipy.stats import norm

from pluralign import reward
from pluralign.errors import ConvergenceWarning, InputError
from pluralign.reward import conjugate, em, gibbs, surrogate
from pluralign.reward.judgements import Judgements
from pluralign.reward.population import Target

SHARED = reward.Response(reward.Davidson(tie_spread=False), rater=reward.Rater(lapse=False))


def target(population, votes, phi):
    return Target(population, population.layout(votes, Judgements.read(votes, phi)))


def strict(simulation, world):
    """The world without its ties."""
    return replace(world, votes=world.votes.where((world.votes.choices.rank == 0).sum(1) == 1))


def signed(votes, phi):
    """Differences in units, turned so that the first won; none is a tie."""
    c, x = votes.choices, phi.phi.astype(float)
    x = x[c.slate[:, 0]] - x[c.slate[:, 1]]
    return x / np.sqrt((x**2).sum(1).mean()) * np.where(c.rank[:, 0] == 0, 1, -1)[:, None]


@pytest.fixture(scope="module")
def line(simulation):
    """Three annotators and one feature, about 50 judgements for two of them and none for the third."""
    world = strict(simulation, simulation.simulate(5, annotators=3, judgements=60, features=1, teams=1, careless=0))
    return replace(world, votes=world.votes.where(world.votes.choices.annotator != 1))


@pytest.fixture(scope="module")
def exact(line):
    """Posterior mean and sd of centre, spread and weights on the line, by quadrature over all unknowns in turn."""
    x, who = signed(line.votes, line.phi)[:, 0], line.votes.choices.annotator
    log_spread, centre = np.linspace(-5, 3, 121), np.linspace(-8, 10, 181)
    z, mass = np.polynomial.hermite_e.hermegauss(100)
    log_scale = np.linspace(-5, 5, 801)
    scale = np.exp(log_scale)
    prior = simpson(norm.pdf(centre[:, None], scale=scale) * norm.pdf(log_scale, scale=0.8), x=log_scale)
    weight = centre[:, None, None] + np.exp(log_spread)[:, None] * z  # [centre, spread, z]
    moments = []
    for a in range(3):
        grid = np.sinh(np.linspace(-8, 8, 40_001))
        told = log_expit(grid[:, None] * x[who == a]).sum(1)
        p = np.exp(np.interp(weight, grid, told)) * mass / mass.sum()
        moments.append([(p * weight**k).sum(-1) for k in range(3)])
    joint = prior[:, None] * norm.pdf(log_spread, np.log(0.5), 0.8) * np.prod([m[0] for m in moments], 0)
    joint /= joint.sum()
    grid = {"centre": centre[:, None], "spread": np.exp(log_spread)}
    answer = {name: ((joint * g).sum(), (joint * g**2).sum()) for name, g in grid.items()}
    answer["weights"] = tuple(np.array([(joint * m[k] / m[0]).sum() for m in moments]) for k in (1, 2))
    return {name: (first, np.sqrt(second - first**2)) for name, (first, second) in answer.items()}


def off(sites, report, exact):
    """Largest error of a mean or an sd, in Monte-Carlo standard errors."""
    worst = 0.0
    for name, (mean, sd) in exact.items():
        draws, ess = sites[name].reshape(len(sites[name]), -1), report.ess_bulk[name]
        worst = max(worst, *(abs(draws.mean(0) - mean) / (sd / np.sqrt(ess))).ravel())
        # The relative error of an sd is 1 / sqrt(2 ess) for normal tails, and twice that for those of a t(6).
        worst = max(worst, *(abs(draws.std(0) / sd - 1) * np.sqrt(ess / 2)).ravel())
    return worst


PLAIN_LINE = reward.Hierarchical(response=reward.PLAIN)
SAMPLER = gibbs.Gibbs(draws=3000, warmup=200)


def test_gibbs_agrees_with_quadrature_for_three_annotators_one_of_them_silent(line, exact):
    sites, report = SAMPLER.infer(target(PLAIN_LINE, line.votes, line.phi), 0)
    assert report.converged, report.caveats
    assert min(report.ess_bulk.values()) > 500
    assert off(sites, report, exact) < 4


def tempered(monkeypatch):
    """Half the curvature of every surrogate: proposals are far too wide."""
    of = gibbs.Frozen.of

    def half(problem, q, p):
        frozen = of(problem, q, p)
        return frozen._replace(precision=frozen.precision / 2, linear=frozen.linear / 2)

    monkeypatch.setattr(gibbs.Frozen, "of", half)


def test_a_bad_surrogate_changes_acceptance_and_not_the_answer(line, exact, monkeypatch):
    model = target(PLAIN_LINE, line.votes, line.phi)
    good = float(SAMPLER.infer(model, 1)[1].notes[0].split()[1])
    tempered(monkeypatch)
    sites, report = SAMPLER.infer(model, 1)
    assert off(sites, report, exact) < 4
    assert float(report.notes[0].split()[1]) < good - 0.05


@pytest.mark.slow
def test_without_the_exact_ratio_a_bad_surrogate_has_another_answer(line, exact, monkeypatch):
    tempered(monkeypatch)
    monkeypatch.setattr(gibbs, "accepts", lambda uniform, log_ratio: jnp.ones_like(log_ratio, bool))
    gibbs.advance.clear_cache()
    try:
        sites, report = SAMPLER.infer(target(PLAIN_LINE, line.votes, line.phi), 0)
    finally:
        gibbs.advance.clear_cache()
    assert off(sites, report, exact) > 8


@pytest.mark.slow
def test_gibbs_agrees_with_nuts_with_groups_ties_and_a_position_bonus(simulation):
    world = simulation.simulate(7, annotators=12, judgements=30, features=2, teams=3, careless=0, position=0.5)
    model = target(reward.Hierarchical(group="team", response=SHARED), world.votes, world.phi)
    ours, report = gibbs.Gibbs(draws=3000, warmup=200).infer(model, 0)
    theirs, oracle = reward.NUTS(draws=2000).infer(model, 0)
    assert report.converged, report.caveats
    assert set(ours) == set(theirs)
    for name, draws in ours.items():
        assert draws.shape[1:] == theirs[name].shape[1:], name
        # The logarithm, where it is one that is about normal.
        a, b = (np.log(d) if "spread" in name or "scale" in name else d for d in (draws, theirs[name]))
        sd, ess = b.std(0), 1 / (1 / report.ess_bulk[name] + 1 / oracle.ess_bulk[name])
        assert (abs(a.mean(0) - b.mean(0)) < 4.5 * sd / np.sqrt(ess)).all(), name
        assert (abs(a.std(0) / sd - 1) < 4.5 / np.sqrt(ess)).all(), name


@pytest.fixture(scope="module")
def climbed(simulation):
    """A problem on a plane with ties and groups, and where variational EM arrives, in double precision."""
    world = simulation.simulate(8, annotators=5, judgements=30, features=2, teams=2, careless=0, position=0.5)
    model = target(reward.Hierarchical(group="team", response=SHARED), world.votes, world.phi)
    with jax.enable_x64(True):
        problem = surrogate.read(model, "this")
        q, p, bounds = em.ascend(problem, 300, 1e-10)
        yield problem, q, p, bounds


def expected_log_p(problem, a, mean, covariance, shared):
    """Of one annotator, by Gauss-Legendre quadrature of Davidson's formula over ten standard deviations either way."""
    judged, x = problem.judged, np.concatenate([np.asarray(x).reshape(-1, x.shape[-1]) for x in problem.judged.x])
    sizes = [b.shape[1] for b in judged.x for _ in b]
    owner = np.repeat(np.arange(len(sizes)), sizes)
    mine = (owner == a) & np.asarray(judged.counts)
    node, mass = leggauss(200)
    z = 10 * node
    weight = 10 * mass * norm.pdf(z)
    centre = x[mine] @ mean + shared[0] * np.asarray(judged.placed)[mine]
    eta = centre[:, None] + np.sqrt(np.einsum("cf,fg,cg->c", x[mine], covariance, x[mine]))[:, None] * z
    odds = np.stack([eta / 2, -eta / 2, np.full_like(eta, shared[1])])
    said = np.asarray(judged.outcome)[mine]
    log_p = odds[said, np.arange(len(said))] - np.logaddexp.reduce(odds, 0)
    return (log_p * weight).sum()


def slopes(function, at, step=1e-5):
    """Central differences."""
    at = np.asarray(at, float)
    return np.array([(function(at + e) - function(at - e)) / (2 * step) for e in step * np.eye(len(at))])


def bound_of(problem, p, a):
    """One annotator's part of the evidence lower bound, up to a constant, in its mean and the root of its covariance."""
    spread, mean = np.exp(np.asarray(p.log_spread)), np.asarray(p.mean)[int(problem.judged.group[a])]

    def bound(at):
        root = np.array([[at[2], 0], [at[3], at[4]]])
        covariance = root @ root.T
        prior = -(((at[:2] - mean) ** 2 + np.diag(covariance)) / spread**2).sum() / 2
        value = expected_log_p(problem, a, at[:2], covariance, np.asarray(p.shared))
        return value + prior + np.log(root[0, 0] * root[1, 1])

    return bound


def test_the_fixed_point_is_a_stationary_point_of_the_bound_and_no_mode_of_the_posterior(climbed):
    problem, q, p, _ = climbed
    for a in range(5):
        bound = bound_of(problem, p, a)
        root = np.linalg.cholesky(np.asarray(q.covariance)[a])
        at = np.array([*np.asarray(q.mean)[a], root[0, 0], root[1, 0], root[1, 1]])
        np.testing.assert_allclose(slopes(bound, at), 0, atol=2e-4)
        narrow = np.concatenate([at[:2], 1e-3 * at[2:]])  # at a point, what is left is log likelihood plus log prior
        assert np.abs(slopes(bound, narrow, 1e-6)[:2]).max() > 1e-2


def test_the_population_is_a_stationary_point_too(climbed):
    problem, q, p, _ = climbed
    fields = (
        "log_spread",
        "mean",
        "mean_variance",
        "centre",
        "centre_variance",
        "log_group_spread",
        "log_centre_scale",
    )

    def bound(values):
        here = p._replace(**dict(zip(fields, values, strict=True)))
        return sum(jnp.sum(part) for part in em.parts(problem, q, here))

    with jax.enable_x64(True):
        gradient = jax.grad(bound)([getattr(p, name) for name in fields])
    for name, slope in zip(fields, gradient, strict=True):
        np.testing.assert_allclose(slope, 0, atol=2e-3, err_msg=name)

    def of_shared(shared):
        told = sum(expected_log_p(problem, a, q.mean[a], np.asarray(q.covariance)[a], shared) for a in range(5))
        return told + norm.logpdf(shared, scale=[0.5, 1.5]).sum()

    np.testing.assert_allclose(slopes(of_shared, p.shared), 0, atol=2e-3)


def test_the_bound_never_falls(climbed):
    *_, bounds = climbed
    assert len(bounds) > 5
    assert (np.diff(bounds) > -1e-9).all()
    assert bounds[-1] - bounds[0] > 10


def test_variational_em_is_near_quadrature_where_there_is_little_data_too(line, exact):
    sites, report = em.VariationalEM(draws=2000).infer(target(PLAIN_LINE, line.votes, line.phi), 0)
    assert report.converged
    for name, (mean, sd) in exact.items():
        draws = sites[name].reshape(2000, -1)
        assert (abs(draws.mean(0) - mean) < 0.6 * sd).all(), name
        assert (draws.std(0) > 0.4 * sd).all(), name
        assert (draws.std(0) < 1.4 * sd).all(), name
    with pytest.warns(ConvergenceWarning, match="steps"):
        PLAIN_LINE.fit(line.votes, line.phi, inference=em.VariationalEM(steps=1, draws=5))


def test_other_models_are_refused_by_name(world):
    for population, word in [
        (reward.Pooled(), "Hierarchical"),
        (reward.Hierarchical(), "`lapse`, `tie_spread`"),
        (reward.Hierarchical(response=SHARED, items=reward.ItemEffects()), "`items`"),
        (reward.Hierarchical(response=reward.Response(reward.Thurstone(), rater=SHARED.rater)), "Davidson's"),
    ]:
        for inference in (gibbs.Gibbs(), em.VariationalEM()):
            with pytest.raises(InputError, match=word):
                population.fit(world.votes, world.phi, inference=inference)
    with pytest.raises(InputError, match="NUTS"):
        gibbs.Gibbs().infer(lambda: None, 0)


@pytest.mark.parametrize("wrong", [{"draws": 3}, {"warmup": 0}, {"thin": 0}, {"chains": 1}])
def test_hyperparameters_of_gibbs(wrong):
    with pytest.raises(InputError, match=next(iter(wrong))):
        gibbs.Gibbs(**wrong)


@pytest.mark.parametrize("wrong", [{"draws": 0}, {"steps": 0}, {"tolerance": 0.0}])
def test_hyperparameters_of_variational_em(wrong):
    with pytest.raises(InputError, match=next(iter(wrong))):
        em.VariationalEM(**wrong)


@pytest.mark.parametrize("count, squares, median", [(3, 0.02, -0.7), (3, 40.0, -0.7), (10_000, 2500.0, 0.0)])
def test_slices_of_a_scale_have_its_density(count, squares, median):
    def log_density(u):
        return -count * (u - mode) - squares * (np.exp(-2 * u) - np.exp(-2 * mode)) / 2 + prior(u) - prior(mode)

    def prior(u):
        return norm.logpdf(u, median, 0.8)

    mode = float(em.log_scale_mode(count, squares, median))
    wide = 8 / np.sqrt(2 * squares * np.exp(-2 * mode) + 1 / 0.8**2)
    total, mean, square = (
        quad(lambda u, k=k: (u - mode) ** k * np.exp(log_density(u)), mode - wide, mode + wide)[0] for k in range(3)
    )

    def update(u, uniform):
        u = conjugate.slice_log_scale(uniform, u, count, squares, median)
        return u, u

    draws = jax.lax.scan(update, jnp.full(200, mode), jax.random.uniform(jax.random.key(0), (300, 2, 200)))[1]
    draws = np.asarray(draws, np.float64)[20:] - mode
    error = draws.mean(0).std() / np.sqrt(200)  # of independent columns
    assert abs(draws.mean() - mean / total) < 4 * error
    sd = np.sqrt(square / total - (mean / total) ** 2)
    assert draws.std() == pytest.approx(sd, rel=0.02)
