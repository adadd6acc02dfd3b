import numpy as np
import pytest
import torch

from pluralign.policy.losses import online

rng = np.random.default_rng(0)
MASK = torch.tensor([[1, 1, 1, 1], [1, 1, 0, 0], [1, 0, 0, 0], [1, 1, 1, 0]], dtype=torch.bool)


def table(*shape):
    return torch.tensor(rng.normal(size=shape), dtype=torch.float64)


def test_where_nothing_moved_the_clipped_loss_is_the_policy_gradient():
    log_probs, advantage = table(4, 4).requires_grad_(), table(4, 4)
    online.clipped(log_probs, log_probs.detach(), advantage, MASK, 0.2).sum().backward()
    torch.testing.assert_close(log_probs.grad, -advantage * MASK)


def test_the_clipped_loss_by_hand():
    """Ratios of 1.5 and 0.5 with clip 0.2: what has gone too far in the good direction has no gradient."""
    ratio = torch.tensor([[1.5, 0.5], [1.5, 0.5]], dtype=torch.float64)
    log_probs = ratio.log().requires_grad_()
    advantage = torch.tensor([[2.0, 2.0], [-2.0, -2.0]], dtype=torch.float64)
    loss = online.clipped(log_probs, torch.zeros_like(ratio), advantage, torch.ones_like(ratio, dtype=torch.bool), 0.2)
    torch.testing.assert_close(loss.detach(), torch.tensor([-(1.2 + 0.5) * 2, (1.5 + 0.8) * 2], dtype=torch.float64))
    loss.sum().backward()
    assert (log_probs.grad == 0).tolist() == [[True, False], [False, True]]


def test_masked_tokens_have_no_gradient_even_where_they_are_not_numbers():
    log_probs = torch.where(MASK, table(4, 4), torch.nan).requires_grad_()
    loss = online.clipped(log_probs, torch.zeros(4, 4), torch.where(MASK, 1.0, torch.nan), MASK, 0.2)
    loss.sum().backward()
    assert torch.isfinite(loss).all()
    assert (log_probs.grad[~MASK] == 0).all()
    assert (log_probs.grad[MASK] != 0).any()


@pytest.mark.parametrize(("discount", "trace"), [(1.0, 0.95), (0.9, 0.5), (1.0, 1.0), (1.0, 0.0)])
def test_generalised_advantages_are_the_double_sum(discount, trace):
    reward, value = table(4, 4), table(4, 4)
    found = online.gae(reward, value, MASK, discount, trace)
    for i, counts in enumerate(MASK.sum(1).tolist()):
        r, v = reward[i, :counts].numpy(), np.append(value[i, :counts].numpy(), 0)
        for t in range(counts):
            sums = [
                (discount * trace) ** k * (r[t + k] + discount * v[t + k + 1] - v[t + k]) for k in range(counts - t)
            ]
            assert float(found[i, t]) == pytest.approx(sum(sums))
    assert (found[~MASK] == 0).all()


def test_the_critic_puts_the_reward_on_the_last_token():
    reward, price, value = table(4), table(4, 4), table(4, 4)
    found = online.Critic(trace=1.0).advantage(reward, price, value, MASK, 1)
    whole = reward - (price * MASK).sum(1)
    torch.testing.assert_close(found[:, 0], whole - value[:, 0])  # what came in all, less what was expected at first


def test_whitened_advantages_have_mean_zero_and_unit_spread():
    advantage = 5 + 3 * table(4, 4)
    white = online.Critic().whiten(advantage, MASK, torch.mean)
    assert float(white[MASK].mean()) == pytest.approx(0, abs=1e-12)
    assert float(white[MASK].std(correction=0)) == pytest.approx(1)
    assert (white[~MASK] == 0).all()


