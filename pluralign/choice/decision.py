"""What rules decide in every posterior draw alone: how sure a decision is, beside how much hangs on the rule."""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, singledispatch
from itertools import chain

import cvxpy as cp
import numpy as np
from jaxtyping import Bool, Float, Int

from pluralign.choice.ballots import SAME, TIE, Profile, electorates
from pluralign.choice.leximin import Leximin
from pluralign.choice.linear import DENSE, AbstractLinear, Electorate
from pluralign.choice.lottery import AbstractLottery, MaximalLottery
from pluralign.choice.rule import AbstractRule, AbstractWelfare
from pluralign.choice.scale import chunks, rescale
from pluralign.choice.voting import AbstractMargins, AbstractVoting
from pluralign.errors import InputError, PluralignError
from pluralign.types import Decision, Decisions, Linear, Utilities

Shares = Float[np.ndarray, "draw prompt candidate"]
CHUNK = 500_000  # utilities in hand at once
NOTHING = 1e-300  # a utility that is as good as none, in units of the largest
DRAWS = 25  # in hand at once, at most: patience is asked in between


def decide(rule: AbstractRule, utilities: Utilities, enough: float = 0.5) -> Decision:
    """Return what a rule decides on each prompt in every posterior draw alone, without a price for divergence.

    A rule that names winners decides for the winners of that draw's ballots, ties sharing the win, and a lottery for
    that draw's chances. A linear rule makes one weight vector of that draw's ballots on all prompts together, and
    decides for whom that puts first. A rule that maximises welfare decides for the candidate that has most welfare as
    the sole answer to that prompt, `argmax_y W(U[draw, :, prompt, y])`; the rule's own lottery, which may please
    everyone in turn, is what `choose` is for. `Leximin` goes on to the next voter where that ties. A rule with a scale
    of its own measures each prompt on it. A rule that is defined for positive utilities only, and has no scale of its
    own, measures each prompt from the voter's worst candidate there, and decides by the limit of `W(u + e)` as e goes
    to 0: where that has no bound, candidates that leave least mass at that worst come first, and among those the
    welfare of voters who are above it decides (for Nash's welfare: Caragiannis et al. 2019, The unreasonable fairness
    of maximum Nash welfare). With many voters everything is somebody's worst, so that Nash's welfare then works like a
    veto. On a scale of the rule's own, least mass below its zero goes before that.

    Args:
        rule: what decides.
        utilities: of every voter for every candidate, in posterior draws.
        enough: the data decide on a prompt if some candidate wins with at least this probability; in (0, 1].

    Raises:
        InputError: it is not known what this rule decides in one draw, or its welfare is not defined there.
        SolveError: the rule found no decision in some draw.
    """
    plug_in, *draws = (shares(rule, world) for world in _worlds(utilities))
    return Decision(rule.name, np.concatenate(draws), plug_in[0], enough)


def decisions(
    rules: Sequence[AbstractRule], utilities: Utilities, enough: float = 0.5, patience: float = np.inf
) -> Decisions:
    """Return what several rules decide, and why others do not; ballots are counted once for all. See `decide`.

    Args:
        rules: of different names.
        utilities: of every voter for every candidate, in posterior draws.
        enough: the data decide on a prompt if some candidate wins with at least this probability; in (0, 1].
        patience: seconds after which a rule that has not come to its last draw is given up, with this as the reason.

    Raises:
        InputError: two rules have the same name.
    """
    names = [rule.name for rule in rules]
    if len(set(names)) < len(names):
        raise InputError(f"rules are {names}; name each once.")
    found: dict[str, list[Shares]] = {name: [] for name in names}
    reasons: dict[str, str] = {}
    spent = dict.fromkeys(names, 0.0)
    for world in _worlds(utilities):
        for rule in (rule for rule in rules if rule.name not in reasons):
            if spent[rule.name] > patience:
                reasons[rule.name] = f"{rule.name} takes more than {patience:g} s to decide in every draw."
                continue
            clock = time.perf_counter()
            try:
                found[rule.name].append(shares(rule, world))
            except PluralignError as error:
                reasons[rule.name] = str(error)
            spent[rule.name] += time.perf_counter() - clock
    decided = {name: parts for name, parts in found.items() if name not in reasons}
    return Decisions(
        tuple(Decision(name, np.concatenate(draws), plug[0], enough) for name, (plug, *draws) in decided.items()),
        reasons,
    )


@dataclass(frozen=True, eq=False)
class Disagreement:
    """How often decisions differ because of the rule, and because of ignorance; means over prompts.

    Attributes:
        names: of the rules.
        rules: probability that two rules decide differently in the same draw.
        stderr: its Monte Carlo standard error; NaN if there is only one draw.
        draws: probability that two draws decide differently under the same rule; NaN if there is only one.
    """

    names: tuple[str, ...]
    rules: Float[np.ndarray, "rule rule"]
    stderr: Float[np.ndarray, "rule rule"]
    draws: Float[np.ndarray, " rule"]


