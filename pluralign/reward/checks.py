"""Whether a fitted model would have its annotators say what they said: model criticism on the data of the fit."""

from collections.abc import Iterator, Sequence
from dataclasses import replace

import jax
import numpy as np
from scipy.special import logsumexp
from scipy.stats import false_discovery_control

from pluralign.errors import InputError
from pluralign.reward import discrepancy, leave_out
from pluralign.reward.discrepancy import ALONE, LOSS
from pluralign.reward.judgements import Judgements
from pluralign.reward.look import Seen, look, memberships, thinned, without
from pluralign.reward.prediction import check
from pluralign.types import (
    CalibrationCurve,
    Features,
    Feedback,
    FitReport,
    LeaveOneOut,
    PredictiveCheck,
    RewardPosterior,
)

FEWEST = 5
"""Judgements below which an annotator is not checked."""

FALSE = 0.05
"""Share of false alarms among the annotators that are said to be off."""

NAMED = 20
"""Annotators that are off of whom the report keeps the numbers, the most surprising first."""

SURE, MATTERS = 0.01, 0.03
"""How improbable and how large, in nats or as a share, the deviation of a group is before it is a caveat."""


def criticise(
    posterior: RewardPosterior,
    votes: Feedback,
    phi: Features,
    *,
    groups: Sequence[str] = (),
    draws: int = 200,
    judgements: int = 2000,
    seed: int = 0,
) -> RewardPosterior:
    """Return the posterior with a report of how its model fits the judgements that it was fitted to.

    Three looks at the same draws (Gelman, Meng and Stern 1996; Vehtari, Gelman and Gabry 2017; Guo et al. 2017):

        loo          elpd = sum_i log P(judgement i | all others), by Pareto-smoothed importance sampling
        checks       p = mean_draw P(T(what draw would have them say) > T(what they said)), two-sided
        calibration  how often the first won, by its predicted probability, in sample and left out

    Statistics `T` are the rate of wins of the first shown, of ties, of saying what most others say of the same, of
    extreme grades, and the mean log loss; of each annotator, of everyone and of every group. A sum of independent
    answers has its tail from its first three moments, so p values are not bounded by the number of draws. Of judgements
    that the model was fitted to p values are cautious: under the model they are nearer to 1 than uniform.

    The left-out judgement is one, not all of its annotator: for annotators whom the fit has not met, hold them out
    (`feedback.ByAnnotator`). Draws of an approximation are taken for the posterior's.

    Args:
        posterior: fitted to `votes`.
        votes: the judgements of the fit.
        phi: features of their items.
        groups: attributes of annotators whose values make the groups that are looked at, besides everyone.
        draws: at most, evenly thinned.
        judgements: of these at most, sampled at random, importance weights are computed.
        seed: of the sample of judgements.

    Returns:
        The posterior with `fit.loo`, `fit.checks` and `fit.calibration`, and what is wrong among `fit.caveats`.

    Raises:
        InputError: the judgements are not about the posterior's annotators, features, objectives and items; or
            annotators have no such attribute; or the model gives probability 0 to what was said.
    """
    if draws < 1 or judgements < 1:
        raise InputError(f"draws is {draws} and judgements {judgements}; both must be at least 1.")
    judged = Judgements.read(votes, phi)
    check(posterior, judged, people=True)
    labels = {"everyone": np.ones(judged.annotators, bool)}
    for group in groups:
        words = np.array(votes.attribute(group))
        labels |= {f"{group} = {word}": words == word for word in np.unique(words)}
    names = tuple(str(name) for name in votes.annotators["id"])
    few = thinned(posterior, draws)
    with jax.enable_x64(True):
        seen = list(look(few, judged, judgements, np.random.default_rng(seed)))
    share = memberships(few, np.sum([one.total for one in seen], axis=0))
    loo, weights = _left_out(seen, share) if len(share) >= leave_out.FEWEST else (None, [None] * len(seen))
    found = [c for one in seen for c in _annotators(one, share, names)]
    tested, off = len({c.who for c in found}), sorted((c for c in found if c.q < FALSE), key=lambda c: c.p)
    together = [c for one in seen for c in _groups(one, share, labels)]
    curves = tuple(c for one, weight in zip(seen, weights, strict=True) for c in _curves(one, share, weight))
    report = replace(posterior.fit, loo=loo, checks=(*together, *off[:NAMED]), calibration=curves)
    notes = [*_loo_notes(report, len(share)), *_annotator_notes(off, tested)]
    caveats = [*_group_caveats(together), *_annotator_caveats(off, tested), *_calibration_caveats(curves)]
    said = {"notes": tuple(dict.fromkeys([*report.notes, *notes]))}
    said["caveats"] = tuple(dict.fromkeys([*report.caveats, *caveats]))
    return replace(posterior, fit=replace(report, **said))


