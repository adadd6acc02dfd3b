"""Checks of posteriors that are known: the truth itself, conjugate ones, and ones with a planted fault."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.integrate import quad
from scipy.special import expit, logsumexp
from scipy.stats import binom, kstest, norm

from pluralign import reward
from pluralign.errors import InputError
from pluralign.reward import leave_out
from pluralign.reward.discrepancy import LOSS, MAJORITY, exceeds
from pluralign.types import Choices, FitReport, Grades, RewardPosterior, Scale

DRAWS = 200


def known(phi, weights, *, draws=DRAWS, membership=None, mass=None, **rater) -> RewardPosterior:
    """Return a posterior of certain weights `[voter feature]`, or of draws of them `[draw voter feature]`."""
    weights = np.asarray(weights, float)
    weights = weights if weights.ndim == 3 else np.repeat(weights[None], draws, 0)
    draws, voters = weights.shape[:2]
    return RewardPosterior(
        weights=weights[:, :, None],
        mass=np.full(voters, 1 / voters),
        voters=tuple(f"v{v}" for v in range(voters)),
        membership=membership,
        rater={
            name: np.broadcast_to(value, (draws, np.shape(value)[-1])).astype(np.float32)
            for name, value in rater.items()
        },
        features=phi.names,
        fit=FitReport("by hand", 1, draws, 0, {}, {}, {}, 0.0),
        common={} if mass is None else {"mass": mass},
    )


def say(simulation, phi, weights, *, judgements=40, tie=None, position=0.0, careless=(), seed=0, pool=None):
    """Simulate comparisons: Davidson's model; the careless throw a coin."""
    rng = np.random.default_rng(seed)
    annotators, items = len(weights), len(phi.phi)
    who = np.repeat(np.arange(annotators), judgements)
    first = rng.integers(0, items, len(who))
    second = (first + rng.integers(1, items, len(who))) % items
    if pool is not None:  # everyone is asked about the same few pairs
        first, second = np.moveaxis(np.array(pool)[rng.integers(0, len(pool), len(who))], 1, 0)
        flip = rng.random(len(who)) < 0.5
        first, second = np.where(flip, second, first), np.where(flip, first, second)
    eta = ((phi.phi[first] - phi.phi[second]) * weights[who]).sum(1) + position
    eta[np.isin(who, careless)] = 0
    odds = np.exp(np.stack([eta / 2, -eta / 2, np.full(len(eta), -np.inf if tie is None else tie)], 1))
    p = odds / odds.sum(1, keepdims=True)
    outcome = (rng.random((len(who), 1)) > p.cumsum(1)).sum(1)
    return simulation.feedback(first, second, outcome, who, items, [f"a{a}" for a in range(annotators)])


@pytest.fixture(scope="module")
def phi(simulation):
    return simulation.features(np.random.default_rng(9).normal(size=(30, 2)))


@pytest.fixture(scope="module")
def tastes():
    return np.random.default_rng(3).normal(size=(60, 2))


def of(report, statistic, kind="group"):
    return next(c for c in report.checks if c.statistic == statistic and c.of == kind)


@pytest.mark.parametrize("skew", [0.1, 0.5, 0.9])
def test_the_tail_of_a_sum_of_coins_is_that_of_the_binomial(skew):
    n = 40
    for x in range(int(binom.ppf(0.001, n, skew)), int(binom.ppf(0.999, n, skew)) + 1):
        exact = binom.sf(x, n, skew) + binom.pmf(x, n, skew) / 2
        q = skew * (1 - skew)
        third = n * q * (1 - 2 * skew)
        found = float(exceeds(*(np.array(value, float) for value in (x, n * skew, n * q, third))))
        assert found == pytest.approx(exact, rel=0.15, abs=2e-4)


def test_a_sum_without_variance_exceeds_what_is_below_it():
    zero = np.zeros(3)
    np.testing.assert_array_equal(exceeds(np.array([1.0, 2.0, 3.0]), zero + 2, zero, zero), [1, 0.5, 0])


