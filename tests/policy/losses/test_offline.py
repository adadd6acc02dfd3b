import numpy as np
import pytest
import torch
from scipy.special import expit, logsumexp
from scipy.stats import bernoulli, entropy

from pluralign.policy import losses

rng = np.random.default_rng(0)
PAIRS = 6


def tensors(*shape, n=1):
    made = [torch.tensor(rng.normal(size=shape)) for _ in range(n)]
    return made if n > 1 else made[0]


def test_token_log_probs_are_those_of_a_softmax():
    logits, tokens = tensors(3, 4, 7) * 5, torch.tensor(rng.integers(7, size=(3, 4)))
    mask = torch.tensor(rng.random((3, 4)) < 0.6)
    raw = logits.numpy()
    expected = np.array(
        [[raw[i, k, tokens[i, k]] - logsumexp(raw[i, k]) if mask[i, k] else 0 for k in range(4)] for i in range(3)]
    )
    np.testing.assert_allclose(losses.token_log_probs(logits, tokens, mask), expected, atol=1e-12)
    np.testing.assert_allclose(losses.sequence_log_probs(logits, tokens, mask), expected.sum(1), atol=1e-12)


def test_masked_tokens_have_a_gradient_of_exactly_zero_whatever_they_hold():
    logits, tokens = tensors(2, 3, 5).requires_grad_(), torch.tensor([[1, 2, 0], [4, 0, 0]])
    mask = torch.tensor([[True, True, False], [True, False, False]])
    losses.sequence_log_probs(logits, tokens, mask).sum().backward()
    assert logits.grad is not None
    assert (logits.grad[~mask] == 0).all()
    assert (logits.grad[mask].abs().sum(-1) > 0).all()
    other = losses.token_log_probs(logits, torch.where(mask, tokens, 3), mask)
    torch.testing.assert_close(other, losses.token_log_probs(logits, tokens, mask), rtol=0, atol=0)


def test_half_precision_logits_are_summed_in_float32():
    logits = (tensors(1, 2, 1000) * 3).to(torch.bfloat16)
    tokens, mask = torch.zeros(1, 2, dtype=torch.long), torch.ones(1, 2, dtype=torch.bool)
    got = losses.token_log_probs(logits, tokens, mask)
    assert got.dtype == torch.float32
    raw = logits.double().numpy()
    np.testing.assert_allclose(got, raw[..., 0] - logsumexp(raw, axis=-1), atol=1e-5)


@pytest.mark.parametrize("beta", [0.1, 1.0, 3.0])
def test_dpo_is_the_cross_entropy_of_a_bernoulli(beta):
    first, second = tensors(PAIRS, n=2)
    label = torch.tensor(rng.random(PAIRS))
    q, p = expit(beta * (first - second).numpy()), label.numpy()
    # the expected code length of a Bernoulli(p) outcome, outcome by outcome
    expected = -p * bernoulli.logpmf(1, q) - (1 - p) * bernoulli.logpmf(0, q)
    np.testing.assert_allclose(losses.dpo(first, second, label, beta), expected, atol=1e-12)


def test_hard_labels_give_the_loss_of_the_paper():
    """Eq. 7 at a worked example: beta 0.1, log-ratios 2 and -3, so -log sigmoid(0.5) = 0.474077."""
    loss = losses.dpo(torch.tensor([2.0]), torch.tensor([-3.0]), torch.tensor([1.0]), 0.1)
    np.testing.assert_allclose(loss, 0.474077, atol=1e-6)


def test_gradients_are_right_in_float64():
    first, second = (x.requires_grad_() for x in tensors(PAIRS, n=2))
    label = torch.tensor(rng.random(PAIRS)).requires_grad_()
    assert torch.autograd.gradcheck(lambda a, b, p: losses.dpo(a, b, p, 0.7), (first, second, label))
    logits, tokens = tensors(2, 3, 5).requires_grad_(), torch.tensor(rng.integers(5, size=(2, 3)))
    mask = torch.tensor([[True, True, True], [True, False, False]])
    assert torch.autograd.gradcheck(lambda x: losses.sequence_log_probs(x, tokens, mask), (logits,))


def test_only_differences_within_a_pair_matter_and_order_does_not():
    first, second, shift = tensors(PAIRS, n=3)
    label = torch.tensor(rng.random(PAIRS))
    plain = losses.dpo(first, second, label, 0.7)
    torch.testing.assert_close(losses.dpo(first + shift, second + shift, label, 0.7), plain)
    torch.testing.assert_close(losses.dpo(second, first, 1 - label, 0.7), plain)


