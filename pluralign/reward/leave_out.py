"""Predictions of judgements from all the others, without fitting again."""

import warnings

import numpy as np
from arviz_stats.base.array import array_stats
from jaxtyping import Bool, Float, Int
from scipy.special import logsumexp
from scipy.stats import chi2

from pluralign.reward.prediction import clustered
from pluralign.types import CalibrationCurve, LeaveOneOut

FEWEST = 100
"""Draws below which no Pareto tail can be fitted that means anything."""

BINS = 15


def limit(draws: int) -> float:
    """Return the Pareto k above which importance sampling from so many draws fails, `min(1 - 1 / log10(draws), 0.7)`.

    Vehtari, Simpson, Gelman, Yao and Gabry (2024), section 3.2.4.
    """
    return float(min(1 - 1 / np.log10(draws), 0.7))


def weigh(log_p: Float[np.ndarray, "draw some"]) -> tuple[Float[np.ndarray, "draw some"], Float[np.ndarray, " some"]]:
    """Return log weights that turn draws into draws of the posterior without one judgement, and their Pareto k.

        weight[draw] ∝ 1 / P(judgement | draw),  smoothed

    By Pareto-smoothed importance sampling (Vehtari, Gelman and Gabry 2017, section 2.1). Where the largest weights are
    all alike there is no tail to smooth: k is then minus infinity.

    Args:
        log_p: log probability of each judgement in each draw.
    """
    found = [_smoothed(row) for row in log_p.T]
    return np.stack([weight for weight, _ in found], 1), np.array([k for _, k in found])


def _smoothed(log_p: Float[np.ndarray, " draw"]) -> tuple[Float[np.ndarray, " draw"], float]:
    plain = -log_p - logsumexp(-log_p)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of a tail that is too heavy: k says so
        try:
            log_weight, k = array_stats.psislw(log_p)
        except ValueError:  # all of the tail is the same
            return plain, -np.inf
    if not np.isfinite(log_weight).all():
        return plain, np.inf
    return log_weight, float(np.nan_to_num(k, nan=np.inf))


def leave_one_out(
    log_mean: Float[np.ndarray, " act"],
    variance: Float[np.ndarray, " act"],
    some: Int[np.ndarray, " some"],
    exact: Float[np.ndarray, " some"],
    annotator: Int[np.ndarray, " act"],
    k: Float[np.ndarray, " some"],
    most: float,
) -> LeaveOneOut:
    """Return the expected log predictive density, with what was computed for some judgements standing for all.

        cheap[i] = log_mean[i] - variance[i]
        elpd = sum_i cheap[i] + N / n sum_{i in some} (exact[i] - cheap[i])

    The difference estimator of Magnusson, Vehtari, Jonasson and Andersen (2020, section 2). `exact` is by importance
    sampling, `cheap` the widely applicable information criterion, which is near it. The standard error is clustered by
    annotator and holds that of the sampling of judgements.

    Args:
        log_mean: log of the mean over draws of the probability of each judgement.
        variance: variance over draws of its log.
        some: which judgements were sampled at random.
        exact: log predictive density of these, left out.
        annotator: who made each judgement.
        k: Pareto k of the weights behind `exact`.
        most: the largest k that is good.
    """
    elpd = log_mean - variance
    elpd[some] += len(elpd) / len(some) * (exact - elpd[some])
    mean, stderr = clustered(elpd, annotator)
    return LeaveOneOut(
        elpd=len(elpd) * mean,
        stderr=len(elpd) * stderr,
        p_loo=float(log_mean.sum() - elpd.sum()),
        bad=float((k > most).mean()),
        limit=most,
        sampled=len(some),
        judgements=len(elpd),
    )


def calibration(of: str, p: Float[np.ndarray, " act"], won: Bool[np.ndarray, " act"]) -> CalibrationCurve:
    """Return how often the first won beside how often it should have, in 15 bins of equal width (Guo et al. 2017).

        error = sum_bin count / total |observed - predicted|
        by_chance: the mean of `error` were every p right, each bin normal: sqrt(2 sum p (1 - p) / pi) / total, summed
        p: of sum_bin (wins - sum p)^2 / sum p (1 - p), chi-squared, over bins where that variance is at least 1

    Args:
        of: what predictions are of.
        p: predicted probabilities that the first wins.
        won: whether it did.
    """
    place = np.minimum((p * BINS).astype(int), BINS - 1)
    count, expected, wins, spread = (np.bincount(place, x, BINS) for x in (np.ones_like(p), p, won, p * (1 - p)))
    full = count > 0
    count, expected, wins, spread = (x[full] for x in (count, expected, wins, spread))
    off = wins - expected
    told = spread >= 1  # where the normal is near
    return CalibrationCurve(
        of=of,
        error=float(np.abs(off).sum() / len(p)),
        by_chance=float(np.sqrt(2 / np.pi * spread).sum() / len(p)),
        p=float(chi2.sf((off[told] ** 2 / spread[told]).sum(), told.sum())) if told.any() else float("nan"),
        predicted=tuple(float(x) for x in expected / count),
        observed=tuple(float(x) for x in wins / count),
        count=tuple(int(x) for x in count),
    )
