"""What thinned draws of a posterior say of every judgement: what criticism of its model is made of."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float, Int
from scipy.special import log_softmax, logsumexp

from pluralign.errors import InputError
from pluralign.reward import discrepancy
from pluralign.reward.discrepancy import LOSS, Answers
from pluralign.reward.judgements import FIRST, PAIRS, Acts, Judgements
from pluralign.reward.pointwise import in_blocks, in_order, levels_of, response_of
from pluralign.types import RewardPosterior


@dataclass(frozen=True, eq=False)
class Seen:
    """What the draws say of the judgements of one form.

    Attributes:
        names: of the statistics.
        table: as `discrepancy.moments` returns it.
        number: judgements that a statistic is about.
        total: log probability of all that each annotator said, `[draw voter annotator]`.
        log_mean: log of the mean over draws of the probability of each act.
        variance: variance over draws of its log.
        annotator: of each act.
        some: index of the acts of which everything is kept.
        log_p: log probability of these.
        first: log probability that the first of two wins, or None.
        won: whether it did.
    """

    names: tuple[str, ...]
    table: Float[np.ndarray, "draw voter statistic 4 annotator"]
    number: Float[np.ndarray, "statistic annotator"]
    total: Float[np.ndarray, "draw voter annotator"]
    log_mean: Float[np.ndarray, " act"]
    variance: Float[np.ndarray, " act"]
    annotator: Int[np.ndarray, " act"]
    some: Int[np.ndarray, " some"]
    log_p: Float[np.ndarray, "draw voter some"]
    first: Float[np.ndarray, "draw voter some"] | None
    won: np.ndarray


def thinned(posterior: RewardPosterior, draws: int) -> RewardPosterior:
    """Return at most so many draws, evenly spaced."""
    total = len(posterior.weights)
    return posterior.at(np.linspace(0, total - 1, min(draws, total)).round().astype(int))


def look(posterior: RewardPosterior, judged: Judgements, judgements: int, rng: np.random.Generator) -> Iterator[Seen]:
    """Yield what the draws say of each form of judgement."""
    levels, response = levels_of(judged), response_of(posterior)
    personal, draws = posterior.membership is None, len(posterior.weights)
    ends = np.cumsum([len(block) for block in judged.blocks.values()])
    chosen = np.sort(rng.permutation(ends[-1])[:judgements])
    for (form, block), end in zip(judged.blocks.items(), ends, strict=True):
        some = chosen[(chosen >= end - len(block)) & (chosen < end)] - (end - len(block))
        acts = Acts.of(form, judged, 1.0)
        plain = Answers.of(form, block, levels, ties=bool({"tie", "threshold"} & set(posterior.rater)))
        answers = plain.padded(acts, block)
        place = np.flatnonzero(acts.counts)[np.argsort(acts.row[acts.counts])]  # of each act of the block
        arrays = (answers.said, answers.marks, answers.counts)
        parts, number, kept = [], np.zeros((0, 0)), [np.zeros(len(block)) for _ in range(2)]
        log_sum = np.full(len(block), -np.inf)
        width = answers.outcomes + 4 * (len(answers.names) + 1)
        for block_draws, counts in in_blocks(posterior, acts, width):
            here = counts > 0
            log_p, first, table, number = (
                np.asarray(value)
                for value in discrepancy.moments(response, levels, personal, acts, arrays, place[some], block_draws)
            )
            mixed = in_order(acts, _mixed(log_p[here], posterior, acts))
            log_sum = np.logaddexp(log_sum, logsumexp(mixed, axis=0))
            kept[0] += mixed.sum(0)
            kept[1] += (mixed**2).sum(0)
            parts.append([np.asarray(acts.total(log_p)), log_p[..., place[some]], first, table])
            parts[-1] = [value[here] for value in parts[-1]]
        if not np.isfinite(log_sum).all():
            raise InputError(
                f"the model gives probability 0 to {int((~np.isfinite(log_sum)).sum())} judgements ({form}): usually "
                "ties that it has no parameter for; pass the very feedback that it was fitted to."
            )
        total, log_p, first, table = (np.concatenate(part) for part in zip(*parts, strict=True))
        first_wins = first if form == PAIRS else None
        mean = kept[0] / draws
        yield Seen(
            names=tuple(_named(name, form, judged) for name in (*answers.names, LOSS)),
            table=table,
            number=number,
            total=total,
            log_mean=log_sum - np.log(draws),
            variance=np.maximum(kept[1] / draws - mean**2, 0),
            annotator=block.annotator,
            some=some,
            log_p=log_p,
            first=first_wins,
            won=plain.said[some] == FIRST,
        )


def _mixed(log_p: Any, posterior: RewardPosterior, acts: Acts) -> Float[np.ndarray, "draw act"]:
    if posterior.membership is None:
        return log_p[:, 0]
    with np.errstate(divide="ignore"):
        return logsumexp(log_p + np.log(np.asarray(acts.each(posterior.membership))).T, axis=1)


def _named(name: str, form: str, judged: Judgements) -> str:
    return name if len(judged.blocks) == 1 else f"{name} ({form})"


def memberships(
    posterior: RewardPosterior, total: Float[np.ndarray, "draw voter annotator"]
) -> Float[np.ndarray, "draw voter annotator"]:
    """Return the log probability in every draw that an annotator is each of the voters, given all that it said."""
    if posterior.membership is None:
        return np.zeros_like(total)
    mass = posterior.common.get("mass")
    if mass is not None and mass.shape == total.shape[:2]:
        with np.errstate(divide="ignore"):
            return log_softmax(total + np.log(mass.astype(np.float64))[..., None], axis=1)
    with np.errstate(divide="ignore"):  # voters that are no components: who belongs to them is known
        return np.broadcast_to(np.log(posterior.membership.T), total.shape)


def without(seen: Seen, share: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the log probability of each sampled act given all else that its annotator said, and who it then is.

    `P(act | the rest) = 1 / sum_voter share / P(act | voter)`, in every draw.
    """
    rest = share[..., seen.annotator[seen.some]] - seen.log_p
    log_p = -logsumexp(rest, axis=1)
    return log_p, rest + log_p[:, None]
