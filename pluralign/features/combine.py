from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import numpy as np
from jaxtyping import Float, Int
from pydantic import Field
from scipy.spatial.distance import pdist

from pluralign.errors import InputError
from pluralign.features.base import AbstractFeatureMap, AbstractLinearMap, Basis, Reading, centred
from pluralign.features.encoder import Encoder
from pluralign.features.finetuned import FineTuned
from pluralign.features.items import Items
from pluralign.features.lexicon import Lexicon
from pluralign.features.scorers import Scorers
from pluralign.types import Feedback

Linear = Encoder | Lexicon | Items | Scorers | FineTuned


@dataclass(frozen=True)
class Concatenate(AbstractFeatureMap):
    """The features of several maps side by side.

    Part `k` of `K`, with features `phi_k`, is multiplied by `sqrt(F / (K t_k))`, where `t_k` is the sum over its
    features of the mean square within prompts (centred, over distinct items, ddof 0) and `F` the number of all
    features. So every part contributes the same to squared distances between responses to a prompt, however many
    features it has and whatever their units, and the mean square of all features is 1, as it is of `Encoder`'s.

    Args:
        parts: maps of features, at least two; no `Concatenate`.
        names: of the parts; features are called `part.feature`. None takes the parts' kinds, numbered where a kind
            comes again.
        kind: names this feature map in configs.

    Raises:
        InputError: fewer than two parts, or names that do not fit them; later, whatever a part raises, or the features
            of a part are the same for all responses to a prompt.
    """

    parts: tuple[Annotated["Linear | RandomFourier", Field(discriminator="kind")], ...]
    names: tuple[str, ...] | None = None
    kind: Literal["concatenate"] = "concatenate"

    def __post_init__(self):
        if len(self.parts) < 2 or any(isinstance(part, Concatenate) for part in self.parts):
            raise InputError("parts must be at least two feature maps, none of them a concatenation; list all parts.")
        names = self.prefixes
        if len(names) != len(self.parts) or len(set(names)) < len(names):
            raise InputError(f"names are {names} for {len(self.parts)} parts; give each part a name of its own.")

    @property
    def prefixes(self) -> tuple[str, ...]:
        """What the names of each part's features begin with."""
        if self.names is not None:
            return tuple(self.names)
        kinds = [part.kind for part in self.parts]
        times = Counter(kinds)
        return tuple(k if times[k] == 1 else f"{k}{kinds[: i + 1].count(k)}" for i, k in enumerate(kinds))

    def read(
        self, prompts: Sequence[str], responses: Sequence[str], given: Feedback | Mapping[str, Any] | None = None
    ) -> Reading:
        """Return the raw representations of all parts side by side."""
        each: list[Any] = [given] * len(self.parts)
        if isinstance(given, Mapping):  # each part finds there what it learned
            told = given.get("parts", ())
            each = list(told) if len(told) == len(self.parts) else [{}] * len(self.parts)
        readings = [part.read(prompts, responses, known) for part, known in zip(self.parts, each, strict=True)]
        how = {"kind": self.kind, "names": self.prefixes, "parts": tuple(reading.how for reading in readings)}
        facts = {"read": tuple({"width": reading.raw.shape[1]} | reading.facts for reading in readings)}
        return Reading(np.concatenate([reading.raw for reading in readings], axis=1), how, facts)

    def basis(self, reading: Reading, prompt: Int[np.ndarray, " item"]) -> Basis:
        """Put the parts' bases side by side, and choose how much each counts.

        Raises:
            InputError: a part has nothing to say, or whatever a part raises.
        """
        told = reading.facts["read"]
        cuts = np.cumsum([facts["width"] for facts in told])[:-1]
        raws = np.split(reading.raw, cuts, axis=1)
        bases = [
            part.basis(Reading(raw, how, facts), prompt)
            for part, raw, how, facts in zip(self.parts, raws, reading.how["parts"], told, strict=True)
        ]
        count = sum(len(basis.names) for basis in bases)
        scales = []
        for name, part, raw, basis in zip(self.prefixes, self.parts, raws, bases, strict=True):
            phi = part.bend((raw - basis.origin) @ basis.axes.T, basis.facts)
            total = np.mean(centred(phi.astype(np.float64), prompt) ** 2, axis=0).sum()
            if not total > 0:
                raise InputError(f"the features of {name!r} are the same for all responses to a prompt; leave it out.")
            scales.append(float(np.sqrt(count / (len(self.parts) * total))))
        axes = np.zeros((count, reading.raw.shape[1]), np.float32)
        row = column = 0
        for part, basis, scale in zip(self.parts, bases, scales, strict=True):
            high, wide = basis.axes.shape
            axes[row : row + high, column : column + wide] = basis.axes * (scale if _linear(part) else 1)
            row, column = row + high, column + wide
        names = tuple(f"{p}.{name}" for p, basis in zip(self.prefixes, bases, strict=True) for name in basis.names)
        facts = {"features": tuple(len(basis.names) for basis in bases), "scales": tuple(scales)}
        facts["bases"] = tuple(basis.facts for basis in bases)
        return Basis(names, np.concatenate([basis.origin for basis in bases]), axes, facts)

    def bend(
        self, values: Float[np.ndarray, "item feature"], facts: Mapping[str, Any]
    ) -> Float[np.ndarray, "item feature"]:
        """Bend each part as it does itself; the scale of one that is linear is in the basis already."""
        blocks = np.split(values, np.cumsum(facts["features"])[:-1], axis=1)
        bent = [
            block if _linear(part) else part.bend(block, told) * np.float32(scale)
            for part, block, told, scale in zip(self.parts, blocks, facts["bases"], facts["scales"], strict=True)
        ]
        return np.concatenate(bent, axis=1)


