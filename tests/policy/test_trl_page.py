"""The page on TRL, as users would run it."""

import re
from pathlib import Path

import pytest


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # what TRL warns of is not ours to mend
def test_the_page_of_the_documentation_runs():
    pytest.importorskip("trl")
    page = Path(__file__).parents[2] / "docs" / "trl.md"
    (code,) = re.findall(r"```python\n(.*?)```", page.read_text(), re.DOTALL)
    names = {}
    exec(compile(code, str(page), "exec"), names)
    history = names["online"].state.log_history
    assert {"rewards/maximin/mean", "group/critics", "multiplier/length at most"} <= set(history[0])
    assert min(names["by_rule"]["margin"]) > 0
    data, ties = names["data"], re.findall(r"(\d+) ties", names["data"].info.description)
    assert len(data) + int(ties[0]) == len(names["votes"].choices)
