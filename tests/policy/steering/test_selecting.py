from functools import partial
from itertools import combinations, product
from math import log

import numpy as np
import pytest
from scipy.integrate import quad
from scipy.stats import chisquare, norm

from pluralign.errors import InputError
from pluralign.policy.sampling import sample
from pluralign.policy.steering import (
    best_of,
    best_of_curve,
    best_of_kl,
    best_of_lottery,
    best_of_value,
    rejection,
)

PUBLISHED = {1: 0.0, 2: 0.1931, 4: 0.6363, 16: 1.8351, 64: 3.1745, 256: 4.5491, 1024: 5.9324}


def enumerated(p, reward, n):
    """The distribution of the best of n, by going through all draws; ties go to one of the tied draws at random."""
    q = np.zeros(len(p))
    for draw in product(range(len(p)), repeat=n):
        top = [i for i in draw if reward[i] == max(reward[j] for j in draw)]
        for i in top:
            q[i] += np.prod(p[list(draw)]) / len(top)
    return q


@pytest.mark.parametrize("n", sorted(PUBLISHED))
def test_bound_as_published(n):
    assert best_of_kl(n) == pytest.approx(PUBLISHED[n], abs=6e-5)


@pytest.mark.parametrize("reward", [(0.3, -1.0, 2.0, 0.5), (1.0, 1.0, 0.0, 1.0), (2.0, 2.0, 2.0, 2.0)])
@pytest.mark.parametrize("n", [1, 2, 3, 5])
def test_best_of_a_finite_set_is_what_enumeration_gives(reward, n):
    p, r = np.array([0.1, 0.2, 0.3, 0.4]), np.array(reward)
    q = enumerated(p, r, n)
    np.testing.assert_allclose(best_of_lottery(p, r, n), q, atol=1e-14)
    kl = sum(a * log(a / b) for a, b in zip(q, p, strict=True) if a > 0)
    assert best_of_kl(n, r, p) == pytest.approx(kl, abs=1e-13)
    assert best_of_kl(n, r, p) <= best_of_kl(n) + 1e-12


def test_a_candidate_that_is_never_drawn_is_never_kept_even_at_an_end():
    p = np.array([0.0, 0.5, 0.5, 0.0])
    q = best_of_lottery(p, np.array([-1.0, 0.0, 1.0, 2.0]), 2)
    np.testing.assert_allclose(q, [0, 0.25, 0.75, 0])