def _left_out(seen: list[Seen], share: np.ndarray) -> tuple[LeaveOneOut, list[np.ndarray]]:
    """Return what is predicted of acts from all others, and the weights of draws that say it, form by form."""
    before = np.cumsum([0, *(len(one.annotator) for one in seen)])
    log_p = np.concatenate([without(one, share)[0] for one in seen], axis=1)
    log_weight, k = leave_out.weigh(log_p)
    loo = leave_out.leave_one_out(
        np.concatenate([one.log_mean for one in seen]),
        np.concatenate([one.variance for one in seen]),
        np.concatenate([one.some + start for one, start in zip(seen, before[:-1], strict=True)]),
        logsumexp(log_weight + log_p, axis=0),
        np.concatenate([one.annotator for one in seen]),
        k,
        leave_out.limit(len(log_p)),
    )
    return loo, np.split(np.exp(log_weight), np.cumsum([len(one.some) for one in seen])[:-1], axis=1)


def _curves(seen: Seen, share: np.ndarray, weight: np.ndarray | None) -> Iterator[CalibrationCurve]:
    """Yield the calibration of the sampled comparisons, in sample and (with enough draws) left out."""
    if seen.first is None or not len(seen.some):
        return
    whole = np.exp(logsumexp(share[..., seen.annotator[seen.some]] + seen.first, axis=1)).mean(0)
    yield leave_out.calibration("in sample", whole, seen.won)
    if weight is not None:
        _, who = without(seen, share)
        left = (weight * np.exp(logsumexp(who + seen.first, axis=1))).sum(0)
        yield leave_out.calibration("left out", left, seen.won)


def _annotators(seen: Seen, share: np.ndarray, names: tuple[str, ...]) -> list[PredictiveCheck]:
    """Return the checks of every annotator with enough judgements."""
    found, weight = [], np.exp(share) / len(share)
    for s, statistic in enumerate(seen.names):
        told = np.flatnonzero(seen.number[s] >= FEWEST)
        if not len(told):
            continue
        observed, mean, variance, third = np.moveaxis(seen.table[:, :, s][..., told], 2, 0)
        own = weight[..., told]
        p = (own * discrepancy.exceeds(observed, mean, variance, third)).sum((0, 1))
        expected, replicated = (own * mean).sum((0, 1)), (own * (variance + mean**2)).sum((0, 1))
        spread = np.sqrt(np.maximum(replicated - expected**2, 0))
        rows = ((own * observed).sum((0, 1)), expected, spread, p)
        found += _checks(statistic, [names[a] for a in told], "annotator", seen.number[s, told], rows)
    return found


def _groups(seen: Seen, share: np.ndarray, labels: dict[str, np.ndarray]) -> list[PredictiveCheck]:
    """Return the checks of groups of annotators, whose answers are independent given a draw."""
    found, weight = [], np.exp(share)
    for s, statistic in enumerate(seen.names):
        if any(statistic.startswith(name) for name in ALONE):
            continue
        observed, mean, variance, third = np.moveaxis(seen.table[:, :, s], 2, 0)
        # Which of the voters an annotator is adds to the moments of `off`, whose distance from 0 is looked at.
        off = mean - observed
        centre = (weight * off).sum(1, keepdims=True)
        by = off - centre
        spread = (weight * (variance + by**2)).sum(1)
        lean = (weight * (third + 3 * variance * by + by**3)).sum(1)
        members = np.stack([member & (seen.number[s] > 0) for member in labels.values()]).astype(float)
        who = [name for name, row in zip(labels, members, strict=True) if row.any()]
        members = members[members.any(1)]
        total = lambda value, members=members: value @ members.T  # noqa: E731  # [draw group]
        p = discrepancy.exceeds(0 * total(spread), total(centre[:, 0]), total(spread), total(lean)).mean(0)
        expected = total((weight * mean).sum(1))
        sd = np.sqrt(total(spread).mean(0) + expected.var(0))
        rows = (total((weight * observed).sum(1)).mean(0), expected.mean(0), sd, p)
        found += _checks(statistic, who, "group", members @ seen.number[s], rows)
    return found


