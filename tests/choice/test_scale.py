"""What each scale promises, against loops over plain Python numbers, and what it promises not to feel."""

from dataclasses import replace

import numpy as np
import pytest

from pluralign import choice
from pluralign.choice import scale as scales
from pluralign.errors import InputError
from pluralign.types import Linear, Utilities

ALL = [choice.NoScale(), choice.StdScale(), choice.RangeScale(), choice.GapScale()]
UNITS = ALL[1:]  # those that do not feel a voter's unit
RANK = choice.RankScale()
EVERY = [*ALL, RANK]


def plain(seed=0, shape=(3, 4, 2, 4)) -> Utilities:
    rng = np.random.default_rng(seed)
    reference = rng.dirichlet(np.full(shape[3], 2.0), size=shape[2])
    reference[0, 1] = 0
    mass = np.full(shape[1], 1 / shape[1])
    return Utilities(3 + rng.normal(size=shape), mass, reference / reference.sum(-1, keepdims=True))


def by_hand(kind, value, reference):
    """`(zero, unit)` of one voter in one draw, `value[prompt][candidate]`."""
    low, high, mean, variance = [], [], [], []
    for row, weight in zip(value, reference, strict=True):
        on = [(u, r) for u, r in zip(row, weight, strict=True) if r > 0]
        low.append(min(u for u, _ in on))
        high.append(max(u for u, _ in on))
        mean.append(sum(u * r for u, r in on))
        variance.append(sum(r * (u - mean[-1]) ** 2 for u, r in on))
    low, high, mean, variance = (sum(x) / len(x) for x in (low, high, mean, variance))
    return {"none": (mean, 1), "std": (low, variance**0.5), "range": (low, high - low), "gap": (mean, high - mean)}[
        kind
    ]


@pytest.mark.parametrize("scale", ALL, ids=lambda s: s.kind)
def test_each_scale_is_its_formula(scale):
    utilities = plain()
    scaled = choice.rescale(utilities, scale)
    for s, v in np.ndindex(3, 4):
        zero, unit = by_hand(scale.kind, utilities.value[s, v], utilities.reference)
        np.testing.assert_allclose(scaled.value[s, v], (utilities.value[s, v] - zero) / unit, atol=1e-12)
    assert scaled.scale == scale.words


@pytest.mark.parametrize("scale", ALL, ids=lambda s: s.kind)
def test_what_a_scale_measures_from_and_to(scale):
    """The landmarks that the docstrings name, on the scaled utilities."""
    u = choice.rescale(plain(seed=1), scale)
    low, high = scales.worst(u.dense(), u.reference), scales.best(u.dense(), u.reference)
    middle = u.expected(u.reference)
    if scale.kind in ("std", "range"):
        np.testing.assert_allclose(low, 0, atol=1e-12)
    if scale.kind in ("range", "gap"):
        np.testing.assert_allclose(high, 1, atol=1e-12)
    if scale.kind in ("none", "gap"):
        np.testing.assert_allclose(middle, 0, atol=1e-12)


def unit_blind(apply, seed=2):
    """Another unit and zero for each voter and draw changes nothing."""
    u, rng = plain(seed), np.random.default_rng(seed)
    other = replace(u, value=u.value * rng.gamma(2.0, size=(3, 4, 1, 1)) + rng.normal(size=(3, 4, 1, 1)))
    np.testing.assert_allclose(apply(u).value, apply(other).value, atol=1e-9)


def shift_blind(apply, seed=3):
    """A constant for each voter, draw and prompt changes no lottery's utility."""
    u, rng = plain(seed), np.random.default_rng(seed)
    other = replace(u, value=u.value + 5 * rng.normal(size=(3, 4, 2, 1)))
    on = np.where(u.reference > 0, rng.gamma(1.0, size=u.reference.shape), 0)
    for lottery in (u.reference, on / on.sum(-1, keepdims=True)):
        np.testing.assert_allclose(apply(u).expected(lottery), apply(other).expected(lottery), atol=1e-9)


def padding_blind(apply, seed=4):
    """What is no candidate does not count, whatever its number."""
    u = plain(seed)
    on = u.reference > 0
    other = replace(u, value=np.where(on, u.value, 1e3))
    np.testing.assert_allclose(apply(u).value[..., on], apply(other).value[..., on], atol=1e-9)


def overall(u: Utilities) -> Utilities:
    """Broken: from the worst to the best of all candidates of all prompts, padding too."""
    low, high = u.value.min((2, 3), keepdims=True), u.value.max((2, 3), keepdims=True)
    return replace(u, value=(u.value - low) / (high - low))


@pytest.mark.parametrize(
    ("check", "scale"),
    [(unit_blind, s) for s in [*UNITS, RANK]] + [(check, s) for check in (shift_blind, padding_blind) for s in EVERY],
    ids=lambda x: getattr(x, "kind", None) or x.__name__,
)
def test_scales_do_not_feel(check, scale):
    check(lambda u: choice.rescale(u, scale))


@pytest.mark.parametrize(
    ("check", "broken"),
    [
        (unit_blind, lambda u: choice.rescale(u, choice.NoScale())),
        (shift_blind, overall),
        (padding_blind, overall),
    ],
)
def test_broken_scales_fail(check, broken):
    with pytest.raises(AssertionError):
        check(broken)


