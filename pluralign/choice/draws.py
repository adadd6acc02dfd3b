"""What `axioms` and `audit` ask of posterior means, asked in every posterior draw: how sure the answer is.

    draws.check(choice.Borda(), utilities)["condorcet-winner"].anywhere      # the probability that it is broken
    draws.of_reward(scores, utilities), draws.of_policy(lottery, utilities)  # of what was learned
    draws.manipulation(choice.Borda(), utilities)["gain"].interval           # of what a lie gains

Each draw is taken for the truth: a rule decides from it, and what was learned is judged by it.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import repeat

import numpy as np
from jaxtyping import Bool, Float

from pluralign.choice.audit import manipulation as manipulated
from pluralign.choice.axioms import learned
from pluralign.choice.axioms.axiom import AbstractAxiom, Violation
from pluralign.choice.axioms.cards import ALL, examine
from pluralign.choice.axioms.learned import Pair
from pluralign.choice.axioms.outcome import Judge
from pluralign.choice.axioms.society import Society
from pluralign.choice.rows import each_draw
from pluralign.choice.rule import AbstractRule
from pluralign.errors import InputError
from pluralign.types import Feedback, Utilities


@dataclass(frozen=True, eq=False)
class Broken:
    """How probable it is that a rule breaks an axiom.

    Attributes:
        axiom: its name.
        found: whether a violation was found, draw by draw and prompt by prompt.
        complete: True if all that the axiom asks about was looked at; else it is broken at least so often.
        example: a violation in the first draw that has one, as it was found.
    """

    axiom: str
    found: Bool[np.ndarray, "draw prompt"]
    complete: bool
    example: Violation | None

    @property
    def probability(self) -> Float[np.ndarray, " prompt"]:
        """Probability that it is broken on each prompt."""
        return self.found.mean(0)

    @property
    def anywhere(self) -> float:
        """Probability that it is broken on some prompt."""
        return float(self.found.any(1).mean())

    @property
    def stderr(self) -> float:
        """Monte Carlo standard error of `anywhere` from independent draws; NaN if there is only one."""
        n = len(self.found)
        return float(self.found.any(1).std(ddof=1) / np.sqrt(n)) if n > 1 else np.nan

    def __str__(self) -> str:
        least = "" if self.complete else "at least "
        return (
            f"{self.axiom}: broken on some prompt with probability {least}{self.anywhere:.2f} ± {self.stderr:.2f}, "
            f"on a prompt with {least}{self.probability.mean():.2f} on average"
        )


@dataclass(frozen=True, eq=False)
class Spread:
    """A number in every draw.

    Attributes:
        name: of the number.
        value: NaN in draws where there is none.
    """

    name: str
    value: Float[np.ndarray, " draw"]

    @property
    def mean(self) -> float:
        """Posterior mean over the draws in which there is one; NaN if there is none."""
        return float(self._there.mean()) if self._there.size else np.nan

    @property
    def interval(self) -> tuple[float, float]:
        """5 % and 95 % quantile over the same draws."""
        low, high = np.quantile(self._there, [0.05, 0.95]) if self._there.size else (np.nan, np.nan)
        return float(low), float(high)

    @property
    def _there(self) -> Float[np.ndarray, " some"]:
        return self.value[~np.isnan(self.value)]

    def beyond(self, level: float = 0.0) -> float:
        """Return the probability that the number is larger than `level`, of all draws."""
        return float((self.value > level).mean())

    def __str__(self) -> str:
        low, high = self.interval
        return f"{self.name}: {self.mean:.3g} [{low:.3g}, {high:.3g}]"


@dataclass(frozen=True, eq=False)
class RewardBroken:
    """How probable it is that a reward orders pairs against voters.

    Attributes:
        pareto: of the pairs that all voters order alike, how many the reward orders the other way or ties.
        contradicted: of the majorities in no circle, how many.
        pairs: pairs that are among the contradicted in some draw, as they are in the first such, and how often; most
            often first.
    """

    pareto: Spread
    contradicted: Spread
    pairs: tuple[tuple[Pair, float], ...]

    def __str__(self) -> str:
        lines = [
            f"{self.pareto}; some with probability {self.pareto.beyond():.2f}",
            f"{self.contradicted}; some with probability {self.contradicted.beyond():.2f}",
            *(f"    {p:.2f}: prompt {a.prompt}, item {a.better} before {a.worse}" for a, p in self.pairs[:5]),
        ]
        return "\n".join(lines)


def check(
    rule: AbstractRule,
    utilities: Utilities,
    axioms: Sequence[AbstractAxiom] = ALL,
    *,
    beta: float | None = None,
    tries: int = 60,
    seed: int = 0,
) -> dict[str, Broken]:
    """Return how probable it is that a rule that decides from the true utilities breaks each axiom; see `axioms.check`.

    Args:
        rule: to be judged.
        utilities: of every voter, in posterior draws.
        axioms: to be checked.
        beta: price at which rules of welfare choose a lottery; None: the best sole answers.
        tries: changes of each society that are looked at, at most.
        seed: of the samples.

    Raises:
        InputError: the rule cannot take these utilities.
        SolveError: the rule was not solved in some draw.
    """
    size = (utilities.shape[0], len(utilities.reference))
    found = {axiom.name: np.zeros(size, bool) for axiom in axioms}
    complete, example = dict.fromkeys(found, True), dict[str, Violation | None].fromkeys(found)
    for s, one in enumerate(each_draw(utilities)):
        for x, society in enumerate(Society.of_utilities(one)):
            known = Judge(rule, beta)(society)
            for axiom in axioms:
                finding = examine(rule, society, axiom, beta, tries, seed, known, small=False)
                found[axiom.name][s, x] = finding.violation is not None
                complete[axiom.name] &= finding.complete or finding.violation is not None
                example[axiom.name] = example[axiom.name] or finding.violation
    return {name: Broken(name, found[name], complete[name], example[name]) for name in found}


def of_reward(
    score: Float[np.ndarray, "*draw item"], votes: Utilities | Feedback, *, voters: int = 2, objective: int = 0
) -> RewardBroken:
    """Return how many pairs a reward orders against voters, over draws of the voters, of the reward, or of both.

    Args:
        score: reward of every item; with a first axis of draws, in each draw.
        votes: utilities, each draw of which is taken for the truth, or feedback, which is the same for all draws.
        voters: pairs on which fewer voters have a preference do not count.
        objective: of the feedback.

    Raises:
        InputError: scores do not fit the items, or draws of scores and of utilities differ in number.
    """
    scores = np.atleast_2d(np.asarray(score, np.float64))
    truths = votes.shape[0] if isinstance(votes, Utilities) else 1
    if scores.ndim != 2 or 1 < len(scores) != truths > 1:
        raise InputError(
            f"score has shape {scores.shape}, but utilities have {truths} draws; give one score or as many."
        )
    counted = (
        map(learned.counted, each_draw(votes))
        if isinstance(votes, Utilities) and truths > 1
        else repeat(learned.counted(votes, objective), max(len(scores), truths))
    )
    rows = scores if len(scores) > 1 else repeat(scores[0])
    many: Counter[tuple[int, int]] = Counter()
    pairs: dict[tuple[int, int], Pair] = {}
    pareto, contradicted = [], []
    for told, row in zip(counted, rows, strict=False):
        found = learned.ordered(row, told, voters)
        straight = [pair for pair in found.contradicted if not pair.cyclic]
        pareto.append(len(found.pareto))
        contradicted.append(len(straight))
        for pair in straight:
            many[pair.better, pair.worse] += 1
            pairs.setdefault((pair.better, pair.worse), pair)
    often = tuple((pairs[key], count / len(pareto)) for key, count in many.most_common())
    return RewardBroken(
        Spread("unanimous pairs the wrong way round", np.array(pareto, float)),
        Spread("majorities contradicted, in no circle", np.array(contradicted, float)),
        often,
    )


def of_policy(lottery: Float[np.ndarray, "prompt candidate"], utilities: Utilities) -> Mapping[str, Spread]:
    """Return each number of `axioms.PolicyAxioms` over draws: what a policy gives to whom, and how well that is known.

    Args:
        lottery: probability of each candidate, rows sum to 1.
        utilities: of every voter, each draw of which is taken for the truth.

    Raises:
        InputError: the lottery is not one of these candidates.
    """
    found = [learned.of_policy(lottery, one) for one in each_draw(utilities)]
    names = ("dominated", "condorcet", "loser", "proportional", "shortfall")
    return {name: Spread(name, np.array([getattr(one, name) for one in found], float)) for name in names}


def manipulation(
    rule: AbstractRule,
    utilities: Utilities,
    *,
    coalition: int | float = 1,
    beta: float | None = None,
    voters: Sequence[int] | None = None,
    tries: int = 200,
) -> Mapping[str, Spread]:
    """Return how far misreports move the lottery (`tv`), with what `gain`, and what share gain (`liars`), over draws.

    In each draw voters know what they want, and others report it; see `audit.manipulation` for the arguments and for
    which numbers are lower bounds.

    Raises:
        InputError: `coalition` is out of range, or the rule cannot take these utilities.
        SolveError: the rule was not solved on the true utilities of some draw.
    """
    found = [
        manipulated(rule, one, coalition=coalition, beta=beta, voters=voters, tries=tries)
        for one in each_draw(utilities)
    ]
    return {name: Spread(name, np.array([getattr(one, name) for one in found])) for name in ("tv", "gain", "liars")}
