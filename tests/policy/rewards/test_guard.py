from dataclasses import replace
from itertools import combinations

import numpy as np
import pytest
from datasets import Dataset

from pluralign import reward as reward_room
from pluralign.errors import InputError
from pluralign.policy.rewards import Guard, Monitor
from pluralign.types import (
    CautiousReward,
    Choices,
    Features,
    Feedback,
    Grades,
    Linear,
    LinearReward,
    Utilities,
)
from tests.policy.conftest import make_choice

PROMPTS, CANDIDATES, FEATURES, DRAWS, VOTERS = 60, 4, 5, 40, 3
WATCH = Guard(kl=1e9)


def make(seed=0, prompts=PROMPTS, candidates=CANDIDATES, draws=DRAWS, spread=None, **changes):
    """A choice with random linear utilities; candidates are independent draws around a mean of their prompt."""
    rng = np.random.default_rng(seed)
    spread = np.ones(FEATURES) if spread is None else spread
    phi = 3 * rng.normal(size=(prompts, 1, FEATURES)) + rng.normal(size=(prompts, candidates, FEATURES)) * spread
    weights = rng.normal(size=(VOTERS, FEATURES)) + 0.3 * rng.normal(size=(draws, VOTERS, FEATURES))
    utilities = Utilities(
        Linear(phi, weights, rng.normal(size=(draws, VOTERS))),
        np.array([0.2, 0.3, 0.5]),
        np.full((prompts, candidates), 1 / candidates),
    )
    multipliers = np.tile([0.5, 0.4, 0.1], (draws, 1)) / draws
    reward = LinearReward(np.einsum("sv,svf->f", multipliers, weights))
    chosen = make_choice(np.zeros((prompts, candidates)))
    return replace(chosen, weights=multipliers, reward=reward, utilities=utilities, **changes)


def responses(chosen, n, seed=1, noise=1.0):
    """New responses like the candidates: around the mean of their prompt."""
    rng = np.random.default_rng(seed)
    prompt = rng.integers(chosen.utilities.shape[2], size=n)
    return chosen.utilities.value.phi.mean(1)[prompt] + noise * rng.normal(size=(n, FEATURES)), prompt.tolist()


def test_reward_and_bound_are_those_of_every_draw_and_voter():
    chosen = make()
    phi, prompt = responses(chosen, 7)
    told = Monitor.of(Guard(kl=1.0, k=1.5), chosen)(phi, prompt).metrics
    value = chosen.utilities.value
    proxy, lower = [], []
    for x, row in zip(phi, prompt, strict=True):
        per_draw = []
        for s in range(DRAWS):
            total = 0.0
            for v, lam in enumerate((0.5, 0.4, 0.1)):
                here = sum(value.weights[s, v, f] * x[f] for f in range(FEATURES))
                there = np.mean([value.weights[s, v] @ y for y in value.phi[row]])
                total += lam * (here - there)
            per_draw.append(total)
        proxy.append(np.mean(per_draw))
        lower.append(np.mean(per_draw) - 1.5 * np.std(per_draw))
    assert told["guard/proxy"] == pytest.approx(np.mean(proxy))
    assert told["guard/lower"] == pytest.approx(np.mean(lower))
    assert told["guard/gap"] == pytest.approx(np.mean(proxy) - np.mean(lower))


def test_what_the_reference_writes_is_worth_nothing_and_known_exactly():
    chosen = make()
    monitor = Monitor.of(WATCH, chosen)
    verdict = monitor(chosen.utilities.value.phi.mean(1), list(range(PROMPTS)), np.zeros(PROMPTS))
    for name in ("proxy", "lower", "gap", "kl", "drop", "leverage"):
        assert verdict.metrics[f"guard/{name}"] == pytest.approx(0, abs=1e-12)
    assert "guard/disagreement" not in verdict.metrics  # one response per prompt
    assert verdict.stop is None
    assert verdict.counts.all()
    assert not verdict.penalty.any()


