"""What each voter gains from each candidate."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from pluralign.errors import InputError
from pluralign.types.checks import Array, check, finite, freeze, simplex


@dataclass(frozen=True, eq=False)
class Linear:
    """Utilities that are linear in features: `U[draw, voter, prompt, candidate] = phi · weights + offset`."""

    phi: Float[Array, "prompt candidate feature"]
    weights: Float[Array, "draw voter feature"]
    offset: Float[Array, "draw voter"]

    def __post_init__(self):
        freeze(self, **{name: (value, np.float64) for name, value in vars(self).items()})
        check(self.phi.shape[-1] == self.weights.shape[-1], "phi and weights disagree on features.")
        check(self.offset.shape == self.weights.shape[:2], "offset must be [draw voter].")
        for name, value in vars(self).items():
            finite(name, value)


@dataclass(frozen=True, eq=False)
class Utilities:
    """What each voter gains from each candidate answer, in every posterior draw.

    Attributes:
        value: the utilities, dense or kept factored.
        mass: how much each voter counts, sums to 1.
        reference: the policy to stay near, rows sum to 1; 0 = not a candidate of this prompt.
        item: index of each candidate among the feedback's items, -1 = none.
        voters: their names.
        prompts: index of each row among the feedback's prompts.
        scale: in words, what makes utilities of different voters comparable.
        caveats: of the posterior behind them.
        groups: group of each voter, if any are declared.
    """

    value: Float[Array, "draw voter prompt candidate"] | Linear
    mass: Float[Array, " voter"]
    reference: Float[Array, "prompt candidate"]
    item: Int[Array, "prompt candidate"] | None = None
    voters: tuple[str, ...] | None = None
    prompts: tuple[int, ...] | None = None
    scale: str = "as given"
    caveats: tuple[str, ...] = ()
    groups: tuple[str, ...] | None = None

    def __post_init__(self):
        freeze(self, mass=(self.mass, np.float64), reference=(self.reference, np.float64))
        if not isinstance(self.value, Linear):
            freeze(self, value=(self.value, np.float64))
            check(self.value.ndim == 4, f"value must be [draw voter prompt candidate], got {self.value.shape}.")
            finite("value", self.value)
        simplex("mass", self.mass)
        simplex("reference", self.reference)
        shape = self.shape
        check(self.mass.shape == shape[1:2], f"mass is {self.mass.shape}, value has {shape[1]} voters.")
        check(self.reference.shape == shape[2:], f"reference is {self.reference.shape}, value needs {shape[2:]}.")
        count = int(np.prod(self.reference.shape))
        item = np.arange(count).reshape(self.reference.shape) if self.item is None else np.asarray(self.item)
        freeze(self, item=(item, np.int32))
        check(item.shape == self.reference.shape, "item and reference must have the same shape.")
        if self.voters is None:
            object.__setattr__(self, "voters", tuple(f"voter {v}" for v in range(shape[1])))
        if self.prompts is None:
            object.__setattr__(self, "prompts", tuple(range(shape[2])))
        names = len(self.voters or ())
        check(names == shape[1], f"{names} voter names, {shape[1]} voters.")
        if self.groups is not None:
            check(len(self.groups) == shape[1], f"{len(self.groups)} groups, but {shape[1]} voters.")

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """Sizes of (draw, voter, prompt, candidate)."""
        if isinstance(self.value, Linear):
            return (*self.value.offset.shape, *self.value.phi.shape[:2])  # pyright: ignore[reportReturnType]
        return self.value.shape  # pyright: ignore[reportReturnType]

    def dense(self) -> Float[Array, "draw voter prompt candidate"]:
        """Return `U[draw, voter, prompt, candidate]` in full."""
        if not isinstance(self.value, Linear):
            return self.value
        tilted = np.einsum("xyf,svf->svxy", self.value.phi, self.value.weights, optimize=True)
        return tilted + self.value.offset[:, :, None, None]

    def expected(self, lottery: Float[Array, "prompt candidate"]) -> Float[Array, "draw voter"]:
        """Return `u[draw, voter] = mean_prompt sum_candidate lottery U`."""
        if not isinstance(self.value, Linear):
            # As products of a matrix with a vector these are as fast as memory; einsum would copy the table first.
            return (self.value.reshape(*self.shape[:2], -1) @ np.ravel(lottery)) / len(lottery)
        embedding = np.ravel(lottery) @ self.value.phi.reshape(-1, self.value.phi.shape[-1]) / len(lottery)
        return self.value.weights @ embedding + self.value.offset

    def weighted(self, weights: Float[Array, "draw voter"]) -> Float[Array, "prompt candidate"]:
        """Return `sum_{draw, voter} weights U`, the reward that these multipliers make."""
        if not isinstance(self.value, Linear):
            rows = self.value.reshape(weights.size, -1)
            return (np.ravel(weights) @ rows).reshape(self.shape[2:])
        contracted = np.ravel(weights) @ self.value.weights.reshape(weights.size, -1)
        return self.value.phi @ contracted + (weights * self.value.offset).sum()

    def of(self, phi: Float[Array, "item feature"]) -> Float[Array, "draw voter item"]:
        """Return the utilities of further responses from their features.

        Raises:
            InputError: these utilities are dense, so they say nothing of responses outside the table.
        """
        if not isinstance(self.value, Linear):
            raise InputError("dense utilities know only their own candidates; make them from features instead.")
        return np.einsum("svf,if->svi", self.value.weights, np.asarray(phi, np.float64)) + self.value.offset[..., None]
