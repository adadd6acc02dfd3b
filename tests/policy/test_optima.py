"""Where every loss is least, against optima found in other ways: closed forms, convex programs, published numbers."""

from dataclasses import replace

import cvxpy as cp
import numpy as np
import pytest
from scipy.optimize import minimize
from scipy.special import expit, logit, rel_entr

from pluralign import choice
from pluralign.policy import DPO, losses
from pluralign.policy.labels import Ballots, FromPosterior, FromVotes
from pluralign.policy.losses import ChiSquare, Distil, Logistic, Robust, Square
from pluralign.policy.reweigh import GroupRobust, MaxMin
from pluralign.types import Linear, Utilities
from tests.policy.conftest import make_choice
from tests.policy.tabular import community, distance, labelled, minimiser, played, policy, texts, voting

rng = np.random.default_rng(0)
TILT = rng.normal(size=(2, 4)) * 1.5
REFERENCE = np.array([[0.4, 0.3, 0.2, 0.1], [0.5, 0.3, 0.2, 0.0]])  # the second prompt has three candidates


def voted(labels, p):
    """Labels whose ballots say that candidate i beats candidate j in the share p[i, j] of their comparisons."""
    n = len(p)
    pairs = [(i, j) for i in range(n) for j in range(n) if i != j]
    weight = np.array([p[i, j] for i, j in pairs])
    ballots = Ballots(np.array(pairs), np.ones(len(pairs)), weight / weight.sum(), np.zeros(len(pairs), int))
    return replace(labels, ballots=ballots)


@pytest.mark.parametrize("slate", [2, None], ids=["pairs", "whole prompts"])
@pytest.mark.parametrize("beta", [0.3, 2.0])
def test_dpo_is_least_at_the_rules_lottery(beta, slate):
    """KL control: pi = pi_ref exp(t), level included."""
    train = DPO("x", beta=beta, slate=slate)
    labels = labelled(train, make_choice(TILT, reference=REFERENCE))
    found = policy(labels, minimiser(train, labels))
    exact = REFERENCE * np.exp(TILT)
    assert distance(found, exact / exact.sum(1, keepdims=True)) < 1e-5
    wrong = REFERENCE * np.exp(-TILT)
    assert distance(found, wrong / wrong.sum(1, keepdims=True)) > 0.2


def test_without_anchor_the_level_is_anywhere_and_with_it_on_whole_prompts_it_is_right_for_every_loss():
    for loss in (Logistic(0.1), Square(0.5), Distil()):
        for anchor, exact in ((0.3, True), (0.0, False)):
            train = DPO("x", loss=loss, anchor=anchor, slate=None)
            labels = labelled(train, make_choice(TILT, reference=REFERENCE))
            total = policy(labels, minimiser(train, labels)).sum(1)
            assert np.allclose(total, 1, atol=1e-5) == exact


def test_smoothed_labels_pull_a_pair_together():
    """cDPO: h = log(q / (1 - q)) / beta with q = (1 - 2 e) p + e."""
    tilt = np.array([[1.2, -0.4]])
    for e in (0.0, 0.2):
        train = DPO("x", loss=Logistic(e), beta=0.7)
        h = minimiser(train, labelled(train, make_choice(tilt)))
        p = expit(0.7 * 1.6)
        assert h[0] - h[1] == pytest.approx(logit(0.8 * 0.5 + 0.6 * (p - 0.5) + 0.1 if e else p) / 0.7, abs=1e-5)


def test_robust_dpo_finds_what_noisy_votes_were_before():
    """A share e of the votes was turned round; rDPO ends at the clean optimum, DPO between it and the reference."""
    tilt, e, beta = np.array([[0.8, 0.1, -0.9]]), 0.15, 0.5
    clean = expit(tilt[0][:, None] - tilt[0])
    noisy = (1 - e) * clean + e * (1 - clean)
    exact = np.exp(tilt / beta) / np.exp(tilt / beta).sum()
    apart = {}
    for loss in (Robust(e), Logistic()):
        train = DPO("x", loss=loss, beta=beta, anchor=0.0)
        labels = voted(labelled(train, make_choice(np.zeros((1, 3)))), noisy)
        found = np.exp(minimiser(train, labels))
        apart[loss.kind] = distance(found / found.sum(), exact)
    assert apart["robust"] < 1e-5
    assert apart["logistic"] > 0.05


def test_ipo_is_a_regularised_borda_rule():
    """Of the win rate against a candidate drawn uniformly, less tau KL, it finds the maximum (cvxpy)."""
    tau = 0.3
    train = DPO("x", loss=Square(tau), slate=None)
    chosen = make_choice(TILT)
    labels = labelled(train, chosen)
    found = policy(labels, minimiser(train, labels))
    for t, got in zip(TILT, found, strict=True):
        borda = expit(t[:, None] - t).mean(1)
        p = cp.Variable(4)
        value = borda @ p - tau * cp.sum(cp.kl_div(p, np.full(4, 0.25)))
        cp.Problem(cp.Maximize(value), [cp.sum(p) == 1]).solve(solver=cp.CLARABEL)
        assert distance(got, p.value) < 1e-4
        assert distance(got, np.exp(t) / np.exp(t).sum()) > 0.03  # not the rule's lottery


