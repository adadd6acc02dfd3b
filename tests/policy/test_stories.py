"""Policies for three groups of simulated readers, by what is measured in real texts: the benchmark, made smaller."""

import importlib.util
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from pluralign.types import Linear


@pytest.fixture(scope="module")
def stories():
    spec = importlib.util.spec_from_file_location("stories", Path(__file__).parents[2] / "benchmarks/stories.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def bench(stories, real_models, tmp_path_factory):
    size = stories.Size("stories260K", prompts=48, held_out=40, candidates=4, tokens=48, people=30, responses=4)
    return stories.Bench.build(tmp_path_factory.mktemp("stories"), size, seed=0, told=lambda stage: None)


def mirrored(bench, out):
    """Return the same with readers who want the opposite, as far as rules know."""
    value = bench.utilities.value
    against = Linear(value.phi, -value.weights, -value.offset)
    return replace(bench, out=out, utilities=replace(bench.utilities, value=against))


def welfare(stories, bench, adapter, name, kind):
    before, after = (
        bench.worth(bench.true, bench.read(bench.write(n, a))) for n, a in (("base", None), (name, adapter))
    )
    return stories.summary(after - before, bench.true.mass, seed=0)[kind]


def test_posterior_knows_from_votes_what_groups_want(bench):
    inferred, true = (u.value.weights.mean(0) for u in (bench.utilities, bench.true))
    assert np.abs(inferred - true).max() < 0.3
    assert np.corrcoef(inferred.ravel(), true.ravel())[0, 1] > 0.95


@pytest.mark.slow
def test_dpo_raises_welfare_on_prompts_that_nobody_saw_and_lowers_it_for_the_opposite(stories, bench, tmp_path):
    rule = stories.RULES[0]
    turned = mirrored(bench, tmp_path).train("dpo", rule, 30)
    assert welfare(stories, bench, bench.train("dpo", rule, 30), "dpo", rule.kind)[1] > 0
    assert welfare(stories, bench, turned, "dpo opposite", rule.kind)[2] < 0


@pytest.mark.slow
def test_ppo_raises_welfare_on_prompts_that_nobody_saw(stories, bench):
    rule = stories.RULES[0]
    assert welfare(stories, bench, bench.train("ppo", rule, 15), "ppo", rule.kind)[1] > 0


def test_intervals_hold_no_gain_where_nothing_was_trained(stories, bench):
    summary = stories.summary(np.zeros((3, 40)), bench.true.mass, seed=0)
    assert all(values == [0, 0, 0] for values in summary.values())


def test_openings_are_different_and_those_held_out_are_not_among_the_others(bench):
    assert len({*bench.prompts, *bench.held_out}) == 88
    assert {*bench.votes.items["prompt"]} == {*bench.prompts}