def test_many_distinct_rewards_reach_the_bound_and_repeats_do_not():
    r = np.arange(200_000.0)
    assert best_of_kl(16, r) == pytest.approx(PUBLISHED[16], abs=1e-3)
    assert best_of_kl(16, r // 100_000) < log(2)  # two levels: no choice among them can move farther
    assert best_of_kl(1024, np.repeat([0.0, 1.0], 8)) == pytest.approx(log(2))


@pytest.mark.parametrize("n", [1, 2, 3, 6])
@pytest.mark.parametrize("tied", [False, True])
def test_the_estimate_is_the_mean_over_all_subsets(n, tied):
    rng = np.random.default_rng(n)
    proxy, gold = rng.normal(size=(3, 6)), rng.normal(size=(3, 6))
    if tied:
        proxy = np.round(proxy)
    told = []
    for r, g in zip(proxy, gold, strict=True):
        values = []
        for subset in combinations(range(6), n):
            top = max(r[list(subset)])
            values.append(np.mean([g[i] for i in subset if r[i] == top]))
        told.append(np.mean(values))
    np.testing.assert_allclose(best_of_value(proxy, gold, n), told, atol=1e-12)


def test_weights_do_not_overflow_and_sum_to_one():
    proxy = np.random.default_rng(0).normal(size=(1, 20_000))
    assert best_of_value(proxy, np.ones_like(proxy), 9_000) == pytest.approx(1, abs=1e-6)


def expected_max(n):
    return quad(lambda z: z * n * norm.pdf(z) * norm.cdf(z) ** (n - 1), -10, 10)[0]


def test_gaussian_proxy_and_gold_as_in_closed_form():
    rng = np.random.default_rng(0)
    var_gold, var_noise = 1.5, 0.7
    gold = rng.normal(0, var_gold**0.5, size=(1500, 64))
    proxy = gold + rng.normal(0, var_noise**0.5, size=gold.shape)
    curve = best_of_curve(proxy, gold)
    assert list(curve.n) == [1, 2, 4, 8, 16, 32, 64]
    rho = var_gold / (var_gold * (var_gold + var_noise)) ** 0.5
    for i, n in enumerate(curve.n):
        told, error = curve.gold.mean(1)[i], curve.stderr(curve.gold)[i]
        assert 0 < error < 0.1
        assert abs(told - rho * var_gold**0.5 * expected_max(n)) < 4 * error
        assert abs(curve.proxy.mean(1)[i] - (var_gold + var_noise) ** 0.5 * expected_max(n)) < 4 * error
    assert curve.peak == 64  # Gaussian noise: no turn-over
    assert (curve.kl <= [[best_of_kl(int(n)) + 1e-9] for n in curve.n]).all()


def test_heavy_tailed_noise_turns_over():
    rng = np.random.default_rng(0)
    gold = rng.normal(size=(1000, 256))
    curve = best_of_curve(gold + rng.standard_t(1.2, size=gold.shape), gold)
    assert 1 < curve.peak < 256
    peak = list(curve.n).index(curve.peak)
    fall = curve.gold[peak] - curve.gold[-1]
    assert fall.mean() > 4 * fall.std() / len(fall) ** 0.5
    assert (np.diff(curve.proxy.mean(1)) > 0).all()  # the proxy never tells


P = np.array([0.5, 0.3, 0.15, 0.05])
R = np.array([0.0, 0.4, 1.0, 2.0])
TEXTS = ("a", "b", "c", "d")


def sampler(prompts, n, seed=1):
    rng = np.random.default_rng(seed)
    return [[TEXTS[i] for i in rng.choice(4, size=n, p=P)] for _ in prompts]


def scorer(prompts, responses):
    return [R[TEXTS.index(y)] for y in responses]


def frequency(texts):
    return np.array([sum(t == y for t in texts) for y in TEXTS])


def test_best_of_is_distributed_as_it_says():
    found = best_of(["x"] * 4000, 3, sampler, scorer)
    assert found.scores.shape == (4000, 3)
    assert all(
        y == texts[np.argmax([R[TEXTS.index(t)] for t in texts])]
        for y, texts in zip(found.responses, found.drawn, strict=True)
    )
    expected = best_of_lottery(P, R, 3)
    assert chisquare(frequency(found.responses), 4000 * expected).pvalue > 1e-3
    assert chisquare(frequency(found.responses), 4000 * P).pvalue < 1e-9
    assert found.kl_bound == best_of_kl(3)


def test_rejection_with_a_bound_draws_from_the_optimum_of_kl_control():
    beta = 0.7
    optimum = P * np.exp(R / beta)
    z = optimum.sum()
    optimum /= z
    found = rejection(["x"], 40_000, sampler, scorer, beta, bound=2.0, seed=3)
    kept = frequency(found.responses[0])
    assert found.exact
    assert chisquare(kept, kept.sum() * optimum).pvalue > 1e-3
    assert chisquare(kept, kept.sum() * P).pvalue < 1e-9
    assert found.share[0] == pytest.approx(z * np.exp(-2 / beta), rel=0.05)
    assert found.log_z[0] == pytest.approx(log(z), abs=0.02)
    assert found.kl[0] == pytest.approx((optimum * np.log(optimum / P)).sum(), abs=0.02)
    assert found.ess[0] == pytest.approx(40_000 * z**2 / (P * np.exp(2 * R / beta)).sum(), rel=0.05)
    # a bound that is too high only costs: the same distribution, less often
    loose = rejection(["x"], 40_000, sampler, scorer, beta, bound=3.0, seed=4)
    kept = frequency(loose.responses[0])
    assert chisquare(kept, kept.sum() * optimum).pvalue > 1e-3
    assert loose.share[0] < found.share[0] / 3


def test_a_sampler_with_the_same_seed_does_not_decide_what_is_kept():
    found = rejection(["x"], 40_000, partial(sampler, seed=7), scorer, 0.7, bound=2.0, seed=7)
    optimum = P * np.exp(R / 0.7)
    kept = frequency(found.responses[0])
    assert chisquare(kept, kept.sum() * optimum / optimum.sum()).pvalue > 1e-3


def test_the_highest_of_a_small_sample_as_bound_is_biased_and_says_so():
    beta = 0.3
    found = rejection(["x"] * 8000, 3, sampler, scorer, beta)
    assert not found.exact
    assert all(len(texts) for texts in found.responses)  # the highest is always kept
    kept = frequency([y for texts in found.responses for y in texts])
    optimum = P * np.exp(R / beta)
    assert chisquare(kept, kept.sum() * optimum / optimum.sum()).pvalue < 1e-9
    assert (found.kl <= log(3) + 1e-12).all()


def test_small_beta_does_not_overflow():
    found = rejection(["x"], 1000, sampler, scorer, 1e-4)
    assert set(found.responses[0]) == {"d"}
    assert np.isfinite([*found.kl, *found.log_z, *found.ess]).all()


def test_a_model_is_a_sampler(tiny):
    def longest(prompts, responses):
        return [len(y) for y in responses]

    found = best_of(["tell me about the cat"], 6, partial(sample, tiny, max_tokens=8), longest)
    assert len(found.responses[0]) == max(map(len, found.drawn[0]))


def holes(prompts, responses):
    return [np.nan if y == "c" else 0.0 for y in responses]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: best_of_kl(0), "n is 0"),
        (lambda: best_of_lottery(np.array([0.5, 0.4]), np.zeros(2), 2), "sum to 1"),
        (lambda: best_of_kl(2, np.array([0.0, np.inf])), "finite"),
        (lambda: best_of_value(np.zeros((1, 3)), np.zeros((1, 3)), 4), "3 samples"),
        (lambda: best_of_value(np.zeros((1, 3)), np.full((1, 3), np.nan), 2), "finite"),
        (lambda: best_of(["x"], 30, sampler, holes), "response 'c' to prompt 'x' is nan"),
        (lambda: best_of(["x", "z"], 2, lambda x, n: [["a"], ["b"]], scorer), r"\[1, 1\] responses to 2 prompts"),
        (lambda: best_of(["x"], 2, sampler, lambda x, y: 1.0), r"shape \(\)"),
        (lambda: best_of([], 2, sampler, scorer), "no prompts"),
        (lambda: rejection(["x"], 50, sampler, scorer, 0.0), "beta is 0"),
        (lambda: rejection(["x"], 50, sampler, scorer, 1.0, bound=0.5), "above its bound 0.5"),
    ],
)  # fmt: skip
def test_what_is_refused(call, message):
    with pytest.raises(InputError, match=message):
        call()
