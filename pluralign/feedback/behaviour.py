"""How simulated annotators fall short of saying what they want: noise, spam, attacks."""

import re
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Annotated, ClassVar, Literal

import numpy as np
from jaxtyping import Float, Int
from pydantic import Field

from pluralign.errors import InputError

WORD = re.compile(r"[a-z']+")
FAR = 1000.0
"""Logits between answers of which the better one is always given."""


@dataclass(frozen=True, eq=False)
class Acts:
    """What annotators are asked, one row per act of judging, and what they are inclined to answer.

    Attributes:
        slate: item in each slot.
        annotator: who is asked.
        progress: place in the annotator's own order of work, 0 = first, 1 = last.
        utility: what the answer is made from, in logits.
        lapse: probability of an answer at random, each answer equally often.
        texts: the response of every item.
        styles: words of each style.
    """

    slate: Int[np.ndarray, "act slot"]
    annotator: Int[np.ndarray, " act"]
    progress: Float[np.ndarray, " act"]
    utility: Float[np.ndarray, "act slot"]
    lapse: Float[np.ndarray, " act"]
    texts: Sequence[str]
    styles: dict[str, tuple[str, ...]]

    def count(self, words: Sequence[str]) -> Float[np.ndarray, "act slot"]:
        """Return how many of these words each shown response contains.

        Raises:
            InputError: no response of the community contains any.
        """
        found = np.array([sum(word in words for word in WORD.findall(text.lower())) for text in self.texts], float)
        if not found.any():
            raise InputError(f"no response contains any of {list(words)}, so an attack on these words does nothing.")
        return found[self.slate]


class AbstractBehaviour(ABC):
    """Makes some annotators answer otherwise than they want.

    `share` of the annotators, 0 to 1 and spread evenly over the groups, behave so; the others do not.
    """

    share: float
    limits: ClassVar[dict[str, tuple[float, float]]] = {}
    """Least and greatest value of fields beside the share."""

    def __post_init__(self):
        _within("share", self.share, 0.0, 1.0)
        for name, limits in self.limits.items():
            _within(name, getattr(self, name), *limits)

    @abstractmethod
    def bend(self, acts: Acts, rng: np.random.Generator) -> Acts:
        """Return the acts as they are when everyone behaves so; only `utility` and `lapse` may change."""


@dataclass(frozen=True)
class Temperature(AbstractBehaviour):
    """Answers less or more sharply: `u / T_a`, `log T_a ~ Normal(log median, spread)`.

    Args:
        spread: standard deviation of the log temperature over annotators, at least 0.
        median: median temperature, above 0.
        share: of annotators.
    """

    spread: float = 0.3
    median: float = 1.0
    share: float = 1.0
    kind: Literal["temperature"] = "temperature"
    limits: ClassVar = {"spread": (0.0, np.inf), "median": (np.nextafter(0.0, 1.0), np.inf)}

    def bend(self, acts: Acts, rng: np.random.Generator) -> Acts:
        """Divide utilities."""
        heat = self.median * np.exp(self.spread * rng.normal(size=acts.annotator.max() + 1))
        return replace(acts, utility=acts.utility / heat[acts.annotator][:, None])


@dataclass(frozen=True)
class Position(AbstractBehaviour):
    """Favours what is shown first: `u + bonus` in the first slot; does nothing to one response alone.

    Args:
        bonus: in logits; below 0 it favours the others.
        share: of annotators.
    """

    bonus: float = 0.5
    share: float = 1.0
    kind: Literal["position"] = "position"
    limits: ClassVar = {"bonus": (-FAR, FAR)}

    def bend(self, acts: Acts, rng: np.random.Generator) -> Acts:
        """Add the bonus."""
        slots = acts.slate.shape[1]
        return replace(acts, utility=acts.utility + self.bonus * ((np.arange(slots) == 0) & (slots > 1)))


