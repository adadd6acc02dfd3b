"""Lotteries against closed forms, published numbers and brute force."""

import itertools
import math

import cvxpy as cp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize
from scipy.special import softmax

from pluralign import choice
from pluralign.errors import InputError, SolveError
from pluralign.types import Linear, Utilities

RULES = [choice.Utilitarian(), choice.Nash(), choice.Maximin()]
RISKS = [choice.Mean(), choice.CVaR(tail=0.25), choice.CVaR(tail=0.6)]


def tail(risk) -> float:
    return getattr(risk, "tail", 1.0)


def table(value, mass=None, reference=None) -> Utilities:
    value = np.asarray(value, float)
    _, voters, prompts, candidates = value.shape
    mass = np.full(voters, 1 / voters) if mass is None else mass
    return Utilities(value, mass, np.full((prompts, candidates), 1 / candidates) if reference is None else reference)


# The programs in plain Python, and two searches that know nothing of duality.


def worst_mean(w, tail):
    """Mean of the worst `tail` of the draws: sorted, added up one by one, the last one in part."""
    left, total = tail * len(w), 0.0
    for value in sorted(w):
        part = min(1.0, left)
        total += part * value
        left -= part
        if left <= 0:
            break
    return total / (tail * len(w)) if tail * len(w) >= 1 else min(w)


def welfare(kind, u, mass):
    if kind == "utilitarian":
        return sum(m * x for m, x in zip(mass, u, strict=True))
    if kind == "maximin":
        return min(x for m, x in zip(mass, u, strict=True) if m > 0)
    if any(x <= 0 for m, x in zip(mass, u, strict=True) if m > 0):
        return -math.inf
    return math.log(math.prod(x**m for m, x in zip(mass, u, strict=True) if m > 0))


def objective(kind, tail, value, mass, reference, lottery, beta):
    """`rho(W(u)) - beta mean_x KL(p_x || ref_x)` of dense utilities; `tail` 1 is the mean."""
    prompts = len(reference)
    gain, divergence = 0.0, 0.0
    for x in range(prompts):
        gain = gain + value[:, :, x, :] @ lottery[x] / prompts
        for p, q in zip(lottery[x], reference[x], strict=True):
            divergence += p * math.log(p / q) / prompts if p > 0 else 0.0
    return worst_mean([welfare(kind, u, mass) for u in gain], tail) - beta * divergence


def brute_force(f, prompts, candidates, points=9, rounds=14):
    """Maximise `f(lottery)` by a grid over all lotteries that is moved and shrunk around its best point.

    Where `f` has a ridge it may stop beside the optimum: what it finds is a lower bound.
    """
    size = prompts * (candidates - 1)
    centre, width, best = np.full(size, 1 / candidates), 0.9, (-np.inf, None)
    for _ in range(rounds):
        for offset in itertools.product(np.linspace(-width, width, points), repeat=size):
            free = np.clip(centre + np.array(offset), 1e-12, 1).reshape(prompts, candidates - 1)
            lottery = np.concatenate([free, 1 - free.sum(-1, keepdims=True)], axis=1)
            if (lottery > 0).all() and f(lottery) > best[0]:
                best = f(lottery), lottery
        centre, width = best[1][:, :-1].ravel(), width * 0.5
    return best


def sequential(kind, tail, value, mass, reference, beta, starts=4):
    """Solve the program by scipy's SLSQP from several starts, kinks written as inequalities.

    Variables: logits of the lottery, welfare per draw `w`, threshold `t`, shortfalls `s`; the mean of the worst draws
    is `t - sum s / (tail draws)`.
    """
    draws, _, prompts, candidates = value.shape
    sizes = np.cumsum([prompts * candidates, draws, 1])

    def split(z):
        logits, w, t, s = np.split(z, sizes)
        return softmax(logits.reshape(prompts, candidates), axis=-1), w, t, s

    def utility(z):
        return np.einsum("svxy,xy->sv", value, split(z)[0]) / prompts

    def loss(z):
        lottery, _, t, s = split(z)
        divergence = (lottery * np.log(np.maximum(lottery, 1e-300) / reference)).sum() / prompts
        return -(t[0] - s.sum() / max(tail * draws, 1) - beta * divergence)

    def slack(z):
        u, (_, w, t, s) = utility(z), split(z)
        if kind == "maximin":
            below = (u - w[:, None]).ravel()
        else:
            below = (u if kind == "utilitarian" else np.log(np.maximum(u, 1e-12))) @ mass - w
        return np.concatenate([below, s - (t - w), s])

    constraint, found = {"type": "ineq", "fun": slack}, []
    for seed in range(starts):
        logits = 0.3 * np.random.default_rng(seed).normal(size=sizes[0])
        start = np.concatenate([logits, np.full(draws, -3.0), [-3.0], np.zeros(draws)])
        options = {"maxiter": 1000, "ftol": 1e-12}
        found.append(split(minimize(loss, start, method="SLSQP", constraints=constraint, options=options).x)[0])
    return max(found, key=lambda lottery: objective(kind, tail, value, mass, reference, lottery, beta))


