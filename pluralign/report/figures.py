"""Figures as inline SVG, drawn from the tables of the report and nothing else."""

import io
import re
import warnings
from collections.abc import Callable, Iterable
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from pluralign.report.groups import EVERYONE
from pluralign.report.words import centre

# Okabe and Ito's palette (2008), told apart by people with any kind of colour vision; yellow is too pale on white.
PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
INK, FAINT = "#222222", "#b8b8b8"
STYLE: Any = {
    "svg.fonttype": "none",  # text stays text: searchable, read aloud, small
    "svg.hashsalt": "pluralign",  # the same numbers make the same file
    "savefig.transparent": True,
    "text.parse_math": False,  # names are not formulas
    "font.family": "sans-serif",
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": FAINT,
    "axes.labelcolor": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "axes.grid": True,
    "grid.color": "#ececec",
    "axes.axisbelow": True,
}
Row = dict[str, Any]
WIDTH = 7.2  # inches
MANY = 300  # marks of one kind in a figure; more are thinned out evenly
POINTS = 40  # of a training curve at most; each is a mean over neighbouring steps


def colours(names: Iterable[str]) -> dict[str, str]:
    """Give each name a colour."""
    return {name: PALETTE[i % len(PALETTE)] for i, name in enumerate(dict.fromkeys(names))}


def draw(height: float, paint: Callable[[Figure], None], salt: str) -> str:
    """Return a figure of this height (inches) as an SVG element, whose ids are its own among others on the page."""
    with matplotlib.rc_context(STYLE | {"svg.hashsalt": salt}), warnings.catch_warnings():
        # A name in a script that matplotlib's own font lacks is drawn by the reader's browser all the same.
        warnings.filterwarnings("ignore", message="Glyph .* missing from", category=UserWarning)
        figure = Figure(figsize=(WIDTH, height), layout="constrained")
        paint(figure)
        out = io.StringIO()
        figure.savefig(out, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    svg = out.getvalue()
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r'\b(id="|href="#|url\(#)', rf"\g<1>{salt}-", svg)
    return re.sub(r'^<svg [^>]*?viewBox="([^"]*)"[^>]*>', r'<svg viewBox="\1" aria-hidden="true">', svg, count=1)


def gains(rows: list[Row], rules: list[str], unit: str, base: str, salt: str) -> str:
    """Dot and interval per group and rule, gain over `base`; a diamond is the true gain."""
    groups = list(dict.fromkeys(row["group"] for row in rows))
    colour = colours([*rules, *(row["rule"] for row in rows)])
    height = 0.75 + 0.23 * len(rows) + 0.2 * len(groups)

    def paint(figure: Figure) -> None:
        axes = figure.add_subplot()
        y, ticks, labels = 0.0, [], []
        for group in groups:
            mine = [row for row in rows if row["group"] == group]
            heading = group if group == EVERYONE else f"{group} ({100 * mine[0]['share']:.0f} % of the vote)"
            axes.annotate(
                _short(heading, 60), (0, y), xycoords=("axes fraction", "data"), xytext=(4, 0),
                textcoords="offset points", weight="bold", va="center", zorder=6,
                bbox={"facecolor": "white", "edgecolor": "none", "pad": 1},
            )  # fmt: skip
            for row in mine:
                y += 1
                _interval(axes, row["gain"], y, colour[row["rule"]])
                _diamond(axes, centre(row["true_gain"]), y)
                ticks.append(y)
                labels.append(_short(row["rule"]))
            y += 1.1
        axes.set_yticks(ticks, labels)
        axes.tick_params(axis="y", length=0)
        axes.grid(axis="y", visible=False)
        axes.set_ylim(y - 0.4, -0.6)
        axes.axvline(0, color=INK, linewidth=0.9)
        axes.set_xlabel(_unit(f"gain over {base}", unit), linespacing=1.5)

    return draw(height, paint, salt)


