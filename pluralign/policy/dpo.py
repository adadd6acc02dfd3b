"""LoRA-DPO on pairs of candidates, with soft labels that come from the chosen rule. Read from top to bottom.

The rule says how far the policy must move each candidate, `t = log(p* / pi_ref)` (`Choice.log_ratio`). A pair of
candidates of one prompt gets the soft label `sigmoid(beta (t1 - t2))`, and the loss of `losses.dpo` is least where
`pi ∝ pi_ref exp(t)` on the candidates. The reference is the same model with its adapter disabled; its
log-probabilities are computed once and kept in the run folder.

Pairs fix `log(pi / pi_ref)` up to a constant per prompt, and training spends that freedom badly: the probability of
all candidates sinks together, and the policy writes something else (likelihood displacement, Razin et al. 2024). But
the constant is known: with `t` normalised so that `E_reference[exp t] = 1`, the optimum has `log(pi / pi_ref) = t`.
So each candidate is also paired with a standard whose log-ratio is 0 in the policy and in the target, by the same
loss, with weight `anchor`. It is least at the same place and holds the level.

Every optimiser step writes one line to `metrics.jsonl`, means over the pairs of the step unless said otherwise:

- `step`: from 1.
- `loss`: what is minimised, soft-label DPO loss with `anchor` times that of the level, in nats.
- `excess`: DPO loss of the pairs less the entropy of their labels; 0 = all stand exactly where the rule wants them.
- `drift`: `log(pi / pi_ref) - t` of the responses; far below 0 = probability leaks away from all candidates.
- `accuracy`: share of pairs whose implicit reward `beta log(pi / pi_ref)` orders them as the rule does; pairs
  that either holds equal count one half.
- `margin`: implicit reward of the candidate that the rule prefers, less that of the other.
- `target`: what `margin` is at the optimum, `beta |t1 - t2|`.
- `kl`: divergence from the reference on the pair's candidates (`losses.pair_kl`), in nats.
- `grad_norm`: Euclidean norm of the gradient before clipping.
- `learning_rate`: of this step.
- `cut`: share of responses that were longer than `max_response_tokens` and lost their end.
- `tokens_per_second`: prompt and response tokens trained on, by wall time.
"""

import json
import os
import shutil
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from accelerate import Accelerator
from jaxtyping import Float, Int
from peft import LoraConfig, PeftModel, get_peft_model
from torch import Tensor

from pluralign import artifacts
from pluralign.errors import InputError, TrainError
from pluralign.policy import losses, scoring
from pluralign.policy.candidates import Candidates
from pluralign.policy.models import Pretrained, Scratch, bar, quiet, resolve
from pluralign.policy.text import Format, Row
from pluralign.types import Choice, Features, Feedback, Policy

MAX_GRAD_NORM = 1.0  # at beta = 1; near the optimum gradients scale with beta^2, and this bound with them


