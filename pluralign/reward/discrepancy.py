"""What annotators did and what the model would have them do: counts of answers, with their moments in every draw."""

import dataclasses
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float, Int
from scipy.special import gammainc, gammaincc

from pluralign.errors import InputError
from pluralign.reward.judgements import FIRST, GRADES, SINGLE, SLATES, TIE, Acts, Block
from pluralign.reward.pointwise import log_probability
from pluralign.reward.response import Response

PASS = 1  # of disagree, pass, agree
LOSS = "log loss"
MAJORITY = "says what most others say"
ALONE = {MAJORITY}
"""Statistics of single annotators: what most say is not theirs to repeat, but a group would repeat it too."""


@dataclass(frozen=True, eq=False)
class Answers:
    """What was answered, as one of a few answers per act, and what about answers is counted.

    Attributes:
        outcomes: how many answers there are.
        said: which one was given; of a slate the slot of the best, or `outcomes - 1` if several tie for it.
        names: of what is counted, without the log loss.
        marks: which answers count.
        counts: of which acts it is asked.
    """

    outcomes: int
    said: Int[np.ndarray, " act"]
    names: tuple[str, ...]
    marks: Bool[np.ndarray, "statistic act outcome"]
    counts: Bool[np.ndarray, "statistic act"]

    @classmethod
    def of(cls, form: str, block: Block, levels: tuple[int, ...], ties: bool) -> "Answers":
        """Look at judgements of one form; `ties`: comparisons of two may tie."""
        said, slots = block.said, block.item.shape[1]
        every = np.ones(len(block), bool)
        if form == SLATES:
            best = block.said == 0
            said = np.where(best.sum(1) == 1, best.argmax(1), slots)
            marks = np.broadcast_to(np.arange(slots + 1) == 0, (len(block), slots + 1))
            return cls(slots + 1, said, ("first shown is best",), marks[None], every[None])
        if form in SINGLE:
            last = np.array(levels)[block.aside] - 1
            outcomes = int(last.max()) + 1
            grade = np.arange(outcomes)
            most = _majority(np.c_[block.item, block.aside, block.objective], said, block.annotator, outcomes)
            if form == GRADES:
                names, counts = ["lowest or highest grade"], [last > 1]
                marks = [(grade == 0) | (grade == last[:, None])]
            else:
                names, counts, marks = ["passes"], [every], [np.tile(grade == PASS, (len(said), 1))]
        else:
            if not ties and (said == TIE).any():
                raise InputError(
                    "the feedback holds ties, which the model gives probability 0; pass the very feedback that it was "
                    "fitted to."
                )
            outcomes = 3 if ties else 2
            flip = block.item[:, 0] > block.item[:, 1]
            turned = lambda said: np.where(flip & (said >= 0) & (said != TIE), 1 - said, said)  # noqa: E731
            code = np.c_[np.sort(block.item, axis=1), block.objective]
            most = turned(_majority(code, turned(said), block.annotator, outcomes))
            names = ["first shown wins", "ties"][: outcomes - 1]
            marks = [np.tile(np.arange(outcomes) == k, (len(said), 1)) for k in (FIRST, TIE)[: outcomes - 1]]
            counts = [every] * (outcomes - 1)
        names.append(MAJORITY)
        marks.append(np.arange(outcomes) == most[:, None])
        counts.append(most >= 0)
        return cls(outcomes, said, tuple(names), np.stack(marks), np.stack(counts))

    def padded(self, acts: Acts, block: Block) -> "Answers":
        """Return the same in the order of padded acts, where padding counts for nothing."""
        at = np.searchsorted(block.row, acts.row)
        return dataclasses.replace(
            self, said=self.said[at], marks=self.marks[:, at], counts=self.counts[:, at] & acts.counts
        )


def _majority(
    code: Int[np.ndarray, "act key"], said: Int[np.ndarray, " act"], who: Int[np.ndarray, " act"], outcomes: int
) -> Int[np.ndarray, " act"]:
    """Return what most of at least two judgements by others on the same say; -1 if there is no such answer."""
    _, key = np.unique(code, axis=0, return_inverse=True)
    _, mine = np.unique(np.stack([key, who]), axis=1, return_inverse=True)
    tally = lambda of: np.bincount(of * outcomes + said, minlength=(of.max() + 1) * outcomes).reshape(-1, outcomes)  # noqa: E731
    others = tally(key)[key] - tally(mine)[mine]
    clear = (others == others.max(1, keepdims=True)).sum(1) == 1
    return np.where(clear & (others.sum(1) >= 2), others.argmax(1), -1)


