"""Steps of DPO and of group rollouts beside TRL, in one run: the same model, adapter, texts, dtype and threads.

python benchmarks/policy.py --model stories15M         # below PLURALIGN_MODELS, or a path; on the CPU
python benchmarks/policy.py --only dpo cached          # some of: dpo, cached, rollouts
python benchmarks/policy.py --gpu                      # a Llama of 1.1 billion random weights in bf16

Every number comes from a process of its own. A step of DPO is 8 pairs of 32 + 96 tokens, the reference online (for
this library: what scoring 16 rows costs, beside the step) or cached; of rollouts 8 prompts of 32 tokens, 4 responses
of up to 64 each, their reward, the reference, and one update (this library: PPO with a leave-one-out baseline; TRL:
RLOO). Adapters are LoRA of rank 8 on q and v; nothing is computed twice to save memory. The first step is not
counted. Memory is the peak of the process less what it held when the model had been loaded. The floor is the time that
the matrix products of a step take at the rate measured for one of 2048 x 2048 (8192 on a GPU).
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np

PAIRS, PROMPT, RESPONSE = 8, 32, 96
PROMPTS, GROUP, WRITTEN = 8, 4, 64
TASKS = ("dpo", "cached", "rollouts")
STEPS = 4  # the first warms up


class Memory:
    """Peak memory in bytes, of the GPU if there is one, else of the process."""

    def __init__(self):
        self.held = 0

    def start(self) -> None:
        """Forget the peak so far."""
        import torch

        if torch.cuda.is_available():
            torch.cuda.reset_peak_memory_stats()
            self.held = torch.cuda.memory_allocated()
            return
        Path("/proc/self/clear_refs").write_text("5")  # the kernel's high-water mark goes down to what is held now
        self.held = self._peak()

    def used(self) -> int:
        """Return the peak since the start, less what was held then."""
        import torch

        return (torch.cuda.max_memory_allocated() if torch.cuda.is_available() else self._peak()) - self.held

    @staticmethod
    def _peak() -> int:
        status = Path("/proc/self/status").read_text()
        return int(status.split("VmHWM:")[1].split()[0]) * 1024


def texts(path: str, n: int, tokens: int, seed: int) -> list[str]:
    """Random words, each one token, so that a text has as many tokens as words."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(path)
    words = [w for w in (t.removeprefix("▁") for t in tokenizer.get_vocab() if t.startswith("▁")) if w.isalpha()]
    words = sorted(w for w in words if w.isascii() and len(tokenizer(w, add_special_tokens=False).input_ids) == 1)
    rng = np.random.default_rng(seed)
    return [" ".join(rng.choice(words, tokens)) for _ in range(n)]


def pairs(path: str) -> tuple[list[str], list[str]]:
    n = PAIRS * STEPS
    return texts(path, n, PROMPT - 1, 0), texts(path, 2 * n, RESPONSE - 1, 1)  # BOS, and EOS


class Letters:
    """Two features of any text, so cheap that nothing of them is seen in a measurement."""

    def encode_texts(self, prompts: Any, responses: Any, like: Any) -> np.ndarray:
        """Return how long each response is, and how many e it has."""
        return np.array([[len(y) / 100, y.count("e") / 10] for y in responses])


def feedback(prompts: list[str], responses: list[str]) -> tuple[Any, Any, Any]:
    """Two candidates per prompt, and the utilitarian choice of a voter who likes long texts."""
    from datasets import Dataset

    from pluralign import choice
    from pluralign.types import Choices, Features, Feedback, Grades, Linear, Utilities

    index = np.arange(len(prompts)).repeat(2)
    items = {"prompt_id": index, "prompt": [prompts[i] for i in index], "response": responses}
    people = Dataset.from_dict({"id": ["ada"], "weight": [1.0]})
    first = Choices(*(np.array(x) for x in ([[0, 1]], [[0, 1]], [0], [0], [-1])))
    votes = Feedback(Dataset.from_dict(items), people, ("overall",), first, Grades.none())
    phi = Letters().encode_texts(None, responses, None)
    features = Features(phi, votes.prompt_id, ("length", "e"), np.zeros(2), np.eye(2), {})
    value = Linear(phi.reshape(-1, 2, 2), np.array([[[1.0, 0.5]]]), np.zeros((1, 1)))
    utilities = Utilities(value, np.ones(1), np.full((len(prompts), 2), 0.5))
    return votes, features, choice.Utilitarian().choose(utilities, beta=0.1)


