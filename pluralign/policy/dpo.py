"""Offline training of a LoRA adapter on slates of candidates. Read from top to bottom.

The policy is moved relative to a reference, the same model with its adapter disabled, whose log-probabilities are
computed once and kept in the run folder. A step draws prompts and some candidates of each, a *slate* (two of them by
default), and lowers a loss of their log-ratios `log(pi / pi_ref)`. What is composed:

- `labels` says what a slate is asked to become (`labels.py`): what the rule decided, `t = log(p* / pi_ref)`
  (`Choice.log_ratio`), the same in every posterior draw, or recorded votes;
- `loss` says how far it is from that (`losses`, where the formulas are): DPO and its relatives on pairs, or the
  cross-entropy of a list. With labels of the rule DPO is least where `pi ∝ pi_ref exp(t)` on the candidates;
- `reweigh` lets groups of voters count more while they are worse off (`reweigh.py`);
- `anchor` is the weight of `losses.level`, which holds the constant per prompt that pairs and lists leave free;
- `guard` looks at what the policy writes by now, and ends training, or makes labels cautious (`look.py`).

Every optimiser step writes one line to `metrics.jsonl`, means over the slates of the step unless said otherwise:

- `step`: from 1.
- `loss`: what is minimised, the loss and `anchor` times that of the level.
- `excess`: the loss less the least that labels allow, without the level; 0 = all stand exactly where labels want them.
- `drift`: `losses.slate_mass` less what is wanted of it; far below 0 = probability leaks away from all candidates.
- `accuracy`: share of pairs whose implicit reward `beta s`, `s` the score that the loss reads log-ratios as, orders
  them as the labels do; pairs that either holds equal count one half.
- `margin`: implicit reward of the candidate that the labels prefer, less that of the other, in a pair.
- `target`: what `margin` is at the optimum of DPO, the log odds of the label; at most 27.6, for hard labels.
- `kl`: divergence from the reference on the slate's candidates (`losses.slate_kl`), in nats.
- `grad_norm`: Euclidean norm of the gradient before clipping.
- `learning_rate`: of this step.
- `cut`: share of responses that were longer than `max_response_tokens` and lost their end.
- `tokens_per_second`: prompt and response tokens trained on, by wall time.
- `weight/GROUP`: with `reweigh`, how much the group counted in this step.
- `utility/GROUP`: with `reweigh`, what the policy gives to the group on the candidates of the step's prompts, in the
  units of the chosen scale (`reweigh.State.utility`).
- `loss/GROUP`: with `GroupRobust`, the group's own loss.
- `guard/...`: with a guard, what it saw before this step, in every `guard.every`th (`rewards.guard`).
"""

import os
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from pluralign import artifacts
from pluralign.errors import InputError, TrainError
from pluralign.policy import losses, rollout, scoring
from pluralign.policy.adapt import Lora
from pluralign.policy.candidates import Candidates
from pluralign.policy.labels import FromRule, FromVotes, Labels, LabelSource, Slates
from pluralign.policy.look import Look, last
from pluralign.policy.models import Pretrained, Scratch, bar, resolve
from pluralign.policy.rewards import Encodes, Guard
from pluralign.policy.reweigh import MaxMin, Reweighing, State
from pluralign.policy.text import Format, Row
from pluralign.policy.training import Loop, Training, check_room, keep_inputs, main_first, seed_of
from pluralign.types import Choice, Features, Feedback, Policy

SHOWN = 4  # prompts whose responses are kept to be read, if samples are wanted


