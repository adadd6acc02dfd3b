"""How surely demands are met: counted by hand in every draw."""

from dataclasses import replace

import numpy as np
import pytest

from pluralign import choice
from pluralign.errors import InputError
from pluralign.types import Utilities


def by_hand(u, p, rows, eps):
    """What each group gains over the reference plus eps, in every draw, in loops; p is one lottery or one a draw."""
    value, worth = u.dense(), np.zeros((u.shape[0], len(rows)))
    for s, g in np.ndindex(worth.shape):
        own = p[s] if p.ndim == 3 else p
        for x in range(len(u.reference)):
            for v, share in rows[g].items():
                worth[s, g] += share * (own[x] - u.reference[x]) @ value[s, v, x] / len(u.reference)
    return worth + eps


def groups_of(u):
    a, b = u.mass[:2], u.mass[2:]
    return [dict(zip((0, 1), a / a.sum(), strict=True)), dict(zip((2, 3), b / b.sum(), strict=True))]


def test_floors_are_counted_draw_by_draw(make):
    u = replace(make(seed=5, shape=(40, 4, 3, 4)), groups=("a", "a", "b", "b"))
    floors = [choice.Floor(eps=0.1), choice.Floor(eps=0.0, each="voter", risk=choice.CVaR(tail=0.25))]
    decided = choice.decide(choice.Maximin(), u)
    seen = set()
    for p in (choice.Borda().choose(u, beta=0.2).lottery, decided.plug_in, decided.shares):
        found = choice.met(p, u, floors)
        each = by_hand(u, p, [{v: 1.0} for v in range(4)], 0.0)
        worth = np.concatenate([by_hand(u, p, groups_of(u), 0.1), each], 1)
        np.testing.assert_allclose(found.worth, worth, atol=1e-9)
        np.testing.assert_allclose(found.probability, (worth >= 0).mean(0), atol=1e-9)
        np.testing.assert_allclose(found.stated[:2], worth[:, :2].mean(0), atol=1e-9)
        np.testing.assert_allclose(found.stated[2:], np.sort(worth[:, 2:], 0)[:10].mean(0), atol=1e-9)
        assert found.kept.tolist() == (found.stated >= 0).tolist()
        assert found.names == ("floor: a", "floor: b", *(f"floor: {v}" for v in u.voters))
        seen |= set(found.kept.tolist()) | set(found.probability < 1)
    assert seen == {True, False}


def test_a_rule_that_knows_the_demand_keeps_it_and_is_no_surer_than_the_draws(make):
    u = replace(make(seed=5, shape=(40, 4, 3, 4)), groups=("a", "b", "a", "b"))
    floor = choice.Floor(eps=0.05)
    free = choice.met(choice.Utilitarian().choose(u, beta=0.1).lottery, u, [floor])
    bound = choice.met(choice.Utilitarian().choose(u, beta=0.1, constraints=[floor]).lottery, u, [floor])
    assert not free.kept.all() and bound.kept.all()
    tight = int(bound.stated.argmin())
    assert abs(bound.stated[tight]) < 1e-3 and 0.2 < bound.probability[tight] < 0.8 > free.probability[tight]
    assert "kept as stated" in str(bound) and "broken as stated" in str(free)
    careful = replace(floor, risk=choice.CVaR(tail=0.1))  # a chance constraint
    sure = choice.met(choice.Utilitarian().choose(u, beta=0.1, constraints=[careful]).lottery, u, [careful])
    assert sure.probability.min() >= 0.9


def test_the_reference_is_worth_nothing_and_breaks_no_floor(make):
    u = make(seed=2)
    found = choice.met(u.reference, u, [choice.Floor(each="voter")])
    assert found.kept.all() and (found.probability == 1).all()


def test_bounds_have_objectives_of_their_own_and_what_is_no_lottery_is_refused(make):
    u = make(seed=3)
    harm = Utilities(np.arange(4.0) * np.ones((6, 1, 3, 4)), np.ones(1), u.reference)
    bound = choice.Bound(harm, at_most=1.5, name="harm")
    low, high = np.eye(4)[[0, 0, 0]], np.eye(4)[[2, 3, 3]]
    assert choice.met(low, u, [bound]).probability.tolist() == [1]
    found = choice.met(high, u, [bound])
    assert found.probability.tolist() == [0] and found.stated == pytest.approx([1.5 - 8 / 3])
    with pytest.raises(InputError, match="shape"):
        choice.met(low[:2], u, [bound])
    with pytest.raises(InputError, match="nothing is demanded"):
        choice.met(low, u, [])
