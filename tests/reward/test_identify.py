"""Every sentence has a feedback that it is about, and a twin about which nothing is said."""

import datasets
import numpy as np
import pytest

from pluralign import reward
from pluralign.reward.identify import identify
from pluralign.reward.judgements import Judgements
from pluralign.types import Choices, Features, Feedback, Grades, Scale

PLAIN = reward.Rater(lapse=False, position=False)


def ask(
    slate, *, phi=None, prompt=None, annotator=None, objective=None, objectives=("overall",), rank=None, graded=None
):
    """Return what is said of judgements in which the first of every slate wins, by a function of a population."""
    slate = np.atleast_2d(np.array(slate, int))
    items = max(int(slate.max(initial=0)), max(graded or (0,))) + 1 if phi is None else len(phi)
    n = len(slate) if slate.size else 0
    rng = np.random.default_rng(0)
    phi = rng.normal(size=(items, 2)) if phi is None else np.asarray(phi, float)
    prompt = np.zeros(items, int) if prompt is None else np.asarray(prompt)
    annotator = np.arange(n) % 3 if annotator is None else np.asarray(annotator)
    objective = np.zeros(n, int) if objective is None else np.asarray(objective)
    people = int(annotator.max(initial=2)) + 1
    names = tuple(f"f{i}" for i in range(phi.shape[1]))
    table = {"prompt_id": prompt.tolist(), "prompt": ["p"] * items, "response": [f"r{i}" for i in range(items)]}
    rank = np.where(slate >= 0, np.arange(slate.shape[1]), -1) if rank is None else np.array(rank)
    grades, scales = Grades.none(), ()
    if graded:
        zero = np.zeros(len(graded), int)
        grades, scales = Grades(graded, zero, zero, zero, zero, zero - 1), (Scale("yes or no", ("no", "yes")),)
    votes = Feedback(
        items=datasets.Dataset.from_dict(table),
        annotators=datasets.Dataset.from_dict({"id": [str(a) for a in range(people)], "weight": [1.0] * people}),
        objectives=objectives,
        choices=Choices(slate, rank, annotator, objective, np.full(n, -1)) if n else Choices.none(),
        grades=grades,
        scales=scales,
    )
    features = Features(phi, prompt, names, np.zeros(phi.shape[1]), np.eye(phi.shape[1]))

    def say(population=None, rater=PLAIN, **settings):
        model = population or reward.Hierarchical(response=reward.Response(rater=rater), **settings)
        found = identify(votes, Judgements.read(votes, features), model)
        return " ".join(found.caveats), " ".join(found.notes)

    return say


CHAIN = [(0, 1), (1, 2), (2, 0), (3, 2), (1, 3), (0, 3)]
SPLIT = [(0, 1), (1, 2), (2, 0), (3, 4), (4, 3), (1, 0)]


def test_items_that_no_chain_connects_are_a_caveat_if_they_have_effects_of_their_own():
    caveats, _ = ask(SPLIT)(items=reward.ItemEffects())
    assert "connects 2 pieces of 1 prompt," in caveats
    assert "The smallest hold 'r3' (2 items), 'r0' (3 items)" in caveats
    assert "no `items`" in caveats
    assert ask(CHAIN)(items=reward.ItemEffects()) == ("", "")


def test_pieces_of_different_prompts_need_not_be_connected():
    assert ask(SPLIT, prompt=[0, 0, 0, 1, 1])(items=reward.ItemEffects()) == ("", "")


def test_features_that_pieces_share_connect_them_and_indicators_do_not():
    """Two features are told within either piece; five indicators only as differences within a piece."""
    assert ask(SPLIT)() == ("", "")
    assert "2 pieces" in ask(SPLIT, phi=np.eye(5))()[0]
    assert "pieces" not in ask(CHAIN, phi=np.eye(4))()[0]


def test_grades_connect_what_was_graded():
    assert "pieces" in ask(SPLIT, graded=(0, 1))(items=reward.ItemEffects())[0]
    assert "pieces" not in ask(SPLIT, graded=(0, 3))(items=reward.ItemEffects())[0]


def test_slates_connect_all_their_items():
    assert "pieces" not in ask([(0, 1, 2), (2, 3, 4)])(items=reward.ItemEffects())[0]
    assert "pieces" in ask([(0, 1, 2), (3, 4, -1)])(items=reward.ItemEffects())[0]


def test_features_in_which_nothing_judged_together_differs_are_named():
    phi = np.random.default_rng(1).normal(size=(5, 3))
    assert ask(SPLIT, phi=phi)() == ("", "")
    phi[:, 1] = [2, 2, 2, 7, 7]  # differs between the pieces, never within
    caveats, notes = ask(SPLIT, phi=phi)()
    assert "never differs in f1" in caveats and "f0" not in caveats
    phi[:, 1] = 2
    caveats, notes = ask(SPLIT, phi=phi)()
    assert caveats == ""
    assert "No two candidates of a prompt differ in f1" in notes


