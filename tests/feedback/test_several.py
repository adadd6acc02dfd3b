"""Comparisons and ratings of the same responses by the same people, from two files."""

import pytest

from pluralign import config, feedback
from pluralign.errors import InputError


@pytest.fixture
def files(tmp_path):
    (tmp_path / "votes.csv").write_text("q,a,b,won,who\nx,one,two,left,ann\nx,two,three,tie,bob\n")
    (tmp_path / "stars.csv").write_text("q,r,who,stars\nx,two,bob,3\ny,four,cy,1\n")
    return tmp_path


def parts(folder):
    table = feedback.Table(folder / "votes.csv", prompt="q", first="a", second="b", outcome="won", annotator="who")
    ratings = feedback.Ratings(
        folder / "stars.csv", prompt="q", response="r", annotator="who", grades="stars", scales="1..5"
    )
    return table, ratings


def test_two_files_are_one_feedback(files):
    both = feedback.Several(parts(files)).load()
    assert list(both.items["response"]) == ["one", "two", "three", "four"]
    assert list(both.annotators["id"]) == ["ann", "bob", "cy"]
    assert both.choices.slate.tolist() == [[0, 1], [1, 2]]
    assert (both.grades.item.tolist(), both.grades.annotator.tolist(), both.grades.value.tolist()) == (
        [1, 3], [1, 2], [2, 0],
    )  # fmt: skip
    assert len(both.provenance["parts"]) == 2


def test_a_changed_part_changes_the_fingerprint(files):
    source = feedback.Several(parts(files))
    before = source.fingerprint()
    assert feedback.Several(parts(files)).fingerprint() == before
    (files / "stars.csv").write_text("q,r,who,stars\nx,two,bob,4\n")
    assert source.fingerprint() != before


def test_it_is_read_from_yaml(files):
    text = f"""
feedback:
  kind: several
  parts:
    - {{kind: table, path: {files}/votes.csv, prompt: q, first: a, second: b, outcome: won, annotator: who}}
    - {{kind: ratings, path: {files}/stars.csv, prompt: q, response: r, annotator: who, grades: stars, scales: 1..5}}
features: {{kind: lexicon, categories: {{number: [one, two]}}}}
"""
    read = config.parse(text)
    assert len(read.feedback.load().grades) == 2
    assert config.parse(config.dump(read)) == read


def test_nothing_is_refused():
    with pytest.raises(InputError, match="at least one source"):
        feedback.Several(())
