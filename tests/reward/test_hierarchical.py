"""Groups, covariates, trade-offs and sparse centres: the priors are those of the docstring, and the truth is found."""

from dataclasses import replace

import jax
import numpy as np
import pytest
from numpyro import handlers
from scipy.special import expit
from scipy.stats import kstest, laplace

from pluralign import reward
from pluralign.errors import InputError
from pluralign.reward.design import Design
from pluralign.reward.judgements import Judgements
from pluralign.types import Choices

SVI = reward.SVI(steps=1500, learning_rate=0.05, draws=200)
PEOPLE, ITEMS = 60, 40


@pytest.fixture(scope="module")
def phi(simulation):
    return simulation.features(np.random.default_rng(0).normal(size=(ITEMS, 2)))


def compared(simulation, phi, weights, each, seed=0, objective=0, objectives=("overall",), **attributes):
    """Bradley-Terry comparisons of random items by people with these weights."""
    rng = np.random.default_rng(seed)
    annotator = np.repeat(np.arange(len(weights)), each)
    first = rng.integers(0, ITEMS, len(annotator))
    second = (first + rng.integers(1, ITEMS, len(annotator))) % ITEMS
    eta = ((phi.phi[first] - phi.phi[second]) * weights[annotator]).sum(1)
    outcome = (rng.random(len(eta)) > expit(eta)).astype(int)
    ids = [f"a{a:02d}" for a in range(len(weights))]
    votes = simulation.feedback(first, second, outcome, annotator, ITEMS, ids)
    people = votes.annotators
    for name, value in attributes.items():
        people = people.add_column(name, [str(v) for v in value])
    c = votes.choices
    asked = Choices(c.slate, c.rank, c.annotator, np.full(len(c), objective), c.context)
    return replace(votes, annotators=people, choices=asked, objectives=objectives)


def test_numbers_are_slopes_and_words_are_levels(simulation, phi):
    age, sex = ["20", "", "40", "30"], ["f", "m", "f", "d"]
    votes = compared(simulation, phi, np.zeros((4, 2)), 1, age=age, sex=sex)
    design = Design.of(votes, ("age", "sex"))
    assert design.names == ("age", "sex = d", "sex = f", "sex = m")
    assert design.covariate == (0, 1, 1, 1)
    sd = np.sqrt(200 / 3)
    expected = [[-10 / sd, 0, 1, 0], [0, 0, 0, 1], [10 / sd, 0, 1, 0], [0, 1, 0, 0]]
    np.testing.assert_allclose(design.value, expected)
    two = compared(simulation, phi, np.zeros((4, 2)), 1, child=["0", "1", "1", "0"])
    assert Design.of(two, ("child",)).names == ("child = 0", "child = 1")


@pytest.mark.parametrize("value", [["a"] * 4, ["3"] * 4])
def test_a_covariate_that_is_the_same_for_all_is_refused(simulation, phi, value):
    votes = compared(simulation, phi, np.zeros((4, 2)), 1, side=value)
    with pytest.raises(InputError, match="same 'side'"):
        reward.Hierarchical(covariates=("side",)).fit(votes, phi)
    with pytest.raises(InputError, match="no attribute 'age'"):
        reward.Hierarchical(covariates=("age",)).fit(votes, phi)
    with pytest.raises(InputError, match="each attribute once"):
        reward.Hierarchical(group="side", covariates=("side",))


def drawn(population, votes, phi, count):
    """Draws of the model's nodes from its prior."""
    layout = population.layout(votes, Judgements.read(votes, phi))

    def one(key):
        nodes = handlers.trace(handlers.seed(population.model, key)).get_trace(layout)
        return {name: node["value"] for name, node in nodes.items() if node["type"] in ("sample", "deterministic")}

    return jax.device_get(jax.jit(jax.vmap(one))(jax.random.split(jax.random.key(0), count)))