@pytest.mark.parametrize("baseline", [online.LeaveOneOut(), online.Normalised()], ids=["leave-one-out", "normalised"])
def test_group_baselines_by_hand(baseline):
    reward, price = table(4), table(4, 4)
    net = (reward - (price * MASK).sum(1)).view(2, 2).numpy()
    found = baseline.advantage(reward, price, None, MASK, 2)
    apart = net[:, 0] - net[:, 1]
    wanted = apart if isinstance(baseline, online.LeaveOneOut) else np.sign(apart) / np.sqrt(2)
    np.testing.assert_allclose(found[[0, 2], 0].numpy(), wanted)
    np.testing.assert_allclose(found[[1, 3], 0].numpy(), -wanted)
    assert (found[~MASK] == 0).all()


def test_the_leave_one_out_gradient_is_unbiased_and_that_of_a_full_mean_is_too_small():
    """Three answers with p = softmax(theta): E[sum_i A_i grad log p(y_i)] over all pairs of two draws, exactly."""
    theta, reward = np.array([0.3, -0.2, 0.1]), np.array([1.0, -1.0, 0.5])
    p = np.exp(theta) / np.exp(theta).sum()
    score = np.eye(3) - p  # grad log p(y), by y
    total = np.zeros(3)
    for a in range(3):
        for b in range(3):
            pair = torch.tensor([reward[a], reward[b]])
            A = online.LeaveOneOut().advantage(pair, torch.zeros(2, 1).double(), None, torch.ones(2, 1).bool(), 2)
            total += p[a] * p[b] * (A[:, 0].numpy() @ score[[a, b]]) / 2
    exact = p * (reward - p @ reward)
    np.testing.assert_allclose(total, exact)
    assert not np.allclose(total / 2, exact)


def test_estimates_of_the_divergence_have_its_mean():
    p, q = np.array([0.5, 0.3, 0.2]), np.array([0.2, 0.3, 0.5])
    ratio = torch.tensor(np.log(p / q))[:, None]
    one, three = online.kl_estimates(ratio, torch.ones(3, 1).bool())
    exact = (p * np.log(p / q)).sum()
    assert p @ one.numpy() == pytest.approx(exact)
    assert p @ three.numpy() == pytest.approx(exact)
    assert (three >= 0).all()
    assert (one < 0).any()


def test_the_critics_loss_by_hand():
    value, old, target = (torch.tensor([[x]]) for x in (3.0, 1.0, 4.0))
    mask = torch.ones(1, 1).bool()
    assert float(online.value_loss(value, old, target, mask, 10.0)) == pytest.approx(0.5)
    assert float(online.value_loss(value, old, target, mask, 0.5)) == pytest.approx((1.5 - 4) ** 2 / 2)


def test_the_price_answers_to_a_divergence_off_its_target_and_has_a_floor():
    """Ziegler et al. (2019), eq. 6, at their clip of .2: by hand."""
    assert online.price(1.0, kl=5.5, target=5.0, least=0.1) == pytest.approx(1 + 0.2 * 0.1)
    assert online.price(1.0, kl=50.0, target=5.0, least=0.1) == pytest.approx(1.04)
    assert online.price(1.0, kl=0.0, target=5.0, least=0.1) == pytest.approx(0.96)
    assert online.price(1.0, kl=0.0, target=5.0, least=0.99) == 0.99


def test_tokens_outside_the_clip_range_are_counted_among_those_that_count():
    ratio = torch.tensor([[1.5, 1.1, 0.5, 9.0], [1.0, 1.19, 9.0, 9.0], [0.7, 9.0, 9.0, 9.0], [1.0, 1.0, 1.25, 9.0]])
    assert online.left(ratio.log(), torch.zeros(4, 4), MASK, 0.2).tolist() == pytest.approx([0.75, 0, 1, 1 / 3])


def test_a_critic_explains_what_a_regression_on_it_leaves():
    value, target = table(4, 4), table(4, 4)
    v, r = value[MASK].numpy(), target[MASK].numpy()
    assert float(online.explained(value, target, MASK)) == pytest.approx(1 - np.cov(r - v) / np.cov(r))
    assert float(online.explained(target, target, MASK)) == 1
