"""The log-probability of a token from hidden states, without a table of tokens by vocabulary.

Autograd keeps a softmax for every token until the backward pass: at 32,000 words that is a hundred times the hidden
state. But with a frozen output layer the gradient is known as soon as the softmax is,

    d log p(token) / d hidden = W[token] - sum_v softmax_v W[v],

one vector of the hidden state's width per token. It is made in the forward pass, a few tokens at a time, and kept.
"""

from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

CHUNK = 1 << 22  # logits at a time: 16 MiB in float32, small enough for a processor's cache, large for its matrix unit


class _TokenLogProbs(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        hidden: Float[Tensor, "token width"],
        weight: Float[Tensor, "vocabulary width"],
        bias: Float[Tensor, " vocabulary"] | None,
        tokens: Int[Tensor, " token"],
        chunk: int,
    ) -> Float[Tensor, " token"]:
        wide = torch.float64 if hidden.dtype == torch.float64 else torch.float32
        result = torch.empty(len(tokens), dtype=wide, device=hidden.device)
        slope = torch.empty_like(hidden) if ctx.needs_input_grad[0] else None
        for start in range(0, len(tokens), chunk):
            part = slice(start, start + chunk)
            index = tokens[part, None]
            logits = F.linear(hidden[part], weight, bias).to(wide)
            top = logits.amax(-1, keepdim=True)
            of_token = logits.gather(-1, index) - top
            odds = logits.sub_(top).exp_()  # in place: the same memory, from here on relative to the likeliest token
            total = odds.sum(-1, keepdim=True)
            result[part] = (of_token - total.log()).squeeze(-1)
            if slope is not None:
                mean = odds.div_(total).to(weight.dtype) @ weight
                slope[part] = weight[tokens[part]] - mean
        ctx.save_for_backward(slope)
        return result

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *grads: Float[Tensor, " token"]) -> tuple[Tensor | None, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        (slope,) = ctx.saved_tensors
        return (slope * grads[0][:, None]).to(slope.dtype), None, None, None, None


def token_log_probs(
    hidden: Float[Tensor, "token width"],
    weight: Float[Tensor, "vocabulary width"],
    bias: Float[Tensor, " vocabulary"] | None,
    tokens: Int[Tensor, " token"],
    chunk: int | None = None,
) -> Float[Tensor, " token"]:
    """Return `log p(token) = l[token] - log sum_v exp l[v]`, `l = W hidden + b`, in nats.

    It can be differentiated by `hidden`, once; not by `weight` and `bias`, which therefore must be frozen. Logits
    come in the dtype of the weights, everything after them in at least float32.

    Args:
        hidden: last hidden state at the place before each token.
        weight: `W` of the output layer.
        bias: `b` of the output layer.
        tokens: what was written there.
        chunk: tokens at a time; None = as many as make `CHUNK` logits.

    Raises:
        ValueError: the weight or the bias is to be trained.
    """
    if torch.is_grad_enabled() and (weight.requires_grad or (bias is not None and bias.requires_grad)):
        raise ValueError("the output layer is to be trained; use losses.token_log_probs, which differentiates it.")
    made: Any = _TokenLogProbs.apply(hidden, weight, bias, tokens, chunk or max(1, CHUNK // len(weight)))
    return made
