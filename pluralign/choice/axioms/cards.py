"""Which axioms a rule breaks: on given votes, and on random and textbook profiles."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from pluralign.choice.axioms.axiom import TRIES, AbstractAxiom, Finding, Rng, shrunk
from pluralign.choice.axioms.majority import CondorcetLoser, CondorcetWinner, Majority, PairwiseMajority, Pareto, Smith
from pluralign.choice.axioms.outcome import ORDINAL, PRICE, AbstractOutcome, Judge
from pluralign.choice.axioms.response import Monotonicity, StrategyProofness
from pluralign.choice.axioms.shares import Core, PopulationProportionality, ProportionalFairness, above_worst
from pluralign.choice.axioms.society import Society
from pluralign.choice.axioms.symmetry import Anonymity, Homogeneity, Neutrality, ReversalSymmetry, ScaleInvariance
from pluralign.choice.axioms.textbook import PROFILES, profile
from pluralign.choice.axioms.variable import Clones, IrrelevantAlternatives, Participation, Reinforcement
from pluralign.choice.linear import AbstractLinear
from pluralign.choice.rule import AbstractRule
from pluralign.errors import InputError, SolveError
from pluralign.types import Utilities

ALL: tuple[AbstractAxiom, ...] = (
    Pareto(),
    Majority(),
    PairwiseMajority(),
    CondorcetWinner(),
    CondorcetLoser(),
    Smith(),
    Anonymity(),
    Neutrality(),
    Homogeneity(),
    ReversalSymmetry(),
    ScaleInvariance(zero=False),
    ScaleInvariance(unit=False),
    Monotonicity(),
    Participation(),
    Reinforcement(),
    Clones(),
    IrrelevantAlternatives(),
    StrategyProofness(),
    PopulationProportionality(),
    Core(),
    ProportionalFairness(),
)
SHARES = (PopulationProportionality, Core, ProportionalFairness)
Maker = Callable[[Rng, int, int], Society]
Votes = Society | Utilities | np.ndarray | Sequence[Society]


def check(
    rule: AbstractRule,
    votes: Votes,
    axioms: Sequence[AbstractAxiom] = ALL,
    *,
    beta: float | None = None,
    tries: int = TRIES,
    seed: int = 0,
) -> dict[str, Finding]:
    """Return, for every axiom, the smallest violation that is found on these votes.

    Axioms that compare look at changes of the votes: all of them if there are at most `tries`, else a sample; a
    `Finding` says which, so that "none exists" is told from "none was found". Rules that maximise welfare are judged by
    their best sole answers, and linear rules by whom the weights made of one prompt put first, see `Judge`; where
    shares matter (proportionality, the core), rules of welfare are judged by the lottery that `choose` makes at beta =
    0.01 from utilities that count from each voter's worst candidate.

    Args:
        rule: to be judged.
        votes: rankings `[voter slot]` (whole numbers, best first, -1 ends a ballot), utilities `[voter candidate]`,
            `Utilities` (one society per prompt, the mean over draws), or societies.
        axioms: to be checked.
        beta: price at which rules of welfare choose a lottery; None: see above.
        tries: changes of each society that are looked at, at most.
        seed: of the samples.

    Raises:
        InputError: the rule cannot take these votes.
        SolveError: the rule was not solved on them.
    """
    parts = societies(votes)
    merged: dict[str, Finding] = {}
    for axiom in axioms:
        found = Finding(axiom.name, None, 0, True)
        for x, society in enumerate(parts):
            one = examine(rule, society, axiom, beta, tries, seed)
            if one.violation is not None and len(parts) > 1:
                one = replace(one, violation=replace(one.violation, words=f"prompt {x}: {one.violation.words}"))
            found = _together(found, one)
            if found.violation is not None:
                break
        merged[axiom.name] = found
    return merged


def examine(
    rule: AbstractRule,
    society: Society,
    axiom: AbstractAxiom,
    beta: float | None = None,
    tries: int = TRIES,
    seed: int = 0,
    known: AbstractOutcome | None = None,
    small: bool = True,
) -> Finding:
    """Return what one axiom finds on one society; see `check`.

    Args:
        rule: to be judged.
        society: to be looked at.
        axiom: to be checked.
        beta: price at which rules of welfare choose a lottery.
        tries: changes that are looked at, at most.
        seed: of the sample.
        known: what the rule makes of the society, if that was worked out before.
        small: make the witness small.
    """
    judge = Judge(rule, beta)
    if not isinstance(rule, AbstractLinear):
        society = replace(society, phi=None)  # nobody else sees features
    if isinstance(axiom, SHARES) and not isinstance(rule, ORDINAL):
        judge, known = Judge(rule, PRICE if beta is None else beta), None
        society = replace(society, utility=above_worst(society))
    found = axiom.search(judge, society, judge(society) if known is None else known, tries, seed)
    if found.violation is None or not small:
        return found
    return replace(found, violation=shrunk(axiom, judge, found.violation, tries, seed))


def societies(votes: Votes) -> tuple[Society, ...]:
    """Return what `check` takes as societies."""
    if isinstance(votes, Society):
        return (votes,)
    if isinstance(votes, Utilities):
        return Society.of_utilities(votes)
    if isinstance(votes, np.ndarray):
        whole = np.issubdtype(votes.dtype, np.integer)
        return (Society.of_rankings(votes) if whole else Society.of_utility(votes),)
    if not votes:
        raise InputError("there are no votes to check the rule on.")
    return tuple(votes)


@dataclass(frozen=True, eq=False)
class Card:
    """Which axioms a rule was found to break.

    Attributes:
        rule: its name.
        findings: by name of the axiom; a violation has the smallest witness that was found.
        profiles: how many profiles were looked at, the smallest first.
    """

    rule: str
    findings: Mapping[str, Finding]
    profiles: int

    @property
    def broken(self) -> tuple[str, ...]:
        """Names of the axioms for which there is a witness."""
        return tuple(name for name, found in self.findings.items() if found.violation is not None)

    def __str__(self) -> str:
        return "\n".join([f"{self.rule}, on {self.profiles} profiles", *map(str, self.findings.values())])


def card(
    rule: AbstractRule,
    profiles: Iterable[Society] | int = 100,
    axioms: Sequence[AbstractAxiom] = ALL,
    *,
    beta: float | None = None,
    tries: int = 60,
    seed: int = 0,
) -> Card:
    """Return which axioms the rule breaks on some of many profiles, each with a small witness.

    Args:
        rule: to be judged.
        profiles: societies; a number makes so many random ones of the kind that the rule takes, and adds those of the
            textbooks if it takes orders.
        axioms: to be checked.
        beta: see `check`.
        tries: changes of each profile that are looked at, at most.
        seed: of profiles and samples.
    """
    if isinstance(profiles, int):
        pool = random_societies(form(rule), profiles, seed)
        pool += tuple(map(profile, PROFILES.values())) if form(rule) is orders else ()
    else:
        pool = tuple(profiles)
    pool = sorted(pool, key=lambda s: s.shape[0] * s.shape[1])
    found = {axiom.name: Finding(axiom.name, None, 0, False) for axiom in axioms}
    for society in pool:
        todo = [axiom for axiom in axioms if found[axiom.name].violation is None]
        try:
            known = Judge(rule, beta)(society) if todo else None
        except (InputError, SolveError):
            known = None
        for axiom in todo:
            try:
                one = examine(rule, society, axiom, beta, tries, seed, known)
            except (InputError, SolveError):
                one = Finding(axiom.name, None, 1, False, 1)
            found[axiom.name] = replace(_together(found[axiom.name], one), complete=False)
    return Card(rule.name, found, len(pool))


def _together(a: Finding, b: Finding) -> Finding:
    complete = a.complete and b.complete
    return Finding(a.axiom, b.violation, a.tried + b.tried, complete, a.refused + b.refused)


def table(cards: Sequence[Card]) -> str:
    """Return what is broken as a table in Markdown: a row per axiom, a column per rule; "." where nothing was found."""
    lines = [["axiom", *(c.rule for c in cards)], ["---"] * (len(cards) + 1)]
    for name in cards[0].findings:
        lines.append([name, *("broken" if name in c.broken else "." for c in cards)])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def orders(rng: Rng, voters: int, candidates: int) -> Society:
    """Return complete rankings: of every voter for itself, or of few kinds of voters."""
    kinds = voters if rng.random() < 0.5 else int(rng.integers(1, min(voters, 4) + 1))
    ballots = np.stack([rng.permutation(candidates) for _ in range(kinds)])
    return Society.of_rankings(ballots[np.append(np.arange(kinds), rng.integers(0, kinds, voters - kinds))])


def points(rng: Rng, voters: int, candidates: int) -> Society:
    """Return candidates at different whole points of two or three features, and voters who rank along some direction.

    As with `orders`, of few kinds or every voter for itself.
    """
    features = int(rng.integers(2, 4))
    grid = rng.choice(9**features, candidates, replace=False)
    phi = np.stack(np.unravel_index(grid, (9,) * features), 1) - 4.0
    kinds = voters if rng.random() < 0.5 else int(rng.integers(1, min(voters, 4) + 1))
    value = rng.normal(size=(kinds, features)) @ phi.T
    ballots = np.argsort(-value[np.append(np.arange(kinds), rng.integers(0, kinds, voters - kinds))], axis=1)
    return replace(Society.of_rankings(ballots), phi=phi)


def approvals(rng: Rng, voters: int, candidates: int) -> Society:
    """Return voters who approve of some candidates, but not of all, and tell no more."""
    likes = rng.random((voters, candidates)) < rng.uniform(0.2, 0.7)
    likes[np.arange(voters), rng.integers(0, candidates, voters)] = True
    full = likes.all(1)
    likes[full, rng.integers(0, candidates, full.sum())] = False
    return replace(Society.of_utility(likes.astype(float), approved=likes), cardinal=False)


def worth(rng: Rng, voters: int, candidates: int) -> Society:
    """Return utilities of 0.1, 0.2, ..., 1; no voter is indifferent between all."""
    u = rng.integers(1, 11, (voters, candidates)) / 10
    same = np.ptp(u, 1) == 0
    u[same, 0] = np.where(u[same, 0] > 0.5, 0.1, 1.0)
    return Society.of_utility(u)


def form(rule: AbstractRule) -> Maker:
    """Return what makes random societies of the kind that a rule takes."""
    if isinstance(rule, AbstractLinear):
        return points
    if not isinstance(rule, ORDINAL):
        return worth
    return approvals if getattr(rule, "top", 1) is None else orders


def random_societies(make: Maker, count: int, seed: int = 0) -> tuple[Society, ...]:
    """Return random societies of 1 to 9 voters and 2 to 5 candidates; `make` is what `form` returns."""
    rng = np.random.default_rng(seed)
    return tuple(make(rng, int(rng.integers(1, 10)), int(rng.integers(2, 6))) for _ in range(count))