def ours(task: str, path: str, dtype: str, memory: Memory) -> dict[str, float]:
    from pluralign import policy
    from pluralign.policy import scoring
    from pluralign.policy.models import Pretrained
    from pluralign.policy.training import Training

    load, score, log = Pretrained.load, scoring.score, Training.log
    spent: list[float] = []
    steps: list[tuple[float, int]] = []

    def loaded(self: Any) -> Any:
        network, form = load(self)
        import torch

        if torch.cuda.is_available():
            network = network.cuda()
        memory.start()
        return network, form

    def timed(model: Any, rows: Any, *rest: Any) -> Any:
        start = time.perf_counter()
        result = score(model, rows, *rest)
        spent.append((time.perf_counter() - start) / len(rows) * 2 * PAIRS)
        return result

    def logged(self: Any, tokens: int, *rest: Any) -> None:
        steps.append((time.perf_counter() - self._start, tokens))
        log(self, tokens, *rest)

    for owner, name, instead in ((Pretrained, "load", loaded), (scoring, "score", timed), (Training, "log", logged)):
        setattr(owner, name, instead)
    model = Pretrained(path, dtype=dtype)
    with tempfile.TemporaryDirectory() as out:
        if task == "rollouts":
            prompts = texts(path, 4 * PROMPTS, PROMPT - 1, 0)
            votes, phi, chosen = feedback(prompts, texts(path, 2 * len(prompts), RESPONSE - 1, 1))
            train = policy.PPO(
                model, prompts=PROMPTS, group=GROUP, max_response_tokens=WRITTEN, learning_rate=1e-6, steps=STEPS
            )
            train.train(chosen, votes, phi, Letters(), out)
        else:
            votes, phi, chosen = feedback(*pairs(path))
            policy.DPO(model, batch=PAIRS, learning_rate=1e-6, steps=STEPS).train(chosen, votes, phi, out)
    seconds = statistics.median(s for s, _ in steps[1:]) + (spent[0] if task == "dpo" else 0)
    return {"seconds": seconds, "tokens": statistics.mean(n for _, n in steps[1:]), "bytes": memory.used()}


def lengths(completions: list[str], **_: Any) -> list[float]:
    """Return a reward for TRL that costs nothing."""
    return [len(y) / 100 for y in completions]


def theirs(task: str, path: str, dtype: str, memory: Memory) -> dict[str, float]:
    import importlib

    import torch
    from datasets import Dataset
    from peft import LoraConfig
    from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback

    class Clock(TrainerCallback):
        def __init__(self):
            self.starts: list[float] = []
            self.ends: list[float] = []

        def on_step_begin(self, *_: Any, **__: Any) -> None:
            self.starts.append(time.perf_counter())

        def on_step_end(self, *_: Any, **__: Any) -> None:
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            self.ends.append(time.perf_counter())

    trl: Any = importlib.import_module("trl")
    gpu, clock = torch.cuda.is_available(), Clock()
    tokenizer = AutoTokenizer.from_pretrained(path)
    model: Any = AutoModelForCausalLM.from_pretrained(path, dtype=getattr(torch, dtype))
    model = model.cuda() if gpu else model
    memory.start()
    adapter = LoraConfig(task_type="CAUSAL_LM", r=8, lora_alpha=16, target_modules=["q_proj", "v_proj"])
    with tempfile.TemporaryDirectory() as out:
        shared: dict[str, Any] = {
            "output_dir": out,
            "max_steps": STEPS,
            "learning_rate": 1e-6,
            "gradient_checkpointing": False,
            "bf16": dtype == "bfloat16",
            "use_cpu": not gpu,
            "save_strategy": "no",
            "report_to": [],
            "logging_steps": 1,
            "disable_tqdm": True,
        }
        rest: dict[str, Any] = {"processing_class": tokenizer, "peft_config": adapter, "callbacks": [clock]}
        if task == "rollouts":
            data = Dataset.from_dict({"prompt": texts(path, 4 * PROMPTS, PROMPT - 1, 0)})
            config = trl.RLOOConfig(
                per_device_train_batch_size=PROMPTS * GROUP,
                num_generations=GROUP,
                max_completion_length=WRITTEN,
                beta=0.1,
                temperature=1.0,
                top_k=0,
                **shared,
            )
            trainer = trl.RLOOTrainer(model=model, reward_funcs=lengths, args=config, train_dataset=data, **rest)
        else:
            prompts, responses = pairs(path)
            rows = {"prompt": prompts, "chosen": [" " + y for y in responses[::2]]}
            data = Dataset.from_dict({**rows, "rejected": [" " + y for y in responses[1::2]]})
            config = trl.DPOConfig(
                per_device_train_batch_size=PAIRS, precompute_ref_log_probs=task == "cached", max_length=None, **shared
            )
            trainer = trl.DPOTrainer(model=model, args=config, train_dataset=data, **rest)
        trainer.train()
    steps = [end - start for start, end in zip(clock.starts, clock.ends, strict=True)][1:]
    if task == "rollouts":
        written = [r["completions/mean_length"] for r in trainer.state.log_history if "completions/mean_length" in r]
        tokens = PROMPTS * GROUP * (PROMPT + statistics.mean(written[1:]))
    else:
        tokens = 2 * PAIRS * (PROMPT + RESPONSE)
    return {"seconds": statistics.median(steps), "tokens": tokens, "bytes": memory.used()}


