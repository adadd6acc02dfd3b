"""What to remember of a run, in sentences made from the tables of the report."""

from collections.abc import Iterator
from typing import Any

from pluralign.report.groups import EVERYONE
from pluralign.report.words import centre, decimals, interval, listed, number, percent

Tables = dict[str, Any]


def verdicts(tables: Tables) -> list[str]:
    """Return the verdicts, the most important first."""
    return [
        *_trust(tables),
        *_counted(tables["annotators"]),
        *_rules(tables["rules"]),
        *_agreement(tables["agreement"]),
        *(tables["decisions"]["sentences"] if tables["decisions"] else ()),
        *_policies(tables["policies"]),
    ]


def _trust(tables: Tables) -> Iterator[str]:
    fit, caveats = tables["fit"], tables["caveats"]["all"]
    if caveats:
        yield f"These numbers must not be trusted yet: {' '.join(caveats)}"
    elif fit is None:
        yield "Whether the fit behind these utilities converged is not known: the run holds no posterior."
    else:
        rhat, ess = fit["worst_rhat"], fit["smallest_ess"]
        shown = [f"worst R-hat {number(rhat, 3)}"] if rhat is not None else []
        shown += [f"smallest effective sample size {number(ess, 0)}"] if ess is not None else []
        yield f"The fit passed its checks ({', '.join([*shown, _count(fit['divergences'], 'divergence')])})."
    rows = tables["scores"]
    if len(rows) > 1:
        mine, *others = rows
        beside = listed(f"{number(s['log_loss'], 3)} ({s['model']})" for s in others)
        judged = f"{mine['judgements']:,} held-out judgements"
        yield (
            f"On {judged} the {mine['model']} has log loss {number(mine['log_loss'], 3)} ± {number(mine['stderr'], 3)} "
            f"nats (clustered s.e.), against {beside}."
        )


def _counted(annotators: Tables | None) -> Iterator[str]:
    """Say by what weights annotators count, where a population was declared."""
    coverage = annotators["coverage"] if annotators else None
    if coverage is None:
        return
    names, weights = listed(dict.fromkeys(row["attribute"] for row in coverage["categories"])), coverage["weights"]
    if weights is None:
        yield f"Annotators do not count by the declared population: no weights give them its margins of {names}."
        return
    numbers = (
        f"raked to the declared margins of {names} ({number(weights['lowest'], 2)} to {number(weights['highest'], 2)} "
        f"times the mean, design effect {number(weights['design_effect'], 2)})"
    )
    if coverage["used"]:
        yield f"Annotators count by weights {numbers}."
    else:
        yield f"Annotators do not count by the declared population; weights {numbers} are not used."


def _rules(rules: Tables) -> Iterator[str]:
    lost = {row["rule"]: row for row in rules["individuals"]}
    for rule in dict.fromkeys(row["rule"] for row in rules["welfare"]):
        tail = _losers(lost.get(rule), rules["voters_are_annotators"])
        yield f"{rule} {_most_and_least([r for r in rules['welfare'] if r['rule'] == rule])}{tail}"
    best = rules["best_for_worst_off"]
    if best:
        yield (
            f"For the worst-off group {best['rule']} is best: it leaves {best['group']}, its worst-off, at "
            f"{interval(best['welfare'])}; the next rule, {best['next_rule']}, leaves {best['next_group']} at "
            f"{interval(best['next_welfare'])}; the first is higher in {percent(best['probability'])} of draws."
        )
    known = [row for row in rules["welfare"] if row["true_gain"] is not None and row["group"] != EVERYONE]
    if known:
        inside = sum(row["gain"]["low"] <= row["true_gain"] <= row["gain"]["high"] for row in known)
        yield f"{inside} of {len(known)} intervals of groups' gains contain the true gain (90 % of them should)."


def _losers(row: Tables | None, annotators: bool) -> str:
    if row is None:
        return ""
    who = "annotators" if annotators else "voters"
    true = f" (truly {row['true_losers']})" if row["true_losers"] is not None else ""
    return f" {row['losers']} of {row['voters']} {who} are expected to lose{true}."


def _most_and_least(rows: list[Tables]) -> str:
    groups = [row for row in rows if row["group"] != EVERYONE] or rows
    groups = sorted(groups, key=lambda row: -row["gain"]["mean"])
    best, worst = groups[0], groups[-1]
    gains, loses = best["gain"]["mean"] >= 0, worst["gain"]["mean"] < 0
    if len(groups) == 1:
        return f"{'gives to' if gains else 'takes from'} {_gain(best)}."
    if loses:
        words = "gives most to {}, and takes most from {}." if gains else "takes least from {}, and most from {}."
    else:
        words = "gives most to {}, and least to {}."
    return words.format(_gain(best), _gain(worst))


def _gain(row: Tables) -> str:
    gain = row["gain"]
    sure = "excludes" if gain["low"] > 0 or gain["high"] < 0 else "includes"
    true = centre(row["true_gain"])
    beside = f"; true gain {number(true, decimals([gain]), sign=True)}" if true is not None else ""
    return f"{row['group']}, {interval(gain, sign=True)} (interval {sure} 0{beside})"


def _agreement(table: Tables) -> Iterator[str]:
    if table["tv"] is None:
        return
    names, tv, top = table["rules"], table["tv"], table["same_top"]
    pairs = [(a, b) for a in range(len(names)) for b in range(a)]
    a, b = min(pairs, key=lambda pair: (top[pair[0]][pair[1]], -tv[pair[0]][pair[1]]))
    extent = "Rules agree" if top[a][b] >= 0.95 else "Rules differ" if top[a][b] < 0.8 else "Rules mostly agree"
    yield (
        f"{extent}: the two least alike, {names[b]} and {names[a]}, have the same top candidate on "
        f"{percent(top[a][b])} of prompts and lotteries {number(tv[a][b], 2)} apart (mean total variation)."
    )


def _policies(table: Tables) -> Iterator[str]:
    for policy in dict.fromkeys(row["rule"] for row in table["welfare"]):
        yield f"The policy trained for {policy} {_most_and_least([r for r in table['welfare'] if r['rule'] == policy])}"


def _count(n: int, word: str) -> str:
    return f"no {word}" if n == 0 else f"{n} {word}{'' if n == 1 else 's'}"
