"""What people say, given what they want: the probability of every form of judgement, as pure functions.

All return the natural logarithm of a probability, batch over leading axes by broadcasting, and go through `jax.jit`,
`jax.vmap` and `jax.grad`. Utilities are in logits unless said otherwise. An outcome that the model excludes, such as a
tie where there are none, has the log probability -inf, and gradients are finite even there. None of them knows of
raters who slip; `lapsed` mixes that in.
"""

from collections.abc import Callable, Sequence
from functools import cache, reduce
from itertools import combinations
from math import comb, log
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.special import log_ndtr, logsumexp
from jax.scipy.stats import norm

from pluralign.reward.judgements import FIRST, TIE

FAR = 1e30  # stands for infinity, so that gradients never meet `inf - inf`; finite in float32, even ten times over


def _log1mexp(x: Any) -> Any:
    """Return `log(1 - exp(-x))`; -inf, with a gradient of 0, unless `x` is positive."""
    positive = x > 0
    return jnp.where(positive, jax.nn.log1mexp(jnp.where(positive, x, 1)), -jnp.inf)


def lapsed(log_p: Any, lapse_logit: Any, log_outcomes: Any) -> Any:
    """Return the log probability of an outcome from a rater who sometimes picks any outcome at random.

        log[(1 - lapse) p + lapse / outcomes]

    Args:
        log_p: log probability of the outcome from a rater who never slips.
        lapse_logit: log odds of an answer at random.
        log_outcomes: log of the number of possible outcomes; of a ranking, see `log_rankings`.
    """
    # log(1 - lapse) = log(lapse) - lapse_logit: exact in both tails, and one softplus in place of two.
    return jax.nn.log_sigmoid(lapse_logit) + jnp.logaddexp(log_p - lapse_logit, -log_outcomes)


def davidson(outcome: Any, eta: Any, tie: Any = None) -> Any:
    """Return the log probability of a comparison in Davidson's (1970, equation 2.5) model.

        (P(first), P(second), P(tie)) = (exp(eta / 2), exp(-eta / 2), exp(tie)) / sum

    Args:
        outcome: 0 = the first wins, 1 = the second, 2 = tie.
        eta: utility of the first less that of the second.
        tie: log tie propensity: at `eta = 0` a tie is `exp(tie)` times as probable as either win. None: no ties,
            the model of Bradley and Terry (1952).
    """
    own, total = jnp.where(outcome == FIRST, eta, -eta) / 2, jnp.logaddexp(eta / 2, -eta / 2)
    if tie is None:
        return jnp.where(outcome == TIE, -jnp.inf, own - total)
    return jnp.where(outcome == TIE, tie, own) - jnp.logaddexp(total, tie)


def rao_kupper(outcome: Any, eta: Any, threshold: Any) -> Any:
    """Return the log probability of a comparison in the model of Rao and Kupper (1967, equation 2.2).

        P(first) = sigmoid(eta - threshold),  P(second) = sigmoid(-eta - threshold),  P(tie) = the rest

    Args:
        outcome: 0 = the first wins, 1 = the second, 2 = tie.
        eta: utility of the first less that of the second.
        threshold: advantages below it go unnoticed, not negative; log theta in the paper. 0: no ties.
    """
    level = jnp.where(outcome == TIE, 0, jnp.where(outcome == FIRST, 1, -1))
    return graded_comparison(level, eta, jnp.asarray(threshold)[..., None])


def thurstone(outcome: Any, eta: Any, threshold: Any = None) -> Any:
    """Return the log probability of a comparison in Thurstone's (1927) model, with ties as in Glenn and David (1960).

        P(first) = Phi(eta - threshold),  P(second) = Phi(-eta - threshold),  P(tie) = the rest

    Phi is the normal distribution function itself: the usual `sigmoid(sqrt(8 / pi) z)` in its place errs by up to
    0.0177, and in the tails by any factor.

    Args:
        outcome: 0 = the first wins, 1 = the second, 2 = tie.
        eta: utility of the first less that of the second, in standard deviations of the perceived difference.
        threshold: perceived differences below it are a tie, not negative, same unit. None: no ties.
    """
    own = jnp.where(outcome == FIRST, eta, -eta)
    if threshold is None:
        return jnp.where(outcome == TIE, -jnp.inf, log_ndtr(own))
    # Ties lie between these two; mirrored into the left tail, where the logarithms keep their digits.
    lower, upper = -threshold - jnp.abs(eta), threshold - jnp.abs(eta)
    # log Phi is concave, so its rise is at least width times slope on the right: the better number when width is tiny.
    below_upper = log_ndtr(upper)
    slope = jnp.exp(norm.logpdf(upper) - below_upper)
    rise = jnp.maximum(below_upper - log_ndtr(lower), 2 * threshold * slope)
    return jnp.where(outcome == TIE, below_upper + _log1mexp(rise), log_ndtr(own - threshold))


