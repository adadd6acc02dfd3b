"""How a simulated annotator answers: what is asked, and the probability of every answer."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from itertools import permutations
from math import perm
from typing import Annotated, Literal

import numpy as np
from jaxtyping import Float, Int
from pydantic import Field
from scipy.special import expit

from pluralign.errors import InputError
from pluralign.feedback.polis import SCALE as VOTES
from pluralign.types import FORMS, Choices, Grades, Scale

MOST = 5040
"""Rankings of one slate that are told apart at most: every answer has a probability of its own."""


class AbstractForm(ABC):
    """What annotators are asked to do with a slate of responses."""

    @property
    @abstractmethod
    def slots(self) -> int:
        """How many responses are shown at once."""

    @abstractmethod
    def log_chances(self, utility: Float[np.ndarray, "act slot"], tie: float) -> Float[np.ndarray, "act answer"]:
        """Return the log probability of every answer up to a constant per act.

        Args:
            utility: of the responses shown, in logits.
            tie: log tie propensity, -inf = no ties; only comparisons and votes know ties.
        """

    @abstractmethod
    def record(
        self, slate: Int[np.ndarray, "act slot"], answer: Int[np.ndarray, " act"], who: dict[str, np.ndarray]
    ) -> Choices | Grades:
        """Return answers as feedback; `who` holds the columns annotator, objective and context.

        What says nothing (`Correction` alone has such answers) has no row.
        """


@dataclass(frozen=True)
class Comparison(AbstractForm):
    """Which of two is better, and how much better: Davidson (1970), and an ordered logit for the strength.

        P(first) : P(second) : P(tie)  =  exp(u_1) : exp(u_2) : exp(tie + (u_1 + u_2) / 2)
        P(strength <= s | i beats j)   =  1 / (1 + exp(u_i - u_j - c_s)),  c = strengths

    Args:
        strengths: increasing thresholds between strengths 1, 2, ..., in logits; none: strength is not asked.
    """

    strengths: tuple[float, ...] = ()
    kind: Literal["comparison"] = "comparison"

    def __post_init__(self):
        _increasing("strengths", self.strengths)

    @property
    def slots(self) -> int:
        """Two."""
        return 2

    def log_chances(self, utility: Float[np.ndarray, "act slot"], tie: float) -> Float[np.ndarray, "act answer"]:
        """Return first with strength 1, 2, ..., second with strength 1, 2, ..., tie."""
        wins = [utility[:, [i]] + _ordered_logit(utility[:, i] - utility[:, 1 - i], self.strengths) for i in (0, 1)]
        return np.column_stack([*wins, tie + utility.mean(1)])

    def record(
        self, slate: Int[np.ndarray, "act slot"], answer: Int[np.ndarray, " act"], who: dict[str, np.ndarray]
    ) -> Choices:
        """Return comparisons."""
        levels = len(self.strengths) + 1
        winner = answer // levels  # 2 = tie
        strength = np.where((winner < 2) & (levels > 1), answer % levels + 1, 0)
        return Choices(slate, np.stack([winner == 1, winner == 0], 1), **who, strength=strength)


class AbstractPick(AbstractForm):
    """One of `size` is picked: `P(i) = exp(u_i) / sum_j exp(u_j)` (Luce 1959)."""

    size: int

    @property
    def slots(self) -> int:
        """The size of the slate."""
        return self.size

    def log_chances(self, utility: Float[np.ndarray, "act slot"], tie: float) -> Float[np.ndarray, "act answer"]:
        """Return one per slot."""
        return utility


@dataclass(frozen=True)
class BestOf(AbstractPick):
    """Which of `size` is best: `P(i) = exp(u_i) / sum_j exp(u_j)` (Luce 1959).

    Args:
        size: of the slate, at least 3; two are a comparison.
    """

    size: int = 4
    kind: Literal["best-of"] = "best-of"

    def __post_init__(self):
        _at_least_three(self.size)

    def record(
        self, slate: Int[np.ndarray, "act slot"], answer: Int[np.ndarray, " act"], who: dict[str, np.ndarray]
    ) -> Choices:
        """Return choices of the best."""
        return Choices(slate, np.where(np.arange(self.size) == answer[:, None], 0, -1), **who)


@dataclass(frozen=True)
class Correction(AbstractPick):
    """A response is shown, and edited into another that comes to mind, or left as it is.

        P(edited into j | i shown) = exp(u_j) / (exp(u_i) + sum_k exp(u_k)),   k = the size - 1 that come to mind

    What is shown and what comes to mind are random candidates of the prompt. Of an edit it is recorded that the new is
    preferred to the old; that which was left says nothing and is set aside. Of two responses of which one was edited
    into the other, j was the new one with probability `exp(u_j) / (exp(u_i) + exp(u_j))`, whatever the size, so that a
    correction tells as much as a comparison of the two.

    Args:
        size: how many responses there are to choose from, the one that is shown included; at least 2.
    """

    size: int = 4
    kind: Literal["correction"] = "correction"

    def __post_init__(self):
        _at_least_two(self.size)

    def record(
        self, slate: Int[np.ndarray, "act slot"], answer: Int[np.ndarray, " act"], who: dict[str, np.ndarray]
    ) -> Choices:
        """Return corrections, the new one first; the first slot of a slate holds what was shown."""
        edited = answer > 0
        pair = np.stack([slate[np.arange(len(slate)), answer], slate[:, 0]], 1)[edited]
        form = np.full(len(pair), FORMS.index("correction"))
        who = {name: column[edited] for name, column in who.items()}
        return Choices(pair, np.tile([0, 1], (len(pair), 1)), **who, form=form)


@dataclass(frozen=True)
class Demonstration(AbstractPick):
    """The annotator writes a response: of `size` that come to mind, `P(i) = exp(u_i) / sum_j exp(u_j)` (Luce 1959).

    What comes to mind are random candidates of the prompt. Only what was written is recorded, as in data of this form.

    Args:
        size: how many come to mind, at least 2.
    """

    size: int = 4
    kind: Literal["demonstration"] = "demonstration"

    def __post_init__(self):
        _at_least_two(self.size)

    def record(
        self, slate: Int[np.ndarray, "act slot"], answer: Int[np.ndarray, " act"], who: dict[str, np.ndarray]
    ) -> Choices:
        """Return slates of one."""
        written = np.take_along_axis(slate, answer[:, None], axis=1)
        return Choices(written, np.zeros_like(written), **who)


@dataclass(frozen=True)
class Ranking(AbstractForm):
    """The `top` best of `size` in order, by the model of Plackett (1975) and Luce (1959).

        P(i_1, ..., i_top)  =  prod_t exp(u_{i_t}) / sum_{j not in i_1 ... i_{t-1}} exp(u_j)

    Args:
        size: of the slate, at least 3.
        top: how many are ranked, 2 to `size`; none: all. There may be at most 5040 answers: 7 ranked in full.
    """

    size: int = 4
    top: int | None = None
    kind: Literal["ranking"] = "ranking"

    def __post_init__(self):
        _at_least_three(self.size)
        if not 2 <= self._top <= self.size:
            raise InputError(f"top is {self.top}; allowed: 2 to {self.size}, the size of the slate.")
        if perm(self.size, self._top) > MOST:
            raise InputError(
                f"size {self.size} and top {self._top} have {perm(self.size, self._top)} rankings; allowed: {MOST}."
            )

    @property
    def slots(self) -> int:
        """The size of the slate."""
        return self.size

    @property
    def _top(self) -> int:
        return self.size if self.top is None else self.top

    @property
    def _orders(self) -> Int[np.ndarray, "answer place"]:
        return np.array(list(permutations(range(self.size), self._top)))

    def log_chances(self, utility: Float[np.ndarray, "act slot"], tie: float) -> Float[np.ndarray, "act answer"]:
        """Return one per order of slots, orders sorted as words are."""
        orders = self._orders
        chance = np.zeros((len(utility), len(orders)))
        left = np.ones((len(orders), self.size), bool)
        for place in range(self._top):
            u = utility - utility.max(1, keepdims=True)
            rest = np.where(left[None], u[:, None], -np.inf)
            chance += u[:, orders[:, place]] - np.logaddexp.reduce(rest, axis=2)
            left[np.arange(len(orders)), orders[:, place]] = False
        return chance

    def record(
        self, slate: Int[np.ndarray, "act slot"], answer: Int[np.ndarray, " act"], who: dict[str, np.ndarray]
    ) -> Choices:
        """Return rankings; what is not among the top has rank -1."""
        rank = np.full(slate.shape, -1)
        np.put_along_axis(rank, self._orders[answer], np.arange(self._top)[None], axis=1)
        return Choices(slate, rank, **who, form=np.full(len(slate), FORMS.index("ranking")))


class AbstractGrading(AbstractForm):
    """One response at a time gets a grade."""

    @property
    @abstractmethod
    def scale(self) -> Scale:
        """What the grades mean."""

    @property
    def slots(self) -> int:
        """One."""
        return 1

    def record(
        self, slate: Int[np.ndarray, "act slot"], answer: Int[np.ndarray, " act"], who: dict[str, np.ndarray]
    ) -> Grades:
        """Return grades."""
        return Grades(item=slate[:, 0], value=answer, scale=np.zeros(len(answer), int), **who)


class AbstractOrdered(AbstractGrading):
    """A grade by an ordered logit (McCullagh 1980).

    P(grade <= k)  =  1 / (1 + exp(u - c_k)),  k = 0, 1, ...,  c = cuts
    """

    @property
    @abstractmethod
    def cuts(self) -> tuple[float, ...]:
        """Thresholds between grades, in logits."""

    def log_chances(self, utility: Float[np.ndarray, "act slot"], tie: float) -> Float[np.ndarray, "act answer"]:
        """Return one per grade, the lowest first."""
        return _ordered_logit(utility[:, 0], self.cuts)


@dataclass(frozen=True)
class Rating(AbstractOrdered):
    """How good on a scale from 1: an ordered logit, `P(grade <= k) = 1 / (1 + exp(u - c_k))`.

    Args:
        thresholds: increasing, in logits: one fewer than there are grades.
    """

    thresholds: tuple[float, ...] = (-1.5, -0.5, 0.5, 1.5)
    kind: Literal["rating"] = "rating"

    def __post_init__(self):
        _increasing("thresholds", self.thresholds, least=1)

    @property
    def cuts(self) -> tuple[float, ...]:
        """Thresholds between grades, in logits."""
        return self.thresholds

    @property
    def scale(self) -> Scale:
        """Grades 1 to the number of thresholds plus one."""
        grades = len(self.thresholds) + 1
        return Scale(f"rating 1-{grades}", tuple(str(k + 1) for k in range(grades)))


class AbstractBinary(AbstractOrdered):
    """One threshold: `P(upper grade) = 1 / (1 + exp(threshold - u))`."""

    threshold: float

    def __post_init__(self):
        _increasing("threshold", self.cuts)

    @property
    def cuts(self) -> tuple[float, ...]:
        """The one threshold."""
        return (self.threshold,)


@dataclass(frozen=True)
class Approval(AbstractBinary):
    """Approved or not: `P(approved) = 1 / (1 + exp(threshold - u))`.

    Args:
        threshold: utility that is approved half of the time, in logits.
    """

    threshold: float = 0.0
    kind: Literal["approval"] = "approval"

    @property
    def scale(self) -> Scale:
        """Two grades."""
        return Scale("approval", ("not approved", "approved"), "approval")


@dataclass(frozen=True)
class YesNo(AbstractBinary):
    """A yes or a no: `P(yes) = 1 / (1 + exp(threshold - u))`.

    Args:
        threshold: utility that gets a yes half of the time, in logits.
    """

    threshold: float = 0.0
    kind: Literal["yes-no"] = "yes-no"

    @property
    def scale(self) -> Scale:
        """Two labels."""
        return Scale("good?", ("no", "yes"), "label")


@dataclass(frozen=True)
class Vote(AbstractGrading):
    """Agree, pass or disagree: a comparison with a threshold, in which a pass is a tie (Davidson 1970).

        P(agree) : P(disagree) : P(pass)  =  exp(u) : exp(threshold) : exp(tie + (u + threshold) / 2)

    Args:
        threshold: utility that is agreed with as often as not, in logits.
    """

    threshold: float = 0.0
    kind: Literal["vote"] = "vote"

    def __post_init__(self):
        _increasing("threshold", (self.threshold,))

    @property
    def scale(self) -> Scale:
        """That of votes in Polis."""
        return VOTES

    def log_chances(self, utility: Float[np.ndarray, "act slot"], tie: float) -> Float[np.ndarray, "act answer"]:
        """Return disagree, pass, agree."""
        u, threshold = utility[:, 0], np.full(len(utility), self.threshold)
        return np.stack([threshold, tie + (u + threshold) / 2, u], 1)


Form = Annotated[
    Comparison | BestOf | Ranking | Correction | Demonstration | Rating | Approval | YesNo | Vote,
    Field(discriminator="kind"),
]


def _ordered_logit(u: Float[np.ndarray, " act"], cuts: tuple[float, ...]) -> Float[np.ndarray, "act grade"]:
    """Return log P(grade); each difference is taken in the tail where it keeps its digits."""
    edges = np.array([-np.inf, *cuts, np.inf])
    low, high = edges[:-1] - u[:, None], edges[1:] - u[:, None]
    upper = low > 0
    with np.errstate(divide="ignore"):  # a grade may be out of reach
        return np.log(expit(np.where(upper, -low, high)) - expit(np.where(upper, -high, low)))


def _increasing(name: str, values: tuple[float, ...], least: int = 0) -> None:
    if len(values) < least or not np.isfinite(values).all() or not (np.diff(values) > 0).all():
        raise InputError(f"{name} is {values}; allowed: finite, each above the one before, at least {least} of them.")


def _at_least_two(size: int) -> None:
    if size < 2:
        raise InputError(f"size is {size}; allowed: at least 2 responses, else there is nothing to choose.")


def _at_least_three(size: int) -> None:
    if size < 3:
        raise InputError(f"size is {size}; allowed: at least 3 responses in a slate; two are a comparison.")
