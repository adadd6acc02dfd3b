from collections import Counter
from functools import cache
from itertools import combinations, permutations, product
from math import exp, log, prod

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.polynomial import Polynomial
from scipy.integrate import quad
from scipy.special import expit, log_expit, softmax
from scipy.stats import chisquare, logistic, norm

from pluralign.reward import likelihood
from pluralign.reward.likelihood import (
    davidson,
    draw,
    graded_comparison,
    lapsed,
    log_rankings,
    ordered_logit,
    rao_kupper,
    three_way,
    thurstone,
)

rng = np.random.default_rng(0)
N = 60
ETA, TIE, PLACE, THRESHOLD = rng.normal(0, 3, N), rng.normal(0, 2, N), rng.normal(0, 1, N), rng.gamma(2, 0.5, N)
STEPS = 0.1 + rng.gamma(2, 0.4, (N, 3))
CUTS = np.cumsum(STEPS, -1) - 2
ETA[0], TIE[0], PLACE[0], THRESHOLD[0], STEPS[0], CUTS[0] = 0.8, -0.4, -0.2, 0.5, (0.2, 0.5, 1), (-1, 0.2, 1)


def without_ties(level, eta, steps):
    return graded_comparison(level, eta, jnp.concatenate([0 * steps[..., :1], steps], -1))


def at_times(outcome, eta, tie, lapse_logit):
    return lapsed(davidson(outcome, eta, tie), lapse_logit, log(3))


ENDS = np.array([-1e3, -87, -0.1, 0, 1e-4, 20, 1e3])
NOT_NEGATIVE = np.abs(ENDS) + 1e-5
WIDE = np.array([[1e-5, 1, 2], [1, 1e-3, 500], [300, 300, 300], [0.5, 1e-2, 1e-6]])
FAR_CUTS = np.array([[-1000, -999, 1000], [-1e-6, 0, 1e-6], [998, 999, 1000]])

# the function, all its outcomes, its parameters, extreme values of all but the first of these
FORMS = {
    "Bradley-Terry": (davidson, range(2), (ETA,), ()),
    "Davidson": (davidson, range(3), (ETA, TIE), (ENDS,)),
    "Rao-Kupper": (rao_kupper, range(3), (ETA, THRESHOLD), (NOT_NEGATIVE,)),
    "Thurstone": (thurstone, range(2), (ETA,), ()),
    "Glenn-David": (thurstone, range(3), (ETA, THRESHOLD), (NOT_NEGATIVE,)),
    "graded": (graded_comparison, range(-3, 4), (ETA, STEPS), (WIDE,)),
    "graded, no ties": (without_ties, (-3, -2, -1, 1, 2, 3), (ETA, STEPS[:, 1:]), (WIDE[:, 1:],)),
    "ordered logit": (ordered_logit, range(4), (ETA, CUTS), (FAR_CUTS,)),
    "three-way": (three_way, range(3), (ETA, PLACE, TIE), (ENDS, ENDS)),
    "random at times": (at_times, range(3), (ETA, TIE, PLACE), (ENDS, ENDS)),
}
forms = pytest.mark.parametrize("name", FORMS)


@pytest.fixture(autouse=True)
def _float64():
    with jax.enable_x64(True):
        yield


@cache
def study(name):
    """Return a compiled function from parameters to log probabilities `[row outcome]` and their slopes."""
    form, outcomes, *_ = FORMS[name]

    def log_p(*parameters):
        return jnp.stack([form(k, *parameters) for k in outcomes], -1)

    def value_and_slopes(*parameters):
        value, pull = jax.vjp(log_p, *parameters)
        unit = jnp.eye(len(outcomes), dtype=value.dtype)[:, None]
        return value, jax.vmap(pull)(jnp.broadcast_to(unit, (len(outcomes), *value.shape)))

    return jax.jit(value_and_slopes)


@cache
def rows(name):
    """Return parameters: N random rows, then all combinations of extremes."""
    _, _, usual, extremes = FORMS[name]
    which = np.meshgrid(*(np.arange(len(e)) for e in (ENDS, *extremes)))
    extremes = [e[i.ravel()] for e, i in zip((ENDS, *extremes), which, strict=True)]
    return [np.concatenate(both) for both in zip(usual, extremes, strict=True)]


