from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Int

from pluralign import artifacts
from pluralign.errors import InputError
from pluralign.types import Features, Feedback


class Reading(NamedTuple):
    """What a map saw in texts.

    Attributes:
        raw: one row per text, before any basis is chosen.
        how: everything that decides the meaning of `raw` (JSON scalars, tuples and dicts of them); features can be
            extended to new texts only by a map whose `how` is the same.
        facts: counts worth reporting.
    """

    raw: Float[np.ndarray, "item raw"]
    how: dict[str, Any]
    facts: dict[str, Any]


class Basis(NamedTuple):
    """The affine map from raw representation to features, `phi = (raw - origin) axes^T`.

    Attributes:
        names: one per feature.
        origin: subtracted from the raw representation.
        axes: rows are features in terms of the raw representation.
        facts: how well it does, for the provenance.
    """

    names: tuple[str, ...]
    origin: Float[np.ndarray, " raw"]
    axes: Float[np.ndarray, "feature raw"]
    facts: dict[str, Any]


class AbstractFeatureMap(ABC):
    """Texts to a raw representation, from there by one affine map and one function to features.

    `phi = bend((raw - origin) axes^T)`. The affine map is chosen once, on the items of the feedback, and kept in
    `Features`; responses that were never judged get features of the same meaning from `encode_texts`. A subclass says
    how to read texts, which basis to choose and how to bend, and nothing else; most are an `AbstractLinearMap`.
    """

    @abstractmethod
    def read(
        self, prompts: Sequence[str], responses: Sequence[str], given: Feedback | Mapping[str, Any] | None = None
    ) -> Reading:
        """Return the raw representation of each response to its prompt.

        Args:
            prompts: one per response.
            responses: to represent.
            given: the feedback when features are made, their provenance when there are to be more of them. What a map
                learns from the first it keeps in `Reading.how` and finds in the second. Apart from that the
                representation of a response may not depend on the other texts.
        """

    @abstractmethod
    def basis(self, reading: Reading, prompt: Int[np.ndarray, " item"]) -> Basis:
        """Choose features from the raw representation of distinct items and the index of their prompts."""

    @abstractmethod
    def bend(
        self, values: Float[np.ndarray, "item feature"], facts: Mapping[str, Any]
    ) -> Float[np.ndarray, "item feature"]:
        """Return features from the values of the affine map; `facts` are those of the basis."""

    def encode(self, feedback: Feedback) -> Features:
        """Return features of every item of `feedback`.

        Items with the same prompt and response count once when the basis is chosen, so that copying an item changes
        nothing.

        Raises:
            InputError: there are no items, or they do not determine a basis.
        """
        prompt = feedback.prompt_id
        prompts, responses = (list(feedback.items[column]) for column in ("prompt", "response"))
        if not len(prompt):
            raise InputError("the feedback has no items, so there is nothing to encode.")
        seen: dict[tuple[int, str], int] = {}
        place = [seen.setdefault(key, len(seen)) for key in zip(prompt.tolist(), responses, strict=True)]
        first = np.unique(place, return_index=True)[1]
        reading = self.read([prompts[i] for i in first], [responses[i] for i in first], feedback)
        basis = self.basis(reading, prompt[first])
        provenance = reading.how | reading.facts | basis.facts | {"items": len(place), "distinct": len(first)}
        blank = Features(np.zeros((len(place), len(basis.names))), prompt, basis.names, basis.origin, basis.axes)
        phi = self.bend(blank.project(reading.raw), basis.facts)[place]
        provenance["hash"] = artifacts.digest(phi, blank.names, blank.origin, blank.basis)
        return replace(blank, phi=phi, provenance=provenance)

    def encode_texts(
        self, prompts: Sequence[str], responses: Sequence[str], like: Features
    ) -> Float[np.ndarray, "item feature"]:
        """Return features of further responses in the basis of `like`.

        Args:
            prompts: one per response.
            responses: texts that need not have been judged.
            like: features that this same map made.

        Raises:
            InputError: `like` was made by another map, or prompts and responses differ in number.
        """
        if len(prompts) != len(responses):
            raise InputError(f"{len(prompts)} prompts for {len(responses)} responses; pass one prompt per response.")
        if not len(responses):
            return np.zeros((0, len(like.names)), np.float32)
        reading = self.read(prompts, responses, like.provenance)
        for name, value in reading.how.items():
            if like.provenance.get(name) != value:
                raise InputError(
                    f"`like` was made with {name} = {like.provenance.get(name)!r}, this map has {value!r}; "
                    "their features do not mean the same. Use the map that made `like`, or encode the feedback again."
                )
        return self.bend(like.project(reading.raw), like.provenance)


class AbstractLinearMap(AbstractFeatureMap):
    """A feature map that is affine in what it reads: `phi = (raw - origin) axes^T`."""

    def bend(
        self, values: Float[np.ndarray, "item feature"], facts: Mapping[str, Any]
    ) -> Float[np.ndarray, "item feature"]:
        """Return the values as they are."""
        return values


def centred(
    values: Float[np.ndarray, "item value"], group: Int[np.ndarray, " item"]
) -> Float[np.ndarray, "item value"]:
    """Subtract each group's mean."""
    _, member, count = np.unique(group, return_inverse=True, return_counts=True)
    starts = np.cumsum(count) - count
    total = np.add.reduceat(values[np.argsort(member, kind="stable")], starts)
    return values - (total / count[:, None])[member]
