import json

import numpy as np
import pytest
from matplotlib.colors import to_hex
from PIL import Image

from pluralign.report import front
from pluralign.report.figures import PALETTE


def make(welfare, names, groups, share=1.0):
    """A table as the policy room writes it; which points are on the front is worked out here by brute force."""
    u = np.asarray(welfare, float)
    on = [not any((q >= p).all() and (q > p).any() for q in u) for p in u]
    points = [
        {
            "name": name,
            "on": kept,
            "share": share,
            "worst": float(p.min()),
            "welfare": [{"mean": x, "low": x - 0.05, "high": x + 0.05} for x in p],
        }
        for name, kept, p in zip(names, on, u, strict=True)
    ]
    volume = {"mean": 0.5, "low": 0.4, "high": 0.6}
    return {"groups": list(groups), "reference": [0.0] * len(groups), "points": points, "volume": volume}


PLANE = make(
    [[1.0, 0.2], [0.7, 0.6], [0.2, 0.9], [0.5, 0.5]], ("utilitarian", "nash", "maximin", "borda"), ("old", "young")
)


def drawing(table):
    figure = front.draw(table)
    figure.draw_without_rendering()
    return figure, figure.axes[0]


def texts(axes):
    return {t.get_text(): t for t in axes.texts}


def test_the_shaded_area_is_what_the_front_dominates():
    """Area of the polygon by the shoelace formula, against the staircase by hand."""
    _, axes = drawing(PLANE)
    (polygon,) = (path.vertices for c in axes.collections for path in c.get_paths() if len(path.vertices) > 4)
    x, y = polygon[:, 0], polygon[:, 1]
    area = 0.5 * abs(x @ np.roll(y, 1) - y @ np.roll(x, 1))
    assert area == pytest.approx(0.2 * 0.9 + 0.5 * 0.6 + 0.3 * 0.2)


def test_policies_off_the_front_are_hollow_and_grey():
    _, axes = drawing(PLANE)
    marks = {(line.get_xdata()[0], line.get_ydata()[0]): line for line in axes.lines if line.get_marker() == "o"}
    assert to_hex(marks[0.7, 0.6].get_color()) == PALETTE[0].lower()
    assert to_hex(marks[0.5, 0.5].get_color()) == "#ffffff"
    assert texts(axes)["borda"].get_color() == front.OFF
    assert "3 of 4 policies" in axes.get_title(loc="left")


def test_the_policy_that_is_best_for_the_worse_off_is_named():
    _, axes = drawing(PLANE)
    assert "gains as much as under nash (+0.600)" in axes.get_xlabel()


def test_names_cover_neither_each_other_nor_leave_the_frame():
    rng = np.random.default_rng(0)
    angle = np.sort(rng.uniform(0.1, 1.5, 9))
    table = make(np.stack([np.cos(angle), np.sin(angle)], 1), [f"a rule called {k}" for k in range(9)], ("g", "h"))
    _, axes = drawing(table)
    boxes = [t.get_window_extent() for t in axes.texts]
    assert len(boxes) == 9
    for i, box in enumerate(boxes):
        assert all(not box.overlaps(other) for other in boxes[:i])
        assert axes.bbox.containsx(box.x0) and axes.bbox.containsx(box.x1) and axes.bbox.containsy(box.y1)


def test_of_many_policies_those_on_the_front_are_named_thinned_out():
    t = np.linspace(0, 1, 41)
    soups = make(np.stack([1 - t**2, 1 - (1 - t) ** 2], 1), [f"{k:.3f}" for k in t], ("g", "h"))
    _, axes = drawing(soups)
    assert 5 < len(axes.texts) <= front.NAMED
    assert "0.500" in texts(axes)  # the best for the worst-off is always named


def test_a_share_that_is_not_certain_is_told():
    unsure = make([[1.0, 0.0], [0.0, 1.0]], ("a", "b"), ("g", "h"), share=0.42)
    assert set(texts(drawing(unsure)[1])) == {"a (42 %)", "b (42 %)"}


def test_three_groups_stand_side_by_side_with_a_ring_where_the_gain_is_least():
    table = make([[0.9, 0.1, 0.5], [0.4, 0.5, 0.3], [0.3, 0.05, 0.2]], ("a", "b", "c"), ("old", "young", "rest"))
    _, axes = drawing(table)
    assert [t.get_text() for t in axes.get_xticklabels()] == ["old", "young", "rest"]
    rings = [(round(line.get_xdata()[0]), line.get_ydata()[0]) for line in axes.lines if line.get_marker() == "o"]
    assert rings == [(1, 0.1), (2, 0.3), (1, 0.05)]
    dotted = [line.get_ydata()[0] for line in axes.lines if line.get_linestyle() == ":"]
    assert dotted == [0.3]
    assert texts(axes)["c"].get_color() == front.OFF
    heights = sorted(t.get_position()[1] for t in axes.texts)
    assert min(np.diff(heights)) > 0.02


def test_files_are_written_and_the_same_each_time(tmp_path):
    svg, png = front.drawn(PLANE, tmp_path / "one")
    assert json.loads((tmp_path / "one" / "front.json").read_text()) == PLANE
    with Image.open(png) as picture:
        assert picture.size[0] > 1000
    again, _ = front.drawn(PLANE, tmp_path / "two")
    assert svg.read_bytes() == again.read_bytes()