def test_a_cautious_reward_is_watched_by_its_own_draws():
    chosen = make()
    weights = np.random.default_rng(5).normal(size=(9, FEATURES))
    cautious = CautiousReward(weights, np.zeros(FEATURES), k=1.0)
    phi, prompt = responses(chosen, 6)
    told = Monitor.of(Guard(kl=1.0, k=1.0), replace(chosen, reward=cautious, weights=None))(phi, prompt).metrics
    assert told["guard/gap"] == pytest.approx(0, abs=1e-12)  # it is its own lower bound
    assert told["guard/lower"] != 0


def test_without_multipliers_voters_count_by_mass():
    chosen = make()
    phi, prompt = responses(chosen, 6)
    told = Monitor.of(WATCH, replace(chosen, weights=None, reward=None))(phi, prompt).metrics
    away = phi - chosen.utilities.value.phi.mean(1)[prompt]
    expected = np.einsum("v,svf,if->si", chosen.utilities.mass, chosen.utilities.value.weights, away)
    assert told["guard/proxy"] == pytest.approx(expected.mean())


def test_prices_of_demands_are_part_of_the_reward():
    chosen = make()
    rows = replace(
        chosen.utilities,
        value=Linear(chosen.utilities.value.phi, np.ones((DRAWS, VOTERS, FEATURES)), np.zeros((DRAWS, VOTERS))),
    )
    prices = np.full((DRAWS, VOTERS), 2 / (DRAWS * VOTERS))
    phi, prompt = responses(chosen, 6)
    monitors = [
        Monitor.of(WATCH, replace(chosen, reward=None, **more)) for more in ({}, {"rows": rows, "prices": prices})
    ]
    plain, more = (m(phi, prompt).metrics["guard/proxy"] for m in monitors)
    away = phi - chosen.utilities.value.phi.mean(1)[prompt]
    assert more - plain == pytest.approx(2 * away.sum(1).mean())


def test_disagreement_as_counted_over_pairs_of_draws():
    chosen = make(draws=7)
    phi, prompt = responses(chosen, 9)
    prompt = [0, 0, 0, 1, 1, 2, 2, 2, 3]
    phi[6] = phi[7]  # a text and itself have no order
    monitor = Monitor.of(WATCH, chosen)
    differ = []
    for i, j in combinations(range(9), 2):
        if prompt[i] == prompt[j] and (i, j) != (6, 7):
            order = [float(np.sign(w @ (phi[i] - phi[j]))) for w in monitor.weights]
            differ.append(np.mean([order[s] != order[t] for s, t in combinations(range(7), 2)]))
    assert monitor(phi, prompt).metrics["guard/disagreement"] == pytest.approx(np.mean(differ))
    assert 0.05 < np.mean(differ) < 0.5


@pytest.mark.parametrize("candidates", [2, 4])
def test_responses_like_the_candidates_are_beyond_them_once_in_a_hundred(candidates):
    """Far is measured as new responses are, not by how near a candidate is to a mean that it is part of."""
    chosen = make(prompts=1500, candidates=candidates)
    monitor = Monitor.of(WATCH, chosen)
    shares = [monitor(*responses(chosen, 20_000, noise=noise)).metrics["guard/leverage"] for noise in (1.0, 2.0)]
    # a new response differs from the mean of c candidates by 1 + 1 / c variances; `responses` leaves the mean itself out
    phi, prompt = responses(chosen, 20_000)
    own = chosen.utilities.value.phi.mean(1)[prompt]
    phi = own + (phi - own) * np.sqrt(1 + 1 / candidates)
    share = monitor(phi, prompt).metrics["guard/leverage"]
    assert share == pytest.approx(0.01, abs=0.006)
    assert shares[0] < share < 0.1 < shares[1]


