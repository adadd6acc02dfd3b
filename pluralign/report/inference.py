"""How well the posterior was inferred, and what it says that voters want and how reliable annotators are."""

from typing import Any

import numpy as np
from jaxtyping import Float, Int

from pluralign.artifacts import plain
from pluralign.report.groups import Groups, estimate, group
from pluralign.types import Evaluation, Feedback, LeaveOneOut, RewardPosterior

FEATURES = 12  # shown on the page; the rest is in the JSON
MEANING = {
    "lapse": "probability of a random answer",
    "tie": "log tie propensity",
    "position": "logit bonus of the first slot",
    "temperature": "utilities are divided by it",
    "threshold": "advantage needed to win",
    "leniency": "logits by which grades are raised",
    "stretch": "log factor of the cutpoints of grades",
}


def fit(posterior: RewardPosterior) -> dict[str, Any]:
    """Return the diagnostics of a fit, one row per site."""
    report = plain(posterior.fit)
    columns = {name: report.pop(name) for name in ("rhat", "ess_bulk", "ess_tail")}
    sites = list(dict.fromkeys(site for column in columns.values() for site in column))
    rows = [{"site": site} | {name: column.get(site) for name, column in columns.items()} for site in sites]
    known = {name: [row[name] for row in rows if row[name] is not None] for name in columns}
    draws, voters, objectives, features = posterior.weights.shape
    checks, loo = report.pop("checks"), posterior.fit.loo
    return report | {
        "checks": {kind: [check for check in checks if check["of"] == kind] for kind in ("group", "annotator")},
        "left_out": None if loo is None else _left_out(loo),
        "converged": posterior.fit.converged,
        "sites": rows,
        "worst_rhat": max(known["rhat"], default=None),
        "smallest_ess": min(known["ess_bulk"] + known["ess_tail"], default=None),
        "shape": {"draws": draws, "voters": voters, "objectives": objectives, "features": features},
    }


def _left_out(loo: LeaveOneOut) -> dict[str, float]:
    """Return the log loss per judgement of predictions from all the others, as held-out scores are given."""
    return {"log_loss": -loo.elpd / loo.judgements, "stderr": loo.stderr / loo.judgements}


def scores(evaluation: Evaluation) -> list[dict[str, Any]]:
    """Return held-out scores with 90 % intervals (normal, +-1.645 clustered standard errors)."""
    return [
        plain(s) | {"low": s.log_loss - 1.6449 * s.stderr, "high": s.log_loss + 1.6449 * s.stderr}
        for s in evaluation.scores
    ]


def preferences(posterior: RewardPosterior, feedback: Feedback | None, attribute: str | None) -> dict[str, Any]:
    """Return each group's posterior mean weight of every feature, and which features to show.

    The weight of a group is the mass-weighted mean over its voters, per draw. Features are ranked by the largest
    difference between groups, or with one group by magnitude, in units of posterior standard deviations.
    """
    groups = group(posterior.voters, posterior.mass, feedback, attribute)
    weights = groups.mean(np.moveaxis(posterior.weights.astype(np.float64), 1, -1))  # [draw objective feature group]
    truth = _true_weights(posterior, feedback, groups)
    known = feedback.objectives if feedback is not None else ()
    objectives = known if len(known) == weights.shape[1] else tuple(f"objective {o}" for o in range(weights.shape[1]))
    rows = [
        {
            "objective": objective,
            "feature": feature,
            "group": name,
            **plain(estimate(weights[:, o, f, g])),
            "true": None if truth is None else float(truth[f, g]),
        }
        for o, objective in enumerate(objectives)
        for f, feature in enumerate(posterior.features)
        for g, name in enumerate(groups.names)
    ]
    mean, sd = weights.mean(0), weights.std(0).mean(-1) + 1e-12
    several = len(groups.names) > 1
    size = (np.ptp(mean, axis=-1) if several else np.abs(mean[..., 0])) / sd
    order = np.argsort(-size.max(0), kind="stable")
    shown = set(order[:FEATURES].tolist())
    inside = [row["low"] <= row["true"] <= row["high"] for row in rows if row["true"] is not None]
    return {
        "unit": "logits per unit of feature",
        "groups": list(groups.names),
        "objectives": list(objectives),
        "features": len(posterior.features),
        "shown": [name for f, name in enumerate(posterior.features) if f in shown],
        "ranked_by": "difference between groups" if several else "magnitude",
        "weights": rows,
        "covered": sum(inside) if inside else None,
        "known": len(inside),
    }


def _true_weights(
    posterior: RewardPosterior, feedback: Feedback | None, groups: Groups
) -> Float[np.ndarray, "feature group"] | None:
    truth = feedback.truth if feedback is not None else None
    if truth is None or truth.features != posterior.features or not groups.annotators:
        return None
    return groups.mean(truth.weights.T)


def reliability(posterior: RewardPosterior, feedback: Feedback | None, attribute: str | None) -> dict[str, Any] | None:
    """Return parameters of noise, over annotators and one by one; None if the model has none."""
    if not posterior.rater:
        return None
    count = next(iter(posterior.rater.values())).shape[1]
    names, labels, judged, careless = _annotators(count, feedback, attribute)
    parameters = [
        {
            "parameter": name,
            "meaning": MEANING.get(name, name),
            "mean": float(draws.mean()),
            "lowest": float(draws.mean(0).min()),
            "highest": float(draws.mean(0).max()),
        }
        for name, draws in posterior.rater.items()
    ]
    lapses = []
    if "lapse" in posterior.rater:
        lapse = posterior.rater["lapse"]
        lapses = [
            {
                "annotator": names[a],
                "group": labels[a],
                "judgements": int(judged[a]) if judged is not None else None,
                **plain(estimate(lapse[:, a])),
                "random": float((lapse[:, a] > 0.5).mean()),
                "careless": None if careless is None else bool(careless[a]),
            }
            for a in np.argsort(-lapse.mean(0), kind="stable")
        ]
    return {"annotators": count, "parameters": parameters, "lapses": lapses, "simulated": careless is not None}


def _annotators(
    count: int, feedback: Feedback | None, attribute: str | None
) -> tuple[list[str], list[str], Int[np.ndarray, " annotator"] | None, np.ndarray | None]:
    """Return names, groups, numbers of judgements and (if simulated) carelessness of annotators."""
    if feedback is None or len(feedback.annotators) != count:
        return [f"annotator {a}" for a in range(count)], [""] * count, None, None
    labels = list(feedback.attribute(attribute)) if attribute else [""] * count
    judged = judgements(feedback)
    careless = feedback.truth.careless if feedback.truth is not None else None
    return [str(i) for i in feedback.annotators["id"]], labels, judged, careless


def judgements(feedback: Feedback) -> Int[np.ndarray, " annotator"]:
    """Return how many choices and grades each annotator made."""
    who = np.concatenate([feedback.choices.annotator, feedback.grades.annotator])
    return np.bincount(who, minlength=len(feedback.annotators))
