import json

import numpy as np
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from pluralign.errors import InputError
from pluralign.policy import DPO, Loop, Lora
from tests.policy.conftest import ANIMALS, RESPONSES, make_choice, make_features

TILT = np.random.default_rng(0).normal(size=(len(ANIMALS), len(RESPONSES)))
quick = {"steps": 4, "batch": 4, "learning_rate": 1e-2, "lora": Lora(rank=4)}


def test_trackers_get_every_metric(tiny, votes, tmp_path):
    train = DPO(tiny, **quick, loop=Loop(trackers=("tensorboard",)))
    policy = train.train(make_choice(TILT), votes, make_features(votes), tmp_path)
    (events,) = (tmp_path / "policies/nash").rglob("events.out.tfevents*")
    told = EventAccumulator(str(events.parent))
    told.Reload()
    assert set(told.Tags()["scalars"]) >= set(policy.history[0]) - {"step"}
    for i, event in enumerate(told.Scalars("loss")):
        assert (event.step, event.value) == (i + 1, pytest.approx(policy.history[i]["loss"]))


def test_a_tracker_that_is_not_there_is_named(tiny, votes, tmp_path):
    with pytest.raises(InputError, match="trackers"):
        DPO(tiny, **quick, loop=Loop(trackers=("no-such",))).train(
            make_choice(TILT), votes, make_features(votes), tmp_path
        )


def test_forgetting_activations_changes_no_number(tiny, votes, tmp_path):
    inputs = make_choice(TILT), votes, make_features(votes)
    kept = DPO(tiny, **quick).train(*inputs, tmp_path / "kept")
    forgotten = DPO(tiny, **(quick | {"lora": Lora(rank=4, checkpointing=True)})).train(*inputs, tmp_path / "forgotten")
    for one, other in zip(kept.history, forgotten.history, strict=True):
        assert other["loss"] == pytest.approx(one["loss"], rel=1e-5)
        assert other["grad_norm"] == pytest.approx(one["grad_norm"], rel=1e-4)
    assert kept.history[-1]["kl"] > 1e-4


def test_samples_are_kept_to_be_read(tiny, votes, tmp_path):
    loop = Loop(samples_every=2)
    DPO(tiny, **quick, loop=loop).train(make_choice(TILT), votes, make_features(votes), tmp_path)
    lines = (tmp_path / "policies/nash/samples.jsonl").read_text().splitlines()
    told = [json.loads(line) for line in lines]
    prompts = list(dict.fromkeys(votes.items["prompt"]))
    assert [(s["step"], s["prompt"]) for s in told] == [(step, x) for step in (1, 3) for x in prompts]
    assert any(s["response"] in RESPONSES for s in told)
    plain = DPO(tiny, **quick).train(make_choice(TILT), votes, make_features(votes), tmp_path / "plain")
    assert not (plain.adapter.parent / "samples.jsonl").exists()
