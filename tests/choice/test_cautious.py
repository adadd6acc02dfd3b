"""Caution response by response: against loops, and what it must not feel."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.special import softmax

from pluralign import artifacts, choice
from pluralign.errors import InputError
from pluralign.types import CautiousReward, Choice, Linear, Utilities


def by_hand(caution, values):
    if isinstance(caution, choice.LowerBound):
        mean = sum(values) / len(values)
        return mean - caution.k * (sum((v - mean) ** 2 for v in values) / len(values)) ** 0.5
    left, total = max(caution.tail * len(values), 1.0), 0.0
    for v in sorted(values):
        total += min(left, 1.0) * v
        left -= min(left, 1.0)
    return total / max(caution.tail * len(values), 1.0)


@pytest.mark.parametrize(
    "caution", [choice.LowerBound(1.5), choice.LowerTail(0.4), choice.LowerTail(0.0), choice.LowerTail(1.0)], ids=str
)
@pytest.mark.parametrize("dense", [False, True])
def test_each_response_is_valued_by_its_draws(make, caution, dense):
    u = make(seed=30)
    u = Utilities(u.dense(), u.mass, u.reference) if dense else u
    chosen = choice.Nash().choose(u, beta=0.3)
    found = choice.cautious(chosen, caution)
    value, of_voter = u.dense(), chosen.weights.sum(0)
    score = np.zeros(u.reference.shape)
    for x, y in np.ndindex(*score.shape):
        worth = [
            sum(m * (value[s, v, x, y] - u.reference[x] @ value[s, v, x]) for v, m in enumerate(of_voter))
            for s in range(u.shape[0])
        ]
        score[x, y] = by_hand(caution, worth)
    with np.errstate(divide="ignore"):
        np.testing.assert_allclose(found.lottery, softmax(np.log(u.reference) + score / 0.3, -1), atol=1e-10)
    assert found.certificate.tv_bound < 1e-6
    assert found.risk.startswith("mean over posterior draws; then each response valued")
    if dense:
        assert found.reward is None
        return
    for x in range(len(score)):
        phi = u.value.phi[x]
        against = (u.reference[x] @ phi)[None]
        np.testing.assert_allclose(found.reward.score(phi, against), score[x], atol=1e-10)


def test_without_caution_it_is_the_utilitarian_reward(make):
    chosen = choice.Utilitarian().choose(make(seed=31), beta=0.2)
    plain = choice.cautious(chosen, choice.LowerBound(0.0))
    np.testing.assert_allclose(plain.lottery, chosen.lottery, atol=1e-9)
    phi = np.random.default_rng(0).normal(size=(5, 3))
    ours, theirs = plain.reward.score(phi), chosen.reward.score(phi)
    np.testing.assert_allclose(ours - ours[0], theirs - theirs[0], atol=1e-9)
    assert np.abs(choice.cautious(chosen).lottery - chosen.lottery).max() > 1e-3


def unmoved(lottery_of, u):
    """What is added to all responses to a prompt, other in every draw, says nothing of any of them."""
    shift = 3 * np.random.default_rng(1).normal(size=(u.shape[0], 1, u.shape[2], 1))
    moved = Utilities(u.dense() + shift, u.mass, u.reference)
    np.testing.assert_allclose(lottery_of(u), lottery_of(moved), atol=1e-9)


def test_what_is_common_to_a_prompt_is_no_uncertainty(make):
    u = make(seed=32)
    unmoved(lambda x: choice.cautious(choice.Utilitarian().choose(x, beta=0.2)).lottery, u)

    def from_zero(x):
        worth = np.einsum("v,svxy->sxy", x.mass, x.dense())
        score = worth.mean(0) - worth.std(0)
        on = np.where(x.reference > 0, score / 0.2, -np.inf)
        return softmax(np.log(np.where(x.reference > 0, x.reference, 1)) + on, -1)

    with pytest.raises(AssertionError):
        unmoved(from_zero, u)


def test_more_caution_leaves_what_draws_disagree_on():
    """Two answers of the same mean, one of them sure; the more caution, the more of the sure one."""
    value = np.array([[0.5, 3.0, 0.0], [0.5, -2.0, 0.0]])[:, None, None]
    chosen = choice.Utilitarian().choose(single(value), beta=1.0)
    assert chosen.lottery[0, 0] == pytest.approx(chosen.lottery[0, 1])
    sure = [choice.cautious(chosen, choice.LowerBound(k)).lottery[0, 0] for k in (0.0, 0.5, 1.0, 2.0)]
    assert (np.diff(sure) > 0.02).all()


def single(value):
    return Utilities(value, [1.0], np.full((1, value.shape[-1]), 1 / value.shape[-1]))


def test_it_is_saved_and_wrong_things_are_refused(make, tmp_path):
    chosen = choice.cautious(choice.Maximin().choose(make(seed=33), beta=0.3), choice.LowerTail(0.5))
    loaded = artifacts.load(artifacts.save(chosen, tmp_path / "chosen"), Choice)
    phi = np.random.default_rng(2).normal(size=(4, 3))
    np.testing.assert_allclose(loaded.reward.score(phi), chosen.reward.score(phi))
    assert loaded.reward.tail == 0.5
    with pytest.raises(InputError, match="2 features, but this reward was made from 3"):
        chosen.reward.score(phi[:, :2])
    with pytest.raises(InputError, match="borda has no weights of voters"):
        choice.cautious(choice.Borda().choose(make(seed=33)))
    for wrong in ({"k": -1.0}, {"k": np.nan}, {"tail": 1.5}, {"tail": -0.1}):
        with pytest.raises(InputError, match=f"{next(iter(wrong))} is"):
            replace(chosen.reward, **wrong)
    with pytest.raises(InputError, match="disagree on features"):
        CautiousReward(np.zeros((2, 3)), np.zeros(2))


def test_the_pessimism_of_a_gaussian_posterior():
    """`phi · m - k sqrt(phi' S phi)` of every response, measured from the reference's features."""
    rng = np.random.default_rng(3)
    phi, half = rng.normal(size=(1, 4, 3)), rng.normal(size=(3, 3))
    draws = rng.multivariate_normal([0.3, -0.2, 0.5], half @ half.T, size=60_000)
    u = Utilities(Linear(phi, draws[:, None], np.zeros((60_000, 1))), [1.0], np.full((1, 4), 0.25))
    found = choice.cautious(choice.Utilitarian().choose(u, beta=0.5), choice.LowerBound(0.8))
    off = phi[0] - phi[0].mean(0)
    expected = off @ [0.3, -0.2, 0.5] - 0.8 * np.sqrt(np.einsum("yf,fg,yg->y", off, half @ half.T, off))
    np.testing.assert_allclose(found.reward.score(phi[0]), expected, atol=0.03)
