"""Formulas of online training: PPO's loss, advantages, the critic's loss, the price of divergence and its estimates."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from pluralign.errors import InputError

PATIENCE = 0.2  # by how much the price answers to a divergence off its target, per step; Ziegler et al. (2019) take .1


def clipped(
    log_probs: Float[Tensor, "row token"],
    old: Float[Tensor, "row token"],
    advantage: Float[Tensor, "row token"],
    mask: Bool[Tensor, "row token"],
    clip: float,
) -> Float[Tensor, " row"]:
    """Return PPO's loss of each response, summed over its tokens (Schulman et al. 2017, eq. 7).

    `L = -sum_token min(w A, clip(w, 1 - clip, 1 + clip) A)`, `w = pi(token) / pi_old(token)`. Where `w = 1` its
    gradient is that of `-A log pi`. A sum and not a mean: with a mean every token of a long response would count less,
    and the optimum would depend on lengths.

    Args:
        log_probs: of the policy, in nats.
        old: of the policy that wrote the tokens.
        advantage: of each token; any value where `mask` is False.
        mask: True = counts.
        clip: in (0, 1), usually .2.
    """
    ratio = (log_probs - old).masked_fill(~mask, 0).exp()
    advantage = advantage.masked_fill(~mask, 0)
    return -torch.minimum(ratio * advantage, ratio.clamp(1 - clip, 1 + clip) * advantage).sum(-1)


def kl_estimates(
    log_ratio: Float[Tensor, "row token"], mask: Bool[Tensor, "row token"]
) -> tuple[Float[Tensor, " row"], Float[Tensor, " row"]]:
    """Return two estimates of `KL(pi || pi_ref)` from responses that pi wrote, in nats (Schulman 2020).

    `k1 = sum_token log w` and `k3 = sum_token log w + 1 / w - 1`, `w = pi / pi_ref` of each token. Both are unbiased,
    and k3 is never negative; but its `1 / w` has heavy tails once the policy has gone far.
    """
    log_ratio = log_ratio.masked_fill(~mask, 0)
    return log_ratio.sum(-1), (log_ratio + torch.expm1(-log_ratio)).sum(-1)


def gae(
    reward: Float[Tensor, "row token"],
    value: Float[Tensor, "row token"],
    mask: Bool[Tensor, "row token"],
    discount: float,
    trace: float,
) -> Float[Tensor, "row token"]:
    """Return generalised advantages (Schulman et al. 2015, eq. 16), 0 where `mask` is False.

    `A_t = sum_k (discount trace)^k delta_{t+k}`, `delta_t = r_t + discount V_{t+1} - V_t`, V = 0 after the end.

    Args:
        reward: for each token.
        value: what the critic expected before each token.
        mask: True = counts; tokens that count come first.
        discount: of later rewards, in (0, 1].
        trace: lambda of the paper: 0 trusts the critic, 1 what was seen.
    """
    reward, value = reward.masked_fill(~mask, 0), value.masked_fill(~mask, 0)
    after = torch.cat([value[:, 1:], value.new_zeros(len(value), 1)], 1)
    surprise = reward + discount * after - value
    advantage, later = torch.zeros_like(reward), reward.new_zeros(len(reward))
    for t in reversed(range(reward.shape[1])):
        later = surprise[:, t] + discount * trace * later
        advantage[:, t] = later
    return advantage.masked_fill(~mask, 0)


def value_loss(
    value: Float[Tensor, "row token"],
    old: Float[Tensor, "row token"],
    target: Float[Tensor, "row token"],
    mask: Bool[Tensor, "row token"],
    clip: float,
) -> Float[Tensor, " row"]:
    """Return the critic's loss of each response, `sum_token max((V - R)^2, (V_near - R)^2) / 2`.

    Args:
        value: `V`, of the critic.
        old: `V_old`, of the critic when the tokens were written; `V_near` is V, but no farther than `clip` from it.
        target: `R = V_old + A`, what was seen.
        mask: True = counts.
        clip: how far the critic may gain by moving on the same tokens, in nats.
    """
    near = old + (value - old).clamp(-clip, clip)
    worse = torch.maximum((value - target) ** 2, (near - target) ** 2) / 2
    return worse.masked_fill(~mask, 0).sum(-1)


def explained(
    value: Float[Tensor, "row token"], target: Float[Tensor, "row token"], mask: Bool[Tensor, "row token"]
) -> Float[Tensor, ""]:
    """Return the share of the variance of returns that the critic explains, `1 - var(R - V) / var(R)`."""
    return 1 - (target - value)[mask].var() / target[mask].var().clamp(min=1e-12)


def left(
    log_probs: Float[Tensor, "row token"],
    old: Float[Tensor, "row token"],
    mask: Bool[Tensor, "row token"],
    clip: float,
) -> Float[Tensor, " row"]:
    """Return the share of each response's tokens with `|pi / pi_old - 1| > clip`."""
    off = ((log_probs - old).exp() - 1).abs() > clip
    return (off & mask).sum(-1) / mask.sum(-1)


