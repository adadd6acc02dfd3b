import json
from types import SimpleNamespace

import numpy as np
import pytest
from accelerate.utils import DistributedType
from safetensors.numpy import load_file
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from pluralign.errors import InputError
from pluralign.policy import DPO, Loop, Lora, training
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


def test_weights_and_biases_gets_every_metric(tiny, votes, tmp_path, monkeypatch):
    pytest.importorskip("wandb")
    from wandb.proto.wandb_internal_pb2 import Record
    from wandb.sdk.internal.datastore import DataStore

    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_DIR", str(tmp_path))
    train = DPO(tiny, **quick, loop=Loop(trackers=("wandb",)))
    policy = train.train(make_choice(TILT), votes, make_features(votes), tmp_path)
    (file,) = tmp_path.glob("wandb/offline-run-*/*.wandb")
    store, records = DataStore(), []
    store.open_for_scan(str(file))
    while (data := store.scan_data()) is not None:
        records.append(Record.FromString(bytes(data)))
    store.close()
    assert next(r.run.display_name for r in records if r.HasField("run")) == "nash"
    told = [
        {item.key or item.nested_key[0]: json.loads(item.value_json) for item in r.history.item}
        for r in records
        if r.HasField("history")
    ]
    assert len(told) == len(policy.history)
    for seen, record in zip(told, policy.history, strict=True):
        assert {name: seen[name] for name in record} == pytest.approx(record)


@pytest.mark.parametrize("targets", [("q_proj", "v_proj"), None], ids=["some", "all"])
def test_adapters_hold_what_servers_read(targets, tiny, votes, tmp_path):
    """Low-rank factors of linear layers by name, one rank, and nothing else: vLLM's loader refuses the rest."""
    train = DPO(tiny, **(quick | {"steps": 1, "lora": Lora(rank=4, targets=targets)}))
    adapter = train.train(make_choice(TILT), votes, make_features(votes), tmp_path).adapter
    config = json.loads((adapter / "adapter_config.json").read_text())
    assert (config["r"], config["bias"], config["modules_to_save"]) == (4, "none", None)
    assert not any(config[name] for name in ("use_dora", "use_rslora", "rank_pattern", "alpha_pattern"))
    weights = load_file(adapter / "adapter_model.safetensors")
    layers = {name.split(".")[-3]: (4 in value.shape) for name, value in weights.items()}
    assert {*layers} == {name.split(".")[-1] for name in config["target_modules"]}
    assert "lm_head" not in layers and all(layers.values())
    assert {".".join(name.split(".")[-2:]) for name in weights} == {"lora_A.weight", "lora_B.weight"}


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


def test_processes_that_step_by_themselves_are_refused(monkeypatch, tmp_path):
    monkeypatch.setattr(
        training, "Accelerator", lambda **_: SimpleNamespace(distributed_type=DistributedType.DEEPSPEED)
    )
    with pytest.raises(InputError, match=r"DeepSpeed clips and steps by itself.*FSDP"):
        training.start(tmp_path, Loop())
    monkeypatch.setattr(training, "Accelerator", lambda **_: SimpleNamespace(distributed_type=DistributedType.FSDP))
    with pytest.raises(InputError, match=r"set loop\.samples_every to 0"):
        training.start(tmp_path, Loop(samples_every=5))