def test_few_prompts_in_many_dimensions_do_not_call_everything_far():
    """The negative twin is the same with candidates measured by data that hold them: their distance would be too small."""
    rng = np.random.default_rng(0)
    phi = rng.normal(size=(12, 2, 30))
    chosen = make()
    utilities = Utilities(Linear(phi, rng.normal(size=(2, 1, 30)), np.zeros((2, 1))), np.ones(1), np.full((12, 2), 0.5))
    chosen = replace(chosen, utilities=utilities, weights=None, reward=None)
    new = phi.mean(1) + rng.normal(size=(200, 12, 30)) * np.sqrt(1.5)
    told = Monitor.of(WATCH, chosen)(new.reshape(-1, 30), list(range(12)) * 200).metrics
    assert told["guard/leverage"] < 0.2
    monitor = Monitor.of(WATCH, chosen)
    inside = monitor.leverage((phi - phi.mean(1, keepdims=True)).reshape(-1, 30))
    assert (monitor.leverage((new - phi.mean(1)).reshape(-1, 30)) > inside.max()).mean() > 0.9


def test_leverage_agrees_with_the_reward_rooms_where_all_pairs_were_compared():
    chosen = make(prompts=8)
    phi = chosen.utilities.value.phi
    slates = [[CANDIDATES * x + i, CANDIDATES * x + j] for x in range(8) for i, j in combinations(range(CANDIDATES), 2)]
    rows = [(x, f"p{x}", f"r{i}") for x in range(8) for i in range(CANDIDATES)]
    items = Dataset.from_dict(
        dict(zip(("prompt_id", "prompt", "response"), map(list, zip(*rows, strict=True)), strict=True))
    )
    n = len(slates)
    votes = Feedback(
        items, Dataset.from_dict({"id": ["a"], "weight": [1.0]}), ("overall",),
        Choices(slates, [[0, 1]] * n, [0] * n, [0] * n, [-1] * n), Grades.none(),
    )  # fmt: skip
    features = Features(
        phi.reshape(-1, FEATURES), votes.prompt_id, tuple("abcde"), np.zeros(FEATURES), np.eye(FEATURES)
    )
    x = np.random.default_rng(2).normal(size=(20, FEATURES))
    monitor = Monitor.of(Guard(kl=1.0, ridge=0.0), chosen)
    np.testing.assert_allclose(monitor.leverage(x), reward_room.leverage(votes, features, x), rtol=1e-4)
    # and with a feature in which candidates never differ, both say that nothing is known there
    flat = phi.copy()
    flat[..., 4] = 1.0
    chosen = replace(chosen, utilities=replace(chosen.utilities, value=replace(chosen.utilities.value, phi=flat)))
    features = replace(features, phi=flat.reshape(-1, FEATURES))
    told = Monitor.of(Guard(kl=1.0, ridge=0.0), chosen).leverage(x)
    np.testing.assert_array_equal(told, np.inf)
    np.testing.assert_array_equal(reward_room.leverage(votes, features, x), np.inf)
    assert np.isfinite(Monitor.of(WATCH, chosen).leverage(x)).all()  # a ridge: far, but not infinitely


def run(monitor, paths, prompt, log_ratios=None):
    """Feed a monitor step after step as a loop does; return the records and the verdicts."""
    record, records, verdicts = {}, [], []
    for t, phi in enumerate(paths):
        verdict = monitor(phi, prompt, None if log_ratios is None else log_ratios[t], record)
        record = {"step": t + 1.0, "kl": 0.0} | verdict.metrics
        records.append(record)
        verdicts.append(verdict)
    return records, verdicts


def over_optimised(chosen, n=40, steps=12):
    """A policy that climbs the mean reward along a direction of which the posterior is less and less sure."""
    prompt = list(range(n))
    start = chosen.utilities.value.phi.mean(1)[:n]
    along = np.zeros(FEATURES)
    along[0] = 1.0
    return [start + t * along for t in range(steps)], prompt


