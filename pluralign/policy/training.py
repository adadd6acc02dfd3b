"""What both training loops share: processes, the optimiser and its schedule, the log, checkpoints, the adapter.

A loop asks for its steps, turns a loss into gradients, applies them and tells what it saw:

    with Training.start(...) as run:
        for step in run.steps():
            run.backward(loss)
            norm = run.apply()
            run.log({"loss": ...})
        return run.finish(caveats)

Whatever else a loop has to remember between steps goes into `run.state`, which is part of every checkpoint.
"""

import contextlib
import json
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from accelerate import Accelerator
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_model_state_dict,
    get_optimizer_state_dict,
    set_model_state_dict,
    set_optimizer_state_dict,
)
from torch.distributed.tensor import DTensor

from pluralign import artifacts
from pluralign.errors import InputError, TrainError
from pluralign.policy import adapt
from pluralign.policy.models import bar
from pluralign.policy.text import Format
from pluralign.types import Choice, Features, Feedback, Policy

WHOLE = StateDictOptions(full_state_dict=True, cpu_offload=True, ignore_frozen_params=True, strict=False)


@dataclass(frozen=True)
class Loop:
    """How a training loop runs.

    Args:
        accumulation: passes in one optimiser step.
        warmup: share of the steps in which the learning rate rises, in [0, 1]; after them it falls linearly to 0.
        max_grad_norm: gradients longer than this are shortened to it.
        checkpoint_every: steps between checkpoints.
        samples_every: steps between responses written to `samples.jsonl`, to be read; 0 = never.
        trackers: names of accelerate's trackers, such as `tensorboard` and `wandb`, that get every metric.
    """

    accumulation: int = 1
    warmup: float = 0.1
    max_grad_norm: float = 1.0
    checkpoint_every: int = 50
    samples_every: int = 0
    trackers: tuple[str, ...] = ()
    kind: Literal["loop"] = "loop"

    def __post_init__(self):
        for name in ("accumulation", "max_grad_norm", "checkpoint_every"):
            if not getattr(self, name) > 0:
                raise InputError(f"loop.{name} is {getattr(self, name)}; it must be above 0.")
        if not 0 <= self.warmup <= 1:
            raise InputError(f"loop.warmup is {self.warmup}; a share of the steps lies in [0, 1].")
        if self.samples_every < 0:
            raise InputError(f"loop.samples_every is {self.samples_every}; it must not be negative.")

    @property
    def decisive(self) -> dict[str, float]:
        """Return what decides the result; the rest only decides what is kept on the way."""
        return {"accumulation": float(self.accumulation), "warmup": self.warmup, "max_grad_norm": self.max_grad_norm}

    def rate(self, step: int, steps: int) -> float:
        """Return the share of the peak learning rate: linear up over the warm-up, then linear down to 0."""
        rising = self.warmup * steps
        return (step + 1) / (rising + 1) if step < rising else (steps - step) / (steps - rising + 1)


