import itertools
from collections import Counter

import numpy as np
import pytest
from datasets import Dataset
from scipy.stats import kendalltau
from scipy.stats import t as student

from pluralign.feedback.agreement import Answers, agreement, answers, nominal, ordinal
from pluralign.types import FORMS, Choices, Feedback, Grades, Scale

RANKING = FORMS.index("ranking")


def table(text: str) -> list[tuple[int, int, int]]:
    """One line per annotator, one column per unit, a point where there is no answer."""
    return [
        (unit, a, int(value))
        for a, line in enumerate(text.strip().splitlines())
        for unit, value in enumerate(line.split())
        if value != "."
    ]


def given(rows, values, distance=nominal, mirrored=False) -> Answers:
    unit, who, value = (np.array(column) for column in zip(*rows, strict=True))
    return Answers("overall", "test", distance, values, mirrored, unit, who, value, np.ones(len(unit)))


# Krippendorff (2011), examples A, B and C; values there start at 1 (C) or are letters (B)
BINARY = table("0 1 0 0 0 0 0 0 1 0\n1 1 1 0 0 1 0 0 0 0")
LETTERS = table("0 0 1 1 3 2 2 2 4 3 3 0\n1 0 1 1 1 2 2 2 4 3 3 3")
MISSING = table(
    """
    1 2 3 3 2 1 4 1 2 . . .
    1 2 3 3 2 2 4 1 2 5 . 3
    . 3 3 3 2 3 4 2 2 5 1 .
    1 2 3 3 2 4 4 1 2 5 1 .
    """
)


@pytest.mark.parametrize(
    "rows, distance, published",
    [(BINARY, nominal, 0.095), (LETTERS, nominal, 0.692), (MISSING, nominal, 0.743), (MISSING, ordinal, 0.815)],
)
def test_alpha_is_that_of_the_published_examples(rows, distance, published):
    assert agreement(given(rows, 6, distance)).alpha == pytest.approx(published, abs=5e-4)


def brute(rows, distance: str) -> float:
    """Observed over expected disagreement, by loops over all pairs of answers."""
    units: dict = {}
    for unit, _, value in rows:
        units.setdefault(unit, []).append(value)
    units = {u: v for u, v in units.items() if len(v) > 1}
    everything = [v for values in units.values() for v in values]
    n = Counter(everything)

    def d(a, b):
        if distance == "nominal":
            return float(a != b)
        low, high = min(a, b), max(a, b)
        return (sum(n[g] for g in range(low, high + 1)) - (n[a] + n[b]) / 2) ** 2

    observed = sum(sum(d(a, b) for a, b in itertools.permutations(v, 2)) / (len(v) - 1) for v in units.values())
    expected = sum(d(a, b) for a, b in itertools.permutations(everything, 2)) / (len(everything) - 1)
    return 1 - observed / expected


def random_rows(rng, people=6, units=12, values=4):
    return [
        (u, a, int(rng.integers(values) if rng.random() < 0.5 else u % values))
        for u in range(units)
        for a in range(people)
        if rng.random() < 0.6
    ]


@pytest.mark.parametrize("distance", [nominal, ordinal])
def test_alpha_and_its_interval_are_those_of_loops(distance):
    rng = np.random.default_rng(3)
    name = distance.__name__
    for _ in range(5):
        rows = random_rows(rng)
        found = agreement(given(rows, 4, distance))
        assert found.alpha == pytest.approx(brute(rows, name))
        without = np.array([brute([r for r in rows if r[1] != a], name) for a in range(6)])
        error = np.sqrt(5 / 6 * ((without - without.mean()) ** 2).sum())
        low, high = student.interval(0.9, 5, found.alpha, error)
        assert found.interval == pytest.approx((low, min(high, 1)))


def test_a_pair_counts_as_seen_from_both_items():
    rng = np.random.default_rng(4)
    rows = random_rows(rng, values=3)
    doubled = rows + [(100 + u, a, 2 - v) for u, a, v in rows]
    found = agreement(given(rows, 3, mirrored=True)).alpha
    assert found == pytest.approx(brute(doubled, "nominal"))
    some = [(u, a, 2 - v if u % 3 else v) for u, a, v in rows]  # other items come first
    assert agreement(given(some, 3, mirrored=True)).alpha == pytest.approx(found)
    assert brute(some, "nominal") != pytest.approx(brute(rows, "nominal"))


def test_the_interval_covers_the_alpha_of_the_population():
    """Each unit has a right answer; annotators differ in how often they know it. Fleiss: alpha = mean(skill)^2."""
    rng = np.random.default_rng(5)
    covers, wide = 0, []
    for _ in range(60):
        skill = rng.beta(4, 4, size=25)
        knows = rng.random((60, 25)) < skill
        right, guess = rng.integers(2, size=(60, 1)), rng.integers(2, size=(60, 25))
        value = np.where(knows, right, guess)
        unit, who = np.nonzero(rng.random((60, 25)) < 0.4)
        weight = np.ones(len(unit))
        low, high = agreement(Answers("o", "f", nominal, 2, False, unit, who, value[unit, who], weight)).interval
        covers += low <= 0.25 <= high
        wide.append(high - low)
    assert 46 <= covers <= 59  # 54 expected, sd 2.3; units are drawn too, which the interval does not count
    assert np.mean(wide) < 0.25


def test_the_first_answer_counts_and_lonely_units_do_not():
    rows = [(0, 0, 1), (0, 1, 1), (0, 0, 0), (1, 0, 0), (1, 1, 0), (2, 1, 1), (3, 0, 1), (3, 0, 0)]
    found = agreement(given(rows, 2))
    assert (found.units, found.annotators, found.alpha, found.interval) == (2, 2, 1.0, None)