def unsure(scale=1.0):
    """Draws of the first feature's weight have mean 1 and standard deviation `scale`, others are known."""
    chosen = make(spread=np.array([0.5, 1, 1, 1, 1]))
    z = np.random.default_rng(0).normal(size=DRAWS)
    z = (z - z.mean()) / z.std()
    weights = np.zeros((DRAWS, VOTERS, FEATURES))
    weights[..., 0] = 1 + scale * z[:, None]
    value = replace(chosen.utilities.value, weights=weights)
    multipliers = np.tile([0.5, 0.4, 0.1], (DRAWS, 1)) / DRAWS
    reward = LinearReward(np.einsum("sv,svf->f", multipliers, weights))
    return replace(chosen, reward=reward, utilities=replace(chosen.utilities, value=value))


def test_a_proxy_that_rises_while_the_lower_bound_falls_is_caught_at_the_right_step():
    """Proxy t, bound t - 2 t = -t, gap 2 t, drop t after step t: closed forms say where each limit is passed."""
    chosen = unsure()
    paths, prompt = over_optimised(chosen)
    for limit, first in (({"gap": 7.0}, 4), ({"drop": 4.5}, 5), ({"gap": 7.0, "drop": 2.5}, 3)):
        records, verdicts = run(Monitor.of(Guard(**limit, patience=2), chosen), paths, prompt)
        np.testing.assert_allclose([r["guard/proxy"] for r in records], np.arange(12), atol=1e-9)
        np.testing.assert_allclose([r["guard/lower"] for r in records], -np.arange(12), atol=1e-9)
        assert [t for t, v in enumerate(verdicts) if v.passed] == list(range(first, 12))
        stopped = [t for t, v in enumerate(verdicts) if v.stop]
        assert stopped[0] == first + 1  # the second look in a row
        message = verdicts[first + 1].stop
        assert next(iter(limit)) in message or "drop" in message
        assert "2 looks in a row" in message


def test_a_proxy_that_the_posterior_is_sure_of_is_left_alone():
    """The negative twin: the same climb, and draws that agree."""
    chosen = unsure(scale=0.1)
    paths, prompt = over_optimised(chosen)
    _, verdicts = run(Monitor.of(Guard(gap=7.0, drop=2.5, patience=2), chosen), paths, prompt)
    assert not any(v.stop or v.passed for v in verdicts)


def test_one_noisy_step_does_not_stop_training():
    chosen = unsure()
    paths, prompt = over_optimised(chosen)
    order = [0, 1, 5, 1, 5, 5, 1, 5, 5, 5, 5, 1]
    records, verdicts = run(Monitor.of(Guard(gap=7.0, patience=3), chosen), [paths[t] for t in order], prompt)
    assert [r["guard/strikes"] for r in records] == [0, 0, 1, 0, 1, 2, 0, 1, 2, 3, 4, 0]
    assert [t for t, v in enumerate(verdicts) if v.stop] == [9, 10]


def test_the_budget_of_divergence_counts_what_it_is_given_or_what_the_last_record_says():
    chosen = unsure()
    paths, prompt = over_optimised(chosen, n=2)
    monitor = Monitor.of(Guard(kl=3.0, patience=1), chosen)
    _, verdicts = run(monitor, [paths[0]] * 3, prompt, [np.array(x) for x in ([1.0, 2.0], [5.0, 0.5], [9.0, -2.0])])
    assert [bool(v.stop) for v in verdicts] == [False, False, True]
    assert "kl is 3.5, above its limit 3" in verdicts[2].stop
    assert monitor(paths[0], prompt, None, {"kl": 3.2}).stop
    assert not monitor(paths[0], prompt, None, {"kl": 2.8}).stop
    assert monitor(paths[0], prompt).metrics["guard/kl"] == 0  # before the first step


def test_caution_rises_by_half_a_deviation_until_limits_hold():
    chosen = unsure()
    paths, prompt = over_optimised(chosen)
    records, verdicts = run(Monitor.of(Guard(gap=7.0, patience=2, action="caution"), chosen), paths, prompt)
    assert [r["guard/caution"] for r in records] == [0] * 5 + [0.5, 0.5, 1, 1, 1.5, 1.5, 2]
    for t, verdict in enumerate(verdicts):
        before = records[t - 1]["guard/caution"] if t else 0
        np.testing.assert_allclose(verdict.penalty, before * t)  # t standard deviations of 1 at step t
        assert verdict.stop is None
        assert verdict.counts.all()


