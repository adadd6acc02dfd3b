"""Who is asked about what."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Annotated, Literal

import numpy as np
from jaxtyping import Float, Int
from pydantic import Field

from pluralign.errors import InputError


@dataclass(frozen=True, eq=False)
class Plan:
    """What is to be judged in a round, and what was answered before it.

    Attributes:
        annotators: how many.
        judgements: by each annotator in this round.
        prompts: how many.
        candidates: of each prompt.
        slots: candidates of one prompt that are shown at once.
        phi: features of the items.
        shown: slates of earlier rounds.
        won: 1 = the first was preferred to the second, -1 = the second to the first, 0 = neither.
    """

    annotators: int
    judgements: int
    prompts: int
    candidates: int
    slots: int
    phi: Float[np.ndarray, "item style"]
    shown: Int[np.ndarray, "past slot"]
    won: Int[np.ndarray, " past"]

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

    @property
    @abstractmethod
    def stages(self) -> int:
        """In how many rounds everyone's work is done; the answers of a round are known in the next."""

    @abstractmethod
    def slates(self, plan: Plan, rng: np.random.Generator) -> Int[np.ndarray, "act slot"]:
        """Return a slate per act: all acts of the first annotator in order, then of the second, ..."""


@dataclass(frozen=True)
class Independent(AbstractAssignment):
    """Every slate is drawn anew."""

    kind: Literal["independent"] = "independent"

    @property
    def stages(self) -> int:
        """One."""
        return 1

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

    @property
    def stages(self) -> int:
        """One."""
        return 1

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


@dataclass(frozen=True)
class Active(AbstractAssignment):
    """Comparisons that tell most, by a linear estimate from everyone's answers so far.

    Answers are 1, -1 or 0 (won), x is the difference of the two responses' features:

        A = I + sum x x^T,  theta = A^-1 sum won x,     information = (1 - (x · theta)^2)_+  x^T A^-1 x

    the variance of the answer times how little is known of this difference: a sequential D-optimal design
    (Fedorov 1972), greedy.

    Args:
        rounds: at least 2; in the first nothing is known.
        of: each comparison is the best of so many that are drawn at random, at least 1.
    """

    rounds: int = 5
    of: int = 8
    kind: Literal["active"] = "active"

    def __post_init__(self):
        if self.rounds < 2 or self.of < 1:
            raise InputError(f"rounds is {self.rounds} and of {self.of}; allowed: at least 2, and at least 1.")

    @property
    def stages(self) -> int:
        """The rounds."""
        return self.rounds

    def slates(self, plan: Plan, rng: np.random.Generator) -> Int[np.ndarray, "act slot"]:
        """Draw some for each act, and keep the one that tells most."""
        n = plan.annotators * plan.judgements
        drawn = plan.draw(n * self.of, rng)
        x = plan.phi[drawn[:, 0]] - plan.phi[drawn[:, 1]]
        past = plan.phi[plan.shown[:, 0]] - plan.phi[plan.shown[:, 1]]
        known = np.linalg.inv(np.eye(past.shape[1]) + past.T @ past)
        lead = x @ (known @ (plan.won @ past))
        told = np.maximum(1 - lead**2, 0) * np.einsum("cf,fg,cg->c", x, known, x)
        return drawn.reshape(n, self.of, plan.slots)[np.arange(n), told.reshape(n, self.of).argmax(1)]


Assignment = Annotated[Independent | Overlapping | Active, Field(discriminator="kind")]
