"""What is put together act by act, or part by part, against lists written by hand."""

import numpy as np
import pytest

from pluralign.errors import InputError
from pluralign.feedback.build import Builder, concatenate
from pluralign.types import FORMS, Scale

STARS = Scale("stars", ("1", "2", "3"))


def small() -> Builder:
    b = Builder()
    four, five, six = (b.item("2 + 2?", answer, source) for answer, source in (("4", "x"), ("5", "y"), ("6", "")))
    ann, bob = b.annotator("ann", age="30"), b.annotator("bob")
    b.choice([four, five], [0, 1], ann, strength=2, time=1_600_000_000, sitting=3)
    b.choice([five, six, four], [1, -1, 0], bob, objective="tone")
    b.choice([four], [0], ann, form="demonstration")
    b.choice([four, five, six], [0, -1, -1], ann)
    b.grade(six, 2, STARS, bob, objective="tone")
    return b


def test_acts_become_blocks():
    f = small().feedback(kind="example")
    assert list(f.items["response"]) == ["4", "5", "6"] and list(f.items["prompt_id"]) == [0, 0, 0]
    assert list(f.annotators["age"]) == ["30", ""]
    assert f.objectives == ("overall", "tone") and f.scales == (STARS,)
    c = f.choices
    np.testing.assert_array_equal(c.slate, [[0, 1, -1], [1, 2, 0], [0, -1, -1], [0, 1, 2]])
    np.testing.assert_array_equal(c.rank, [[0, 1, -1], [1, -1, 0], [0, -1, -1], [0, -1, -1]])
    assert [FORMS[i] for i in c.form] == ["comparison", "ranking", "demonstration", "best-of"]
    assert (c.strength.tolist(), c.context.tolist()) == ([2, 0, 0, 0], [0, 0, 1, 2])
    assert (c.time[0], c.time[1], c.sitting.tolist()) == (1_600_000_000, -1, [3, -1, -1, -1])
    assert (f.grades.value.tolist(), f.grades.annotator.tolist(), f.grades.context.tolist()) == ([2], [1], [1])


def test_one_item_of_two_sources_names_both():
    b = Builder()
    assert b.item("p", "r", "x") == b.item("p", "r", "y") == b.item("p", "r", "x") == 0
    assert b.item("q", "r") == 1
    b.choice([0, 1], [0, 1], b.annotator("a"))
    assert list(b.feedback().items["source"]) == ["x | y", ""]


def test_parts_become_one():
    b = Builder()
    b.grade(b.item("2 + 2?", "5", "z"), 0, STARS, b.annotator("bob", age="40"))
    b.choice([0, b.item("3 + 3?", "6")], [0, 1], b.annotator("cy"), objective="tone")
    whole = concatenate(small().feedback(), b.feedback())
    assert list(whole.items["source"]) == ["x", "y | z", "", ""]
    assert list(whole.items["prompt_id"]) == [0, 0, 0, 1]
    assert list(whole.annotators["id"]) == ["ann", "bob", "cy"] and list(whole.annotators["age"]) == ["30", "40", ""]
    assert whole.objectives == ("overall", "tone") and whole.scales == (STARS,)
    assert whole.choices.slate[4].tolist() == [1, 3, -1] and whole.choices.objective[4] == 1
    assert whole.grades.item.tolist() == [2, 1]
    assert whole.grades.context.tolist() == [1, 2]  # bob's second and third act


def test_bad_parts_are_errors():
    with pytest.raises(InputError, match="no judgement"):
        Builder().feedback()
    b = Builder()
    b.annotator("ann", age="31")
    with pytest.raises(InputError, match="two values of 'age': '31' and '32'"):
        b.annotator("ann", age="32")
    b.choice([b.item("2 + 2?", "4")], [0], 0)
    with pytest.raises(InputError, match="two values of 'age'"):
        concatenate(small().feedback(), b.feedback())
    with pytest.raises(InputError, match="nothing"):
        concatenate()
    b.choice([0], [0, 1], 0)
    with pytest.raises(InputError, match="choice 1 has 1 items and 2 ranks"):
        b.feedback()
