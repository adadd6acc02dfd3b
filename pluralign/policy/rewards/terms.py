"""What stands beside a rule's reward: functions, classifiers and single objectives that count, or are limited."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from pluralign.artifacts import digest
from pluralign.errors import InputError, TrainError
from pluralign.functions import fingerprint
from pluralign.types import Linear, Utilities

Column = Float[np.ndarray, " response"]
Groups = list[tuple[str, Int[np.ndarray, " _"]]]


@dataclass(frozen=True)
class Term:
    """Something that counts, or is limited, or only told, beside the rule's own reward.

    A limit holds for the mean under the policy, `E_pi[score] >= at_least`. It has a multiplier, by which it enters the
    reward, and `Rewards.update` moves it by dual ascent, `multiplier <- max(0, multiplier + rate (limit - mean))`. At
    the optimum a response moves the policy by `multiplier score / beta`, so the mean answers by about
    `variance(score) / beta` to each unit: a rate above `2 beta / variance(score)` swings ever wider.

    Args:
        name: in metrics, as `term/NAME` and `multiplier/NAME at least` (or `at most`).
        source: a function `(prompts, responses) -> scores` of whole lists, which gives None for what it cannot score
            (a `classifier.Classifier` is one); or the `Utilities` of one objective, meant over draws and voters.
        weight: of the score in the reward, in units of welfare per unit of score.
        at_least: the least that its mean may be under the policy.
        at_most: the most.
        rate: of the multiplier, per update.
    """

    name: str
    source: Callable[[Sequence[str], Sequence[str]], Any] | Utilities
    weight: float = 0.0
    at_least: float | None = None
    at_most: float | None = None
    rate: float = 0.05

    def __post_init__(self):
        numbers = {"weight": self.weight, "at_least": self.at_least, "at_most": self.at_most, "rate": self.rate}
        for name, value in numbers.items():
            if value is not None and not np.isfinite(value):
                raise InputError(f"{name} of the term {self.name!r} is {value}; it must be finite.")
        if not self.rate > 0:
            raise InputError(f"rate of the term {self.name!r} is {self.rate}; it must be above 0.")
        if self.at_least is not None and self.at_most is not None and self.at_least > self.at_most:
            raise InputError(f"the term {self.name!r} is to be at least {self.at_least} and at most {self.at_most}.")
        if isinstance(self.source, Utilities) and not isinstance(self.source.value, Linear):
            raise InputError(f"the term {self.name!r} has dense utilities, which say nothing of new responses.")

    @property
    def limits(self) -> dict[str, tuple[float, float]]:
        """Sign and limit of each multiplier, by its name: the mean of `sign * score` must be `sign * limit` or more."""
        told = ((1.0, self.at_least, "at least"), (-1.0, self.at_most, "at most"))
        return {f"{self.name} {words}": (sign, limit) for sign, limit, words in told if limit is not None}

    def fingerprint(self) -> str:
        """Return a hash of what the term does, so far as the code and the values that its source holds tell it."""
        own = {name: value for name, value in vars(self).items() if name != "source"}
        if isinstance(self.source, Utilities) and isinstance(self.source.value, Linear):
            return digest(own, self.source.mass, self.source.value.weights, self.source.value.offset)
        return digest(own, fingerprint(self.source))

    def ask(self, prompts: Sequence[str], responses: Sequence[str]) -> Column:
        """Return what a function says of responses, NaN where it says None.

        Raises:
            TrainError: a score is not finite, or there is not one for each response.
        """
        assert not isinstance(self.source, Utilities)  # those are contracted with features instead
        said = list(self.source(list(prompts), list(responses)))
        if len(said) != len(responses):
            raise TrainError(
                f"the term {self.name!r} gives {len(said)} scores for {len(responses)} responses; it is called with "
                "all prompts and all responses at once, and gives one score, or None, for each response."
            )
        missing = np.array([score is None for score in said])
        try:
            column = np.array([np.nan if score is None else float(score) for score in said])
        except (TypeError, ValueError) as error:
            raise TrainError(f"the term {self.name!r} does not give one number for each response ({error}).") from error
        bad = ~np.isfinite(column) & ~missing
        if bad.any():
            k = int(bad.argmax())
            raise broken(f"the term {self.name!r}", column[k], prompts[k], responses[k])
        return column


def filled(column: Column, groups: Groups) -> Column:
    """Return scores with the missing ones replaced by the mean of what is there in the group, else in the batch."""
    there = ~np.isnan(column)
    if there.all():
        return column
    full = np.where(there, column, column[there].mean() if there.any() else 0.0)
    for _, members in groups:
        known = members[there[members]]
        if len(known):
            full[members] = np.where(there[members], column[members], column[known].mean())
    return full


def broken(name: str, value: float, prompt: str, response: str) -> TrainError:
    """Return the error that names a score that is not finite, and what it is about."""
    return TrainError(
        f"{name} is {value} for the response {response[:80]!r} to the prompt {prompt[:80]!r}; it must be a finite "
        "number. What cannot be scored must be None, which counts as missing."
    )
