"""How reliable annotators are, one by one, and how sure that is."""

from dataclasses import dataclass

import numpy as np

from pluralign.errors import InputError
from pluralign.types import Estimate, Feedback, RewardPosterior


@dataclass(frozen=True)
class Reliability:
    """What is known of the noise of one annotator.

    Attributes:
        annotator: its name.
        noise: each of its parameters (see `RewardPosterior.rater`), posterior mean and interval.
        random: probability that it answers at random more than half the time; None if the model has no lapses.
    """

    annotator: str
    noise: dict[str, Estimate]
    random: float | None


def reliability(
    posterior: RewardPosterior, votes: Feedback | None = None, *, level: float = 0.9
) -> tuple[Reliability, ...]:
    """Return the noise of every annotator, in the order of the feedback.

        noise[name] = (mean, quantile (1 - level) / 2, quantile (1 + level) / 2) of rater[name][:, annotator]
        random = P(lapse[annotator] > 1/2)

    An annotator with few judgements has the interval of the population; a high mean with a wide interval says that
    little is known, not that the annotator is careless.

    Args:
        posterior: fitted.
        votes: the judgements of the fit, for the names of annotators; not needed if these are the voters.
        level: probability inside the intervals.

    Raises:
        InputError: the model has no noise of raters, `level` is no probability between 0 and 1, or `votes` has other
            annotators.
    """
    if not 0 < level < 1:
        raise InputError(f"level is {level}; the probability inside an interval lies between 0 and 1.")
    if not posterior.rater:
        raise InputError("the model has no noise of raters; fit it with `response=Response(rater=Rater(lapse=True))`.")
    count = next(iter(posterior.rater.values())).shape[1]
    if votes is not None and len(votes.annotators) != count:
        raise InputError(f"votes has {len(votes.annotators)} annotators, the posterior was fitted to {count}.")
    if votes is not None:
        names = [str(name) for name in votes.annotators["id"]]
    else:
        names = list(posterior.voters) if posterior.membership is None else [f"annotator {a}" for a in range(count)]
    found = {}
    for name, draws in posterior.rater.items():
        low, high = np.quantile(draws.astype(np.float64), [(1 - level) / 2, (1 + level) / 2], axis=0)
        found[name] = [
            Estimate(*map(float, row)) for row in zip(draws.mean(0, dtype=np.float64), low, high, strict=True)
        ]
    lapse = posterior.rater.get("lapse")
    random = [None] * count if lapse is None else [float(share) for share in (lapse > 0.5).mean(0)]
    return tuple(
        Reliability(names[a], {name: rows[a] for name, rows in found.items()}, random[a]) for a in range(count)
    )