@pytest.mark.parametrize("beta", [0.1, 1.0])
def test_the_minimiser_over_all_pairs_is_the_target_for_every_beta(beta):
    """Newton's method on four log-ratios finds t up to a constant; with the labels turned round it finds -t."""
    t = torch.tensor([0.5, -1.0, 2.0, 0.0], dtype=torch.float64)
    i, j = torch.triu_indices(4, 4, offset=1)

    def minimiser(label):
        def total(h):
            return losses.dpo(h[i], h[j], label, beta).mean()

        h = torch.zeros(4, dtype=torch.float64)
        for _ in range(50):
            hessian = torch.autograd.functional.hessian(total, h)
            gradient = torch.autograd.functional.jacobian(total, h)
            h = h - torch.linalg.pinv(hessian) @ gradient
        return h - h.mean()

    label = losses.soft_label(t[i], t[j], beta)
    torch.testing.assert_close(minimiser(label), t - t.mean())
    torch.testing.assert_close(minimiser(1 - label), t.mean() - t)


def test_label_entropy_is_the_floor_of_the_loss():
    label = torch.tensor([0.0, 0.1, 0.5, 1.0], dtype=torch.float64)
    np.testing.assert_allclose(losses.label_entropy(label), [entropy([p, 1 - p]) for p in label.numpy()], atol=1e-12)
    h = torch.linspace(-30, 30, 601, dtype=torch.float64)
    least = [losses.dpo(h, torch.zeros_like(h), p.expand(601), 1.0).min() for p in label]
    np.testing.assert_allclose(least, losses.label_entropy(label), atol=1e-5)


def test_slate_kl_is_the_relative_entropy_of_two_lotteries_and_empty_places_play_no_part():
    log_ratio = tensors(PAIRS, 4)
    reference = torch.tensor(rng.random((PAIRS, 4)))
    reference[::2, 3] = 0
    for got, h, rho in zip(losses.slate_kl(log_ratio, reference), log_ratio, reference, strict=True):
        there = (rho > 0).numpy()
        rho, h = rho.numpy()[there], h.numpy()[there]
        assert got == pytest.approx(entropy(rho * np.exp(h), rho), abs=1e-12)


def test_slate_mass_is_how_often_the_policy_writes_the_slate_over_how_often_the_reference_does():
    policy, reference = (rng.dirichlet(np.ones(6)) for _ in range(2))
    log_ratio = torch.tensor(np.log(policy / reference))[None]
    mass = losses.slate_mass(log_ratio[:, :4], torch.tensor(reference)[None, :4])
    assert mass.item() == pytest.approx(np.log(policy[:4].sum() / reference[:4].sum()), abs=1e-12)
    assert losses.slate_mass(log_ratio, torch.tensor(reference)[None]).item() == pytest.approx(0, abs=1e-12)


def test_agreement_counts_pairs_one_by_one():
    reward, label = tensors(2, 3), torch.tensor(rng.random((2, 3, 3)))
    label[0, 0, 1] = 0.5  # a tie
    pairs = torch.ones(2, 3, 3, dtype=torch.bool).triu(1)
    pairs[1, :, 2] = False  # an empty place
    told = losses.agreement(reward, label, pairs)
    for i in range(2):
        right, margin, odds = [], [], []
        for a, b in [(0, 1), (0, 2), (1, 2)] if i == 0 else [(0, 1)]:
            p, gap = float(label[i, a, b]), float(reward[i, a] - reward[i, b])
            right.append(0.5 if p == 0.5 else float((p > 0.5) == (gap > 0)))
            margin.append(0.0 if p == 0.5 else gap if p > 0.5 else -gap)
            odds.append(abs(np.log(p / (1 - p))))
        for name, values in (("accuracy", right), ("margin", margin), ("target", odds)):
            assert float(told[name][i]) == pytest.approx(np.mean(values))


def test_drift_is_zero_where_the_slate_has_the_share_it_is_to_have():
    """A slate whose mass doubles: `sigmoid(beta log 2)` is how often it is preferred to what stays where it is."""
    reference = torch.tensor([[0.1, 0.2]], dtype=torch.float64)
    share = torch.tensor([[2**0.7 / (1 + 2**0.7)]], dtype=torch.float64)
    none = torch.zeros(1, 2, 2, 1)
    wanted = losses.Wanted(none, torch.zeros(1, 2, 1), share, torch.ones(1, 1), reference, torch.zeros(1, 2))
    doubled = torch.full((1, 2), np.log(2), dtype=torch.float64)
    assert losses.drift(doubled, wanted, 0.7).item() == pytest.approx(0, abs=1e-12)
    assert losses.drift(doubled - 1, wanted, 0.7).item() == pytest.approx(-1)
