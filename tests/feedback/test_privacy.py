import numpy as np
import pytest
from datasets import Dataset

from pluralign.feedback.privacy import PATTERNS, Personal, column, personal
from pluralign.types import Choices, Feedback, Grades


def feedback(prompts, responses, ids=("a", "b")) -> Feedback:
    names = list(dict.fromkeys(prompts))
    return Feedback(
        items=Dataset.from_dict(
            {"prompt_id": [names.index(p) for p in prompts], "prompt": prompts, "response": responses}
        ),
        annotators=Dataset.from_dict({"id": list(ids), "weight": [1.0] * len(ids)}),
        objectives=("overall",),
        choices=Choices(np.zeros((0, 2), int), np.zeros((0, 2), int), *np.zeros((3, 0))),
        grades=Grades.none(),
    )


ADDRESSES = ("ann@example.org", "write to a.b+c@mail.example.co.uk, please", "<x_y%z@sub-domain.example.com>")
NO_ADDRESSES = ("@ann", "a @ b.com", "ann@example", "2@3", "mean@k=.5", "user@@example.com")
NUMBERS = (
    "+44 20 7946 0958", "+1 (555) 010-9999", "call (555) 010-9999.", "555-010-9999", "+4915112345678", "555.010.9999",
)  # fmt: skip
NO_NUMBERS = (
    "2020-10-12", "978-3-16-148410-0", "1234567890", "192.168.100.1000", "1+2 3 4", "3.14159265358979", "555-0109999",
    "ab555-010-9999", "+1", "12:30-14:45", "4111 1111 1111 1111", "10 000 000 000", "x+1234567890",
)  # fmt: skip


@pytest.mark.parametrize("what, yes, no", [(0, ADDRESSES, NO_ADDRESSES), (1, NUMBERS, NO_NUMBERS)])
def test_what_people_write_is_found_and_what_looks_like_it_is_not(what, yes, no):
    name = list(PATTERNS)[what]
    for text in yes:
        assert personal(feedback(["p"], [text])) == (Personal(name, "responses", 1, (0,)),), text
    for text in no:
        assert personal(feedback(["p"], [text])) == (), text


def test_places_are_counted_and_the_data_is_not_told():
    address = "ann@example.org"
    prompts = ["p", "p", f"to {address}", f"to {address}", "q"]
    responses = ["r", *[f"{i}: {address}" for i in range(4)]]
    found = personal(feedback(prompts, responses, ids=("a", address, "c")))
    assert [(f.where, f.count, f.first) for f in found] == [
        ("prompts", 1, (2,)),  # one prompt with two responses
        ("responses", 4, (1, 2, 3, 4)),
        ("annotator ids", 1, (1,)),
    ]
    assert "ann" not in str([(f.what, f.count, f.first) for f in found])
    assert "example" not in str(found)


def test_chosen_rows_are_read_as_chosen():
    table = Dataset.from_dict({"response": ["a", "b", "c"]}).select([2, 0])
    assert column(table, "response").to_pylist() == ["c", "a"]
