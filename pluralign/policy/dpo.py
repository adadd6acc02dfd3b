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

import os
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from pluralign import artifacts
from pluralign.errors import InputError, TrainError
from pluralign.policy import losses, scoring
from pluralign.policy.adapt import Lora
from pluralign.policy.candidates import Candidates
from pluralign.policy.models import Pretrained, Scratch, bar, resolve
from pluralign.policy.text import Format, Row
from pluralign.policy.training import Loop, Training, keep_inputs, main_first
from pluralign.types import Choice, Features, Feedback, Policy


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
        lora: the adapter.
        learning_rate: at its peak; warms up, then falls linearly to 0.
        steps: optimiser steps.
        batch: pairs in one pass, of all processes together; `batch * loop.accumulation` pairs make a step.
        max_prompt_tokens: longer prompts lose words from their start.
        max_response_tokens: longer responses lose their end.
        loop: how training runs; `max_grad_norm` is multiplied by beta^2, with which gradients near the optimum scale.
        seed: of the adapter, of the order of pairs and of dropout.
    """

    model: str | Pretrained | Scratch
    beta: float = 1.0
    anchor: float = 0.3
    lora: Lora = field(default_factory=Lora)
    learning_rate: float = 1e-3
    steps: int = 200
    batch: int = 8
    max_prompt_tokens: int = 128
    max_response_tokens: int = 128
    loop: Loop = field(default_factory=Loop)
    seed: int = 0
    kind: Literal["dpo"] = "dpo"

    def __post_init__(self):
        for name in ("beta", "learning_rate", "steps", "batch", "max_prompt_tokens", "max_response_tokens"):
            if not getattr(self, name) > 0:
                raise InputError(f"{name} is {getattr(self, name)}; it must be above 0.")
        if not self.anchor >= 0:
            raise InputError(f"anchor is {self.anchor}; it must not be negative.")
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
        with main_first():
            keep_inputs(chosen, votes, phi, out)
            base = resolve(self.model, votes, out, self.seed)
        key = artifacts.digest(
            {**asdict(self), "model": base.fingerprint(), "loop": self.loop.decisive},
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
        network, form = base.load()
        rows = self._rows(candidates, form, network)
        torch.manual_seed(self.seed)
        model = self.lora.attach(network)
        title = f"dpo {folder.name}"
        run = Training(model, model, form, self.loop, self.learning_rate, self.steps, self.seed, folder, key, title)
        reference = self._reference(run, rows, candidates, out / "reference", base.fingerprint())
        for step in run.steps():
            pairs = candidates.draw(self.seed, step, self.batch * self.loop.accumulation)
            told = []
            for k in run.parts():
                part = pairs[k * self.batch : (k + 1) * self.batch][run.share(self.batch)]
                used = [rows[i] for i in part.T.ravel()]  # first candidates, then second ones: one forward pass
                log_ratio = scoring.log_probs(run.network, used) - _tensor(reference[part.T.ravel()], run)
                loss, seen = self._loss(log_ratio, part, candidates, run)
                _finite(loss, part, candidates, step)
                run.backward(loss.mean())
                told.append(seen)
            norm = run.apply(self.beta**2)
            used = [rows[i] for i in pairs.ravel()]
            tokens = sum(len(r.prompt) + len(r.response) for r in used)
            cut = sum(r.cut for r in used) / len(used)
            run.log(tokens, {**run.means(told), "grad_norm": norm, "cut": cut}, ("loss", "excess", "accuracy"))
        cut = sum(row.cut for row in rows)
        if cut:
            caveats += (f"{cut} of {len(rows)} candidates were cut to {self.max_response_tokens} tokens for training.",)
        return run.finish(base.path, caveats)

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

    def _reference(
        self, run: Training, rows: list[Row], candidates: Candidates, folder: Path, fingerprint: str
    ) -> Float[np.ndarray, " candidate"]:
        """Return `log pi_ref` of every candidate that will be drawn, NaN for the others; kept for other rules."""
        n = self.batch * self.loop.accumulation
        used = np.unique(np.concatenate([candidates.draw(self.seed, step, n).ravel() for step in range(self.steps)]))
        file = folder / f"{artifacts.digest(fingerprint, used, [asdict(rows[i]) for i in used])}.npy"
        reference = np.full(len(rows), np.nan)
        there = file.is_file()
        run.accelerator.wait_for_everyone()  # nobody may write before all have looked
        if not there:
            processes = run.accelerator.num_processes
            padded = np.resize(used, -(-len(used) // processes) * processes)  # shares must be equal
            mine = padded[run.share(len(padded))]
            with bar("reference", len(mine)) as advance, run.model.disable_adapter():
                scores = scoring.score(run.network, [rows[i] for i in mine], 2 * self.batch, advance)
            scores = run.gather(torch.from_numpy(scores).to(run.accelerator.device)).cpu().numpy()[: len(used)]
            if run.accelerator.is_main_process:
                folder.mkdir(parents=True, exist_ok=True)
                temporary = file.with_suffix(".partial.npy")
                np.save(temporary, scores)
                os.replace(temporary, file)
            run.accelerator.wait_for_everyone()
        reference[used] = np.load(file)
        return reference

    def _loss(
        self,
        log_ratio: Float[Tensor, " response"],
        pairs: Int[np.ndarray, "pair 2"],
        candidates: Candidates,
        run: Training,
    ) -> tuple[Float[Tensor, " pair"], dict[str, Float[Tensor, " pair"]]]:
        """Return the loss of each pair, and what is told about it."""
        first, second = log_ratio.chunk(2)
        t1, t2 = _tensor(candidates.log_ratio[pairs.T], run)
        rho1, rho2 = _tensor(candidates.reference[pairs.T], run)
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


def _tensor(values: Float[np.ndarray, "..."], run: Training) -> Float[Tensor, "..."]:
    return torch.as_tensor(values, dtype=torch.float32, device=run.accelerator.device)


def _finite(loss: Float[Tensor, " pair"], pairs: Int[np.ndarray, "pair 2"], candidates: Candidates, step: int) -> None:
    bad = (~torch.isfinite(loss)).nonzero()
    if len(bad):
        first, second = pairs[int(bad[0])]
        raise TrainError(
            f"the loss is {loss[bad[0]].item()} at step {step + 1} for items {candidates.item[first]} and "
            f"{candidates.item[second]} (prompt {candidates.prompts[first][:60]!r}); usually the learning rate is too "
            "high or float16 overflowed: lower learning_rate, or use dtype float32 or bfloat16."
        )
