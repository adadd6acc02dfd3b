"""What judgements cannot tell, whatever the inference: there the posterior is the prior, and says so in sentences."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
from jaxtyping import Float, Int
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from scipy.sparse.linalg import lsqr

from pluralign.reward.judgements import PAIRS, SINGLE, SLATES, Block, Judgements
from pluralign.types import Feedback

CHUNK = 100_000  # judgements whose differences of features are held at a time
NAMED = 3  # of whatever is named, at most
FEW = 20
"""Judgements per annotator below which a lapse and a high temperature look alike."""
ALIKE = 0.99
"""Share of the first slot's bonus that items explain, above which the two are called confounded."""


@dataclass(frozen=True)
class Identified:
    """What is not identified.

    Attributes:
        caveats: where an answer may mislead.
        notes: conventions, and where the prior alone speaks of what nobody will ask.
    """

    caveats: tuple[str, ...]
    notes: tuple[str, ...]


def identify(votes: Feedback, judgements: Judgements, population: Any) -> Identified:
    """Return what these judgements do not tell of this model.

    A weight is told in the span of the differences of features that judgements are about: of the two of a pair, of an
    item of a slate and the slate's mean, of a graded item and the mean of the graded. Beyond it the posterior is the
    prior.

    Args:
        votes: the feedback.
        judgements: the same, as the model reads them.
        population: the model that is to be fitted.
    """
    rater, several = population.response.rater, len(judgements.objectives) > 1
    span = [_Span.of(judgements, o) for o in range(len(judgements.objectives))]
    caveats = [
        *_never_judged(judgements),
        *_pieces(votes, judgements, span, population.items is not None),
        *(_position(judgements, span, population.items is not None) if rater.position else ()),
        *(_kinds(judgements, population.components) if getattr(population, "components", 1) > 1 else ()),
    ]
    unseen, harmless = _constant(votes, judgements, span)
    notes = [*harmless, *_rank(judgements, span)]
    if several and population.latents(len(judgements.objectives), len(judgements.names)):
        notes += _apart(judgements)
    if rater.temperature:
        notes.append(
            "Choices do not tell an annotator's temperature from the strength of all its tastes: temperatures are 1 in "
            "the geometric mean, and priors divide the rest."
        )
        if rater.lapse and (middle := float(np.median(_active(judgements)))) < FEW:
            notes.append(
                f"With {middle:g} judgements by the median annotator, answers at random (`lapse`) and answers that are "
                "little sure (`temperature`) look alike: read the two together, or leave one out."
            )
    return Identified((*caveats, *unseen), tuple(notes))


@dataclass(frozen=True, eq=False)
class _Span:
    """What differences of features the judgements on one objective are about.

    Attributes:
        gram: sum of their outer products.
        count: how many judgements there are.
        slot: sum of the differences of pairs that were shown side by side, first less second.
        pairs: sum of the outer products of these alone.
        shown: how many of these there are.
    """

    gram: Float[np.ndarray, "feature feature"]
    count: int
    slot: Float[np.ndarray, " feature"]
    pairs: Float[np.ndarray, "feature feature"]
    shown: int

    @classmethod
    def of(cls, judgements: Judgements, objective: int) -> "_Span":
        d = judgements.phi.shape[1]
        gram, pairs, slot, count, shown = np.zeros((d, d)), np.zeros((d, d)), np.zeros(d), 0, 0
        for form, block in judgements.blocks.items():
            rows = np.flatnonzero(block.objective == objective)
            count += len(rows)
            mean = judgements.phi[block.item[rows, 0]].mean(0) if form in SINGLE and len(rows) else np.zeros(d)
            for start in range(0, len(rows), CHUNK):
                here = rows[start : start + CHUNK]
                x = _about(form, block, here, judgements.phi, mean)
                square = x.T @ x
                gram += square
                if form == PAIRS:
                    aside = block.aside[here] > 0
                    pairs += square if aside.all() else x[aside].T @ x[aside]
                    slot += x[aside].sum(0)
                    shown += int(aside.sum())
        return cls(gram, count, slot, pairs, shown)

    def inside(self) -> tuple[Float[np.ndarray, "feature told"], Float[np.ndarray, " told"]]:
        """Return orthonormal directions that the judgements tell of, and how much."""
        value, vector = np.linalg.eigh(self.gram)
        told = value > max(value.max(initial=0), 0) * len(value) * 1e-12
        return vector[:, told], value[told]


def _about(
    form: str, block: Block, rows: Int[np.ndarray, " act"], phi: Float[np.ndarray, "item feature"], mean: np.ndarray
) -> Float[np.ndarray, "row feature"]:
    item = block.item[rows]
    if form == PAIRS:
        return phi[item[:, 0]] - phi[item[:, 1]]
    if form in SINGLE:
        return phi[item[:, 0]] - mean
    shown = (item >= 0)[..., None]
    x = np.where(shown, phi[item], 0)
    return np.where(shown, x - x.sum(1, keepdims=True) / shown.sum(1, keepdims=True), 0).reshape(-1, phi.shape[1])


