"""Who is asked about what."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Annotated, Literal

import numpy as np
from jaxtyping import Int
from pydantic import Field

from pluralign.errors import InputError


@dataclass(frozen=True)
class Plan:
    """How much is to be judged: `judgements` acts by each annotator on slates of `slots` candidates of one prompt."""

    annotators: int
    judgements: int
    prompts: int
    candidates: int
    slots: int

    def draw(self, n: int, rng: np.random.Generator) -> Int[np.ndarray, "slate slot"]:
        """Return slates of different candidates of a random prompt, in random order (Fisher and Yates 1938)."""
        order = (rng.integers(self.candidates, size=n)[:, None] + np.arange(self.candidates)) % self.candidates
        rows = np.arange(n)
        for slot in range(1, self.slots):
            pick = rng.integers(slot, self.candidates, size=n)
            order[rows, slot], order[rows, pick] = order[rows, pick], order[rows, slot]
        return rng.integers(self.prompts, size=n)[:, None] * self.candidates + order[:, : self.slots]


class AbstractAssignment(ABC):
    """Decides which slate is judged in each act."""

    @abstractmethod
    def slates(self, plan: Plan, rng: np.random.Generator) -> Int[np.ndarray, "act slot"]:
        """Return a slate per act: all acts of the first annotator in order, then of the second, ..."""


@dataclass(frozen=True)
class Independent(AbstractAssignment):
    """Every slate is drawn anew."""

    kind: Literal["independent"] = "independent"

    def slates(self, plan: Plan, rng: np.random.Generator) -> Int[np.ndarray, "act slot"]:
        """Draw them."""
        return plan.draw(plan.annotators * plan.judgements, rng)


@dataclass(frozen=True)
class Overlapping(AbstractAssignment):
    """Some slates are judged by several annotators, so that disagreement can be counted without a model.

    Args:
        share: of each annotator's acts, 0 to 1, rounded to whole acts.
        by: at least so many annotators judge each shared slate, at least 2; groups of annotators are drawn anew for
            each shared act, and slots are in the same order for all.
    """

    share: float = 0.2
    by: int = 3
    kind: Literal["overlapping"] = "overlapping"

    def __post_init__(self):
        if not 0 <= self.share <= 1:
            raise InputError(f"share is {self.share}; allowed: 0 to 1.")
        if self.by < 2:
            raise InputError(f"by is {self.by}; allowed: at least 2 annotators per shared slate.")

    def slates(self, plan: Plan, rng: np.random.Generator) -> Int[np.ndarray, "act slot"]:
        """Draw them, then put shared ones in random places of each annotator's order.

        Raises:
            InputError: there are fewer annotators than are to judge one slate.
        """
        if plan.annotators < self.by:
            raise InputError(f"by is {self.by}, but there are only {plan.annotators} annotators.")
        slates = plan.draw(plan.annotators * plan.judgements, rng).reshape(plan.annotators, plan.judgements, -1)
        places = rng.permuted(np.tile(np.arange(plan.judgements), (plan.annotators, 1)), axis=1)
        teams = plan.annotators // self.by
        for k in range(round(self.share * plan.judgements)):
            shared = plan.draw(teams, rng)
            line = rng.permutation(plan.annotators)
            slates[line, places[line, k]] = shared[np.arange(plan.annotators) * teams // plan.annotators]
        return slates.reshape(-1, plan.slots)


Assignment = Annotated[Independent | Overlapping, Field(discriminator="kind")]
