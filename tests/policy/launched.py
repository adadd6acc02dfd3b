"""Trains in as many processes as are started; run by test_processes.py."""

import sys
from pathlib import Path

import numpy as np
from accelerate import Accelerator

from pluralign import choice
from pluralign.policy import DPO, PPO, Critic, Loop, Lora, Pretrained
from pluralign.types import Features, Linear, Utilities
from tests.policy.conftest import ANIMALS, RESPONSES, make_feedback


class Lengths:
    """One feature: words."""

    def encode_texts(self, prompts, responses, like):
        return np.array([[len(y.split())] for y in responses], float)


def main(model: str, out: str) -> None:
    votes = make_feedback([f"tell me about the {animal}" for animal in ANIMALS], [RESPONSES] * len(ANIMALS))
    words = np.array([[len(y.split())] for y in RESPONSES], float)
    phi = Features(np.tile(words, (3, 1)), votes.prompt_id, ("words",), np.zeros(1), np.eye(1), {})
    value = Linear(np.tile(words, (3, 1, 1)), np.array([[[0.3]]]), np.zeros((1, 1)))
    chosen = choice.Utilitarian().choose(Utilities(value, [1.0], np.full((3, 5), 0.2)), beta=0.5)
    Path(out).mkdir(parents=True, exist_ok=True)
    (Path(out) / "processes").write_text(str(Accelerator(mixed_precision="no").num_processes))
    how = {"lora": Lora(rank=4), "learning_rate": 1e-2, "steps": 5}
    loop = Loop(accumulation=2, checkpoint_every=2)
    DPO(Pretrained(model), batch=4, loop=loop, **how).train(chosen, votes, phi, Path(out))
    PPO(Pretrained(model), prompts=2, group=4, max_response_tokens=8, baseline=Critic(), loop=loop, **how).train(
        chosen, votes, phi, Lengths(), Path(out)
    )


if __name__ == "__main__":
    main(*sys.argv[1:])