def test_p_values_of_the_truth_are_uniform(simulation, phi, tastes):
    """Sixty annotators, twelve communities; every statistic, from few judgements each."""
    p = {}
    for seed in range(12):
        votes = say(simulation, phi, tastes, tie=-0.5, judgements=25, seed=seed)
        posterior = known(phi, tastes, draws=1, tie=np.full((1, 60), -0.5))
        for c in _all(posterior, votes, phi):
            p.setdefault(c.statistic, []).append(c.p)
    assert set(p) == {"first shown wins", "ties", LOSS, MAJORITY}
    assert kstest(p[LOSS], "uniform").pvalue > 0.01
    for statistic, values in p.items():  # counts take few values, so only shares are compared
        for level in (0.01, 0.05, 0.2, 0.5):
            assert np.mean(np.array(values) <= level) == pytest.approx(level, abs=0.02 + 0.25 * level), (
                statistic,
                level,
            )


def _all(posterior, votes, phi):
    """Return the checks of all annotators, not only of those that are off."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("pluralign.reward.checks.FALSE", 2.0)
        patch.setattr("pluralign.reward.checks.NAMED", 10**6)
        return [c for c in reward.criticise(posterior, votes, phi, judgements=10).fit.checks if c.of == "annotator"]


def test_the_careless_are_named_and_nobody_else(simulation, phi, tastes):
    votes = say(simulation, phi, 2 * tastes, careless=(7, 31))
    report = reward.criticise(known(phi, 2 * tastes), votes, phi).fit
    off = [c for c in report.checks if c.of == "annotator"]
    assert {c.who for c in off} == {"a7", "a31"}
    loss = [c for c in off if c.statistic == LOSS]
    assert len(loss) == 2 and all(c.expected < c.high < c.observed for c in loss)
    assert all(c.observed < c.low for c in off if c.statistic == MAJORITY)
    assert any("2 of 60 annotators" in note and "a7 (" in note for note in report.notes)
    assert not any("annotators answer otherwise" in caveat for caveat in report.caveats)
    clean = reward.criticise(known(phi, 2 * tastes), say(simulation, phi, 2 * tastes), phi, judgements=300).fit
    assert [c for c in clean.checks if c.of == "annotator"] == []
    assert clean.converged and not any("otherwise" in note for note in clean.notes)


def test_a_crowd_of_careless_annotators_is_a_caveat(simulation, phi, tastes):
    votes = say(simulation, phi, 2 * tastes, careless=range(20))
    report = reward.criticise(known(phi, 2 * tastes), votes, phi, judgements=300).fit
    assert any("annotators answer otherwise" in caveat for caveat in report.caveats)


def test_a_bonus_of_the_first_slot_that_the_model_lacks_is_a_caveat(simulation, phi, tastes):
    votes = say(simulation, phi, tastes, position=0.6)
    missed = reward.criticise(known(phi, tastes), votes, phi, judgements=300).fit
    check = of(missed, "first shown wins")
    rank = votes.choices.rank
    assert check.observed == pytest.approx(np.mean(rank[:, 0] == 0))
    assert check.expected < check.high < check.observed and check.q < 1e-6
    assert any("first shown wins" in caveat and "everyone" in caveat for caveat in missed.caveats)
    told = reward.criticise(known(phi, tastes, position=np.full((1, 60), 0.6)), votes, phi, judgements=300).fit
    assert of(told, "first shown wins").q > 0.05
    assert told.converged


def test_groups_are_looked_at_by_name(simulation, phi, tastes):
    """One half favours the first slot, the other half the second: together nothing is seen."""
    half = np.arange(60) < 30
    votes = say(simulation, phi, tastes, position=np.where(np.repeat(half, 40), 0.8, -0.8))
    table = votes.annotators.add_column("side", [str(bool(h)) for h in half])
    report = reward.criticise(known(phi, tastes), replace(votes, annotators=table), phi, groups=["side"]).fit
    checks = {c.who: c for c in report.checks if c.statistic == "first shown wins" and c.of == "group"}
    assert set(checks) == {"everyone", "side = False", "side = True"}
    assert checks["everyone"].q > 0.01 > checks["side = True"].q
    assert checks["side = False"].judgements == 1200
    with pytest.raises(InputError, match="no attribute 'sides'"):
        reward.criticise(known(phi, tastes), votes, phi, groups=["sides"])


def test_who_says_the_opposite_of_most_is_found_by_that(simulation, phi):
    """A pooled model cannot tell why, but it sees the agreement with others that is missing."""
    everyone = np.tile([[0.8, 0.6]], (30, 1))
    worst = np.argsort(phi.phi @ everyone[0])
    pool = [(worst[i], worst[-1 - i]) for i in range(3)]
    votes = say(simulation, phi, everyone * np.where(np.arange(30) == 4, -1, 1)[:, None], pool=pool)
    report = reward.criticise(known(phi, everyone[:1], membership=np.ones((30, 1))), votes, phi, judgements=300).fit
    found = {c.statistic: c for c in report.checks if c.who == "a4"}
    assert found[MAJORITY].observed < found[MAJORITY].low
    assert not any(c.of == "group" and c.statistic == MAJORITY for c in report.checks)


def test_calibration_by_hand():
    """Three bins: 0.05 (of 4, one won), 0.55 (of 4, two won), 1 (of 2, two won)."""
    p = np.array([0.05] * 4 + [0.55] * 4 + [1.0] * 2)
    won = np.array([1, 0, 0, 0, 1, 1, 0, 0, 1, 1], bool)
    curve = leave_out.calibration("in sample", p, won)
    assert curve.count == (4, 4, 2)
    np.testing.assert_allclose(curve.predicted, [0.05, 0.55, 1.0])
    np.testing.assert_allclose(curve.observed, [0.25, 0.5, 1.0])
    assert curve.error == pytest.approx((4 * 0.2 + 4 * 0.05) / 10)


def test_the_error_of_good_predictions_is_what_chance_makes_it():
    rng = np.random.default_rng(0)
    good = [leave_out.calibration("", p, rng.random(3000) < p) for p in rng.random((200, 3000))]
    assert np.mean([c.error for c in good]) == pytest.approx(np.mean([c.by_chance for c in good]), rel=0.05)
    assert kstest([c.p for c in good], "uniform").pvalue > 0.01
    p = rng.random(3000)
    assert leave_out.calibration("", p, rng.random(3000) < expit(2.5 * np.log(p / (1 - p)))).p < 1e-6


def test_predictions_that_are_too_sure_are_a_caveat(simulation, phi, tastes):
    votes = say(simulation, phi, tastes)
    report = reward.criticise(known(phi, 3 * tastes), votes, phi, judgements=300).fit
    assert any("Predicted probabilities are off by" in caveat for caveat in report.caveats)
    assert [c.of for c in report.calibration] == ["in sample", "left out"]
    assert all(sum(c.count) == 300 for c in report.calibration)
    right = reward.criticise(known(phi, tastes), votes, phi, judgements=300).fit
    assert right.calibration[1].p > 0.01 and right.converged


def one_weight(simulation, n=40):
    """One annotator, one feature, no noise but the answer: the posterior is a number with a density."""
    rng = np.random.default_rng(4)
    phi = simulation.features(rng.normal(size=(2 * n, 1)))
    x = (phi.phi[:n] - phi.phi[n:])[:, 0].astype(float)
    y = rng.random(n) < expit(0.8 * x)
    votes = simulation.feedback(np.arange(n), np.arange(n, 2 * n), np.where(y, 0, 1), np.zeros(n, int), 2 * n, ["a"])
    return votes, phi, np.where(y, x, -x)


def grid_posterior(z, keep=slice(None)):
    """Return weights on a grid and their posterior probability under a standard normal prior."""
    w = np.linspace(-4, 4, 4001)
    log_p = norm.logpdf(w) + np.log(expit(np.outer(z[keep], w))).sum(0)
    return w, np.exp(log_p - logsumexp(log_p))


def test_leaving_out_equals_fitting_without(simulation):
    """The exact answer is an integral over the one weight, for every judgement that is left out."""
    votes, phi, z = one_weight(simulation)
    exact = []
    for i in range(len(z)):
        w, p = grid_posterior(z, np.arange(len(z)) != i)
        exact.append(np.log(p @ expit(z[i] * w)))
    assert quad(lambda w: norm.pdf(w) * np.prod(expit(z * w)), -8, 8)[0] > 0  # the integrand is no artefact of the grid
    w, p = grid_posterior(z)
    draws = np.interp((np.arange(2000) + 0.5) / 2000, np.cumsum(p), w)
    posterior = known(phi, np.random.default_rng(0).permutation(draws)[:, None, None])
    loo = reward.criticise(posterior, votes, phi, draws=2000).fit.loo
    assert loo.elpd == pytest.approx(np.sum(exact), abs=0.01)
    in_sample = np.log(expit(np.outer(draws, z)).mean(0)).sum()
    assert loo.p_loo == pytest.approx(in_sample - np.sum(exact), abs=0.01)
    assert (loo.sampled, loo.judgements, loo.bad) == (40, 40, 0)
    assert loo.limit == pytest.approx(1 - 1 / np.log10(2000))
    assert np.isnan(loo.stderr)  # one annotator tells nothing of how annotators differ


def test_a_sample_of_judgements_stands_for_all(simulation):
    votes, phi, z = one_weight(simulation, 400)
    w, p = grid_posterior(z)
    draws = np.interp((np.arange(300) + 0.5) / 300, np.cumsum(p), w)
    posterior = known(phi, np.random.default_rng(0).permutation(draws)[:, None, None])
    whole, part = (reward.criticise(posterior, votes, phi, draws=300, judgements=n).fit for n in (400, 40))
    assert (whole.loo.sampled, part.loo.sampled) == (400, 40)
    assert part.loo.elpd == pytest.approx(whole.loo.elpd, abs=0.3)  # forty of them alone: off by several nats
    assert any("40, drawn at random" in note for note in part.notes)
    assert not any("at random" in note for note in whole.notes)


def test_kinds_are_left_out_with_what_else_their_members_said(simulation, phi):
    """Two kinds, known: an annotator is of either; P(act | the rest) by Bayes' rule, one at a time."""
    kinds, mass = np.array([[1.5, 0.0], [0.0, -1.5]]), np.array([0.7, 0.3])
    votes = say(simulation, phi, kinds[[0, 0, 1, 1, 0, 1]], judgements=4)
    slate, who = votes.choices.slate, votes.choices.annotator
    x = (phi.phi[slate[:, 0]] - phi.phi[slate[:, 1]]).astype(float)
    own = np.where(votes.choices.rank[:, 0] == 0, 1, -1)[:, None] * (x @ kinds.T)  # [act kind]
    exact = 0.0
    for i in range(len(own)):
        rest = (who == who[i]) & (np.arange(len(own)) != i)
        share = mass * expit(own[rest]).prod(0)
        exact += np.log(share @ expit(own[i]) / share.sum())
    posterior = known(phi, kinds, membership=np.full((6, 2), 0.5), mass=np.tile(mass, (DRAWS, 1)))
    loo = reward.criticise(posterior, votes, phi).fit.loo
    assert loo.elpd == pytest.approx(exact, abs=1e-6)
    assert loo.bad == 0


