"""The tables of a report as one self-contained HTML page."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

import jinja2

from pluralign.report import figures, front
from pluralign.report.groups import EVERYONE
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
COUNTED = (("annotators", "share"), ("judgements", "judged"))
BINDS = 1e-4  # a smaller multiplier is rounding
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
        **tables, titles=TITLES, contents=list(TITLES.items()), figures=_figures(tables), many=figures.MANY
    )


def _figures(tables: dict[str, Any]) -> dict[str, str]:
    """Return each figure for which there are numbers; a rule and a group have one colour throughout."""
    rules, policies, wants, noise = (tables[k] for k in ("rules", "policies", "preferences", "reliability"))
    names, unit = tables["agreement"]["rules"], rules["scale"]
    groups = [group for group in dict.fromkeys(row["group"] for row in rules["welfare"]) if group != EVERYONE]
    made = {"gains": figures.gains(rules["welfare"], names, unit, "the reference", "gains")}
    if rules["individuals"]:
        made["individuals"] = figures.individuals(rules["individuals"], groups or [EVERYONE], unit, "individuals")
    if tables["scores"]:
        made["scores"] = figures.scores(tables["scores"], "scores")
    for o, objective in enumerate(wants["objectives"] if wants else ()):
        made[f"forest{o}"] = figures.forest(wants, objective, f"forest{o}")
    if tables["fit"] and tables["fit"]["calibration"]:
        made["calibration"] = figures.calibration(tables["fit"]["calibration"], "calibration")
    if noise and noise["lapses"]:
        made["lapses"] = figures.lapses(noise["lapses"], "lapses")
    if policies["welfare"]:
        made["policy_gains"] = figures.gains(policies["welfare"], names, unit, "the base model", "policies")
    if policies["front"]:
        colours = figures.colours([*names, *(row["rule"] for row in policies["welfare"])])
        made["front"] = front.element(policies["front"], unit, "the base model", "front", colours)
    if any(policies["history"].values()):
        made["training"] = figures.training(policies["history"], names, "training")
    return made


def _group_rows(rows: list[Row]) -> list[list[str]]:
    spread = ("fewest", "median", "most")
    return [
        [r["group"], number(r["annotators"], 0), percent(r["share"]), *(number(r[k]) for k in ("judgements", *spread))]
        for r in rows
    ]


def _demographic_rows(rows: list[Row]) -> list[list[str]]:
    return [
        [r["attribute"], r["category"] or "(missing)", *(f"{r[n]:,} ({percent(r[s])})" for n, s in COUNTED)]
        for r in rows
    ]


def _coverage_rows(rows: list[Row]) -> list[list[str]]:
    return [
        [
            r["attribute"],
            r["category"] or "(missing)",
            "not declared" if r["population"] is None else f"{100 * r['population']:.1f} %",
            *(f"{r[n]:,} ({100 * r[s]:.1f} %)" for n, s in COUNTED),
        ]
        for r in rows
    ]


def _site_rows(rows: list[Row]) -> list[list[str]]:
    return [[r["site"], number(r["rhat"], 3), number(r["ess_bulk"], 0), number(r["ess_tail"], 0)] for r in rows]


def _check_rows(rows: list[Row]) -> list[list[str]]:
    return [
        [
            r["statistic"],
            r["who"],
            number(r["judgements"], 0),
            number(r["observed"], 3),
            f"{number(r['expected'], 3)} [{number(r['low'], 3)}, {number(r['high'], 3)}]",
            "<0.001" if r["q"] < 0.001 else number(r["q"], 3),
        ]
        for r in rows
    ]


def _score_rows(rows: list[Row]) -> list[list[str]]:
    return [
        [
            r["model"],
            number(r["log_loss"], 4),
            number(r["stderr"], 4),
            "" if r["accuracy"] is None else f"{100 * r['accuracy']:.1f} %",
            number(r["judgements"], 0),
        ]
        for r in rows
    ]


def _weight_rows(table: Row) -> list[list[str]]:
    rows = [r for r in table["weights"] if r["feature"] in table["shown"]]
    places, several = decimals(rows), len(table["objectives"]) > 1
    return [
        [
            f"{r['feature']} ({r['objective']})" if several else r["feature"],
            r["group"],
            interval(r, places, sign=True),
            number(r["true"], places, sign=True),
        ]
        for r in rows
    ]


def _parameter_rows(rows: list[Row]) -> list[list[str]]:
    return [[r["parameter"], r["meaning"], *(number(r[k], 2) for k in ("mean", "lowest", "highest"))] for r in rows]


def _lapse_rows(table: Row, attribute: str | None) -> list[list[str]]:
    careless = {True: ["careless"], False: ["careful"], None: []}
    return [
        [
            r["annotator"],
            *([r["group"]] if attribute else []),
            interval(r, 2),
            percent(r["random"]),
            number(r["judgements"], 0),
            *careless[r["careless"]],
        ]
        for r in table["lapses"][:LEAST_RELIABLE]
    ]


def _welfare_rows(table: Row) -> list[list[str]]:
    """Return welfare under the reference and a rule's lottery, with the truth beside each where it is known."""
    rows, known = table["welfare"], table["known"]
    places = decimals(r["gain"] for r in rows)
    return [
        [
            r["rule"],
            r["group"],
            percent(r["share"]),
            *_beside(r, "before", places, known),
            *_beside(r, "after", places, known),
            *_beside(r, "gain", places, known, sign=True),
            *([] if known else [percent(r["probability_of_gain"])]),
        ]
        for r in rows
    ]


