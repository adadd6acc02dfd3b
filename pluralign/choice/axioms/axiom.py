"""What an axiom is, how a violation is looked for, and how its witness is made small."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np

from pluralign.choice.axioms.outcome import AbstractOutcome, Judge, says
from pluralign.choice.axioms.society import Society
from pluralign.errors import InputError, SolveError

TRIES = 1000  # changed societies that are looked at, at most
Rng = np.random.Generator
T = TypeVar("T")


@dataclass(frozen=True)
class Evidence:
    """What is wrong with an outcome.

    Attributes:
        words: the sentence: who, which candidates, which numbers.
        candidates: indices of those it is about.
        voters: indices of those it is about.
    """

    words: str
    candidates: tuple[int, ...]
    voters: tuple[int, ...] = ()


@dataclass(frozen=True, eq=False)
class Change:
    """Societies that an axiom compares with the one it started from.

    Attributes:
        others: the changed society, or those into which the first one was split.
        voters: indices (in the first society) of those who changed.
        candidates: indices (in the first society) of those about which something changed.
        words: what was changed.
    """

    others: tuple[Society, ...]
    voters: tuple[int, ...] = ()
    candidates: tuple[int, ...] = ()
    words: str = ""


@dataclass(frozen=True, eq=False)
class Violation:
    """An axiom that a rule breaks, with a witness that a person can read.

    Attributes:
        axiom: its name.
        words: what is wrong: who, which candidates, which numbers.
        candidates: names of the candidates that it is about.
        voters: names of the voters that it is about.
        society: the witness.
        outcome: what the rule makes of it.
        others: the societies that it is compared with, if the axiom compares.
        outcomes: what the rule makes of those.
    """

    axiom: str
    words: str
    candidates: tuple[str, ...]
    voters: tuple[str, ...]
    society: Society
    outcome: AbstractOutcome
    others: tuple[Society, ...] = ()
    outcomes: tuple[AbstractOutcome, ...] = ()

    def __str__(self) -> str:
        lines = [f"{self.axiom}: {self.words}"]
        for society, outcome in zip((self.society, *self.others), (self.outcome, *self.outcomes), strict=True):
            lines += [f"    {line}" for line in society.words] + [f"    -> {says(society, outcome)}"]
        return "\n".join(lines)


@dataclass(frozen=True, eq=False)
class Finding:
    """What a search for a violation came to.

    Attributes:
        axiom: its name.
        violation: the witness; None if there is none, or none was found.
        tried: how many societies, or changes of a society, were looked at.
        complete: True if that was all that the axiom asks about: without a violation, none exists.
        refused: on how many of them the rule gave no outcome.
    """

    axiom: str
    violation: Violation | None
    tried: int
    complete: bool
    refused: int = 0

    def __str__(self) -> str:
        if self.violation is not None:
            return str(self.violation)
        return f"{self.axiom}: {'none exists' if self.complete else f'no violation found in {self.tried} tries'}"


class AbstractAxiom(ABC):
    """A demand on rules."""

    @property
    def name(self) -> str:
        """The axiom's name: its `kind`."""
        return vars(self)["kind"]

    @abstractmethod
    def search(
        self, judge: Judge, society: Society, outcome: AbstractOutcome, tries: int = TRIES, seed: int = 0
    ) -> Finding:
        """Return the first violation that the society shows, as it is.

        Args:
            judge: the rule.
            society: to be looked at.
            outcome: what the rule makes of it.
            tries: changes of the society that are looked at, at most.
            seed: of the sample, where there are more.
        """

    def check(self, rule: Judge, society: Society, tries: int = TRIES, seed: int = 0) -> Violation | None:
        """Return a violation that the society shows, its witness as small as dropping voters and candidates makes it.

        Args:
            rule: to be judged.
            society: to be looked at.
            tries: changes of the society that are looked at, at most.
            seed: of the sample, where there are more.

        Raises:
            InputError: the rule cannot take this society.
            SolveError: the rule was not solved on it.
        """
        found = self.search(rule, society, rule(society), tries, seed).violation
        return None if found is None else shrunk(self, rule, found, tries, seed)


class AbstractStanding(AbstractAxiom):
    """A demand on the outcome of one society."""

    @abstractmethod
    def fault(self, society: Society, outcome: AbstractOutcome) -> Evidence | None:
        """Return what is wrong with the outcome, if anything is."""

    def search(
        self, judge: Judge, society: Society, outcome: AbstractOutcome, tries: int = TRIES, seed: int = 0
    ) -> Finding:
        """Return what `fault` says; one look is all there is."""
        del judge, tries, seed
        found = self.fault(society, outcome)
        if found is None:
            return Finding(self.name, None, 1, True)
        return Finding(self.name, _violation(self, found, society, outcome), 1, True)