@pytest.mark.parametrize("rows", [[(0, 0, 1), (1, 1, 0)], [(0, 0, 1), (0, 1, 1)]])
def test_alpha_is_unknown_where_nothing_is_shared_or_nothing_varies(rows):
    assert agreement(given(rows, 2)).alpha is None


def feedback(slate, rank, annotator, form=None, grades=None, scales=(), objective=None) -> Feedback:
    n, zero = 8, [0] * len(slate)
    choices = Choices(slate, rank, annotator, objective or zero, zero, form=form)  # pyright: ignore
    return Feedback(
        items=Dataset.from_dict({"prompt_id": [0] * n, "prompt": ["p"] * n, "response": list("abcdefgh")}),
        annotators=Dataset.from_dict({"id": list("xyz"), "weight": [1.0] * 3}),
        objectives=("help", "harm"),
        choices=choices,
        grades=grades or Grades.none(),
        scales=scales,
    )


def orders(found: Answers) -> Counter:
    return Counter(zip(found.annotator.tolist(), found.value.tolist(), found.weight.round(6).tolist(), strict=True))


def test_slates_imply_orders_of_pairs():
    ranking = feedback([[4, 1, 3, -1], [0, 2, 5, 6]], [[0, 2, 1, -1], [1, 0, -1, -1]], [0, 1])
    (found,) = answers(ranking)
    # 4 > 3 > 1, from the lower index: 1 < 4, 1 < 3, 3 < 4; then 2 > 0 > {5, 6}, of which 5 and 6 are not known
    assert orders(found) == {(0, 0, round(2 / 3, 6)): 3, (1, 0, 0.5): 1, (1, 2, 0.5): 4}
    best = feedback([[4, 1, 3]], [[-1, 0, -1]], [2])
    (found,) = answers(best)
    assert found.form == "best-of"
    assert orders(found) == {(2, 2, 0.5): 2}
    (found,) = answers(feedback([[3, 1], [1, 3], [2, 2]], [[0, 1], [0, 0], [0, 1]], [0, 1, 2]))
    assert orders(found) == {(0, 0, 1.0): 1, (1, 1, 1.0): 1}  # an item compared with itself says nothing
    assert answers(feedback([[3, -1]], [[0, -1]], [0])) == ()  # a demonstration


def test_every_objective_form_and_scale_stands_alone():
    scales = (Scale("stars", tuple("12345")), Scale("poll", ("no", "pass", "yes"), "vote"))
    grades = Grades([0, 0, 1, 1], [4, 3, 2, 0], [0, 0, 1, 1], [0, 1, 0, 1], [0, 0, 1, 1], [0] * 4)
    forms = [FORMS.index("comparison"), FORMS.index("correction"), 0]
    found = answers(feedback([[0, 1]] * 3, [[0, 1]] * 3, [0, 1, 2], forms, grades, scales, [0, 0, 1]))
    names = [(a.objective, a.form, a.distance.__name__, len(a.unit)) for a in found]
    assert names == [
        ("help", "comparison", "nominal", 1),
        ("help", "correction", "nominal", 1),
        ("harm", "comparison", "nominal", 1),
        ("help", "stars", "ordinal", 2),
        ("harm", "poll", "nominal", 2),
    ]


def ranked(orders: np.ndarray, items: int, form: int) -> Feedback:
    n, k = orders.shape
    rank = np.where(orders < 0, -1, np.arange(k) if form == RANKING else np.minimum(0, -np.sign(np.arange(k))))
    return Feedback(
        items=Dataset.from_dict({"prompt_id": [0] * items, "prompt": ["p"] * items, "response": [""] * items}),
        annotators=Dataset.from_dict({"id": list(map(str, range(n))), "weight": [1.0] * n}),
        objectives=("help",),
        choices=Choices(orders, rank, np.arange(n), *np.zeros((2, n)), form=np.full(n, form)),
        grades=Grades.none(),
    )


def test_wide_rankings_imply_orders_in_number_linear_in_their_length():
    rng = np.random.default_rng(6)
    worth = np.arange(3000) + rng.normal(0, 1500, size=(2, 3000))  # two annotators of like mind
    orders = np.argsort(worth, axis=1)
    (found,) = answers(ranked(orders, 3000, RANKING))
    assert len(found.unit) < 2 * 3000 * 8
    assert found.weight.sum() == pytest.approx(2 * 2999)
    assert (np.bincount(found.unit) == 2).all()  # both are asked about the same pairs
    same = kendalltau(*worth).statistic  # of all pairs: alpha of orders seen from both sides has half as chance
    assert agreement(found).alpha == pytest.approx(same, abs=0.04)
    few = np.full((2, 3000), -1)
    few[:, :5] = orders[:, :5]
    (found,) = answers(ranked(np.concatenate([orders, few]), 3000, RANKING))
    assert [found.weight[found.annotator == a].sum() for a in range(4)] == pytest.approx([2999, 2999, 4, 4])
    assert (found.annotator == 2).sum() == 10


def test_the_best_of_a_very_wide_slate_takes_no_longer_than_its_items():
    orders = np.stack([np.random.default_rng(a).permutation(100_000) for a in range(3)])
    (found,) = answers(ranked(orders, 100_000, FORMS.index("best-of")))
    assert Counter(found.value.tolist()).keys() <= {0, 2} and len(found.unit) < 3 * 40
    assert found.weight.sum() == pytest.approx(3)