def test_judgements_that_decide_all_are_counted_and_said(simulation, phi):
    """Weights scattered widely, judgements that are all but certain given them: each draw disagrees with some."""
    rng = np.random.default_rng(0)
    votes = say(simulation, phi, np.zeros((8, 2)), judgements=6)
    posterior = known(phi, 12 * rng.standard_t(2, size=(DRAWS, 8, 2)))
    report = reward.criticise(posterior, votes, phi, judgements=300).fit
    assert report.loo.bad > 0.3
    assert any("Pareto k above 0.57" in note for note in report.notes)


def test_too_few_draws_are_said(simulation, phi, tastes):
    report = reward.criticise(known(phi, tastes, draws=30), say(simulation, phi, tastes), phi, judgements=300).fit
    assert report.loo is None and [c.of for c in report.calibration] == ["in sample"]
    assert any("30 draws are too few" in note for note in report.notes)


def test_slates_and_grades_are_looked_at_as_well(simulation, phi):
    """The best always stands first, and nobody uses the middle of the scale, whatever the model expects."""
    rng = np.random.default_rng(0)
    n = 200
    slate = np.stack([rng.permutation(30)[:4] for _ in range(n)])
    rank = np.c_[np.zeros(n, int), [rng.permutation(3) + 1 for _ in range(n)]]
    votes = simulation.feedback([0], [1], np.array([0]), [0], 30, list("abcde"))
    who, zero = np.arange(n) % 5, np.zeros(n, int)
    choices = Choices(slate, rank, who, zero, zero - 1)
    grades = Grades(rng.integers(0, 30, n), rng.choice([0, 4], n), zero, who, zero, zero - 1)
    votes = replace(votes, choices=choices, grades=grades, scales=(Scale("stars", tuple("12345")),))
    posterior = known(phi, np.zeros((5, 2)))
    base = np.tile(np.array([-2.0, -1.0, 1.0, 2.0], np.float32), (DRAWS, 1, 1, 1))
    report = reward.criticise(replace(posterior, common={"base": base}), votes, phi, judgements=300).fit
    best, extreme = of(report, "first shown is best (slates)"), of(report, "lowest or highest grade (grades)")
    assert best.observed == 1 and best.expected == pytest.approx(0.25, abs=1e-6) and best.q < 1e-6
    assert extreme.observed == 1 and extreme.expected == pytest.approx(2 * expit(-2), abs=1e-6) and extreme.q < 1e-6
    assert of(report, f"{LOSS} (slates)").observed == pytest.approx(np.log(4), abs=1e-6)
    assert report.loo.judgements == 2 * n
    assert report.calibration == ()


