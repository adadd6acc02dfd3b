"""Tables of utilities made of others: some voters alone, sums of voters, moved, side by side, draw by draw."""

from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np
from jaxtyping import Bool, Float

from pluralign.types import Linear, Utilities


def only(utilities: Utilities, counts: Bool[np.ndarray, " voter"]) -> Utilities:
    """Return the utilities of the voters for whom `counts` is True."""
    value = utilities.value
    if isinstance(value, Linear):
        value = Linear(value.phi, value.weights[:, counts], value.offset[:, counts])
    else:
        value = value[:, counts]
    voters = tuple(v for v, keep in zip(utilities.voters or (), counts, strict=True) if keep)
    groups = utilities.groups and tuple(g for g, keep in zip(utilities.groups, counts, strict=True) if keep)
    return replace(utilities, value=value, mass=utilities.mass[counts], voters=voters, groups=groups)


def each_draw(utilities: Utilities) -> Iterator[Utilities]:
    """Yield every draw as if it were the truth."""
    value = utilities.value
    for s in range(utilities.shape[0]):
        if isinstance(value, Linear):
            yield replace(utilities, value=Linear(value.phi, value.weights[[s]], value.offset[[s]]))
        else:
            yield replace(utilities, value=value[[s]])


def combined(utilities: Utilities, share: Float[np.ndarray, "row voter"], names: Sequence[str]) -> Utilities:
    """Return rows that are `sum_voter share U`."""
    value = utilities.value
    if isinstance(value, Linear):
        value = Linear(value.phi, np.einsum("rv,svf->srf", share, value.weights), value.offset @ share.T)
    else:
        value = np.einsum("rv,svxy->srxy", share, value, optimize=True)
    mass = np.full(len(share), 1 / len(share))
    return replace(utilities, value=value, mass=mass, voters=tuple(names), groups=None)


def shifted(utilities: Utilities, by: Float[np.ndarray, "#draw #voter"]) -> Utilities:
    """Return `U + by`."""
    value = utilities.value
    moved = (
        Linear(value.phi, value.weights, value.offset + by)
        if isinstance(value, Linear)
        else value + np.broadcast_to(by, value.shape[:2])[..., None, None]
    )
    return replace(utilities, value=moved)


def beside(utilities: Utilities, rows: Sequence[Utilities]) -> Utilities:
    """Return the utilities with rows after their voters, as voters without mass."""
    parts = (utilities, *rows)
    values = [part.value for part in parts]
    first = values[0]
    if isinstance(first, Linear) and all(isinstance(v, Linear) and np.array_equal(v.phi, first.phi) for v in values):
        linear = [v for v in values if isinstance(v, Linear)]
        value = Linear(
            first.phi, np.concatenate([v.weights for v in linear], 1), np.concatenate([v.offset for v in linear], 1)
        )
    else:
        value = np.concatenate([part.dense() for part in parts], 1)
    voters = tuple(name for part in parts for name in part.voters or ())
    mass = np.append(utilities.mass, np.zeros(len(voters) - len(utilities.mass)))
    groups = None if utilities.groups is None else (*utilities.groups, *voters[len(utilities.mass) :])
    return replace(utilities, value=value, mass=mass, voters=voters, groups=groups)
