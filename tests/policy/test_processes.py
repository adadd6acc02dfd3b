"""Training in two processes on one machine, started as users start it."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml
from accelerate.commands.launch import launch_command_parser
from safetensors.numpy import load_file

from tests.policy import launched

ROOT = Path(__file__).parents[2]


def launch(model: str, out: Path, processes: int) -> None:
    """Run `launched` in several processes on the processor, by what `accelerate launch` runs for several cards."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(processes)]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), "ACCELERATE_USE_CPU": "true"}
    done = subprocess.run(
        [*command, "-m", "tests.policy.launched", model, str(out)],
        cwd=ROOT, env=environment, capture_output=True, text=True, timeout=400,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    assert (out / "processes").read_text() == str(processes)


def told(folder: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def runs(tiny, tmp_path_factory) -> tuple[Path, Path]:
    """The folders of the same trainings in one process and in two."""
    one, two = (tmp_path_factory.mktemp(name) for name in ("one", "two"))
    launched.main(tiny.path, str(one))
    launch(tiny.path, two, 2)
    return one, two


def same(one: Path, two: Path) -> None:
    """Assert that curves and adapters are equal."""
    curves = told(one), told(two)
    assert [record["step"] for record in curves[1]] == [1, 2, 3, 4, 5]
    for a, b in zip(*curves, strict=True):
        for name in ("loss", "excess", "kl", "margin", "grad_norm", "cut"):
            assert b[name] == pytest.approx(a[name], rel=5e-3, abs=1e-5)
    assert curves[0][-1]["kl"] > 1e-4
    adapters = [load_file(folder / "adapter/adapter_model.safetensors") for folder in (one, two)]
    assert {*adapters[0]} == {*adapters[1]}
    for name, values in adapters[0].items():
        np.testing.assert_allclose(adapters[1][name], values, rtol=0.05, atol=2e-4)


@pytest.mark.slow
def test_two_processes_train_as_one_does(runs):
    same(*(folder / "policies/utilitarian" for folder in runs))


@pytest.mark.slow
def test_weights_scattered_over_processes_train_as_whole_ones_do(runs):
    one, two = runs
    same(one / "policies/utilitarian", two / "scattered/policies/utilitarian")
    # a group of weights for each layer, which alone is whole at its time, and one for the rest
    assert sorted((two / "groups").read_text().split()) == ["FSDPLlamaDecoderLayer"] * 2 + ["FSDPScorer"]
    assert "PPO writes with the whole model in each process" in (two / "refused").read_text()


@pytest.mark.slow
def test_a_rule_asked_again_decides_the_same_in_both_processes(runs):
    """What is written depends on the process, so curves differ from one process's; but both learn from all of it."""
    folder = runs[1] / "policies/maximin-ppo"
    records = told(folder)
    assert [record["step"] for record in records] == [1, 2, 3, 4, 5]
    assert records[0]["kl"] == pytest.approx(0, abs=1e-5)
    assert all(np.isfinite(list(record.values())).all() for record in records)
    assert not (folder / "checkpoint").exists()
    assert (folder / "adapter/value_head.safetensors").exists()
    first, second = (np.load(runs[1] / f"decided-{process}.npy") for process in (0, 1))
    np.testing.assert_array_equal(first, second)
    assert len(first) == 2 and (first[0] != first[1]).any()
    assert [record["step"] for record in records if "moved" in record] == [2, 4]


@pytest.mark.parametrize(
    ("name", "key", "value"),
    [
        ("ddp.yaml", "multi_gpu", True),
        ("fsdp.yaml", "fsdp_version", 2),
        ("fsdp.yaml", "fsdp_reshard_after_forward", True),
        ("fsdp.yaml", "fsdp_auto_wrap_policy", "TRANSFORMER_BASED_WRAP"),
    ],
)
def test_our_files_say_what_accelerate_reads(name, key, value):
    known = vars(launch_command_parser().parse_args(["train.py"]))
    written = yaml.safe_load((launched.CONFIGS / name).read_text())
    assert {*written.get("fsdp_config", {})} <= {*known}  # of the other names accelerate refuses those it does not know
    read = launched.settings(name)
    assert (getattr(read, key), read.num_processes) == (value, 2)