MAXMIN = table(np.array([[[[1, 0, 0.4]], [[0, 1, 0.4]]]]))


def test_maximin_is_over_expectations_not_per_response():
    """Chakraborty et al. 2024, MaxMin-RLHF: two groups, a compromise answer; beta = 0.1."""
    chosen = choice.Maximin().choose(MAXMIN, beta=0.1)
    np.testing.assert_allclose(chosen.lottery, [[0.42232, 0.42232, 0.15536]], atol=6e-6)
    np.testing.assert_allclose(chosen.lottery[0, 2], 1 / (2 * np.e + 1), atol=1e-6)
    np.testing.assert_allclose(chosen.weights, [[0.5, 0.5]], atol=1e-6)
    np.testing.assert_allclose(MAXMIN.expected(chosen.lottery), [[0.48446, 0.48446]], atol=6e-6)
    np.testing.assert_allclose(chosen.certificate.value, 0.476338, atol=1e-6)
    np.testing.assert_allclose(chosen.certificate.upper_bound, 0.476338, atol=1e-6)
    per_response = softmax(np.array([0, 0, 0.4]) / 0.1)
    np.testing.assert_allclose(per_response[2], np.exp(4) / (np.exp(4) + 2))
    assert np.abs(chosen.lottery[0] - per_response).sum() / 2 > 0.5
    np.testing.assert_allclose(MAXMIN.expected(per_response[None]), [[0.40353, 0.40353]], atol=6e-6)


def test_maximin_without_divergence_mixes_the_two_extremes():
    """The same paper: the optimum without KL is half of each, worth 0.5 to both."""
    chosen = choice.Maximin().choose(MAXMIN, beta=1e-3)
    np.testing.assert_allclose(chosen.lottery, [[0.5, 0.5, 0]], atol=1e-5)
    np.testing.assert_allclose(MAXMIN.expected(chosen.lottery).min(), 0.5, atol=1e-5)


@pytest.mark.parametrize("beta", [1e-3, 0.05, 0.3, 10.0])
def test_utilitarian_with_mean_is_the_posterior_of_the_mean_reward(make, beta):
    """Korbak et al. 2022: `ref exp(r / beta) / Z`; the multipliers are mass / draws and the gap closes."""
    utilities = make(seed=1)
    chosen = choice.Utilitarian().choose(utilities, beta=beta)
    reward = np.tensordot(utilities.mass, utilities.dense().mean(0), axes=1)
    with np.errstate(divide="ignore"):
        expected = softmax(np.log(utilities.reference) + reward / beta, axis=-1)
    np.testing.assert_allclose(chosen.lottery, expected, atol=1e-6 / min(beta, 1))
    np.testing.assert_allclose(chosen.weights, np.tile(utilities.mass / 6, (6, 1)), atol=1e-6)
    free = beta * np.log((utilities.reference * np.exp(reward / beta)).sum(-1)).mean() if beta > 0.01 else None
    if free is not None:
        np.testing.assert_allclose(chosen.certificate.value, free, atol=1e-6)


def test_nash_with_one_voter_per_answer_follows_the_closed_form():
    """Two voters, each wants one of two answers: `beta log(p / q) = m_1 / p - m_2 / q`."""
    mass, beta = np.array([0.8, 0.2]), 0.25
    chosen = choice.Nash().choose(table([[[[1, 0]], [[0, 1]]]], mass), beta=beta)
    p, q = chosen.lottery[0]
    np.testing.assert_allclose(beta * np.log(p / q), mass[0] / p - mass[1] / q, atol=5e-4)
    np.testing.assert_allclose(chosen.weights[0], mass / [p, q], atol=5e-4)
    without = choice.Nash().choose(table([[[[1, 0]], [[0, 1]]]], mass), beta=1e-4)
    np.testing.assert_allclose(without.lottery[0], mass, atol=1e-3)  # proportional, as Nash welfare is known to be


