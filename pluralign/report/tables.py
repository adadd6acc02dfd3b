"""Every number of a report in one dictionary: what `report.json` holds and what the page is made from."""

from typing import Any

import numpy as np

from pluralign import __version__
from pluralign.artifacts import plain
from pluralign.feedback import Population, coverage, describe
from pluralign.report import inference, welfare
from pluralign.report.decisions import decisions
from pluralign.report.groups import MOST, default_attribute, group
from pluralign.report.run import Run
from pluralign.report.verdicts import verdicts
from pluralign.types import Evaluation, Feedback

INTERVALS = "Intervals are equal-tailed 90 % intervals (5 % and 95 % quantiles) around posterior means."


def collect(run: Run, groups: str | None) -> dict[str, Any]:
    """Return all tables of a run, as plain JSON values.

    Raises:
        InputError: annotators have no attribute `groups`.
    """
    attribute = groups if groups is not None and run.feedback is not None else default_attribute(run.feedback)
    if attribute is not None and run.feedback is not None:
        run.feedback.attribute(attribute)
    evaluation = run.evaluation or Evaluation()
    posterior = run.posterior
    tables: dict[str, Any] = {
        "run": run.path.resolve().name,
        "pluralign": __version__,
        "intervals": INTERVALS,
        "absent": run.absent,
        "caveats": _caveats(run),
        "groups": {"attribute": attribute, "asked": groups},
        "annotators": _annotators(run, attribute),
        "fit": inference.fit(posterior) if posterior else None,
        "scores": inference.scores(evaluation),
        "preferences": inference.preferences(posterior, run.feedback, attribute) if posterior else None,
        "reliability": inference.reliability(posterior, run.feedback, attribute) if posterior else None,
        "rules": welfare.rules(run, attribute),
        "agreement": welfare.agreement(run),
        "decisions": decisions(run.decisions),
        "policies": _policies(run, evaluation),
        "reproduce": {
            "config": run.config,
            "command": f"pluralign run {run.path / 'experiment.yaml'} --out {run.path}" if run.config else None,
            "seeds": run.seeds(),
            "artifacts": run.manifests,
            "feedback": run.feedback.provenance if run.feedback else None,
            "features": run.features.provenance if run.features else None,
        },
    }
    tables["verdicts"] = verdicts(tables)
    return plain(tables)


def _caveats(run: Run) -> dict[str, list[str]]:
    """Return what is wrong, in all and for each section whose numbers depend on it."""
    of_fit = list(run.posterior.fit.caveats) if run.posterior else []
    of_rules = [caveat for chosen in run.choices.values() for caveat in chosen.caveats]
    of_policies = [caveat for trained in run.policies.values() for caveat in trained.caveats]
    of_choices = list(dict.fromkeys(of_fit + of_rules))
    return {
        "all": of_choices,
        "fit": of_fit,
        "preferences": of_fit,
        "rules": of_choices,
        "agreement": of_choices,
        "policies": list(dict.fromkeys(of_choices + of_policies)),  # how a policy was trained says nothing of the rules
    }


def _annotators(run: Run, attribute: str | None) -> dict[str, Any] | None:
    if run.feedback is None:
        return None
    weight = np.asarray(run.feedback.annotators["weight"], np.float64)
    names = tuple(str(i) for i in run.feedback.annotators["id"])
    groups = group(names, weight / weight.sum(), run.feedback, attribute)
    judged = inference.judgements(run.feedback)
    rows = [
        {
            "group": name,
            "annotators": int(member.sum()),
            "share": float(share),
            "judgements": int(judged[member].sum()),
            "fewest": int(judged[member].min()),
            "median": float(np.median(judged[member])),
            "most": int(judged[member].max()),
        }
        for name, member, share in zip(groups.names, groups.member, groups.share, strict=True)
    ]
    population = Population.of(run.feedback)
    return {
        "summary": plain(describe(run.feedback)),
        "groups": rows,
        **_demographics(run.feedback, judged),
        "coverage": plain(coverage(run.feedback, population.margins, used=population.rake)) if population else None,
    }


def _demographics(feedback: Feedback, judged: np.ndarray) -> dict[str, Any]:
    """Return annotators and judgements by category of each attribute; of attributes with many, only how many."""
    rows, many = [], {}
    for name in feedback.annotators.column_names:
        if name in ("id", "weight"):
            continue
        values = np.array(feedback.attribute(name), dtype=object)
        names = sorted(set(values.tolist()))
        if len(names) > MOST:
            many[name] = len(names)
            continue
        for category in names:
            member = values == category
            rows.append(
                {
                    "attribute": name,
                    "category": category,
                    "annotators": int(member.sum()),
                    "share": float(member.mean()),
                    "judgements": int(judged[member].sum()),
                    "judged": float(judged[member].sum() / max(judged.sum(), 1)),
                }
            )
    return {"demographics": rows, "many_categories": many}


def _policies(run: Run, evaluation: Evaluation) -> dict[str, Any]:
    """Return what trained policies give, how they were trained, and what they write; prompts in order."""
    rows = [plain(row) for row in evaluation.welfare]
    prompts: dict[str, dict[str, list[str]]] = {}
    for sample in evaluation.samples:
        prompts.setdefault(sample.prompt, {}).setdefault(sample.policy, []).append(sample.response)
    return {
        "welfare": [{"rule": row.pop("policy"), "share": row.pop("mass"), **row} for row in rows],
        "known": any(row["true_gain"] is not None for row in rows),
        "front": plain(evaluation.front),
        "history": {name: list(trained.history) for name, trained in run.policies.items()},
        "models": {name: trained.model for name, trained in run.policies.items()},
        "samples": [{"prompt": prompt, "responses": responses} for prompt, responses in prompts.items()],
        "notes": list(evaluation.notes),
    }
