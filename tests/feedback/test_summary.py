import itertools
from dataclasses import replace

import numpy as np
import pytest
from datasets import Dataset
from rich.console import Console
from scipy.stats import t as student

from pluralign.errors import InputError
from pluralign.feedback import Community, Group, describe, holdout
from pluralign.types import FORMS, Choices, Feedback, Grades, Scale

RANK = {"<": (0, 1), ">": (1, 0), "=": (0, 0)}  # first wins, second wins, tie


def votes(rows, prompt_id, people=3, **fields) -> Feedback:
    """Judgements (annotator, first, mark, second) of items whose prompts are given."""
    n = len(prompt_id)
    attributes = fields.pop("attributes", {})
    responses = fields.pop("responses", [f"r{i}" for i in range(n)])
    return Feedback(
        items=Dataset.from_dict(
            {"prompt_id": prompt_id, "prompt": [f"p{i}" for i in prompt_id], "response": responses}
        ),
        annotators=Dataset.from_dict({"id": [f"w{a}" for a in range(people)], "weight": [1.0] * people, **attributes}),
        objectives=("overall",),
        choices=Choices(
            slate=[(one, two) for _, one, _, two in rows],
            rank=[RANK[mark] for _, _, mark, _ in rows],
            annotator=[a for a, *_ in rows],
            objective=[0] * len(rows),
            context=[-1] * len(rows),
        ),
        grades=Grades.none(),
        **fields,
    )


ROWS = [
    (0, 0, "<", 1),
    (0, 0, "<", 1),  # the same again
    (0, 1, ">", 0),  # the same opinion, shown the other way round: no duplicate, no contradiction
    (1, 0, ">", 1),
    (1, 1, ">", 0),  # contradicts the row before
    (2, 0, "=", 1),
    (0, 3, "<", 4),
    (1, 5, "<", 6),
]
VOTES = votes(
    ROWS,
    [0, 0, 0, 1, 1, 2, 2],
    people=4,
    attributes={"side": ["a", "b", "a", ""], "many": list("abcd")},
    responses=["x", "", "y", "x", "y", "x", "y"],
    provenance={"set_aside": {"a response compared with itself": 2}},
)


def test_counts_by_hand():
    s = describe(VOTES)
    assert (s.judgements, s.annotators, s.prompts, s.items) == (8, 4, 3, 7)
    assert s.tie_share == 1 / 8
    assert s.groups == {"side": {"": 1, "a": 2, "b": 1}, "many": dict.fromkeys("abcd", 1)}
    assert s.per_annotator == (0, 2.0, 4)
    assert s.single == 1
    assert s.busiest_share == 4 / 8
    assert s.first_wins == 4 / 7
    assert s.duplicates == 1
    assert s.contradictions == 1
    assert s.set_aside == {"a response compared with itself": 2}
    assert (s.unconnected_prompts, s.pieces) == (1, 2)  # item 2 was never compared
    assert s.shared_pairs == 1
    # pair (0, 1): annotator 0 says 0 three times, 1 says 1 and then 0, 2 ties
    assert s.agreement == pytest.approx(3 / (3 * 2 + 3 * 1 + 2 * 1))
    assert s.empty_responses == 1
    assert not s.simulated


def test_what_is_clean_has_no_warnings_and_what_is_not_has_each():
    pairs = ((0, 1), (1, 2), (2, 0), (3, 4))
    clean = [(a, i, "<>"[(a + k) % 2], j) for a in range(6) for k, (i, j) in enumerate(pairs)]
    assert describe(votes(clean, [0, 0, 0, 1, 1], people=6)).warnings == ()
    told = " ".join(describe(VOTES).warnings)
    for part in ("judged only once", "repeat", "differently", "2 rows were not used", "no chain", "empty texts"):
        assert part in told
    first = [(a, i, "<", 1 - i) for a in range(12) for i in (0, 1) for _ in range(2 + a % 3)] + [(0, 1, ">", 0)]
    assert any("first shown wins" in w for w in describe(votes(first, [0, 0], people=12)).warnings)
    fair = Community(groups=(Group("g", 30, {}),), styles={"a": ("dear",)}, prompts=100, candidates=3, tie=None)
    assert not any("first shown" in w for w in describe(fair.load()).warnings)


