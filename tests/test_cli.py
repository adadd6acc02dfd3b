import subprocess
import sys

import pytest

from pluralign import cli
from pluralign.errors import InputError

CONFIG = """
feedback: {kind: table, path: votes.csv, prompt: p, first: a, second: b, outcome: o, annotator: w}
features: {kind: lexicon, categories: {warm: [dear]}}
"""


def test_overrides_are_pairs():
    assert cli.overrides_of(["--a.b", "1", "--c=[x, y]"]) == {"a.b": "1", "c": "[x, y]"}
    with pytest.raises(InputError, match="needs a value"):
        cli.overrides_of(["--a"])
    with pytest.raises(InputError, match="do not know what to do with 'a'"):
        cli.overrides_of(["a"])


def test_check_describes_a_table_and_a_bad_row_is_told_without_a_traceback(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "c.yaml").write_text(CONFIG)
    (tmp_path / "votes.csv").write_text("p,a,b,o,w\nhi,dear you,you,left,ann\nhi,you,dear you,tie,bob\n")
    cli.main(["check", "c.yaml"])
    assert "50.0 % ties" in capsys.readouterr().out
    (tmp_path / "votes.csv").write_text("p,a,b,o,w\nhi,dear you,you,lefft,ann\n")
    with pytest.raises(SystemExit) as end:
        cli.main(["check", "c.yaml"])
    told = capsys.readouterr().err
    assert end.value.code == 2
    assert "'lefft'" in told
    assert "Traceback" not in told


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["check", "c.yaml", "--featurez.kind", "x"], "Did you mean 'features'"),
        (["check", "none.yaml"], "none.yaml"),
        (["report", "nowhere"], "nowhere"),
        (["compare", "nowhere"], "nowhere holds no finished posterior"),
        (["report", "nowhere", "--beta", "3"], "takes no --beta"),
    ],
)
def test_what_is_wrong_is_told_in_words(tmp_path, monkeypatch, capsys, arguments, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "c.yaml").write_text(CONFIG)
    with pytest.raises(SystemExit) as end:
        cli.main(arguments)
    assert end.value.code == 2
    assert message in " ".join(capsys.readouterr().err.split())


def test_help_is_quick_and_import_pulls_in_neither_torch_nor_jax():
    code = "import sys, pluralign, pluralign.cli, pluralign.types; print([m for m in ('torch', 'jax') if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"
