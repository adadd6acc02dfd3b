"""Many rules on one posterior, as a table for the terminal, a figure, and every number in one file."""

from dataclasses import dataclass
from pathlib import Path
from textwrap import fill
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from rich.console import Group
from rich.table import Table
from rich.text import Text
from scipy.cluster.hierarchy import leaves_list, linkage
from scipy.spatial.distance import squareform

from pluralign import artifacts
from pluralign.report.figures import INK, PALETTE, STYLE, _interval, _legend, _short, colours
from pluralign.report.words import decimals, interval, number, percent

Row = dict[str, Any]
NAME = "compare"
COLUMNS = 80
WHITE = "#ffffff"


@dataclass(frozen=True, eq=False)
class Comparison:
    """What every rule makes of one posterior; printed by rich, it is the tables and sentences for the terminal.

    Attributes:
        tables: all numbers, as plain objects.
        json: the same in a file.
        figures: the figure in two formats.
    """

    tables: Row
    json: Path
    figures: tuple[Path, ...]

    def __rich__(self) -> Group:
        """Return the tables, no wider than 80 columns, and what to remember of them."""
        t = self.tables
        told = [*(t["decisions"]["sentences"]), *(f"† {caveat}" for caveat in t["caveats"])]
        told += [f"{rule}: no {what}. {why}" for rule, what, why in _missing(t)]
        unit = f"gain over the reference with 90 % interval; unit: {t['unit']}"
        demands = ["P(demand): that the rule's lottery meets it; !: broken as it is stated"] if t["demands"] else []
        return Group(*_blocks(t), *(Text(line) for line in [unit, *demands, "", *told]))


def compared(tables: Row, out: str | Path) -> Comparison:
    """Write `compare.json`, `compare.svg` and `compare.png` into a folder.

    Args:
        tables: `rules` (names in order), `gains` (rows of rule, group, gain, probability_of_gain), `reasons` (why a
            rule has no lottery), `decisions` (see `report.decisions`), `demands` (rows of rule, demand, of, kept,
            probability), `unit`, `caveats`.
        out: the folder; made if it is not there.
    """
    folder = Path(out)
    tables = artifacts.plain(tables)
    json = artifacts.write_json(folder / f"{NAME}.json", tables)
    with matplotlib.rc_context(STYLE | {"savefig.transparent": False}):
        figure = draw(tables)
        paths = tuple(folder / f"{NAME}.{form}" for form in ("svg", "png"))
        for path in paths:
            figure.savefig(path, dpi=160, metadata={"Date": None} if path.suffix == ".svg" else None)
    return Comparison(tables, json, paths)


def _missing(tables: Row) -> list[tuple[str, str, str]]:
    """Return rules without a lottery or without decisions, what they lack, and why; one line if both for one reason."""
    lottery, decision = tables["reasons"], tables["decisions"]["reasons"]
    both = {rule for rule in lottery if lottery[rule] == decision.get(rule)}
    return [
        *((rule, "lottery and no decision" if rule in both else "lottery", why) for rule, why in lottery.items()),
        *((rule, "decision in every draw", why) for rule, why in decision.items() if rule not in both),
    ]


def _blocks(tables: Row) -> list[Table]:
    """Return the table, in as many blocks of columns as its width needs."""
    decided = {row["rule"]: row for row in tables["decisions"]["rows"]}
    gain = {(row["rule"], row["group"]): row["gain"] for row in tables["gains"]}
    places = decimals(gain.values())
    groups = list(dict.fromkeys(group for _, group in gain))
    names = tables["rules"]

    def known(how) -> list[str]:
        return [how(decided[name]) if name in decided else "n/a" for name in names]

    columns = {
        "likeliest\nwinner": known(lambda row: number(row["likeliest"], 2)),
        "decided": known(lambda row: f"{row['decided']} of {tables['decisions']['prompts']}"),
        "not the\nplug-in": known(lambda row: percent(row["differs"])),
        "two draws\ndiffer": known(lambda row: percent(row["ignorance"])),
    } | {
        _short(group, 20): [interval(gain.get((name, group)), places, sign=True) for name in names]
        for group in sorted(groups, key=lambda g: g != "everyone")
    }
    columns |= _demands(tables["demands"], names)
    blocks: list[dict[str, list[str]]] = []
    free = 0
    for head, cells in columns.items():
        width = 1 + max(len(line) for text in (head, *cells) for line in text.split("\n"))
        if width > free:
            blocks.append({})
            free = COLUMNS - max(map(len, names))
        blocks[-1][head] = cells
        free -= width
    return [_block(names, block) for block in blocks]


