"""Axioms of what was learned: which pairs a reward puts the wrong way round, and what a policy gives to whom."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from scipy.sparse.csgraph import connected_components

from pluralign.choice.axioms.majority import condorcet, dominated
from pluralign.choice.axioms.outcome import SMALL, Lottery
from pluralign.choice.axioms.shares import PopulationProportionality, worths
from pluralign.choice.axioms.society import Society
from pluralign.choice.ballots import TIE
from pluralign.errors import InputError
from pluralign.types import Feedback, Utilities

Square = Float[np.ndarray, "candidate candidate"]


@dataclass(frozen=True)
class Pair:
    """Two responses to one prompt, and who prefers the first.

    Attributes:
        prompt: id of the prompt.
        better: index of the item that voters prefer.
        worse: index of the other item.
        share: mass of those who prefer the first, as a share of those who prefer one of them.
        voters: how many prefer one of them.
        gap: reward of the first less reward of the second; not positive where the reward breaks the axiom.
        unanimous: True if nobody prefers the second.
        cyclic: True if the pair lies in a circle of majorities, of which every order contradicts one.
    """

    prompt: int
    better: int
    worse: int
    share: float
    voters: int
    gap: float
    unanimous: bool
    cyclic: bool

    def __str__(self) -> str:
        circle = " (in a circle of majorities)" if self.cyclic else ""
        return (
            f"prompt {self.prompt}: {100 * self.share:.3g} % of {self.voters} voters prefer item {self.better} to item "
            f"{self.worse}{circle}, but its reward is {abs(self.gap):.3g} {'lower' if self.gap < 0 else 'different'}."
        )


@dataclass(frozen=True)
class RewardAxioms:
    """Which pairs a reward puts the wrong way round.

    Attributes:
        unanimous: pairs that all voters (who told them apart) order alike.
        pareto: those of them that the reward orders the other way or ties, the widest gap first.
        majorities: pairs of which one is preferred by a majority of mass.
        contradicted: those of them that the reward orders the other way or ties, outside circles first.
    """

    unanimous: int
    pareto: tuple[Pair, ...]
    majorities: int
    contradicted: tuple[Pair, ...]

    def __str__(self) -> str:
        avoidable = sum(not p.cyclic for p in self.contradicted)
        lines = [
            f"pareto: {len(self.pareto)} of {self.unanimous} unanimous pairs are the wrong way round",
            *(f"    {p}" for p in self.pareto[:5]),
            f"pairwise majority: {len(self.contradicted)} of {self.majorities} majorities are contradicted, "
            f"{avoidable} of them in no circle",
            *(f"    {p}" for p in self.contradicted[:5]),
        ]
        return "\n".join(lines)


def of_reward(
    score: Float[np.ndarray, " item"], votes: Utilities | Feedback, *, voters: int = 2, objective: int = 0
) -> RewardAxioms:
    """Return which pairs of responses a reward orders against all voters, or against a majority of them.

    A reward that is learned by Bradley and Terry's model can do both, where features do not let every response have its
    own value (Ge et al. 2024, Axioms for AI Alignment from Human Feedback, Theorem 3.1).

    Args:
        score: reward of every item.
        votes: utilities (the mean over draws counts), or feedback, of which every slate counts as the pairs that it
            orders, and an annotator who ordered a pair several times as the balance of these.
        voters: pairs on which fewer voters have a preference do not count.
        objective: of the feedback.

    Raises:
        InputError: there are not as many scores as items, or one is not finite.
    """
    return ordered(score, counted(votes, objective), voters)


def counted(votes: Utilities | Feedback, objective: int = 0) -> "Counted":
    """Return who prefers what to what, prompt by prompt; see `of_reward`."""
    return _of_feedback(votes, objective) if isinstance(votes, Feedback) else _of_utilities(votes)


def ordered(score: Float[np.ndarray, " item"], counted: "Counted", voters: int = 2) -> RewardAxioms:
    """Return `of_reward` from what was counted."""
    r = np.asarray(score, np.float64)
    items = 1 + max((int(item.max()) for item, *_ in counted.values()), default=-1)
    if r.ndim != 1 or len(r) < items or not np.isfinite(r).all():
        raise InputError(f"score must be {items} finite numbers, one for each item, got shape {r.shape}.")
    found: list[Pair] = []
    for prompt, (item, above, many) in counted.items():
        margin = above - above.T
        circle = _circles(margin)
        for a, b in np.argwhere((margin > TIE * above.sum()) & (many + many.T >= voters)):
            share = float(above[a, b] / (above[a, b] + above[b, a]))
            count, same = int(many[a, b] + many[b, a]), bool(circle[a] == circle[b])
            gap = float(r[item[a]] - r[item[b]])
            alone = bool(above[b, a] == 0)
            found.append(Pair(prompt, int(item[a]), int(item[b]), share, count, gap, alone, same))
    wrong = [p for p in found if p.gap <= 0]
    return RewardAxioms(
        sum(p.unanimous for p in found),
        tuple(sorted((p for p in wrong if p.unanimous), key=lambda p: p.gap)),
        len(found),
        tuple(sorted(wrong, key=lambda p: (p.cyclic, p.gap))),
    )


Counted = Mapping[int, tuple[np.ndarray, Square, np.ndarray]]  # of each prompt: items, mass above, voters above


def _item(utilities: Utilities) -> np.ndarray:
    return np.asarray(utilities.item)


def _of_utilities(utilities: Utilities) -> Counted:
    counted = {}
    names = utilities.prompts or ()
    for x, society in enumerate(Society.of_utilities(utilities)):
        above = society.level[:, :, None] < society.level[:, None, :]
        item = _item(utilities)[x][[int(y) for y in society.candidates]]
        counted[int(names[x])] = (item, np.einsum("vab,v->ab", above, society.share), above.sum(0))
    return counted


def _of_feedback(votes: Feedback, objective: int) -> Counted:
    """Return who ordered which pairs how: each annotator's majority, by the annotator's weight."""
    asked = votes.choices.where(votes.choices.objective == objective)
    shown, last = asked.slate >= 0, np.iinfo(np.int32).max
    place = np.where(asked.rank >= 0, asked.rank, last)
    first, second = np.triu_indices(asked.slate.shape[1], 1)
    row, pair = np.nonzero(shown[:, first] & shown[:, second])
    a, b = asked.slate[row, first[pair]], asked.slate[row, second[pair]]
    sign = np.sign(place[row, second[pair]] - place[row, first[pair]].astype(np.int64))
    low, high, sign = np.minimum(a, b), np.maximum(a, b), np.where(a < b, sign, -sign)
    key = np.column_stack([low, high, asked.annotator[row]])
    kinds, where = np.unique(key, axis=0, return_inverse=True)
    balance = np.sign(np.bincount(where.ravel(), sign, len(kinds)))
    weight = np.asarray(votes.annotators["weight"][:], np.float64)[kinds[:, 2]]
    prompt, counted = votes.prompt_id, {}
    for x in np.unique(prompt[kinds[:, 0]]):
        rows = np.flatnonzero((prompt[kinds[:, 0]] == x) & (balance != 0) & (weight > 0))
        item, at = np.unique(kinds[rows, :2], return_inverse=True)
        at = at.reshape(-1, 2)
        above, many = np.zeros((len(item), len(item))), np.zeros((len(item), len(item)), int)
        won, lost = np.where(balance[rows, None] > 0, at, at[:, ::-1]).T
        np.add.at(above, (won, lost), weight[rows])
        np.add.at(many, (won, lost), 1)
        counted[int(x)] = (item, above, many)
    return counted


def _circles(margin: Square) -> np.ndarray:
    """Return a number per candidate, the same for those in one circle of majorities."""
    return connected_components(margin > 0, directed=True, connection="strong")[1]


@dataclass(frozen=True)
class PolicyAxioms:
    """What a policy gives to whom, over prompts.

    Attributes:
        dominated: mean probability of answers than which another is worse to nobody and better to somebody.
        worst: row of the prompt where that is most likely.
        worst_dominated: how likely it is there.
        condorcet_prompts: on how many prompts some candidate beats all others.
        condorcet: mean probability of that candidate there; None without such prompts.
        loser_prompts: on how many prompts some candidate loses to all others.
        loser: mean probability of that candidate there; None without such prompts.
        proportional: how much some candidate is worth in units of what voters have, mean over prompts; 1 is fair.
        shortfall: by how much some group's favourites are less likely than its share, the mean over prompts.
        short: the group that falls short by most on the worst prompt, in words; empty if none does.
    """

    dominated: float
    worst: int
    worst_dominated: float
    condorcet_prompts: int
    condorcet: float | None
    loser_prompts: int
    loser: float | None
    proportional: float
    shortfall: float
    short: str

    def __str__(self) -> str:
        def chance(value: float | None, prompts: int) -> str:
            return "no prompt has one" if value is None else f"gets {100 * value:.3g} % (on {prompts} prompts)"

        worth = f"{self.proportional:.3g}" if self.proportional < 1000 else "over 1000"
        return "\n".join(
            [
                f"pareto: dominated answers have {100 * self.dominated:.3g} %, at most "
                f"{100 * self.worst_dominated:.3g} % (prompt {self.worst})",
                f"condorcet-winner: {chance(self.condorcet, self.condorcet_prompts)}",
                f"condorcet-loser: {chance(self.loser, self.loser_prompts)}",
                f"proportional-fairness: some answer is worth {worth} times what voters have; 1 is fair",
                f"population-proportionality: falls short by {100 * self.shortfall:.3g} %. {self.short}".rstrip(),
            ]
        )


def of_policy(lottery: Float[np.ndarray, "prompt candidate"], utilities: Utilities) -> PolicyAxioms:
    """Return how far a policy's answers keep to the axioms of one profile, by the voters' utilities (mean over draws).

    Args:
        lottery: probability of each candidate, rows sum to 1; what a policy learned as log-ratios is
            `reference exp(ratio)`, see `lottery_of`.
        utilities: of every voter.

    Raises:
        InputError: the lottery is not one of these candidates.
    """
    p = np.asarray(lottery, np.float64)
    if p.shape != utilities.reference.shape or not (p >= -1e-9).all() or np.abs(p.sum(-1) - 1).max() > 1e-6:
        raise InputError(f"lottery must be probabilities {utilities.reference.shape} whose rows sum to 1.")
    if (p[utilities.reference == 0] > SMALL).any():
        raise InputError("the lottery has answers that the utilities do not know: their reference is 0.")
    bad, best, last, worth, short, groups = [], [], [], [], [], []
    for row, society in zip(p, Society.of_utilities(utilities), strict=True):
        chance = row[[int(y) for y in society.candidates]]
        chance = chance / chance.sum()
        outcome = Lottery(chance, chance > SMALL)
        bad.append(float(chance[dominated(society).any(0)].sum()))
        for found, winner in ((best, condorcet(society.margins)), (last, condorcet(-society.margins))):
            found += [] if winner is None else [float(chance[winner])]
        worth.append(float(worths(society, outcome).max()))
        missing, words = PopulationProportionality().shortfall(society, outcome)
        short.append(missing)
        groups.append("" if words is None else words.words)
    worst = int(np.argmax(bad))
    return PolicyAxioms(
        float(np.mean(bad)),
        worst,
        bad[worst],
        len(best),
        float(np.mean(best)) if best else None,
        len(last),
        float(np.mean(last)) if last else None,
        float(np.mean(worth)),
        float(np.mean(short)),
        groups[int(np.argmax(short))],
    )


def lottery_of(
    ratio: Float[np.ndarray, "prompt candidate"], reference: Float[np.ndarray, "prompt candidate"]
) -> Float[np.ndarray, "prompt candidate"]:
    """Return `reference exp(ratio)`, made to sum to 1: what a policy with these log-ratios does.

    Raises:
        InputError: shapes differ, or a ratio is not finite.
    """
    z, ref = np.asarray(ratio, np.float64), np.asarray(reference, np.float64)
    if z.shape != ref.shape or not np.isfinite(z).all():
        raise InputError(f"ratio must be finite numbers of shape {ref.shape}, got shape {z.shape}.")
    mass = ref * np.exp(z - np.where(ref > 0, z, -np.inf).max(-1, keepdims=True))
    return mass / mass.sum(-1, keepdims=True)