class Training:
    """One run of a training loop, in one process or several.

    Attributes:
        accelerator: of the run.
        network: what `accelerate` made of the module that trains; call it.
        model: the adapted language model inside.
        form: how the model reads and writes.
        history: one record of metrics per step.
        state: whatever else the loop must find again after being killed; tensors and plain values.
    """

    def __init__(
        self,
        module: torch.nn.Module,
        model: Any,
        form: Format,
        loop: Loop,
        learning_rate: float,
        steps: int,
        seed: int,
        folder: Path,
        key: str,
        title: str,
    ):
        """Make optimiser and log, and take up the checkpoint in `folder` if one of the same `key` is there.

        Args:
            module: holds all that trains, the adapted model among it.
            model: the adapted model.
            form: of the model.
            loop: how to run.
            learning_rate: at its peak.
            steps: in all.
            seed: of dropout.
            folder: of the policy.
            key: hash of all that decides the result.
            title: of the progress bar.
        """
        self.accelerator = start(folder, loop)
        self.model, self.form, self.folder, self._module = model, form, folder, module
        self._loop, self._steps, self._seed, self._key, self._title = loop, steps, seed, key, title
        self._rate = learning_rate
        trainable = [p for p in module.parameters() if p.requires_grad]
        optimizer = torch.optim.AdamW(trainable, lr=learning_rate, weight_decay=0.0)
        self.network, self.optimizer = self.accelerator.prepare(module, optimizer)
        # FSDP has put others in their place
        self.trainable = [p for p in self.network.parameters() if p.requires_grad]
        self._inner = self.optimizer.optimizer  # what accelerate wrapped
        self.history: list[dict[str, float]] = []
        self.state: dict[str, Any] = {}
        self._advance: Callable[..., Any] = lambda *_, **__: None
        self._restore()
        if self.accelerator.is_main_process:
            lines = "".join(json.dumps(record) + "\n" for record in self.history)
            artifacts.write_text(folder / "metrics.jsonl", lines)
        if loop.trackers:
            self.accelerator.init_trackers("pluralign", init_kwargs={"wandb": {"name": folder.name}})

    def steps(self) -> Iterator[int]:
        """Yield the steps that are left, with the learning rate set and the seed of dropout."""
        with bar(self._title, self._steps, len(self.history)) as self._advance:
            for step in range(len(self.history), self._steps):
                torch.manual_seed(seed_of(self._seed, step, self.accelerator.process_index))
                for group in self.optimizer.param_groups:
                    group["lr"] = self._rate * self._loop.rate(step, self._steps)
                self._start = time.perf_counter()
                yield step

    def share(self, n: int) -> slice:
        """Return which of `n` things this process takes; the processes' shares follow each other and are equal.

        Raises:
            InputError: they cannot be equal.
        """
        processes = self.accelerator.num_processes
        if n % processes:
            raise InputError(f"{n} things in one pass cannot be shared by {processes} processes; take a multiple.")
        size = n // processes
        return slice(self.accelerator.process_index * size, (self.accelerator.process_index + 1) * size)

    def parts(self) -> Iterator[int]:
        """Yield the passes of one optimiser step; processes exchange gradients in the last one only."""
        for part in range(self._loop.accumulation):
            last = part == self._loop.accumulation - 1
            with contextlib.nullcontext() if last else self.accelerator.no_sync(self.network):
                with adapt.learning(self.model):
                    yield part

    def backward(self, loss: torch.Tensor) -> None:
        """Add the gradient of one pass, whose loss is a mean over its share."""
        self.accelerator.backward(loss / self._loop.accumulation)

    def apply(self, limit: float = 1.0) -> float:
        """Make a step of the optimiser; return the norm that the gradient had.

        Args:
            limit: what the longest gradient is multiplied by.

        Raises:
            TrainError: the gradient is not finite.
        """
        norm = self.accelerator.clip_grad_norm_(self.trainable, self._loop.max_grad_norm * limit)
        assert norm is not None
        norm = norm.full_tensor() if isinstance(norm, DTensor) else norm
        if not torch.isfinite(norm):
            raise TrainError(
                f"the gradient is {float(norm)} at step {len(self.history) + 1}; lower learning_rate, or use dtype "
                "float32."
            )
        self.optimizer.step()
        self.optimizer.zero_grad()
        return float(norm)

    def gather(self, values: torch.Tensor) -> torch.Tensor:
        """Return the values of all processes one after another."""
        return self.accelerator.gather(values)  # pyright: ignore[reportReturnType]

    def means(self, told: Sequence[dict[str, torch.Tensor]]) -> dict[str, float]:
        """Return the mean of each metric over what this step's passes told, in all processes."""
        local = {name: torch.cat([t[name].detach().float() for t in told]) for name in told[0]}
        return {name: float(self.gather(values).mean()) for name, values in local.items()}

    def columns(self, columns: dict[str, np.ndarray]) -> dict[str, float]:
        """Return the mean of each column over the responses, in all processes, that have it; none has it: left out."""
        device = self.accelerator.device
        whole = {k: self.gather(torch.as_tensor(v, dtype=torch.float32, device=device)) for k, v in columns.items()}
        return {name: float(values.nanmean()) for name, values in whole.items() if not values.isnan().all()}

    def mean(self, values: torch.Tensor) -> torch.Tensor:
        """Return the mean of values, of which each process may have another number."""
        sums = self.gather(torch.stack([values.sum(), values.new_tensor(float(len(values)))])[None])
        return sums[:, 0].sum() / sums[:, 1].sum()

    def average(self) -> None:
        """Count the adapter as it is now among those whose mean `finish` will keep."""
        now = [p.detach().clone() for p in self.trainable]
        total, count = self.state.get("average", ([torch.zeros_like(p) for p in now], 0))
        self.state["average"] = ([a.to(b.device) + b for a, b in zip(total, now, strict=True)], count + 1)

    def keep(self) -> None:
        """Remember what trains as it is now, in the checkpoint too, for `stopped`."""
        self.state["kept"] = len(self.history), [p.detach().clone() for p in self.trainable]

    def stopped(self, why: str) -> str:
        """Take up what was kept last, in place of any average, and return what is to be said of it."""
        step, values = self.state["kept"]
        with torch.no_grad():
            for parameter, value in zip(self.trainable, values, strict=True):
                parameter.copy_(value)
        self.state.pop("average", None)
        kept = f"as it was after step {step}, before that" if step else "untrained: no later look was within the limits"
        return f"Training was stopped after step {len(self.history)} by its guard: {why}. The adapter is {kept}."

    def log(self, tokens: int, record: dict[str, float], shown: Sequence[str] = ()) -> None:
        """End a step: keep its record, show it, and write a checkpoint when one is due.

        Args:
            tokens: read and written in this step by all processes.
            record: metrics, the same in all processes.
            shown: metrics beside the progress bar.
        """
        seconds = time.perf_counter() - self._start
        step = len(self.history) + 1
        rate = self._rate * self._loop.rate(step - 1, self._steps)
        record = {"step": float(step), **record, "learning_rate": rate, "tokens_per_second": tokens / seconds}
        self.history.append(record)
        if self.accelerator.is_main_process:
            with (self.folder / "metrics.jsonl").open("a", encoding="utf-8") as file:
                file.write(json.dumps(record) + "\n")
        if self._loop.trackers:
            self.accelerator.log(record, step=step)
        if step % self._loop.checkpoint_every == 0:
            self._checkpoint()
        self._advance(1, **{name: record[name] for name in shown})

    def keep_samples(self, prompts: Sequence[str], responses: Sequence[str]) -> None:
        """Append responses of this step to `samples.jsonl`."""
        step = len(self.history) + 1
        if self.accelerator.is_main_process:
            with (self.folder / "samples.jsonl").open("a", encoding="utf-8") as file:
                for prompt, response in zip(prompts, responses, strict=True):
                    file.write(json.dumps({"step": step, "prompt": prompt, "response": response}) + "\n")

    def wants_samples(self, step: int) -> bool:
        """Say whether samples of this step are to be kept: of the first one, and of every so-manyth."""
        return self._loop.samples_every > 0 and step % self._loop.samples_every == 0

    def finish(self, base: str, caveats: tuple[str, ...], also: Callable[[Path], Any] = lambda folder: None) -> Policy:
        """Write the adapter and return the policy; the checkpoint is no longer needed.

        Args:
            base: name or folder of the base model.
            caveats: what must be known before trusting the policy.
            also: writes what else belongs into the adapter's folder.
        """
        if "average" in self.state:
            total, count = self.state["average"]
            with torch.no_grad():
                for parameter, value in zip(self.trainable, total, strict=True):
                    parameter.copy_(value / count)
        state = self._adapter()
        policy = Policy(self.folder / "adapter", base, tuple(self.history), caveats)
        if self.accelerator.is_main_process:

            def written(path: Path) -> None:
                adapt.write(self.model, self.form, path, state)
                also(path)

            into(self.folder / "adapter", written)
            artifacts.save(policy, self.folder / "policy", key=self._key)
            shutil.rmtree(self.folder / "checkpoint", ignore_errors=True)
        self.accelerator.wait_for_everyone()
        if self._loop.trackers:
            self.accelerator.end_training()
        return policy

    def _adapter(self) -> dict[str, Any] | None:
        """Return the adapted model's weights if they are scattered over processes; None: as the model holds them."""
        if self.accelerator.distributed_type != "FSDP":
            return None
        place = next(name for name, part in self._module.named_modules() if part is self.model)
        weights = get_model_state_dict(self.network, options=WHOLE)
        return {name.removeprefix(f"{place}."): value for name, value in weights.items()}

    def _checkpoint(self) -> None:
        weights = get_model_state_dict(self.network, options=WHOLE)
        moments = get_optimizer_state_dict(self.network, self._inner, options=WHOLE)
        state = {"key": self._key, "history": self.history, "weights": weights, "moments": moments, "loop": self.state}
        if self.accelerator.is_main_process:
            into(self.folder / "checkpoint", lambda path: torch.save(state, path / "state.pt"))
        self.accelerator.wait_for_everyone()

    def _restore(self) -> None:
        file = self.folder / "checkpoint" / "state.pt"
        if not file.is_file():
            return
        state = torch.load(file, map_location="cpu", weights_only=True)
        if state["key"] != self._key:
            return
        set_model_state_dict(self.network, state["weights"], options=WHOLE)
        set_optimizer_state_dict(self.network, self._inner, state["moments"], options=WHOLE)
        self.history, self.state = state["history"], state["loop"]


