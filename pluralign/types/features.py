"""What is linear in items."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from pluralign.types.checks import Array, check, finite, freeze


@dataclass(frozen=True, eq=False)
class Features:
    """Linear features of items, `phi = (raw - origin) basis^T`, with what is needed to make more of them.

    Attributes:
        phi: one row per item of the feedback.
        prompt_id: index of each item's prompt; items of one prompt are its candidates.
        names: one per feature.
        origin: subtracted from the raw representation.
        basis: rows are features in terms of the raw representation.
        provenance: model, pooling, explained variance, content hash.
    """

    phi: Float[Array, "item feature"]
    prompt_id: Int[Array, " item"]
    names: tuple[str, ...]
    origin: Float[Array, " raw"]
    basis: Float[Array, "feature raw"]
    provenance: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self):
        freeze(self, **{name: (getattr(self, name), np.float32) for name in ("phi", "origin", "basis")})
        freeze(self, prompt_id=(self.prompt_id, np.int32))
        check(self.phi.ndim == 2, f"phi must be [item feature], got shape {self.phi.shape}.")
        shape = (len(self.phi),)
        check(self.prompt_id.shape == shape, f"prompt_id must be [item] = {list(shape)}, got {self.prompt_id.shape}.")
        check(bool((self.prompt_id >= 0).all()), "prompt_id has a negative entry; prompts are numbered from 0.")
        check(len(self.names) == self.phi.shape[1], f"{len(self.names)} names, {self.phi.shape[1]} features.")
        expected = (self.phi.shape[1], len(self.origin))
        check(self.basis.shape == expected, f"basis must be {expected}, got {self.basis.shape}.")
        finite("phi", self.phi)

    @property
    def notes(self) -> tuple[str, ...]:
        """What to remember when something is fitted to them, as told by the maps that made them."""
        told = (self.provenance, *self.provenance.get("read", ()))  # of several maps side by side, each tells its own
        return tuple(str(facts["note"]) for facts in told if "note" in facts)

    def project(self, raw: Float[Array, "item raw"]) -> Float[Array, "item feature"]:
        """Return the features of further items from their raw representation."""
        return (np.asarray(raw, np.float32) - self.origin) @ self.basis.T
