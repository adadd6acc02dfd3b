"""Comparisons of two items as arrays, laid out so that a gradient is cheap."""

from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float, Int

from pluralign.errors import InputError
from pluralign.types import FORMS, Features, Feedback

FIRST, SECOND, TIE = 0, 1, 2


@dataclass(frozen=True, eq=False)
class Judgements:
    """Comparisons of two items, one objective, in the order of the feedback.

    Attributes:
        x: `phi[first] - phi[second]`.
        outcome: 0 = the first shown won, 1 = the second, 2 = tie.
        annotator: who judged.
        annotators: how many annotators there are, those who judged nothing included.
        placed: whether the two were shown side by side, so that a bonus of the first slot applies; a correction and
            its original were not.
    """

    x: Float[np.ndarray, "choice feature"]
    outcome: Int[np.ndarray, " choice"]
    annotator: Int[np.ndarray, " choice"]
    annotators: int
    placed: Bool[np.ndarray, " choice"]

    @classmethod
    def read(cls, votes: Feedback, phi: Features) -> "Judgements":
        """Take the comparisons out of feedback.

        Raises:
            InputError: the feedback holds something else, or the features are those of other items.
        """
        if len(phi.phi) != len(votes.items):
            raise InputError(
                f"phi has {len(phi.phi)} rows and the feedback {len(votes.items)} items; encode this very feedback."
            )
        x = phi.phi.astype(np.float64)
        slate = votes.choices.slate[:, :2]
        return cls(
            x[slate[:, 0]] - x[slate[:, 1]],
            outcomes(votes),
            votes.choices.annotator,
            len(votes.annotators),
            votes.choices.form != FORMS.index("correction"),
        )

    @property
    def ties(self) -> bool:
        """True if any outcome is a tie."""
        return bool((self.outcome == TIE).any())

    @property
    def unit(self) -> float:
        """Root mean square of `|x|`: the features of a typical pair, which weights of size 1 turn into one logit."""
        return float(np.sqrt((self.x**2).sum(1).mean())) or 1.0


def outcomes(votes: Feedback) -> Int[np.ndarray, " choice"]:
    """Return 0 = the first shown won, 1 = the second, 2 = tie, of every choice.

    Raises:
        InputError: the feedback holds something else than comparisons for one objective.
    """
    choices = votes.choices
    if len(votes.grades):
        raise InputError(f"the feedback holds {len(votes.grades)} grades, which are not modelled yet; leave them out.")
    if not len(choices):
        raise InputError("the feedback holds no comparison; was everything filtered out?")
    asked = np.unique(choices.objective)
    if len(asked) > 1:
        names = [votes.objectives[i] for i in asked]
        raise InputError(f"the choices have the objectives {names}; several are not modelled yet, so keep one of them.")
    pair = (choices.slate >= 0).sum(1) == 2
    if choices.slate.shape[1] > 1:
        pair &= (choices.slate[:, :2] >= 0).all(1)
    if not pair.all():
        row = int(np.argmin(pair))
        items = [int(i) for i in choices.slate[row]]
        raise InputError(
            f"choice {row} has the slate {items}; only comparisons of the two items in the first two slots are "
            "modelled yet, rankings and choices from larger slates are not."
        )
    # -1 is "below all ranked", and a choice has a best item, so each pair is one of these three.
    rank = np.where(choices.rank[:, :2] < 0, np.iinfo(np.int32).max, choices.rank[:, :2])
    return np.select([rank[:, 0] < rank[:, 1], rank[:, 0] > rank[:, 1]], [FIRST, SECOND], TIE).astype(np.int32)


@dataclass(frozen=True, eq=False)
class Layout:
    """Judgements sorted by annotator and padded within buckets of annotators who judged about equally much.

    A product per bucket replaces gathering a weight vector per choice, whose gradient is a slow scatter. All
    `choice` axes below are this padded order; a bucket holds annotators with more than half its largest count.

    Attributes:
        buckets: annotators `[bucket]` and their differences `[bucket, place, feature]`, zero where padded.
        outcome: as in `Judgements`, in padded order.
        counts: False where padded.
        placed: as in `Judgements`, in padded order.
        annotators: how many there are.
        group: index of each annotator's group.
        groups: how many groups there are.
        ties: whether a tie is a possible outcome.
        judged: how many choices each annotator made.
        information: per annotator and feature, sum of squared differences.
    """

    buckets: tuple[tuple[np.ndarray, np.ndarray], ...]
    outcome: Int[np.ndarray, " choice"]
    counts: Bool[np.ndarray, " choice"]
    placed: Bool[np.ndarray, " choice"]
    annotators: int
    group: Int[np.ndarray, " annotator"]
    groups: int
    ties: bool
    judged: Int[np.ndarray, " annotator"]
    information: Float[np.ndarray, "annotator feature"]

    @classmethod
    def of(cls, judgements: Judgements, group: Int[np.ndarray, " annotator"]) -> "Layout":
        """Sort and pad; differences are divided by their `unit`."""
        x, annotators = judgements.x / judgements.unit, judgements.annotators
        size = np.bincount(judgements.annotator, minlength=annotators)
        row = np.argsort(judgements.annotator, kind="stable")
        start = np.concatenate([[0], np.cumsum(size)])
        order = np.argsort(-size, kind="stable")
        order = order[size[order] > 0]
        buckets, outcome, counts, placed = [], [], [], []
        while order.size:
            longest = int(size[order[0]])
            who, order = order[2 * size[order] > longest], order[2 * size[order] <= longest]
            place = np.arange(longest)
            counted = place < size[who][:, None]
            index = row[np.where(counted, start[who][:, None] + place, 0)]
            buckets.append((who, x[index] * counted[..., None]))
            outcome.append(judgements.outcome[index].ravel())
            counts.append(counted.ravel())
            placed.append(judgements.placed[index].ravel())
        information = np.zeros((annotators, x.shape[1]))
        np.add.at(information, judgements.annotator, x**2)
        return cls(
            buckets=tuple(buckets),
            outcome=np.concatenate(outcome),
            counts=np.concatenate(counts),
            placed=np.concatenate(placed),
            annotators=annotators,
            group=group,
            groups=int(group.max()) + 1,
            ties=judgements.ties,
            judged=size,
            information=information,
        )

    @property
    def features(self) -> int:
        """How many features there are."""
        return self.information.shape[1]

    @property
    def x(self) -> Float[np.ndarray, "choice feature"]:
        """Differences in padded order, zero where padded."""
        return np.concatenate([x.reshape(-1, self.features) for _, x in self.buckets])

    def advantage(self, weights: Any) -> Any:
        """Return `x[choice] · weights[annotator of choice]`, from weights `[annotator feature]`."""
        return jnp.concatenate([jnp.einsum("apf,af->ap", x, weights[who]).ravel() for who, x in self.buckets])

    def per_choice(self, value: Any) -> Any:
        """Return `value[annotator of choice]`."""
        spread = [jnp.broadcast_to(value[who][:, None], x.shape[:2]).ravel() for who, x in self.buckets]
        return jnp.concatenate(spread)
