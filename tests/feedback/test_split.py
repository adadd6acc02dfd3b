from dataclasses import replace

import numpy as np
import pytest
from datasets import Dataset

from pluralign.errors import InputError
from pluralign.feedback import holdout
from pluralign.feedback.split import ByAnnotator, ByJudgement, ByPrompt, ByTime, _acts
from pluralign.types import Choices, Feedback, Grades, Scale


def crowd(seed=0, people=20, n=600, m=300) -> Feedback:
    """Judgements with many repeats; the places of choices and grades tell their rows."""
    rng = np.random.default_rng(seed)
    prompt = rng.integers(10, size=n)
    slate = 4 * prompt[:, None] + rng.permuted(np.tile(np.arange(4), (n, 1)), axis=1)[:, :2]
    rank = rng.permuted(np.tile([0, 1], (n, 1)), axis=1)
    who, when = rng.integers(people, size=n), rng.permutation(n)
    return Feedback(
        items=Dataset.from_dict(
            {
                "prompt_id": np.repeat(np.arange(10), 4),
                "prompt": [f"p{i // 4}" for i in range(40)],
                "response": [f"r{i}" for i in range(40)],
            }
        ),
        annotators=Dataset.from_dict(
            {"id": [f"w{a}" for a in range(people)], "weight": [1.0] * people, "side": list("aaab") * (people // 4)}
        ),
        objectives=("overall", "safety"),
        choices=Choices(slate, rank, who, rng.integers(2, size=n), np.arange(n), time=when),
        grades=Grades(
            rng.integers(40, size=m), rng.integers(5, size=m), np.zeros(m), rng.integers(people, size=m),
            np.zeros(m), np.arange(m), time=rng.integers(n, size=m),
        ),
        scales=(Scale("stars", tuple("12345")),),
    )  # fmt: skip


def shuffled(feedback: Feedback, seed=9) -> Feedback:
    """The same feedback with rows, items and annotators in another order."""
    rng = np.random.default_rng(seed)
    item, person = rng.permutation(len(feedback.items)), rng.permutation(len(feedback.annotators))
    c, g = feedback.choices, feedback.grades
    choices = replace(c, slate=np.argsort(item)[c.slate], annotator=np.argsort(person)[c.annotator])
    grades = replace(g, item=np.argsort(item)[g.item], annotator=np.argsort(person)[g.annotator])
    return replace(
        feedback,
        items=feedback.items.select(item),
        annotators=feedback.annotators.select(person),
        choices=choices.where(rng.permutation(len(c))),
        grades=grades.where(rng.permutation(len(g))),
    )


def acts(feedback: Feedback) -> set:
    c, g = feedback.choices, feedback.grades
    rows = zip(c.annotator.tolist(), c.objective.tolist(), c.slate.tolist(), strict=True)
    pairs = {(a, o, tuple(sorted(s))) for a, o, s in rows}
    return pairs | set(zip(g.annotator.tolist(), g.objective.tolist(), g.item.tolist(), strict=True))


def places(part: Feedback) -> tuple[set, set]:
    return set(part.choices.context.tolist()), set(part.grades.context.tolist())


SPLITS = [ByJudgement(0.3), ByAnnotator(0.3), ByAnnotator(0.3, group="side"), ByPrompt(0.3), ByTime(0.3)]


@pytest.mark.parametrize("split", SPLITS, ids=lambda s: s.kind)
def test_parts_share_nothing_that_was_said_twice(split):
    whole = crowd()
    train, test = split.split(whole)
    assert not acts(train) & acts(test)
    aside = test.provenance.get("set_aside", {}).get("the same annotator judged the same before the cut", 0)
    assert bool(aside) == (split.kind == "by-time")
    for block, n in (("choices", 600), ("grades", 300)):
        inside = [set(getattr(part, block).context.tolist()) for part in (train, test)]
        assert not inside[0] & inside[1]
        aside -= n - len(inside[0] | inside[1])
    assert aside == 0  # all others are in one part
    share = (len(test.choices) + len(test.grades)) / 900
    assert 0.15 < share < 0.45


@pytest.mark.parametrize("split", SPLITS, ids=lambda s: s.kind)
def test_the_order_of_rows_does_not_matter(split):
    whole = crowd()
    assert places(split.split(whole)[1]) == places(split.split(shuffled(whole))[1])
    if split.kind != "by-time":
        assert places(split.split(whole)[1]) != places(replace(split, seed=1).split(whole)[1])


def test_each_holds_out_what_it_says():
    whole = crowd()
    side = np.array(whole.attribute("side"))
    train, test = ByAnnotator(0.4, group="side").split(whole)
    gone = np.unique(np.concatenate([test.choices.annotator, test.grades.annotator]))
    assert sorted(side[gone]) == ["a"] * 6 + ["b"] * 2  # 40 % of 15 and of 5
    assert not set(gone) & set(np.concatenate([train.choices.annotator, train.grades.annotator]))
    train, test = ByPrompt(0.4).split(whole)
    assert len(set(test.choices.slate.ravel() // 4) | set(test.grades.item // 4)) == 4
    assert not set(test.choices.slate.ravel() // 4) & set(train.choices.slate.ravel() // 4)
    train, test = ByTime(0.4).split(whole)
    assert max(train.choices.time.max(), train.grades.time.max()) < min(test.choices.time.min(), test.grades.time.min())
    train, test = ByJudgement(0.4).split(whole)
    for a in range(20):
        said = len({act for act in acts(whole) if act[0] == a})
        assert len({act for act in acts(test) if act[0] == a}) == round(0.4 * said)


def test_what_cannot_be_split_is_refused():
    whole = crowd()
    for kind in (ByJudgement, ByAnnotator, ByPrompt, ByTime):
        for share in (0.0, 1.0, float("nan")):
            with pytest.raises(InputError, match="share is"):
                kind(share)
    unknown = replace(whole, choices=replace(whole.choices, time=np.full(600, -1)))
    with pytest.raises(InputError, match="600 of 900 judgements have no time"):
        ByTime().split(unknown)
    across = replace(whole, choices=replace(whole.choices, slate=np.tile([0, 39], (600, 1))))
    with pytest.raises(InputError, match="compares items of different prompts"):
        for seed in range(20):  # until one of both is held out
            ByPrompt(0.5, seed).split(across)
    one = whole.where(whole.choices.annotator == 3)
    with pytest.raises(InputError, match="nothing to test on"):
        ByAnnotator().split(replace(one, grades=Grades.none()))


def test_holdout_of_choices_is_what_it_was_and_grades_are_held_out_too():
    whole = crowd()
    alone = replace(whole, grades=Grades.none())
    rng, recorded = np.random.default_rng(3), []
    for a in range(20):
        rows = np.flatnonzero(whole.choices.annotator == a)
        recorded += rows[rng.permutation(len(rows))[: round(0.2 * len(rows))]].tolist()
    for feedback in (whole, alone):
        train, test = holdout(feedback, 0.2, 3)
        assert places(test)[0] == set(recorded)
        assert places(train)[0] == set(range(600)) - set(recorded)
    train, test = holdout(whole, 0.2, 3)
    assert np.bincount(test.grades.annotator).tolist() == [round(0.2 * n) for n in np.bincount(whole.grades.annotator)]
    assert places(train)[1] | places(test)[1] == set(range(300)) and not places(train)[1] & places(test)[1]


def test_what_was_judged_is_known_by_its_contents():
    """Two items with one text are one; a slate in another order is the same; another objective or scale is not."""
    one = Scale("stars", tuple("12345"))
    items = {"prompt_id": [0] * 5, "prompt": ["p"] * 5, "response": ["a", "b", "c", "b", "d"]}
    slates = [[0, 1, -1], [3, 0, -1], [1, 3, 0], [0, 1, 2], [0, 2, -1], [0, 1, -1]]
    whole = Feedback(
        items=Dataset.from_dict(items),
        annotators=Dataset.from_dict({"id": ["x", "y"], "weight": [1.0, 1.0]}),
        objectives=("help", "harm"),
        choices=Choices(
            np.array(slates), np.array([[0, 1, -1], [0, 1, -1], [1, 1, 0], [0, 1, 2], [0, 1, -1], [0, 1, -1]]),
            np.zeros(6), np.array([0, 0, 0, 0, 0, 1]), np.zeros(6),
        ),
        grades=Grades(
            np.array([1, 3, 1, 1, 1]), np.zeros(5), np.array([0, 0, 1, 0, 0]), np.array([0, 0, 0, 1, 0]),
            np.array([0, 0, 0, 0, 1]), np.zeros(5),
        ),
        scales=(one, replace(one, name="points")),
    )  # fmt: skip
    for seed in range(20):
        who, act = _acts(whole, seed)
        assert len(set(who.tolist())) == 2 and (who[-2] != who[0])
        same = {frozenset(np.flatnonzero(act == a).tolist()) for a in act}
        assert same == {frozenset(s) for s in ({0, 1, 2}, {3}, {4}, {5}, {6, 7}, {8}, {9}, {10})}


def test_a_judgement_is_held_out_as_often_as_any_other():
    """Over 400 seeds each of ten pairs of each annotator is held out in a fifth of cases."""
    n = 10
    slate = np.tile(np.stack([np.arange(n), np.arange(n) + n], 1), (3, 1))
    choices = Choices(slate, np.tile([0, 1], (3 * n, 1)), np.repeat(np.arange(3), n), *np.zeros((2, 3 * n)))
    texts = [str(i) for i in range(2 * n)]
    whole = Feedback(
        items=Dataset.from_dict({"prompt_id": [0] * 2 * n, "prompt": ["p"] * 2 * n, "response": texts}),
        annotators=Dataset.from_dict({"id": ["x", "y", "z"], "weight": [1.0] * 3}),
        objectives=("help",),
        choices=replace(choices, context=np.arange(3 * n)),
        grades=Grades.none(),
    )
    held = np.zeros((400, 3 * n), int)
    for seed in range(400):
        held[seed, ByJudgement(0.2, seed).split(whole)[1].choices.context] = 1
    assert (held.reshape(400, 3, n).sum(2) == 2).all()
    assert abs(held.mean(0) - 0.2).max() < 0.08  # standard error 0.02, largest of 30
    together = np.corrcoef(held.T)  # -1/9 within an annotator, 0 between: nobody's draw depends on another's
    assert abs(together[:n, n : 2 * n]).max() < 0.2
