"""Losses of pairs: DPO and its relatives, and the same loss of a slate's mass, which holds the level."""

from abc import abstractmethod
from dataclasses import dataclass, field
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from pluralign.errors import InputError
from pluralign.policy.losses.link import AbstractLink, Link, LogRatio
from pluralign.policy.losses.slate import AbstractLoss, Wanted, slate_mass


def soft_label(first: Float[Tensor, "*shape"], second: Float[Tensor, "*shape"], beta: float) -> Float[Tensor, "*shape"]:
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
    first: Float[Tensor, "*shape"], second: Float[Tensor, "*shape"], label: Float[Tensor, "*shape"], beta: float
) -> Float[Tensor, "*shape"]:
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


def label_entropy(label: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """Return `H(p) = -p log p - (1 - p) log(1 - p)`, the least value that `dpo` can take, in nats."""
    return -(torch.xlogy(label, label) + torch.xlogy(1 - label, 1 - label))


class AbstractPairLoss(AbstractLoss):
    """A loss of pairs: of a slate, the mean over its pairs, each taken once."""

    @abstractmethod
    def pair(
        self, margin: Float[Tensor, "*shape"], label: Float[Tensor, "*shape"], beta: float
    ) -> Float[Tensor, "*shape"]:
        """Return the loss of pairs.

        Args:
            margin: `h`, score of the first response less that of the second.
            label: `p`, probability that the first is preferred.
            beta: above 0.
        """

    @abstractmethod
    def best(self, label: Float[Tensor, "*shape"], beta: float) -> Float[Tensor, "*shape"]:
        """Return the least loss that any margin reaches."""

    def of(
        self, log_ratio: Float[Tensor, "slate place"], wanted: Wanted, beta: float
    ) -> tuple[Float[Tensor, "slate group"], Float[Tensor, "slate group"]]:
        """Return the mean loss of each slate's pairs for each group, and the least that it could be.

        With rewards `m` from other objectives and `w0` the part of its own, a pair is as far apart as
        `[h - (m_1 - m_2) / beta] / w0` (MODPO; Zhou et al. 2023): the labels' own objective has to explain only what
        the others leave. If labels are `sigmoid(r_1 - r_2)`, the optimum is `pi_ref exp((w0 r + m) / beta)`.
        """
        score = self.reading().score(log_ratio)
        h = self.reading().difference(score[:, :, None] - score[:, None, :], beta)
        h = (h - (wanted.offset[:, :, None] - wanted.offset[:, None, :]) / beta) / wanted.part
        counts = wanted.pairs[..., None]
        n = counts.sum((1, 2))
        loss = torch.where(counts, self.pair(h[..., None].expand_as(wanted.wins), wanted.wins, beta), 0)
        return loss.sum((1, 2)) / n, torch.where(counts, self.best(wanted.wins, beta), 0).sum((1, 2)) / n


class AbstractLogistic(AbstractPairLoss):
    """DPO with labels that say of each pair what noise has left, or what noise is to be expected.

    Attributes:
        link: how log-ratios are read as rewards.
    """

    link: Link

    @abstractmethod
    def asked(self, label: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
        """Return the label that `dpo` gets."""

    def reading(self) -> AbstractLink:
        """Return how log-ratios are read as rewards."""
        return self.link

    def pair(
        self, margin: Float[Tensor, "*shape"], label: Float[Tensor, "*shape"], beta: float
    ) -> Float[Tensor, "*shape"]:
        """Return `dpo` with the label asked for."""
        return dpo(margin, torch.zeros_like(margin), self.asked(label), beta)

    def best(self, label: Float[Tensor, "*shape"], beta: float) -> Float[Tensor, "*shape"]:
        """Return the entropy of the label asked for; 0 where it lies outside [0, 1] and the loss has no minimum."""
        return label_entropy(self.asked(label).clamp(0, 1))

    def curvature(self, beta: float) -> float:
        """Return the square of `beta`."""
        return beta**2


@dataclass(frozen=True)
class Logistic(AbstractLogistic):
    """DPO (Rafailov et al. 2023, eq. 7) with soft labels; with `smoothing` conservative DPO (Mitchell 2023).

    `L = -[q log sigmoid(beta h) + (1 - q) log sigmoid(-beta h)]`, `q = (1 - 2 e) p + e`: as if the share `e` of
    labels were turned round at random, on top of whatever noise they have. Least where `sigmoid(beta h) = q`.

    Args:
        smoothing: `e`, in [0, 0.5).
        link: how log-ratios are read as rewards; `ChiSquare()` makes it chi-PO.
    """

    smoothing: float = 0.0
    link: Link = field(default_factory=LogRatio)
    kind: Literal["logistic"] = "logistic"

    def __post_init__(self):
        if not 0 <= self.smoothing < 0.5:
            raise InputError(f"loss.smoothing is {self.smoothing}; it lies in [0, 0.5).")

    def asked(self, label: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
        """Return the smoothed label, `q`."""
        return (1 - 2 * self.smoothing) * label + self.smoothing


@dataclass(frozen=True)
class Robust(AbstractLogistic):
    """Robust DPO (Ray Chowdhury, Kini and Natarajan 2024): labels of which a share `e` was turned round at random.

    `L = [(1 - e) l(p) - e l(1 - p)] / (1 - 2 e)`, `l(p)` the loss of DPO. Its mean over noisy labels is the loss of
    DPO on clean ones. As `l` is linear in `p`, it is DPO with the label `(p - e) / (1 - 2 e)`: what a noisy share
    tells of the clean one. The single loss of a hard label has no minimum (its part outside [0, 1] is rewarded
    without end); the mean over votes has one, if the losing side's share is above `e`.

    Args:
        flip: `e`, in [0, 0.5).
        link: how log-ratios are read as rewards.
    """

    flip: float = 0.1
    link: Link = field(default_factory=LogRatio)
    kind: Literal["robust"] = "robust"

    def __post_init__(self):
        if not 0 <= self.flip < 0.5:
            raise InputError(f"loss.flip is {self.flip}; it lies in [0, 0.5).")

    def asked(self, label: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
        """Return the label that noise has not touched."""
        return (label - self.flip) / (1 - 2 * self.flip)


@dataclass(frozen=True)
class Square(AbstractPairLoss):
    """IPO (Azar et al. 2023, eq. 17) with soft labels.

    `L = p (h - 1 / (2 tau))^2 + (1 - p) (h + 1 / (2 tau))^2`, least where `h = (p - 1/2) / tau`: unlike DPO it asks
    for a finite margin of pairs that all agree on. Here `tau` and not `beta` says how far the policy moves. Over all
    pairs of K candidates of a prompt the optimum is the least-squares fit of log-ratios to these margins,
    `log(pi / pi_ref)_i = mean_j (p_ij - 1/2) / tau + constant` with `p_ii = 1/2`: the policy that maximises the win
    rate against a candidate drawn uniformly, less `tau` KL, a regularised Borda rule.

    trl divides each log-ratio by the number of tokens of its response first, so its `beta` is per token: on
    responses of n tokens its loss is this one with `tau = beta / n`, over `n^2`.

    Args:
        tau: price of a nat of divergence, in win rate; above 0.
    """

    tau: float = 0.1
    kind: Literal["square"] = "square"

    def __post_init__(self):
        if not self.tau > 0:
            raise InputError(f"loss.tau is {self.tau}; it must be above 0.")

    def reading(self) -> AbstractLink:
        """Return how log-ratios are read as rewards."""
        return LogRatio()

    def pair(
        self, margin: Float[Tensor, "*shape"], label: Float[Tensor, "*shape"], beta: float
    ) -> Float[Tensor, "*shape"]:
        """Return the mean of both squares; `beta` plays no part."""
        target = 1 / (2 * self.tau)
        return label * (margin - target) ** 2 + (1 - label) * (margin + target) ** 2

    def best(self, label: Float[Tensor, "*shape"], beta: float) -> Float[Tensor, "*shape"]:
        """Return `p (1 - p) / tau^2`."""
        return label * (1 - label) / self.tau**2

    def curvature(self, beta: float) -> float:
        """Return its second derivative over 1/4."""
        return 8.0


def level(
    log_ratio: Float[Tensor, "slate place"], wanted: Wanted, beta: float
) -> tuple[Float[Tensor, "slate group"], Float[Tensor, "slate group"]]:
    """Return the loss of each slate's mass for each group, and the least that it could be.

    `dpo(log M, 0)` with label `share`, `M` what `slate_mass` tells: the candidates of a slate, taken together, are
    paired with a standard whose log-ratio is 0 in the policy and in the target. Losses of pairs and of lists fix
    log-ratios up to a constant per prompt, and training spends that freedom badly: the probability of all candidates
    sinks together (likelihood displacement, Razin et al. 2024). On a slate of all candidates the mass wanted is 1 for
    every loss, so this holds the constant and moves nothing else.

    Args:
        log_ratio: of the candidates.
        wanted: of the same.
        beta: of the loss.
    """
    mass = slate_mass(log_ratio, wanted.reference)[:, None].expand_as(wanted.share)
    return dpo(mass, torch.zeros_like(mass), wanted.share, beta), label_entropy(wanted.share)
