"""How far one annotator, or a share of colluding ones, can move the lottery by misreporting, and what they gain."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float

from pluralign.choice.axioms.cards import Votes, societies
from pluralign.choice.axioms.outcome import ORDINAL, Judge
from pluralign.choice.axioms.response import reports
from pluralign.choice.axioms.society import Society, as_utilities
from pluralign.choice.rule import AbstractRule
from pluralign.choice.scale import AbstractScale, RangeScale, rescale
from pluralign.errors import InputError, SolveError
from pluralign.types import Utilities

Lotteries = Float[np.ndarray, "prompt candidate"]
RANGE = RangeScale()
ROUNDS = 3  # of local search, at most


@dataclass(frozen=True, eq=False)
class Reach:
    """What some voters can do by saying something else, all the same.

    Attributes:
        voters: their names.
        mass: how much they count.
        tv: farthest that they were found to move the lottery, mean total variation over prompts.
        gain: most that they were found to gain in their own true utility, the mean over them, in shares of the distance
            from a voter's worst to its best answers; 0: nothing better than the truth was found.
        report: what they say for that gain; the truth if there is none.
        lottery: what comes of that report.
    """

    voters: tuple[str, ...]
    mass: float
    tv: float
    gain: float
    report: Lotteries
    lottery: Lotteries


@dataclass(frozen=True, eq=False)
class Manipulation:
    """How far misreports move a rule's lottery.

    Attributes:
        rule: its name.
        lottery: if everyone tells the truth.
        reaches: of every voter, or every group of colluding ones.
        exhaustive: True if every report was tried, so that numbers are exact; else they are lower bounds.
        tried: reports, of all voters together.
        search: how reports were looked for, in words.
    """

    rule: str
    lottery: Lotteries
    reaches: tuple[Reach, ...]
    exhaustive: bool
    tried: int
    search: str

    @property
    def tv(self) -> float:
        """Farthest that anyone moves the lottery."""
        return max(reach.tv for reach in self.reaches)

    @property
    def gain(self) -> float:
        """Most that anyone gains."""
        return max(reach.gain for reach in self.reaches)

    @property
    def liars(self) -> float:
        """Share of those looked at who gain by some lie."""
        return float(np.mean([reach.gain > 1e-3 for reach in self.reaches]))

    def __str__(self) -> str:
        least = "" if self.exhaustive else "at least "
        top = max(self.reaches, key=lambda reach: reach.gain)
        leader = f"voter {top.voters[0]}" if top.voters[0].isdigit() else top.voters[0]
        who = leader if len(top.voters) == 1 else f"a group of {len(top.voters)} around {leader}"
        return (
            f"{self.rule}: misreports move the lottery by up to {least}{self.tv:.3g} in total variation, and gain "
            f"{least}{100 * self.gain:.3g} % of the way from worst to best ({who}, {100 * top.mass:.3g} % of all); "
            f"{least}{100 * self.liars:.3g} % gain by some lie. {self.search}"
        )


def manipulation(
    rule: AbstractRule,
    votes: Votes,
    *,
    coalition: int | float = 1,
    beta: float | None = None,
    scale: AbstractScale = RANGE,
    voters: Sequence[int] | None = None,
    tries: int = 200,
) -> Manipulation:
    """Return how far voters can move the lottery by misreporting, and with what gain.

    Rules that count orders: every order of up to five candidates is tried (every set of approvals of up to eight);
    else one candidate first, one last, or both, and then exchanges of two as long as they help; linear rules make their
    weights of each prompt by itself, from utilities that have features. Rules of welfare:
    reports lie between the voter's least and largest utility and are put on `scale` like everyone's. The search starts
    from what the multipliers say: to first order a voter with multiplier lambda gains
    `lambda / beta sum_y p_y (u_y - u(p)) change_y`, so it should exaggerate: all that is better than the lottery to
    the top, the rest to the bottom. Then other thresholds and single answers are tried, as long as they help. What a
    search finds is a lower bound.

    Args:
        rule: to be audited.
        votes: rankings `[voter slot]`, utilities `[voter candidate]`, `Utilities` (the mean over draws counts), or
            societies of the same voters.
        coalition: how many collude, a whole number; or at most which share of all mass, below 1. A group is a voter and
            those whose utilities are nearest to its own, and all say the same.
        beta: price of divergence; None: 0.1 for rules of welfare, and none for rules that count orders (several winners
            then share alike).
        scale: on which rules of welfare measure what is reported.
        voters: who may lie, by number; None: everyone in turn.
        tries: reports of one voter that are tried by search, at most.

    Raises:
        InputError: `coalition` is out of range, or the rule cannot take these votes.
        SolveError: the rule was not solved on the true votes.
    """
    parts = societies(votes)
    if len({part.voters for part in parts}) > 1:
        raise InputError("the societies must have the same voters.")
    mass = parts[0].share
    counted = isinstance(coalition, int | np.integer)
    if not (1 <= coalition <= len(mass) if counted else 0 < coalition < 1):
        raise InputError(f"coalition is {coalition}; it is 1 to {len(mass)} voters, or a share of mass below 1.")
    ordinal = isinstance(rule, ORDINAL)
    game = _Orders(rule, parts, beta) if ordinal else _Welfare(rule, parts, 0.1 if beta is None else beta, scale)
    honest, true = game.lotteries(None, game.truth(0)), _ranged(parts)
    tried, whole, found, known = 0, ordinal and len(_group(true, mass, 0, coalition)) == 1, [], {}
    for leader in range(len(mass)) if voters is None else voters:
        group = _group(true, mass, leader, coalition)
        alike = (len(group), mass[leader], *(part.utility[leader].tobytes() for part in parts))
        if len(group) > 1 or alike not in known:
            search = _Search(
                game, honest, [row[group].T @ mass[group] / mass[group].sum() for row in true], group, tries
            )
            known[alike] = search.run()
            tried, whole = tried + search.tried, whole and search.complete
        names = tuple(parts[0].voters[v] for v in group)
        found.append(replace(known[alike], voters=names, mass=float(mass[group].sum())))
    words = "Every report was tried." if whole else f"{tried} reports were tried."
    return Manipulation(rule.name, _stack(honest), tuple(found), whole, tried, words)


def table(audits: Sequence[Manipulation]) -> str:
    """Return a table in Markdown, a row per rule."""
    lines = ["| rule | moved by (TV) | gain | who gains | |", "|---|---|---|---|---|"]
    for a in audits:
        exact = "exact" if a.exhaustive else "at least"
        lines.append(f"| {a.rule} | {a.tv:.3f} | {100 * a.gain:.1f} % | {100 * a.liars:.0f} % | {exact} |")
    return "\n".join(lines)


def _stack(rows: list[np.ndarray]) -> Lotteries:
    """Return rows of all prompts as one table, 0 where a prompt has fewer candidates."""
    size = max(map(len, rows))
    return np.stack([np.pad(row, (0, size - len(row))) for row in rows])


def _ranged(parts: Sequence[Society]) -> list[np.ndarray]:
    """Return true utilities of each prompt, of which the worst answers are worth 0 and the best 1 on average."""
    unit = np.mean([np.ptp(part.utility, 1) for part in parts], axis=0)
    unit = np.where(unit > 0, unit, 1)[:, None]
    return [(part.utility - part.utility.min(1, keepdims=True)) / unit for part in parts]


def _group(true: list[np.ndarray], mass: np.ndarray, leader: int, coalition: int | float) -> np.ndarray:
    """Return a voter and those nearest to it, as many as collude."""
    table = np.hstack(true)
    apart = ((table - table[leader]) ** 2).sum(1)
    apart[leader] = -1
    order = np.argsort(apart, kind="stable")
    if isinstance(coalition, int | np.integer):
        return order[:coalition]
    return order[: max(1, int(np.searchsorted(np.cumsum(mass[order]), coalition + 1e-9, side="right")))]


class _Orders:
    """Rules that count orders: each prompt is decided for itself."""

    separate = True

    def __init__(self, rule: AbstractRule, parts: Sequence[Society], beta: float | None):
        self.rule, self.parts, self.beta = rule, parts, beta

    def truth(self, voter: int) -> list[np.ndarray]:
        """Return what a voter says if it tells the truth."""
        return [part.utility[voter] for part in self.parts]

    def lotteries(self, group: np.ndarray | None, report: list[np.ndarray]) -> list[np.ndarray]:
        """Return the lottery of every prompt when a group says `report`."""
        return [self.one(x, group, row) for x, row in enumerate(report)]

    def one(self, x: int, group: np.ndarray | None, row: np.ndarray) -> np.ndarray:
        """Return the lottery of one prompt."""
        part = self.parts[x] if group is None else self.parts[x].saying(group, row)
        if self.beta is None:
            return Judge(self.rule)(part).chance
        return self.rule.choose(as_utilities(part), beta=self.beta).lottery[0]

    def first(self, voter: int, honest: list[np.ndarray]) -> list[list[np.ndarray]]:
        """Return whole reports to start from: none but the truth."""
        del voter, honest
        return []

    def options(self, x: int, voter: int, said: np.ndarray, again: bool) -> tuple[np.ndarray, bool]:
        """Return what else could be said of a prompt, and whether that is all."""
        part = self.parts[x]
        if not again:
            return reports(part.utility[voter], part.dichotomous, True)
        first, second = np.triu_indices(len(said), 1)
        swapped = np.repeat(said[None], len(first), 0)
        every = np.arange(len(first))
        swapped[every, first], swapped[every, second] = said[second], said[first]
        return swapped, False


class _Welfare:
    """Rules of welfare: all prompts are decided together, on a scale."""

    separate = False

    def __init__(self, rule: AbstractRule, parts: Sequence[Society], beta: float, scale: AbstractScale):
        self.rule, self.parts, self.beta, self.scale = rule, parts, beta, scale
        self.widest = np.max([np.ptp(part.utility, 1) for part in parts], axis=0)
        self.reference = _stack([part.reference for part in parts])

    def truth(self, voter: int) -> list[np.ndarray]:
        """Return what a voter says if it tells the truth, from 0 on."""
        return [part.utility[voter] - part.utility[voter].min() for part in self.parts]

    def lotteries(self, group: np.ndarray | None, report: list[np.ndarray]) -> list[np.ndarray]:
        """Return the lottery of every prompt when a group says `report`."""
        value = np.zeros((1, self.parts[0].shape[0], *self.reference.shape))
        for x, part in enumerate(self.parts):
            value[0, :, x, : part.shape[1]] = part.utility
            if group is not None:
                value[0, group, x, : part.shape[1]] = report[x]
        told = rescale(Utilities(value, self.parts[0].share, self.reference), self.scale)
        lottery = self.rule.choose(told, beta=self.beta).lottery
        return [row[: part.shape[1]] for row, part in zip(lottery, self.parts, strict=True)]

    def first(self, voter: int, honest: list[np.ndarray]) -> list[list[np.ndarray]]:
        """Return the exaggeration that is best to first order: all that is better than the lottery to the top."""
        whole = [np.where(u > u @ p, self.widest[voter], 0.0) for u, p in zip(self.truth(voter), honest, strict=True)]
        return [whole]

    def options(self, x: int, voter: int, said: np.ndarray, again: bool) -> tuple[np.ndarray, bool]:
        """Return what else could be said of a prompt: other thresholds, or one answer moved to an end."""
        u, top = self.truth(voter)[x], self.widest[voter]
        steps = np.where(u >= np.unique(u)[1:, None], top, 0.0)
        ends = np.repeat(said[None], 2 * len(u), 0)
        ends[np.arange(2 * len(u)), np.tile(np.arange(len(u)), 2)] = np.repeat([0.0, top], len(u))
        return (ends if again else np.concatenate([steps, ends])), False


class _Search:
    """The search for the reports of one group that gain most, and that move most."""

    def __init__(
        self,
        game: _Orders | _Welfare,
        honest: list[np.ndarray],
        true: list[np.ndarray],
        group: np.ndarray,
        tries: int,
    ):
        self.game, self.honest, self.true, self.group, self.tries = game, honest, true, group, tries
        self.tried, self.complete, self.leader = 0, game.separate, int(group[0])

    def gain(self, lotteries: list[np.ndarray]) -> float:
        """Return how much better the group's true utility is than under the truth."""
        rows = zip(self.true, lotteries, self.honest, strict=True)
        return float(np.mean([u @ (p - q) for u, p, q in rows]))

    def tv(self, lotteries: list[np.ndarray]) -> float:
        """Return how far the lottery is moved."""
        return float(np.mean([np.abs(p - q).sum() / 2 for p, q in zip(lotteries, self.honest, strict=True)]))

    def run(self) -> Reach:
        """Return what the group can do."""
        gain, report, lotteries = self._climb(self.gain)
        moved, _, _ = self._climb(self.tv)
        return Reach((), 0.0, max(moved, self.tv(lotteries)), gain, _stack(report), _stack(lotteries))

    def _climb(self, score: Callable[[list[np.ndarray]], float]) -> tuple[float, list[np.ndarray], list[np.ndarray]]:
        """Change what is said of one prompt at a time, as long as the score grows."""
        report, now, best = self.game.truth(self.leader), self.honest, 0.0
        until = self.tried + self.tries
        for whole in self.game.first(self.leader, self.honest):
            found = self._hear(whole, None, now)
            if found is not None and score(found) > best:
                report, now, best = whole, found, score(found)
        for turn in range(ROUNDS):
            before = best
            for x in range(len(report)):
                rows, complete = self.game.options(x, self.leader, report[x], turn > 0)
                self.complete &= complete
                kept = report
                for row in rows:
                    if not self.complete and self.tried >= until:
                        return best, report, now
                    told = [*kept[:x], row, *kept[x + 1 :]]
                    found = self._hear(told, x, now)
                    if found is not None and score(found) > best + 1e-9:
                        report, now, best = told, found, score(found)
            if self.complete or best <= before:
                break
        return best, report, now

    def _hear(self, report: list[np.ndarray], x: int | None, now: list[np.ndarray]) -> list[np.ndarray] | None:
        """Return the lotteries when the group says this; None where the rule refuses it."""
        self.tried += 1
        try:
            if x is None or isinstance(self.game, _Welfare):
                return self.game.lotteries(self.group, report)
            return [*now[:x], self.game.one(x, self.group, report[x]), *now[x + 1 :]]
        except (InputError, SolveError):
            self.complete = False
            return None
