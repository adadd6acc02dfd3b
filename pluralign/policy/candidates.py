"""The candidates that a policy trains on, and the slates that are drawn from them."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from jaxtyping import Bool, Float, Int

from pluralign.errors import InputError
from pluralign.types import Choice, Feedback


@dataclass(frozen=True, eq=False)
class Candidates:
    """The candidates of all prompts that have at least two, one prompt's after another's.

    Attributes:
        item: index among the feedback's items.
        row: index of the choice's row that the candidate stands in.
        log_ratio: `t = log(p* / reference)`, what the policy has to learn; `sum reference exp(t) = 1` in each row.
            -inf: a rule without multipliers gives it no probability.
        reference: lottery that the rule started from.
        prompts: text of each candidate's prompt.
        responses: text of each candidate.
        counts: which entries of the choice's tables these are, in the same order.
    """

    item: Int[np.ndarray, " candidate"]
    row: Int[np.ndarray, " candidate"]
    log_ratio: Float[np.ndarray, " candidate"]
    reference: Float[np.ndarray, " candidate"]
    prompts: list[str]
    responses: list[str]
    counts: Bool[np.ndarray, "row column"]

    @classmethod
    def of(cls, chosen: Choice, votes: Feedback) -> "Candidates":
        """Look up the texts of a choice's candidates in the feedback.

        Raises:
            InputError: an item is not there or is of another prompt than its neighbours; no prompt has two.
        """
        utilities = chosen.utilities
        item, n = np.asarray(utilities.item), len(votes.items)
        counts = (utilities.reference > 0) & (item >= 0)
        counts &= counts.sum(1, keepdims=True) >= 2
        if not counts.any():
            raise InputError("no prompt has two candidates, so there is no pair to train on.")
        row, index = np.nonzero(counts)[0], item[counts]
        if index.max() >= n:
            raise InputError(
                f"the choice names item {index.max()}, votes has {n}; pass the votes that it was made from."
            )
        prompt = votes.prompt_id[index]
        first = np.searchsorted(row, row)
        if (prompt != prompt[first]).any():
            k = int(np.argmax(prompt != prompt[first]))
            raise InputError(
                f"row {row[k]} of the choice mixes items of different prompts ({index[first[k]]} and {index[k]}); pass "
                "the votes that it was made from."
            )
        texts = votes.items.select(index)
        log_ratio = chosen.log_ratio()
        if chosen.weights is None:
            log_ratio = np.where(chosen.lottery > 0, log_ratio, -np.inf)
        with np.errstate(divide="ignore"):  # a reference of 0 takes no part
            level = np.logaddexp.reduce(np.log(utilities.reference) + log_ratio, axis=1, keepdims=True)
        return cls(
            index,
            row,
            (log_ratio - level)[counts],
            utilities.reference[counts],
            list(texts["prompt"]),
            list(texts["response"]),
            counts,
        )

    @cached_property
    def rows(self) -> Int[np.ndarray, "prompt place"]:
        """Index of every candidate of each prompt; -1 = empty place, after all others."""
        first, size = np.unique(self.row, return_index=True, return_counts=True)[1:]
        place = np.arange(size.max())
        return np.where(place < size[:, None], first[:, None] + place, -1)

    def draw(self, seed: int, step: int, n: int, size: int | None = 2) -> Int[np.ndarray, "slate place"]:
        """Return `n` slates of distinct candidates: a prompt uniformly at random, then `size` of its candidates.

        They depend on `seed` and `step` alone, so that a run that goes on draws what it would have drawn, and
        processes that share them agree. Of a pair, each order is as probable as the other.

        Args:
            seed: at least 0.
            step: at least 0.
            n: how many.
            size: candidates of a slate, at least 2; a prompt that has fewer gives all, followed by -1. None: all.
        """
        rng, rows = np.random.default_rng([seed, step]), self.rows
        prompt = rng.integers(len(rows), size=n)
        if size is None:
            return rows[prompt]
        there = (rows >= 0).sum(1)[prompt]
        if size == 2:
            first = rng.integers(there)
            second = (first + rng.integers(1, there)) % there
            return np.take_along_axis(rows[prompt], np.stack([first, second], -1), 1)
        shuffled = np.where(rows[prompt] >= 0, rng.random((n, rows.shape[1])), 2).argsort(1)
        return np.take_along_axis(rows[prompt], shuffled, 1)[:, :size]


def prompts(chosen: Choice, votes: Feedback) -> list[str]:
    """Return the texts of the prompts that a rule decided on, each once.

    Raises:
        InputError: the choice names items that are not in the feedback.
    """
    item = np.asarray(chosen.utilities.item).max(1)
    if item.max() >= len(votes.items):
        raise InputError(
            f"the choice names item {item.max()}, votes has {len(votes.items)}; pass the votes that it was made from."
        )
    return list(dict.fromkeys(votes.items.select(item[item >= 0])["prompt"]))