@dataclass(frozen=True)
class DPO:
    """Train a LoRA adapter by direct preference optimisation (Rafailov et al. 2023) with soft labels.

    `L = -[p log sigmoid(beta h) + (1 - p) log sigmoid(-beta h)]`, `h` the difference of `log(pi / pi_ref)` between
    two candidates of a prompt, `p = sigmoid(beta (t1 - t2))`, `t` the log-ratio that the rule asks for. Unlike in the
    paper, labels come from the rule and not from a vote, and `beta` does not set how far the policy moves (the
    `beta` of the rule does): it only sets how much weight pairs get that are far apart. To this comes, with weight
    `anchor`, the same loss of each candidate against a standard that stays put, `h = log(pi / pi_ref)` and
    `p = sigmoid(beta t)`, with `E_reference[exp t] = 1`: pairs alone say nothing of the level, and it would sink.

    Args:
        model: hub name or folder; or `pretrained`, or `scratch`.
        beta: sharpness of the loss, above 0; it does not move the optimum.
        anchor: weight of the loss that holds the level; 0 = plain DPO.
        rank: of the LoRA matrices.
        alpha: of LoRA; updates are scaled by `alpha / rank`.
        targets: names of the linear layers that get an adapter; null = all but the output layer.
        dropout: on the input of the adapter, in [0, 1).
        learning_rate: at its peak; warms up, then falls linearly to 0.
        steps: optimiser steps.
        batch: pairs in one forward pass.
        accumulation: passes in one step; `batch * accumulation` pairs make a step.
        warmup: share of the steps in which the learning rate rises, in [0, 1].
        max_prompt_tokens: longer prompts lose words from their start.
        max_response_tokens: longer responses lose their end.
        checkpoint_every: steps between checkpoints.
        seed: of the adapter, of the order of pairs and of dropout.
    """

    model: str | Pretrained | Scratch
    beta: float = 1.0
    anchor: float = 0.3
    rank: int = 8
    alpha: float = 16.0
    targets: tuple[str, ...] | None = ("q_proj", "v_proj")
    dropout: float = 0.0
    learning_rate: float = 1e-3
    steps: int = 200
    batch: int = 8
    accumulation: int = 1
    warmup: float = 0.1
    max_prompt_tokens: int = 128
    max_response_tokens: int = 128
    checkpoint_every: int = 50
    seed: int = 0
    kind: Literal["dpo"] = "dpo"

    def __post_init__(self):
        positive = ("beta", "rank", "alpha", "learning_rate", "steps", "batch", "accumulation", "max_prompt_tokens")
        for name in (*positive, "max_response_tokens", "checkpoint_every"):
            if not getattr(self, name) > 0:
                raise InputError(f"{name} is {getattr(self, name)}; it must be above 0.")
        if not self.anchor >= 0:
            raise InputError(f"anchor is {self.anchor}; it must not be negative.")
        if not 0 <= self.dropout < 1:
            raise InputError(f"dropout is {self.dropout}; it lies in [0, 1).")
        if not 0 <= self.warmup <= 1:
            raise InputError(f"warmup is {self.warmup}; a share of the steps lies in [0, 1].")
        if self.seed < 0:
            raise InputError(f"seed is {self.seed}; it must not be negative.")

    def train(self, chosen: Choice, votes: Feedback, phi: Features, out: str | Path) -> Policy:
        """Train a policy for a choice; go on where a killed run was, and return a finished one at once.

        Everything is written below `out`: `policies/NAME` (the adapter with its tokenizer, `metrics.jsonl`, the
        `Policy`), the choice, and the feedback and features if they are not there yet, so that a report of the run
        can be written.

        Args:
            chosen: what the rule decided on candidates that are items of `votes`.
            votes: holds the texts of the candidates.
            phi: features of the same items, kept with the run.
            out: run folder.

        Raises:
            InputError: the choice does not belong to this feedback, or no prompt has two candidates; there is no such
                model; it has no such layers; a text is too long for it.
            TrainError: a loss or a gradient is not finite.
        """
        out = Path(out)
        if len(phi.phi) != len(votes.items):
            raise InputError(f"phi has {len(phi.phi)} rows, votes has {len(votes.items)} items; encode these votes.")
        candidates = Candidates.of(chosen, votes)
        _keep_inputs(chosen, votes, phi, out)
        base = resolve(self.model, votes, out, self.seed)
        key = artifacts.digest(
            {**asdict(self), "model": base.fingerprint(), "checkpoint_every": None},
            *(candidates.item, candidates.row, candidates.log_ratio, candidates.reference),
            *(candidates.prompts, candidates.responses),
        )
        folder = out / "policies" / chosen.name
        if artifacts.key_of(folder / "policy") == key and (folder / "adapter").is_dir():
            return replace(artifacts.load(folder / "policy", Policy), adapter=folder / "adapter")
        # Neither the adapter's first values nor dropout touch the caller's random numbers.
        with torch.random.fork_rng():
            return self._train(candidates, base, folder, out, key, chosen.caveats)

    def _train(
        self, candidates: Candidates, base: Pretrained, folder: Path, out: Path, key: str, caveats: tuple[str, ...]
    ) -> Policy:
        accelerator = Accelerator(mixed_precision="no")
        if accelerator.num_processes > 1:
            raise InputError(
                f"{accelerator.num_processes} processes were started; training runs in one, so start it without "
                "`accelerate launch`."
            )
        network, form = base.load()
        rows = self._rows(candidates, form, network)
        torch.manual_seed(self.seed)
        model = self._adapted(network)
        trainable = {name: p for name, p in model.named_parameters() if p.requires_grad}
        optimizer = torch.optim.AdamW(trainable.values(), lr=self.learning_rate, weight_decay=0.0)
        model, optimizer = accelerator.prepare(model, optimizer)
        reference = self._reference(model, rows, candidates, out / "reference", base.fingerprint())

        history, checkpoint = _restore(folder / "checkpoint", key, trainable, optimizer)
        artifacts.write_text(folder / "metrics.jsonl", "".join(json.dumps(record) + "\n" for record in history))
        with bar(f"dpo {folder.name}", self.steps, len(history)) as advance:
            for step in range(len(history), self.steps):
                start = time.perf_counter()
                torch.manual_seed(int(np.random.SeedSequence([self.seed, step]).generate_state(1)[0]))  # of dropout
                rate = self.learning_rate * self._schedule(step)
                for group in optimizer.param_groups:
                    group["lr"] = rate
                pairs = candidates.draw(self.seed, step, self.batch * self.accumulation)
                gathered = []
                for part in np.split(pairs, self.accumulation):
                    used = [rows[i] for i in part.T.ravel()]  # first candidates, then second ones: one forward pass
                    log_ratio = scoring.log_probs(model, used) - _tensor(reference[part.T.ravel()], accelerator)
                    loss, told = self._loss(log_ratio, part, candidates, accelerator)
                    _finite(loss, part, candidates, step)
                    accelerator.backward(loss.mean() / self.accumulation)
                    gathered.append(told)
                norm = torch.nn.utils.clip_grad_norm_(trainable.values(), MAX_GRAD_NORM * self.beta**2)
                if not torch.isfinite(norm):
                    raise TrainError(
                        f"the gradient is {float(norm)} at step {step + 1}; lower learning_rate, or use dtype float32."
                    )
                optimizer.step()
                optimizer.zero_grad()

                used = [rows[i] for i in pairs.ravel()]
                tokens = sum(len(r.prompt) + len(r.response) for r in used)
                record = {
                    "step": float(step + 1),
                    **{name: float(torch.cat([g[name] for g in gathered]).mean()) for name in gathered[0]},
                    "grad_norm": float(norm),
                    "learning_rate": rate,
                    "cut": sum(r.cut for r in used) / len(used),
                    "tokens_per_second": tokens / (time.perf_counter() - start),
                }
                history.append(record)
                with (folder / "metrics.jsonl").open("a", encoding="utf-8") as file:
                    file.write(json.dumps(record) + "\n")
                if (step + 1) % self.checkpoint_every == 0:
                    checkpoint(history)
                advance(1, loss=record["loss"], excess=record["excess"], accuracy=record["accuracy"])

        _into(folder / "adapter", lambda path: _save_adapter(accelerator.unwrap_model(model), form, path))
        cut = sum(row.cut for row in rows)
        if cut:
            caveats += (f"{cut} of {len(rows)} candidates were cut to {self.max_response_tokens} tokens for training.",)
        policy = Policy(folder / "adapter", base.path, tuple(history), caveats)
        artifacts.save(policy, folder / "policy", key=key)
        shutil.rmtree(folder / "checkpoint", ignore_errors=True)
        return policy

    def _schedule(self, step: int) -> float:
        """Return the share of the peak learning rate: linear up over the warm-up, then linear down to 0."""
        rising = self.warmup * self.steps
        if step < rising:
            return (step + 1) / (rising + 1)
        return (self.steps - step) / (self.steps - rising + 1)

    def _rows(self, candidates: Candidates, form: Format, network: Any) -> list[Row]:
        prompts = {text: form.prompt(text, self.max_prompt_tokens) for text in dict.fromkeys(candidates.prompts)}
        rows = [
            form.row(prompts[x], y, self.max_response_tokens)
            for x, y in zip(candidates.prompts, candidates.responses, strict=True)
        ]
        longest, room = (
            max(len(r.prompt) + len(r.response) for r in rows),
            getattr(network.config, "max_position_embeddings", None),
        )
        if room is not None and longest > room:
            raise InputError(
                f"a prompt with its response takes {longest} tokens, the model reads {room}; lower max_prompt_tokens "
                f"(now {self.max_prompt_tokens}) or max_response_tokens (now {self.max_response_tokens})."
            )
        return rows

    def _adapted(self, network: Any) -> PeftModel:
        config = LoraConfig(
            task_type="CAUSAL_LM",
            r=self.rank,
            lora_alpha=self.alpha,  # pyright: ignore[reportArgumentType]
            lora_dropout=self.dropout,
            target_modules=list(self.targets) if self.targets is not None else "all-linear",
        )
        names = sorted({name.split(".")[-1] for name, m in network.named_modules() if isinstance(m, torch.nn.Linear)})
        try:
            with quiet():
                model = get_peft_model(network, config)
        except ValueError as error:
            raise InputError(
                f"peft refuses targets {self.targets}: {error}. The model's linear layers are {names}."
            ) from error
        # The model's own dropout stays off, so that before the first step the policy is exactly the reference.
        model.eval()
        for name, module in model.named_modules():
            if "lora_dropout" in name:
                module.train()
        return model  # pyright: ignore[reportReturnType]

    def _reference(
        self, model: Any, rows: list[Row], candidates: Candidates, folder: Path, fingerprint: str
    ) -> Float[np.ndarray, " candidate"]:
        """Return `log pi_ref` of every candidate that will be drawn, NaN for the others; kept for other rules."""
        n = self.batch * self.accumulation
        used = np.unique(np.concatenate([candidates.draw(self.seed, step, n).ravel() for step in range(self.steps)]))
        file = folder / f"{artifacts.digest(fingerprint, used, [asdict(rows[i]) for i in used])}.npy"
        reference = np.full(len(rows), np.nan)
        if not file.is_file():
            with bar("reference", len(used)) as advance, model.disable_adapter():
                scores = scoring.score(model, [rows[i] for i in used], 2 * self.batch, advance)
            folder.mkdir(parents=True, exist_ok=True)
            temporary = file.with_suffix(".partial.npy")
            np.save(temporary, scores)
            os.replace(temporary, file)
        reference[used] = np.load(file)
        return reference

    def _loss(
        self,
        log_ratio: Float[Tensor, " response"],
        pairs: Int[np.ndarray, "pair 2"],
        candidates: Candidates,
        accelerator: Accelerator,
    ) -> tuple[Float[Tensor, " pair"], dict[str, Float[Tensor, " pair"]]]:
        """Return the loss of each pair, and what is told about it."""
        first, second = log_ratio.chunk(2)
        t1, t2 = _tensor(candidates.log_ratio[pairs.T], accelerator)
        rho1, rho2 = _tensor(candidates.reference[pairs.T], accelerator)
        label = losses.soft_label(t1, t2, self.beta)
        pairwise = losses.dpo(first, second, label, self.beta)
        none = torch.zeros_like(first)
        level = sum(
            losses.dpo(h, none, losses.soft_label(t, none, self.beta), self.beta) / 2
            for h, t in ((first, t1), (second, t2))
        )
        loss = pairwise + self.anchor * level
        with torch.no_grad():
            wanted = torch.sign(t1 - t2)
            return loss, {
                "loss": loss.detach(),
                "excess": pairwise.detach() - losses.label_entropy(label),
                "drift": (first - t1 + second - t2) / 2,
                "accuracy": (1 + wanted * torch.sign(first - second)) / 2,
                "margin": self.beta * wanted * (first - second),
                "target": self.beta * (t1 - t2).abs(),
                "kl": losses.pair_kl(first, second, rho1, rho2),
            }


