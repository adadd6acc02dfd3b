"""Newcomers: the moments of the population, and Bayes' rule by quadrature and by hand."""

import dataclasses
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from scipy.integrate import simpson
from scipy.special import expit, log_expit
from scipy.stats import kstest, norm

from pluralign import reward
from pluralign.errors import InputError
from pluralign.reward.judgements import Acts, Judgements
from pluralign.reward.newcomer import _padded
from pluralign.types import FitReport, RewardPosterior

FIT = FitReport("by hand", 1, 1, 0, {}, {}, {}, 0.0)
UNIT = 2.0
RNG = np.random.default_rng(0)


def posterior(population, *, draws=4, objectives=1, features=2, quality=None, **common) -> RewardPosterior:
    """A posterior whose draws are all the same, so that its population is one known distribution."""
    common = {"unit": UNIT} | common
    return RewardPosterior(
        weights=np.zeros((draws, 1, objectives, features)),
        mass=np.ones(1),
        voters=("a",),
        membership=None,
        rater={},
        features=tuple(f"f{i}" for i in range(features)),
        fit=FIT,
        objectives=("one", "two")[:objectives] if objectives > 1 else ("overall",),
        quality=quality,
        common={name: np.repeat(np.asarray(value, np.float32)[None], draws, 0) for name, value in common.items()},
        model=dataclasses.asdict(population),
    )


def assert_moments(p, mean, cov):
    """Within four and a half standard errors, entry by entry; draws are independent."""
    w = p.weights[:, 0].reshape(len(p.weights), -1).astype(float) * UNIT
    n, sd = len(w), np.sqrt(np.diag(cov))
    assert (np.abs(w.mean(0) - mean) < 4.5 * sd / np.sqrt(n) + 1e-6).all()
    products = np.einsum("sa,sb->sab", w - mean, w - mean)
    error = products.std(0) / np.sqrt(n)
    assert (np.abs(products.mean(0) - cov) < 4.5 * error + 1e-6).all()


def test_newcomers_of_a_hierarchy_have_its_moments():
    centre, spread, rho = np.array([[1.0, -2.0], [0.5, 0.0]]), np.array([[0.5, 1.0], [2.0, 0.3]]), 0.6
    root = np.array([[1, 0], [rho, np.sqrt(1 - rho**2)]])
    p = posterior(reward.Hierarchical(), objectives=2, centre=centre, spread=spread, objective_root=root)
    cov = np.diag(spread.ravel() ** 2)
    for f in range(2):  # weights of one feature are correlated over objectives, those of two features are not
        cov[f, 2 + f] = cov[2 + f, f] = rho * spread[0, f] * spread[1, f]
    found = reward.newcomer(p, people=5000)
    assert (found.voters, found.mass.tolist(), found.membership) == (("newcomer",), [1.0], None)
    assert_moments(found, centre.ravel(), cov)
    with pytest.raises(AssertionError):
        assert_moments(found, centre.ravel(), np.diag(np.diag(cov)))


def test_newcomers_of_groups_are_drawn_by_share():
    centres, share, spread = np.array([[[2.0, 0.0]], [[-1.0, 1.0]]]), np.array([0.7, 0.3]), np.array([[0.5, 0.1]])
    p = posterior(
        reward.Hierarchical(group="team"),
        centre=np.zeros((1, 2)),
        spread=spread,
        group_centre=centres,
        profile_share=share,
        profile_group=[0, 1],
    )
    mean = share @ centres[:, 0]
    cov = np.einsum("g,gf,gh->fh", share, centres[:, 0] - mean, centres[:, 0] - mean) + np.diag(spread[0] ** 2)
    assert_moments(reward.newcomer(p, people=5000), mean, cov)


def test_newcomers_with_covariates_have_the_profile_of_somebody_who_was_met():
    """Profiles are drawn whole: nobody is of the first group and has the second one's covariates."""
    centres, effect = np.array([[[2.0, 0.0]], [[-1.0, 1.0]]]), np.array([[[1.0, 0.0]], [[0.0, 3.0]]])
    design, group = np.array([[0.5, 1.0], [-1.0, 0.0], [2.0, 0.0]]), np.array([0, 1, 1])
    share, spread = np.array([0.5, 0.3, 0.2]), np.array([[0.4, 0.2]])
    p = posterior(
        reward.Hierarchical(group="team", covariates=("age", "sex")),
        centre=np.full((1, 2), 9.0),
        spread=spread,
        group_centre=centres,
        effect=effect,
        profile_share=share,
        profile_group=group,
        profile_design=design,
    )
    each = np.array([[2 + 0.5, 3.0], [-1 - 1.0, 1.0], [-1 + 2.0, 1.0]])
    mean = share @ each
    cov = np.einsum("g,gf,gh->fh", share, each - mean, each - mean) + np.diag(spread[0] ** 2)
    assert_moments(reward.newcomer(p, people=5000), mean, cov)


