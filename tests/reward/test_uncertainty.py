"""Posteriors written down by hand: nothing is fitted here."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.special import expit

from pluralign import reward
from pluralign.errors import InputError
from pluralign.types import FitReport, RewardPosterior

FIT = FitReport("by hand", 1, 5, 0, {}, {}, {}, 0.0)


def posterior(weights, mass, quality=None, **model) -> RewardPosterior:
    weights = np.asarray(weights, np.float64)
    return RewardPosterior(
        weights=weights[:, :, None],
        mass=np.asarray(mass),
        voters=tuple(f"v{v}" for v in range(weights.shape[1])),
        membership=None,
        rater={},
        features=tuple(f"f{i}" for i in range(weights.shape[2])),
        fit=FIT,
        quality=quality,
        model=model,
    )


def test_the_parts_are_those_of_a_two_stage_lottery(simulation):
    """Draws and voters are enumerated, outcomes are Bernoulli: variances of conditional means, one by one."""
    rng = np.random.default_rng(0)
    weights, mass = rng.normal(size=(5, 3, 2)), np.array([0.5, 0.3, 0.2])
    quality = rng.normal(size=(5, 6, 1)).astype(np.float32)
    phi = simulation.features(rng.normal(size=(6, 2)))
    pairs = np.array([[0, 1], [4, 2], [3, 3]])
    found = reward.decompose(posterior(weights, mass, quality), phi, pairs)
    for k, (i, j) in enumerate(pairs):
        p = np.empty((5, 3))
        for s in range(5):
            for v in range(3):
                u = [float(phi.phi[n].astype(float) @ weights[s, v].astype(np.float32)) for n in (i, j)]
                p[s, v] = expit(u[0] - u[1] + float(quality[s, i, 0]) - float(quality[s, j, 0]))
        by_draw = [np.average(row, weights=mass) for row in p]
        within = [np.average((row - m) ** 2, weights=mass) for row, m in zip(p, by_draw, strict=True)]
        assert found.probability[k] == pytest.approx(np.mean(by_draw))
        assert found.ignorance[k] == pytest.approx(np.var(by_draw), rel=1e-6)
        assert found.disagreement[k] == pytest.approx(np.mean(within), rel=1e-6)
        assert found.noise[k] == pytest.approx(np.mean([np.average(row * (1 - row), weights=mass) for row in p]))
    total = found.noise + found.disagreement + found.ignorance
    np.testing.assert_allclose(total, found.probability * (1 - found.probability))


def test_each_cause_shows_up_as_itself(simulation):
    phi, pair = simulation.features([[1.0], [0.0]]), np.array([[0, 1]])
    split = reward.decompose(posterior([[[9.0], [-9.0]]] * 5, [0.5, 0.5]), phi, pair)
    assert split.disagreement[0] > 0.249 and split.ignorance[0] < 1e-9
    unknown = reward.decompose(posterior([[[w], [w]] for w in (9.0, -9.0, 9.0, -9.0)], [0.5, 0.5]), phi, pair)
    assert unknown.ignorance[0] > 0.249 and unknown.disagreement[0] < 1e-9
    coin = reward.decompose(posterior([[[0.0], [0.0]]] * 5, [0.5, 0.5]), phi, pair)
    assert (coin.noise[0], coin.disagreement[0], coin.ignorance[0]) == (0.25, 0.0, 0.0)


def test_pairs_in_chunks_are_the_same(simulation, monkeypatch):
    rng = np.random.default_rng(1)
    p, phi = posterior(rng.normal(size=(5, 3, 2)), np.ones(3) / 3), simulation.features(rng.normal(size=(6, 2)))
    pairs = rng.integers(0, 6, (11, 2))
    whole = reward.decompose(p, phi, pairs)
    monkeypatch.setattr("pluralign.reward.uncertainty.CHUNK", 30)
    np.testing.assert_allclose(reward.decompose(p, phi, pairs).ignorance, whole.ignorance, rtol=1e-12)


def test_a_probit_response_decomposes_probits(simulation):
    from scipy.stats import norm

    model = {"response": {"pairs": {"kind": "thurstone"}}, "kind": "pooled"}
    p = posterior([[[1.5]]] * 3, [1.0], **model)
    found = reward.decompose(p, simulation.features([[1.0], [0.0]]), np.array([[0, 1]]))
    assert found.probability[0] == pytest.approx(norm.cdf(1.5))


def test_hidden_context_of_the_published_example(simulation):
    """Casper et al. 2023, section 3.1.4: A is worth 1 to all; B is worth 10 to 40 %, 0 to the others.

    Centred within the prompt, mean worths are -1.5 and 1.5, and either varies by 25 x 0.24 about its own.
    """
    weights = [[[1.0, 10.0], [1.0, 0.0]]] * 4
    p = posterior(weights, [0.4, 0.6])
    r2 = reward.hidden_context(p, simulation.features(np.eye(2)))
    np.testing.assert_allclose(r2, 2.25 / (2.25 + 25 * 0.24), rtol=1e-6)
    agreed = posterior([[[1.0, 3.0], [1.0, 3.0]]] * 4, [0.4, 0.6])
    np.testing.assert_allclose(reward.hidden_context(agreed, simulation.features(np.eye(2))), 1)


def test_what_prompts_differ_in_is_no_context(simulation):
    """A feature that is the same for all responses to a prompt says nothing about which is better."""
    phi = replace(simulation.features([[1, 5], [0, 5], [1, -7], [0, -7]]), prompt_id=np.array([0, 0, 1, 1], np.int32))
    p = posterior([[[1.0, 3.0], [1.0, -3.0]]] * 2, [0.5, 0.5])
    np.testing.assert_allclose(reward.hidden_context(p, phi), 1)
    with pytest.raises(InputError, match="no prompt has two items"):
        reward.hidden_context(p, replace(phi, prompt_id=np.arange(4, dtype=np.int32)))


def test_leverage_is_one_on_average_and_infinite_beyond_the_data(world, simulation):
    slate = world.votes.choices.slate
    x = world.phi.phi[slate[:, 0]] - world.phi.phi[slate[:, 1]]
    assert reward.leverage(world.votes, world.phi, x).mean() == pytest.approx(1)
    assert reward.leverage(world.votes, world.phi, 3 * x[:1])[0] == pytest.approx(
        9 * reward.leverage(world.votes, world.phi, x[:1])[0]
    )
    flat = simulation.features(np.concatenate([world.phi.phi, np.zeros((40, 1))], 1))
    asked = np.concatenate([np.concatenate([x[:1], np.zeros((1, 1))], 1), [[0, 0, 0, 1e-3]]])
    inside, outside = reward.leverage(world.votes, flat, asked)
    assert inside == pytest.approx(reward.leverage(world.votes, world.phi, x[:1])[0])
    assert outside == np.inf