def graded_comparison(level: Any, eta: Any, steps: Any) -> Any:
    """Return the log probability of a comparison with a strength, such as "slightly better", "much better".

        P(level >= l) = sigmoid(eta - t[l]),  P(level <= -l) = sigmoid(-eta - t[l]),  t[l] = steps[1] + ... + steps[l]

    An ordered logit that treats both sides alike (Agresti 1992, section 2; one step: Rao and Kupper 1967).

    Args:
        level: from -S (second much better) over 0 (tie) to S (first much better).
        eta: utility of the first less that of the second.
        steps: `[..., S]`, logits from each threshold to the next, positive; a first step of 0 leaves no room for ties.
    """
    thresholds = jnp.cumsum(jnp.asarray(steps), -1)
    cutpoints = jnp.concatenate([-jnp.flip(thresholds, -1), thresholds], -1)
    return ordered_logit(level + thresholds.shape[-1], eta, cutpoints)


def ordered_logit(level: Any, utility: Any, cutpoints: Any) -> Any:
    """Return the log probability of a grade: McCullagh's (1980, section 2) proportional odds.

        P(level <= l) = sigmoid(cutpoints[l] - utility)

    Args:
        level: 0 = lowest, up to the number of cutpoints.
        utility: of what was graded.
        cutpoints: `[..., cut]` increasing. A grader's own leniency and spread are in the numbers that are passed.
    """
    cutpoints = jnp.asarray(cutpoints)
    far = jnp.full((*cutpoints.shape[:-1], 1), FAR, cutpoints.dtype)
    here = jnp.asarray(level)[..., None] == jnp.arange(cutpoints.shape[-1] + 1)
    lower = jnp.where(here, jnp.concatenate([-far, cutpoints], -1), 0).sum(-1)  # a gather has a slow gradient
    upper = jnp.where(here, jnp.concatenate([cutpoints, far], -1), 0).sum(-1)
    # sigmoid(b) - sigmoid(a) = sigmoid(b) sigmoid(-a) (1 - exp(a - b)): nothing cancels.
    return jax.nn.log_sigmoid(upper - utility) + jax.nn.log_sigmoid(utility - lower) + _log1mexp(upper - lower)


def three_way(vote: Any, utility: Any, threshold: Any, passing: Any) -> Any:
    """Return the log probability of a vote that may pass: `davidson` against a threshold, a pass being the tie.

    Args:
        vote: 0 = disagree, 1 = pass, 2 = agree.
        utility: of the statement.
        threshold: utility at which agreeing and disagreeing are as probable.
        passing: log propensity to pass.
    """
    return davidson((jnp.asarray(vote) + 1) % 3, utility - threshold, passing)


def davidson_luce(utility: Any, rank: Any, tie: Any = None, counts: Any = None) -> Any:
    """Return the log probability of a ranking, ties and all, in the Davidson-Luce model.

        P(blocks C_1 > C_2 > ...) = prod_j f(C_j) / sum_{S in A_j, |S| <= size} f(S),  A_j = C_j + what comes after it
        f(S) = exp(tie[|S|] + mean_{slot in S} utility[slot]),  tie[1] = 0

    Turner, van Etten, Firth and Kosmidis (2020, equation 2). Without ties it is the model of Plackett (1975) and Luce
    (1959); with two slots, `davidson`. The sum over subsets is the elementary symmetric polynomial of
    `exp(utility / |S|)`, grown slot by slot from the last to the first.

    Args:
        utility: `[..., slot]`.
        rank: `[..., slot]`, 0 = best, equal = tied, -1 = below all ranked, in an order that is not known. So 0 for
            one slot and -1 for the others is a choice of the best.
        tie: `[..., size]`, log prevalence of ties of 2, 3, ... slots; larger ones are impossible. None: no ties.
        counts: `[..., slot]`, False = empty slot. None: all count.
    """
    utility, rank, counts = jnp.broadcast_arrays(utility, rank, True if counts is None else counts)
    utility = jnp.where(counts, utility, 0)
    chosen = counts & (rank >= 0)
    last = np.iinfo(np.int32).max
    block = jnp.where(chosen, rank, jnp.where(counts, last - 1, last))
    mine, other = block[..., :, None], block[..., None, :]
    size = (mine == other).sum(-1)
    possible = (~chosen | (size <= (1 if tie is None else np.shape(tie)[-1] + 1))).all(-1)
    if tie is None:
        after = (other >= mine) & counts[..., None, :]
        log_p = utility - logsumexp(jnp.where(after, utility[..., None, :], -FAR), -1)
        return jnp.where(possible, jnp.where(chosen, log_p, 0).sum(-1), -jnp.inf)
    prevalence = _prevalence(tie)
    slot = np.arange(utility.shape[-1])
    place = ((other > mine) | ((other == mine) & (slot < slot[:, None]))).sum(-1)  # 0 = last
    at = place[..., None, :] == slot[:, None]
    sort = lambda value: jnp.where(at, value[..., None, :], 0).sum(-1)  # noqa: E731  # a gather has a slow gradient
    closes = chosen & ~((mine == other) & (slot > slot[:, None])).any(-1)  # the place where a block is complete
    total = _log_subsets(sort(utility), sort(counts) > 0, prevalence)
    own = jnp.where(jnp.arange(prevalence.shape[-1]) + 1 == size[..., None], prevalence[..., None, :], 0).sum(-1)
    log_p = jnp.where(chosen, utility / size, 0) + jnp.where(closes, own, 0) - jnp.where(sort(closes) > 0, total, 0)
    return jnp.where(possible, log_p.sum(-1), -jnp.inf)