@pytest.mark.parametrize("make", [reward.Pooled, reward.Mixture])
def test_a_sparse_centre_is_laplace(simulation, phi, make):
    votes = compared(simulation, phi, np.zeros((4, 2)), 2)
    prior = drawn(make(centre="laplace", response=reward.PLAIN), votes, phi, 3000)
    scale = prior["spread" if make is reward.Pooled else "centre_scale"]
    x = prior["centre"][:, 0, 0] / scale
    assert kstest(x, laplace.cdf).pvalue > 1e-3
    normal = drawn(make(response=reward.PLAIN), votes, phi, 3000)
    scale = normal["spread" if make is reward.Pooled else "centre_scale"]
    assert kstest(normal["centre"][:, 0, 0] / scale, laplace.cdf).pvalue < 1e-4


def test_the_effect_of_covariates_is_found(simulation, phi):
    rng = np.random.default_rng(1)
    age, sex = rng.integers(20, 70, PEOPLE), np.array(["f", "m"])[rng.integers(0, 2, PEOPLE)]
    z = (age - age.mean()) / age.std()
    weights = np.array([1.0, 0.0]) + z[:, None] * [0.0, 1.2] + (sex == "m")[:, None] * [-2.0, 0.0]
    weights = weights + 0.3 * rng.normal(size=weights.shape)
    votes = compared(simulation, phi, weights, 25, age=age, sex=sex)
    found = reward.Hierarchical(covariates=("age", "sex"), response=reward.PLAIN).fit(votes, phi, inference=SVI, seed=0)
    assert found.covariates == ("age", "sex = f", "sex = m")
    unit = found.common["unit"][:, None, None, None]
    effect = (found.common["effect"] / unit)[:, :, 0].mean(0)
    np.testing.assert_allclose(effect[0], [0, 1.2], atol=0.25)
    np.testing.assert_allclose(effect[2] - effect[1], [-2, 0], atol=0.35)
    plain = reward.Hierarchical(response=reward.PLAIN).fit(votes, phi, inference=SVI, seed=0)
    assert found.common["spread"].mean() < 0.7 * plain.common["spread"].mean()  # the rest is explained


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::pluralign.errors.ConvergenceWarning")  # short chains
def test_trade_offs_between_objectives_are_found(simulation, phi):
    """By NUTS: independent normals put the spread of trade-offs at 0 and call it all rest, as the docstring says."""
    rng = np.random.default_rng(2)
    names = ("kind", "all in all", "true")
    parts = 1.5 * rng.normal(size=(2, PEOPLE, 2))
    tradeoff = np.array([0.8, 0.4]) + 0.5 * rng.normal(size=(PEOPLE, 2))
    overall = np.einsum("ao,oaf->af", tradeoff, parts)
    sheets = [
        compared(simulation, phi, w, 40, seed=o, objective=o, objectives=names)
        for o, w in enumerate([parts[0], overall, parts[1]])
    ]
    fields = ("slate", "rank", "annotator", "objective", "context")
    together = Choices(*(np.concatenate([getattr(s.choices, f) for s in sheets]) for f in fields))
    population = reward.Hierarchical(overall="all in all", response=reward.PLAIN)
    nuts = reward.NUTS(draws=150, warmup=250, max_tree_depth=6)
    found = population.fit(replace(sheets[0], choices=together), phi, inference=nuts, seed=0)
    centre, spread = found.common["tradeoff_centre"], found.common["tradeoff_spread"]
    assert (np.abs(centre.mean(0) - [0.8, 0.4]) < 3 * centre.std(0)).all() and (centre.std(0) < 0.2).all()
    assert (np.abs(spread.mean(0) - 0.5) < 3 * spread.std(0)).all() and (spread.std(0) < 0.2).all()
    learnt = found.own["tradeoff"].mean(0)
    assert all(np.corrcoef(learnt[:, o], tradeoff[:, o])[0, 1] > 0.6 for o in range(2))
    assert np.corrcoef(found.weights[:, :, 1].mean(0).ravel(), overall.ravel())[0, 1] > 0.9


def test_an_overall_objective_that_is_not_there_is_refused(simulation, phi):
    votes = compared(simulation, phi, np.zeros((4, 2)), 1)
    with pytest.raises(InputError, match="overall is 'nice'; it must be one of several objectives"):
        reward.Hierarchical(overall="nice").fit(votes, phi)
