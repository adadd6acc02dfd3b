"""How far rules differ on one problem."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from pluralign.errors import InputError
from pluralign.types import Choice


@dataclass(frozen=True, eq=False)
class Agreement:
    """How near the lotteries of several rules are.

    Attributes:
        names: of the rules.
        tv: total variation between two rules' lotteries, mean over prompts; in [0, 1].
        same: share of prompts where two rules' most probable candidates are the same.
    """

    names: tuple[str, ...]
    tv: Float[np.ndarray, "rule rule"]
    same: Float[np.ndarray, "rule rule"]


def agreement(choices: Mapping[str, Choice] | Sequence[Choice]) -> Agreement:
    """Return how near the lotteries of these choices are, pair by pair.

    Args:
        choices: on the same prompts and candidates; a mapping gives names, a sequence takes the rules' own.

    Raises:
        InputError: there are none, or they were made for different candidates.
    """
    named = dict(choices) if isinstance(choices, Mapping) else {c.name: c for c in choices}
    if not named or len(named) < len(choices):
        raise InputError("agreement needs at least one choice, and a different name for each; pass a dict of them.")
    first, *others = named.values()
    for other in others:
        if not np.array_equal(np.asarray(other.utilities.item), np.asarray(first.utilities.item)):
            raise InputError(f"{other.name} and {first.name} were made for different candidates.")
    lottery = np.stack([c.lottery for c in named.values()])
    top = lottery.argmax(-1)
    return Agreement(
        names=tuple(named),
        tv=np.abs(lottery[:, None] - lottery[None]).sum(-1).mean(-1) / 2,
        same=(top[:, None] == top[None]).mean(-1),
    )