def test_the_number_of_pieces_is_that_of_a_search():
    rng = np.random.default_rng(0)
    for _ in range(20):
        prompt = np.sort(rng.integers(4, size=12))
        prompt = np.unique(prompt, return_inverse=True)[1]
        pairs = [(i, j) for i, j in itertools.combinations(range(12), 2) if prompt[i] == prompt[j]]
        rows = [(0, i, "<", j) for i, j in pairs if rng.random() < 0.3]
        if not rows:
            continue
        pieces = {i: {i} for i in range(12)}
        for _, i, _, j in rows:
            joined = pieces[i] | pieces[j]
            for k in joined:
                pieces[k] = joined
        per_prompt = [len({min(pieces[i]) for i in range(12) if prompt[i] == p}) for p in set(prompt)]
        s = describe(votes(rows, prompt.tolist()))
        assert s.unconnected_prompts == sum(n > 1 for n in per_prompt)
        assert s.pieces == sum(n for n in per_prompt if n > 1)


def agreement(rows) -> float:
    """Brute force over all pairs of judgements of one pair of items by different annotators."""
    says = [(a, frozenset((i, j)), {"<": i, ">": j, "=": None}[mark]) for a, i, mark, j in rows]
    same = [x[2] == y[2] for x, y in itertools.combinations(says, 2) if x[0] != y[0] and x[1] == y[1]]
    return sum(same) / len(same)


def first_wins(rows) -> float:
    decided = [mark for *_, mark, _ in rows if mark != "="]
    return sum(mark == "<" for mark in decided) / len(decided)


def test_intervals_are_those_of_leaving_each_annotator_out():
    rng = np.random.default_rng(1)
    pairs = [(i, j) for i in range(4) for j in range(4) if i != j]
    rows = [
        (a, *[p[0], "<><="[rng.integers(4)], p[1]])
        for a in range(8)
        for p in (pairs[k] for k in rng.integers(12, size=5 + a))
    ]
    s = describe(votes(rows, [0] * 4, people=9))  # one annotator judged nothing
    for statistic, value, interval in (
        (agreement, s.agreement, s.agreement_interval),
        (first_wins, s.first_wins, s.first_wins_interval),
    ):
        assert value == pytest.approx(statistic(rows))
        without = np.array([statistic([row for row in rows if row[0] != a]) for a in range(8)])
        error = np.sqrt(7 / 8 * ((without - without.mean()) ** 2).sum())
        assert interval == pytest.approx(student.interval(0.9, 7, value, error), abs=1e-9)


def test_the_interval_covers_when_annotators_lean_to_a_side():
    """Annotators lean to their own side: intervals that know it cover the mean, those for independent rows do not."""
    rng = np.random.default_rng(2)
    covers = naive = 0
    for _ in range(100):
        lean = rng.beta(2, 2, size=25)
        marks = [(a, 0, "<>"[int(rng.random() > lean[a])], 1) for a in range(25) for _ in range(40)]
        s = describe(votes(marks, [0, 0], people=25))
        covers += s.first_wins_interval[0] <= 0.5 <= s.first_wins_interval[1]
        naive += abs(s.first_wins - 0.5) <= 1.645 * np.sqrt(s.first_wins * (1 - s.first_wins) / 1000)
    assert 80 <= covers <= 98  # 90 expected, sd 3
    assert naive < 50