def _checks(
    statistic: str, who: list[str], of: str, number: np.ndarray, rows: tuple[np.ndarray, ...]
) -> list[PredictiveCheck]:
    observed, expected, sd, above = rows
    p = np.clip(2 * np.minimum(above, 1 - above), 0, 1)
    q = false_discovery_control(p)
    top = np.inf if statistic.startswith(LOSS) else 1.0
    return [
        PredictiveCheck(
            statistic=statistic,
            who=who[i],
            of=of,
            judgements=round(number[i]),
            observed=float(observed[i] / number[i]),
            expected=float(expected[i] / number[i]),
            low=float(max((expected[i] - 1.6449 * sd[i]) / number[i], 0)),
            high=float(min((expected[i] + 1.6449 * sd[i]) / number[i], top)),
            p=float(p[i]),
            q=float(q[i]),
        )
        for i in range(len(who))
    ]


def _loo_notes(report: FitReport, draws: int) -> Iterator[str]:
    loo = report.loo
    if loo is None:
        yield (
            f"Judgements were not left out one by one: {draws} draws are too few for importance sampling; take "
            f"{leave_out.FEWEST} or more."
        )
        return
    if loo.sampled < loo.judgements:
        yield (
            f"Of {loo.judgements:,} judgements {loo.sampled:,}, drawn at random, were left out one by one; what is "
            "said of all is estimated from them."
        )
    if loo.bad > 0:
        yield (
            f"{loo.bad:.1%} of the judgements that were left out one by one decide so much about their annotator "
            f"(Pareto k above {loo.limit:.2f}) that what would be predicted without them is not known well; usually "
            "these annotators made few judgements. The score on judgements held out does not depend on this."
        )


def _annotator_notes(off: list[PredictiveCheck], tested: int) -> Iterator[str]:
    people = list(dict.fromkeys(c.who for c in off))
    if people:
        first = {name: next(c for c in off if c.who == name) for name in people[:5]}
        told = "; ".join(
            f"{name} ({c.statistic} {c.observed:.2f}, expected {c.expected:.2f})" for name, c in first.items()
        )
        yield (
            f"{len(people)} of {tested} annotators answer otherwise than the model has it (posterior predictive "
            f"checks, false discovery rate {FALSE:.0%}): {told}{'; ...' if len(people) > 5 else '.'}"
        )


def _annotator_caveats(off: list[PredictiveCheck], tested: int) -> Iterator[str]:
    people = {c.who for c in off}
    if len(people) > max(2, tested / 10):
        yield (
            f"{len(people)} of {tested} annotators answer otherwise than the model has it, so it is not the model of "
            "these people: let `response.rater` have `lapse`, `temperature` or `position_spread`, take features that "
            "tell what they look at, or look at those named in `fit.checks`."
        )


def _group_caveats(checks: list[PredictiveCheck]) -> Iterator[str]:
    told = set()
    for c in checks:  # everyone first; what is true of everyone is not said of every group again
        if c.q < SURE and abs(c.observed - c.expected) > MATTERS and c.statistic not in told:
            told |= {c.statistic} if c.who == "everyone" else set()
            who = c.who if c.who == "everyone" else f"annotators with {c.who}"
            yield (
                f"The model misses how {who} answered: {c.statistic} is {c.observed:.3f}, where it expects "
                f"{c.low:.3f} to {c.high:.3f}; the response model lacks something, "
                "such as a bonus of the first slot, ties or lapses, or features do not tell what decides."
            )


def _calibration_caveats(curves: tuple[CalibrationCurve, ...]) -> Iterator[str]:
    for curve in curves[-1:]:
        if curve.p < SURE and curve.error - curve.by_chance > MATTERS:
            yield (
                f"Predicted probabilities are off by {curve.error:.3f} on average ({curve.of}), where "
                f"{curve.by_chance:.3f} would be chance: usually a wrong response model, or draws of an approximation "
                "that is too sure; use `NUTS`, or another `response`."
            )
