"""The tables of a report as one self-contained HTML page."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import jinja2

from pluralign.report import figures
from pluralign.report.words import centre, decimals, interval, number, percent

LEAST_RELIABLE = 10
TITLES = {
    "headline": "In short",
    "annotators": "Who the annotators are",
    "fit": "How well the posterior fits",
    "preferences": "What the voters want",
    "rules": "What each rule gives to whom",
    "agreement": "Whether the rules agree",
    "policies": "Trained policies",
    "reproduce": "To reproduce this",
}
Row = dict[str, Any]


def render(tables: dict[str, Any]) -> str:
    """Return the page. Its numbers are those of `tables`, its texts are escaped, and it loads nothing."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"num": number, "percent": percent, "tojson_plain": _json} | FILTERS
    return environment.get_template("page.html.j2").render(
        **tables, titles=TITLES, contents=list(TITLES.items()), figures=_figures(tables)
    )


def _figures(tables: dict[str, Any]) -> dict[str, str]:
    """Return each figure for which there are numbers."""
    rules, policies, wants, noise = (tables[k] for k in ("rules", "policies", "preferences", "reliability"))
    made = {"gains": figures.gains(rules["welfare"], rules["scale"], "the reference", "gains")}
    if rules["individuals"]:
        made["individuals"] = figures.individuals(rules["individuals"], rules["scale"], "individuals")
    if tables["scores"]:
        made["scores"] = figures.scores(tables["scores"], "scores")
    for o, objective in enumerate(wants["objectives"] if wants else ()):
        made[f"forest{o}"] = figures.forest(wants, objective, f"forest{o}")
    if noise and noise["lapses"]:
        made["lapses"] = figures.lapses(noise["lapses"], "lapses")
    if policies["welfare"]:
        made["policy_gains"] = figures.gains(policies["welfare"], rules["scale"], "the base model", "policies")
    if any(policies["history"].values()):
        made["training"] = figures.training(policies["history"], "training")
    return made


def _group_rows(rows: list[Row]) -> list[list[str]]:
    return [
        [r["group"], number(r["annotators"]), percent(r["share"]), number(r["judgements"], 0)]
        + [number(r[k], 0 if float(r[k]).is_integer() else 1) for k in ("fewest", "median", "most")]
        for r in rows
    ]


def _site_rows(rows: list[Row]) -> list[list[str]]:
    return [[r["site"], number(r["rhat"], 3), number(r["ess_bulk"], 0), number(r["ess_tail"], 0)] for r in rows]


def _score_rows(rows: list[Row]) -> list[list[str]]:
    return [
        [
            r["model"],
            number(r["log_loss"], 4),
            number(r["stderr"], 4),
            f"{100 * r['accuracy']:.1f} %",
            number(r["judgements"], 0),
        ]
        for r in rows
    ]


def _weight_rows(table: Row) -> list[list[str]]:
    rows = [r for r in table["weights"] if r["feature"] in table["shown"]]
    places, several = decimals(rows), len(table["objectives"]) > 1
    return [
        [f"{r['feature']} ({r['objective']})" if several else r["feature"], r["group"], interval(r, places, sign=True)]
        + [number(r["true"], places, sign=True)]
        for r in rows
    ]


def _parameter_rows(rows: list[Row]) -> list[list[str]]:
    return [
        [r["parameter"], r["meaning"], *(number(r[k], 2) for k in ("mean", "lowest_tenth", "highest_tenth"))]
        for r in rows
    ]


def _lapse_rows(table: Row) -> list[list[str]]:
    careless = {True: "careless", False: "careful"}
    return [
        [r["annotator"], r["group"] or "–", interval(r, 2), number(r["judgements"], 0)]
        + ([careless[r["careless"]]] if table["simulated"] else [])
        for r in table["lapses"][:LEAST_RELIABLE]
    ]


def _welfare_rows(table: Row) -> list[list[str]]:
    rows = table["welfare"]
    places = decimals(r["gain"] for r in rows)
    return [
        [r["rule"], r["group"], percent(r["share"]), interval(r["before"], places), interval(r["after"], places)]
        + [interval(r["gain"], places, sign=True), percent(r["probability_of_gain"])]
        + ([number(r["true_gain"], places, sign=True)] if table["known"] else [])
        for r in rows
    ]


def _individual_rows(table: Row) -> list[list[str]]:
    return [
        [r["rule"], f"{r['losers']} of {r['voters']} ({percent(r['share_losing'])})", number(r["sure_losers"])]
        + [number(r[k], 2, sign=True) for k in ("median_gain", "worst_tenth_gain", "lowest_gain")]
        + ([number(r["true_losers"])] if table["known"] else [])
        for r in table["individuals"]
    ]


def _certificate_rows(rows: list[Row]) -> list[list[str]]:
    return [
        [r["rule"], r["risk"], *(number(r[k]) for k in ("beta", "value", "gap", "tv", "tv_bound"))]
        + [number(r["tv_reference"], 2), number(r["kl_reference"], 2), r["solver"], number(r["seconds"])]
        for r in rows
    ]


def _policy_rows(table: Row) -> list[list[str]]:
    rows = table["welfare"]
    places = decimals(r["gain"] for r in rows)
    return [
        [r["rule"], r["group"], percent(r["share"]), interval(r["before"], places), interval(r["after"], places)]
        + [interval(r["gain"], places, sign=True)]
        + ([interval(r["true_gain"], places, sign=True)] if table["known"] else [])
        for r in rows
    ]


def _by_versions(manifests: dict[str, Row]) -> list[tuple[list[tuple[str, str]], list[str]]]:
    """Return the sets of package versions that made artifacts, each with the artifacts."""
    made: dict[tuple[tuple[str, str], ...], list[str]] = {}
    for name, manifest in manifests.items():
        made.setdefault(tuple(sorted(manifest["versions"].items())), []).append(name)
    return [(list(versions), folders) for versions, folders in made.items()]


def _json(value: Any) -> str:
    return json.dumps(value, indent=1, ensure_ascii=False)


def _facts(facts: Row) -> list[list[str]]:
    return [[name, number(value)] for name, value in facts.items()]


FILTERS = {
    "facts": _facts,
    "group_rows": _group_rows,
    "site_rows": _site_rows,
    "score_rows": _score_rows,
    "weight_rows": _weight_rows,
    "parameter_rows": _parameter_rows,
    "lapse_rows": _lapse_rows,
    "welfare_rows": _welfare_rows,
    "individual_rows": _individual_rows,
    "certificate_rows": _certificate_rows,
    "policy_rows": _policy_rows,
    "by_versions": _by_versions,
}
