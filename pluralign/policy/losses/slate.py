"""Losses of slates, two or more candidates of one prompt: what is asked of them, and the distillation of a lottery."""

from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from typing import Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from pluralign.policy.losses.link import AbstractLink, LogRatio


@dataclass(frozen=True, eq=False)
class Wanted:
    """What is asked of the candidates of some slates; a slate is two or more candidates of one prompt.

    A group is whoever has labels of its own; without groups there is one.

    Attributes:
        wins: probability that the candidate in the first place is preferred to that in the second.
        lottery: probability of each candidate among those of its slate; all 0 where the rule gives none of them any.
        share: probability that the slate as one is preferred to a standard that stays where it is.
        weight: how much each slate counts for each group, mean 1.
        reference: lottery from which the rule started; 0 = an empty place.
        offset: reward that a candidate has from other objectives, in units of `beta` times a log-ratio.
        part: how much the labels' own objective counts beside those, above 0.
    """

    wins: Float[Tensor, "slate place place group"]
    lottery: Float[Tensor, "slate place group"]
    share: Float[Tensor, "slate group"]
    weight: Float[Tensor, "slate group"]
    reference: Float[Tensor, "slate place"]
    offset: Float[Tensor, "slate place"]
    part: float = 1.0

    def to(self, like: Tensor) -> "Wanted":
        """Return the same on the device and in the precision of a tensor."""
        return replace(self, **{k: v.to(like) for k, v in vars(self).items() if k != "part"})

    @property
    def pairs(self) -> Bool[Tensor, "slate place place"]:
        """Pairs of different candidates, each once."""
        there = self.reference > 0
        return (there[:, :, None] & there[:, None, :]).triu(1)


class AbstractLoss(ABC):
    """What training lowers on slates of candidates."""

    @abstractmethod
    def reading(self) -> AbstractLink:
        """Return how log-ratios are read as rewards."""

    @abstractmethod
    def of(
        self, log_ratio: Float[Tensor, "slate place"], wanted: Wanted, beta: float
    ) -> tuple[Float[Tensor, "slate group"], Float[Tensor, "slate group"]]:
        """Return the loss of each slate for each group, and the least that it could be.

        Args:
            log_ratio: `log(pi / pi_ref)` of the candidates; finite, at empty places too.
            wanted: of the same.
            beta: above 0.
        """

    @abstractmethod
    def curvature(self, beta: float) -> float:
        """Return how curved the loss is in a margin at 0, DPO with `beta` 1 being 1; gradients are cut to that."""


def slate_kl(
    log_ratio: Float[Tensor, "slate place"], reference: Float[Tensor, "slate place"]
) -> Float[Tensor, " slate"]:
    """Return `KL(q || rho)` on the candidates of a slate, in nats.

    `rho_i ∝ reference_i` and `q_i ∝ reference_i exp(log(pi / pi_ref)_i)`, both normalised on the slate: how far the
    policy has tilted the candidates that it trains on, in the measure by which the rule paid for it.

    Args:
        log_ratio: `log(pi / pi_ref)` of the candidates; finite, at empty places too.
        reference: lottery from which the rule started; 0 = an empty place.
    """
    rho = reference.log().log_softmax(-1)
    q = (rho + log_ratio).log_softmax(-1)
    return torch.where(reference > 0, q.exp() * (q - rho), 0).sum(-1)


def slate_mass(
    log_ratio: Float[Tensor, "slate place"], reference: Float[Tensor, "slate place"]
) -> Float[Tensor, " slate"]:
    """Return `log(sum_i reference_i exp(log(pi / pi_ref)_i) / sum_i reference_i)`: by how much a slate's mass grew.

    Over all candidates of a prompt it is 0 at every optimum: what one gains, others lose. Far below 0, probability
    leaks away from all of them.

    Args:
        log_ratio: as for `slate_kl`.
        reference: as for `slate_kl`.
    """
    return torch.logsumexp(reference.log() + log_ratio, -1) - reference.sum(-1).log()


def drift(log_ratio: Float[Tensor, "slate place"], wanted: Wanted, beta: float) -> Float[Tensor, " slate"]:
    """Return `slate_mass` less what is wanted of it, the log odds of `share` over `beta`, mean over groups."""
    grown = wanted.share.double().logit(1e-12) / beta
    return slate_mass(log_ratio, wanted.reference) - grown.mean(-1)


def agreement(
    reward: Float[Tensor, "slate place"],
    label: Float[Tensor, "slate place place"],
    pairs: Bool[Tensor, "slate place place"],
) -> dict[str, Float[Tensor, " slate"]]:
    """Return how rewards order pairs that have labels, means over the pairs of each slate.

    Args:
        reward: of each candidate.
        label: probability that the candidate in the first place is preferred to that in the second.
        pairs: True = counts.

    Returns:
        `accuracy`, the share of pairs ordered as labels do, half where either holds both equal; `margin`, the reward
        of the preferred one less that of the other; `target`, the log odds of the label.
    """
    apart, prefers = reward[:, :, None] - reward[:, None, :], torch.sign(label - 0.5)
    told = {
        "accuracy": (1 + prefers * torch.sign(apart)) / 2,
        "margin": prefers * apart,
        "target": label.logit(1e-12).abs(),
    }
    n = pairs.sum((1, 2))
    return {name: torch.where(pairs, values, 0).sum((1, 2)) / n for name, values in told.items()}


@dataclass(frozen=True)
class Distil(AbstractLoss):
    """Listwise distillation of a lottery: the cross-entropy of what the policy tilts the candidates to.

    `L = -sum_i p*_i log q_i`, `q_i ∝ reference_i exp(log(pi / pi_ref)_i)` on the slate, least where `q = p*`. A
    probability of 0 is learned as such, which no pair of log-ratios can say; so this is the loss for rules that decide
    by votes or by lot. A slate that the rule gives no probability teaches nothing by itself; the level lowers it.
    """

    kind: Literal["distil"] = "distil"

    def reading(self) -> AbstractLink:
        """Return how log-ratios are read as rewards."""
        return LogRatio()

    def of(
        self, log_ratio: Float[Tensor, "slate place"], wanted: Wanted, beta: float
    ) -> tuple[Float[Tensor, "slate group"], Float[Tensor, "slate group"]]:
        """Return the cross-entropy of each slate for each group, and the entropy of what is wanted."""
        q = (wanted.reference.log() + log_ratio).log_softmax(-1)[..., None]
        entropy = -torch.xlogy(wanted.lottery, wanted.lottery).sum(1)
        return -torch.where(wanted.lottery > 0, wanted.lottery * q, 0).sum(1), entropy

    def curvature(self, beta: float) -> float:
        """Return what it is about."""
        return 1.0
