"""What linear rules decide in every draw: against all weight vectors of the plane, and against the rule on that draw."""

from dataclasses import replace

import numpy as np
import pytest

from pluralign import choice
from pluralign.errors import InputError
from pluralign.types import Linear, Utilities
from tests.choice.test_linear import random

RULES = [choice.LCPO(), choice.LeximaxPlurality(), choice.LeximaxPlurality(pareto=True), choice.LinearKemeny()]


def posterior(seed, draws=12, **shape) -> Utilities:
    """Voters whose weights are known to about their own size."""
    u = random(seed, **shape)
    weights = u.value.weights + np.random.default_rng(seed).normal(size=(draws, *u.value.weights.shape[1:]))
    return replace(u, value=Linear(u.value.phi, weights, np.zeros(weights.shape[:2])))


def alone(u, s) -> Utilities:
    weights = u.value.weights[[s]]
    return replace(u, value=Linear(u.value.phi, weights, np.zeros(weights.shape[:2])))


def plane(phi):
    """A weight vector for every ranking of these points that one induces: between the angles at which two are equal."""
    difference = (phi[:, None] - phi[None]).reshape(-1, 2)
    difference = difference[np.abs(difference).sum(1) > 0]
    edge = np.unique(np.round((np.arctan2(difference[:, 1], difference[:, 0]) + np.pi / 2) % (2 * np.pi), 12))
    middle = (edge + np.append(edge[1:], edge[0] + 2 * np.pi)) / 2
    return np.stack([np.cos(middle), np.sin(middle)], 1)


def by_hand(rule, phi, theta, mass):
    """The one of most duels, or most first places, among those that some weight vector of the plane puts first."""
    value = theta @ phi.T
    above = value[:, :, None] > value[:, None, :]
    margins = np.einsum("v,vab->ab", mass, above.astype(float) - above.transpose(0, 2, 1))
    score = np.sign(np.round(margins, 9)).sum(1)
    ways = plane(phi) @ phi.T
    if isinstance(rule, choice.LeximaxPlurality):
        score = np.bincount(value.argmax(1), mass, len(phi))
    if isinstance(rule, choice.LCPO) or rule.pareto:
        ways = np.array([w for w in ways if all(w[a] > w[b] for a, b in np.argwhere(above.all(0)))])
    return max({int(w.argmax()) for w in ways}, key=lambda y: (round(score[y], 9), margins[y].sum()))


@pytest.mark.parametrize("rule", RULES[:3], ids=lambda rule: rule.name)
def test_who_is_first_is_the_best_of_those_who_can_be(rule):
    met = set()
    for seed in range(6):
        u = posterior(seed, prompts=1, candidates=5, features=2, voters=4)
        found = choice.decide(rule, u)
        phi = u.value.phi[0]
        for s, theta in enumerate(u.value.weights):
            assert found.shares[s, 0].tolist() == np.eye(5)[by_hand(rule, phi, theta, u.mass)].tolist()
        assert found.plug_in[0].argmax() == by_hand(rule, phi, u.value.weights.mean(0), u.mass)
        value = np.einsum("yf,svf->svy", phi, u.value.weights)
        met |= {tuple(found.shares[s, 0]) == tuple(np.eye(5)[value[s].mean(0).argmax()]) for s in range(12)}
    assert met == {True, False}  # not just the utilitarian's


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.name)
def test_prompts_share_the_weights_of_their_draw(rule):
    u = posterior(3, draws=5, prompts=3, candidates=4, features=3, voters=4)
    reference = u.reference.copy()
    reference[0, 3] = 0
    u = replace(u, reference=reference / reference.sum(1, keepdims=True))
    found = choice.decide(rule, u)
    for s in range(5):
        np.testing.assert_array_equal(found.shares[s], rule.rank(alone(u, s)).above == 0)
    assert (found.shares[:, 0, 3] == 0).all()
    turned = replace(u, value=replace(u.value, phi=u.value.phi[::-1]), reference=u.reference[::-1])
    np.testing.assert_array_equal(choice.decide(rule, turned).shares[:, ::-1], found.shares)


def test_equal_features_share_the_win_and_tables_are_refused_with_the_reason():
    u = posterior(1, draws=3, prompts=1, candidates=3, features=2, voters=3)
    phi = np.concatenate([u.value.phi, u.value.phi], 1)
    twice = replace(u, value=replace(u.value, phi=phi), reference=np.full((1, 6), 1 / 6), item=None)
    once, found = choice.decide(choice.LCPO(), u).shares, choice.decide(choice.LCPO(), twice).shares
    np.testing.assert_allclose(found, np.concatenate([once, once], 2) / 2)
    dense = Utilities(u.dense(), u.mass, u.reference)
    several = choice.decisions([choice.LCPO(), choice.Borda()], dense)
    assert [d.name for d in several.rules] == ["borda"] and "without item effects" in several.reasons["lcpo"]
    with pytest.raises(InputError, match="dense"):
        choice.decide(choice.LCPO(), dense)