@cache
def over(form, outcomes):
    return jax.jit(lambda *p: jnp.stack([form(k, *p) for k in outcomes], -1))


def probabilities(form, outcomes, parameters):
    return np.exp(over(form, tuple(outcomes))(*parameters))


# --- all forms with a short list of outcomes


@forms
def test_outcomes_are_all_there_is(name):
    p = np.exp(study(name)(*rows(name))[0])
    np.testing.assert_allclose(p.sum(-1), 1, rtol=1e-10)
    assert p.shape == (len(rows(name)[0]), len(FORMS[name][1]))
    assert (np.abs(p[:N, :-1].sum(-1) - 1) > 1e-3).any()  # leaving one out shows


@forms
def test_gradients_are_those_of_finite_differences(name):
    slopes = study(name)(*rows(name))[1]
    for i, slope in enumerate(slopes):
        for j in np.ndindex(rows(name)[i].shape[1:]):
            step = np.zeros_like(rows(name)[i])
            step[(slice(None), *j)] = 1e-5
            up, down = ([p + sign * step if k == i else p for k, p in enumerate(rows(name))] for sign in (1, -1))
            rise = (study(name)(*up)[0] - study(name)(*down)[0])[:N] / 2e-5
            ours = np.asarray(slope)[(slice(None), slice(N), *j)].T
            np.testing.assert_allclose(ours, rise, rtol=1e-5, atol=1e-7)


@forms
@pytest.mark.parametrize("wide", [False, True])
def test_extremes_are_finite_with_their_gradients(name, wide):
    with jax.enable_x64(wide):
        value, slopes = study(name)(*(jnp.asarray(p, float) for p in rows(name)))
        assert value.dtype == (np.float64 if wide else np.float32)
        assert np.isfinite(value).all()
        assert (value <= 0).all()
        assert all(np.isfinite(s).all() for s in slopes)


@pytest.mark.parametrize("name", ["Davidson", "Rao-Kupper", "Glenn-David", "graded", "three-way"])
def test_compiled_mapped_and_plain_agree(name):
    form, outcomes, parameters, _ = FORMS[name]
    plain = [form(k, *(p[0] for p in parameters)) for k in outcomes]
    compiled = np.asarray(study(name)(*rows(name))[0])[:N]
    np.testing.assert_allclose(plain, compiled[0], rtol=1e-9)
    said = np.arange(N) % len(outcomes)
    outcome, compiled = np.asarray(outcomes)[said], compiled[np.arange(N), said]
    draws = [np.stack([p, p[::-1]]) for p in parameters]  # a leading axis that the outcomes do not have
    mapped, batched = jax.jit(lambda p, d: (jax.vmap(form)(outcome, *p), form(outcome, *d)))(parameters, draws)
    np.testing.assert_allclose(mapped, compiled, rtol=1e-9)
    np.testing.assert_allclose(batched[0], compiled, rtol=1e-9)


EXCLUDED = {
    "tie": (davidson, 2, (ETA,)),
    "normal tie": (thurstone, 2, (ETA,)),
    "tie without room": (rao_kupper, 2, (ETA, 0 * THRESHOLD)),
    "normal tie without room": (thurstone, 2, (ETA, 0 * THRESHOLD)),
    "level without room": (without_ties, 0, (ETA, STEPS)),
    "grade above the scale": (ordered_logit, 4, (ETA, CUTS)),
    "grade below the scale": (ordered_logit, -1, (ETA, CUTS)),
    "grade where cutpoints meet": (ordered_logit, 1, (ETA, 0 * CUTS)),
}


@pytest.mark.parametrize(("form", "outcome", "parameters"), EXCLUDED.values(), ids=EXCLUDED)
def test_what_a_model_excludes_has_no_probability_and_breaks_no_gradient(form, outcome, parameters):
    @jax.jit
    def both(*parameters):
        never_slips, pull = jax.vjp(lambda *p: form(outcome, *p), *parameters)
        slips, pull_slips = jax.vjp(lambda *p: lapsed(form(outcome, *p), -2.0, log(3)), *parameters)
        return never_slips, slips, (*pull(jnp.ones(N)), *pull_slips(jnp.ones(N)))

    never_slips, slips, slopes = both(*parameters)
    assert (never_slips == -np.inf).all()
    np.testing.assert_allclose(slips, log(expit(-2) / 3))
    assert all(np.isfinite(s).all() for s in slopes)


