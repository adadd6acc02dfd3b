"""From a posterior and features to utilities."""

import itertools
from dataclasses import replace

import numpy as np
import pytest

from pluralign import choice
from pluralign.errors import InputError
from pluralign.types import Features, FitReport, Linear, RewardPosterior

PROMPT = [0, 2, 0, 2, 2, 5]


def features(**changes) -> Features:
    rng = np.random.default_rng(0)
    fields = {"phi": rng.normal(size=(6, 2)), "prompt_id": PROMPT, "names": ("a", "b"), "origin": [0, 0]}
    return Features(**({"basis": np.eye(2)} | fields | changes))


def posterior(draws=7, objectives=1, names=("a", "b"), caveats=()) -> RewardPosterior:
    rng = np.random.default_rng(1)
    fit = FitReport("by hand", 1, draws, 0, {}, {}, {}, 0.0, caveats)
    weights = rng.normal(size=(draws, 3, objectives, len(names)))
    asked = ("kind", "short")[:objectives]
    return RewardPosterior(weights, [0.2, 0.3, 0.5], ("ann", "bob", "cyd"), None, {}, names, fit, asked)


def test_rows_are_prompts_and_utilities_are_dot_products():
    phi, fitted = features(), posterior()
    u = choice.utilities(fitted, phi, scale=choice.NoScale())
    assert u.prompts == (0, 2, 5)
    assert u.item.tolist() == [[0, 2, -1], [1, 3, 4], [5, -1, -1]]
    np.testing.assert_allclose(u.reference, [[1 / 2, 1 / 2, 0], [1 / 3, 1 / 3, 1 / 3], [1, 0, 0]])
    assert isinstance(u.value, Linear)
    assert u.voters == fitted.voters
    assert u.scale == choice.NoScale().words
    logits = np.einsum("if,svf->svi", phi.phi.astype(float), fitted.weights[:, :, 0].astype(float))
    dense = u.dense()
    for s, v in np.ndindex(7, 3):
        zero = np.mean([logits[s, v, [0, 2]].mean(), logits[s, v, [1, 3, 4]].mean(), logits[s, v, 5]])
        for x, y in zip(*np.nonzero(u.reference), strict=True):
            assert dense[s, v, x, y] == pytest.approx(logits[s, v, u.item[x, y]] - zero, abs=1e-6)
    np.testing.assert_allclose(u.of(phi.phi)[:, :, 3], dense[:, :, 1, 1], atol=1e-6)


def test_the_default_scale_is_std_and_every_rule_can_use_it():
    u = choice.utilities(posterior(), features())
    np.testing.assert_allclose(u.dense(), choice.utilities(posterior(), features(), scale=choice.StdScale()).dense())
    for rule in (choice.Utilitarian(), choice.Nash(), choice.Maximin()):
        chosen = rule.choose(u, risk=choice.CVaR(tail=0.25), beta=0.5)
        assert chosen.reward is not None
        assert chosen.lottery[2, 0] == 1


def test_thinning_is_even_and_deterministic():
    fitted = posterior(draws=9)
    u = choice.utilities(fitted, features(), scale=choice.NoScale(), draws=3)
    np.testing.assert_allclose(u.value.weights, fitted.weights[[0, 4, 8], :, 0])
    assert choice.utilities(fitted, features(), draws=50).shape[0] == 9
    with pytest.raises(InputError, match="draws is 0"):
        choice.utilities(fitted, features(), draws=0)


def test_prompts_are_chosen_by_id_and_keep_their_order():
    u = choice.utilities(posterior(), features(), prompts=[2, 0])
    assert u.prompts == (2, 0)
    assert u.item.tolist() == [[1, 3, 4], [0, 2, -1]]
    with pytest.raises(InputError, match=r"prompts \[1, 7\] have no candidates"):
        choice.utilities(posterior(), features(), prompts=[0, 1, 7])
    with pytest.raises(InputError, match="prompts is empty"):
        choice.utilities(posterior(), features(), prompts=[])


def test_a_reference_weighs_items_and_can_leave_some_out():
    u = choice.utilities(posterior(), features(), reference=np.array([3.0, 0, 1, 2, 2, 9]))
    assert u.item.tolist() == [[0, 2], [3, 4], [5, -1]]
    np.testing.assert_allclose(u.reference, [[0.75, 0.25], [0.5, 0.5], [1, 0]])
    for wrong in (np.ones(5), -np.ones(6), np.full(6, np.nan)):
        with pytest.raises(InputError, match="reference must be"):
            choice.utilities(posterior(), features(), reference=wrong)


def test_several_objectives_need_a_word_on_how_they_add_up():
    fitted = posterior(objectives=2)
    with pytest.raises(InputError, match=r"objectives .*kind.*say with `objectives`"):
        choice.utilities(fitted, features())
    with pytest.raises(InputError, match=r"names \['sweet'\]"):
        choice.utilities(fitted, features(), objectives={"sweet": 1.0})
    alone = choice.utilities(fitted, features(), scale=choice.NoScale(), objectives={"short": 1.0})
    np.testing.assert_allclose(alone.value.weights, fitted.weights[:, :, 1], atol=1e-6)
    u = choice.utilities(fitted, features(), scale=choice.NoScale(), objectives={"short": -2.0, "kind": 1.0})
    np.testing.assert_allclose(u.value.weights, fitted.weights[:, :, 0] - 2 * fitted.weights[:, :, 1], atol=1e-6)


def test_items_count_beyond_their_features_if_asked():
    fitted, phi = posterior(), features()
    with pytest.raises(InputError, match="no item effects"):
        choice.utilities(fitted, phi, items=True)
    quality = np.random.default_rng(2).normal(size=(7, 6, 1))
    fitted = replace(fitted, quality=quality)
    plain, full = (choice.utilities(fitted, phi, scale=choice.NoScale(), items=i) for i in (False, True))
    for s, v, (x, y) in itertools.product(range(7), range(3), [(0, 0), (1, 2), (2, 0)]):
        gain = full.dense()[s, v, x] - plain.dense()[s, v, x]
        members = [i for i in full.item[x] if i >= 0]
        own = quality[s, full.item[x, y], 0] - quality[s, members, 0].mean()
        assert gain[y] - gain[: len(members)].mean() == pytest.approx(own, abs=1e-6)


def test_features_of_another_map_are_refused_and_caveats_are_handed_on():
    with pytest.raises(InputError, match="encode with the map that it was fitted with"):
        choice.utilities(posterior(names=("a", "c")), features())
    assert choice.utilities(posterior(caveats=("it did not mix",)), features()).caveats == ("it did not mix",)


def test_a_voter_whom_nothing_moves_is_named():
    phi = features(phi=np.stack([[0.0, 1, 0, 1, 1, 0], np.arange(6.0)], 1))  # feature a differs between prompts only
    fitted = posterior()
    weights = fitted.weights.copy()
    weights[:, 1, 0, 1] = 0
    fitted = RewardPosterior(weights, fitted.mass, fitted.voters, None, {}, fitted.features, fitted.fit)
    with pytest.raises(InputError, match=r"indifferent.*\(bob\)"):
        choice.utilities(fitted, phi)