def test_newcomers_weigh_up_objectives_in_their_own_way():
    """Moments of the overall weights by simulation in numpy, from the formula of the class."""
    rng = np.random.default_rng(1)
    centre, spread = np.array([[1.0, -2.0]]), np.array([[0.5, 1.0]])
    numbers: dict[str, Any] = {"tradeoff_centre": [0.8], "tradeoff_spread": [0.3]}
    numbers |= {"rest_centre": [0.2, 0.0], "rest_spread": [0.1, 0.6], "overall": np.int32(0)}
    population = reward.Hierarchical(overall="one")
    found = reward.newcomer(posterior(population, objectives=2, centre=centre, spread=spread, **numbers), people=5000)
    n = 400_000
    part = centre + spread * rng.normal(size=(n, 2))
    rest = np.array([0.2, 0.0]) + np.array([0.1, 0.6]) * rng.normal(size=(n, 2))
    truth = np.concatenate([(0.8 + 0.3 * rng.normal(size=(n, 1))) * part + rest, part], 1)
    assert_moments(found, truth.mean(0), np.cov(truth.T))


def test_newcomers_of_a_mixture_are_of_its_kinds():
    kinds, mass = np.array([[[2.0, 0.0]], [[-1.0, 1.0]], [[0.0, 5.0]]]), np.array([0.5, 0.3, 0.2])
    found = reward.newcomer(posterior(reward.Mixture(3), kind_weights=kinds, mass=mass), people=5000)
    mean = mass @ kinds[:, 0]
    assert_moments(found, mean, np.einsum("g,gf,gh->fh", mass, kinds[:, 0] - mean, kinds[:, 0] - mean))
    distinct = {tuple(w) for w in (found.weights[:, 0, 0] * UNIT).round(4).tolist()}
    assert distinct == {tuple(k) for k in kinds[:, 0].tolist()}


def test_newcomers_of_low_rank_have_its_moments_and_those_of_one_taste_are_all_alike():
    centre, direction = np.array([[1.0, -1.0]]), np.array([[[1.0, 0.5]], [[0.0, 2.0]]])
    p = posterior(reward.LowRank(2), centre=centre, direction=direction)
    assert_moments(reward.newcomer(p, people=5000), centre[0], direction[:, 0].T @ direction[:, 0])
    same = reward.newcomer(posterior(reward.Pooled(), centre=centre), people=3)
    np.testing.assert_allclose(same.weights[:, 0, 0], np.tile(centre / UNIT, (12, 1)))


def test_the_noise_of_a_newcomer_is_that_of_the_population():
    centres: dict[str, Any] = {"lapse_centre": -2.0, "tie_centre": 0.5, "position_centre": 0.3}
    scales: dict[str, Any] = {"lapse_scale": 1.5, "tie_scale": 0.4, "temperature_scale": 0.6, "leniency_scale": 0.7}
    p = posterior(reward.Pooled(), centre=np.zeros((1, 2)), **centres, **scales)
    rater = {name: value[:, 0].astype(float) for name, value in reward.newcomer(p, people=3000).rater.items()}
    assert rater.keys() == {"lapse", "tie", "position", "temperature", "leniency"}
    logit = np.log(rater["lapse"] / (1 - rater["lapse"]))
    for value, law in (
        (logit, norm(-2, 1.5)),
        (rater["tie"], norm(0.5, 0.4)),
        (np.log(rater["temperature"]), norm(0, 0.6)),
        (rater["leniency"], norm(0, 0.7)),
    ):
        assert kstest(value, law.cdf).pvalue > 1e-3
    np.testing.assert_allclose(rater["position"], 0.3, rtol=1e-6)  # the same for all


