"""Where labels come from: what each slate of candidates is asked to become.

Whatever the source, a slate gets the same three things (`losses.Wanted`): the probability that each of its candidates
is preferred to each other one, the lottery over them, and its share of all probability. Most are made from *targets*,
`t[draw, candidate, label]`: the score that the policy should have, up to a constant per prompt,

    wins = mean_draw sigmoid(beta (t_1 - t_2)),    lottery = mean_draw reference exp(t) / Z on the slate.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float, Int
from scipy.special import expit, logsumexp

from pluralign.errors import InputError
from pluralign.policy.candidates import Candidates
from pluralign.policy.losses import AbstractLink, Wanted
from pluralign.types import Choice, Feedback, Linear, Utilities

LEAST = np.log(1e-12)  # what pairs make of a target of -inf: no margin says "never"


@dataclass(frozen=True, eq=False)
class Slates:
    """What one step trains on.

    Attributes:
        candidates: of each slate, one prompt's; -1 = empty place.
        ballot: index of the recorded comparison that a slate is, -1 = none.
    """

    candidates: Int[np.ndarray, "slate place"]
    ballot: Int[np.ndarray, " slate"]

    def __getitem__(self, part: slice) -> "Slates":
        return Slates(self.candidates[part], self.ballot[part])


@dataclass(frozen=True, eq=False)
class Ballots:
    """Recorded comparisons of two candidates.

    Attributes:
        pair: the candidates.
        label: 1 = the first was preferred, 0 = the second, 0.5 = a tie.
        weight: chance of being drawn, sums to 1.
        group: index of the annotator's group.
    """

    pair: Int[np.ndarray, "ballot 2"]
    label: Float[np.ndarray, " ballot"]
    weight: Float[np.ndarray, " ballot"]
    group: Int[np.ndarray, " ballot"]


@dataclass(frozen=True, eq=False)
class Labels:
    """Labels of all candidates of a choice, ready to be drawn.

    Attributes:
        candidates: what is labelled.
        target: `t`; -inf = never to be written. One label for each group, or one for all.
        groups: their names; empty without groups.
        mass: each group's share of all voters.
        utility: what each candidate is worth to each group, mean over draws.
        beta: price of a nat of divergence in units of utility, `Choice.beta`.
        ballots: labels that replace those made from targets.
        offset: reward from other objectives.
        part: how much the labels' own objective counts beside those.
    """

    candidates: Candidates
    target: Float[np.ndarray, "draw candidate label"]
    groups: tuple[str, ...]
    mass: Float[np.ndarray, " group"]
    utility: Float[np.ndarray, "candidate group"]
    beta: float
    offset: Float[np.ndarray, " candidate"]
    ballots: Ballots | None = None
    part: float = 1.0

    def draw(self, seed: int, step: int, n: int, size: int | None) -> Slates:
        """Return the slates of a step; they depend on `seed` and `step` alone (see `Candidates.draw`).

        Ballots are drawn with replacement, each with its weight.
        """
        if self.ballots is None:
            return Slates(self.candidates.draw(seed, step, n, size), np.full(n, -1))
        chance = np.random.default_rng([seed, step]).random(n)
        total = np.cumsum(self.ballots.weight)
        ballot = np.searchsorted(total / total[-1], chance, side="right")
        return Slates(self.ballots.pair[ballot], ballot)

    def wanted(
        self, slates: Slates, beta: float, link: AbstractLink, mix: Float[np.ndarray, " group"] | None = None
    ) -> Wanted:
        """Return what these slates are asked to become, as tensors in float64.

        Args:
            slates: as drawn.
            beta: of the loss.
            link: of the loss.
            mix: weights by which the groups' targets are summed up to one; None keeps the groups apart.
        """
        at, reference = slates.candidates, self.candidates.reference
        rows = self.candidates.rows
        rows = rows[np.searchsorted(rows[:, 0], at[:, 0], side="right") - 1]
        rho = np.where(rows >= 0, reference[rows], 0)
        t = self.target if mix is None else (self.target @ mix)[..., None]
        more = (self.offset[rows] / beta)[..., None]
        whole = np.where((rows >= 0)[..., None], self.part * t[:, rows] + more, -np.inf)  # draw slate place label
        settled = np.moveaxis(link.settle(np.moveaxis(whole, -1, 2), rho[:, None]), 2, -1)
        place = np.clip(at - rows[:, :1], 0, None)
        there = at >= 0
        kept = np.where(there, reference[at], 0)
        h = np.where(there[..., None], np.take_along_axis(settled, place[None, ..., None], 2), -np.inf)
        with np.errstate(divide="ignore"):
            mass = logsumexp(h, axis=2, b=kept[..., None]) - np.log(kept.sum(1))[:, None]
            lottery = np.log(kept)[..., None] + h
        # of a slate that the rule gives nothing, nothing is wanted
        top = lottery.max(2, keepdims=True)
        lottery = np.exp(lottery - np.where(np.isfinite(top), top, 0))
        lottery = lottery / np.maximum(lottery.sum(2, keepdims=True), 1e-300)
        score = np.where(there[..., None], t[:, at], 0)
        score = np.where(np.isneginf(score), LEAST, score)
        wins = expit(beta * (score[:, :, :, None] - score[:, :, None, :])).mean(0)
        weight = np.ones((len(at), wins.shape[-1]))
        if self.ballots is not None:
            wins, weight = self._counted(self.ballots, slates.ballot)
        offset = np.where(there, self.offset[at], 0)
        groups = wins.shape[-1]
        lottery = np.broadcast_to(lottery.mean(0), (*at.shape, groups))
        share = np.broadcast_to(expit(beta * np.maximum(mass, LEAST)).mean(0), (len(at), groups))
        made = (wins, lottery, share, weight, kept, offset)
        return Wanted(*(torch.from_numpy(np.array(a, np.float64)) for a in made), part=self.part)

    def _counted(
        self, ballots: Ballots, drawn: Int[np.ndarray, " slate"]
    ) -> tuple[Float[np.ndarray, "slate 2 2 group"], Float[np.ndarray, "slate group"]]:
        """Return what was preferred, and how much each slate counts for each group: only for its annotator's own."""
        label, of = ballots.label[drawn], ballots.group[drawn]
        n = max(1, len(self.groups))
        wins = np.full((len(drawn), 2, 2, n), 0.5)
        wins[:, 0, 1], wins[:, 1, 0] = label[:, None], 1 - label[:, None]
        share = np.bincount(ballots.group, ballots.weight, n)
        return wins, (np.arange(n) == of[:, None]) / share[of][:, None]


