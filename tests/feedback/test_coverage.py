import numpy as np
import pytest
from datasets import Dataset
from rich.console import Console
from scipy.optimize import minimize

from pluralign.errors import FitError, InputError
from pluralign.feedback.coverage import Population, Weights, coverage, effective, rake
from pluralign.types import Choices, Feedback, Grades


def people(weight=None, judged=(), **attributes) -> Feedback:
    """Annotators who made so many judgements each."""
    n = len(next(iter(attributes.values())))
    who = np.repeat(np.arange(len(judged)), judged)
    return Feedback(
        items=Dataset.from_dict({"prompt_id": [0], "prompt": ["p"], "response": ["r"]}),
        annotators=Dataset.from_dict({"id": [f"w{a}" for a in range(n)], "weight": weight or [1.0] * n, **attributes}),
        objectives=("overall",),
        choices=Choices(np.tile([0, -1], (len(who), 1)), np.tile([0, -1], (len(who), 1)), who, 0 * who, 0 * who),
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


def test_two_margins_of_attributes_that_are_independent_have_a_closed_form():
    """Counts 2, 4, 1, 2 are a product, so weights are products of (share declared) / (share there)."""
    gender, age = ["f"] * 6 + ["m"] * 3, ["old"] * 2 + ["young"] * 4 + ["old"] + ["young"] * 2
    raked = rake(people(gender=gender, age=age), {"gender": {"f": 0.5, "m": 0.5}, "age": {"old": 0.5, "young": 0.5}})
    np.testing.assert_allclose(weights(raked), [1.125] * 2 + [0.5625] * 4 + [2.25] + [1.125] * 2)
    found = Weights.of(weights(raked))  # sum of squares: 4 * 1.265625 + 4 * 0.31640625 + 5.0625 = 11.390625
    assert (found.lowest, found.highest) == pytest.approx((0.5625, 2.25))
    assert found.effective == pytest.approx(81 / 11.390625)
    assert found.design_effect == pytest.approx(9 * 11.390625 / 81)


def test_annotators_of_whom_an_attribute_is_not_known_keep_their_share():
    votes = people(gender=["f", "f", "m", ""])
    np.testing.assert_allclose(weights(rake(votes, {"gender": {"f": 0.5, "m": 0.5}})), [0.75, 0.75, 1.5, 1])
    declared = rake(votes, {"gender": {"f": 0.5, "m": 0.4, "": 0.1}})  # or they have a share of their own
    np.testing.assert_allclose(weights(declared), [1, 1, 1.6, 0.4])


def test_coverage_by_hand():
    votes = people([1.0, 1.0, 2.0, 1.0], gender=["f", "f", "", "x"], judged=[3, 0, 5, 1])
    found = coverage(votes, {"gender": {"f": 0.5, "m": 0.5}})
    told = [(c.category, c.population, c.annotators, c.share, c.judgements, c.judged) for c in found.categories]
    assert told == [("f", 0.5, 2, 2 / 3, 3, 0.75), ("m", 0.5, 0, 0.0, 0, 0.0), ("x", None, 1, 1 / 3, 1, 0.25)]
    assert found.unknown == {"gender": 1}
    assert found.weights is None
    assert len(found.notes) == 4
    for note, words in zip(found.notes, ("Nobody was asked of gender = m", "x in the", "1 of 4", "x 1"), strict=True):
        assert words in note
    console = Console(width=80, record=True, file=open("/dev/null", "w"))
    with console.file:
        console.print(found)
        text = console.export_text()
    assert max(map(len, text.splitlines())) <= 80
    assert "not declared" in text and "2 (66.7 %)" in text and "55.6 % of the judgements" in " ".join(text.split())


def test_a_population_weighs_annotators_only_if_it_says_so():
    votes, margins = people(gender=["f", "f", "f", "m"], judged=[1, 1, 1, 1]), {"gender": {"f": 0.5, "m": 0.5}}
    as_they_are, raked = (Population(margins, rake).weigh(votes) for rake in (False, True))
    np.testing.assert_array_equal(weights(as_they_are), 1)
    np.testing.assert_allclose(weights(raked), [2 / 3, 2 / 3, 2 / 3, 2])
    for weighed, population in ((as_they_are, Population(margins)), (raked, Population(margins, True))):
        assert Population.of(weighed) == population
        found = coverage(weighed, margins, used=population.rake)
        assert found.weights is not None
        assert found.weights.highest == pytest.approx(2)  # the same before and after: raking twice changes nothing
        assert ("by raked weights" in found.notes[-1]) == ("counts the same" not in found.notes[-1]) == population.rake
    assert Population.of(votes) is None
    with pytest.raises(InputError, match="'sex', but annotators have 'gender'"):
        Population({"sex": {"f": 1.0}}).weigh(votes)


def test_one_who_speaks_for_many_is_told():
    found = coverage(people(gender=["f"] * 19 + ["m"]), {"gender": {"f": 0.5, "m": 0.5}})
    assert "speaks for 10.0 average ones" in found.notes[-1]


@pytest.mark.parametrize(
    "margins, message",
    [
        ({}, "no attribute"),
        ({"race": {"a": 1.0}}, "the attribute 'race', but annotators have 'gender'"),
        ({"gendr": {"a": 1.0}}, "Did you mean 'gender'"),
        ({"gender": {"f": 50.0, "m": 50.0}}, "divide them by 100"),
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
