import numpy as np
import pytest
from datasets import Dataset
from rich.console import Console
from scipy.optimize import minimize

from pluralign.errors import FitError, InputError
from pluralign.feedback.coverage import coverage, effective, rake
from pluralign.types import Choices, Feedback, Grades


def people(weight=None, **attributes) -> Feedback:
    n = len(next(iter(attributes.values())))
    return Feedback(
        items=Dataset.from_dict({"prompt_id": [0], "prompt": ["p"], "response": ["r"]}),
        annotators=Dataset.from_dict({"id": [f"w{a}" for a in range(n)], "weight": weight or [1.0] * n, **attributes}),
        objectives=("overall",),
        choices=Choices(np.zeros((0, 2), int), np.zeros((0, 2), int), *np.zeros((3, 0))),
        grades=Grades.none(),
    )


def weights(feedback) -> np.ndarray:
    return np.array(feedback.annotators["weight"])


def test_one_margin_has_a_closed_form():
    votes = people([1.0, 3.0, 2.0, 2.0], gender=["f", "f", "m", "m"])
    raked = rake(votes, {"gender": {"f": 0.75, "m": 0.25}})
    np.testing.assert_allclose(weights(raked), [1.5, 4.5, 1, 1])  # old weight * population share / share, sum 8
    assert raked.annotators.column_names == votes.annotators.column_names
    assert effective(weights(raked)) == pytest.approx(64 / 24.5)


def test_two_margins_are_met_by_the_nearest_weights():
    """Among all weights with the margins, raking finds those of least divergence from the old: solved by scipy."""
    rng = np.random.default_rng(0)
    gender, age = rng.choice(list("fm"), 12, p=[0.3, 0.7]).tolist(), rng.choice(["old", "young"], 12).tolist()
    old = rng.uniform(0.5, 2, 12)
    margins = {"gender": {"f": 0.55, "m": 0.45}, "age": {"old": 0.35, "young": 0.65}}
    found = weights(rake(people(old.tolist(), gender=gender, age=age), margins))
    total = old.sum()
    in_f, is_old = np.array(gender) == "f", np.array(age) == "old"
    rules = [
        {"type": "eq", "fun": lambda w, m=m, t=t: w @ m - t * total}
        for m, t in ((in_f, 0.55), (is_old, 0.35), (np.ones(12), 1))
    ]
    best = minimize(
        lambda w: w @ np.log(w / old), old, jac=lambda w: np.log(w / old) + 1, constraints=rules,
        bounds=[(1e-6, None)] * 12, method="SLSQP", options={"ftol": 1e-14, "maxiter": 500},
    )  # fmt: skip
    assert best.success
    np.testing.assert_allclose(found, best.x, rtol=1e-4)
    assert found[in_f].sum() / total == pytest.approx(0.55)
    assert found[is_old].sum() / total == pytest.approx(0.35)


def test_coverage_by_hand():
    votes = people([1.0, 1.0, 2.0], gender=["f", "f", ""])
    found = coverage(votes, {"gender": {"f": 0.5, "m": 0.5}})
    assert found.annotators == {"gender": {"f": 2, "m": 0, "": 1}}
    assert found.share == {"gender": {"f": 0.5, "m": 0.0, "": 0.5}}
    assert found.effective == pytest.approx(16 / 6)
    console = Console(width=80, record=True, file=open("/dev/null", "w"))
    with console.file:
        console.print(found)
        text = console.export_text()
    assert max(map(len, text.splitlines())) <= 80 and "(missing)" in text and "2.7" in text


@pytest.mark.parametrize(
    "margins, message",
    [
        ({}, "no attribute"),
        ({"race": {"a": 1.0}}, "no attribute 'race'"),
        ({"gender": {"f": 0.5, "m": 0.6}}, "sum to 1, not 1.1"),
        ({"gender": {"f": 1.5, "m": -0.5}}, "at least 0"),
        ({"gender": {"f": float("nan"), "m": 0.5}}, "sum to 1"),
        ({"gender": {"f": 1.0}}, "do not name: m 1"),
        ({"gender": {"f": 0.5, "m": 0.4, "x": 0.1}}, "= 'x', which is 10 %"),
    ],
)
def test_margins_that_cannot_be_met_are_refused(margins, message):
    with pytest.raises(InputError, match=message):
        rake(people(gender=["f", "f", "m"]), margins)


def test_margins_that_contradict_the_annotators_do_not_converge():
    votes = people(gender=["f", "f", "m"], town=["a", "a", "b"])  # all women live in a, all men in b
    margins = {"gender": {"f": 0.5, "m": 0.5}, "town": {"a": 0.3, "b": 0.7}}
    with pytest.raises(FitError, match="after 50 rounds"):
        rake(votes, margins, rounds=50)