@pytest.mark.parametrize("name", ["Thurstone", "Davidson", "graded, no ties"])
def test_draws_come_as_often_as_they_should(name):
    n, outcomes = 4000, FORMS[name][1]
    log_p = dict(zip(outcomes, np.asarray(study(name)(*rows(name))[0])[0], strict=True))
    drawn = draw(jax.random.key(1), lambda k: jnp.full(n, log_p[k]), outcomes)
    seen = [(np.asarray(drawn) == k).sum() for k in outcomes]
    expected = n * np.exp([log_p[k] for k in outcomes])
    assert chisquare(seen, expected).pvalue > 0.01
    assert chisquare(seen, np.roll(expected, 1)).pvalue < 1e-6


# --- each against what its authors wrote


def test_davidson_in_worths():
    """Davidson (1970): worths pi_i, pi_j, tie in proportion to nu sqrt(pi_i pi_j)."""
    pi_i, pi_j, nu = rng.gamma(1, size=N), rng.gamma(1, size=N), rng.gamma(1, size=N)
    published = np.stack([pi_i, pi_j, nu * np.sqrt(pi_i * pi_j)], -1)
    published /= published.sum(-1, keepdims=True)
    np.testing.assert_allclose(
        probabilities(davidson, range(3), (np.log(pi_i / pi_j), np.log(nu))), published, rtol=1e-10
    )
    np.testing.assert_allclose(np.exp(davidson(0, ETA)), expit(ETA), rtol=1e-12)


def test_rao_kupper_in_worths():
    """Rao and Kupper (1967), equation 2.2; the tie is a product of theirs, not a difference."""
    pi_i, pi_j, theta = rng.gamma(1, size=N), rng.gamma(1, size=N), 1 + rng.gamma(1, size=N)
    first, second = pi_i / (pi_i + theta * pi_j), pi_j / (theta * pi_i + pi_j)
    tie = pi_i * pi_j * (theta**2 - 1) / ((pi_i + theta * pi_j) * (theta * pi_i + pi_j))
    ours = probabilities(rao_kupper, range(3), (np.log(pi_i / pi_j), np.log(theta)))
    np.testing.assert_allclose(ours, np.stack([first, second, tie], -1), rtol=1e-10)


def normal_between(lower, upper):
    """Return log P(lower < Z < upper), 0 < lower, by quadrature of the density divided by its value at `lower`."""
    return norm.logpdf(lower) + log(quad(lambda s: exp(-lower * s - s * s / 2), 0, upper - lower, epsabs=0)[0])


def test_thurstone_with_ties_in_both_tails():
    grid = [-300.0, -41.0, -6.0, -1.2, 0.7, 2.5, 9.0, 39.0, 1000.0], [1e-6, 0.2, 0.6]
    eta, threshold = (g.ravel() for g in np.meshgrid(*grid))
    first, second, tie = over(thurstone, (0, 1, 2))(eta, threshold).T
    np.testing.assert_allclose(first, norm.logcdf(eta - threshold), rtol=1e-10, atol=1e-13)
    np.testing.assert_allclose(second, norm.logsf(eta + threshold), rtol=1e-10, atol=1e-13)
    by_quadrature = [normal_between(abs(e) - t, abs(e) + t) for e, t in zip(eta, threshold, strict=True)]
    np.testing.assert_allclose(tie, by_quadrature, rtol=1e-9)


def test_thurstone_about_the_middle_and_without_ties():
    z = np.linspace(-38, 38, 4001)
    first, second = over(thurstone, (0, 1))(z).T
    np.testing.assert_allclose(first, norm.logcdf(z), rtol=1e-10, atol=1e-16)
    np.testing.assert_allclose(second, norm.logsf(z), rtol=1e-10, atol=1e-16)
    eta, threshold = np.array([0, 0.1, -0.4]), np.array([0.3, 1.5, 0.5])
    tie = norm.cdf(threshold - eta) - norm.cdf(-threshold - eta)
    np.testing.assert_allclose(probabilities(thurstone, (0, 1, 2), (eta, threshold))[:, 2], tie, rtol=1e-12)