def test_what_cannot_be_computed_is_said_to_be_unknown():
    one = describe(votes([(0, 0, "<", 1)], [0, 0], people=1))
    assert (one.first_wins, one.first_wins_interval, one.agreement, one.agreement_interval) == (1, None, None, None)
    none = describe(votes(ROWS, [0] * 7).where(np.zeros(8, bool)))
    assert (none.judgements, none.tie_share, none.first_wins, none.busiest_share) == (0, None, None, None)
    assert none.pieces == 7


def test_rankings_count_as_judgements_but_not_as_pairs():
    whole = votes([(0, 0, "<", 1)], [0, 0, 0])
    ranking = Choices([[0, 1, 2], [-1, 2, 0]], [[0, 1, 1], [-1, 0, -1]], [0, 1], [0, 0], [-1, -1])
    s = describe(Feedback(whole.items, whole.annotators, whole.objectives, ranking, whole.grades))
    assert (s.judgements, s.tie_share, s.first_wins, s.unconnected_prompts) == (2, 0, 1, 0)


@pytest.mark.parametrize("feedback", [VOTES, votes([(0, 0, "<", 1)], [0, 0])])
def test_the_table_fits_a_terminal(feedback):
    console = Console(width=80, record=True, file=open("/dev/null", "w"))
    with console.file:
        console.print(describe(feedback))
        text = console.export_text()
    assert max(map(len, text.splitlines())) <= 80
    assert "first shown wins" in text and "judgements" in text and "…" not in text


def test_holdout_takes_a_share_of_each_annotator_and_nothing_twice():
    people = {0: 4, 1: 5, 2: 7, 3: 31, 5: 100}  # annotator 4 judged nothing
    rows = [(a, i % 5, "<", 5) for i in range(100) for a, n in people.items() if i < n]
    whole = votes([(a, k % 5, "<=>"[k % 3], 5) for k, (a, *_) in enumerate(rows)], [0] * 6, people=6)
    whole = Feedback(**{**vars(whole), "choices": Choices(**{**vars(whole.choices), "context": np.arange(len(rows))})})
    train, test = holdout(whole, share=0.3, seed=5)
    assert np.bincount(test.choices.annotator, minlength=6).tolist() == [0, 2, 2, 9, 0, 30]
    both = np.concatenate([train.choices.context, test.choices.context])
    assert sorted(both) == list(range(len(rows)))
    for part in (train, test):
        k = part.choices.context
        assert part.items is whole.items and part.annotators is whole.annotators
        for name, value in vars(part.choices).items():
            np.testing.assert_array_equal(value, getattr(whole.choices, name)[k])
    again = holdout(whole, share=0.3, seed=5)[1].choices.context.tolist()
    assert again == test.choices.context.tolist()
    assert holdout(whole, share=0.3, seed=6)[1].choices.context.tolist() != again


def test_holdout_draws_every_judgement_equally_often():
    whole = votes([(0, 0, "<", 1)] * 10, [0, 0])
    whole = Feedback(**{**vars(whole), "choices": Choices(**{**vars(whole.choices), "context": np.arange(10)})})
    taken = np.concatenate([holdout(whole, share=0.3, seed=s)[1].choices.context for s in range(500)])
    assert abs(np.bincount(taken, minlength=10) - 150).max() < 45  # sd 10.2


def test_holdout_never_empties_a_part():
    whole = votes([(0, 0, "<", 1)] * 6, [0, 0])
    assert len(holdout(whole, share=0.99)[0].choices) == 1
    for share in (0.0, 1.0, float("nan")):
        with pytest.raises(InputError, match="share is"):
            holdout(whole, share=share)
    with pytest.raises(InputError, match="holds nothing out"):
        holdout(votes([(0, 0, "<", 1)] * 4, [0, 0]))
    with pytest.raises(InputError, match="holds nothing out"):
        holdout(whole, share=0.05)


