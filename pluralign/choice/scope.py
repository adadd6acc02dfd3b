"""One policy judged over all prompts together, or each prompt judged by itself."""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace

import numpy as np
from jaxtyping import Float
from rich.progress import track

from pluralign.choice.batch import Lotteries, Rows, Values, ascend
from pluralign.choice.risk import AbstractRisk
from pluralign.choice.rule import MEAN, AbstractRule, AbstractWelfare, priced
from pluralign.choice.scale import CHUNK, AbstractScale, rescale
from pluralign.errors import InputError, SolveError
from pluralign.types import Certificate, Choice, Linear, Utilities

GENEROUS = 100.0  # nats that the largest utility is worth, where a lottery is sought that gives everyone something
MANY = 200  # prompts one after the other, from which on progress is shown


def each_prompt(
    rule: AbstractRule,
    utilities: Utilities,
    risk: AbstractRisk = MEAN,
    beta: float = 0.1,
    scale: AbstractScale | None = None,
) -> Choice:
    """Return the lotteries that a rule chooses where each prompt is judged by itself.

        max_{p_x}  rho_draw( W(u_x[draw, :]) ) - beta KL(p_x || ref_x),   u_x[draw, voter] = sum_y p U,   for every x

    `rule.choose` judges one policy over all prompts: a voter who loses on one may gain on another, and Nash or maximin
    weigh what each has in all. Here nobody's loss on one prompt is made good by another, so each prompt is as fair as
    the rule is, and the average of all may be worse for everyone. For voting rules and lotteries, which look at one
    prompt at a time, and for the utilitarian mean, both are the same. There is no one weight of each voter, so the
    choice has no multipliers and no reward for responses that are not candidates. Welfare rules are solved for
    thousands of prompts side by side (`batch`); prompts that do not meet their bounds there, and all other rules, are
    solved one after the other by `rule.choose`.

    Args:
        rule: the rule.
        utilities: of every voter for every candidate, in posterior draws.
        risk: how draws are combined.
        beta: price of a nat of divergence from the reference, in units of welfare.
        scale: measured on each prompt by itself; None leaves utilities on the scale that they have, whose zero is a
            mean over prompts (then Nash may lack positive utilities on one).

    Returns:
        The choice; its certificate has means over prompts of value, bound and distance, and the sum of cuts.

    Raises:
        InputError: as `rule.choose`, naming the prompt.
        SolveError: likewise.
    """
    clock, prompts = time.perf_counter(), range(len(utilities.reference))
    lottery, certificates = np.zeros(utilities.reference.shape), dict[int, Certificate]()
    if isinstance(rule, AbstractWelfare):
        priced(beta)
        own = [s for s in (scale, rule.scale) if s is not None]
        draws, voters, _, candidates = utilities.shape
        step = max(1, CHUNK // (draws * voters * candidates))
        for some in (prompts[start : start + step] for start in prompts[::step]):
            value = np.stack([_measured(utilities, x, own) for x in some])
            for x, row, certificate in _side_by_side(rule, value, utilities, some, risk, beta):
                lottery[x], certificates[x] = row, certificate
    left = [x for x in prompts if x not in certificates]
    for x in track(left, "prompts", disable=len(left) < MANY):
        with _named(utilities, x):
            alone = _prompt(utilities, x)
            chosen = rule.choose(alone if scale is None else rescale(alone, scale), risk, beta)
        lottery[x, utilities.reference[x] > 0], certificates[x] = chosen.lottery[0], chosen.certificate
    mean = {
        name: float(np.mean([getattr(c, name) for c in certificates.values()]))
        for name in ("value", "upper_bound", "gap", "tv_bound")
    }
    cuts = sum(c.cuts for c in certificates.values())
    total = Certificate(**mean, cuts=cuts, seconds=time.perf_counter() - clock)
    return Choice(rule.name, lottery, None, None, beta, risk.words, total, utilities)


def _side_by_side(
    rule: AbstractWelfare,
    value: Float[np.ndarray, "prompt draw voter candidate"],
    utilities: Utilities,
    prompts: range,
    risk: AbstractRisk,
    beta: float,
) -> Iterator[tuple[int, Float[np.ndarray, " candidate"], Certificate]]:
    """Yield what is solved of these prompts' programs, all in the same array operations.

    Rule and risk need formulas for that, a lottery in the rule's domain must be found, and bounds have to meet.
    """
    clock, (count, draws, voters, candidates) = time.perf_counter(), value.shape
    mass = utilities.mass[utilities.mass > 0]
    table, reference = value.reshape(count, -1, candidates), utilities.reference[prompts.start : prompts.stop]
    if rule.marginal(np.ones((1, voters)), mass) is None or risk.marginal(np.zeros(draws)) is None:
        return

    def look(rows: Rows, point: Lotteries) -> tuple[Values, Lotteries]:
        here = table[rows]
        with np.errstate(all="ignore"):
            welfare, slope = rule.marginal((here @ point[..., None]).reshape(-1, voters), mass)  # pyright: ignore[reportGeneralTypeIssues]
            worth, share = zip(*map(risk.marginal, welfare.reshape(-1, draws)), strict=True)  # pyright: ignore[reportArgumentType]
            tilt = (np.ravel(share)[:, None] * slope).reshape(len(rows), 1, -1) @ here
            return np.array(worth) / beta, tilt[:, 0] / beta

    ends = ascend(look, _inside(table, reference) if rule.positive else reference, reference)
    seconds = (time.perf_counter() - clock) / count
    apart = np.sqrt(np.maximum(ends.upper - ends.lower, 0) / 2)
    for i in np.flatnonzero(ends.solved):
        reached, bound = float(beta * ends.value[i]), float(beta * ends.upper[i])
        certificate = Certificate(reached, bound, bound - reached, float(apart[i]), int(ends.cuts[i]), seconds)
        yield prompts[i], ends.lottery[i], certificate


def _inside(table: Float[np.ndarray, "prompt utility candidate"], reference: Lotteries) -> Lotteries:
    """Return the reference where it gives everyone something in every draw; elsewhere, what gives the least most."""
    start, unit = reference.copy(), np.abs(table).max((1, 2), initial=1e-300)
    outside = np.flatnonzero((table @ reference[..., None]).min((1, 2)) <= 0)

    def least(rows: Rows, point: Lotteries) -> tuple[Values, Lotteries]:
        here = table[outside[rows]]
        u = (here @ point[..., None])[..., 0]
        worst, price = u.argmin(1), unit[outside[rows], None] / GENEROUS
        at = np.arange(len(rows))
        return u[at, worst] / price[:, 0], here[at, worst] / price

    if len(outside):
        start[outside] = ascend(least, reference[outside], reference[outside]).lottery
    return start


def _measured(
    utilities: Utilities, x: int, scales: Sequence[AbstractScale]
) -> Float[np.ndarray, "draw voter candidate"]:
    """Return one prompt's utilities of voters with mass on these scales; what is no candidate is worth 0."""
    with _named(utilities, x):
        alone = _prompt(utilities, x)
        for scale in scales:
            alone = rescale(alone, scale)
    value = np.zeros((*utilities.shape[:2], utilities.shape[3]))
    value[..., utilities.reference[x] > 0] = alone.dense()[:, :, 0]
    return value[:, utilities.mass > 0]


@contextmanager
def _named(utilities: Utilities, x: int) -> Iterator[None]:
    """Say of which prompt an error is."""
    try:
        yield
    except (InputError, SolveError) as error:
        name = (utilities.prompts or range(len(utilities.reference)))[x]
        raise type(error)(f"prompt {name}, judged by itself: {error}") from error


def _prompt(utilities: Utilities, x: int) -> Utilities:
    """Return one prompt's candidates alone."""
    value, on = utilities.value, np.flatnonzero(utilities.reference[x] > 0)
    if isinstance(value, Linear):
        value = Linear(value.phi[x : x + 1, on], value.weights, value.offset)
    else:
        value = value[:, :, x : x + 1, on]
    reference, item = utilities.reference[x : x + 1, on], utilities.item
    return replace(
        utilities,
        value=value,
        reference=reference / reference.sum(),
        item=None if item is None else item[x : x + 1, on],
        prompts=(utilities.prompts or range(x + 1))[x : x + 1],
    )
