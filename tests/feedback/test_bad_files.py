"""What a user is told of a file that cannot be used, by the readers and by `pluralign check`."""

import io

import pytest
from rich.console import Console

from pluralign import cli
from pluralign.errors import InputError
from pluralign.feedback import read

CONFIG = """
feedback: {kind: table, path: votes.csv, prompt: q, first: a, second: b, outcome: w, annotator: who}
features: {kind: lexicon, categories: {warm: [dear]}}
"""
RATINGS = "{kind: ratings, path: votes.csv, prompt: q, response: a, annotator: who, grades: w, scales: '1..5'}"
RANKINGS = "{kind: rankings, path: votes.csv, prompt: q, responses: [a, b], annotator: who, best: w}"


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("v.csv", b"q;a;b\nhi;x;y\n", r"v\.csv, line 1: the header is the one column 'q;a;b', .* with ';' between"),
        ("v.tsv", b"q,a,b\nhi,x,y\n", r"v\.tsv, line 1: the header is the one column 'q,a,b', .* with ',' between"),
        ("v.csv", "q,a\nhi,x\n".encode("utf-16"), r"iconv -f UTF-16 -t UTF-8"),
        ("v.csv", "q,a\nhé,x\n".encode("latin-1"), r"line 2, byte 2: .*iconv -f WINDOWS-1252"),
    ],
)
def test_a_table_that_was_saved_otherwise_is_told_how(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=message):
        read.read(tmp_path / name, ("q", "a"))


def test_a_folder_is_no_near_miss_of_itself(tmp_path):
    (tmp_path / "votes.csv").mkdir()
    with pytest.raises(InputError, match=r"is a folder, not a file \(looked for [^)]*\)\.$"):
        read.read(tmp_path / "votes.csv", ("q",))


def told(tmp_path, monkeypatch, capsys, content: str | None, *overrides: str) -> str:
    """Return what `check` says, in one line."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "c.yaml").write_text(CONFIG)
    if content is not None:
        (tmp_path / "votes.csv").write_text(content)
    try:
        cli.main(["check", "c.yaml", *overrides])
        code = 0
    except SystemExit as end:
        code = end.code
    out, err = capsys.readouterr()
    assert "Traceback" not in out + err
    assert (code == 2) == bool(err)
    return " ".join((err or out).split())


@pytest.mark.parametrize(
    ("content", "overrides", "message"),
    [
        ("", (), "votes.csv is empty; the first line must name the columns"),
        ("", ("--feedback", RATINGS), "votes.csv is empty; the first line must name the columns"),
        ("q,a,b,w,who\n", (), "votes.csv has no rows"),
        (None, (), "votes.csv does not exist"),
        ("q;a;b;w;who\nhi;x;y;left;ann\n", (), "Save the file with commas"),
        ("q,a,b,w,who\nhi,x,y,left,ann\n", ("--feedback.annotator", "whom"), "For 'whom', did you mean 'who'?"),
        ("q,a,b,w,who\nhi,x,x,left,ann\nhi,y,y,tie,bob\n", (), "no comparison that counts; set aside: a response"),
        ("q,a,b,w,who\nhi,x,x,a,ann\n", ("--feedback", RANKINGS), "no act that counts; set aside: {'an act that shows"),
        ("q,a,b,w,who\nhi,x,y,1,ann\n", (), "Digits are never guessed"),
    ],
)
def test_what_cannot_be_used_is_an_error(tmp_path, monkeypatch, capsys, content, overrides, message):
    assert message in told(tmp_path, monkeypatch, capsys, content, *overrides)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("q,a,b,w,who\nhi,x,y,left,Ann\nhi,x,y,right,ann \nhi,x,y,right,bob\n", "1 annotator id differs from another"),
        ("q,a,b,w,who\n1,x,y,left,ann\n2,y,x,right,bob\n", "2 of 2 prompts are numbers"),
    ],
)
def test_what_looks_wrong_is_warned_of(tmp_path, monkeypatch, capsys, content, message):
    assert message in told(tmp_path, monkeypatch, capsys, content)
    sound = content.replace("Ann", "cleo").replace("ann ", "dora").replace("\n1,", "\nhi 1,").replace("\n2,", "\nhi 2,")
    assert message[2:] not in told(tmp_path, monkeypatch, capsys, sound)


def test_who_was_asked_is_shown_even_where_raking_fails(tmp_path, monkeypatch, capsys):
    content = "q,a,b,w,who,sex\nhi,x,y,left,ann,f\nhi,x,y,tie,bob,m\nhi,x,y,left,cleo,f\n"
    given = ("--feedback.attributes", "[sex]", "--population.margins.sex")
    text = told(tmp_path, monkeypatch, capsys, content, *given, "{f: 0.5, m: 0.5}")
    assert "2 (66.7 %)" in text
    assert "raked weights would go from 0.75 to 1.50 (mean 1), effective sample size 2.7 of 3 annotators" in text
    monkeypatch.setattr(cli, "console", Console(file=(shown := io.StringIO()), width=80))
    text = told(tmp_path, monkeypatch, capsys, content, *given, "{f: 0.5, x: 0.5}", "--population.rake", "true")
    assert "its margins do not name: m 1" in text
    assert "Nobody was asked of sex = x, which is 50.0 % of the population" in " ".join(shown.getvalue().split())
