"""The end of a run in the terminal."""

from typing import Any

from rich.table import Table
from rich.text import Text

from pluralign.report.words import centre, decimals, interval, number
from pluralign.types import Report


def summary_table(report: Report) -> Table:
    """Return who gains under each rule, as a table that fits 80 columns.

    First what each rule's lottery over the candidates gives to each group, then what the trained policies give; gains
    carry 90 % intervals, and the true gain stands beside where it is known. Caveats stand below the table.
    """
    tables = report.tables
    chosen, trained = tables["rules"]["welfare"], tables["policies"]["welfare"]
    known = any(row["true_gain"] is not None for row in (*chosen, *trained))
    mark = " †" if report.caveats else ""
    title = f"Welfare of groups before and after, and gain with 90 % interval{mark}"
    caveats = (f"† {caveat}" for caveat in tables["caveats"]["policies"])
    caption = "\n".join([f"unit: {tables['rules']['scale']}", *caveats])
    table = Table(
        title=Text(title), caption=Text(caption), title_justify="left", caption_justify="left", box=None, width=None
    )
    table.add_column("rule", max_width=18, no_wrap=True, overflow="ellipsis")
    table.add_column("group", max_width=14, no_wrap=True, overflow="ellipsis")
    for name in ("before", "after", "gain [90 %]", *(["true"] if known else [])):
        table.add_column(Text(name), justify="right", no_wrap=True)
    places = decimals(row["gain"] for row in chosen)
    for kind, rows in (("", chosen), ("policy ", trained)):
        for i, row in enumerate(rows):
            first = i == 0 or rows[i - 1]["rule"] != row["rule"]
            last = i + 1 == len(rows) or rows[i + 1]["rule"] != row["rule"]
            cells = _cells(row, places) + ([Text(number(centre(row["true_gain"]), places, sign=True))] if known else [])
            table.add_row(Text(f"{kind}{row['rule']}" if first else ""), Text(row["group"]), *cells, end_section=last)
    return table


def _cells(row: dict[str, Any], places: int) -> list[Text]:
    gain = row["gain"]
    style = "green" if gain["low"] > 0 else "red" if gain["high"] < 0 else ""
    return [
        Text(number(row["before"]["mean"], places)),
        Text(number(row["after"]["mean"], places)),
        Text(interval(gain, places, sign=True), style=style),
    ]
