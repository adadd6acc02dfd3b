"""What annotators said as arrays, laid out so that a gradient is cheap."""

import dataclasses
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float, Int

from pluralign.errors import InputError
from pluralign.reward.design import Design
from pluralign.types import FORMS, Features, Feedback, Grades, Scale

FIRST, SECOND, TIE = 0, 1, 2
PAIRS, SLATES, GRADES, VOTES = "pairs", "slates", "grades", "votes"
SINGLE = (GRADES, VOTES)
PER_ACT = ("item", "said", "aside", "strength", "row")
"""Fields of `Acts` that have an entry per act, `counts` aside."""


@dataclass(frozen=True, eq=False)
class Block:
    """Judgements of one form, in the order of the feedback.

    Attributes:
        item: what was shown: first and second of a pair, the slots of a slate, the one item of a grade; -1 = empty.
        said: of a pair 0 = the first won, 1 = the second, 2 = tie; of a slate the ranks `[act slot]` as in `Choices`;
            of a grade its level, of a vote 0 = disagree, 1 = pass, 2 = agree.
        annotator: who judged.
        objective: what was asked.
        aside: of a pair 1 if the two were shown side by side, so that a bonus of the first slot applies (a correction
            and its original were not); of a grade or vote its scale; of a slate 0.
        strength: of a pair how strongly the winner is preferred, 1 = least, 0 = not stated or a tie; else 0.
        row: index among the choices, or among the grades, of the feedback.
    """

    item: Int[np.ndarray, "act slot"]
    said: Int[np.ndarray, "act ..."]
    annotator: Int[np.ndarray, " act"]
    objective: Int[np.ndarray, " act"]
    aside: Int[np.ndarray, " act"]
    strength: Int[np.ndarray, " act"]
    row: Int[np.ndarray, " act"]

    def __len__(self) -> int:
        return len(self.row)


@dataclass(frozen=True, eq=False)
class Judgements:
    """What annotators said.

    Attributes:
        phi: features of the items.
        names: of the features.
        blocks: judgements by form, `PAIRS`, `SLATES` (more than two items), `GRADES` and `VOTES` (agree, pass,
            disagree); only forms that occur.
        annotators: how many annotators there are, those who judged nothing included.
        objectives: names of the objectives.
        scales: what grades mean.
        demonstrations: how many choices show one item alone; they compare nothing, so they are in no block.
    """

    phi: Float[np.ndarray, "item feature"]
    names: tuple[str, ...]
    blocks: dict[str, Block]
    annotators: int
    objectives: tuple[str, ...]
    scales: tuple[Scale, ...]
    demonstrations: int

    @classmethod
    def read(cls, votes: Feedback, phi: Features) -> "Judgements":
        """Take the judgements out of feedback.

        Raises:
            InputError: there is none, or the features are those of other items.
        """
        if len(phi.phi) != len(votes.items):
            raise InputError(
                f"phi has {len(phi.phi)} rows and the feedback {len(votes.items)} items; encode this very feedback."
            )
        choices, grades = votes.choices, votes.grades
        shown = (choices.slate >= 0).sum(1)
        blocks = {PAIRS: _pairs(votes, shown), SLATES: _slates(votes, shown)}
        three = [scale.form == "vote" and len(scale.labels) == 3 for scale in votes.scales]
        vote = np.array(three, bool)[grades.scale]
        blocks |= {GRADES: _graded(grades, ~vote), VOTES: _graded(grades, vote)}
        blocks = {form: block for form, block in blocks.items() if len(block)}
        if not blocks:
            raise InputError("the feedback holds no comparison, ranking or grade; was everything filtered out?")
        return cls(
            phi.phi.astype(np.float64),
            phi.names,
            blocks,
            len(votes.annotators),
            votes.objectives,
            votes.scales,
            int((shown == 1).sum()),
        )

    @property
    def ties(self) -> bool:
        """True if any comparison of two is a tie."""
        return PAIRS in self.blocks and bool((self.blocks[PAIRS].said == TIE).any())

    @property
    def strengths(self) -> int:
        """The largest strength that a comparison of two states."""
        return int(self.blocks[PAIRS].strength.max()) if PAIRS in self.blocks else 0

    @cached_property
    def unit(self) -> float:
        """Root mean square length of the difference of features that a judgement is about.

        Weights of size 1 turn it into one logit. It is that of the two of a pair; of an item of a slate and the slate's
        mean, and of a graded item and the mean of the graded, times sqrt 2.
        """
        square, count = 0.0, 0
        for form, block in self.blocks.items():
            if form == PAIRS:
                square += ((self.phi[block.item[:, 0]] - self.phi[block.item[:, 1]]) ** 2).sum()
                count += len(block)
                continue
            place = (block.item >= 0)[..., None]
            if form in SINGLE:  # compared with whatever else was graded
                about = self.phi[block.item[:, 0]] - self.phi[block.item[:, 0]].mean(0)
            else:
                x = np.where(place, self.phi[block.item], 0)
                about = np.where(place, x - x.sum(1, keepdims=True) / place.sum(1, keepdims=True), 0)
            square += 2 * (about**2).sum()
            count += int(place.sum())
        return float(np.sqrt(square / count)) or 1.0