def _active(judgements: Judgements) -> Int[np.ndarray, " annotator"]:
    """Return how much each annotator who judged at all has told: a ranking tells as often as it fills a place."""
    told = np.zeros(judgements.annotators, int)
    for form, block in judgements.blocks.items():
        each = np.ones(len(block), int)
        if form == SLATES:
            each = np.minimum(block.said.max(1) + 1, (block.item >= 0).sum(1) - 1)
        told += np.bincount(block.annotator, each, judgements.annotators).astype(int)
    return told[told > 0]


def _never_judged(judgements: Judgements) -> Iterator[str]:
    asked = {o for block in judgements.blocks.values() for o in np.unique(block.objective)}
    never = [name for o, name in enumerate(judgements.objectives) if o not in asked]
    if never:
        yield (
            f"Nobody judged on {_listed(never)}: weights on it are the prior's, or follow from the other objectives'; "
            "ask for judgements on it, or drop it."
        )


def _apart(judgements: Judgements) -> Iterator[str]:
    """Yield which objectives no annotator judged on both of, among those that were judged at all."""
    judged = np.zeros((len(judgements.objectives), judgements.annotators), bool)
    for block in judgements.blocks.values():
        judged[block.objective, block.annotator] = True
    names = judgements.objectives
    apart = [
        f"{names[a]} and {names[b]}"
        for a, b in combinations(range(len(names)), 2)
        if judged[a].any() and judged[b].any() and not (judged[a] & judged[b]).any()
    ]
    if apart:
        yield (
            f"No annotator judged on both {_listed(apart)}: how tastes in them go together is the prior's; have some "
            "annotators judge on both."
        )


def _kinds(judgements: Judgements, components: int) -> Iterator[str]:
    told = _active(judgements)
    if (middle := float(np.median(told))) < 2:
        yield (
            f"The median annotator made {middle:g} judgement{'' if middle == 1 else 's'}: {components} kinds of people "
            "cannot be told from one kind that is less sure (Zhao, Piech and Xia 2016); get several judgements by each "
            "annotator, or take `Pooled`."
        )


def _constant(votes: Feedback, judgements: Judgements, span: list[_Span]) -> tuple[list[str], list[str]]:
    """Return what is said of features in which nothing that was judged together differs."""
    judged = [s for s in span if s.count]
    never = np.all([np.diag(s.gram) <= 1e-12 * max(np.diag(s.gram).max(), 1e-300) for s in judged], axis=0)
    if not never.any():
        return [], []
    prompt, x = votes.prompt_id, judgements.phi[:, never]
    low, high = np.full((prompt.max() + 1, x.shape[1]), np.inf), np.full((prompt.max() + 1, x.shape[1]), -np.inf)
    np.minimum.at(low, prompt, x)
    np.maximum.at(high, prompt, x)
    matters = (np.where(np.isfinite(low), high - low, 0) > 0).any(0)
    names = np.array(judgements.names, dtype=object)[never]
    said: tuple[list[str], list[str]] = ([], [])
    if matters.any():
        said[0].append(
            f"What was judged together never differs in {_listed(names[matters])}, though candidates of a prompt do: "
            f"the weight of {'it' if matters.sum() == 1 else 'each'} is the prior's; compare candidates that differ in "
            "it, or drop it."
        )
    if not matters.all():
        said[1].append(f"No two candidates of a prompt differ in {_listed(names[~matters])}: it decides nothing.")
    return said


def _rank(judgements: Judgements, span: list[_Span]) -> Iterator[str]:
    for objective, s in zip(judgements.objectives, span, strict=True):
        if not s.count:
            continue
        differ = int((np.diag(s.gram) > 1e-12 * max(np.diag(s.gram).max(), 1e-300)).sum())
        rank = s.inside()[0].shape[1]
        if rank < differ:
            on = f" on {objective!r}" if len(span) > 1 else ""
            yield (
                f"Judgements{on} tell of {rank} directions in {differ} features: along the other {differ - rank} the "
                "weights are the prior's. New responses that differ there are predicted by it; take fewer features, "
                "or judge more items."
            )


