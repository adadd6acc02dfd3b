"""Training in two processes on one machine, started as users start it."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
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


@pytest.mark.slow
def test_two_processes_train_as_one_does(tiny, tmp_path):
    launched.main(tiny.path, str(tmp_path / "one"))
    launch(tiny.path, tmp_path / "two", 2)
    one, two = (told(tmp_path / name / "policies/utilitarian") for name in ("one", "two"))
    assert [record["step"] for record in two] == [1, 2, 3, 4, 5]
    for a, b in zip(one, two, strict=True):
        for name in ("loss", "excess", "kl", "margin", "grad_norm", "cut"):
            assert b[name] == pytest.approx(a[name], rel=5e-3, abs=1e-5)
    assert one[-1]["kl"] > 1e-4
    adapters = [
        load_file(tmp_path / name / "policies/utilitarian/adapter/adapter_model.safetensors") for name in ("one", "two")
    ]
    for name, values in adapters[0].items():
        np.testing.assert_allclose(adapters[1][name], values, rtol=0.05, atol=2e-4)

    # What is written depends on the process, so curves of PPO differ; but both have learned from all of it.
    records = told(tmp_path / "two/policies/utilitarian-ppo")
    assert [record["step"] for record in records] == [1, 2, 3, 4, 5]
    assert records[0]["kl"] == pytest.approx(0, abs=1e-5)
    assert all(np.isfinite(list(record.values())).all() for record in records)
    assert not (tmp_path / "two/policies/utilitarian-ppo/checkpoint").exists()
    assert (tmp_path / "two/policies/utilitarian-ppo/adapter/value_head.safetensors").exists()