def price(beta: float, kl: float, target: float, least: float) -> float:
    """Return the next step's price of a nat, `max(least, beta (1 + PATIENCE clip(kl / target - 1, -0.2, 0.2)))`.

    Ziegler et al. (2019), eq. 6, with a floor.

    Args:
        beta: of this step.
        kl: that it had, in nats per response.
        target: beyond which the price rises, and below which it falls.
        least: below this it never falls.
    """
    return max(least, beta * (1 + PATIENCE * min(max(kl / target - 1, -0.2), 0.2)))


class AbstractBaseline(ABC):
    """What a response is compared with, so that only what is better than expected is made likelier."""

    critic: ClassVar[bool] = False

    @abstractmethod
    def advantage(
        self,
        reward: Float[Tensor, " row"],
        price: Float[Tensor, "row token"],
        value: Float[Tensor, "row token"] | None,
        mask: Bool[Tensor, "row token"],
        group: int,
    ) -> Float[Tensor, "row token"]:
        """Return the advantage of each token.

        Args:
            reward: of each response, in nats (divided by beta).
            price: `log(pi / pi_ref)` of each token, which is subtracted from the reward.
            value: what a critic expected before each token; None without one.
            mask: True = counts.
            group: responses to each prompt, which follow each other.
        """

    def whiten(
        self, advantage: Float[Tensor, "row token"], mask: Bool[Tensor, "row token"], mean: Callable[[Tensor], Tensor]
    ) -> Float[Tensor, "row token"]:
        """Return advantages with the mean and the scale that the loss takes.

        Args:
            advantage: of this process's responses.
            mask: True = counts.
            mean: returns the mean of values over all processes.
        """
        return advantage


@dataclass(frozen=True)
class LeaveOneOut(AbstractBaseline):
    """The mean of the other responses to the prompt (Kool et al. 2019; Ahmadian et al. 2024, RLOO).

    `A_i = v_i - mean_{j != i} v_j`, `v = reward - log(pi / pi_ref)` of the whole response. The others do not depend on
    `y_i`, so `A grad log pi` is an unbiased gradient; and at the optimum `v` is the same for all responses to a prompt,
    so that its noise vanishes there.
    """

    kind: Literal["leave-one-out"] = "leave-one-out"

    def advantage(self, reward, price, value, mask, group):
        """Return the same advantage for every token of a response."""
        net = (reward - price.masked_fill(~mask, 0).sum(-1)).view(-1, group)
        centred = (net - net.mean(-1, keepdim=True)) * (group / (group - 1))
        return centred.view(-1, 1) * mask


@dataclass(frozen=True)
class Normalised(AbstractBaseline):
    """The mean of the prompt's responses, in units of their standard deviation (Shao et al. 2024, GRPO).

    `A_i = (v_i - mean v) / max(std v, least)`, std with ddof 1. Every prompt gets the same say, however little its
    responses differ; near the optimum, where they hardly differ, so does noise.

    Args:
        least: smallest standard deviation to divide by, in nats.
    """

    least: float = 0.1
    kind: Literal["normalised"] = "normalised"

    def __post_init__(self):
        if not self.least > 0:
            raise InputError(f"least is {self.least}; it must be above 0.")

    def advantage(self, reward, price, value, mask, group):
        """Return the same advantage for every token of a response."""
        net = (reward - price.masked_fill(~mask, 0).sum(-1)).view(-1, group)
        scaled = (net - net.mean(-1, keepdim=True)) / net.std(-1, keepdim=True).clamp(min=self.least)
        return scaled.view(-1, 1) * mask


@dataclass(frozen=True)
class Critic(AbstractBaseline):
    """A value head on the policy's last hidden state, trained beside it and kept with the adapter; advantages by GAE.

    Advantages are then whitened over all tokens of a step: mean 0, standard deviation 1.

    Args:
        discount: of later rewards, in (0, 1]; below 1 the optimum is no longer `pi_ref exp(r / beta)`.
        trace: lambda of GAE, in [0, 1].
        weight: of the critic's loss beside the policy's.
        clip: how far the critic may gain by moving on the same tokens, in nats.
    """

    discount: float = 1.0
    trace: float = 0.95
    weight: float = 0.1
    clip: float = 10.0
    kind: Literal["critic"] = "critic"
    critic: ClassVar[bool] = True

    def __post_init__(self):
        if not (0 < self.discount <= 1 and 0 <= self.trace <= 1):
            raise InputError(f"discount ({self.discount}) lies in (0, 1] and trace ({self.trace}) in [0, 1].")
        if not (self.weight > 0 and self.clip > 0):
            raise InputError(f"weight ({self.weight}) and clip ({self.clip}) must be above 0.")

    def advantage(self, reward, price, value, mask, group):
        """Return what each token gained beyond what the critic expected."""
        assert value is not None
        last = mask & ~torch.cat([mask[:, 1:], mask.new_zeros(len(mask), 1)], 1)
        return gae(last * reward[:, None] - price, value, mask, self.discount, self.trace)

    def whiten(self, advantage, mask, mean):
        """Return advantages of mean 0 and standard deviation 1 over all tokens of all processes."""
        centre = mean(advantage[mask])
        spread = mean((advantage[mask] - centre) ** 2).sqrt().clamp(min=1e-4)
        return ((advantage - centre) / spread).masked_fill(~mask, 0)


Baseline = LeaveOneOut | Normalised | Critic