def _prevalence(tie: Any) -> Any:
    """Return the log prevalence of blocks of 1, 2, ... slots."""
    tie = jnp.asarray(tie)
    return jnp.concatenate([jnp.zeros((*tie.shape[:-1], 1), tie.dtype), tie], -1)


def _log_subsets(utility: Any, counts: Any, prevalence: Any) -> Any:
    """Return `log sum_{S} f(S)` over subsets S of slots up to each `[..., slot]`, sizes up to that of `prevalence`."""
    sizes = range(1, prevalence.shape[-1] + 1)
    shape = jnp.broadcast_shapes(utility.shape[:-1], prevalence.shape[:-1])
    full = lambda value: jnp.full(shape, value, jnp.result_type(utility, prevalence, float))  # noqa: E731

    def add(state: Any, slot: Any) -> Any:
        utility, counts = slot
        # e_j(x, y) = e_j(x) + y e_{j-1}(x), for each size with a y of its own
        grown = [
            [row[0], *(jnp.logaddexp(row[j], row[j - 1] + utility / k) for j in range(1, k + 1))]
            for k, row in zip(sizes, state, strict=True)
        ]
        state = jax.tree.map(lambda new, old: jnp.where(counts, new, old), grown, state)
        return state, reduce(jnp.logaddexp, [prevalence[..., k - 1] + state[k - 1][k] for k in sizes])

    none = [[full(0), *(full(-FAR) for _ in range(k))] for k in sizes]
    slots = (jnp.moveaxis(utility, -1, 0), jnp.moveaxis(counts, -1, 0))
    return jnp.moveaxis(jax.lax.scan(add, none, slots)[1], 0, -1)


@cache
def _rankings(slots: int, blocks: int, largest: int) -> int:
    sizes = range(1, min(slots, largest) + 1)
    return sum(comb(slots, k) * _rankings(slots - k, blocks - 1, largest) for k in sizes) if slots and blocks else 1


def log_rankings(slots: int, blocks: int | None = None, largest: int = 1) -> float:
    """Return the log of the number of rankings, for raters who rank at random; on the host.

    Args:
        slots: how many things are ranked.
        blocks: how many places are filled; 1 = choice of the best. None: until nothing is left.
        largest: largest tie, 1 = no ties.
    """
    return log(_rankings(slots, slots if blocks is None else blocks, largest))


def draw(key: Any, log_p: Callable[[Any], Any], outcomes: Sequence[int]) -> Any:
    """Return an outcome drawn at random, for each element of a batch.

        draw(key, lambda outcome: davidson(outcome, eta, tie), range(3))

    Args:
        key: of `jax.random`.
        log_p: log probability of one outcome, all elements of the batch.
        outcomes: all there are.
    """
    return jnp.asarray(outcomes)[jax.random.categorical(key, jnp.stack([log_p(k) for k in outcomes], -1))]


def draw_davidson_luce(key: Any, utility: Any, tie: Any = None, counts: Any = None, blocks: Any = None) -> Any:
    """Return the ranks `[..., slot]` of rankings drawn from `davidson_luce`, block after block.

    Every subset is listed, so for slates of some ten slots. Args as there, and:
        key: of `jax.random`.
        blocks: `[...]`, places to fill, the rest has rank -1. None: until nothing is left.
    """
    utility, counts = jnp.broadcast_arrays(utility, True if counts is None else counts)
    slots = utility.shape[-1]
    prevalence = _prevalence(jnp.zeros(0) if tie is None else tie)
    sizes = range(1, min(slots, prevalence.shape[-1]) + 1)
    sets = np.array([np.isin(np.arange(slots), s) for k in sizes for s in combinations(range(slots), k)])
    size = sets.sum(-1)
    weight = jnp.where(sets, utility[..., None, :], 0).sum(-1) / size + prevalence[..., size - 1]
    blocks = jnp.asarray(slots if blocks is None else blocks)
    shape = (*jnp.broadcast_shapes(weight.shape[:-1], blocks.shape), slots)

    def choose(state: Any, step: Any) -> Any:
        (rank, left), (block, key) = state, step
        possible = (left[..., None, :] | ~sets).all(-1)
        pick = jnp.asarray(sets)[jax.random.categorical(key, jnp.where(possible, weight, -jnp.inf))]
        pick &= left & (block < blocks)[..., None]
        return (jnp.where(pick, block, rank), left & ~pick), None

    start = (jnp.full(shape, -1), jnp.broadcast_to(counts, shape))
    return jax.lax.scan(choose, start, (jnp.arange(slots), jax.random.split(key, slots)))[0][0]