def said(simulation, x, n, seed=0):
    """A newcomer's comparisons of item `i + 1` with item 0, features `x` and 0."""
    rng = np.random.default_rng(seed)
    first = rng.integers(1, len(x) + 1, n)
    outcome = rng.integers(0, 2, n)
    votes = simulation.feedback(first, np.zeros(n, int), outcome, np.zeros(n, int), len(x) + 1, ["new"])
    return votes, simulation.features(np.concatenate([np.zeros((1, x.shape[1])), x])), first - 1, outcome


@pytest.mark.parametrize("n", [1, 13, 37])
def test_adapting_agrees_with_quadrature(simulation, n):
    """One feature, Bradley-Terry: the posterior of the newcomer's weight on a line."""
    centre, spread = 0.8, 1.5
    p = posterior(reward.Hierarchical(response=reward.PLAIN), features=1, draws=3, centre=[[centre]], spread=[[spread]])
    x = RNG.normal(size=(7, 1)) * UNIT
    votes, phi, item, outcome = said(simulation, x, n)
    found = reward.adapt(p, votes, phi, draws=3000, steps=30).weights[:, 0, 0, 0].astype(float) * UNIT
    w = np.linspace(centre - 9 * spread, centre + 9 * spread, 4001)
    signed = x[item, 0] / UNIT * np.where(outcome == 0, 1, -1)
    density = norm.pdf(w, centre, spread) * np.exp(log_expit(w[:, None] * signed).sum(1))
    density /= simpson(density, x=w)
    cdf = np.cumsum(density) / density.sum()
    assert kstest(found, lambda value: np.interp(value, w, cdf)).pvalue > 1e-3
    if n > 1:
        assert kstest(found, norm(centre, spread).cdf).pvalue < 1e-6  # the judgements were heard


def test_adapting_to_a_mixture_is_bayes_rule(simulation):
    kinds, mass = np.array([[[2.0]], [[-1.0]], [[0.3]]]), np.array([0.5, 0.3, 0.2])
    p = posterior(reward.Mixture(3, response=reward.PLAIN), features=1, kind_weights=kinds, mass=mass)
    x = RNG.normal(size=(5, 1)) * UNIT
    votes, phi, item, outcome = said(simulation, x, 4)
    likelihood = expit(kinds[:, 0] * (x[item, 0] / UNIT * np.where(outcome == 0, 1, -1))).prod(1)
    expected = mass * likelihood / (mass @ likelihood)
    draws = 3000
    found = reward.adapt(p, votes, phi, draws=draws, steps=30).weights[:, 0, 0, 0] * UNIT
    share = np.array([np.isclose(found, k, atol=1e-4).mean() for k in kinds.ravel()])
    assert share.sum() == pytest.approx(1)
    assert (np.abs(share - expected) < 4.5 * np.sqrt(expected * (1 - expected) / draws)).all()
    assert (np.abs(mass - expected) > 0.05).any()  # the prior itself would have failed


def test_newcomers_at_once_are_each_adapted_to_their_own(simulation):
    """Three of whom one is silent: kinds by Bayes' rule, person by person."""
    kinds, mass, draws = np.array([[[2.0]], [[-1.0]]]), np.array([0.6, 0.4]), 2000
    p = posterior(reward.Mixture(2, response=reward.PLAIN), features=1, kind_weights=kinds, mass=mass)
    who, outcome = np.array([0, 2, 0, 2, 2]), np.array([0, 1, 0, 1, 0])
    votes = simulation.feedback(np.ones(5, int), np.zeros(5, int), outcome, who, 2, "abc", weight=[1, 1, 2])
    phi = simulation.features(np.array([[0.0], [UNIT]]))
    likelihood = np.ones((3, 2))
    for a, y in zip(who, outcome, strict=True):
        likelihood[a] *= expit(kinds[:, 0, 0] * (1 if y == 0 else -1))
    expected = mass * likelihood / (likelihood @ mass)[:, None]
    found = reward.adapt(p, votes, phi, draws=draws, steps=30)
    assert (found.voters, found.mass.tolist()) == (("a", "b", "c"), [0.25, 0.25, 0.5])
    share = np.isclose(found.weights[:, :, 0, 0] * UNIT, 2, atol=1e-4).mean(0)
    assert (np.abs(share - expected[:, 0]) < 4.5 * np.sqrt(expected[:, 0] * expected[:, 1] / draws)).all()
    assert expected[0, 0] > 0.8 > 0.6 == expected[1, 0] > 0.3 > expected[2, 0]


