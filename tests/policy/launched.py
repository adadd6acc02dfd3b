"""Trains in as many processes as are started; run by test_processes.py."""

import os
import sys
from pathlib import Path

import numpy as np
from accelerate import Accelerator, FullyShardedDataParallelPlugin
from accelerate.commands.launch import _validate_launch_command, launch_command_parser
from accelerate.state import AcceleratorState, PartialState
from accelerate.utils import DistributedType
from accelerate.utils.launch import prepare_multi_gpu_env
from torch.distributed.fsdp import FSDPModule

from pluralign import choice
from pluralign.errors import InputError
from pluralign.policy import DPO, PPO, Critic, Loop, Lora, Pretrained, training
from pluralign.types import Features, Linear, Utilities
from tests.policy.conftest import ANIMALS, RESPONSES, make_feedback

CONFIGS = Path(__file__).parents[2] / "configs/accelerate"


class Marks:
    """Two features: words, and letters s."""

    def encode_texts(self, prompts, responses, like):
        return np.array([[len(y.split()), y.count("s")] for y in responses], float)


def settings(name: str):
    """Return what accelerate makes of one of our files."""
    told = launch_command_parser().parse_args(["--config_file", str(CONFIGS / name), "train.py"])
    return _validate_launch_command(told)[0]


def scatter() -> None:
    """Scatter weights from here on as fsdp.yaml says; accelerate by itself does so among several cards only."""
    os.environ |= {k: v for k, v in prepare_multi_gpu_env(settings("fsdp.yaml")).items() if "FSDP" in k}
    kind = {"distributed_type": DistributedType.FSDP}
    PartialState._shared_state |= kind
    AcceleratorState._shared_state |= kind | {"fsdp_plugin": FullyShardedDataParallelPlugin()}


def main(model: str, out: str) -> None:
    folder, process = Path(out), Accelerator(mixed_precision="no")
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "processes").write_text(str(process.num_processes))
    votes = make_feedback([f"tell me about the {animal}" for animal in ANIMALS], [RESPONSES] * len(ANIMALS))
    marks = Marks().encode_texts([], RESPONSES, None)
    phi = Features(np.tile(marks, (3, 1)), votes.prompt_id, ("words", "s"), np.zeros(2), np.eye(2), {})
    wants = np.array([[[0.3, 0.0], [-0.3, 0.6]]])
    value = Linear(np.tile(marks, (3, 1, 1)), wants, -wants @ marks.mean(0))
    utilities = Utilities(value, [0.5, 0.5], np.full((3, 5), 0.2))
    chosen = choice.Utilitarian().choose(utilities, beta=0.5)
    how = {"lora": Lora(rank=4), "learning_rate": 1e-2, "steps": 5}
    loop = Loop(accumulation=2, checkpoint_every=2)
    offline = DPO(Pretrained(model), batch=4, loop=loop, **how)
    offline.train(chosen, votes, phi, folder)

    decided = []

    def again(asked: Utilities, beta: float):
        decided.append(choice.Maximin().choose(asked, beta=beta))
        return decided[-1]

    online = PPO(
        Pretrained(model), prompts=2, group=4, max_response_tokens=8, baseline=Critic(), reestimate=2, loop=loop, **how
    )
    online.train(choice.Maximin().choose(utilities, beta=0.5), votes, phi, Marks(), folder, again=again)
    np.save(folder / f"decided-{process.process_index}.npy", [c.weights for c in decided])
    if process.num_processes == 1:
        return

    scatter()
    groups = []
    prepared = training.Training.steps
    training.Training.steps = lambda run: groups.append(run.network) or prepared(run)
    offline.train(chosen, votes, phi, folder / "scattered")
    (folder / "groups").write_text(
        "\n".join(type(m).__name__ for m in groups[0].modules() if isinstance(m, FSDPModule))
    )
    try:
        online.train(chosen, votes, phi, Marks(), folder / "scattered", again=again)
    except InputError as error:
        (folder / "refused").write_text(str(error))


if __name__ == "__main__":
    main(*sys.argv[1:])