class AbstractLabels(ABC):
    """Where labels come from."""

    def of(
        self,
        chosen: Choice,
        votes: Feedback,
        candidates: Candidates,
        grouped: bool = False,
        margin: Float[np.ndarray, " item"] | None = None,
    ) -> Labels:
        """Return labels for the candidates of a choice.

        Args:
            chosen: what the rule decided.
            votes: whose items the candidates are.
            candidates: of the choice.
            grouped: whether each group of voters gets labels of its own, from its own utilities or votes.
            margin: of every item, reward from other objectives, in units of `beta` (the loss's) times a log-ratio.

        Raises:
            InputError: the choice or the feedback has not what these labels are made from.
        """
        return self.fill(_base(chosen, candidates, grouped, margin), chosen, votes)

    @abstractmethod
    def fill(self, base: Labels, chosen: Choice, votes: Feedback) -> Labels:
        """Return labels made from those of the rule for everyone; each group gets its own if there are groups."""


@dataclass(frozen=True)
class FromRule(AbstractLabels):
    """The rule's own decision: `t = log(p* / reference)`; of a group: `t = U_group / beta`, its mean over draws.

    The optimum of DPO on these labels is the rule's lottery, `pi_ref exp(t)`, whatever the `beta` of the loss.
    """

    kind: Literal["rule"] = "rule"

    def fill(self, base: Labels, chosen: Choice, votes: Feedback) -> Labels:
        """Return labels of the rule, or of each group's mean utility."""
        return replace(base, target=base.utility[None] / chosen.beta) if base.groups else base