def test_item_effects_are_heard_when_adapting(simulation):
    """Item 0 is worth 3 by itself: preferring others to it says more about the weight than it would otherwise."""
    x = np.array([[UNIT]])
    votes, phi, _, _ = said(simulation, x, 6)
    votes = replace(votes, choices=replace(votes.choices, rank=np.tile([0, 1], (6, 1))))
    quality = np.repeat(np.array([[[3.0], [0.0]]], np.float32), 3, 0)
    law: dict[str, Any] = {"features": 1, "draws": 3, "centre": [[0.0]], "spread": [[1.5]]}
    p = posterior(reward.Hierarchical(response=reward.PLAIN, items=reward.ItemEffects()), quality=quality, **law)
    found = reward.adapt(p, votes, phi, draws=3000, steps=100).weights[:, 0, 0, 0].astype(float) * UNIT
    w = np.linspace(-14, 14, 4001)
    density = norm.pdf(w, 0, 1.5) * expit(w - 3) ** 6
    cdf = np.cumsum(density) / density.sum()
    assert kstest(found, lambda value: np.interp(value, w, cdf)).pvalue > 1e-3
    with pytest.raises(InputError, match="6 items, the posterior's item effects are of 2"):
        reward.adapt(p, *said(simulation, RNG.normal(size=(5, 1)), 3)[:2])


@pytest.mark.parametrize("form", ["pairs", "slates"])
def test_padding_to_powers_of_two_changes_nothing(simulation, form):
    """All that a chain sees of the judgements is the sum of their log probabilities."""
    votes, phi, _, _ = said(simulation, RNG.normal(size=(6, 2)), 11)
    if form == "slates":
        slate = np.array([RNG.permutation(7)[:3] for _ in range(11)])
        c = votes.choices
        votes = replace(
            votes, choices=type(c)(slate, np.tile([1, 0, -1], (11, 1)), c.annotator, c.objective, c.context)
        )
    acts = Acts.of(form, Judgements.read(votes, phi), 1.0)
    padded = _padded(acts)
    assert (len(acts.counts), len(padded.counts), int(padded.counts.sum())) == (11, 16, 11)
    weights = RNG.normal(size=(1, 1, 2)).astype(np.float32)
    total = [np.asarray(a.total(reward.PLAIN.log_probability(a, a.utility(weights), {}, ()))) for a in (acts, padded)]
    np.testing.assert_allclose(total[0], total[1], rtol=1e-5)
    assert total[0].shape == (1,) and total[0][0] < -1


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::pluralign.errors.ConvergenceWarning")
def test_adapting_is_near_a_fit_to_all_judgements(world, hierarchical, simulation):
    """Loosely: `hierarchical` was fitted to the newcomer's judgements too, as one of 24."""
    of = 3
    c = world.votes.choices.where(world.votes.choices.annotator == of)
    alone = replace(
        world.votes,
        choices=replace(c, annotator=np.zeros(len(c), np.int32)),
        annotators=world.votes.annotators.select([of]),
    )
    known = reward.adapt(hierarchical, alone, world.phi, draws=500, steps=100)
    refit, found = hierarchical.weights[:, of, 0].astype(float), known.weights[:, 0, 0].astype(float)
    stranger = reward.newcomer(hierarchical).weights[:, 0, 0].astype(float)
    off = np.abs(found.mean(0) - refit.mean(0)) / refit.std(0)
    assert (off < 0.7).all()
    assert np.abs(stranger.mean(0) - refit.mean(0)).sum() > np.abs(found.mean(0) - refit.mean(0)).sum()
    assert (found.std(0) < stranger.std(0)).all()


def test_what_cannot_be_adapted_to_is_refused(simulation):
    p = posterior(reward.Hierarchical(response=reward.PLAIN), centre=np.zeros((1, 2)), spread=np.ones((1, 2)))
    votes, phi, _, _ = said(simulation, RNG.normal(size=(5, 2)), 3)
    with pytest.raises(InputError, match="the posterior was fitted to"):
        reward.adapt(p, votes, simulation.features(np.zeros((6, 3))))
    with pytest.raises(InputError, match="draws is 0 and steps 100"):
        reward.adapt(p, votes, phi, draws=0)
    with pytest.raises(InputError, match="does not say of what model it is"):
        reward.newcomer(replace(p, model={}))
    with pytest.raises(InputError, match="does not say of what model it is"):
        reward.adapt(replace(p, model={}), votes, phi)
