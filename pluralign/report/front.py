"""The Pareto front as a picture: what each policy gives to each group, and who stays behind."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from pluralign import artifacts
from pluralign.report import figures
from pluralign.report.figures import FAINT, INK, PALETTE, STYLE, WIDTH, _short, _unit
from pluralign.report.words import interval, number, percent

Row = dict[str, Any]
NAMED = 12  # policies that are named; of more, those on the front, and of those, evenly many
OFF = "#8a8a8a"
SHADE = "#e8f1f8"


def drawn(table: Row, out: str | Path, unit: str = "utility", base: str = "the base model") -> tuple[Path, Path]:
    """Write the picture of a front as `front.svg` and `front.png`, and its numbers as `front.json`, into a folder.

    Args:
        table: `groups`, `reference`, `volume` and `points` with name, on, share, worst and welfare per group (mean,
            low, high), as `policy.Front.table` returns them; gains over `base` if `reference` is 0.
        out: the folder; made if it is not there.
        unit: of welfare.
        base: what the reference point is.

    Returns:
        The two pictures.
    """
    folder = Path(out)
    artifacts.write_json(folder / "front.json", table)
    paths = folder / "front.svg", folder / "front.png"
    with matplotlib.rc_context(STYLE | {"savefig.transparent": False}):
        figure = draw(table, unit, base)
        for path in paths:
            figure.savefig(path, dpi=160, metadata={"Date": None} if path.suffix == ".svg" else None)
    return paths


def draw(table: Row, unit: str = "utility", base: str = "the base model") -> Figure:
    """Return the figure: two groups as a plane with the dominated area, more as parallel axes."""
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(WIDTH, _height(table)), layout="constrained")
        _paint(figure, table, unit, base)
    return figure


def element(table: Row, unit: str, base: str, salt: str, colours: Mapping[str, str]) -> str:
    """Return the figure as an SVG element of a page, with the ids and the policies' colours that are right there."""
    return figures.draw(_height(table), lambda figure: _paint(figure, table, unit, base, colours), salt)


def _height(table: Row) -> float:
    return 5.2 if len(table["groups"]) == 2 else 4.6


def _paint(figure: Figure, table: Row, unit: str, base: str, colours: Mapping[str, str] | None = None) -> None:
    axes = figure.add_subplot()
    on, volume = sum(p["on"] for p in table["points"]), table["volume"]
    size = number(volume["mean"]) if volume["low"] == volume["high"] else interval(volume)
    title = f"{on} of {len(table['points'])} policies are on the front; hypervolume over {_short(base, 30)} {size}"
    axes.set_title(title, loc="left", size=9, weight="bold")
    if len(table["groups"]) == 2:
        _plane(axes, table, unit, base)
    else:
        _parallel(axes, table, unit, base, colours or {})


def _plane(axes: Axes, table: Row, unit: str, base: str) -> None:
    corner, points = np.array(table["reference"]), table["points"]
    mean = np.array([[w["mean"] for w in p["welfare"]] for p in points])
    on = np.array([p["on"] for p in points])
    front = mean[on][np.argsort(mean[on][:, 0])]
    ends = np.array([[[w["low"], w["high"]] for w in p["welfare"]] for p in points])
    least, most = (f(np.concatenate([*ends.transpose(0, 2, 1), mean, corner[None]]), axis=0) for f in (np.min, np.max))
    room = 0.06 * np.maximum(most - least, 1e-9)
    axes.set_xlim(least[0] - room[0], most[0] + 3 * room[0])
    axes.set_ylim(least[1] - room[1], most[1] + 1.5 * room[1])

    above = np.unique(front[(front > corner).all(1)], axis=0)
    if len(above):
        # The union of boxes: from the left, at the height of the next point to the right.
        x = np.concatenate([[corner[0]], above[:, 0]])
        axes.fill_between(x, corner[1], np.append(above[:, 1], above[-1, 1]), step="post", color=SHADE, linewidth=0)
        axes.step(
            [corner[0], *above[:, 0], above[-1, 0]], [above[0, 1], *above[:, 1], corner[1]],
            where="pre", color=PALETTE[0], linewidth=1.2, alpha=0.7,
        )  # fmt: skip
    for value, line in zip(corner, (axes.axvline, axes.axhline), strict=True):
        line(value, color=INK, linewidth=0.9)

    # Along this line both groups gain alike; on the angle through a policy its worse-off group has the same.
    reach = np.array([-10, 10]) * np.abs(most - least).max()
    axes.plot(corner[0] + reach, corner[1] + reach, color=FAINT, linewidth=1, linestyle=(0, (5, 4)), zorder=1)
    best = max(points, key=lambda p: p["worst"])
    level = corner + best["worst"]
    axes.plot([1e9, level[0], level[0]], [level[1], level[1], 1e9], color=PALETTE[1], linewidth=1, linestyle=":")
    for (x, y), (across, up), kept in zip(mean, ends, on, strict=True):
        colour = PALETTE[0] if kept else OFF
        axes.plot(across, [y, y], color=colour, linewidth=0.8, alpha=0.6, zorder=2)
        axes.plot([x, x], up, color=colour, linewidth=0.8, alpha=0.6, zorder=2)
        axes.plot([x], [y], "o", color=colour if kept else "white", markeredgecolor=colour, markersize=5.5, zorder=4)
    names = [_short(g, 30) for g in table["groups"]]
    axes.set_xlabel(
        f"{names[0]}: {_unit(_over(corner, base), unit)}\n"
        "dashed: both gain alike\n"
        f"dotted: the worse-off group gains as much as under {_short(best['name'])} "
        f"({number(best['worst'], sign=True)})",
        linespacing=1.5,
    )
    axes.set_ylabel(f"{names[1]}: {_over(corner, base)}")
    _names(axes, mean, points)  # last: where they fit hangs on the layout