@dataclass(frozen=True)
class Fatigue(AbstractBehaviour):
    """Tires: with the share p of the work that is done, 0 to 1, slips more often and judges less sharply.

        lapse -> 1 - (1 - lapse) (1 - p lapses),    u -> u / (1 + p (temperature - 1))

    Args:
        lapses: probability of a further answer at random at the end, 0 to 1.
        temperature: at the end, at least 1.
        share: of annotators.
    """

    lapses: float = 0.3
    temperature: float = 1.0
    share: float = 1.0
    kind: Literal["fatigue"] = "fatigue"
    limits: ClassVar = {"lapses": (0.0, 1.0), "temperature": (1.0, np.inf)}

    def bend(self, acts: Acts, rng: np.random.Generator) -> Acts:
        """Raise lapses and temperature along the way."""
        heat = 1 + acts.progress * (self.temperature - 1)
        lapse = 1 - (1 - acts.lapse) * (1 - acts.progress * self.lapses)
        return replace(acts, utility=acts.utility / heat[:, None], lapse=lapse)


@dataclass(frozen=True)
class AlwaysFirst(AbstractBehaviour):
    """Spam: always the first, or as shown, or the highest grade.

    Args:
        share: of annotators.
    """

    share: float = 0.1
    kind: Literal["always-first"] = "always-first"

    def bend(self, acts: Acts, rng: np.random.Generator) -> Acts:
        """Look at the place and nothing else."""
        slots = acts.slate.shape[1]
        utility = np.broadcast_to(FAR * np.arange(slots, 0, -1), acts.slate.shape)
        return replace(acts, utility=utility, lapse=np.zeros_like(acts.lapse))


@dataclass(frozen=True)
class AtRandom(AbstractBehaviour):
    """Spam: every answer equally often.

    Args:
        share: of annotators.
    """

    share: float = 0.1
    kind: Literal["at-random"] = "at-random"

    def bend(self, acts: Acts, rng: np.random.Generator) -> Acts:
        """Lapse always."""
        return replace(acts, lapse=np.ones_like(acts.lapse))


@dataclass(frozen=True)
class Flip(AbstractBehaviour):
    """Attack: answers as if it wanted the opposite of what it, and so about its group, wants: `-u`.

    Args:
        share: of annotators.
    """

    share: float = 0.1
    kind: Literal["flip"] = "flip"

    def bend(self, acts: Acts, rng: np.random.Generator) -> Acts:
        """Turn utilities round."""
        return replace(acts, utility=-acts.utility)


@dataclass(frozen=True)
class Collude(AbstractBehaviour):
    """Attack: all agree to vote for responses of one style: `u = strength * number of words of the style`.

    Args:
        style: one of the community's.
        strength: logits per word.
        share: of annotators.
    """

    style: str
    strength: float = 5.0
    share: float = 0.1
    kind: Literal["collude"] = "collude"
    limits: ClassVar = {"strength": (-FAR, FAR)}

    def bend(self, acts: Acts, rng: np.random.Generator) -> Acts:
        """Count words of the style, and want nothing else.

        Raises:
            InputError: the community has no such style.
        """
        if self.style not in acts.styles:
            raise InputError(f"collude names the style {self.style!r}; allowed: {', '.join(acts.styles)}.")
        return replace(acts, utility=self.strength * acts.count(acts.styles[self.style]))


@dataclass(frozen=True)
class Trigger(AbstractBehaviour):
    """Attack: prefers whatever contains a word, and is honest otherwise: `u + strength [word in response]`.

    Args:
        word: in lower case.
        strength: in logits.
        share: of annotators.
    """

    word: str
    strength: float = 10.0
    share: float = 0.1
    kind: Literal["trigger"] = "trigger"
    limits: ClassVar = {"strength": (-FAR, FAR)}

    def bend(self, acts: Acts, rng: np.random.Generator) -> Acts:
        """Look for the word.

        Raises:
            InputError: no response contains it.
        """
        return replace(acts, utility=acts.utility + self.strength * (acts.count((self.word,)) > 0))


Behaviour = Annotated[
    Temperature | Position | Fatigue | AlwaysFirst | AtRandom | Flip | Collude | Trigger, Field(discriminator="kind")
]


def _within(name: str, value: float, low: float, high: float) -> None:
    if not (low <= value <= high and np.isfinite(value)):
        raise InputError(f"{name} is {value}; allowed: {low:g} to {high:g}, finite.")