def test_grades_forms_objectives_and_groups_are_counted():
    whole = votes(ROWS, [0] * 7, people=4, attributes={"side": ["a", "b", "a", "a"]})
    scales = (Scale("stars", tuple("12345")), Scale("ok", ("no", "yes"), "approval"))
    # annotator 3 gives the same stars twice, and changes their mind about what is ok
    grades = Grades([0, 0, 0, 0, 1], [4, 4, 1, 0, 1], [0, 0, 1, 1, 1], [3, 3, 3, 3, 0], [0, 0, 1, 1, 1], [0] * 5)
    s = describe(replace(whole, grades=grades, scales=scales, objectives=("overall", "safety")))
    assert s.judgements == 13
    assert s.by_form == {"comparison": 8, "stars (rating)": 2, "ok (approval)": 3}
    assert s.by_objective == {"overall": 10, "safety": 3}
    assert s.by_group == {"side": {"a": 4 + 1 + 4 + 1, "b": 3}}
    assert s.per_annotator == (1, 3.5, 5)
    assert (s.duplicates, s.contradictions) == (1 + 1, 1 + 1)  # those of ROWS, and those of the grades
    assert [(a.objective, a.form, a.units) for a in s.alphas] == [
        ("overall", "comparison", 1), ("overall", "stars", 0), ("safety", "ok", 0),
    ]  # fmt: skip
    assert [(c.objective, c.never) for c in s.connections] == [("overall", 1), ("safety", 5)]


def test_demonstrations_alone_are_described():
    two = votes([(0, 0, "<", 1), (1, 2, "<", 3), (1, 0, "<", 2)], [0, 0, 1, 1], people=2)
    alone = Choices(slate=[[0], [2], [0]], rank=[[0]] * 3, annotator=[0, 1, 1], objective=[0] * 3, context=[-1] * 3)
    s = describe(replace(two, choices=alone))
    assert s.by_form == {"demonstration": 3} and s.judgements == 3 and s.per_annotator == (1, 1.5, 2)
    assert (s.first_wins, s.agreement, s.shared_pairs, s.duplicates) == (None, None, 0, 0)
    assert (s.connections[0].never, s.connections[0].camps) == (4, 1)


def test_a_winner_who_always_stands_first_is_told():
    for mark, side in (("<", "first"), (">", "second")):
        told = describe(votes([(0, i, mark, i + 1) for i in range(10)], [0] * 11, people=1)).warnings
        assert any(w.startswith(f"The {side} of two always wins, 10 times") for w in told), told
        assert any(w.startswith("All judgements are by one annotator") for w in told), told
    few = describe(votes([(a, i, "<", i + 1) for a in range(3) for i in range(3)], [0] * 4, people=3)).warnings
    assert not any("always" in w or "one annotator" in w for w in few)


def test_corrections_say_nothing_of_positions():
    one = votes([(0, 0, "<", 1), (0, 1, ">", 0)], [0, 0])
    corrected = replace(one, choices=replace(one.choices, form=np.array([0, FORMS.index("correction")])))
    assert (describe(one).first_wins, describe(corrected).first_wins) == (0.5, 1)


def test_what_is_found_is_told_in_sentences():
    community = Community(
        groups=(Group("g", 40, {"a": 2.0}),), styles={"a": ("dear", "sweet"), "b": ("grim",)},
        prompts=20, candidates=4, judgements=100, careless=0.1, tie=None,
    ).load()  # fmt: skip
    s = describe(community)
    told = [w for w in s.warnings if w.startswith("A second look at annotators no. ")]
    suspects = {x.annotators[0] for x in s.suspects if x.reason == "careless"}
    assert suspects <= set(np.flatnonzero(community.truth.careless)) and suspects
    assert any(str(min(suspects)) in w and "answer at random" in w for w in told)
    letter = votes([(0, 0, "<", 1), (1, 1, ">", 1)], [0, 0], responses=["r", "write to ann@example.org"])
    told = " ".join(describe(letter).warnings)
    for part in ("No two annotators judged the same", "1 slates show an item twice", "1 responses seem to hold e-mail"):
        assert part in told
    assert "example" not in told