def rate(dtype: str) -> float:
    """Return floating-point operations per second of a large matrix product."""
    import torch

    gpu = torch.cuda.is_available()
    n = 8192 if gpu else 2048
    a = torch.randn(n, n, dtype=getattr(torch, dtype), device="cuda" if gpu else "cpu")
    spent = []
    for _ in range(8):
        start = time.perf_counter()
        _ = a @ a
        if gpu:
            torch.cuda.synchronize()
        spent.append(time.perf_counter() - start)
    return 2 * n**3 / min(spent)


def floors(path: str) -> dict[str, float]:
    """Return the operations of a step's matrix products: two per weight and token, as much again for a gradient."""
    from accelerate import init_empty_weights
    from transformers import AutoConfig, AutoModelForCausalLM

    with init_empty_weights():
        model: Any = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(path))
    head = 2 * model.get_output_embeddings().weight.numel()
    layers = [m for m in model.base_model.modules() if type(m).__name__ == "Linear"]
    body = 2 * sum(m.weight.numel() for m in layers)
    rows, wrote = 2 * PAIRS, PROMPTS * GROUP
    forward = rows * ((PROMPT + RESPONSE) * body + RESPONSE * head)
    read = wrote * ((PROMPT + WRITTEN) * body + WRITTEN * head)
    write = PROMPTS * PROMPT * body + wrote * WRITTEN * (body + head)
    return {"dpo": 3 * forward, "cached": 2 * forward, "rollouts": write + 3 * read}


def model_of(name: str, gpu: bool, folder: str) -> str:
    """Return the path of the model; on a GPU, one that is made here, with the other's tokenizer."""
    path = name if Path(name).is_dir() else str(Path(os.environ.get("PLURALIGN_MODELS", "")) / name)
    if not gpu:
        return path
    import torch
    from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=128_256, hidden_size=2048, intermediate_size=8192, num_hidden_layers=16, num_attention_heads=32,
        num_key_value_heads=8, tie_word_embeddings=True, bos_token_id=1, eos_token_id=2, pad_token_id=0,
    )  # fmt: skip
    torch.manual_seed(0)
    with torch.device("cuda"):
        model: Any = LlamaForCausalLM(config)
    model.to(torch.bfloat16).save_pretrained(folder)
    AutoTokenizer.from_pretrained(path).save_pretrained(folder)
    return folder


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="stories15M")
    parser.add_argument("--only", nargs="*", choices=TASKS, default=TASKS)
    parser.add_argument("--gpu", action="store_true")
    parser.add_argument("--one", nargs=2, help=argparse.SUPPRESS)  # a process of its own: which side, which task
    asked = parser.parse_args()
    import torch

    dtype = "bfloat16" if asked.gpu else "float32"
    if asked.one:
        warnings.simplefilter("ignore")
        side, task = asked.one
        run = {"pluralign": ours, "TRL": theirs}[side]
        print(json.dumps(run(task, asked.model, dtype, Memory())))
        return
    if asked.gpu and not torch.cuda.is_available():
        print("no CUDA device here, so nothing was measured on one.")
        return
    with tempfile.TemporaryDirectory() as folder:
        path, peak = model_of(asked.model, asked.gpu, folder), rate(dtype)
        print(f"{path}, {dtype}, {torch.get_num_threads()} thread(s), matrix products at {peak / 1e9:,.0f} GFLOP/s")
        print(f"{'':<10}{'':<11}{'s/step':>8}{'tokens/s':>10}{'MB':>8}{'of peak':>9}{'floor, s':>10}")
        operations = floors(path)
        environment = os.environ if asked.gpu else os.environ | {"CUDA_VISIBLE_DEVICES": ""}
        for task in asked.only:
            seen = {}
            for side in ("pluralign", "TRL"):
                command = [sys.executable, __file__, "--model", path, "--one", side, task]
                command += ["--gpu"] if asked.gpu else []
                done = subprocess.run(command, check=True, env=environment, stdout=subprocess.PIPE, text=True)
                got = seen[side] = json.loads(done.stdout.splitlines()[-1])
                speed, least = got["tokens"] / got["seconds"], operations[task] / peak
                print(
                    f"{task:<10}{side:<11}{got['seconds']:>8.2f}{speed:>10,.0f}{got['bytes'] / 1e6:>8,.0f}"
                    f"{least / got['seconds']:>9.0%}{least:>10.2f}",
                    flush=True,
                )
            ratio = {k: seen["TRL"][k] / seen["pluralign"][k] for k in ("seconds", "tokens", "bytes")}
            print(
                f"{task}: {ratio['seconds'] / ratio['tokens']:.2f} times TRL's tokens/s with "
                f"{1 / ratio['bytes']:.2f} of its memory"
            )


if __name__ == "__main__":
    main()