class AbstractComparing(AbstractAxiom):
    """A demand on how outcomes of several societies go together."""

    @abstractmethod
    def changes(
        self, society: Society, outcome: AbstractOutcome, tries: int, rng: Rng
    ) -> tuple[Iterator[Change], bool]:
        """Return the societies to compare with, at most `tries`, and whether these are all there are."""

    @abstractmethod
    def clash(
        self,
        society: Society,
        outcome: AbstractOutcome,
        change: Change,
        outcomes: tuple[AbstractOutcome, ...],
    ) -> Evidence | None:
        """Return what is wrong with the outcomes, if anything is."""

    def search(
        self, judge: Judge, society: Society, outcome: AbstractOutcome, tries: int = TRIES, seed: int = 0
    ) -> Finding:
        """Return the first clash."""
        pool, complete = self.changes(society, outcome, tries, np.random.default_rng(seed))
        tried = refused = 0
        for change in pool:
            tried += 1
            try:
                outcomes = tuple(judge(other) for other in change.others)
            except (InputError, SolveError):
                refused += 1
                continue
            found = self.clash(society, outcome, change, outcomes)
            if found is not None:
                violation = _violation(self, found, society, outcome)
                violation = replace(violation, others=change.others, outcomes=outcomes)
                return Finding(self.name, violation, tried, False, refused)
        return Finding(self.name, None, tried, complete and not refused, refused)


def _violation(axiom: AbstractAxiom, found: Evidence, society: Society, outcome: AbstractOutcome) -> Violation:
    return Violation(
        axiom.name,
        found.words,
        tuple(society.candidates[y] for y in found.candidates),
        tuple(society.voters[v] for v in found.voters),
        society,
        outcome,
    )


def shrunk(axiom: AbstractAxiom, judge: Judge, found: Violation, tries: int = TRIES, seed: int = 0) -> Violation:
    """Return a violation from which no voter and no candidate can be left out.

    First whole groups of equal ballots are left out, or half of one, then voters one by one, then candidates, as long
    as what is left still shows a violation; where changes of a society are sampled, one may be overlooked.
    """
    smaller = True
    while smaller:
        smaller = False
        for part in _parts(found.society):
            try:
                again = axiom.search(judge, part, judge(part), tries, seed).violation
            except (InputError, SolveError):
                continue
            if again is not None:
                found, smaller = again, True
                break
    return found


def _parts(society: Society) -> Iterator[Society]:
    """Yield the societies without a kind of voters, without one voter, without one candidate."""
    voters, candidates = np.arange(society.shape[0]), np.arange(society.shape[1])
    for kind in society.kinds:
        if 1 < len(kind) < len(voters):
            yield society.only(np.setdiff1d(voters, kind))
    if len(voters) > 20:  # as many as there are, every other one
        yield society.only(np.sort(np.concatenate([kind[::2] for kind in society.kinds])))
    for kind in society.kinds:
        if len(kind) > 3:
            yield society.only(np.setdiff1d(voters, kind[len(kind) // 2 :]))
    for kind in society.kinds:
        if len(voters) > 1:
            yield society.only(np.delete(voters, kind[-1]))
    for y in candidates:
        if len(candidates) > 2:
            yield society.only(candidates=np.delete(candidates, y))


def some(options: Sequence[T], tries: int, rng: Rng) -> tuple[Iterator[T], bool]:
    """Return all options, or a random sample of `tries` of them; and whether these are all."""
    if len(options) <= tries:
        return iter(options), True
    picked = rng.choice(len(options), tries, replace=False)
    return (options[i] for i in picked), False


def groups(society: Society) -> Iterator[tuple[int, ...]]:
    """Yield the first voter of each kind, the first two, and so on: those who could act alike and together."""
    for kind in society.kinds:
        for size in range(1, len(kind) + 1):
            yield tuple(int(v) for v in kind[:size])


def who(society: Society, voters: tuple[int, ...]) -> str:
    """Return voters in words."""
    names = [society.voters[v] for v in voters]
    short = ", ".join(names[:6]) + (f" and {len(names) - 6} more" if len(names) > 6 else "")
    if not names[0].isdigit():
        return short
    return f"voter {short}" if len(names) == 1 else f"voters {short}"