@pytest.mark.parametrize("rule", RULES, ids=lambda r: r.name)
@pytest.mark.parametrize("risk", RISKS, ids=str)
@pytest.mark.parametrize("shape", [(3, 2, 1, 3), (4, 3, 2, 2), (1, 3, 1, 3)], ids=str)
def test_brute_force_finds_nothing_better_and_slsqp_the_same_lottery(rule, risk, shape):
    rng = np.random.default_rng([*shape, len(rule.name)])
    utilities = table(
        rng.random(shape) + 0.05, rng.dirichlet(np.ones(shape[1])), rng.dirichlet([2] * shape[3], shape[2])
    )
    arguments = rule.kind, tail(risk), utilities.value, utilities.mass, utilities.reference
    beta = 0.07
    chosen = rule.choose(utilities, risk=risk, beta=beta)

    def f(lottery):
        return objective(*arguments, lottery, beta)

    certificate = chosen.certificate
    reached, _ = brute_force(f, shape[2], shape[3])
    np.testing.assert_allclose(certificate.value, f(chosen.lottery), atol=1e-9)
    assert reached <= certificate.upper_bound + 1e-7
    assert certificate.value - 2e-3 <= reached <= certificate.value + 2e-5
    np.testing.assert_allclose(chosen.lottery, sequential(*arguments, beta), atol=2e-4)


@settings(max_examples=25, deadline=None, derandomize=True)
@given(st.integers(0, 10**6), st.sampled_from(RULES), st.sampled_from(RISKS), st.floats(-2.5, 1))
def test_no_lottery_beats_the_certificate(seed, rule, risk, log_beta):
    rng = np.random.default_rng(seed)
    shape, beta = tuple(int(n) for n in rng.integers(1, 5, size=4)), 10.0**log_beta
    reference = rng.dirichlet(np.ones(shape[3]), size=shape[2])
    utilities = table(rng.random(shape) + 0.01, rng.dirichlet(np.ones(shape[1])), reference)
    chosen = rule.choose(utilities, risk=risk, beta=beta)
    arguments = rule.kind, tail(risk), utilities.value, utilities.mass, reference
    best = objective(*arguments, chosen.lottery, beta)
    np.testing.assert_allclose(chosen.certificate.value, best, atol=1e-8, rtol=1e-8)
    for size in (1.0, 0.1, 0.01):
        for other in rng.dirichlet(np.full(shape[3], 0.5), size=(8, shape[2])):
            mixed = (1 - size) * chosen.lottery + size * other
            assert objective(*arguments, mixed, beta) <= chosen.certificate.upper_bound + 1e-6


@pytest.mark.parametrize("rule", RULES, ids=lambda r: r.name)
def test_the_reward_of_linear_utilities_makes_the_lottery(make, rule):
    utilities = make(seed=3)
    chosen = rule.choose(utilities, risk=choice.CVaR(0.5), beta=0.2)
    score = chosen.reward.score(utilities.value.phi.reshape(-1, 3)).reshape(3, 4)
    with np.errstate(divide="ignore"):
        np.testing.assert_allclose(
            softmax(np.log(utilities.reference) + score / 0.2, axis=-1), chosen.lottery, atol=1e-9
        )
    assert rule.choose(table(np.ones((1, 1, 1, 2))), beta=0.2).reward is None
    assert (chosen.name, chosen.risk) == (rule.kind, "mean over the worst 50 % of posterior draws")


@pytest.mark.parametrize("rule", RULES, ids=lambda r: r.name)
def test_degenerate_sizes(rule):
    one = rule.choose(table(np.full((1, 1, 2, 1), 0.3)), beta=0.1)
    np.testing.assert_allclose(one.lottery, 1)
    single = table([[[[0.5, 1.0]]]])
    lottery = rule.choose(single, risk=choice.CVaR(0.25), beta=0.5).lottery[0]
    slope = 1 / (single.expected(lottery[None])[0, 0]) if rule.kind == "nash" else 1.0
    np.testing.assert_allclose(np.log(lottery[1] / lottery[0]), 0.5 * slope / 0.5, atol=1e-4)
    indifferent = rule.choose(table(np.full((2, 3, 2, 3), 0.7)), beta=0.1)
    np.testing.assert_allclose(indifferent.lottery, 1 / 3, atol=1e-6)