def _names(axes: Axes, mean: np.ndarray, points: list[Row]) -> None:
    """Write names beside points, each where it covers least of other names and points."""
    figure: Any = axes.figure
    figure.draw_without_rendering()
    at = axes.transData.transform(mean) * 72 / figure.dpi  # in points of print
    frame = axes.bbox.get_points() * 72 / figure.dpi
    taken = [(x - 4, y - 4, x + 4, y + 4) for x, y in at]
    for i in _shown(points):
        text = _label(points[i])
        wide, high, (x, y) = 4.6 * len(text) + 2, 10, at[i]
        places = [(x + 6, y + 4), (x + 6, y - 13), (x - 6 - wide, y + 4), (x - 6 - wide, y - 13)]
        places += [(x - wide / 2, y + 9), (x - wide / 2, y - 19)]
        boxes = [(a, b, a + wide, b + high) for a, b in places]
        cost = [sum(_common(box, other) for other in taken) + 3 * _outside(box, frame) for box in boxes]
        k = int(np.argmin(cost))
        taken.append(boxes[k])
        shift = (places[k][0] - x, places[k][1] - y)
        colour = INK if points[i]["on"] else OFF
        axes.annotate(text, mean[i], shift, textcoords="offset points", size=8, color=colour, zorder=6)


def _parallel(axes: Axes, table: Row, unit: str, base: str, colours: Mapping[str, str]) -> None:
    corner, points, groups = np.array(table["reference"]), table["points"], table["groups"]
    gain = np.array([[w["mean"] for w in p["welfare"]] for p in points]) - corner
    low = np.array([[w["low"] for w in p["welfare"]] for p in points]) - corner
    high = np.array([[w["high"] for w in p["welfare"]] for p in points]) - corner
    at = np.arange(len(groups))
    axes.axhline(0, color=INK, linewidth=0.9)
    shown = _shown(points)
    on = [i for i in shown if points[i]["on"]]
    colour = {i: colours.get(points[i]["name"], PALETTE[k % len(PALETTE)]) for k, i in enumerate(on)}
    for i, point in enumerate(points):
        own = colour.get(i, PALETTE[0] if point["on"] else FAINT)
        aside = 0.16 * (i / max(len(points) - 1, 1) - 0.5)
        axes.plot(at + aside, gain[i], color=own, linewidth=1.5 if point["on"] else 1, zorder=3 if point["on"] else 2)
        axes.vlines(at + aside, low[i], high[i], color=own, linewidth=0.8, alpha=0.7, zorder=2)
        worst = int(gain[i].argmin())
        axes.plot(at[worst] + aside, gain[i, worst], "o", color="white", markeredgecolor=own, markersize=6, zorder=4)
    best = max(points, key=lambda p: p["worst"])
    axes.axhline(best["worst"], color=PALETTE[1], linewidth=1, linestyle=":")
    axes.set_xticks(at, [_short(g, 22) for g in groups])
    axes.set_xlim(-0.25, len(groups) - 1 + 0.2 * len(groups) + 0.25)
    axes.grid(axis="x", visible=True)
    axes.set_ylabel(_over(corner, base))
    axes.set_xlabel(
        f"{_unit('rings: the group that gains least; dotted: the most that it has anywhere', unit)}", linespacing=1.5
    )
    least, most = axes.get_ylim()
    step = 0.045 * (most - least)
    # Names in the order of their ends, pushed apart where they would touch.
    ends = sorted(shown, key=lambda i: gain[i, -1])
    height = np.array([gain[i, -1] for i in ends])
    for k in range(1, len(height)):
        height[k] = max(height[k], height[k - 1] + step)
    height -= max(height[-1] - (most - step / 2), 0) if len(height) else 0
    for i, y in zip(ends, height, strict=True):
        aside = 0.16 * (i / max(len(points) - 1, 1) - 0.5)
        axes.plot([at[-1] + aside, at[-1] + 0.14], [gain[i, -1], y], color=FAINT, linewidth=0.7, zorder=1)
        axes.text(at[-1] + 0.16, y, _label(points[i]), color=colour.get(i, OFF), size=8, va="center")


def _shown(points: list[Row]) -> list[int]:
    """Return which policies are named: all, or those on the front and the best for the worst-off, thinned out."""
    if len(points) <= NAMED:
        return list(range(len(points)))
    best = max(range(len(points)), key=lambda i: points[i]["worst"])
    on = [i for i, p in enumerate(points) if p["on"]]
    on.sort(key=lambda i: points[i]["welfare"][0]["mean"])
    kept = {on[int(k)] for k in np.linspace(0, len(on) - 1, min(NAMED - 1, len(on))).round()}
    return sorted(kept | {best})


def _label(point: Row) -> str:
    """Return a policy's name, with the share of draws in which it is on the front if that is not certain."""
    sure = point["share"] in (0, 1)
    return _short(point["name"]) + ("" if sure else f" ({percent(point['share'])})")


def _over(corner: np.ndarray, base: str) -> str:
    return f"gain over {_short(base, 30)}" if not corner.any() else "welfare"


def _common(a: tuple[float, ...], b: tuple[float, ...]) -> float:
    """Return the area that two boxes share."""
    return max(min(a[2], b[2]) - max(a[0], b[0]), 0) * max(min(a[3], b[3]) - max(a[1], b[1]), 0)


def _outside(box: tuple[float, ...], frame: np.ndarray) -> float:
    inside = _common(box, (*frame[0], *frame[1]))
    return (box[2] - box[0]) * (box[3] - box[1]) - inside
