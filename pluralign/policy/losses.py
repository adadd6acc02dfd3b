"""The formulas of policy training, each written once."""

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


def soft_label(first: Float[Tensor, " pair"], second: Float[Tensor, " pair"], beta: float) -> Float[Tensor, " pair"]:
    """Return `p = sigmoid(beta (t1 - t2))`, the probability that the first response of a pair is preferred.

    This is Bradley-Terry with the reward `beta t`, the one whose optimal policy at temperature `beta` is
    `pi_ref exp(t) / Z` (Rafailov et al. 2023, eq. 4 and 6).

    Args:
        first: `t1 = log(p* / pi_ref)` of the first responses, up to a constant per prompt.
        second: the same of the second responses.
        beta: of `dpo`.
    """
    return torch.sigmoid(beta * (first - second))


def dpo(
    first: Float[Tensor, " pair"], second: Float[Tensor, " pair"], label: Float[Tensor, " pair"], beta: float
) -> Float[Tensor, " pair"]:
    """Return the DPO loss of each pair with a soft label.

    `L = -[p log sigmoid(beta h) + (1 - p) log sigmoid(-beta h)]`,
    `h = log(pi / pi_ref)(y1 | x) - log(pi / pi_ref)(y2 | x)`.

    With `p` in {0, 1} it is eq. 7 of Rafailov et al. 2023, "Direct Preference Optimization". Like every
    cross-entropy it is least where `sigmoid(beta h) = p`. With `p = soft_label(t1, t2, beta)` that is
    `h = t1 - t2`, for every `beta > 0`; all pairs of a prompt agree on this exactly if
    `log(pi / pi_ref) = t + constant`, so the minimiser over all pairs is `pi ∝ pi_ref exp(t)` on the candidates.
    So `beta` does not move the optimum: near it the loss is `beta^2 (h - t1 + t2)^2 / 8`, a plain square for a
    small `beta`, while a large one gives less weight to pairs that are already far apart.

    Args:
        first: `log(pi / pi_ref)` of the first responses.
        second: the same of the second responses.
        label: `p`, in [0, 1].
        beta: above 0.
    """
    margin = beta * (first - second)
    return -(label * F.logsigmoid(margin) + (1 - label) * F.logsigmoid(-margin))


def label_entropy(label: Float[Tensor, " pair"]) -> Float[Tensor, " pair"]:
    """Return `H(p) = -p log p - (1 - p) log(1 - p)`, the least value that `dpo` can take, in nats."""
    return -(torch.xlogy(label, label) + torch.xlogy(1 - label, 1 - label))


def pair_kl(
    first: Float[Tensor, " pair"],
    second: Float[Tensor, " pair"],
    first_reference: Float[Tensor, " pair"],
    second_reference: Float[Tensor, " pair"],
) -> Float[Tensor, " pair"]:
    """Return `KL(q || rho)` on the two candidates of a pair, in nats.

    `rho_i ∝ reference_i` and `q_i ∝ reference_i exp(log(pi / pi_ref)_i)`, both normalised on the pair: how far
    the policy has tilted the candidates that it trains on, in the measure by which the rule paid for it.

    Args:
        first: `log(pi / pi_ref)` of the first candidates.
        second: the same of the second candidates.
        first_reference: reference lottery of the first candidates, above 0.
        second_reference: the same of the second candidates.
    """
    rho = torch.stack([first_reference, second_reference], -1).log().log_softmax(-1)
    q = (rho + torch.stack([first, second], -1)).log_softmax(-1)
    return (q.exp() * (q - rho)).sum(-1)