def _saying(acts: Acts, outcome: Any) -> tuple[Acts, Any]:
    """Return the acts, had every one of them given this answer, and of which of them it can be given."""
    if acts.form != SLATES:
        # Of a comparison the outcome alone is looked at, not how strongly: 0 is a win by any strength.
        unsaid = jnp.zeros_like(acts.strength)
        return dataclasses.replace(acts, said=jnp.full_like(acts.said, outcome), strength=unsaid), True
    shown = acts.item >= 0
    chosen = (jnp.arange(acts.item.shape[1]) == outcome) & shown
    return dataclasses.replace(acts, said=jnp.where(chosen, 0, -1)), chosen.any(-1)


@partial(jax.jit, static_argnums=(0, 1, 2))
def moments(
    response: Response,
    levels: tuple[int, ...],
    personal: bool,
    acts: Acts,
    answers: tuple[Any, Any, Any],
    some: Any,
    draws: Any,
) -> tuple[Any, Any, Any, Any]:
    """Return what the checks are made of, for a block of draws.

    Args:
        response: the model of responses.
        levels: number of grades of each scale.
        personal: voters are the annotators.
        acts: what was said.
        answers: `said`, `marks` and `counts` of `Answers`, in the order of `acts`.
        some: index of acts of which everything is kept.
        draws: of `pointwise.parameters`.

    Returns:
        log_p: log probability of each act, `[draw voter act]`.
        first: log probability that the first answer is given, of `some`, `[draw voter some]`.
        table: of every statistic and of the log loss last, sums over each annotator's acts of what was observed, of
            its mean under the model, of its variance, and of its third central moment,
            `[draw voter statistic 4 annotator]`.
        number: acts that a statistic is about, `[statistic annotator]`.
    """
    said, marks, counts = answers
    outcomes = marks.shape[-1]
    log_p = log_probability(response, levels, personal, acts, draws)

    def answer(k: Any) -> Any:
        put, possible = _saying(acts, k)
        if acts.form == GRADES:
            possible = k < jnp.asarray(levels)[acts.aside]
        return jnp.where(possible, log_probability(response, levels, personal, put, draws), -jnp.inf)

    each = jax.lax.map(answer, jnp.arange(outcomes - (acts.form == SLATES)))  # [outcome draw voter act]
    if acts.form == SLATES:  # whatever is left is a tie for the best
        rest = jnp.log(jnp.clip(1 - jnp.exp(each).sum(0), 0 if response.slates.ties == 1 else 1e-9))
        each = jnp.concatenate([each, rest[None]])
    p = jnp.exp(each)
    loss = jnp.where(p > 0, -each, 0)
    mean = (p * loss).sum(0)
    off = jnp.where(p > 0, loss - mean, 0)
    own = jnp.where(jnp.arange(outcomes)[:, None, None, None] == said, loss, 0).sum(0)
    rows = [(own, mean, (p * off**2).sum(0), (p * off**3).sum(0))]
    for mark in marks:
        q = jnp.einsum("kdva,ak->dva", p, mark.astype(p.dtype))
        hit = jnp.take_along_axis(mark, said[:, None], 1)[:, 0]
        rows.append((jnp.broadcast_to(hit.astype(p.dtype), q.shape), q, q * (1 - q), q * (1 - q) * (1 - 2 * q)))
    counts = jnp.concatenate([counts, acts.counts[None]])
    table = jnp.stack([jnp.stack(row, 2) for row in (*rows[1:], rows[0])], 2)  # [draw voter statistic 4 act]
    table = acts.total(jnp.where(counts[:, None], table, 0))
    return log_p, each[0][:, :, some], table, acts.total(counts.astype(p.dtype))


def exceeds(
    observed: Float[np.ndarray, "..."],
    mean: Float[np.ndarray, "..."],
    variance: Float[np.ndarray, "..."],
    third: Float[np.ndarray, "..."],
) -> Float[np.ndarray, "..."]:
    """Return the probability that a sum of independent terms exceeds what was observed; equality counts half.

    Pearson's (1895) type III distribution with the same first three moments: a gamma distribution, shifted and if
    need be mirrored. Without a correction for continuity, equality of counts counts half.

    Args:
        observed: the sum.
        mean: its mean.
        variance: its variance.
        third: its third central moment.
    """
    certain = variance < 1e-12
    scale = np.sqrt(np.where(certain, 1, variance))
    z = (observed - mean) / scale
    skew = third / scale**3
    skew = np.where(skew < 0, -1, 1) * np.clip(np.abs(skew), 1e-3, 1e3)  # below, it is a normal in all but name
    shape = 4 / skew**2
    at = np.maximum(shape + np.abs(skew) / skew * z * np.sqrt(shape), 0)
    tail = np.where(skew > 0, gammaincc(shape, at), gammainc(shape, at))
    return np.where(certain, np.where(np.abs(observed - mean) < 1e-9, 0.5, observed < mean), tail)