def start(folder: Path, loop: Loop) -> Accelerator:
    """Return what knows the processes; started by `accelerate launch` there are several, otherwise one."""
    try:
        found = Accelerator(mixed_precision="no", log_with=list(loop.trackers) or None, project_dir=str(folder))
    except (ValueError, ImportError) as error:
        raise InputError(f"accelerate refuses trackers {loop.trackers}: {error}") from error
    if found.distributed_type == "DEEPSPEED":
        raise InputError(
            "DeepSpeed clips and steps by itself as soon as it has a gradient, so that curves would be others; use "
            "distributed_type FSDP (configs/accelerate/fsdp.yaml), which scatters the same."
        )
    if found.distributed_type == "FSDP" and loop.samples_every:
        raise InputError("samples are written with the whole model, which FSDP scatters; set loop.samples_every to 0.")
    return found


@contextlib.contextmanager
def main_first() -> Iterator[None]:
    """Let the main process go first, so that others find what it made."""
    # A bare PartialState would not see that processes were started for the processor.
    with Accelerator(mixed_precision="no").main_process_first():
        yield


def into(path: Path, make: Callable[[Path], Any]) -> None:
    """Write a folder so that a reader sees all of it or the old one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}."))
    os.chmod(temporary, 0o755)
    make(temporary)
    artifacts.replace_folder(temporary, path)


def check_room(network: Any, prompt: int, response: int) -> None:
    """Refuse texts that are longer than what a model reads.

    Args:
        network: the model.
        prompt: tokens of the longest prompt.
        response: tokens of the longest response.

    Raises:
        InputError: together they do not fit.
    """
    room = getattr(network.config, "max_position_embeddings", None)
    if room is not None and prompt + response > room:
        raise InputError(
            f"a prompt of {prompt} tokens with a response of {response} does not fit into the {room} that the model "
            "reads; lower max_prompt_tokens or max_response_tokens."
        )


def seed_of(*parts: int) -> int:
    """Return one seed made from several."""
    return int(np.random.SeedSequence(list(parts)).generate_state(1)[0])


def keep_inputs(chosen: Choice, votes: Feedback, phi: Features, out: Path) -> None:
    """Write what a report of this run will ask for, unless it is there already."""
    for value, path in ((votes, out / "feedback"), (phi, out / "features")):
        if not (path / artifacts.MANIFEST).is_file():
            artifacts.save(value, path)
    path = out / "choices" / chosen.name
    there = artifacts.load(path, Choice) if (path / artifacts.MANIFEST).is_file() else None
    # An equal choice stays as it is, with the key by which a pipeline knows it.
    if (
        there is None
        or not np.array_equal(there.lottery, chosen.lottery)
        or not np.array_equal(there.log_ratio(), chosen.log_ratio())
    ):
        artifacts.save(chosen, path)