def test_what_was_found_is_saved_with_the_posterior(simulation, phi, tastes, tmp_path):
    found = reward.criticise(known(phi, tastes), say(simulation, phi, tastes), phi)
    back = RewardPosterior.load(found.save(tmp_path / "posterior"))
    assert (back.fit.loo, back.fit.checks, back.fit.calibration) == (
        found.fit.loo,
        found.fit.checks,
        found.fit.calibration,
    )


def test_what_the_model_excludes_is_an_error_not_an_infinite_loss(simulation, phi, tastes):
    with pytest.raises(InputError, match="holds ties, which the model gives probability 0"):
        reward.criticise(known(phi, tastes), say(simulation, phi, tastes, tie=-0.5), phi)
    with pytest.raises(InputError, match="draws is 0"):
        reward.criticise(known(phi, tastes), say(simulation, phi, tastes), phi, draws=0)


def test_saying_it_twice_says_it_once(simulation, phi, tastes):
    votes = say(simulation, phi, tastes, position=0.6)
    once = reward.criticise(known(phi, tastes), votes, phi, judgements=100)
    assert reward.criticise(once, votes, phi, judgements=100).fit == once.fit


def test_people_who_were_not_in_the_fit_are_refused(simulation, phi, tastes):
    with pytest.raises(InputError, match="60 annotators, the posterior was fitted to 5"):
        reward.criticise(known(phi, tastes[:5]), say(simulation, phi, tastes), phi)