def test_thurstone_is_not_the_logistic_approximation():
    z = np.linspace(-4, 4, 4001)
    ours = probabilities(thurstone, (0, 1), (z,))[:, 0]
    np.testing.assert_allclose(np.abs(ours - expit(np.sqrt(8 / np.pi) * z)).max(), 0.0177, atol=5e-5)
    assert np.abs(ours - expit(np.sqrt(2 * np.pi) * z)).max() > 0.09  # a slip found in print


def test_ordered_logit_is_a_difference_of_distribution_functions():
    edges = np.concatenate([np.full((N, 1), -np.inf), CUTS, np.full((N, 1), np.inf)], -1)
    by_hand = np.diff(logistic.cdf(edges - ETA[:, None]), axis=-1)
    np.testing.assert_allclose(probabilities(ordered_logit, range(4), (ETA, CUTS)), by_hand, rtol=1e-9, atol=1e-14)


def test_ordered_logit_keeps_its_digits_in_the_tail():
    """For utilities far above the cutpoints, sigmoid(c - u) is exp(c - u), so P is exp(-u) (exp(c_2) - exp(c_1))."""
    cuts = np.array([-1.0, 0.5, 0.5 + 1e-7])
    expected = [-1.0, log(exp(0.5) - exp(-1.0)), 0.5 + log(np.expm1(1e-7))]
    tail = over(ordered_logit, (0, 1, 2, 3))
    np.testing.assert_allclose(tail(600.0, cuts)[:3], np.array(expected) - 600, rtol=1e-9)
    np.testing.assert_allclose(tail(-600.0, -cuts[::-1])[:0:-1], np.array(expected) - 600, rtol=1e-9)


def test_strength_treats_both_sides_alike_and_adds_up_to_who_won():
    p = probabilities(graded_comparison, range(-3, 4), (ETA, STEPS))
    mirrored = probabilities(graded_comparison, range(-3, 4), (-ETA, STEPS))
    np.testing.assert_allclose(p, mirrored[:, ::-1], rtol=1e-9)
    np.testing.assert_allclose(p[:, 4:].sum(-1), expit(ETA - STEPS[:, 0]), rtol=1e-9)
    np.testing.assert_allclose(p[:, 6], expit(ETA - STEPS.sum(-1)), rtol=1e-9)
    plain = probabilities(without_ties, (1, 2, 3), (ETA, STEPS[:, 1:])).sum(-1)
    np.testing.assert_allclose(plain, expit(ETA), rtol=1e-9)


def test_approvals_and_votes():
    np.testing.assert_allclose(ordered_logit(1, ETA, PLACE[:, None]), log_expit(ETA - PLACE), rtol=1e-12)
    disagree, passed, agree = probabilities(three_way, range(3), (ETA, PLACE, TIE)).T
    np.testing.assert_allclose(agree / disagree, np.exp(ETA - PLACE), rtol=1e-9)
    np.testing.assert_allclose(passed**2 / (agree * disagree), np.exp(2 * TIE), rtol=1e-9)


def test_a_rater_who_lapses_mixes_with_the_uniform():
    lapse = expit(PLACE)
    mixed = (1 - lapse) * expit(ETA) + lapse / 2
    np.testing.assert_allclose(np.exp(lapsed(davidson(0, ETA), PLACE, log(2))), mixed, rtol=1e-10)
    np.testing.assert_allclose(lapsed(-5.0, -700.0, log(3)), -5.0, rtol=1e-12)
    np.testing.assert_allclose(lapsed(-5000.0, 700.0, log(3)), -log(3), rtol=1e-12)


# --- rankings

davidson_luce = jax.jit(likelihood.davidson_luce)
draw_rankings = jax.jit(likelihood.draw_davidson_luce)


@jax.jit
def climb_rows(utility, rank, tie, counts):
    value, pull = jax.vjp(lambda u, t: likelihood.davidson_luce(u, rank, t, counts), utility, tie)
    return value, pull(jnp.ones_like(value))


