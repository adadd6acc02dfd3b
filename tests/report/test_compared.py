"""How sure decisions are, in a report; and many rules on one posterior, in the terminal and as a figure."""

import io
import itertools
import json

import numpy as np
import pytest
from PIL import Image
from rich.console import Console

from pluralign import artifacts, report
from pluralign.report import compared, decisions
from pluralign.report.compared import draw
from pluralign.types import Decision, Decisions

GROUPS = ("people who like long and careful answers", "brevity", "facts", "everyone")


def sure(draws):
    """Return a decision on one prompt with these winners."""
    return np.eye(3)[np.array(draws)][:, None]


def many(rules=20, draws=30, prompts=13, candidates=5, groups=GROUPS, missing=True):
    """Tables of many rules, the last of which can neither choose nor decide."""
    rng = np.random.default_rng(0)
    names = [f"{'a-rule-of-some-name-'[: 12 + i % 8]}{i:02d}"[-20:] for i in range(rules)]
    made = [Decision(n, np.eye(candidates)[rng.integers(candidates, size=(draws, prompts))], np.eye(candidates)[[0] * prompts]) for n in names]  # fmt: skip
    gains = [
        {"rule": name, "group": group, "share": 0.25, "gain": {"mean": m, "low": m - 0.3, "high": m + 0.2}}
        for name, group in itertools.product(names, groups)
        for m in [float(rng.normal())]
    ]
    out = {names[-1]: "it cannot."} if missing else {}
    found = Decisions(tuple(d for d in made if d.name not in out), out)
    return {
        "run": "some",
        "rules": names,
        "unit": "standard deviations above each prompt's worst candidate",
        "gains": [row for row in gains if row["rule"] not in out],
        "decisions": decisions(found),
        "demands": [],
        "reasons": dict(out),
        "caveats": ["The fit has not converged."],
    }


def printed(comparison) -> str:
    console = Console(width=80, record=True, file=io.StringIO(), color_system=None)
    console.print(comparison)
    return console.export_text()


# What is said of decisions.


def test_numbers_are_those_of_the_draws():
    """Rule a decides 0 0 0 1 in four draws, rule b 0 0 2 1: they differ in one of four; 3 and 5 of 6 pairs of draws do."""
    a, b = Decision("a", sure([0, 0, 0, 1]), sure([0])[0], 0.75), Decision("b", sure([0, 0, 2, 1]), sure([0])[0], 0.75)
    table = decisions(Decisions((a, b), {"c": "cannot"}))
    assert table["rows"][0] == {
        "rule": "a",
        "likeliest": 0.75,
        "lowest": 0.75,
        "highest": 0.75,
        "decided": 1,
        "differs": 0.25,
        "ignorance": pytest.approx(0.5),
    }
    assert (table["rows"][1]["decided"], table["rows"][1]["ignorance"]) == (0, pytest.approx(5 / 6))
    assert table["apart"] == [[0, 0.25], [0.25, 0]]
    assert table["sentences"] == [
        "The data do not decide on 0 to 1 of 1 prompt, depending on the rule: there no candidate wins with probability 0.75.",
        "Two posterior draws decide differently in 67 % of cases under the same rule, and two rules in 25 % in the same draw: ignorance outweighs the choice of rule.",
    ]


def test_where_draws_agree_and_rules_do_not_the_rule_matters_more():
    a, b = Decision("a", sure([0, 0]), sure([0])[0]), Decision("b", sure([1, 1]), sure([1])[0])
    said = decisions(Decisions((a, b)))["sentences"]
    assert said[0] == "The data decide on every one of 1 prompt: some candidate wins with probability 0.5 or more."
    assert said[1].endswith("two rules in 100 % in the same draw: the choice of rule outweighs ignorance.")


def test_nothing_is_said_of_what_is_not_known():
    one = Decision("a", sure([0]), sure([0])[0])
    assert len(decisions(Decisions((one, one)))["sentences"]) == 1  # one draw knows nothing of ignorance
    assert decisions(Decisions((), {"a": "cannot"}))["sentences"] == []
    assert decisions(None) is None


# In a report.


def test_a_report_says_how_sure_each_rule_s_decisions_are(demo):
    written = report.write(demo)
    found = artifacts.load(demo / "decisions", Decisions)
    row = written.tables["decisions"]["rows"][1]
    winners = found.rules[1].shares.argmax(-1)
    likeliest = [np.bincount(column, minlength=5).max() / 100 for column in winners.T]
    np.testing.assert_allclose([row["likeliest"], row["lowest"], row["highest"]], [np.mean(likeliest), min(likeliest), max(likeliest)])  # fmt: skip
    assert row["decided"] == sum(p >= 0.5 for p in likeliest) == 1
    text = " ".join(written.html.read_text(encoding="utf-8").split())
    assert (
        "How sure the decisions are" in text and "1 of 40" in text and "irv is not among them: too many ways." in text
    )
    said = " ".join(written.verdicts)
    assert "The data do not decide on 39 of 40 prompts" in said and "ignorance outweighs the choice of rule" in said