def outcomes(votes: Feedback) -> Int[np.ndarray, " choice"]:
    """Return 0 = the first shown won, 1 = the second, 2 = tie, of every choice.

    Raises:
        InputError: there are grades, or some choice is not between two.
    """
    shown = (votes.choices.slate >= 0).sum(1)
    if len(votes.grades) or not (shown == 2).all():
        other = len(votes.grades) + int((shown != 2).sum())
        raise InputError(f"{other:,} judgements are not comparisons of two items; only those have these outcomes.")
    if not len(shown):
        raise InputError("the feedback holds no comparison; was everything filtered out?")
    return _pairs(votes, shown).said


def _pairs(votes: Feedback, shown: Int[np.ndarray, " choice"]) -> Block:
    c = votes.choices
    row = np.flatnonzero(shown == 2)
    # The two filled slots, in the order shown; -1 is "below all ranked", and a choice has a best item.
    slot = np.argsort(c.slate[row] < 0, axis=1, kind="stable")[:, :2]
    item, rank = np.take_along_axis(c.slate[row], slot, 1), np.take_along_axis(c.rank[row], slot, 1)
    rank = np.where(rank < 0, np.iinfo(np.int32).max, rank)
    said = np.select([rank[:, 0] < rank[:, 1], rank[:, 0] > rank[:, 1]], [FIRST, SECOND], TIE).astype(np.int32)
    aside = (c.form[row] != FORMS.index("correction")).astype(np.int32)
    strength = c.strength[row].astype(np.int32)
    return Block(item.reshape(-1, 2), said, c.annotator[row], c.objective[row], aside, strength, row)


def _graded(grades: Grades, counts: Bool[np.ndarray, " grade"]) -> Block:
    row = np.flatnonzero(counts)
    none = np.zeros(len(row), np.int32)
    said, who, asked = grades.value[row], grades.annotator[row], grades.objective[row]
    return Block(grades.item[row, None], said, who, asked, grades.scale[row], none, row)


def _slates(votes: Feedback, shown: Int[np.ndarray, " choice"]) -> Block:
    c = votes.choices
    row = np.flatnonzero(shown > 2)
    none = np.zeros(len(row), np.int32)
    return Block(c.slate[row], c.rank[row], c.annotator[row], c.objective[row], none, none, row)