def climb(utility, rank, tie, counts=True, height=200):
    """Return `davidson_luce` of rows of five slots and its slopes; always as many rows, so that it compiles once."""
    n = max(np.shape(utility)[0], np.shape(rank)[0])
    pad = lambda x, width: jnp.asarray(np.resize(np.broadcast_to(x, (n, width)), (height, width)))  # noqa: E731
    tie = None if tie is None else pad(tie, 2).astype(float)
    value, slopes = climb_rows(pad(utility, 5).astype(float), pad(rank, 5), tie, pad(counts, 5))
    return value[:n], [s[:n] for s in slopes if s is not None]


def sequences(slots, largest, blocks=None):
    """Yield the ranks of all rankings with ties up to `largest` that stop after `blocks` blocks."""

    def go(rank, left, block):
        if not left or block == blocks:
            yield rank
            return
        for size in range(1, min(largest, len(left)) + 1):
            for s in combinations(left, size):
                yield from go(
                    [block if i in s else r for i, r in enumerate(rank)], [i for i in left if i not in s], block + 1
                )

    return np.array(list(go([-1] * slots, list(range(slots)), 0)))


def by_hand(worth, rank, prevalence, normaliser=None):
    """Turner et al. (2020), equation 2, in plain numbers; `prevalence[k - 1]` is delta_k."""
    left, p = [i for i in range(len(worth))], 1.0

    def worthy(s):
        return prevalence[len(s) - 1] * prod(worth[i] for i in s) ** (1 / len(s))

    for block in sorted({r for r in rank if r >= 0}):
        chosen = [i for i in left if rank[i] == block]
        sizes = range(1, min(len(left), normaliser or len(prevalence)) + 1)
        p *= worthy(chosen) / sum(worthy(s) for k in sizes for s in combinations(left, k))
        left = [i for i in left if i not in chosen]
    return p


U4, U5 = rng.normal(0, 1.5, 4), rng.normal(0, 1.5, 5)
DELTA = np.array([1, 0.7, 0.4])


@pytest.mark.parametrize("largest", [1, 2, 3])
def test_rankings_are_enumerated(largest):
    """All rankings of 2, 3 and 4 slots that stop after 1, 2, 3 places or never, in one batch."""
    designs = list(product((2, 3, 4), (1, 2, 3, None)))
    cases = [sequences(slots, largest, blocks) for slots, blocks in designs]
    rank = np.concatenate([np.pad(r, ((0, 0), (0, 4 - r.shape[1])), constant_values=-1) for r in cases])
    counts = np.concatenate([np.tile(np.arange(4) < r.shape[1], (len(r), 1)) for r in cases])
    delta = DELTA[:largest]
    p = np.exp(davidson_luce(U4, rank, np.log(delta[1:]), counts))
    np.testing.assert_allclose(p, [by_hand(np.exp(U4[c]), r[c], delta) for r, c in zip(rank, counts, strict=True)])
    ends = np.cumsum([len(r) for r in cases])
    np.testing.assert_allclose(np.diff(np.concatenate([[0], np.cumsum(p)[ends - 1]])), 1, rtol=1e-11)
    for (slots, blocks), r in zip(designs, cases, strict=True):
        np.testing.assert_allclose(log_rankings(slots, blocks, largest), log(len(r)))
    plain = np.exp(davidson_luce(U4, rank, None, counts))
    if largest == 1:
        np.testing.assert_allclose(plain, p, rtol=1e-11)
    else:
        tied = np.array([max(Counter(r[r >= 0]).values()) > 1 for r in rank])
        assert (plain[tied] == 0).all()
        assert (plain[~tied] > p[~tied]).any()
        forgetful = sum(by_hand(np.exp(U4), r, delta, normaliser=1) for r in cases[-1])
        assert forgetful > 1.5  # ties left out of the normaliser


def test_strict_rankings_of_five_are_first_arrivals():
    """Slots arrive at exponential times with rates equal to worths (Luce 1959): integrals of polynomials in exp(-t)."""
    rate = np.array([1, 2, 3, 5, 4])
    rank = np.array(list(permutations(range(5))))
    p = np.exp(davidson_luce(np.log(rate), rank))
    np.testing.assert_allclose(p.sum(), 1, rtol=1e-12)
    for r, ours in zip(rank[::7], p[::7], strict=True):
        *early, latest = np.argsort(r)
        survives = Polynomial.basis(rate[latest])  # P(the last comes after t), in x = exp(-t)
        for slot in reversed(early):
            survives = (rate[slot] * Polynomial.basis(rate[slot] - 1) * survives).integ()
        np.testing.assert_allclose(ours, survives(1), rtol=1e-10)