def _pieces(votes: Feedback, judgements: Judgements, span: list[_Span], own: bool) -> Iterator[str]:
    """Yield of which items of a prompt nothing tells how they compare; `own`: items have effects of their own."""
    items, prompt = len(judgements.phi), votes.prompt_id
    for o, s in enumerate(span):
        label, judged = _components(judgements, o, items)
        if not judged.any():
            continue
        where = np.flatnonzero(judged)
        piece, first, size = np.unique(
            np.stack([prompt[where], label[where]], 1), axis=0, return_index=True, return_counts=True
        )
        start, pieces = np.unique(piece[:, 0], return_index=True, return_counts=True)[1:]
        apart = pieces > 1
        if not apart.any():
            continue
        if not own:
            inside, _ = s.inside()
            at = where[first]
            lead = np.repeat(at[start], pieces)
            x = judgements.phi[at] - judgements.phi[lead]
            beyond = ((x - x @ inside @ inside.T) ** 2).sum(1) > 1e-9 * (x**2).sum(1)
            apart &= np.add.reduceat(beyond, start) > 0
            if not apart.any():
                continue
        mine = np.repeat(apart, pieces)
        order = np.flatnonzero(mine)[np.argsort(size[mine], kind="stable")][:NAMED]
        smallest = _listed(
            [f"{_short(votes.items['response'][int(where[first[i]])])} ({size[i]} items)" for i in order]
        )
        asked = f" on {judgements.objectives[o]!r}" if len(span) > 1 else ""
        why = "effects of single items" if own else "features that they do not share"
        yield (
            f"No chain of judgements{asked} connects {int(pieces[apart].sum()):,} pieces of {int(apart.sum()):,} "
            f"prompt{'' if apart.sum() == 1 else 's'}, and {why} say nothing across: how pieces compare is the "
            f"prior's. The smallest hold {smallest}. Compare items across pieces, or "
            f"{'take no `items`' if own else 'take features that items share'}."
        )


def _components(judgements: Judgements, objective: int, items: int) -> tuple[Int[np.ndarray, " item"], np.ndarray]:
    """Return the connected piece of each item, and which items were judged; grades are all on one scale."""
    row, column = [], []
    for form, block in judgements.blocks.items():
        item = block.item[block.objective == objective]
        hub = (
            np.full_like(item[:, :1], items)
            if form in SINGLE
            else np.take_along_axis(item, (item >= 0).argmax(1)[:, None], 1)
        )
        filled = item >= 0
        row.append(np.broadcast_to(hub, item.shape)[filled])
        column.append(item[filled])
    ends = np.concatenate(row), np.concatenate(column)
    graph = coo_array((np.ones(len(ends[0]), np.int8), ends), shape=(items + 1, items + 1))
    judged = np.zeros(items, bool)
    judged[ends[1]] = True
    return connected_components(graph.tocsr(), directed=False)[1][:items], judged


def _position(judgements: Judgements, span: list[_Span], own: bool) -> Iterator[str]:
    """Yield whether what stands first is worth more because it stands first, or always is of the same kind.

    A bonus of the first slot adds 1 to every difference; it is told from the weights unless these can do so as well,
    `min_w sum (1 - x · w)^2 = 0`, or the items' effects.
    """
    shown = sum(s.shown for s in span)
    if not shown:
        return
    explained = 0.0
    for o, s in enumerate(span):
        if not s.shown:
            continue
        value, vector = np.linalg.eigh(s.pairs)
        told = value > value.max() * len(value) * 1e-12
        few = told.any() and 2 * told.sum() <= s.shown  # with more directions than judgements anything is explained
        by_features = ((s.slot @ vector)[told] ** 2 / value[told]).sum() if few else 0.0
        explained += max(by_features, _by_items(judgements.blocks[PAIRS], o) if own else 0.0)
    if explained > ALIKE * shown:
        yield (
            "The first slot always holds the same kind of item: its bonus cannot be told from what such items are "
            "worth; show pairs in both orders, or take `Rater(position=False)`."
        )


def _by_items(block: Block, objective: int) -> float:
    """Return the sum of squares that a worth of every single item explains of a bonus of 1 for the first."""
    mine = (block.objective == objective) & (block.aside > 0)
    pair, count = np.unique(block.item[mine], axis=0, return_counts=True)
    _, place = np.unique(pair, return_inverse=True)
    place, row, root = place.reshape(-1, 2), np.arange(len(pair)), np.sqrt(count)
    entries = np.concatenate([root, -root]), (np.tile(row, 2), place.T.ravel())
    design = coo_array(entries, shape=(len(pair), place.max() + 1)).tocsr()
    left = lsqr(design, root, atol=1e-6, btol=1e-6, iter_lim=200)[3]
    return float(count.sum() - left**2)


def _listed(names: Any) -> str:
    names = [str(name) for name in names]
    more = f" and {len(names) - NAMED:,} more" if len(names) > NAMED else ""
    return ", ".join(names[:NAMED]) + more


def _short(text: str) -> str:
    text = " ".join(str(text).split())
    return repr(text if len(text) <= 40 else text[:39] + "…")
