"""How many annotators and judgements a statement of the report needs, found out by simulated communities."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Bool, Float
from rich.console import Console, Group
from rich.progress import Progress
from rich.table import Table
from rich.text import Text
from scipy.stats import binomtest

from pluralign import choice
from pluralign.choice.scale import rescale
from pluralign.config import Experiment
from pluralign.errors import InputError
from pluralign.feedback import Community
from pluralign.reward.inference import NUTS, AbstractInference
from pluralign.reward.together import fit_together
from pluralign.types import Features, Feedback, RewardPosterior, Utilities

ENOUGH = 0.8
"""Power that is usually asked for."""
EQUAL = 1e-9
"""Gains that differ by no more than rounding are the same."""
QUICK = NUTS(draws=150, warmup=150, max_tree_depth=7)


@dataclass(frozen=True)
class Claim:
    """One group gains more under one rule than a group, the same or another, gains under a rule, the same or another.

        gain[draw, g, r] = mean over the voters v of group g of u[draw, v](lottery of r) - u[draw, v](reference)
        probability      = share of posterior draws with gain[draw, more] > gain[draw, less]

    It is stated if the probability exceeds `1 - alpha`. Like the report it speaks of the annotators who judged, not of
    others like them: as judgements grow, it finds differences between the very annotators of equal groups.

    Args:
        more: group and rule.
        less: group and rule.
    """

    more: tuple[str, str]
    less: tuple[str, str]

    def __post_init__(self):
        if tuple(self.more) == tuple(self.less):
            raise InputError(f"the claim compares {':'.join(self.more)} with itself; name another group or rule.")

    @classmethod
    def parse(cls, more: str, less: str) -> "Claim":
        """Read two words such as `guardians:maximin`.

        Raises:
            InputError: a word is not a group and a rule with a colon between.
        """
        for word in (more, less):
            if not all(word.rpartition(":")):
                raise InputError(f"{word!r} names no group and rule; write group:rule, such as guardians:maximin.")
        return cls(tuple(more.rpartition(":")[::2]), tuple(less.rpartition(":")[::2]))  # pyright: ignore

    def __str__(self) -> str:
        return f"{self.more[0]} under {self.more[1]} gain more than {self.less[0]} under {self.less[1]}"

    def margin(
        self,
        gain: dict[str, Float[np.ndarray, "draw voter"]],
        mass: Float[np.ndarray, " voter"],
        member: dict[str, Bool[np.ndarray, " voter"]],
    ) -> Float[np.ndarray, " draw"]:
        """Return by how much more is gained than less; `gain` is per rule, `member` per group."""
        more, less = (
            gain[rule] @ (mass * member[group]) / mass[member[group]].sum() for group, rule in (self.more, self.less)
        )
        return more - less


@dataclass(frozen=True)
class Point:
    """What was found at one point of the grid.

    Attributes:
        annotators: in the whole community.
        judgements: by each of them.
        repeats: how many communities were simulated.
        true: in how many of them the claim was true: by what its annotators really want, of the very lotteries that
            the rules chose.
        stated: in how many of those it was stated.
        wrong: in how many of the others it was stated.
    """

    annotators: int
    judgements: int
    repeats: int
    true: int
    stated: int
    wrong: int

    @property
    def power(self) -> float | None:
        """Share of the communities of which the claim is true in which it was stated; None if there is none."""
        return self.stated / self.true if self.true else None

    @property
    def interval(self) -> tuple[float, float]:
        """95 % interval of the power (Wilson 1927); all of 0 to 1 if the claim was never true."""
        ends = binomtest(self.stated, self.true).proportion_ci(method="wilson") if self.true else None
        return (float(ends.low), float(ends.high)) if ends else (0.0, 1.0)


@dataclass(frozen=True)
class Power:
    """What a power analysis found.

    Attributes:
        claim: in words.
        alpha: the claim is stated if its posterior probability exceeds 1 - alpha.
        points: the grid.
        caveats: of the fits, with the point they belong to; of all communities of a point together, so that they tell
            of the coordinate among thousands that mixes worst.
    """

    claim: str
    alpha: float
    points: tuple[Point, ...]
    caveats: tuple[str, ...] = ()

    @property
    def enough(self) -> Point | None:
        """The point with fewest judgements in all, then fewest annotators, whose power is at least 0.8; or none."""
        reached = [p for p in self.points if p.power is not None and p.power >= ENOUGH]
        return min(reached, key=lambda p: (p.annotators * p.judgements, p.annotators), default=None)

    def __rich__(self) -> Group:
        table = Table(box=None)
        for name in ("annotators", "judgements each", "in all", "true", "power", "95 % interval", "stated if false"):
            table.add_column(name, justify="right")
        best = self.enough
        for p in self.points:
            power = "n/a" if p.power is None else f"{p.power:.2f}"
            ends = "{:.2f} to {:.2f}".format(*p.interval) if p.true else ""
            wrong = f"{p.wrong} of {p.repeats - p.true}" if p.true < p.repeats else ""
            true = f"{p.true} of {p.repeats}"
            cells = (p.annotators, p.judgements, p.annotators * p.judgements, true, power, ends, wrong)
            table.add_row(*map(str, cells), style="bold" if p == best else None)
        found = f"{best.annotators} annotators with {best.judgements} each" if best else "none of these; try more"
        notes = [
            f"Fewest judgements with power {ENOUGH}: {found}.",
            f"It is said if its posterior probability exceeds {1 - self.alpha:g}; power is how often it is said "
            "where it is true.",
        ]
        if any(2 * p.true < p.repeats for p in self.points):
            notes.append("At some points it is false of most communities: more judgements will not make it true.")
        if self.caveats:
            notes.append(f"† {len(self.caveats)} caveats of the fits; the first: {self.caveats[0]}")
        return Group(Text(f"How often it is said that {self.claim}", style="bold"), table, *map(Text, notes))


def analyse(
    experiment: Experiment,
    claim: Claim,
    *,
    annotators: Sequence[int] = (12, 24, 48),
    judgements: Sequence[int] = (10, 20, 40),
    repeats: int = 20,
    alpha: float = 0.05,
    inference: AbstractInference = QUICK,
    seed: int = 0,
    console: Console | None = None,
) -> Power:
    """Simulate, fit and decide at every point of a grid of annotators and judgements.

    At each point `repeats` communities are simulated with groups in the proportions of the experiment's; posterior,
    scale, rules, risk and beta are those of the experiment, on all judgements and all prompts. Nothing is trained.

    Args:
        experiment: whose feedback is a simulated community; its `inference` is not used.
        claim: what is to be stated.
        annotators: sizes of the whole community.
        judgements: by each annotator.
        repeats: communities per point; if the claim is true of 20, a power of 0.8 is known to about 0.2.
        alpha: the claim is stated if its posterior probability exceeds 1 - alpha, above 0 and below 1.
        inference: all communities of a point are fitted together, see `fit_together`.
        seed: of communities and fits.
        console: where the progress bar is shown.

    Raises:
        InputError: the experiment simulates no community, its voters are no annotators, the claim names a group or a
            rule that it does not have, or a number is out of range.
        FitError: a fit failed.
    """
    e, source = experiment, experiment.feedback
    if not isinstance(source, Community):
        raise InputError(f"a power analysis simulates; feedback has the kind {source.kind!r}, use `kind: community`.")
    if several := {name for group in source.groups for name in group.objectives}:
        names = ", ".join(sorted(several))
        raise InputError(f"the community has the objectives {names}; a power analysis takes one, so leave them out.")
    rules = {rule.name: rule for rule in e.rules}
    for group, rule in (claim.more, claim.less):
        _known("group", group, [g.name for g in source.groups])
        _known("rule", rule, list(rules))
    if repeats < 1 or not 0 < alpha < 1:
        raise InputError(f"repeats is {repeats} and alpha {alpha}; allowed: at least 1, and above 0 and below 1.")
    grid = [(a, j) for a in sorted(set(annotators)) for j in sorted(set(judgements))]
    if not grid:
        raise InputError("there is nothing to try; name at least one number of annotators and one of judgements.")
    points, caveats = [], []
    # Refreshed by hand: the bar of a fit stands below while it runs.
    with Progress(console=console or Console(stderr=True), auto_refresh=False, transient=True) as progress:
        task = progress.add_task("power", total=len(grid))
        for a, j in grid:
            seeds = np.random.SeedSequence([seed, a, j]).generate_state(repeats)
            plan = replace(source, groups=_resized(source, a), judgements=j)
            votes = [e.weighed(replace(plan, seed=int(s)).load()) for s in seeds]
            phi = [e.features.encode(v) for v in votes]
            posteriors = fit_together(e.reward, votes, phi, inference=inference, seed=seed)
            each = [_found(e, source, claim, *parts) for parts in zip(votes, phi, posteriors, strict=True)]
            stated, true = np.array([p > 1 - alpha for p, _ in each]), np.array([true for _, true in each])
            counts = [int(which.sum()) for which in (true, stated & true, stated & ~true)]
            points.append(Point(a, j, repeats, *counts))
            caveats += [f"{a} annotators, {j} judgements each: {caveat}" for caveat in posteriors[0].fit.caveats]
            progress.advance(task)
            progress.refresh()
    return Power(str(claim), alpha, tuple(points), tuple(caveats))


def _found(
    e: Experiment, source: Community, claim: Claim, votes: Feedback, phi: Features, posterior: RewardPosterior
) -> tuple[float, bool]:
    """Return the posterior probability of the claim, and whether it is true."""
    if posterior.membership is not None:
        raise InputError(f"reward has the kind {e.reward.kind!r}, whose voters are no annotators and have no groups.")
    utilities = choice.utilities(posterior, phi, scale=e.scale, draws=e.draws)
    item = np.maximum(np.asarray(utilities.item), 0)
    wants = np.where(utilities.reference > 0, source.utility(votes)[:, item], 0.0)
    truth = rescale(Utilities(wants[None], utilities.mass, utilities.reference, utilities.item), e.scale)
    lotteries = {
        rule.name: rule.choose(utilities, risk=e.risk, beta=e.beta).lottery
        for rule in e.rules
        if rule.name in (claim.more[1], claim.less[1])
    }
    groups = np.array(votes.attribute("group"))
    member = {str(g): groups == g for g in np.unique(groups)}

    def margin(u: Utilities) -> Float[np.ndarray, " draw"]:
        before = u.expected(u.reference)
        return claim.margin({r: u.expected(p) - before for r, p in lotteries.items()}, u.mass, member)

    return float((margin(utilities) > 0).mean()), bool(margin(truth)[0] > EQUAL)


def _resized(source: Community, total: int) -> tuple:
    """Return the groups with `total` annotators, in the same proportions (largest remainders), at least one each."""
    size = np.array([g.size for g in source.groups])
    if total < len(size):
        raise InputError(f"annotators is {total}, but there are {len(size)} groups, each of at least one.")
    share = total * size / size.sum()
    whole = np.floor(share).astype(int)
    whole[np.argsort(whole - share, kind="stable")[: total - whole.sum()]] += 1
    while (whole == 0).any():
        whole[whole.argmax()] -= 1
        whole[whole.argmin()] += 1
    return tuple(replace(g, size=int(n)) for g, n in zip(source.groups, whole, strict=True))


def _known(what: str, name: str, known: list[str]) -> None:
    if name not in known:
        raise InputError(f"the claim names the {what} {name!r}; allowed: {', '.join(known)}.")