def test_fitted_values_of_another_package():
    """R's PlackettLuce 0.4.4: estimates and fitted probabilities of its six rankings of fruit (recorded output)."""
    u, tie = np.array([0, 0.2867987, -0.4636687]), np.array([-1.0701129])
    apple_banana, ties, whole = 0.36656777, 0.07962156, (0.33785994, 0.33086831, 0.2536189, 0.58554515, 0.52604625)
    rank = [[0, 1, -1], [2, 0, 1], [1, 0, 0], [0, 1, 2], [0, -1, 1]]
    counts = [[1, 1, 0], [1, 1, 1], [1, 1, 1], [1, 1, 1], [1, 0, 1]]
    expected = [apple_banana, whole[0] * whole[1], ties, whole[2] * whole[3], whole[4]]
    ours = np.exp(davidson_luce(u, np.array(rank), tie, np.array(counts, bool)))
    np.testing.assert_allclose(ours, expected, rtol=2e-7)


def test_two_slots_are_davidson_and_the_best_of_k_is_a_softmax():
    rank = np.array([[0, 1], [1, 0], [0, 0]])
    ours = davidson_luce(np.stack([ETA, 0 * ETA], -1)[:, None], rank, TIE[:, None, None])
    np.testing.assert_allclose(ours, np.log(probabilities(davidson, range(3), (ETA, TIE))), rtol=1e-10, atol=1e-14)
    best = np.where(np.eye(5, dtype=bool), 0, -1)
    np.testing.assert_allclose(np.exp(davidson_luce(U5, best)), softmax(U5), rtol=1e-12)


RANKS = np.array([[0, 1, 2, 3, 4], [2, 0, 0, 1, 1], [0, 0, 0, -1, -1], [-1, 0, -1, 1, 1], [4, 3, 1, 0, 1]])
LOG_TIES = np.log(DELTA[1:])


@pytest.mark.parametrize("tie", [None, LOG_TIES])
def test_neither_a_shift_nor_the_order_of_slots_matters(tie):
    rank = RANKS if tie is not None else RANKS[[0, 0]]
    log_p = davidson_luce(U5, rank, tie)
    assert np.isfinite(log_p).all()
    np.testing.assert_allclose(davidson_luce(U5 + 700, rank, tie), log_p, rtol=1e-10)
    assert not np.allclose(davidson_luce(2 * U5, rank, tie), log_p)
    for order in ([4, 3, 2, 1, 0], [1, 3, 0, 4, 2]):
        np.testing.assert_allclose(davidson_luce(U5[order], rank[:, order], tie), log_p, rtol=1e-10)
        assert not np.allclose(davidson_luce(U5, rank[:, order], tie), log_p)
    np.testing.assert_allclose(davidson_luce(U5, np.where(rank > 0, 3 * rank + 2, rank), tie), log_p, rtol=1e-12)


@pytest.mark.parametrize("tie", [None, LOG_TIES])
@pytest.mark.parametrize("junk", [0.0, 1e3, np.inf, np.nan])
def test_empty_slots_say_nothing(tie, junk):
    rank = np.array([2, -1, 0, 1, -1]) if tie is None else np.array([1, -1, 0, 0, -1])
    full = log(by_hand(np.exp(np.delete(U5, 1)), np.delete(rank, 1), DELTA[: 1 if tie is None else 3]))
    utility, counts = U5.copy(), np.arange(5) != 1
    utility[1] = junk
    nobody = np.zeros(5, bool)
    value, (slope, *_) = climb([utility] * 2, [rank, [-1] * 5], tie, [counts, nobody])
    np.testing.assert_allclose(value, [full, 0], rtol=1e-12)
    assert np.isfinite(slope).all()
    assert slope[0, 1] == 0
    assert (slope[1] == 0).all()