def test_more_features_than_directions_are_a_note():
    """Three connected items have differences in a plane, four in a space of three dimensions."""
    phi = np.random.default_rng(0).normal(size=(4, 3))
    assert "tell of 2 directions in 3 features" in ask(SPLIT[:3] * 2, phi=phi[:3])()[1]
    assert ask(CHAIN, phi=phi)() == ("", "")


def test_objectives_that_nobody_judged_are_a_caveat():
    three = {"objectives": ("kind", "true", "short")}
    say = ask(CHAIN * 2, objective=[0, 1] * 6, annotator=[0, 0, 1, 1] * 3, **three)
    assert "Nobody judged on short" in say()[0]
    whole = ask(CHAIN * 3, objective=[0] * 6 + [1] * 6 + [2] * 6, annotator=[0, 1, 2] * 6, **three)
    assert whole() == ("", "")


def test_objectives_without_an_annotator_in_common_are_a_note_where_people_differ():
    two = {"objectives": ("kind", "true")}
    apart = ask(CHAIN * 2, objective=[0] * 6 + [1] * 6, annotator=[0] * 6 + [1] * 6, **two)
    assert "No annotator judged on both kind and true" in apart()[1]
    assert apart(reward.Pooled(response=reward.PLAIN)) == ("", "")
    shared = ask(CHAIN * 2, objective=[0] * 6 + [1] * 6, annotator=[0] * 6 + [0, 1] * 3, **two)
    assert shared() == ("", "")


@pytest.mark.parametrize(("components", "judgements", "bad"), [(2, 1, True), (2, 2, False), (1, 1, False)])
def test_kinds_cannot_be_told_from_one_judgement_each(components, judgements, bad):
    say = ask(CHAIN * judgements, annotator=list(range(6)) * judgements)
    caveats, _ = say(reward.Mixture(components=components, response=reward.PLAIN))
    assert ("The median annotator made 1 judgement:" in caveats) == bad
    assert bool(caveats) == bad


def test_a_ranking_tells_as_much_as_the_places_that_it_fills():
    model = reward.Mixture(components=2, response=reward.PLAIN)
    slates, annotator = [(0, 1, 2, 3), (3, 2, 0, 1)], [0, 1]
    assert "kinds of people" not in ask(slates, annotator=annotator)(model)[0]
    best = [[0, -1, -1, -1]] * 2
    assert "kinds of people" in ask(slates, annotator=annotator, rank=best)(model)[0]


@pytest.mark.parametrize("items", [None, reward.ItemEffects()])
def test_the_first_slot_is_confounded_with_what_always_stands_there(items):
    """By features: the first is longer by one every time. By items: the same ones always stand first."""
    rng, rater = np.random.default_rng(0), reward.Rater(lapse=False)
    first, second = rng.integers(0, 5, 60), rng.integers(5, 10, 60)
    phi = np.c_[np.arange(10) < 5, rng.normal(size=10)] if items is None else rng.normal(size=(10, 2))
    say = ask(np.c_[first, second], phi=phi)
    assert "The first slot always holds" in say(rater=rater, items=items)[0]
    assert "The first slot" not in say(rater=PLAIN, items=items)[0]
    flip = rng.random(60) < 0.5
    mixed = np.where(flip[:, None], np.c_[second, first], np.c_[first, second])
    assert "The first slot" not in ask(mixed, phi=phi)(rater=rater, items=items)[0]


def test_an_order_without_a_cycle_is_not_yet_confounded():
    """0 before 1, 1 before 2, but also 0 before 2: a bonus of 1 each is no sum of worths. Without the last it is."""
    rater, own = reward.Rater(lapse=False), reward.ItemEffects()
    assert "The first slot" in ask([(0, 1), (1, 2)] * 5)(rater=rater, items=own)[0]
    assert "The first slot" not in ask([(0, 1), (1, 2), (0, 2)] * 5)(rater=rater, items=own)[0]


def test_temperature_has_a_convention_and_looks_like_lapses_at_few_judgements():
    hot = reward.Rater(position=False, temperature=True)
    few, many = ask(CHAIN), ask(CHAIN * 12)
    assert "geometric mean" in few(rater=hot)[1]
    assert "look alike" in few(rater=hot)[1]
    assert "geometric mean" in many(rater=hot)[1]
    assert "look alike" not in many(rater=hot)[1]
    assert "look alike" not in few(rater=reward.Rater(lapse=False, position=False, temperature=True))[1]
    assert few(rater=reward.Rater(position=False)) == ("", "")