def disagreement(decided: Sequence[Decision]) -> Disagreement:
    """Return how often these decisions, on the same prompts and draws, differ between rules and between draws.

    Raises:
        InputError: there are none, or they are not on the same draws, prompts and candidates.
    """
    if not decided:
        raise InputError("disagreement needs at least one decision.")
    each = np.array([[one.apart(other).mean(1) for other in decided] for one in decided])
    n = each.shape[-1]
    stderr = each.std(-1, ddof=1) / np.sqrt(n) if n > 1 else np.full(each.shape[:2], np.nan)
    return Disagreement(
        tuple(d.name for d in decided), each.mean(-1), stderr, np.array([d.ignorance.mean() for d in decided])
    )


@dataclass(frozen=True, eq=False)
class World:
    """A few draws, each of which is taken for the truth.

    Attributes:
        values: utilities of the voters who count.
        mass: how much each voter counts.
        reference: 0 = not a candidate of this prompt.
        phi: features of candidates, if utilities are linear in them.
    """

    values: Float[np.ndarray, "draw voter prompt candidate"]
    mass: Float[np.ndarray, " voter"]
    reference: Float[np.ndarray, "prompt candidate"]
    phi: Float[np.ndarray, "prompt candidate feature"] | None = None

    @cached_property
    def profiles(self) -> list[tuple[Int[np.ndarray, " candidate"], Profile]]:
        """Candidates and ballots of each draw and prompt, prompts running fastest."""
        draws, voters, prompts, candidates = self.values.shape
        apart = np.moveaxis(self.values, 0, 1).reshape(1, voters, draws * prompts, candidates)
        return list(electorates(Utilities(apart, self.mass, np.tile(self.reference, (draws, 1)))))

    @cached_property
    def margins(self) -> list[Float[np.ndarray, "candidate candidate"]]:
        """Margins of each draw and prompt."""
        return [profile.margins() for _, profile in self.profiles]

    def spread(self, decided: Iterator[np.ndarray]) -> Shares:
        """Return shares from what is decided for each electorate's own candidates, in their order."""
        draws, _, *rest = self.values.shape
        whole = np.zeros((draws * rest[0], rest[1]))
        for x, ((on, _), share) in enumerate(zip(self.profiles, decided, strict=True)):
            whole[x, on] = share
        return (whole / whole.sum(-1, keepdims=True)).reshape(draws, *rest)


@singledispatch
def shares(rule: AbstractRule, world: World) -> Shares:
    """Return who wins in each draw; another kind of rule may be registered here.

    Raises:
        InputError: it is not known what this kind of rule decides.
    """
    raise InputError(
        f"what {rule.name} decides in one draw alone is not known: it neither counts ballots nor maximises a "
        "welfare (`choice.decision.shares.register` takes a function that says it)."
    )


@shares.register(AbstractVoting)
def _voting(rule: AbstractVoting, world: World) -> Shares:
    return world.spread(rule.decide(rule.count(profile)[None])[0] for _, profile in world.profiles)


@shares.register(AbstractMargins)
@shares.register(MaximalLottery)
def _margins(rule: AbstractMargins | MaximalLottery, world: World) -> Shares:
    decided: list[np.ndarray] = [np.zeros(0)] * len(world.margins)
    sizes = np.array([len(m) for m in world.margins])
    for size in np.unique(sizes):
        rows = np.flatnonzero(sizes == size)
        for x, share in zip(rows, rule.from_margins(np.stack([world.margins[x] for x in rows])), strict=True):
            decided[x] = share
    return world.spread(iter(decided))


@shares.register(AbstractLottery)
def _lottery(rule: AbstractLottery, world: World) -> Shares:
    return world.spread(rule.chances(profile) for _, profile in world.profiles)


@shares.register(AbstractLinear)
def _linear(rule: AbstractLinear, world: World) -> Shares:
    """Return who is first by the weights that each draw's ballots on all prompts make together."""
    if world.phi is None:
        raise InputError(DENSE)
    decided: list[np.ndarray] = []
    prompts = len(world.phi)
    for start in range(0, len(world.profiles), prompts):
        told = world.profiles[start : start + prompts]
        decided += rule.first([Electorate.of(world.phi[x, on], p, x, on) for x, (on, p) in enumerate(told)])
    return world.spread(iter(decided))


@shares.register(AbstractWelfare)
def _welfare(rule: AbstractWelfare, world: World) -> Shares:
    if rule.positive and rule.scale is None:
        lowest = np.where(world.reference > 0, world.values, np.inf).min(-1, keepdims=True)
        size = np.abs(np.where(world.reference > 0, world.values, 0)).max(-1, keepdims=True)
        return best_alone(rule, replace(world, values=world.values - lowest), size)
    return best_alone(rule, world)