@pytest.mark.parametrize("slate", [2, None], ids=["pairs", "whole prompts"])
def test_chi_po_maximises_reward_less_both_divergences(slate):
    train = DPO("x", loss=Logistic(link=ChiSquare()), slate=slate, beta=0.5)
    chosen = make_choice(2 * TILT, reference=REFERENCE, beta=0.5)
    labels = labelled(train, chosen)
    found = policy(labels, minimiser(train, labels))
    for t, rho, got in zip(2 * TILT, REFERENCE, found, strict=True):
        rho, t, got = rho[rho > 0], t[rho > 0], got[rho > 0]

        def negative(p, t=t, rho=rho):
            z = p / rho
            return -(p @ t) + rel_entr(p, rho).sum() + 0.5 * (rho * (z - 1) ** 2).sum()

        simplex = {"type": "eq", "fun": lambda p: p.sum() - 1}
        best = minimize(negative, rho, bounds=[(1e-9, 1)] * len(rho), constraints=simplex, options={"ftol": 1e-14})
        assert distance(got, best.x) < 1e-3
        tilted = rho * np.exp(t)
        assert distance(got, tilted / tilted.sum()) > 0.02  # KL alone goes farther


def test_modpo_adds_what_other_objectives_are_worth():
    """pi = pi_ref exp((w0 r0 + w1 r1) / beta), r0 known from votes alone, r1 from its values."""
    r0, r1, beta = np.array([0.5, -0.2, 1.0]), np.array([1.0, 0.0, -0.7]), 0.6
    p = expit(r0[:, None] - r0)
    for w0 in (1.0, 0.3):
        w1 = 1 - w0
        train = DPO("x", labels=FromVotes(part=w0), beta=beta, anchor=0.0)
        chosen = make_choice(np.zeros((1, 3)), beta=beta)
        votes = voting(texts(chosen), [(0, 1, (0, 1), 0)])
        labels = voted(labelled(train, chosen, votes, margin=w1 * r1), p)
        found = np.exp(minimiser(train, labels))
        exact = np.exp((w0 * r0 + w1 * r1) / beta)
        assert distance(found / found.sum(), exact / exact.sum()) < 1e-5
        plain = np.exp(r0 / beta)
        assert (distance(found / found.sum(), plain / plain.sum()) < 1e-5) == (w0 == 1)


@pytest.mark.parametrize("loss", [Logistic(), Distil()], ids=["logistic", "distil"])
def test_other_objectives_move_labels_of_the_rule_and_their_level(loss):
    train = DPO("x", loss=loss, beta=0.5, slate=2)
    m = np.linspace(-1, 1, 8)
    labels = labelled(train, make_choice(TILT, reference=REFERENCE), margin=m)
    exact = REFERENCE * np.exp(TILT + m.reshape(2, 4) / 0.5)
    assert distance(policy(labels, minimiser(train, labels)), exact / exact.sum(1, keepdims=True)) < 1e-5


@pytest.mark.parametrize("slate", [2, None], ids=["pairs", "whole prompts"])
def test_a_lottery_with_zeros_is_learned_exactly(slate):
    lottery = np.array([[0.5, 0.5, 0, 0], [0, 0.25, 0.75, 0]])
    chosen = replace(make_choice(np.zeros((2, 4)), reference=REFERENCE), lottery=lottery, weights=None)
    train = DPO("x", loss=Distil(), slate=slate)
    labels = labelled(train, chosen)
    found = policy(labels, minimiser(train, labels))
    assert distance(found, lottery) < 1e-3
    assert found[0, 2:].max() < 1e-3


def cyclic(tau):
    """Two voters R > G > B, three B > R > G."""
    value = np.array([[3.0, 2, 1], [2, 1, 3]])[None, :, None]
    return choice.MaximalLottery().choose(Utilities(value, [0.4, 0.6], np.full((1, 3), 1 / 3)), beta=tau)


@pytest.mark.parametrize(("tau", "published"), [(0.1, (0.30571, 0.05130, 0.64300)), (0.5, (0.3955, 0.2148, 0.3897))])
def test_a_regularised_maximal_lottery_is_learned(tau, published):
    """The population of Maura-Rivero et al. (2025); numbers of the regularised game."""
    chosen = cyclic(tau)
    train = DPO("x", loss=Distil(), slate=None)
    labels = labelled(train, chosen)
    assert distance(policy(labels, minimiser(train, labels)), [published]) < 1e-4


PHI = np.array([[1.0, 1, 0], [1, 0, 0], [0, 0, 0], [0, 1, 0]])