@pytest.mark.parametrize("rule", [choice.Utilitarian(), choice.Nash(), choice.Maximin()], ids=lambda r: r.name)
@pytest.mark.parametrize("scale", UNITS[:2], ids=lambda s: s.kind)
def test_what_a_rule_chooses_does_not_hang_on_units_that_the_scale_removes(rule, scale):
    u, rng = plain(5), np.random.default_rng(5)
    moved = replace(u, value=u.value * rng.gamma(2.0, size=(3, 4, 1, 1)) + rng.normal(size=(3, 4, 2, 1)))
    a, b = (rule.choose(choice.rescale(x, scale), beta=0.2).lottery for x in (u, moved))
    np.testing.assert_allclose(a, b, atol=1e-4)


@pytest.mark.parametrize("scale", ALL, ids=lambda s: s.kind)
def test_factored_utilities_stay_factored_and_say_the_same(scale, monkeypatch):
    rng = np.random.default_rng(6)
    linear = Linear(rng.normal(size=(2, 4, 3)), rng.normal(size=(5, 4, 3)), rng.normal(size=(5, 4)))
    u = replace(plain(6, (5, 4, 2, 4)), value=linear)
    dense = choice.rescale(replace(u, value=u.dense()), scale)
    monkeypatch.setattr(scales, "CHUNK", 60)  # one draw at a time
    factored = choice.rescale(u, scale)
    assert isinstance(factored.value, Linear)
    np.testing.assert_allclose(factored.dense(), dense.value, atol=1e-10)


def test_the_last_scale_holds():
    u = plain(7)
    twice = choice.rescale(choice.rescale(u, choice.StdScale()), choice.RangeScale())
    np.testing.assert_allclose(twice.value, choice.rescale(u, choice.RangeScale()).value, atol=1e-10)


@pytest.mark.parametrize("scale", UNITS, ids=lambda s: s.kind)
@pytest.mark.parametrize("level", [0.0, 1e6, 0.1])
def test_an_indifferent_voter_is_named_unless_it_does_not_count(scale, level):
    u = plain(8)
    value = u.value.copy()
    value[1, 2] = level * np.array([[1], [-3]])  # differs between prompts only
    flat = replace(u, value=value, voters=("ann", "bob", "cyd", "dan"))
    with pytest.raises(InputError, match=r"1 of 4 voters are indifferent .* \(cyd\).*mass 0.*NoScale"):
        choice.rescale(flat, scale)
    absent = choice.rescale(replace(flat, mass=np.array([0.5, 0.25, 0, 0.25])), scale)
    assert np.isfinite(absent.dense()).all()
    choice.rescale(flat, choice.NoScale())


def test_a_rank_is_the_share_of_answers_that_are_liked_less():
    u = plain(9)
    value = np.round(u.value, 0)  # with ties
    value[2] = 0.7
    ranked = choice.rescale(replace(u, value=value), RANK)
    for s, v, x, y in np.ndindex(3, 4, 2, 4):
        own, row = value[s, v, x, y], list(zip(value[s, v, x], u.reference[x], strict=True))
        less = sum(r for other, r in row if other < own) + sum(r for other, r in row if other == own) / 2
        assert ranked.value[s, v, x, y] == pytest.approx(less, abs=1e-12)
    np.testing.assert_allclose(ranked.expected(u.reference), 0.5, atol=1e-12)
    np.testing.assert_allclose(ranked.value[2], 0.5)
    assert ranked.scale == RANK.words


def test_ranks_feel_nothing_but_the_order():
    u = plain(10)
    bent = replace(u, value=np.exp(2 * u.value) + np.arange(2)[:, None])
    np.testing.assert_allclose(choice.rescale(u, RANK).value, choice.rescale(bent, RANK).value, atol=1e-12)
    with pytest.raises(AssertionError):
        std = choice.StdScale()
        np.testing.assert_allclose(choice.rescale(u, std).value, choice.rescale(bent, std).value, atol=1e-12)


def test_the_sum_of_ranks_is_borda_against_the_reference(monkeypatch):
    rng = np.random.default_rng(11)
    linear = Linear(rng.normal(size=(6, 4, 3)), rng.normal(size=(5, 7, 3)), rng.normal(size=(5, 7)))
    u = Utilities(linear, rng.dirichlet(np.ones(7)), np.full((6, 4), 0.25))
    monkeypatch.setattr(scales, "CHUNK", 500)
    ranked = choice.rescale(u, RANK)
    assert not isinstance(ranked.value, Linear)
    summed = np.einsum("svxy,v->xy", ranked.value, u.mass) / 5
    winners = choice.Borda().choose(u, beta=0.01).lottery.argmax(-1)
    np.testing.assert_array_equal(summed.argmax(-1), winners)
    chosen = choice.Utilitarian().choose(ranked, beta=0.1)
    np.testing.assert_array_equal(chosen.lottery.argmax(-1), winners)
    assert choice.Nash().choose(ranked).certificate.tv_bound < 1e-3


def test_ranks_cannot_be_a_rules_own_scale():
    with pytest.raises(InputError, match="cannot be a rule's own scale"):
        scales.measured(plain(), RANK)
