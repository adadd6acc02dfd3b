"""R-hat and effective sample sizes of very many quantities at once (Vehtari et al. 2021).

The numbers are those of ArviZ, which takes 3 ms for each quantity: a quarter of an hour for the weights of 10,000
annotators. Here entries are taken together, and it takes about 20 times less.
"""

import numpy as np
from jaxtyping import Float, Shaped
from scipy.fft import next_fast_len
from scipy.special import ndtri
from scipy.stats import rankdata

TOGETHER = 2**20
"""Draws of all entries that are looked at together: few enough for the cache, many enough for numpy."""

MIDDLE = 0.95
"""Share of the draws below the upper tail, and above the lower one."""

Chains = Float[np.ndarray, "entry chain draw"]


def worst(values: Shaped[np.ndarray, "chain draw entry"]) -> tuple[float, float, float]:
    """Return the largest R-hat, the smallest bulk and the smallest tail effective sample size over entries.

    Not a number where an entry stands still in one chain, or there are fewer than four draws.

    Args:
        values: at least two chains.
    """
    chains, draws, entries = values.shape
    if draws < 4:
        return np.nan, np.nan, np.nan
    step = max(1, TOGETHER // (chains * draws))
    parts = []
    for start in range(0, entries, step):
        x = np.ascontiguousarray(np.moveaxis(values[..., start : start + step], -1, 0), np.float64)
        z = normal_scores(split(x))
        folded = normal_scores(abs(split(x) - np.median(split(x), (1, 2), keepdims=True)))
        low, high = np.quantile(x, (1 - MIDDLE, MIDDLE), axis=(1, 2), keepdims=True)
        tails = [effective(split(1.0 * (x <= end))) for end in (low, high)]
        parts.append([np.fmax(rhat(z), rhat(folded)).max(), effective(z).min(), np.min(tails)])
    rhats, bulk, tail = np.transpose(parts)
    return float(rhats.max()), float(bulk.min()), float(tail.min())


def split(x: Chains) -> Float[np.ndarray, "entry twice half"]:
    """Return the halves of the chains as chains."""
    half = x.shape[2] // 2
    return np.concatenate([x[..., :half], x[..., -half:]], 1)


def normal_scores(x: Chains) -> Chains:
    """Return the normal quantiles of the ranks among all draws of an entry, equals in between (their equation 14)."""
    ranks = rankdata(x.reshape(len(x), -1), axis=1)
    return ndtri((ranks - 3 / 8) / (ranks.shape[1] + 1 / 4)).reshape(x.shape)


def rhat(x: Chains) -> Float[np.ndarray, " entry"]:
    """Return `((between / within + draws - 1) / draws)^(1/2)` (their equations 1 to 4)."""
    draws = x.shape[2]
    within = x.var(2, ddof=1).mean(1)
    between = draws * x.mean(2).var(1, ddof=1)
    return np.sqrt((between / within + draws - 1) / draws)


def effective(x: Chains) -> Float[np.ndarray, " entry"]:
    """Return the effective sample size of the mean (their equations 10 to 13).

    Pairs of autocorrelations, even and odd lags, are summed while positive and never rise (Geyer 1992).
    """
    chains, draws = x.shape[1:]
    size = chains * draws
    still = np.ptp(x, (1, 2)) < np.finfo(float).resolution
    off = x - x.mean(2, keepdims=True)
    length = next_fast_len(2 * draws, real=True)
    spectrum = np.fft.rfft(off, length)
    covariance = np.fft.irfft((spectrum * spectrum.conj()).real.mean(1), length)[:, :draws] / draws
    within = covariance[:, :1] * draws / (draws - 1)
    total = covariance[:, :1] + x.mean(2).var(1, ddof=1)[:, None]
    with np.errstate(invalid="ignore"):
        rho = 1 - (within - covariance) / total
    rho[:, 0] = 1
    last = max((draws - 1) // 2 - 1, 0)  # of the pairs that are looked at
    pairs = rho[:, : 2 * last + 2].reshape(len(x), -1, 2)
    sums = pairs.sum(2)
    # The first pair that is not positive, or else the last, counts with its even lag alone.
    end = np.column_stack([sums[:, :-1] <= 0, np.ones(len(x), bool)]).argmax(1)[:, None]
    before = np.arange(last + 1) < end
    even = np.take_along_axis(pairs[..., 0], end, 1)
    even = np.where(np.take_along_axis(sums, end, 1) >= 0, even, np.maximum(even, 0))
    time = 2 * (np.minimum.accumulate(sums, 1) * before).sum(1) + even[:, 0] - 1
    return np.where(still, size, size / np.maximum(time, 1 / np.log10(size)))
