"""Best of n and rejection sampling: a reward steers what a model writes, and nothing is trained.

Both draw from the reference and choose with the reward that training would use. Best of n takes the highest of n,
which moves the policy by about `log n` nats; rejection sampling goes to the optimum of KL control itself,
`pi_ref exp(r / beta) / Z`. What they cost is paid for every answer: n of them are written and one is kept.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy.special import gammaln, logsumexp, rel_entr

from pluralign.errors import InputError

STREAM = 20231  # any number that nobody else picks

Sampler = Callable[[Sequence[str], int], Sequence[Sequence[str]]]
Scorer = Callable[[Sequence[str], Sequence[str]], Any]


def best_of_lottery(
    probability: Float[np.ndarray, " candidate"], reward: Float[np.ndarray, " candidate"], n: int
) -> Float[np.ndarray, " candidate"]:
    """Return how likely each of finitely many responses is to be the best of n independent draws.

    `q_i = p_i (F_i^n - G_i^n) / (F_i - G_i)`, with `F_i = P(r <= r_i)` and `G_i = P(r < r_i)`: among responses of equal
    reward every draw is equally likely to be kept, so their shares stay as they were.

    Args:
        probability: of each response under the reference; sums to 1.
        reward: of each response; equal numbers are ties.
        n: draws, at least 1.

    Raises:
        InputError: n is below 1; probabilities are none; a reward is not finite.
    """
    p, r = np.asarray(probability, np.float64), np.asarray(reward, np.float64)
    if p.shape != r.shape or not (p >= 0).all() or not abs(p.sum() - 1) < 1e-6:
        raise InputError(f"probability and reward must be of one length, and probability sum to 1; it has {p.sum():g}.")
    level, before, after = _levels(p, r, n)
    # What has probability 0 is never drawn; its level may have no mass at all.
    return p * np.divide(after, before, out=np.zeros_like(after), where=before > 0)[level]


def best_of_kl(
    n: int,
    reward: Float[np.ndarray, " candidate"] | None = None,
    probability: Float[np.ndarray, " candidate"] | None = None,
) -> float:
    """Return the divergence `KL(best of n || reference)` in nats.

    Without `reward` it is `log n - (n - 1) / n`, true if no two draws have the same reward and otherwise an upper bound
    (Beirami et al. 2024, Theoretical guarantees on the best-of-n alignment policy). With it, exactly
    `sum_level q log(q / p)`, over levels of reward: within a level the shares do not change, so that responses of equal
    reward cost nothing.

    Args:
        n: draws, at least 1.
        reward: of each of finitely many responses, or of samples from the reference.
        probability: of each response; None: equal, as for samples. Then it is a plug-in estimate, which cannot be more
            than the logarithm of the number of samples and is too low unless they are many times n.

    Raises:
        InputError: n is below 1; a reward is not finite.
    """
    if reward is None:
        _positive("n", n)
        return float(np.log(n) - (n - 1) / n)
    r = np.asarray(reward, np.float64)
    _, before, after = _levels(np.full(len(r), 1 / max(len(r), 1)) if probability is None else probability, r, n)
    return float(rel_entr(after, before).sum())


def best_of_value(
    proxy: Float[np.ndarray, "prompt sample"], gold: Float[np.ndarray, "prompt sample"], n: int
) -> Float[np.ndarray, " prompt"]:
    """Return the unbiased estimate of `E gold(best of n by proxy)` from N >= n samples of each prompt.

    `sum_{i=n..N} C(i - 1, n - 1) / C(N, n) gold_(i)`, samples in ascending order of proxy: the mean over all choices of
    n of the N samples (the estimator of Nakano et al. 2021, WebGPT, and of Gao, Schulman and Hilton 2022). Ties in
    proxy are broken evenly, by averaging over them.

    Args:
        proxy: what the best is chosen by.
        gold: what it is judged by, of the same samples; `proxy` itself for the proxy's own rise.
        n: from 1 to the number of samples.

    Raises:
        InputError: n is out of range, or a number is not finite.
    """
    proxy, gold = np.asarray(proxy, np.float64), np.asarray(gold, np.float64)
    if proxy.shape != gold.shape or not (np.isfinite(proxy).all() and np.isfinite(gold).all()):
        raise InputError("proxy and gold must be finite and of one shape [prompt sample]; leave missing samples out.")
    size = proxy.shape[1]
    _positive("n", n)
    if n > size:
        raise InputError(f"n is {n}, but a prompt has {size} samples; nothing unbiased can be said beyond them.")
    i = np.arange(n, size + 1)
    weight = np.zeros(size)
    weight[n - 1 :] = np.exp(_log_choose(i - 1, n - 1) - _log_choose(size, n))
    value = np.empty(len(proxy))
    for x, (rank, judged) in enumerate(zip(proxy, gold, strict=True)):
        tie, count = np.unique(rank, return_inverse=True, return_counts=True)[1:]
        shared = np.bincount(np.sort(tie), weight) / count
        value[x] = shared[tie] @ judged
    return value


@dataclass(frozen=True, eq=False)
class BestOfCurve:
    """What the best of n is worth by the proxy that chose it and by the gold that judges it.

    Where gold turns down while proxy still rises, the proxy is over-optimised (Gao, Schulman and Hilton 2022).

    Attributes:
        n: of each point, ascending.
        proxy, gold: unbiased estimates for each prompt.
        kl: divergence from the reference, plug-in estimate from the samples (`best_of_kl`), in nats.
    """

    n: Int[np.ndarray, " point"]
    proxy: Float[np.ndarray, "point prompt"]
    gold: Float[np.ndarray, "point prompt"]
    kl: Float[np.ndarray, "point prompt"]

    @property
    def peak(self) -> int:
        """The n at which mean gold is largest."""
        return int(self.n[self.gold.mean(1).argmax()])

    def stderr(self, values: Float[np.ndarray, "point prompt"]) -> Float[np.ndarray, " point"]:
        """Return the standard error over prompts of the mean of `proxy` or `gold`; NaN if there is one prompt."""
        prompts = values.shape[1]
        return values.std(1, ddof=1) / np.sqrt(prompts) if prompts > 1 else np.full(len(values), np.nan)


def best_of_curve(
    proxy: Float[np.ndarray, "prompt sample"],
    gold: Float[np.ndarray, "prompt sample"],
    n: Sequence[int] | None = None,
) -> BestOfCurve:
    """Return proxy and gold of the best of n for a range of n, all from the same samples.

    Args:
        proxy: what the best is chosen by, such as the mean reward over posterior draws.
        gold: what it is judged by, such as a simulation's true utility or the worst draw.
        n: of the points; None: powers of 2 up to the number of samples.

    Raises:
        InputError: some n is out of range, or a number is not finite.
    """
    size = np.shape(proxy)[1]
    points = [2**k for k in range(size.bit_length())] if n is None else sorted(set(n))
    return BestOfCurve(
        np.array(points),
        np.array([best_of_value(proxy, proxy, k) for k in points]),
        np.array([best_of_value(proxy, gold, k) for k in points]),
        np.array([[best_of_kl(k, row) for row in np.asarray(proxy, np.float64)] for k in points]),
    )


@dataclass(frozen=True, eq=False)
class Best:
    """The best of n responses to each prompt.

    Attributes:
        responses: one per prompt; of equal ones, the first drawn.
        score: of `responses`.
        drawn: all that were written.
        scores: of all.
        kl_bound: `log n - (n - 1) / n`, the most that the choice moves from the reference, in nats.
    """

    responses: tuple[str, ...]
    score: Float[np.ndarray, " prompt"]
    drawn: tuple[tuple[str, ...], ...]
    scores: Float[np.ndarray, "prompt sample"]
    kl_bound: float


def best_of(prompts: Sequence[str], n: int, sampler: Sampler, scorer: Scorer) -> Best:
    """Write n responses to each prompt and keep the one of highest reward.

    Args:
        prompts: as text.
        n: responses written for each.
        sampler: called as `sampler(prompts, n)`, returns n texts per prompt from the reference, such as
            `functools.partial(policy.sample, model)`.
        scorer: called once as `scorer(prompts, responses)` with one entry per response; returns their scores, or an
            object with them in `total`.

    Raises:
        InputError: n is below 1; the sampler wrote too few; a score is missing or not finite.
    """
    drawn, scores = _drawn(prompts, n, sampler, scorer)
    best = scores.argmax(1)
    kept = tuple(texts[i] for texts, i in zip(drawn, best, strict=True))
    return Best(kept, scores.max(1), drawn, scores, best_of_kl(n))


@dataclass(frozen=True, eq=False)
class Accepted:
    """What rejection sampling kept.

    Attributes:
        responses: that were accepted, for each prompt; none may be.
        counts: which of the samples they were.
        scores: of all samples.
        share: accepted share; the work per kept response is its inverse. Expected: `exp(log_z - bound / beta)`.
        ess: effective sample size of the weights `exp(r / beta)`, `(sum w)^2 / sum w^2`, from 1 to n.
        kl: estimate of `KL(pi* || pi_ref)`, self-normalised: `sum w log(n w)` with weights that sum to 1. It cannot be
            more than `log n`; an `ess` of a few says that it is too low.
        log_z: estimate of `log E_ref exp(r / beta)`, the logarithm of a mean: too low if few samples carry the weight.
        exact: whether accepted responses are draws from `pi*`; False: from near it, the highest sample as bound.
    """

    responses: tuple[tuple[str, ...], ...]
    counts: Bool[np.ndarray, "prompt sample"]
    scores: Float[np.ndarray, "prompt sample"]
    share: Float[np.ndarray, " prompt"]
    ess: Float[np.ndarray, " prompt"]
    kl: Float[np.ndarray, " prompt"]
    log_z: Float[np.ndarray, " prompt"]
    exact: bool


def rejection(
    prompts: Sequence[str],
    n: int,
    sampler: Sampler,
    scorer: Scorer,
    beta: float,
    bound: float | Float[np.ndarray, " prompt"] | None = None,
    seed: int = 0,
) -> Accepted:
    """Write n responses to each prompt and keep those that make draws from `pi* = pi_ref exp(r / beta) / Z`.

    Each is accepted with probability `exp((r - bound) / beta)` (Liu et al. 2023, Statistical rejection sampling
    improves preference optimization). If no response whatever scores more than `bound`, those that are accepted are
    exact and independent draws from `pi*`. Without a bound the highest sample of the prompt stands in, as in the paper:
    it is then always accepted, and better responses that were not met count for nothing. This is near `pi*` only if n
    is many times `exp(highest / beta) / Z`, the mean number of draws for one that is accepted.

    Args:
        prompts: as text.
        n: responses written for each.
        sampler: as for `best_of`.
        scorer: as for `best_of`, in units of welfare.
        beta: price of a nat of divergence, as the choice's; positive.
        bound: no response scores more, of all prompts or of each; None: the highest sample of each prompt.
        seed: of what is accepted.

    Raises:
        InputError: beta is not positive; a response scores more than the bound; as for `best_of`.
    """
    if not (np.isfinite(beta) and beta > 0):
        raise InputError(f"beta is {beta}; the price of a nat of divergence must be positive.")
    drawn, scores = _drawn(prompts, n, sampler, scorer)
    top = scores.max(1) if bound is None else np.broadcast_to(np.asarray(bound, np.float64), len(scores))
    above = scores.max(1) - top
    if not (above <= 0).all():
        x = int(np.argmax(~(above <= 0)))
        raise InputError(
            f"a response to prompt {prompts[x][:60]!r} scores {scores[x].max():.6g}, above its bound {top[x]:.6g}; "
            "give a bound that holds for every response, or None to use the highest sample."
        )
    chance = np.exp((scores - top[:, None]) / beta)
    # A stream of its own: a sampler seeded with the same number must not draw by the numbers that decide here.
    counts = np.random.default_rng([seed, STREAM]).random(scores.shape) < chance
    log_z = logsumexp(scores / beta, axis=1) - np.log(n)
    log_weight = scores / beta - log_z[:, None] - np.log(n)
    weight = np.exp(log_weight)
    return Accepted(
        tuple(tuple(t for t, c in zip(texts, row, strict=True) if c) for texts, row in zip(drawn, counts, strict=True)),
        counts,
        scores,
        counts.mean(1),
        1 / (weight**2).sum(1),
        (weight * (log_weight + np.log(n))).sum(1),
        log_z,
        bound is not None,
    )


def _levels(
    p: Float[np.ndarray, " candidate"], reward: Float[np.ndarray, " candidate"], n: int
) -> tuple[Int[np.ndarray, " candidate"], Float[np.ndarray, " level"], Float[np.ndarray, " level"]]:
    """Return the level of each reward, and what each level weighs in the reference and in the best of n."""
    _positive("n", n)
    if not len(reward) or not np.isfinite(reward).all():
        raise InputError("rewards must be finite, and at least one; leave out responses that have none.")
    level = np.unique(reward, return_inverse=True)[1]
    before = np.bincount(level, p)
    below = np.cumsum(before) / before.sum()
    with np.errstate(divide="ignore", invalid="ignore"):  # log 0 is minus infinity; levels without mass below them: NaN
        after = below**n * -np.expm1(n * np.log1p(-np.minimum(before / below, 1)))
    return level, before, np.where(before > 0, after, 0)


def _drawn(
    prompts: Sequence[str], n: int, sampler: Sampler, scorer: Scorer
) -> tuple[tuple[tuple[str, ...], ...], Float[np.ndarray, "prompt sample"]]:
    """Return what the sampler writes, with its scores."""
    _positive("n", n)
    if not len(prompts):
        raise InputError("there are no prompts.")
    drawn = tuple(tuple(texts) for texts in sampler(prompts, n))
    if len(drawn) != len(prompts) or any(len(texts) != n for texts in drawn):
        raise InputError(
            f"the sampler wrote {[len(texts) for texts in drawn][:8]} responses to {len(prompts)} prompts; it is "
            f"called as sampler(prompts, {n}) and must return {n} for each."
        )
    asked = [x for x, texts in zip(prompts, drawn, strict=True) for _ in texts]
    flat = [y for texts in drawn for y in texts]
    result = scorer(asked, flat)
    scores = np.asarray(getattr(result, "total", result), np.float64)
    if scores.shape != (len(flat),):
        raise InputError(f"the scorer returned shape {scores.shape} for {len(flat)} responses; one score each.")
    if not np.isfinite(scores).all():
        i = int(np.argmin(np.isfinite(scores)))
        raise InputError(
            f"the score of response {flat[i][:60]!r} to prompt {asked[i][:60]!r} is {scores[i]}; every score must be "
            "finite. Mend the scorer, or leave such prompts out."
        )
    return drawn, scores.reshape(len(prompts), n)


def _log_choose(n: Any, k: Any) -> Any:
    return gammaln(n + 1) - gammaln(k + 1) - gammaln(n - k + 1)


def _positive(name: str, value: int) -> None:
    if value < 1:
        raise InputError(f"{name} is {value}; it must be at least 1.")