@jax.tree_util.register_pytree_node_class
@dataclass(frozen=True, eq=False)
class Acts:
    """A block sorted by owner and padded within buckets of owners who judged about equally much.

    An owner is an annotator with one objective, `annotator * objectives + objective`. A product per bucket replaces
    gathering a weight vector per act, whose gradient is a slow scatter. All `act` axes below are this padded order; a
    bucket holds owners with more than half its largest count.

    Attributes:
        form: `PAIRS`, `SLATES`, `GRADES` or `VOTES`.
        buckets: owners `[bucket]` and features `[bucket, place, slot, feature]` of what was shown; of a pair the
            difference `[bucket, place, feature]`, of a grade `[bucket, place, feature]`; zero where padded or empty.
        counts: False where padded.
        item, said, aside, strength, row: as in `Block`, in padded order (an arbitrary act where padded).
        annotators: how many there are.
        objectives: how many there are.
    """

    form: str
    buckets: tuple[tuple[Any, Any], ...]
    counts: Any
    item: Any
    said: Any
    aside: Any
    strength: Any
    row: Any
    annotators: int
    objectives: int

    def tree_flatten(self) -> tuple[tuple[Any, ...], tuple[Any, ...]]:
        """Return the arrays, and the rest: several layouts of one shape are stacked in `together`."""
        leaves = (self.buckets, self.counts, self.item, self.said, self.aside, self.strength, self.row)
        return leaves, (self.form, self.annotators, self.objectives)

    @classmethod
    def tree_unflatten(cls, rest: tuple[Any, ...], leaves: tuple[Any, ...]) -> "Acts":
        """Undo `tree_flatten`."""
        return cls(rest[0], *leaves, *rest[1:])

    @classmethod
    def of(cls, form: str, judgements: Judgements, unit: float) -> "Acts":
        """Sort and pad; features are divided by `unit`."""
        block, phi = judgements.blocks[form], judgements.phi / unit
        objectives = len(judgements.objectives)
        owner = block.annotator * objectives + block.objective
        size = np.bincount(owner, minlength=judgements.annotators * objectives)
        act = np.argsort(owner, kind="stable")
        start = np.concatenate([[0], np.cumsum(size)])
        order = np.argsort(-size, kind="stable")
        order = order[size[order] > 0]
        buckets, index, counts = [], [], []
        while order.size:
            longest = int(size[order[0]])
            who, order = order[2 * size[order] > longest], order[2 * size[order] <= longest]
            place = np.arange(longest)
            counted = place < size[who][:, None]
            here = act[np.where(counted, start[who][:, None] + place, 0)]
            item = block.item[here]
            x = np.where((counted[..., None] & (item >= 0))[..., None], phi[item], 0)
            buckets.append((who, np.moveaxis(_contrast(form, np.moveaxis(x, -1, 0)), 0, -1)))
            index.append(here.ravel())
            counts.append(counted.ravel())
        rows = np.concatenate(index)
        return cls(
            form=form,
            buckets=tuple(buckets),
            counts=np.concatenate(counts),
            item=block.item[rows],
            said=block.said[rows],
            aside=block.aside[rows],
            strength=block.strength[rows],
            row=block.row[rows],
            annotators=judgements.annotators,
            objectives=objectives,
        )

    def instead(self, said: int, strength: int = 0) -> "Acts":
        """Return the same acts, had every one of them said this."""
        return dataclasses.replace(
            self, said=np.full_like(self.said, said), strength=np.full_like(self.strength, strength)
        )

    def utility(self, weights: Any) -> Any:
        """Return `x[act (slot)] · weights[owner of act]`, from weights `[annotator objective feature]`."""
        weights = weights.reshape(-1, weights.shape[-1])
        parts = [jnp.einsum("ap...f,af->ap...", x, weights[who]) for who, x in self.buckets]
        return jnp.concatenate([part.reshape(-1, *part.shape[2:]) for part in parts])

    def shared(self, weights: Any) -> Any:
        """Return `x[act (slot)] · weights[..., objective of act]`, from weights `[... objective feature]`."""
        lead = weights.shape[:-2]
        parts = []
        for who, x in self.buckets:
            if self.objectives == 1:
                part = jnp.einsum("ap...f,kf->kap...", x, weights.reshape(-1, weights.shape[-1]))
            else:
                own = weights[..., who % self.objectives, :].reshape(-1, len(who), weights.shape[-1])
                part = jnp.einsum("ap...f,kaf->kap...", x, own)
            parts.append(part.reshape(-1, part.shape[1] * part.shape[2], *part.shape[3:]))
        whole = jnp.concatenate(parts, 1)
        return whole.reshape(*lead, *whole.shape[1:])

    def contrast(self, value: Any) -> Any:
        """Return `value[act slot]` as `utility` has it: of a pair the difference, of a grade the one item's."""
        return _contrast(self.form, value)

    def each(self, value: Any) -> Any:
        """Return `value[annotator of act]`."""
        parts = [
            jnp.broadcast_to(value[who // self.objectives][:, None], (*x.shape[:2], *value.shape[1:]))
            for who, x in self.buckets
        ]
        return jnp.concatenate([part.reshape(-1, *value.shape[1:]) for part in parts])

    @property
    def objective(self) -> Any:
        """Objective of each act."""
        return jnp.concatenate([jnp.repeat(who % self.objectives, x.shape[1]) for who, x in self.buckets])

    def total(self, value: Any) -> Any:
        """Return the sum of `value[... act]` over each annotator's acts, `[... annotator]`."""
        value = jnp.where(self.counts, value, 0)
        parts, start = [], 0
        for _, x in self.buckets:
            stop = start + x.shape[0] * x.shape[1]
            parts.append(value[..., start:stop].reshape(*value.shape[:-1], *x.shape[:2]).sum(-1))
            start = stop
        owners = jnp.concatenate([who for who, _ in self.buckets]) // self.objectives
        sums = jnp.concatenate(parts, -1)
        return jnp.zeros((*value.shape[:-1], self.annotators), sums.dtype).at[..., owners].add(sums)


def _contrast(form: str, value: Any) -> Any:
    if form == PAIRS:
        return value[..., 0] - value[..., 1]
    return value[..., 0] if form in SINGLE else value


@dataclass(frozen=True, eq=False)
class Layout:
    """Everything that a model looks at.

    Attributes:
        acts: padded judgements by form.
        annotators, objectives, features, items: how many there are.
        group: index of each annotator's group.
        groups: how many groups there are.
        design: what covariates say of each annotator.
        covariate: index of the covariate that each column of the design is of.
        overall: index of the objective that weighs up the others; none: they are on a par.
        ties: whether a tie is a possible outcome of a comparison of two.
        strengths: the largest strength that a comparison of two states.
        levels: number of grades of each scale.
        judged: how many judgements each annotator made.
        information: per annotator, objective and feature, sum of squared differences (of a slot of a slate, or of a
            graded item: from the mean of its kind), about what a choice tells of a weight.
        exposure: how often each item was judged.
    """

    acts: dict[str, Acts]
    annotators: int
    objectives: int
    features: int
    items: int
    group: Int[np.ndarray, " annotator"]
    groups: int
    design: Float[np.ndarray, "annotator column"]
    covariate: tuple[int, ...]
    overall: int | None
    ties: bool
    strengths: int
    levels: tuple[int, ...]
    judged: Int[np.ndarray, " annotator"]
    information: Float[np.ndarray, "annotator objective feature"]
    exposure: Int[np.ndarray, " item"]

    @property
    def parts(self) -> list[int]:
        """Indices of the objectives that do not weigh up others."""
        return [o for o in range(self.objectives) if o != self.overall]

    @classmethod
    def of(
        cls,
        judgements: Judgements,
        group: Int[np.ndarray, " annotator"],
        design: Design | None = None,
        overall: int | None = None,
    ) -> "Layout":
        """Lay out judgements."""
        design = design or Design.none(judgements.annotators)
        acts = {form: Acts.of(form, judgements, judgements.unit) for form in judgements.blocks}
        shape = (judgements.annotators, len(judgements.objectives), judgements.phi.shape[1])
        information = np.zeros((shape[0] * shape[1], shape[2]))
        judged, exposure = np.zeros(shape[0], int), np.zeros(len(judgements.phi), int)
        for form, block in judgements.blocks.items():
            for who, x in acts[form].buckets:
                y = x if form == PAIRS else x - x.mean((0, 1) if form in SINGLE else 2, keepdims=True)
                information[who] += (y**2).sum(tuple(range(1, x.ndim - 1)))
            judged += np.bincount(block.annotator, minlength=shape[0])
            exposure += np.bincount(block.item[block.item >= 0], minlength=len(exposure))
        return cls(
            acts=acts,
            annotators=shape[0],
            objectives=shape[1],
            features=shape[2],
            items=len(judgements.phi),
            group=group,
            groups=int(group.max()) + 1,
            design=design.value,
            covariate=design.covariate,
            overall=overall,
            ties=judgements.ties,
            strengths=judgements.strengths,
            levels=tuple(len(scale.labels) for scale in judgements.scales),
            judged=judged,
            information=information.reshape(shape),
            exposure=exposure,
        )