def test_fallback_leaves_out_what_is_far_and_everything_while_a_limit_is_passed():
    chosen = unsure()
    monitor = Monitor.of(Guard(action="fallback"), chosen)
    away = np.zeros((4, FEATURES))
    away[1, 0], away[2, 1], away[3, 1] = 50.0, 50.0, 0.1
    verdict = monitor(chosen.utilities.value.phi.mean(1)[[3] * 4] + away, [3] * 4)
    assert verdict.counts.tolist() == [True, False, False, True]
    assert verdict.metrics["guard/leverage"] == 0.5
    assert verdict.stop is None
    paths, prompt = over_optimised(chosen, steps=6)
    budget = Monitor.of(Guard(kl=1.0, patience=1, action="fallback"), chosen)
    _, verdicts = run(budget, [paths[0]] * 3, prompt, [np.full(40, x) for x in (0.5, 1.5, 0.9)])
    assert [v.counts.all() for v in verdicts] == [True, False, True]
    assert not verdicts[1].counts.any()


def test_prompts_are_known_by_text_and_others_are_measured_from_all():
    chosen = make(prompts=3, candidates=2)
    votes_rows = [(x, ("tea", "rain", "tea")[x], f"r{x}{i}") for x in range(3) for i in range(2)]
    items = Dataset.from_dict(
        dict(zip(("prompt_id", "prompt", "response"), map(list, zip(*votes_rows, strict=True)), strict=True))
    )
    votes = Feedback(items, Dataset.from_dict({"id": ["a"], "weight": [1.0]}), ("overall",), Choices([[0, 1]], [[0, 1]], [0], [0], [-1]), Grades.none())  # fmt: skip
    monitor = Monitor.of(WATCH, chosen, votes)
    own = chosen.utilities.value.phi.mean(1)
    assert monitor(own[[0, 1, 0]], ["tea", "rain", "tea"]).metrics["guard/gap"] == pytest.approx(0, abs=1e-12)
    assert monitor(own.mean(0)[None], ["never met"]).metrics["guard/gap"] == pytest.approx(0, abs=1e-12)
    assert monitor(own[[1]], ["tea"]).metrics["guard/gap"] > 0.1


def dense():
    return make_choice(np.zeros((2, 2)))


def no_spread():
    chosen = make()
    same = np.broadcast_to(chosen.utilities.value.phi[:, :1], chosen.utilities.value.phi.shape)
    return replace(chosen, utilities=replace(chosen.utilities, value=replace(chosen.utilities.value, phi=same)))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: Guard(), "no limit, so it would never stop"),
        (lambda: Guard(action="caution"), "would never caution"),
        (lambda: Guard(kl=-1.0), "guard.kl is -1"),
        (lambda: Guard(kl=1.0, patience=0), "patience is 0"),
        (lambda: Guard(gap=float("nan")), "guard.gap is nan"),
        (lambda: Monitor.of(WATCH, dense()), "dense utilities"),
        (lambda: Monitor.of(WATCH, no_spread()), "no prompt has two candidates that differ"),
        (lambda: Monitor.of(Guard(disagreement=0.2), make(draws=1)), "two posterior draws"),
        (lambda: Monitor.of(WATCH, make())(np.zeros((2, 3)), [0, 1]), "reward has 5 features"),
        (lambda: Monitor.of(WATCH, make())(np.full((1, 5), np.nan), [0]), "not finite"),
        (lambda: Monitor.of(WATCH, make())(np.zeros((1, 5)), [0], np.array([np.inf])), "not finite"),
        (lambda: Monitor.of(Guard(disagreement=0.2), make())(np.zeros((2, 5)), [0, 1]), "no prompt has two that differ"),
    ],
)  # fmt: skip
def test_what_is_refused(call, message):
    with pytest.raises(InputError, match=message):
        call()