@dataclass(frozen=True)
class DPO:
    """Train a LoRA adapter by direct preference optimisation (Rafailov et al. 2023) and its relatives.

    By default `L = -[p log sigmoid(beta h) + (1 - p) log sigmoid(-beta h)]`, `h` the difference of `log(pi / pi_ref)`
    between two candidates of a prompt, `p = sigmoid(beta (t1 - t2))`, `t` the log-ratio that the rule asks for. Unlike
    in the paper, labels come from the rule and not from a vote, and `beta` does not set how far the policy moves (the
    `beta` of the rule does): it only sets how much weight pairs get that are far apart. To this comes, with weight
    `anchor`, the same loss of the slate's mass, since pairs alone say nothing of the level, and it would sink.

    Args:
        model: hub name or folder; or `pretrained`, or `scratch`.
        loss: of a slate.
        labels: what slates are asked to become.
        reweigh: how groups of voters (the choice's `groups`; voters if there are none) are weighed; null = not at all.
        beta: sharpness of the loss, above 0; with labels of the rule it does not move the optimum.
        anchor: weight of the loss that holds the level; 0 = none. It moves no optimum if labels are of the rule or
            slates hold all candidates.
        guard: limits to how far training may go, and what happens beyond them; null = none. Every look writes
            `look.PROMPTS * look.EACH` responses.
        slate: candidates of a prompt in one slate, at least 2; null = all. Recorded votes are always of two.
        lora: the adapter.
        learning_rate: at its peak; warms up, then falls linearly to 0.
        steps: optimiser steps.
        batch: slates in one pass, of all processes together; `batch * loop.accumulation` slates make a step.
        max_prompt_tokens: longer prompts lose words from their start.
        max_response_tokens: longer responses lose their end.
        loop: how training runs; `max_grad_norm` is multiplied by the loss's curvature (beta^2 for DPO), with which
            gradients near the optimum scale.
        seed: of the adapter, of the order of slates and of dropout.
    """

    model: str | Pretrained | Scratch
    loss: losses.Loss = field(default_factory=losses.Logistic)
    labels: LabelSource = field(default_factory=FromRule)
    reweigh: Reweighing | None = None
    beta: float = 1.0
    anchor: float = 0.3
    slate: int | None = 2
    guard: Guard | None = None
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
        if self.slate is not None and self.slate < 2:
            raise InputError(f"slate is {self.slate}; a loss compares at least 2 candidates.")
        if self.seed < 0:
            raise InputError(f"seed is {self.seed}; it must not be negative.")
        if isinstance(self.labels, FromVotes) and isinstance(self.loss, losses.Distil):
            raise InputError("labels are votes, which are no lottery to distil; use a loss of pairs.")
        if isinstance(self.labels, FromVotes) and isinstance(self.reweigh, MaxMin):
            raise InputError("reweigh is maxmin, which mixes utilities; votes have none: use labels from the rule.")

        if isinstance(self.labels, FromVotes) and self.guard is not None and self.guard.action != "stop":
            raise InputError(
                f"labels are votes, which cannot be made cautious; the guard's action is {self.guard.action!r}: use "
                "'stop', or labels from the rule."
            )

    def train(
        self,
        chosen: Choice,
        votes: Feedback,
        phi: Features,
        out: str | Path,
        margin: Float[np.ndarray, " item"] | None = None,
        features: Encodes | None = None,
    ) -> Policy:
        """Train a policy for a choice; go on where a killed run was, and return a finished one at once.

        Everything is written below `out`: `policies/NAME` (the adapter with its tokenizer, `metrics.jsonl`, the
        `Policy`), the choice, and the feedback and features if they are not there yet, so that a report of the run
        can be written.

        Args:
            chosen: what the rule decided on candidates that are items of `votes`.
            votes: holds the texts of the candidates.
            phi: features of the same items, kept with the run.
            out: run folder.
            margin: of every item, a reward `m` from objectives other than that of the labels (MODPO; Zhou et al.
                2023). The optimum of a loss of pairs is then that of the labels, times `exp(m / beta)`, with the
                `beta` of this loss; see `losses.AbstractPairLoss.of` and `labels.FromVotes.part`.
            features: the map that made `phi`, for the responses that a guard looks at; needed if there is one.

        Raises:
            InputError: the choice does not belong to this feedback, or no prompt has two candidates; there is no such
                model; it has no such layers; a text is too long for it.
            TrainError: a loss or a gradient is not finite.
        """
        out = Path(out)
        if len(phi.phi) != len(votes.items):
            raise InputError(f"phi has {len(phi.phi)} rows, votes has {len(votes.items)} items; encode these votes.")
        if self.guard is not None and features is None:
            raise InputError("the guard looks at new responses, which need features; pass `features`, which made phi.")
        candidates = Candidates.of(chosen, votes)
        with main_first():
            keep_inputs(chosen, votes, phi, out)
            base = resolve(self.model, votes, out, self.seed)
        labels = self.labels.of(chosen, votes, candidates, self.reweigh is not None, margin)
        key = artifacts.digest(
            {**asdict(self), "model": base.fingerprint(), "loop": self.loop.decisive},
            *(candidates.item, candidates.row, labels.target, labels.mass, labels.utility, labels.offset),
            *(candidates.reference, candidates.prompts, candidates.responses, labels.groups),
            *(() if labels.ballots is None else vars(labels.ballots).values()),
            *(() if self.guard is None else (phi.phi, phi.provenance)),
        )
        folder = out / "policies" / chosen.name
        if artifacts.key_of(folder / "policy") == key and (folder / "adapter").is_dir():
            return replace(artifacts.load(folder / "policy", Policy), adapter=folder / "adapter")
        # Neither the adapter's first values nor dropout touch the caller's random numbers.
        with torch.random.fork_rng():
            return self._train(chosen, votes, phi, features, labels, base, folder, out, key)

    def _train(
        self,
        chosen: Choice,
        votes: Feedback,
        phi: Features,
        features: Encodes | None,
        labels: Labels,
        base: Pretrained,
        folder: Path,
        out: Path,
        key: str,
    ) -> Policy:
        network, form = base.load()
        rows = self._rows(labels.candidates, form, network)
        torch.manual_seed(self.seed)
        model = self.lora.attach(network)
        title = f"dpo {folder.name}"
        module = scoring.Scorer(model)
        run = Training(module, model, form, self.loop, self.learning_rate, self.steps, self.seed, folder, key, title)
        reference = self._reference(run, rows, labels, out / "reference", base.fingerprint())
        seen_of = run.state.get("groups")
        state = State(**{k: v.numpy() for k, v in seen_of.items()}) if seen_of else State.start(labels)
        look, caveats = None, chosen.caveats
        if self.guard is not None and features is not None:
            if run.accelerator.distributed_type == "FSDP":
                raise InputError("a guard writes with the whole model in each process; use MULTI_GPU, or no guard.")
            room = self.max_prompt_tokens, self.max_response_tokens
            look = Look.of(self.guard, chosen, votes, phi, features, labels, form, room, self.seed)
            labels = look.asks(last(run.history))
        for step in run.steps():
            guarded = {}
            if look is not None and step % look.monitor.guard.every == 0:
                verdict = look(run, step)
                if not (verdict.passed and step):
                    run.keep()
                if verdict.stop is not None:
                    caveats += (run.stopped(verdict.stop),)
                    break
                guarded = verdict.metrics
                labels = look.asks(guarded)
            slates = labels.draw(self.seed, step, self.batch * self.loop.accumulation, self.slate)
            told = []
            for k in run.parts():
                whole = slates[k * self.batch : (k + 1) * self.batch]
                part = whole[run.share(self.batch)]
                there = part.candidates >= 0
                used = part.candidates[there]
                values = scoring.log_probs(run.network, [rows[i] for i in used])
                log_ratio = torch.zeros(there.shape, device=values.device, dtype=values.dtype)
                # one forward pass for all candidates; empty places stay 0
                log_ratio = log_ratio.masked_scatter(
                    torch.from_numpy(there).to(values.device), values - torch.as_tensor(reference[used]).to(values)
                )
                loss, seen = self.objective(log_ratio, part, labels, state)
                _finite(loss, part, labels.candidates, step)
                run.backward(loss.mean())
                told.append(seen)
                if self.reweigh is not None:
                    state = state.saw(whole.candidates, run.gather(log_ratio.detach()).cpu().double().numpy())
            norm = run.apply(self.loss.curvature(self.beta))
            if run.wants_samples(step):
                self._samples(run, labels.candidates, step)
            record = run.means(told) | guarded
            if self.reweigh is not None:
                record |= self._shown(state, labels, slates)
                loss = np.array([record.get(f"loss/{name}", 0.0) for name in labels.groups])
                pace = self.loop.rate(step, self.steps)
                state = self.reweigh.update(state, labels, slates.candidates, loss, pace)
                run.state["groups"] = {k: torch.from_numpy(v) for k, v in vars(state).items()}
            used = [rows[i] for i in slates.candidates[slates.candidates >= 0]]
            tokens = sum(len(r.prompt) + len(r.response) for r in used)
            cut = sum(r.cut for r in used) / len(used)
            run.log(tokens, {**record, "grad_norm": norm, "cut": cut}, ("loss", "excess", "accuracy"))
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
        check_room(network, max(len(r.prompt) for r in rows), max(len(r.response) for r in rows))
        return rows

    def _samples(self, run: Training, candidates: Candidates, step: int) -> None:
        """Keep what the policy now writes to the first few prompts."""
        prompts = list(dict.fromkeys(candidates.prompts))[:SHOWN]
        asked = [run.form.prompt(text, self.max_prompt_tokens) for text in prompts]
        generator = torch.Generator(run.accelerator.device)
        generator.manual_seed(seed_of(self.seed, step))
        written = rollout.write(run.model, run.form, asked, 1, self.max_response_tokens, 1.0, generator)
        run.keep_samples(prompts, [run.form.read(row) for (row,) in written])

    def _reference(
        self, run: Training, rows: list[Row], labels: Labels, folder: Path, fingerprint: str
    ) -> Float[np.ndarray, " candidate"]:
        """Return `log pi_ref` of every candidate that will be drawn, NaN for the others; kept for other rules."""
        n = self.batch * self.loop.accumulation
        drawn = [labels.draw(self.seed, step, n, self.slate).candidates.ravel() for step in range(self.steps)]
        used = np.unique(np.concatenate(drawn))
        used = used[used >= 0]
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

    def objective(
        self, log_ratio: Float[Tensor, "slate place"], slates: Slates, labels: Labels, state: State
    ) -> tuple[Float[Tensor, " slate"], dict[str, Float[Tensor, " slate"]]]:
        """Return what is minimised on each slate, and what is told about it.

        Args:
            log_ratio: `log(pi / pi_ref)` of the slates' candidates; finite, at empty places too.
            slates: as drawn from the labels.
            labels: made by `self.labels`.
            state: of reweighing; without it, not used.
        """
        mix, share = (None, np.ones(1)) if self.reweigh is None else self.reweigh.split(state.weight)
        wanted = labels.wanted(slates, self.beta, self.loss.reading(), mix).to(log_ratio)
        loss, least = self.loss.of(log_ratio, wanted, self.beta)
        level, _ = losses.level(log_ratio, wanted, self.beta)
        of_group = torch.as_tensor(share).to(log_ratio)
        weight = wanted.weight * of_group
        total = (weight * (loss + self.anchor * level)).sum(-1)
        with torch.no_grad():
            reward, label = self.beta * self.loss.reading().score(log_ratio), (wanted.wins * of_group).sum(-1)
            told = {
                "loss": total.detach(),
                "excess": (weight * (loss - least)).sum(-1),
                "drift": losses.drift(log_ratio, wanted, self.beta),
                **losses.agreement(reward, label, wanted.pairs),
                "kl": losses.slate_kl(log_ratio, wanted.reference),
            }
            if mix is None and self.reweigh is not None:
                told |= {f"loss/{g}": (wanted.weight * loss)[:, i] for i, g in enumerate(labels.groups)}
        return total, told

    def _shown(self, state: State, labels: Labels, slates: Slates) -> dict[str, float]:
        utility = state.utility(labels, slates.candidates)
        return {
            f"{name}/{group}": float(value)
            for name, values in (("weight", state.weight), ("utility", utility))
            for group, value in zip(labels.groups, values, strict=True)
        }


def _finite(loss: Float[Tensor, " slate"], slates: Slates, candidates: Candidates, step: int) -> None:
    bad = (~torch.isfinite(loss)).nonzero()
    if len(bad):
        of = slates.candidates[int(bad[0])]
        of = of[of >= 0]
        raise TrainError(
            f"the loss is {loss[bad[0]].item()} at step {step + 1} for items "
            f"{' and '.join(str(candidates.item[i]) for i in of)} (prompt {candidates.prompts[of[0]][:60]!r}); "
            "usually the learning rate is too high or float16 overflowed: lower learning_rate, or use dtype float32 or "
            "bfloat16."
        )
