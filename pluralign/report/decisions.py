"""How sure decisions are: what every posterior draw decides by itself, beside what hangs on the choice of rule."""

from typing import Any

import numpy as np

from pluralign.report.words import listed, percent
from pluralign.types import Decisions

Row = dict[str, Any]


def decisions(found: Decisions | None) -> Row | None:
    """Return what is known of rules' decisions, in numbers and sentences; None if there is nothing.

    `likeliest` is the probability of the most probable winner, `decided` counts prompts on which it reaches `enough`,
    `differs` is the probability that a draw decides otherwise than posterior means do, and `ignorance` that two draws
    decide differently; `apart[a][b]` is the probability that rules a and b decide differently in the same draw. All are
    means over prompts.
    """
    if found is None:
        return None
    rows = [
        {
            "rule": d.name,
            "likeliest": float(d.likeliest.mean()),
            "lowest": float(d.likeliest.min()),
            "highest": float(d.likeliest.max()),
            "decided": int(d.decided.sum()),
            "differs": float(d.differs.mean()),
            "ignorance": float(d.ignorance.mean()),
        }
        for d in found.rules
    ]
    table: Row = {
        "rules": [d.name for d in found.rules],
        "rows": rows,
        "apart": [[float(a.apart(b).mean()) for b in found.rules] for a in found.rules],
        "reasons": found.reasons,
        "enough": found.rules[0].enough if found.rules else None,
        "draws": len(found.rules[0].shares) if found.rules else None,
        "prompts": len(found.rules[0].plug_in) if found.rules else None,
    }
    return table | {"sentences": _sentences(table)}


def _sentences(table: Row) -> list[str]:
    """Return whether the data decide, and which of ignorance and the choice of rule matters more."""
    if not table["rows"]:
        return []
    return [_decided(table), *([_outweighs(table)] if len(table["rows"]) > 1 and table["draws"] > 1 else [])]


def _decided(table: Row) -> str:
    prompts, enough = table["prompts"], f"{table['enough']:g}"
    open_on = [prompts - row["decided"] for row in table["rows"]]
    low, high = min(open_on), max(open_on)
    of = f"of {prompts} prompt{'' if prompts == 1 else 's'}"
    if not high:
        return f"The data decide on every one {of}: some candidate wins with probability {enough} or more."
    span = f"{low} {of}" if low == high else f"{low} to {high} {of}, depending on the rule"
    return f"The data do not decide on {span}: there no candidate wins with probability {enough}."


def _outweighs(table: Row) -> str:
    apart, names = np.array(table["apart"]), table["rules"]
    pairs = np.triu_indices(len(names), 1)
    between, within = apart[pairs].mean(), float(np.mean([row["ignorance"] for row in table["rows"]]))
    most = int(apart[pairs].argmax())
    a, b = names[pairs[0][most]], names[pairs[1][most]]
    verdict = "ignorance outweighs the choice of rule" if within > between else "the choice of rule outweighs ignorance"
    far = f" ({listed([a, b])}: {percent(float(apart[pairs][most]))})" if len(names) > 2 else ""
    return (
        f"Two posterior draws decide differently in {percent(within)} of cases under the same rule, and two rules in "
        f"{percent(float(between))} in the same draw{far}: {verdict}."
    )
