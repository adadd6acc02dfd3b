from dataclasses import replace

import numpy as np

from pluralign.errors import InputError
from pluralign.types import Feedback, Grades

ENOUGH = 5


def holdout(feedback: Feedback, share: float = 0.2, seed: int = 0) -> tuple[Feedback, Feedback]:
    """Keep some choices of every annotator with at least five for evaluation.

    Of such an annotator's n choices, `round(share n)` drawn at random (but never all) are for testing; those with
    fewer than five train only, and so do all grades. Items and annotators stay as they are in both parts.

    Args:
        feedback: to be split.
        share: of each annotator's choices to hold out, above 0 and below 1.
        seed: of the draw.

    Returns:
        The feedback to train on and the feedback to test on.

    Raises:
        InputError: `share` is out of range, or nothing would be held out.
    """
    if not 0 < share < 1:
        raise InputError(f"share is {share}; allowed: above 0 and below 1.")
    rng = np.random.default_rng(seed)
    annotator = feedback.choices.annotator
    held_out = np.zeros(len(annotator), bool)
    for rows in np.split(np.argsort(annotator, kind="stable"), np.cumsum(np.bincount(annotator))[:-1]):
        n = len(rows)
        if n >= ENOUGH:
            held_out[rows[rng.permutation(n)[: min(round(share * n), n - 1)]]] = True
    if not held_out.any():
        raise InputError(
            f"share {share} holds nothing out: it needs annotators with {ENOUGH} choices, and round(share n) above 0."
        )
    return feedback.where(~held_out), replace(feedback.where(held_out), grades=Grades.none())