def test_pessimism_is_learned():
    """The counterexample of Zhu, Jiao and Jordan (2023): one comparison spoke for a1, all others know a4 well.

    Weights are uncertain in the first coordinate (one comparison) and known in the second.
    """
    z = np.random.default_rng(1).normal(size=(100, 3))
    weights = np.array([0.5, 0.1, 0.0]) + z * [1.5, 0.01, 2.0]
    utilities = Utilities(Linear(PHI[None], weights[:, None], np.zeros((100, 1))), [1.0], np.full((1, 4), 0.25))
    trusting = choice.Utilitarian().choose(utilities, beta=0.02)
    for chosen, follows in (
        (trusting, True),
        (choice.Utilitarian().choose(utilities, choice.Ellipsoid(1.0), beta=0.02), False),
    ):
        train = DPO("x")
        labels = labelled(train, chosen)
        found = policy(labels, minimiser(train, labels))[0]
        assert (found[0] > 0.4) == follows
        assert follows or found[:2].sum() < 0.02


A4 = np.array([[[1.0, 0, 0.4]], [[0, 1, 0.4]]])


@pytest.mark.parametrize("mass", [(0.5, 0.5), (0.9, 0.1)])
def test_maxmin_is_over_expectations_and_not_per_response(mass):
    """Chakraborty et al. 2024 on three responses: weights end equal wherever they start, each group has .48446."""
    train = DPO("x", reweigh=MaxMin(rate=0.2), slate=None)
    labels = labelled(train, community(A4, mass))
    h, state = played(train, labels)
    found = policy(labels, h)
    assert distance(found, [(0.42232, 0.42232, 0.15536)]) < 2e-3
    np.testing.assert_allclose(state.utility(labels, labels.candidates.rows), 0.48446, atol=2e-3)
    np.testing.assert_allclose(state.weight, 0.5, atol=5e-3)
    assert found[0, 2] < 0.2 < np.exp(4) / (np.exp(4) + 2)  # what the minimum per response would give


def test_maxmin_leaves_out_whoever_is_better_off_at_the_others_optimum():
    value = np.array([[[1.0, 0, 0.4]], [[1.5, 1, 1.4]]])
    train = DPO("x", reweigh=MaxMin(rate=1.0), slate=None)
    labels = labelled(train, community(value, (0.5, 0.5)))
    h, state = played(train, labels)
    exact = np.exp(value[0, 0] / 0.1)
    assert distance(policy(labels, h), exact / exact.sum()) < 5e-3
    assert state.weight[0] > 0.99


def test_group_robust_makes_the_worst_loss_least():
    """min_pi max_g l_g(pi) as a convex program in log-ratios."""
    value, beta = np.array([[[1.0, 0, 0.4]], [[-0.5, 1, 0.9]]]), 0.5
    train = DPO("x", reweigh=GroupRobust(rate=2.0), slate=None, anchor=0.0)
    labels = labelled(train, community(value, (0.2, 0.8), beta=beta))
    h, state = played(train, labels)
    g, worst = cp.Variable(3), cp.Variable()
    pairs = [(0, 1), (0, 2), (1, 2)]
    demands = [
        cp.sum([cp.logistic(g[i] - g[j]) - expit((u[i] - u[j]) / beta) * (g[i] - g[j]) for i, j in pairs]) / 3 <= worst
        for u in value[:, 0]
    ]
    cp.Problem(cp.Minimize(worst), [*demands, cp.sum(g) == 0]).solve(solver=cp.CLARABEL)
    exact, found = np.exp(g.value), np.exp(h)
    assert distance(found / found.sum(), exact / exact.sum()) < 5e-3
    duals = np.array([float(d.dual_value) for d in demands])
    np.testing.assert_allclose(state.weight, duals, atol=0.02)
    pooled = minimiser(replace(train, reweigh=None), labelled(replace(train, reweigh=None), make_choice(value.mean(0))))
    assert distance(found / found.sum(), np.exp(pooled) / np.exp(pooled).sum()) > 0.02


def test_labels_of_uncertain_pairs_are_softer_and_those_of_a_narrow_posterior_are_the_rules():
    """h = logit(mean_draw sigmoid(beta dt)) / beta for a pair; with draws close together, dt."""
    beta = 0.5
    for spread, near in ((0.01, True), (2.0, False)):
        value = np.zeros((1000, 1, 1, 2))
        value[:, 0, 0, 0] = 1.0 + spread * np.linspace(-1, 1, 1000)
        chosen = community(value, [1.0], beta=beta)
        train = DPO("x", labels=FromPosterior(), beta=1.5)
        h = minimiser(train, labelled(train, chosen))
        exact = logit(expit(1.5 * value[:, 0, 0, 0] / beta).mean()) / 1.5
        assert h[0] - h[1] == pytest.approx(exact, abs=1e-5)
        assert (abs(exact - 1.0 / beta) < 1e-3) == near


def test_wrights_function_settles_chi_square_targets():
    """beta (z + log z) = r + constant and sum reference z = 1, with a candidate that must never be written."""
    score = np.array([[2.0, -1.0, 0.5, -np.inf]])
    z = np.exp(losses.ChiSquare().settle(score, np.array([[0.2, 0.3, 0.4, 0.1]])))
    assert z @ [0.2, 0.3, 0.4, 0.1] == pytest.approx(1, abs=1e-12)
    s = (z + np.log(np.where(z > 0, z, 1)))[0, :3]
    np.testing.assert_allclose(s - s[0], score[0, :3] - score[0, 0], atol=1e-9)
    assert z[0, 3] == 0