def _tensor(values: Float[np.ndarray, "..."], accelerator: Accelerator) -> Float[Tensor, "..."]:
    return torch.as_tensor(values, dtype=torch.float32, device=accelerator.device)


def _finite(loss: Float[Tensor, " pair"], pairs: Int[np.ndarray, "pair 2"], candidates: Candidates, step: int) -> None:
    bad = (~torch.isfinite(loss)).nonzero()
    if len(bad):
        first, second = pairs[int(bad[0])]
        raise TrainError(
            f"the loss is {loss[bad[0]].item()} at step {step + 1} for items {candidates.item[first]} and "
            f"{candidates.item[second]} (prompt {candidates.prompts[first][:60]!r}); usually the learning rate is too "
            "high or float16 overflowed: lower learning_rate, or use dtype float32 or bfloat16."
        )


def _into(path: Path, write: Callable[[Path], Any]) -> None:
    """Write a folder so that a reader sees all of it or the old one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}."))
    os.chmod(temporary, 0o755)
    write(temporary)
    artifacts.replace_folder(temporary, path)


def _save_adapter(model: PeftModel, form: Format, path: Path) -> None:
    model.save_pretrained(str(path), save_embedding_layers=False)
    form.tokenizer.save_pretrained(path)


def _restore(
    folder: Path, key: str, trainable: dict[str, torch.nn.Parameter], optimizer: Any
) -> tuple[list[dict[str, float]], Callable[[list[dict[str, float]]], None]]:
    """Take up a checkpoint made from the same inputs, if there is one; return its history, and how to write more."""

    def write(history: list[dict[str, float]]) -> None:
        adapter = {name: p.detach().cpu() for name, p in trainable.items()}
        state = {"key": key, "history": history, "adapter": adapter, "optimizer": optimizer.state_dict()}
        _into(folder, lambda path: torch.save(state, path / "state.pt"))

    if not (folder / "state.pt").is_file():
        return [], write
    state = torch.load(folder / "state.pt", map_location="cpu", weights_only=True)
    if state["key"] != key:
        return [], write
    with torch.no_grad():
        for name, parameter in trainable.items():
            parameter.copy_(state["adapter"][name])
    optimizer.load_state_dict(state["optimizer"])
    return state["history"], write


def _keep_inputs(chosen: Choice, votes: Feedback, phi: Features, out: Path) -> None:
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
