from typing import Any

import numpy as np
import pytest
import torch
from scipy.special import logsumexp

from pluralign.policy import kernel, losses

rng = np.random.default_rng(0)
TOKENS, WIDTH, WORDS = 7, 5, 11


def tensors(*shapes):
    return [torch.tensor(rng.normal(size=shape)) for shape in shapes]


def problem():
    hidden, weight, bias = tensors((TOKENS, WIDTH), (WORDS, WIDTH), WORDS)
    return hidden.requires_grad_(), weight, bias, torch.tensor(rng.integers(WORDS, size=TOKENS))


@pytest.mark.parametrize("chunk", [1, 3, TOKENS, None])
@pytest.mark.parametrize("biased", [True, False])
def test_values_are_those_of_a_softmax_and_gradients_those_of_differences(chunk, biased):
    hidden, weight, bias, tokens = problem()
    logits = hidden.detach().numpy() @ weight.numpy().T + bias.numpy() * biased
    expected = logits[np.arange(TOKENS), tokens] - logsumexp(logits, axis=-1)

    def of(h):
        return kernel.token_log_probs(h, weight, bias if biased else None, tokens, chunk)

    np.testing.assert_allclose(of(hidden).detach(), expected, atol=1e-12)
    assert torch.autograd.gradcheck(of, (hidden,))


def test_a_wrong_gradient_would_be_noticed():
    hidden, weight, bias, tokens = problem()

    def of(h):
        kept = kernel.token_log_probs(h, weight, bias, tokens)
        return kept.detach() + 1.01 * (kept - kept.detach())

    assert not torch.autograd.gradcheck(of, (hidden,), raise_exception=False)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_it_agrees_with_autograd_through_a_large_vocabulary(dtype):
    """Each half precision rounds the softmax once, as autograd does; so the two are one rounding apart."""
    hidden, weight = tensors((40, 32), (5000, 32))
    tokens, away = torch.tensor(rng.integers(5000, size=40)), torch.tensor(rng.normal(size=40)).float()
    got, plain = (hidden.to(dtype).requires_grad_() for _ in range(2))
    weight = weight.to(dtype)
    fast = kernel.token_log_probs(got, weight, None, tokens, 16)
    slow = losses.token_log_probs((plain @ weight.T)[None], tokens[None], torch.ones(1, 40, dtype=torch.bool))[0]
    assert fast.dtype == torch.float32
    for value in (fast, slow):
        (value * away).sum().backward()
    assert got.grad is not None
    assert plain.grad is not None
    close = 1e-6 if dtype == torch.float32 else 2e-2
    torch.testing.assert_close(fast, slow, rtol=1e-6, atol=1e-5)
    scale = plain.grad.abs().max()
    assert (got.grad - plain.grad).abs().max() < close * scale
    assert (got.grad - plain.grad.roll(1, 0)).abs().max() > 0.1 * scale


def test_far_away_logits_neither_overflow_nor_vanish():
    hidden, weight = torch.tensor([[1000.0], [-1000.0]], requires_grad=True), torch.tensor([[1.0], [-1.0], [0.0]])
    got = kernel.token_log_probs(hidden, weight, None, torch.tensor([1, 2]))
    torch.testing.assert_close(got, torch.tensor([-2000.0, -1000.0]))
    got.sum().backward()
    torch.testing.assert_close(hidden.grad, torch.tensor([[-2.0], [1.0]]))


def test_nothing_is_kept_for_a_gradient_that_nobody_wants():
    hidden, weight, bias, tokens = problem()
    with torch.no_grad():
        without = kernel.token_log_probs(hidden, weight, bias, tokens)
    assert not without.requires_grad
    torch.testing.assert_close(without, kernel.token_log_probs(hidden, weight, bias, tokens).detach())


@pytest.mark.parametrize("which", [1, 2])
def test_an_output_layer_that_is_to_be_trained_is_refused(which):
    inputs: list[Any] = list(problem())
    inputs[which].requires_grad_()
    with pytest.raises(ValueError, match="use losses"):
        kernel.token_log_probs(*inputs)
    with torch.no_grad():
        kernel.token_log_probs(*inputs)