def best_alone(
    rule: AbstractWelfare,
    world: World,
    size: Float[np.ndarray, "draw voter prompt 1"] | float = 0.0,
    strict: bool = False,
) -> Shares:
    """Return the candidates that have most welfare as sole answers, on the rule's own scale if it has one.

    Where welfare is defined for positive utilities only, candidates that leave least mass below 0 come first, and among
    those the limit of `W(max(u, 0) + e)` as e goes to 0 decides: unless that is finite for whoever has nothing, least
    mass with nothing, and then the welfare of the others.

    Args:
        rule: the welfare.
        world: utilities.
        size: of utilities of which these are differences, so that what is left of rounding is known for 0.
        strict: refuse a prompt on which every candidate leaves somebody below 0.

    Raises:
        InputError: the welfare is not defined on a prompt.
    """
    u, on = world.values, world.reference > 0
    if rule.scale is not None:
        alone = [Utilities(u[:, :, [x]], world.mass, world.reference[[x]]) for x in range(len(on))]
        u = np.concatenate([rescale(one, rule.scale).dense() for one in alone], axis=2)
    first = np.broadcast_to(on, (len(u), *on.shape))
    if rule.positive:
        rounding = SAME * np.maximum(size, np.abs(np.where(on, u, 0)).max(-1, keepdims=True))
        something, finite = u > rounding, (rule.degree or 0) > 0
        below = np.einsum("svxy,v->sxy", u < -rounding, world.mass)
        if strict and (np.where(on, below, np.inf).min(-1) > TIE).any():
            raise InputError(f"{rule.name} is not defined here: every sole answer leaves somebody below its zero.")
        first = _least(below, first)
        if not finite:
            first = _least(np.einsum("svxy,v->sxy", ~something, world.mass), first)
        # One number for everyone who has nothing: it adds the same wherever as much mass has nothing.
        most = np.where(on, u, 0).max((1, 3), keepdims=True)
        u = np.where(something, u, np.where(most > 0, most, 1) * (NOTHING if finite else 1))
    rows = np.moveaxis(u, 1, -1)
    value = _evaluated(rule, rows[:, on].reshape(-1, u.shape[1]), world.mass)
    welfare = np.full(first.shape, -np.inf)
    welfare[:, on] = value.reshape(len(u), -1)
    welfare[~first] = -np.inf
    best = welfare.max(-1, keepdims=True)
    if not np.isfinite(best).all():
        draw, prompt = (int(i) for i in np.argwhere(~np.isfinite(best[..., 0]))[0])
        raise InputError(
            f"{rule.name} gives no candidate of prompt {prompt} a finite welfare in draw {draw}; if it is defined for "
            "positive utilities only, say so with `positive = True`."
        )
    wins = welfare >= best - SAME * np.abs(np.where(np.isfinite(welfare), welfare, 0)).max(-1, keepdims=True)
    return wins / wins.sum(-1, keepdims=True)


@shares.register(Leximin)
def _leximin(rule: Leximin, world: World) -> Shares:
    """Return who leaves the worst off with most, of those who leaves the next with most, and so on."""
    on = world.reference > 0
    size = SAME * np.abs(np.where(on, world.values, 0)).max((1, 3))[..., None]
    wins = np.broadcast_to(on, (len(world.values), *on.shape)).copy()
    for level in np.moveaxis(np.sort(world.values, axis=1), 1, 0):
        wins &= level >= np.where(wins, level, -np.inf).max(-1, keepdims=True) - size
        if (wins.sum(-1) == 1).all():
            break
    return wins / wins.sum(-1, keepdims=True)


def _least(mass: Shares, among: Bool[np.ndarray, "draw prompt candidate"]) -> Bool[np.ndarray, "draw prompt candidate"]:
    """Return those among these candidates who have least of a mass."""
    return among & (mass <= np.where(among, mass, np.inf).min(-1, keepdims=True) + TIE)


def _evaluated(
    rule: AbstractWelfare, u: Float[np.ndarray, "row voter"], mass: Float[np.ndarray, " voter"]
) -> Float[np.ndarray, " row"]:
    """Return welfare of each row, by formula or else as it is stated."""
    with np.errstate(all="ignore"):
        known = rule.marginal(u, mass)
        value = known[0] if known is not None else rule.welfare(cp.Constant(u), mass).value
    if value is None:
        raise InputError(f"the welfare of {rule.name} has variables of its own; give it a `marginal`.")
    return np.asarray(value, np.float64).ravel()


def _worlds(utilities: Utilities) -> Iterator[World]:
    """Yield posterior mean utilities as a world of one draw, and then all draws, a few at a time."""
    counts, value, phi = utilities.mass > 0, utilities.value, None
    if isinstance(value, Linear):
        phi = value.phi
        mean = Linear(value.phi, value.weights.mean(0, keepdims=True), value.offset.mean(0, keepdims=True))
        centre = replace(utilities, value=mean).dense()
    else:
        centre = value.mean(0, keepdims=True)
    step = min(max(1, CHUNK // centre.size), DRAWS)
    for values in chain([centre], (part for _, part in chunks(utilities))):
        for start in range(0, len(values), step):
            part = values[start : start + step, counts]
            yield World(part, utilities.mass[counts], utilities.reference, phi)