@dataclass(frozen=True)
class RandomFourier(AbstractFeatureMap):
    """Random Fourier features of another map's features, so that a linear reward is a smooth function of those.

    `phi_j = sqrt(2 / count) cos(omega_j · z + b_j)` with `z` the features of `of`, `omega ~ Normal(0, I / bandwidth^2)`
    and `b ~ Uniform(0, 2 pi)`. In expectation `phi(x) · phi(y) = exp(-|z_x - z_y|^2 / (2 bandwidth^2))`, with standard
    deviation at most `1 / sqrt(count)`: weights `w ~ Normal(0, s^2 I)` make the reward nearly a Gaussian process with
    that kernel and variance `s^2`. (In `Features`, origin and basis give the argument of the cosine, less `b`.)

    Source: Rahimi and Recht 2007, algorithm 1.

    Args:
        of: the map whose features are bent: any but `RandomFourier`, or a `Concatenate` without it.
        count: of features, at least 1.
        bandwidth: distance at which responses stop being alike, above 0, in the units of `of`'s features; None takes
            the median distance between two responses to a prompt.
        seed: of `omega` and `b`.
        kind: names this feature map in configs.

    Raises:
        InputError: a field is out of range; later, whatever `of` raises, or no two responses to a prompt differ.
    """

    of: Annotated["Linear | Concatenate", Field(discriminator="kind")]
    count: int = 256
    bandwidth: float | None = None
    seed: int = 0
    kind: Literal["random-fourier"] = "random-fourier"

    def __post_init__(self):
        parts = self.of.parts if isinstance(self.of, Concatenate) else (self.of,)
        if not all(map(_linear, parts)):
            raise InputError("random-fourier takes features that are not bent already; name the map inside it.")
        if self.count < 1 or self.seed < 0:
            raise InputError(f"count is {self.count} and seed {self.seed}; they must be at least 1 and 0.")
        if self.bandwidth is not None and not 0 < self.bandwidth < np.inf:
            raise InputError(f"bandwidth is {self.bandwidth}; it must be above 0 and finite, or None.")

    def read(
        self, prompts: Sequence[str], responses: Sequence[str], given: Feedback | Mapping[str, Any] | None = None
    ) -> Reading:
        """Read as the map inside does."""
        raw, how, facts = self.of.read(prompts, responses, given.get("of", {}) if isinstance(given, Mapping) else given)
        return Reading(raw, {"kind": self.kind, "seed": self.seed, "of": how}, facts)

    def basis(self, reading: Reading, prompt: Int[np.ndarray, " item"]) -> Basis:
        """Choose frequencies, in terms of what the map inside reads.

        Raises:
            InputError: all responses to a prompt have the same features.
        """
        inside = self.of.basis(Reading(reading.raw, reading.how["of"], reading.facts), prompt)
        bandwidth = self.bandwidth
        if bandwidth is None:
            z = (reading.raw - inside.origin) @ inside.axes.T
            bandwidth = float(np.median(np.concatenate([pdist(z[prompt == p]) for p in np.unique(prompt)] or [0.0])))
        if not 0 < bandwidth < np.inf:
            raise InputError(
                f"the median distance between responses to a prompt is {bandwidth}, so it is no bandwidth; state one. "
                "Does every prompt have only one response (is prompt_id right)?"
            )
        rng = np.random.default_rng([self.seed, 1])
        omega = rng.standard_normal((self.count, len(inside.names))) / bandwidth
        names = tuple(f"rff{j + 1}" for j in range(self.count))
        facts = inside.facts | {"bandwidth": bandwidth, "inside": inside.names}
        return Basis(names, inside.origin, (omega @ inside.axes).astype(np.float32), facts)

    def bend(
        self, values: Float[np.ndarray, "item feature"], facts: Mapping[str, Any]
    ) -> Float[np.ndarray, "item feature"]:
        """Return the cosines."""
        count = values.shape[1]
        shift = np.random.default_rng([self.seed, 0]).uniform(0, 2 * np.pi, count)
        return (np.sqrt(2 / count) * np.cos(values + shift)).astype(np.float32)


def judged(features: AbstractFeatureMap) -> bool:
    """Return whether a map learns from judgements, so that those held out must be kept from it."""
    if isinstance(features, Concatenate):
        return any(map(judged, features.parts))
    return judged(features.of) if isinstance(features, RandomFourier) else isinstance(features, FineTuned)


def _linear(part: AbstractFeatureMap) -> bool:
    return isinstance(part, AbstractLinearMap)