def test_rankings_mapped_and_batched_agree():
    utility, tie = rng.normal(size=(3, 1, 5)), rng.normal(size=(3, 1, 2))
    log_p = davidson_luce(utility, RANKS, tie)
    worth, delta = np.exp(utility[:, 0]), np.exp(np.insert(tie[:, 0], 0, 0, -1))
    one_by_one = [[by_hand(w, r, d) for r in RANKS] for w, d in zip(worth, delta, strict=True)]
    np.testing.assert_allclose(np.exp(log_p), one_by_one, rtol=1e-10)
    mapped = jax.jit(jax.vmap(lambda u, t: jax.vmap(lambda r: davidson_luce(u[0], r, t[0]))(RANKS)))(utility, tie)
    np.testing.assert_allclose(mapped, log_p, rtol=1e-10)


@pytest.mark.parametrize("tie", [None, LOG_TIES])
def test_gradients_of_rankings_are_those_of_finite_differences(tie):
    rank, e = RANKS if tie is not None else RANKS[:1], 1e-5
    _, slopes = climb([U5], rank, tie)
    for i in range(5):
        up, down = climb([U5 + e * np.eye(5)[i]], rank, tie)[0], climb([U5 - e * np.eye(5)[i]], rank, tie)[0]
        np.testing.assert_allclose(slopes[0][:, i], (up - down) / (2 * e), rtol=1e-5, atol=1e-8)
    for i in range(0 if tie is None else 2):
        up, down = climb([U5], rank, tie + e * np.eye(2)[i])[0], climb([U5], rank, tie - e * np.eye(2)[i])[0]
        np.testing.assert_allclose(slopes[1][:, i], (up - down) / (2 * e), rtol=1e-5, atol=1e-8)


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("wide", [False, True])
def test_extreme_rankings_are_finite_with_their_gradients(ties, wide):
    far = [-1e3, 0, 1e3]
    rank = RANKS if ties else RANKS[:1]
    which = np.random.default_rng(1).choice(3, (200, 7))
    with jax.enable_x64(wide):
        for counts in (True, [False, True, True, True, True]):
            tie = np.take(far, which[:, 5:]) if ties else None
            value, slopes = climb(np.take(far, which[:, :5]), np.resize(rank, (200, 5)), tie, counts)
            assert value.dtype == (np.float64 if wide else np.float32)
            assert np.isfinite(value).all()
            assert (value <= 1e4 * np.finfo(value.dtype).eps).all()
            assert all(np.isfinite(s).all() for s in slopes)


def test_a_tie_that_is_too_large_is_impossible_and_breaks_no_gradient():
    value, slopes = climb([U5], np.array([[0, 0, 0, 0, -1], [0, 1, 1, 1, -1]]), LOG_TIES)
    assert value[0] == -np.inf
    assert np.isfinite(value[1])
    assert all(np.isfinite(s).all() for s in slopes)


@pytest.mark.parametrize(("largest", "blocks"), [(1, 4), (3, 4), (3, 2), (3, 1)])
def test_rankings_are_drawn_as_often_as_they_should(largest, blocks):
    n, tie = 5000, None if largest == 1 else LOG_TIES[: largest - 1]
    utility = jnp.concatenate([0.4 * U4[:2], jnp.array([99.0]), 0.4 * U4[2:]])
    counts = np.arange(5) != 2
    drawn = draw_rankings(jax.random.key(3), jnp.broadcast_to(utility, (n, 5)), tie, counts, blocks)
    assert (drawn[:, 2] == -1).all()  # an empty slot is never chosen
    seen = Counter(map(tuple, np.asarray(drawn)[:, [0, 1, 3, 4]].tolist()))
    rank = sequences(4, largest, blocks)
    expected = n * np.exp(davidson_luce(0.4 * U4, rank, tie))
    observed = np.array([seen.pop(tuple(r)) if tuple(r) in seen else 0 for r in rank.tolist()])
    assert not seen  # nothing but these
    assert chisquare(observed, expected).pvalue > 0.01
    assert chisquare(observed, np.roll(expected, 1)).pvalue < 1e-6


def test_each_draw_may_fill_its_own_number_of_places():
    blocks = np.array([1, 2, 5])
    drawn = draw_rankings(jax.random.key(0), U5, None, None, blocks)
    assert drawn.shape == (3, 5)
    np.testing.assert_array_equal((np.asarray(drawn) >= 0).sum(-1), blocks)