def _demands(rows: list[Row], names: list[str]) -> dict[str, list[str]]:
    """Return a column for every demand: how probable it is that a rule's lottery meets it."""
    cells = {
        (row["rule"], row["demand"]): percent(row["probability"]) + ("" if row["kept"] else " !")
        for row in rows
        if row["of"] == "lottery"
    }
    demands = dict.fromkeys(demand for _, demand in cells)
    return {f"P({_short(demand, 24)})": [cells.get((name, demand), "n/a") for name in names] for demand in demands}


def _block(names: list[str], columns: dict[str, list[str]]) -> Table:
    table = Table(box=None, pad_edge=False, collapse_padding=True, header_style="bold")
    table.add_column("rule", no_wrap=True)
    for head in columns:
        table.add_column(Text(head), justify="right", no_wrap=True)
    for name, *cells in zip(names, *columns.values(), strict=True):
        table.add_row(Text(name), *map(Text, cells))
    return table


def draw(tables: Row) -> Figure:
    """Return the figure: how often rules, and draws, decide differently; and what each rule gives to each group."""
    found, names = tables["decisions"], tables["rules"]
    groups = list(dict.fromkeys(row["group"] for row in tables["gains"]))
    alike = [found["rules"][i] for i in _alike(np.array(found["apart"]))]
    order = alike + [name for name in names if name not in alike]
    many = len(order) > 8
    row = max(0.3 if many else 0.42, 0.11 * len(groups) + 0.12)
    width = (0.32 if many else 0.55) * max(len(alike), 3)
    figure = Figure(figsize=(2 + width + 3.6, 1.9 + row * len(order)), layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True, width_ratios=[width, 3.4])
    _matrix(left, found, alike, 6.5 if many else 8)
    left.set_yticks(range(len(order)), [_short(name) for name in order])
    left.set_ylim(len(order) - 0.5, -0.5)
    _gains(right, tables["gains"], order, groups)
    right.set_xlabel(f"gain over the reference\n(unit: {fill(tables['unit'], 50)})", linespacing=1.5)
    if len(groups) > 1:
        _legend(figure, colours(groups))
    return figure


def _gains(axes: Axes, rows: list[Row], order: list[str], groups: list[str]) -> None:
    """Draw a dot and an interval for each rule and group, a line of its own for each rule."""
    colour, step = colours(groups), 0.8 / max(len(groups), 1)
    for row in rows:
        place = order.index(row["rule"]) + (groups.index(row["group"]) - (len(groups) - 1) / 2) * step
        _interval(axes, row["gain"], place, colour[row["group"]], size=4)
    for y, name in enumerate(order):
        axes.axhline(y + 0.5, color="#ececec", linewidth=0.8)
        if name not in {row["rule"] for row in rows}:
            at = ("axes fraction", "data")
            axes.annotate("no lottery: see the table", (0.02, y), xycoords=at, va="center", color="#777777")
    axes.axvline(0, color=INK, linewidth=0.9)
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="y", visible=False)
    axes.set_title("What each rule gives, with 90 % intervals", loc="left", size=9, weight="bold")


def _matrix(axes: Axes, found: Row, order: list[str], size: float) -> None:
    """Fill in how often two rules decide differently in the same draw, and on the diagonal two draws under a rule."""
    n = len(order)
    place = [found["rules"].index(name) for name in order]
    share = np.array(found["apart"]).reshape(n, n)[np.ix_(place, place)]
    own = [found["rows"][i]["ignorance"] for i in place]
    np.fill_diagonal(share, [np.nan if value is None else value for value in own])
    diagonal = np.eye(n, dtype=bool)
    edges = np.arange(n + 1) - 0.5
    for part, dark in ((~diagonal, PALETTE[1]), (diagonal, PALETTE[0])):
        shades = LinearSegmentedColormap.from_list("shades", [WHITE, dark])
        values = np.ma.masked_where(~part | np.isnan(share), share)
        axes.pcolormesh(edges, edges, values, cmap=shades, vmin=0, vmax=1.25, edgecolors=WHITE, linewidth=0.8)
    for (y, x), value in np.ndenumerate(share):
        text = "n/a" if np.isnan(value) else f"{100 * value:.0f}"
        axes.text(x, y, text, ha="center", va="center", size=size, color=INK, weight="bold" if x == y else "normal")
    axes.set_xticks(range(n), [_short(name) for name in order], rotation=60, ha="left", rotation_mode="anchor")
    axes.xaxis.tick_top()
    axes.tick_params(length=0)
    axes.grid(visible=False)
    axes.spines[:].set_visible(False)
    axes.set_xlabel(
        "% of decisions that differ: between two rules in the same draw;\nblue: between two draws under the same rule"
    )


def _alike(apart: np.ndarray) -> list[int]:
    """Return an order in which rules that decide alike stand together."""
    if len(apart) < 3:
        return list(range(len(apart)))
    return leaves_list(linkage(squareform(apart, checks=False), "average", optimal_ordering=True)).tolist()
