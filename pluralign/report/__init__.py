"""Everything a run found, as one HTML page, one JSON file, and a table for the terminal."""

from pathlib import Path

from pluralign import artifacts
from pluralign.report.compared import Comparison, compared
from pluralign.report.decisions import decisions
from pluralign.report.page import render
from pluralign.report.run import read
from pluralign.report.tables import collect
from pluralign.report.terminal import summary_table
from pluralign.types import Report

__all__ = ["Comparison", "Report", "compared", "decisions", "summary_table", "write"]


def write(run: str | Path, groups: str | None = None) -> Report:
    """Write `report.html` and `report.json` into a run folder.

    Args:
        run: folder with `choices/<rule>/` and whatever else the run left; the page says what is absent and why.
        groups: attribute of annotators by which to tell who gains; by default the first with 2 to 12 values.

    Returns:
        The paths, all tables, and the verdicts in sentences.

    Raises:
        InputError: `run` is no run folder, one of its artifacts is damaged, or annotators have no attribute `groups`.
    """
    found = read(run)
    tables = collect(found, groups)
    html = artifacts.write_text(found.path / "report.html", render(tables))
    json = artifacts.write_json(found.path / "report.json", tables)
    return Report(html, json, tables, tuple(tables["verdicts"]), tuple(tables["caveats"]["all"]))
