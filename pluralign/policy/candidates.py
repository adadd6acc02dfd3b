"""The candidates that a policy trains on, and the pairs that are drawn from them."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from pluralign.errors import InputError
from pluralign.types import Choice, Feedback


@dataclass(frozen=True, eq=False)
class Candidates:
    """The candidates of all prompts that have at least two, one after another.

    Attributes:
        item: index among the feedback's items.
        row: index of the choice's row that the candidate stands in.
        log_ratio: `t = log(p* / reference)`, what the policy has to learn; `sum reference exp(t) = 1` in each row.
        reference: lottery that the rule started from.
        prompts: text of each candidate's prompt.
        responses: text of each candidate.
    """

    item: Int[np.ndarray, " candidate"]
    row: Int[np.ndarray, " candidate"]
    log_ratio: Float[np.ndarray, " candidate"]
    reference: Float[np.ndarray, " candidate"]
    prompts: list[str]
    responses: list[str]

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
        with np.errstate(divide="ignore"):  # a reference of 0 takes no part
            level = np.logaddexp.reduce(np.log(utilities.reference) + log_ratio, axis=1, keepdims=True)
        return cls(
            index,
            row,
            (log_ratio - level)[counts],
            utilities.reference[counts],
            list(texts["prompt"]),
            list(texts["response"]),
        )

    def draw(self, seed: int, step: int, n: int) -> Int[np.ndarray, "pair 2"]:
        """Return `n` pairs of distinct candidates: a prompt, then a pair of it, each uniformly at random.

        They depend on `seed` and `step` alone, so that a run that goes on draws what it would have drawn.
        """
        rng = np.random.default_rng([seed, step])
        start, size = np.unique(self.row, return_index=True, return_counts=True)[1:]
        prompt = rng.integers(len(start), size=n)
        first = rng.integers(size[prompt])
        second = (first + rng.integers(1, size[prompt])) % size[prompt]
        return start[prompt][:, None] + np.stack([first, second], -1)