@pytest.mark.parametrize("beta", [0.0, -0.1, np.nan, np.inf])
def test_beta_must_be_positive(beta):
    with pytest.raises(InputError, match="beta is"):
        choice.Utilitarian().choose(MAXMIN, beta=beta)


def test_nash_names_whoever_cannot_have_a_positive_utility():
    value = np.array([[[[1, 2]], [[1, 3]]], [[[1, 2]], [[-1, 0]]]], float)
    utilities = Utilities(value, [0.5, 0.5], [[0.5, 0.5]], voters=("ann", "bob"), scale="made up")
    with pytest.raises(InputError, match=r"best lottery for bob gives it 0 in draw 1 .*'made up'.*StdScale"):
        choice.Nash().choose(utilities)
    absent = Utilities(value, [1, 0], [[0.5, 0.5]], voters=("ann", "bob"))
    choice.Nash().choose(absent)  # who does not count is not asked


def test_nash_names_those_who_stand_in_each_others_way():
    value = np.array([[[[1, -1]], [[-1, 1]], [[2, 2]]]], float)
    utilities = Utilities(value, [0.4, 0.4, 0.2], [[0.5, 0.5]], voters=("ann", "bob", "cyd"))
    with pytest.raises(SolveError, match=r"(ann, bob|bob, ann)\. The scale") as caught:
        choice.Nash().choose(utilities)
    assert "cyd" not in str(caught.value)


def test_a_wild_spread_of_units_is_solved_or_refused_never_wrong():
    rng = np.random.default_rng(0)
    value = rng.random((2, 3, 2, 3)) * np.array([1e-8, 1, 1e8])[None, :, None, None]
    for rule in RULES:
        try:
            chosen = rule.choose(table(value), beta=0.1)
        except SolveError as error:
            assert "StdScale" in str(error) or "beta" in str(error)
        else:
            arguments = rule.kind, 1.0, value, np.full(3, 1 / 3), np.full((2, 3), 1 / 3)
            best = objective(*arguments, chosen.lottery, 0.1)
            others = [objective(*arguments, q, 0.1) for q in rng.dirichlet(np.ones(3), size=(500, 2))]
            assert max(others) <= best + 1e-6 * abs(best)


def test_linear_and_dense_certificates_agree():
    linear = Linear(np.array([[[1.0], [0.0]]]), np.array([[[2.0]]]), np.array([[1.0]]))
    a = choice.Nash().choose(Utilities(linear, [1.0], [[0.5, 0.5]]), beta=0.3)
    b = choice.Nash().choose(table([[[[3.0, 1.0]]]]), beta=0.3)
    np.testing.assert_allclose(a.lottery, b.lottery, atol=1e-5)
    np.testing.assert_allclose(a.certificate.value, b.certificate.value, atol=1e-8)


@pytest.mark.parametrize("share", [0.05, 0.1, 0.25, 0.33, 0.5, 0.999, 1.0])
@pytest.mark.parametrize("draws", [1, 2, 7, 10])
def test_cvar_counts_the_worst_draws_one_of_them_in_part(share, draws):
    w = np.random.default_rng(draws).normal(size=draws)
    ours = choice.CVaR(tail=share).combine(cp.Constant(w)).value
    np.testing.assert_allclose(ours, worst_mean(w, share), atol=1e-12)
    variational = max(t - np.maximum(t - w, 0).sum() / max(share * draws, 1) for t in w)  # attained at a draw
    np.testing.assert_allclose(ours, variational, atol=1e-12)


def test_cvar_of_everything_is_the_mean_and_a_tail_lies_between_0_and_1():
    w = np.array([3.0, -1.0, 0.5])
    assert choice.CVaR(tail=1.0).combine(cp.Constant(w)).value == pytest.approx(w.mean())
    assert choice.Mean().combine(cp.Constant(w)).value == pytest.approx(w.mean())
    for share in (0.0, -0.1, 1.1):
        with pytest.raises(InputError, match=f"tail is {share}"):
            choice.CVaR(tail=share)
