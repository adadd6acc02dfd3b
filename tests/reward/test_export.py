"""ArviZ reads what we export as we mean it: its own diagnostics and sums are the oracle."""

import sys
import warnings

import numpy as np
import pytest

from pluralign import reward
from pluralign.errors import InputError

arviz_stats = pytest.importorskip("arviz_stats.sampling_diagnostics", reason="needs arviz-base and xarray-einstats")


def test_chains_stay_apart_so_diagnostics_are_ours(hierarchical):
    tree = reward.to_arviz(hierarchical)
    assert dict(tree["posterior"].sizes)["chain"] == 2
    names = ["weights", "centre", "spread", "lapse"]
    rhat = arviz_stats.rhat(tree["posterior"].to_dataset()[names])
    for name in names:
        assert float(rhat[name].max()) == pytest.approx(hierarchical.fit.rhat[name], abs=2e-3), name
    mixed = tree["posterior"].to_dataset()["weights"].values.reshape(1000, 2, 24, 1, 3).swapaxes(0, 1)
    assert not np.array_equal(mixed, tree["posterior"]["weights"].values)


def test_axes_have_our_words(hierarchical, world):
    tree = reward.to_arviz(hierarchical, world.votes, world.phi)
    weights = tree["posterior"]["weights"]
    assert weights.dims == ("chain", "draw", "voter", "objective", "feature")
    assert weights.coords["voter"].values.tolist() == list(hierarchical.voters)
    assert weights.coords["feature"].values.tolist() == list(hierarchical.features)
    assert tree["posterior"]["lapse"].dims == ("chain", "draw", "annotator")
    assert tree["posterior"]["centre"].dims == ("chain", "draw", "objective", "feature")
    one = weights.sel(chain=1, draw=7, voter="a003", feature="f2").item()
    assert one == hierarchical.weights[1000 + 7, 3, 0, 2]
    assert "unit" not in tree["posterior"] and "unit" in tree["constant_data"]


def test_the_log_likelihood_is_that_of_the_predictions(hierarchical, world):
    tree = reward.to_arviz(hierarchical, world.votes, world.phi)
    log_p = tree["log_likelihood"]["pairs"]
    assert log_p.dims == ("chain", "draw", "pair")
    found = np.log(np.exp(log_p.values).mean((0, 1)))
    np.testing.assert_allclose(found, reward.log_predictive(hierarchical, world.votes, world.phi)["pairs"], rtol=1e-9)


def test_arviz_leaves_out_as_we_do(hierarchical, world):
    from arviz_stats.loo import loo

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a few judgements decide much; both count them
        theirs = loo(reward.to_arviz(hierarchical, world.votes, world.phi), var_name="pairs")
    ours = reward.criticise(hierarchical, world.votes, world.phi, draws=2000).fit.loo
    assert ours.elpd == pytest.approx(theirs.elpd, abs=0.5)
    assert ours.p_loo == pytest.approx(theirs.p, abs=0.5)


def test_what_is_missing_is_said(hierarchical, world, monkeypatch):
    with pytest.raises(InputError, match="go together"):
        reward.to_arviz(hierarchical, world.votes)
    monkeypatch.setitem(sys.modules, "arviz_base", None)
    with pytest.raises(InputError, match=r"pip install pluralign\[arviz\]"):
        reward.to_arviz(hierarchical)
