"""The formulas of policy training, each written once."""

from abc import ABC, abstractmethod
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from scipy.special import logsumexp, wrightomega
from torch import Tensor

from pluralign.errors import InputError


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


class AbstractLink(ABC):
    """How the log-ratio of a response is read as its reward, and with it which divergence holds the policy back."""

    @abstractmethod
    def score(self, log_ratio: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
        """Return the reward over `beta` that `log(pi / pi_ref)` stands for, up to a constant per prompt."""

    @abstractmethod
    def difference(self, margin: Float[Tensor, "*shape"], beta: float) -> Float[Tensor, "*shape"]:
        """Return the difference of two scores as the loss sees it."""

    @abstractmethod
    def settle(
        self, score: Float[np.ndarray, "... place"], reference: Float[np.ndarray, "... place"]
    ) -> Float[np.ndarray, "... place"]:
        """Return the log-ratios with these scores up to a constant and `sum_place reference exp(log-ratio) = 1`.

        Args:
            score: -inf = the policy must never write it; one in each row must be finite.
            reference: rows sum to 1; 0 = an empty place.
        """


@dataclass(frozen=True)
class LogRatio(AbstractLink):
    """`s = log z`, `z = pi / pi_ref`: the KL divergence holds the policy back (Rafailov et al. 2023, eq. 5)."""

    kind: Literal["log-ratio"] = "log-ratio"

    def score(self, log_ratio: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
        """Return the log-ratio itself."""
        return log_ratio

    def difference(self, margin: Float[Tensor, "*shape"], beta: float) -> Float[Tensor, "*shape"]:
        """Return the margin itself."""
        return margin

    def settle(
        self, score: Float[np.ndarray, "... place"], reference: Float[np.ndarray, "... place"]
    ) -> Float[np.ndarray, "... place"]:
        """Return `score - log sum_place reference exp(score)`."""
        return score - logsumexp(score, axis=-1, b=reference, keepdims=True)


@dataclass(frozen=True)
class ChiSquare(AbstractLink):
    """`s = z + log z`, `z = pi / pi_ref`: chi-PO (Huang et al. 2024, "Correcting the mythos of KL-regularization").

    The optimum is that of `max_pi E_pi r - beta [KL(pi || pi_ref) + 1/2 E_ref (z - 1)^2]`, where
    `beta (z + log z) = r + constant`: as `z` grows with `r` and no longer with `exp(r / beta)`, a response that only
    an error of the reward makes good is followed less far. Above `z = exp(20)` the exponential goes on as its
    tangent, so that nothing overflows and the gradient keeps its direction.

    Args:
        largest: `R_max`, the largest difference of rewards that there is, in the units of `beta` times a score, that
            is of the log odds of labels; margins are clipped to `±2 R_max` as in algorithm 1. null = not clipped:
            labels are soft, so no margin runs away.
    """

    largest: float | None = None
    kind: Literal["chi-square"] = "chi-square"

    def __post_init__(self):
        if self.largest is not None and not self.largest > 0:
            raise InputError(f"link.largest is {self.largest}; it must be above 0.")

    def score(self, log_ratio: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
        """Return `z + log z`."""
        below = log_ratio.clamp(max=20.0)
        return below.exp() * (1 + log_ratio - below) + log_ratio

    def difference(self, margin: Float[Tensor, "*shape"], beta: float) -> Float[Tensor, "*shape"]:
        """Return the margin, clipped to `±2 largest / beta`."""
        return margin if self.largest is None else margin.clamp(-2 * self.largest / beta, 2 * self.largest / beta)

    def settle(
        self, score: Float[np.ndarray, "... place"], reference: Float[np.ndarray, "... place"]
    ) -> Float[np.ndarray, "... place"]:
        """Return `log omega(score + c)`, omega the inverse of `z + log z` (Wright's), `c` found by halving."""
        there = np.isfinite(score) & (reference > 0)
        # where every score is at most 1, so is every z, and their mean; and the other way round
        low = 1 - np.where(there, score, -np.inf).max(-1, keepdims=True)
        high = 1 - np.where(there, score, np.inf).min(-1, keepdims=True)
        for _ in range(60):
            middle = (low + high) / 2
            over = (reference * np.where(there, wrightomega(score + middle), 0)).sum(-1, keepdims=True) > 1
            low, high = np.where(over, low, middle), np.where(over, middle, high)
        with np.errstate(divide="ignore"):
            return np.log(np.where(there, wrightomega(score + high), 0))


Link = LogRatio | ChiSquare


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


@dataclass(frozen=True)
class Logistic(AbstractPairLoss):
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

    def reading(self) -> AbstractLink:
        """Return how log-ratios are read as rewards."""
        return self.link

    def pair(
        self, margin: Float[Tensor, "*shape"], label: Float[Tensor, "*shape"], beta: float
    ) -> Float[Tensor, "*shape"]:
        """Return `dpo` with the smoothed label."""
        return dpo(margin, torch.zeros_like(margin), self._smooth(label), beta)

    def best(self, label: Float[Tensor, "*shape"], beta: float) -> Float[Tensor, "*shape"]:
        """Return the entropy of the smoothed label."""
        return label_entropy(self._smooth(label))

    def curvature(self, beta: float) -> float:
        """Return the square of `beta`."""
        return beta**2

    def _smooth(self, label: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
        return (1 - 2 * self.smoothing) * label + self.smoothing


@dataclass(frozen=True)
class Robust(AbstractPairLoss):
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

    def reading(self) -> AbstractLink:
        """Return how log-ratios are read as rewards."""
        return self.link

    def pair(
        self, margin: Float[Tensor, "*shape"], label: Float[Tensor, "*shape"], beta: float
    ) -> Float[Tensor, "*shape"]:
        """Return `dpo` with the label that noise has not touched."""
        return dpo(margin, torch.zeros_like(margin), self._clean(label), beta)

    def best(self, label: Float[Tensor, "*shape"], beta: float) -> Float[Tensor, "*shape"]:
        """Return the entropy of the clean label; 0 where it lies outside [0, 1] and the loss has no minimum."""
        return label_entropy(self._clean(label).clamp(0, 1))

    def curvature(self, beta: float) -> float:
        """Return the square of `beta`."""
        return beta**2

    def _clean(self, label: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
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


Loss = Logistic | Robust | Square | Distil


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