def individuals(tables: list[Row], groups: list[str], unit: str, salt: str) -> str:
    """One dot per voter: its expected gain under each rule, by group."""
    colour = colours(groups)
    height = 0.6 + len(tables) * (0.42 + 0.24 * len(groups))

    def paint(figure: Figure) -> None:
        every = figure.subplots(len(tables), 1, sharex=True, squeeze=False)[:, 0]
        for axes, table in zip(every, tables, strict=True):
            label = np.array(table["group"], dtype=object)
            for y, group in enumerate(groups):
                gain = _thin(np.sort(np.array(table["gain"])[label == group]))
                # Neighbours in the sorted order go to different heights, so dots of equal gain do not hide each other.
                jitter = 0.3 * np.array([-1, 0.5, -0.5, 1, 0])[np.arange(len(gain)) % 5]
                axes.scatter(gain, y + jitter, s=11, color=colour[group], alpha=0.75, linewidths=0)
            axes.axvline(0, color=INK, linewidth=0.9)
            axes.set_yticks(range(len(groups)), [_short(g) for g in groups])
            axes.set_ylim(len(groups) - 0.45, -0.55)
            axes.tick_params(axis="y", length=0)
            axes.grid(axis="y", visible=False)
            axes.set_title(
                f"{_short(table['rule'])}: {table['losers']} of {table['voters']} lose",
                loc="left",
                size=9,
                weight="bold",
            )
        every[-1].set_xlabel(_unit("expected gain over the reference", unit), linespacing=1.5)

    return draw(height, paint, salt)


def scores(rows: list[Row], salt: str) -> str:
    """Held-out log loss of each model."""

    def paint(figure: Figure) -> None:
        axes = figure.add_subplot()
        for y, row in enumerate(rows):
            _interval(
                axes,
                {"mean": row["log_loss"], "low": row["low"], "high": row["high"]},
                y,
                PALETTE[0] if y == 0 else "#666666",
            )
        axes.set_yticks(range(len(rows)), [_short(row["model"], 34) for row in rows])
        axes.tick_params(axis="y", length=0)
        axes.grid(axis="y", visible=False)
        axes.set_ylim(len(rows) - 0.5, -0.5)
        axes.set_xlabel("held-out log loss (nats per judgement; lower is better)")

    return draw(0.65 + 0.3 * len(rows), paint, salt)


def calibration(curves: list[Row], salt: str) -> str:
    """Share of wins of the first beside the predicted probability; grey bars: nine tenths of what chance makes."""
    colour = dict(zip((curve["of"] for curve in curves), ("#8a8a8a", PALETTE[0]), strict=False))
    last = curves[-1]

    def paint(figure: Figure) -> None:
        axes = figure.add_subplot()
        p, count = np.array(last["predicted"]), np.array(last["count"])
        chance = 1.6449 * np.sqrt(p * (1 - p) / count)
        axes.plot([0, 1], [0, 1], color=FAINT, linewidth=1)
        axes.vlines(p, np.maximum(p - chance, 0), np.minimum(p + chance, 1), color="#dddddd", linewidth=7)
        for curve in curves:
            shade, size = colour[curve["of"]], 10 + 90 * np.array(curve["count"]) / max(curve["count"])
            axes.plot(curve["predicted"], curve["observed"], color=shade, linewidth=1, alpha=0.6)
            axes.scatter(curve["predicted"], curve["observed"], s=size, color=shade, linewidths=0, zorder=3)
        axes.set_xlim(0, 1)
        axes.set_ylim(0, 1)
        axes.set_xlabel("predicted probability that the first wins (dots: area by number of judgements)")
        axes.set_ylabel("share that it won")
        told = {f"{c['of']}: error {c['error']:.3f}, by chance {c['by_chance']:.3f}": colour[c["of"]] for c in curves}
        _legend(figure, told, most=60)

    return draw(3.6, paint, salt)


def forest(table: Row, objective: str, salt: str) -> str:
    """Posterior weight of each shown feature in each group."""
    groups, features = table["groups"], table["shown"]
    colour = colours(groups)
    step = len(groups) + 0.8
    height = 0.75 + len(features) * (0.17 + 0.13 * len(groups))

    def paint(figure: Figure) -> None:
        axes = figure.add_subplot()
        for row in table["weights"]:
            if row["objective"] == objective and row["feature"] in features:
                y = features.index(row["feature"]) * step + groups.index(row["group"])
                _interval(axes, row, y, colour[row["group"]], size=4)
                _diamond(axes, row["true"], y, size=16)
        axes.axvline(0, color=INK, linewidth=0.9)
        axes.set_yticks(
            [f * step + (len(groups) - 1) / 2 for f in range(len(features))], [_short(f, 26) for f in features]
        )
        axes.tick_params(axis="y", length=0)
        axes.grid(axis="y", visible=False)
        axes.set_ylim(len(features) * step - 0.6, -1)
        axes.set_xlabel(f"weight ({table['unit']})")
        if len(groups) > 1:
            _legend(figure, {g: colour[g] for g in groups})

    return draw(height, paint, salt)


