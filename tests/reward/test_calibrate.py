"""Posteriors of simulated communities hold the truth as often as they say; and a wrong prior is found out."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import binom, kstest

from pluralign import reward
from pluralign.errors import InputError
from pluralign.reward.calibrate import Calibration, _holm, _p_values, calibrate
from pluralign.types import Choices, FitReport, Grades, Scale

ANNOTATORS, JUDGEMENTS, ITEMS = 4, 8, 8
RESPONSE = reward.Response(
    reward.Davidson(tie_spread=False),
    grades=reward.OrderedLogit(leniency=False, stretch=False),
    rater=reward.Rater(lapse=False),
)
NUTS = reward.NUTS(draws=150, warmup=100)


@pytest.fixture(scope="module")
def designs(simulation):
    """Features of items, and by form who judges what."""
    rng = np.random.default_rng(0)
    size = {"annotators": ANNOTATORS, "judgements": JUDGEMENTS, "items": ITEMS}
    world = simulation.simulate(0, features=1, teams=1, careless=0, **size)
    n = ANNOTATORS * JUDGEMENTS
    who, none = np.repeat(np.arange(ANNOTATORS), JUDGEMENTS), np.zeros(n, int)
    slate = np.array([rng.permutation(ITEMS)[:3] for _ in range(n)])
    rank = np.array([[0, 1, 2] if i % 2 else [0, -1, -1] for i in range(n)])
    grades = Grades(rng.integers(0, ITEMS, n), none, none, who, none, none - 1)
    return world.phi, {
        "pairs": world.votes,
        "slates": replace(world.votes, choices=Choices(slate, rank, who, none, none - 1)),
        "grades": replace(world.votes, choices=Choices.none(), grades=grades, scales=(Scale("s", ("a", "b", "c")),)),
    }


POPULATIONS = [
    reward.Pooled(response=RESPONSE),
    reward.Hierarchical(response=RESPONSE),
    reward.Mixture(2, response=RESPONSE),
    reward.LowRank(1, response=RESPONSE),
]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("population", "form"),
    [(0, "slates"), (1, "pairs"), (2, "grades"), (3, "slates")],
)
def test_the_models_are_calibrated(designs, population, form):
    phi, votes = designs
    found = calibrate(POPULATIONS[population], votes[form], phi, inference=NUTS, replications=40, seed=1)
    assert found.calibrated, found.verdict
    assert found.ranks.shape == (len(found.names), 40)
    assert found.ranks.min() >= 0 and found.ranks.max() <= found.draws == 63
    assert {"log likelihood", "centre[0, 0]"} <= set(found.names)
    assert not any("_z" in name for name in found.names)


@pytest.mark.slow
def test_a_prior_that_is_too_narrow_is_found_out(designs):
    """Tastes are ten times as strong as the model believes: its spreads are too low, and it says so."""
    phi, votes = designs
    wide, narrow = (reward.Pooled(scale=scale, response=RESPONSE) for scale in (3.0, 0.3))
    found = calibrate(narrow, votes["pairs"], phi, inference=NUTS, replications=40, truth=wide, seed=1)
    p = dict(zip(found.names, found.p, strict=True))
    assert p["spread"] < 0.005
    assert not found.calibrated
    assert "Not calibrated" in found.verdict and "spread: draws are too low" in found.verdict
    assert p["position_centre"] > 0.05  # its prior was right


def test_what_cannot_be_calibrated_is_refused(designs):
    phi, votes = designs
    plain = reward.Pooled(response=RESPONSE)
    with pytest.raises(InputError, match="replications is 5"):
        calibrate(plain, votes["pairs"], phi, replications=5)
    with pytest.raises(InputError, match="`truth` has other parameters"):
        calibrate(plain, votes["pairs"], phi, truth=reward.Hierarchical(response=RESPONSE))
    slate = np.tile(np.arange(6), (4, 1))
    six = replace(votes["pairs"], choices=Choices(slate, slate, np.arange(4), np.zeros(4), np.zeros(4)))
    with pytest.raises(InputError, match="a slate shows 6 items"):
        calibrate(plain, six, phi)


def test_p_values_of_uniform_ranks_are_uniform_and_others_are_small():
    rng = np.random.default_rng(0)
    uniform = _p_values(rng.integers(0, 20, (500, 40)), 19, rng)
    assert kstest(uniform, "uniform").pvalue > 0.01
    assert binom.cdf((uniform < 0.05).sum(), 500, 0.05) < 0.999
    wrong = {
        "too high": rng.integers(0, 20, (2, 40)).min(0),
        "too wide": rng.binomial(19, 0.5, 40),
        "too narrow": np.where(rng.random(40) < 0.5, rng.integers(0, 3, 40), rng.integers(17, 20, 40)),
    }
    p = _p_values(np.array(list(wrong.values())), 19, rng)
    assert (p < 1e-3).all()
    fit = FitReport("by hand", 2, 20, 0, {}, {}, {}, 0.0)
    for (fault, ranks), own in zip(wrong.items(), p, strict=True):
        found = Calibration(("spread",), ranks[None], 19, np.array([own]), fit)
        assert f"spread: {'draws are ' * (fault == 'too high')}{fault} (p" in found.verdict


def test_the_correction_is_that_of_holm():
    """The example of Holm's procedure at 0.05: of 0.005, 0.011, 0.02, 0.04, 0.13 the first two are rejected."""
    corrected = _holm(np.array([0.13, 0.005, 0.04, 0.02, 0.011]))
    np.testing.assert_allclose(corrected, [0.13, 0.025, 0.08, 0.06, 0.044])