# Many rules.


def test_twenty_rules_and_four_groups_fit_eighty_columns(tmp_path):
    tables = many()
    text = printed(compared(tables, tmp_path))
    lines = text.splitlines()
    assert max(map(len, lines)) <= 80
    assert sum(line.startswith("rule") for line in lines) >= 2  # in blocks
    for name in tables["rules"]:
        assert sum(line.startswith(name) for line in lines) >= 2, name
    some = tables["gains"][5]["gain"]
    assert f"{some['mean']:+.2f} [{some['low']:+.2f}, {some['high']:+.2f}]".replace("-", "\N{MINUS SIGN}") in text
    assert f"{tables['rules'][-1]}: no lottery and no decision. it cannot." in " ".join(text.split())
    assert "† The fit has not converged." in text and "The data do not decide on" in text
    assert "…" not in text.replace("people who like lon…", "")


def test_demands_have_a_column_each_and_say_where_they_are_broken(tmp_path):
    tables = many(rules=3, missing=False)
    a, b, _ = tables["rules"]
    rows = [(a, "lottery", True, 0.97), (b, "lottery", False, 0.4), (a, "plug-in decision", False, 0.0)]
    tables["demands"] = [
        {"rule": rule, "demand": "floor: friends", "of": of, "kept": kept, "probability": p}
        for rule, of, kept, p in rows
    ]
    lines = printed(compared(tables, tmp_path)).splitlines()
    start = next(i for i, line in enumerate(lines) if "P(floor: friends)" in line)
    assert [line.split()[-1] for line in lines[start + 1 : start + 4]] == ["%", "!", "n/a"]
    assert "97 %" in lines[start + 1] and "40 % !" in lines[start + 2]
    assert any(line.startswith("P(demand): that the rule's lottery meets it") for line in lines)
    assert not any("P(" in line for line in printed(compared(many(), tmp_path)).splitlines())


def test_all_numbers_and_a_figure_are_written(tmp_path):
    found = compared(many(), tmp_path / "new")
    assert json.loads(found.json.read_text()) == found.tables
    svg, png = found.figures
    assert "<svg" in svg.read_text() and "<dc:date>" not in svg.read_text()
    with Image.open(png) as picture:
        width, height = picture.size
    assert 1200 < width < 3000 and 800 < height < 3000


@pytest.mark.parametrize(
    "sizes",
    [{"rules": 1, "missing": False}, {"rules": 3, "groups": ("everyone",)}, {"rules": 2, "draws": 1}, {"rules": 1}],
    ids=str,
)
def test_few_rules_one_draw_and_nobody_who_decides_are_shown_too(tmp_path, sizes):
    tables = many(**sizes)
    assert max(map(len, printed(compared(tables, tmp_path)).splitlines())) <= 80


def test_the_matrix_holds_rules_side_by_side_and_ignorance_on_the_diagonal():
    a, b = Decision("a", sure([0, 0, 0, 1]), sure([0])[0]), Decision("b", sure([0, 0, 2, 1]), sure([0])[0])
    tables = {"rules": ["a", "b"], "decisions": decisions(Decisions((a, b))), "gains": [], "unit": "u"}
    left, right = draw(tables).axes
    cells = {(text.get_position()): text.get_text() for text in left.texts}
    assert cells == {(0, 0): "50", (1, 0): "25", (0, 1): "25", (1, 1): "83"}
    assert [text.get_text() for text in right.texts] == ["no lottery: see the table"] * 2


def test_rules_that_decide_alike_stand_together():
    rng = np.random.default_rng(1)
    one, other = rng.integers(3, size=(2, 40))
    noise = rng.integers(40, size=4)
    made = []
    for i, base in enumerate((one, other, one, other)):
        winners = base.copy()
        winners[noise[i]] = (winners[noise[i]] + 1) % 3
        made.append(Decision(f"r{i}", sure(winners), sure([0])[0]))
    tables = {
        "rules": [f"r{i}" for i in range(4)],
        "decisions": decisions(Decisions(tuple(made))),
        "gains": [],
        "unit": "u",
    }
    order = [label.get_text() for label in draw(tables).axes[0].get_yticklabels()]
    assert {frozenset(order[:2]), frozenset(order[2:])} == {frozenset({"r0", "r2"}), frozenset({"r1", "r3"})}
