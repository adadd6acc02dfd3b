"""Log-probabilities of tokens and of responses."""

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor


def token_log_probs(
    logits: Float[Tensor, "row token vocabulary"], tokens: Int[Tensor, "row token"], mask: Bool[Tensor, "row token"]
) -> Float[Tensor, "row token"]:
    """Return `log pi(token) = logits[token] - log sum_v exp logits[v]`, in nats, and 0 where `mask` is False.

    Masked tokens have a gradient of exactly zero. The sum is taken in at least float32.

    Args:
        logits: at the position before each token.
        tokens: what was written there; any value where `mask` is False.
        mask: True = counts.
    """
    wide = logits if logits.dtype == torch.float64 else logits.float()
    ignored = tokens.masked_fill(~mask, -100)
    return -F.cross_entropy(wide.flatten(0, 1), ignored.flatten(), ignore_index=-100, reduction="none").view(mask.shape)


def sequence_log_probs(
    logits: Float[Tensor, "row token vocabulary"], tokens: Int[Tensor, "row token"], mask: Bool[Tensor, "row token"]
) -> Float[Tensor, " row"]:
    """Return `log pi(y | x) = sum_token log pi(y_token | x, y_<token)`, in nats, over tokens that count."""
    return token_log_probs(logits, tokens, mask).sum(-1)