@dataclass(frozen=True)
class FromPosterior(AbstractLabels):
    """The rule's reward in every posterior draw, so that labels of uncertain pairs are softer.

    `t[draw] = sum_voter lambda_voter U[draw, voter] / beta`, `lambda_voter` the rule's multipliers summed over draws,
    and what constraints demand likewise; of a group, `U_group[draw] / beta`. The label is the mean over draws,
    `p = mean_draw sigmoid(beta_loss (t_1 - t_2))`, the posterior probability that the first would be preferred.

    As the posterior narrows, labels become those of `FromRule` (for a rule with `Mean` risk; caution about draws is
    lost, since all draws count alike here). Before that, pairs are pulled together: with t_1 - t_2 of mean m and
    standard deviation s, about `h = m / sqrt(1 + pi beta_loss^2 s^2 / 8)`. So here the `beta` of the loss matters: it
    says how sharply a draw prefers, and with a small one uncertainty has no effect.
    """

    kind: Literal["posterior"] = "posterior"

    def fill(self, base: Labels, chosen: Choice, votes: Feedback) -> Labels:
        """Return labels of the rule's reward, or of each group's utility, in every draw."""
        if base.groups:
            shares = _shares(chosen.utilities, base.groups)
            target = np.stack([_each_draw(chosen.utilities, share) for share in shares], -1)
        elif chosen.weights is None:
            raise InputError(
                f"{chosen.name} has no multipliers, so it is no reward that could differ between draws; use labels "
                "from the rule, or a rule of the welfare family."
            )
        else:
            target = _each_draw(chosen.utilities, chosen.weights.sum(0))[..., None]
            if chosen.rows is not None and chosen.prices is not None:
                target = target + _each_draw(chosen.rows, chosen.prices.sum(0))[..., None]
        return replace(base, target=target[:, base.candidates.counts] / chosen.beta)


@dataclass(frozen=True)
class FromVotes(AbstractLabels):
    """The recorded comparisons themselves: 1 for the preferred one, 0.5 for ties. The baseline, plain DPO on votes.

    Of the choice, only the candidates are used, with `weigh="rule"` the multipliers, and its lottery for the level.
    Each comparison of two candidates is drawn with probability proportional to its weight. A pair ends where
    `sigmoid(beta h)` is its weighted share of wins, so here the `beta` of the loss says how far the policy moves
    (Rafailov et al. 2023). Rankings and best-of-k of more than two are left out: broken into pairs they would count
    too much. So are grades, and comparisons with items that are no candidates.

    Args:
        objective: name of what was asked; null = any.
        weigh: "equal" = every comparison counts the same; "rule" = as the rule's multiplier of its annotator, summed
            over draws, over the annotator's mass. For that the voters must be annotators.
        part: `w0` of MODPO, how much these comparisons' objective counts beside the `margin` of others; above 0.
    """

    objective: str | None = None
    weigh: Literal["equal", "rule"] = "equal"
    part: float = 1.0
    kind: Literal["votes"] = "votes"

    def __post_init__(self):
        if not self.part > 0:
            raise InputError(f"labels.part is {self.part}; it must be above 0.")
        if self.weigh not in ("equal", "rule"):
            raise InputError(f"labels.weigh is {self.weigh!r}; it is 'equal' or 'rule'.")

    def fill(self, base: Labels, chosen: Choice, votes: Feedback) -> Labels:
        """Return the comparisons as labels."""
        if self.objective is not None and self.objective not in votes.objectives:
            raise InputError(f"labels.objective is {self.objective!r}; the feedback has {votes.objectives}.")
        where = np.full(len(votes.items), -1)
        where[base.candidates.item] = np.arange(len(base.candidates.item))
        choices = votes.choices
        pair = np.where((choices.slate >= 0).sum(1) == 2, 1, 0).astype(bool)
        if self.objective is not None:
            pair &= choices.objective == votes.objectives.index(self.objective)
        # shown slots first, in their order
        order = np.argsort(choices.slate < 0, axis=1, kind="stable")[:, :2]
        slate = where[np.take_along_axis(choices.slate, order, 1)]
        pair &= (slate >= 0).all(1)
        rank = np.take_along_axis(choices.rank, order, 1).astype(float)
        rank[rank < 0] = np.inf  # shown, not ranked
        if not pair.any():
            raise InputError(
                "no recorded comparison is of two candidates of the choice"
                + (f" about {self.objective!r}" if self.objective else "")
                + "; use labels from the rule."
            )
        weight, group = np.ones(len(slate)), np.zeros(len(slate), int)
        if base.groups or self.weigh == "rule":
            voter = _voters(chosen.utilities, votes)[choices.annotator]
            if (missing := pair & (voter < 0)).any():
                name = votes.annotators["id"][int(choices.annotator[missing][0])]
                raise InputError(
                    f"annotator {name!r} is no voter of the choice ({(chosen.utilities.voters or ())[:3]}...); "
                    "weighing votes by the rule, or by group, needs a model whose voters are the annotators."
                )
            if self.weigh == "rule":
                weight = _per_head(chosen)[voter]
            if base.groups:
                names = np.array(chosen.utilities.groups or chosen.utilities.voters)
                index = {name: g for g, name in enumerate(base.groups)}
                group = np.array([index.get(name, -1) for name in names])[voter]
        pair &= (weight > 0) & (group >= 0)
        if not pair.any():
            raise InputError("every comparison has the weight 0; use weigh='equal'.")
        label = (rank[:, 0] < rank[:, 1]) + 0.5 * (rank[:, 0] == rank[:, 1])
        weight = weight[pair] / weight[pair].sum()
        missing = [g for k, g in enumerate(base.groups) if not (group[pair] == k).any()]
        if missing:
            raise InputError(f"the groups {missing} made no comparison; use labels from the rule, or other groups.")
        return replace(base, ballots=Ballots(slate[pair], label[pair], weight, group[pair]), part=self.part)


