"""The tutorial on choosing a rule is run again, and prints what it printed when it was written."""

import contextlib
import io
import json
import re
from pathlib import Path

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import pytest

NOTEBOOK = Path(__file__).parents[1] / "docs" / "choosing.ipynb"
NUMBER = re.compile(r"[-+]?\d+(?:\.\d+)?")
FITTED = ("posterior", "taste", "chosen", "answers", "everything")
"""Names of what a fit made: what is printed of it is the same to rounding only, on another machine."""


def cells() -> list[dict]:
    return [cell for cell in json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"] if cell["cell_type"] == "code"]


def printed(cell: dict) -> str:
    return "".join(text for output in cell["outputs"] for text in output.get("text", ()))


def agrees(told: str, known: str, fitted: bool) -> bool:
    """Whether two texts are the same; of what was fitted, the words are, and numbers are near each other."""
    if not fitted:
        return told == known
    words = [" ".join(NUMBER.sub("#", text).split()) for text in (told, known)]
    here, there = ([float(x) for x in NUMBER.findall(text)] for text in (told, known))
    return words[0] == words[1] and here == pytest.approx(there, abs=0.06, rel=0.05)


@pytest.mark.parametrize(
    ("told", "known", "fitted", "same"),
    [
        ("gain +0.50", "gain +0.50", False, True),
        ("gain +0.50", "gain +0.51", False, False),
        ("gain +0.50", "gain  +0.51", True, True),
        ("gain +0.50", "gain +0.70", True, False),
        ("gain +0.50", "loss +0.50", True, False),
        ("gain +0.50, 1", "gain +0.50", True, False),
    ],
)
def test_a_wrong_number_or_word_is_noticed(told, known, fitted, same):
    assert agrees(told, known, fitted) is same


def test_the_tutorial_was_run_from_top_to_bottom_without_an_error():
    assert [cell["execution_count"] for cell in cells()] == list(range(1, len(cells()) + 1))
    kinds = [output["output_type"] for cell in cells() for output in cell["outputs"]]
    assert set(kinds) == {"stream", "display_data"}
    assert kinds.count("display_data") == 3
    assert all(output.get("name", "stdout") == "stdout" for cell in cells() for output in cell["outputs"])
    assert NOTEBOOK.stat().st_size < 300_000


@pytest.mark.slow
def test_the_tutorial_prints_what_it_printed(real_data):
    """A minute or two: two models are fitted."""
    names: dict = {"__name__": "tutorial"}
    wrong = {}
    try:
        for i, cell in enumerate(cells()):
            source = "".join(cell["source"])
            with contextlib.redirect_stdout(io.StringIO()) as out:
                exec(compile(source, f"cell {i}", "exec"), names)
            fitted = any(re.search(rf"\b{name}\b", source) for name in FITTED)
            if not agrees(out.getvalue(), printed(cell), fitted):
                wrong[i] = (out.getvalue(), printed(cell))
    finally:
        plt.close("all")
    assert not wrong