def lapses(rows: list[Row], salt: str) -> str:
    """Probability of a random answer, annotators sorted; those that were simulated as careless stand out."""
    shown = [rows[i] for i in _thin(np.arange(len(rows)))]

    def paint(figure: Figure) -> None:
        axes = figure.add_subplot()
        for careless, colour in ((False, PALETTE[0]), (True, PALETTE[1])):
            mine = [(x, row) for x, row in enumerate(shown, 1) if bool(row["careless"]) == careless]
            if mine:
                x = [place for place, _ in mine]
                axes.vlines(
                    x, [r["low"] for _, r in mine], [r["high"] for _, r in mine], color=colour, linewidth=1.3, alpha=0.7
                )
                axes.scatter(x, [r["mean"] for _, r in mine], s=14, color=colour, zorder=3, linewidths=0)
        axes.set_ylim(0, 1)
        axes.set_xlim(0, len(shown) + 1)
        axes.set_xticks([])
        axes.set_xlabel(
            f"{len(shown)}{'' if len(shown) == len(rows) else f' of {len(rows)}'} annotators, the least reliable first"
        )
        axes.set_ylabel("probability of\na random answer")
        if any(row["careless"] for row in shown):
            _legend(figure, {"simulated as careless": PALETTE[1], "simulated as careful": PALETTE[0]})

    return draw(2.6, paint, salt)


CURVES = (("loss", "accuracy", "margin"), ("reward", "kl", "objective"))  # of DPO, of PPO; the last tells them apart


def training(history: dict[str, list[Row]], rules: list[str], salt: str) -> str:
    """Metrics of training, one panel each, one line per policy; a row for each way of training."""
    rows = []
    for known in CURVES:
        these = {name: records for name, records in history.items() if any(known[-1] in r for r in records)}
        if these:
            rows.append((known, these))
    rest = {name: records for name, records in history.items() if not any(name in these for _, these in rows)}
    if rest:
        have = {metric for records in rest.values() for record in records for metric in record}
        rows.append((sorted(have - {"step", "seconds"})[:3], rest))
    colour = colours([*rules, *history])

    def paint(figure: Figure) -> None:
        every = figure.subplots(len(rows), max(len(metrics) for metrics, _ in rows), squeeze=False)
        for line, (metrics, these) in zip(every, rows, strict=True):
            for axes in line[len(metrics) :]:
                axes.set_axis_off()
            for axes, metric in zip(line, metrics, strict=False):
                for name, records in these.items():
                    told = enumerate(records, 1)
                    points = [(r.get("step", i), r[metric]) for i, r in told if r.get(metric) is not None]
                    size = -(-len(points) // POINTS) or 1
                    blocks = [np.mean(points[i : i + size], axis=0) for i in range(0, len(points), size)]
                    x, y = zip(*blocks, strict=True) if blocks else ((), ())
                    axes.plot(x, y, color=colour[name], linewidth=1.4, marker="o" if len(blocks) == 1 else None)
                axes.set_title(metric, loc="left", size=9, weight="bold")
                axes.set_xlabel("step")
        _legend(figure, {name: colour[name] for name in history})

    return draw(0.3 + 2.2 * len(rows), paint, salt)


def _interval(axes: Axes, estimate: Row, y: float, colour: str, size: float = 5) -> None:
    axes.plot([estimate["low"], estimate["high"]], [y, y], color=colour, linewidth=1.8, solid_capstyle="butt")
    axes.plot([estimate["mean"]], [y], "o", color=colour, markersize=size)


def _diamond(axes: Axes, value: float | None, y: float, size: float = 26) -> None:
    if value is not None:
        axes.scatter([value], [y], marker="D", s=size, facecolors="white", edgecolors=INK, linewidths=1.2, zorder=5)


def _legend(figure: Figure, colour: dict[str, str], most: int = 24) -> None:
    """Write the names in their colours above the figure."""
    handles = [Line2D([], [], color=c, marker="o", linewidth=1.8, markersize=5) for c in colour.values()]
    names = [_short(name, most) for name in colour]
    figure.legend(
        handles,
        names,
        loc="outside upper left",
        ncols=min(4, len(names)),
        frameon=False,
        labelcolor=list(colour.values()),
    )


def _thin(values: np.ndarray) -> np.ndarray:
    """Return at most `MANY` of sorted values, evenly placed, with both ends."""
    if len(values) <= MANY:
        return values
    return values[np.linspace(0, len(values) - 1, MANY).round().astype(int)]


def _short(text: str, most: int = 24) -> str:
    text = " ".join(text.split())
    return text if len(text) <= most else text[: most - 1] + "…"


def _unit(what: str, unit: str) -> str:
    return f"{what}\n(unit: {_short(unit, 90)})"