LabelSource = FromRule | FromPosterior | FromVotes


def _base(chosen: Choice, candidates: Candidates, grouped: bool, margin: Float[np.ndarray, " item"] | None) -> Labels:
    """Return labels with the rule's own targets."""
    utilities, n = chosen.utilities, len(candidates.item)
    names = tuple(dict.fromkeys(utilities.groups or utilities.voters or ())) if grouped else ()
    of = np.array(utilities.groups or utilities.voters)
    mass = np.array([utilities.mass[of == name].sum() for name in names])
    # a group without mass is not there
    names, mass = tuple(name for name, m in zip(names, mass, strict=True) if m > 0), mass[mass > 0]
    draws = utilities.shape[0]
    worth = [utilities.weighted(np.tile(share / draws, (draws, 1))) for share in _shares(utilities, names)]
    offset = np.zeros(n)
    if margin is not None:
        if not (np.ndim(margin) == 1 and len(margin) > candidates.item.max()):
            raise InputError(f"margin must be [item], one number for each item; its shape is {np.shape(margin)}.")
        offset = np.asarray(margin, np.float64)[candidates.item]
        if not np.isfinite(offset).all():
            bad = candidates.item[~np.isfinite(offset)][0]
            raise InputError(f"margin of item {bad} is {margin[bad]}; a reward must be finite.")
    utility = np.stack(worth, -1)[candidates.counts] if names else np.zeros((n, 0))
    return Labels(candidates, candidates.log_ratio[None, :, None], names, mass, utility, chosen.beta, offset)


def _shares(utilities: Utilities, names: tuple[str, ...]) -> list[Float[np.ndarray, " voter"]]:
    """Return how much each voter counts within each group."""
    of = np.array(utilities.groups or utilities.voters)
    return [np.where(of == name, utilities.mass, 0) / utilities.mass[of == name].sum() for name in names]


def _each_draw(
    utilities: Utilities, weights: Float[np.ndarray, " voter"]
) -> Float[np.ndarray, "draw prompt candidate"]:
    """Return `sum_voter weights U` in every draw."""
    if isinstance(utilities.value, Linear):
        contracted = np.einsum("v,svf->sf", weights, utilities.value.weights)
        # a constant per draw plays no part in a comparison
        return np.einsum("xyf,sf->sxy", utilities.value.phi, contracted, optimize=True)
    return np.einsum("v,svxy->sxy", weights, utilities.value, optimize=True)


def _voters(utilities: Utilities, votes: Feedback) -> Int[np.ndarray, " annotator"]:
    """Return which voter each annotator is, by name; -1 = none."""
    index = {name: v for v, name in enumerate(utilities.voters or ())}
    return np.array([index.get(str(name), -1) for name in votes.annotators["id"]])


def _per_head(chosen: Choice) -> Float[np.ndarray, " voter"]:
    """Return the rule's multiplier of each voter over the voter's mass."""
    if chosen.weights is None:
        raise InputError(f"{chosen.name} has no multipliers to weigh votes by; use weigh='equal'.")
    mass = chosen.utilities.mass
    return np.where(mass > 0, chosen.weights.sum(0) / np.where(mass > 0, mass, 1), 0)