def _policy_rows(table: Row) -> list[list[str]]:
    """Return welfare before and after training, with the truth beside each where it is known."""
    rows, known = table["welfare"], table["known"]
    places = decimals(r["gain"] for r in rows)
    return [
        [
            r["rule"],
            r["group"],
            *_beside(r, "before", places, known),
            *_beside(r, "after", places, known),
            interval(r["gain"], places, sign=True),
            *([interval(r["true_gain"], places, sign=True)] if known else []),
        ]
        for r in rows
    ]


def _beside(row: Row, name: str, places: int, known: bool, sign: bool = False) -> list[str]:
    true = [number(centre(row[f"true_{name}"]), places, sign)] if known else []
    return [interval(row[name], places, sign), *true]


def _individual_rows(table: Row) -> list[list[str]]:
    return [
        [
            r["rule"],
            f"{r['losers']} of {r['voters']} ({percent(r['share_losing'])})",
            number(r["sure_losers"]),
            *(number(r[k], 2, sign=True) for k in ("median_gain", "worst_tenth_gain", "lowest_gain")),
            *([number(r["true_losers"])] if table["known"] else []),
        ]
        for r in table["individuals"]
    ]


def _decision_rows(table: Row) -> list[list[str]]:
    shares = ("differs", "ignorance")
    return [
        [
            r["rule"],
            f"{number(r['likeliest'], 2)} ({number(r['lowest'], 2)} to {number(r['highest'], 2)})",
            f"{r['decided']} of {table['prompts']}",
            *(percent(r[k]) for k in shares),
        ]
        for r in table["rows"]
    ]


def _certificate_rows(rows: list[Row]) -> list[list[str]]:
    measures = ("beta", "value", "gap", "tv_bound", "tv_reference", "kl_reference")
    return [[r["rule"], *(number(r[k]) for k in measures), number(r["cuts"]), number(r["seconds"])] for r in rows]


def _demand_rows(rows: list[Row]) -> list[list[str]]:
    binds = {True: "binds", False: "costs nothing"}
    return [
        [r["rule"], r["name"], number(r["value"]), number(r["multiplier"]), binds[r["multiplier"] > BINDS]]
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


def _facts(s: Row) -> list[list[str]]:
    """Return the summary of the feedback as rows of a table."""

    def share(value: float | None, inside: list[float] | None = None) -> str:
        known = f" (90 % interval {100 * inside[0]:.1f} to {100 * inside[1]:.1f} %)" if inside else ""
        return "not known" if value is None else f"{100 * value:.1f} %{known}"

    def counts(values: dict[str, int]) -> str:
        return ", ".join(f"{name or '(missing)'} {count:,}" for name, count in values.items())

    def alpha(a: Row) -> str:
        inside = f" (90 % interval {a['interval'][0]:.2f} to {a['interval'][1]:.2f})" if a["interval"] else ""
        return "not known" if a["alpha"] is None else f"{a['alpha']:.2f}{inside}, {a['units']:,} judged by several"

    low, middle, high = s["per_annotator"]
    rows = {
        "judgements": f"{s['judgements']:,}, {share(s['tie_share'])} ties; {counts(s['by_form'])}",
        **({"judgements by objective": counts(s["by_objective"])} if len(s["by_objective"]) > 1 else {}),
        "annotators": f"{s['annotators']:,}{' (simulated)' if s['simulated'] else ''}",
        "judgements per annotator": f"{low:,} to {high:,}, median {middle:,g}; {s['single']:,} judged only once",
        "judgements by the busiest tenth": share(s["busiest_share"]),
        "prompts; responses": f"{s['prompts']:,}; {s['items']:,} ({s['empty_responses']:,} empty)",
        "the first shown wins": share(s["first_wins"], s["first_wins_interval"]),
        "two annotators agree on a pair": share(s["agreement"], s["agreement_interval"]),
        "pairs that several annotators judged": f"{s['shared_pairs']:,}",
        **{f"Krippendorff's alpha: {a['objective']}, {a['form']} ({a['distance']})": alpha(a) for a in s["alphas"]},
        "exact duplicates; self-contradictions": f"{s['duplicates']:,}; {s['contradictions']:,}",
        "prompts whose candidates are not connected": f"{s['unconnected_prompts']:,}",
        "items never judged": counts({c["objective"]: c["never"] for c in s["connections"]}),
        "sets of annotators without a prompt in common": counts({c["objective"]: c["camps"] for c in s["connections"]}),
        "annotators or pairs worth a second look": counts(Counter(x["reason"] for x in s["suspects"])) or "none",
        "personal data": counts({f"{p['what']} in {p['where']}": p["count"] for p in s["personal"]}) or "none seen",
        "rows not used": counts(s["set_aside"]) or "none",
    }
    return [[name, value] for name, value in rows.items()]


def _tied(text: str) -> str:
    """Keep a percent sign on the line of its number."""
    return text.replace(" %", "\N{NO-BREAK SPACE}%")


FILTERS = {
    "facts": _facts,
    "tied": _tied,
    "group_rows": _group_rows,
    "demographic_rows": _demographic_rows,
    "coverage_rows": _coverage_rows,
    "site_rows": _site_rows,
    "check_rows": _check_rows,
    "score_rows": _score_rows,
    "weight_rows": _weight_rows,
    "parameter_rows": _parameter_rows,
    "lapse_rows": _lapse_rows,
    "welfare_rows": _welfare_rows,
    "individual_rows": _individual_rows,
    "certificate_rows": _certificate_rows,
    "demand_rows": _demand_rows,
    "decision_rows": _decision_rows,
    "policy_rows": _policy_rows,
    "by_versions": _by_versions,
}
