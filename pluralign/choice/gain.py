"""What a choice gives to every voter and group, and how well that is known."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from pluralign.errors import InputError
from pluralign.types import Choice


@dataclass(frozen=True, eq=False)
class Gains:
    """What a choice gives to voters or groups, as known: each row is posterior mean, 5 % and 95 % quantile.

    Attributes:
        names: of the voters or groups.
        share: of all mass.
        before: welfare under the reference.
        after: welfare under the lottery.
        gain: their difference.
        probability: that the gain is positive.
    """

    names: tuple[str, ...]
    share: Float[np.ndarray, " name"]
    before: Float[np.ndarray, "name 3"]
    after: Float[np.ndarray, "name 3"]
    gain: Float[np.ndarray, "name 3"]
    probability: Float[np.ndarray, " name"]


def gains(chosen: Choice, groups: Sequence[str] | None = None) -> Gains:
    """Return the welfare of every voter or group under a choice of any rule, with credible intervals.

    `u[draw, voter] = mean_prompt sum_candidate lottery U`; a group's is the mean over its voters, weighted by mass.

    Args:
        chosen: what a rule chose.
        groups: name of each voter's group; None: every voter alone. Groups in which nobody has mass are left out.

    Raises:
        InputError: there are not as many names as voters.
    """
    utilities = chosen.utilities
    labels = tuple(utilities.voters or ()) if groups is None else tuple(groups)
    if len(labels) != len(utilities.mass):
        raise InputError(f"groups names {len(labels)} groups for {len(utilities.mass)} voters; name each voter's.")
    if groups is None:
        weight, names = np.eye(len(labels)), labels
        share = utilities.mass
    else:
        unique, place = np.unique(np.array(labels, dtype=object), return_inverse=True)
        weight = (place == np.arange(len(unique))[:, None]) * utilities.mass
        share = weight.sum(1)
        weight, unique, share = (x[share > 0] for x in (weight, unique, share))
        weight, names = weight / share[:, None], tuple(unique)
    before, after = (utilities.expected(p) @ weight.T for p in (utilities.reference, chosen.lottery))
    gain = after - before

    def told(u: Float[np.ndarray, "draw name"]) -> Float[np.ndarray, "name 3"]:
        return np.stack([u.mean(0), *np.quantile(u, [0.05, 0.95], axis=0)], axis=1)

    return Gains(names, share, told(before), told(after), told(gain), (gain > 0).mean(0))
