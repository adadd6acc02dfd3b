"""LoRA-PPO on what the policy itself writes, with the reward of the chosen rule. Read from top to bottom.

A step: some prompts, a group of responses to each; the rule's reward `r` of every response; its price
`beta log(pi / pi_ref)`, the reference being the same model with its adapter switched off; the advantage of each
response over what was expected of it (`losses.Baseline`); then `epochs` optimiser steps on PPO's clipped loss. What is
maximised, `E_pi[r] - beta KL(pi || pi_ref)`, is largest at `pi ∝ pi_ref exp(r / beta)`, with the rule's own beta.

Where a rule's reward hangs on the policy, it follows it. The multipliers of a welfare rule are those of its optimum
among the candidates; `reestimate` asks the rule again on what the policy writes by now (`again.again`). The opponents
in the win rate of a maximal lottery are the policy's other responses to the prompt; as play of that kind runs in
circles, `average` keeps the mean of the last adapters rather than the last.

Every step writes one line to `metrics.jsonl`, means over the responses of the step unless said otherwise:

- `step`: from 1.
- `objective`: `r - beta log(pi / pi_ref)`, what is maximised, in units of welfare.
- `reward`: `r`, in units of welfare, with terms.
- `kl`: `log(pi / pi_ref)`, whose mean is the divergence from the reference, in nats per response.
- `kl3`: another estimate of the same that is never negative (`losses.kl_estimates`).
- `price`: beta of this step, which moves only if `kl_target` is set.
- `length`: tokens per response.
- `cut`: share of responses that were cut at `max_response_tokens` before their end.
- `spread`: standard deviation of `objective` over a prompt's responses, mean over prompts; 0 at the optimum.
- `clipped`: share of a response's tokens that left the clip range around the policy that wrote them, in the last epoch.
- `loss`: of the policy, in the last epoch.
- `grad_norm`: Euclidean norm of the gradient before clipping, in the last epoch.
- `value_loss`, `explained`: with a critic, its loss, and the share of the variance of returns that it explains.
- `rule`, `win_rate`, `group/NAME`, `term/NAME`, `multiplier/NAME`: parts of the reward, each by itself (`rewards`).
- `moved`: after re-estimation, by how much the rule's reward changed, relative to its size.
- `guard/...`: what the guard saw (`guard`).
- `learning_rate`: of this step.
- `tokens_per_second`: prompt and response tokens, by the wall time of writing, scoring and training.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from pluralign import artifacts
from pluralign.errors import InputError, TrainError
from pluralign.policy import candidates, critic, losses, rollout, scoring
from pluralign.policy.adapt import Lora
from pluralign.policy.losses import Baseline, Critic, LeaveOneOut
from pluralign.policy.models import Pretrained, Scratch, resolve
from pluralign.policy.rewards import AbstractOpponents, Encodes, Guard, Monitor, Rewards, Scored, Term, Verdict
from pluralign.policy.rewards.again import Solve, again, half_way
from pluralign.policy.rollout import Part
from pluralign.policy.training import Loop, Training, check_room, keep_inputs, main_first, seed_of
from pluralign.types import Choice, Features, Feedback, LinearReward, Policy


@dataclass(frozen=True)
class PPO:
    """Train a LoRA adapter by proximal policy optimisation (Schulman et al. 2017) on a choice's reward.

    Maximises `E_{y ~ pi}[r(x, y)] - beta KL(pi || pi_ref)` over prompts of the choice; `beta` is the choice's, so the
    optimum is the one that the rule found, among all texts instead of the candidates.

    Args:
        model: hub name or folder; or `pretrained`, or `scratch`.
        prompts: in one pass, of all processes together; `prompts * loop.accumulation` prompts make a step.
        group: responses to each, at least 2 unless a critic is the baseline.
        epochs: optimiser steps on the same responses.
        clip: how far, as a share, the probability of a token may profitably move in one step.
        baseline: what a response is compared with.
        kl_target: nats per response beyond which the price beta rises, and below which it falls again, but never below
            the choice's; null keeps it, and the optimum.
        reestimate: steps between askings of the rule; 0 keeps the choice's reward. It takes `again` in `train`.
        average: share of the steps, the last ones, over which the adapter's weights are averaged; 0 keeps the last.
        guard: limits to how far training may go, and what happens beyond them; null = none.
        lora: the adapter.
        learning_rate: at its peak; warms up, then falls linearly to 0.
        steps: in which responses are written.
        max_prompt_tokens: longer prompts lose words from their start.
        max_response_tokens: responses end here, at the latest.
        loop: how training runs.
        seed: of the adapter, of prompts, of what is written, and of dropout.
    """

    model: str | Pretrained | Scratch
    prompts: int = 8
    group: int = 4
    epochs: int = 1
    clip: float = 0.2
    baseline: Baseline = field(default_factory=LeaveOneOut)
    kl_target: float | None = None
    reestimate: int = 0
    average: float = 0.0
    guard: Guard | None = None
    lora: Lora = field(default_factory=Lora)
    learning_rate: float = 1e-3
    steps: int = 100
    max_prompt_tokens: int = 128
    max_response_tokens: int = 64
    loop: Loop = field(default_factory=Loop)
    seed: int = 0
    kind: Literal["ppo"] = "ppo"

    def __post_init__(self):
        for name in ("prompts", "epochs", "learning_rate", "steps", "max_prompt_tokens", "max_response_tokens"):
            if not getattr(self, name) > 0:
                raise InputError(f"{name} is {getattr(self, name)}; it must be above 0.")
        if self.group < (1 if self.baseline.critic else 2):
            raise InputError(
                f"group is {self.group}; {self.baseline.kind} compares the responses to a prompt with each other, so "
                "write at least 2, or take `baseline: {kind: critic}`."
            )
        if not 0 < self.clip < 1:
            raise InputError(f"clip is {self.clip}; it lies in (0, 1).")
        if self.kl_target is not None and not self.kl_target > 0:
            raise InputError(f"kl_target is {self.kl_target}; it must be above 0, or null to keep the choice's beta.")
        if not (0 <= self.average <= 1 and self.reestimate >= 0 and self.seed >= 0):
            raise InputError(
                f"average ({self.average}) lies in [0, 1]; reestimate ({self.reestimate}) and seed ({self.seed}) must "
                "not be negative."
            )

    def train(
        self,
        chosen: Choice,
        votes: Feedback,
        phi: Features,
        features: Encodes,
        out: str | Path,
        again: Solve | None = None,
        terms: Sequence[Term] = (),
        opponents: AbstractOpponents | None = None,
    ) -> Policy:
        """Train a policy for a choice; go on where a killed run was, and return a finished one at once.

        Everything is written below `out` as by `DPO.train`, the policy as `policies/NAME-ppo`.

        Args:
            chosen: what the rule decided, on utilities that are linear in `phi`.
            votes: that it was made from; the choice's prompts are those of training.
            phi: features of the items of `votes`.
            features: the map that made `phi`, for responses to come.
            out: run folder.
            again: the rule with its risk, `(utilities, beta) -> Choice`, such as
                `lambda u, beta: choice.Maximin().choose(u, beta=beta)`; needed if `reestimate` is set.
            terms: further rewards, limits, or things to be told.
            opponents: whom responses have to beat if the reward is a win rate (`duels`).

        Raises:
            InputError: the choice has no reward for new responses, or does not belong to this feedback; there is no
                such model; it has no such layers, or no room for prompts and responses.
            TrainError: a reward, a loss or a gradient is not finite.
        """
        out = Path(out)
        if self.reestimate and again is None:
            raise InputError("reestimate is set, but no rule was given to be asked; pass `again` to train.")
        rewards = Rewards.of(chosen, votes, phi, features, terms, opponents)
        prompts = candidates.prompts(chosen, votes)
        with main_first():
            keep_inputs(chosen, votes, phi, out)
            base = resolve(self.model, votes, out, self.seed)
        key = artifacts.digest(
            {**asdict(self), "model": base.fingerprint(), "loop": self.loop.decisive, "again": again is not None},
            *(prompts, rewards.fingerprint(), opponents, chosen.name, chosen.beta, chosen.lottery, phi.provenance),
            chosen.log_ratio(),
        )
        folder = out / "policies" / f"{chosen.name}-ppo"
        if artifacts.key_of(folder / "policy") == key and (folder / "adapter").is_dir():
            return replace(artifacts.load(folder / "policy", Policy), adapter=folder / "adapter")
        # Neither the adapter's first values nor dropout touch the caller's random numbers.
        with torch.random.fork_rng():
            return self._train(chosen, votes, prompts, rewards, again, base, folder, key)

    def _train(
        self,
        chosen: Choice,
        votes: Feedback,
        prompts: list[str],
        rewards: Rewards,
        solve: Solve | None,
        base: Pretrained,
        folder: Path,
        key: str,
    ) -> Policy:
        network, form = base.load()
        asked = [form.prompt(text, self.max_prompt_tokens) for text in prompts]
        check_room(network, max(map(len, asked)), self.max_response_tokens)
        torch.manual_seed(self.seed)
        model = self.lora.attach(network)
        head = critic.value_head(network.get_output_embeddings().weight.shape[1]) if self.baseline.critic else None
        module = scoring.Scorer(model, head)
        title = f"ppo {folder.name}"
        run = Training(module, model, form, self.loop, self.learning_rate, self.steps, self.seed, folder, key, title)
        if run.accelerator.distributed_type == "FSDP":
            raise InputError("PPO writes with the whole model in each process; use distributed_type MULTI_GPU.")
        state = run.state = {"price": chosen.beta, "reward": None, "voters": None, "recent": []} | run.state
        if "rewards" in state:
            rewards.load(state["rewards"])
        if state["reward"] is not None:
            reward = LinearReward(state["reward"].numpy())
            chosen = replace(chosen, reward=reward, weights=state["voters"].numpy())
            rewards.follow(chosen)
        monitor = Monitor.of(self.guard, chosen, votes) if self.guard is not None else None
        caveats: tuple[str, ...] = chosen.caveats

        for step in run.steps():
            price = state["price"]
            # 1. Write responses, and ask what they are worth.
            many = self.prompts * self.loop.accumulation
            picked = np.random.default_rng([self.seed, step]).choice(len(prompts), many, replace=many > len(prompts))
            mine = np.split(picked, self.loop.accumulation)
            mine = np.concatenate([part[run.share(self.prompts)] for part in mine])
            generator = torch.Generator(run.accelerator.device)
            generator.manual_seed(seed_of(self.seed, step, run.accelerator.process_index, 1))
            written = rollout.write(
                model, form, [asked[i] for i in mine], self.group, self.max_response_tokens, 1.0, generator
            )
            rows = [row for rows in written for row in rows]
            texts, named = [form.read(row) for row in rows], [prompts[i] for i in mine for _ in range(self.group)]
            scored = rewards(named, texts)
            if run.wants_samples(step):
                run.keep_samples(named[:: self.group], texts[:: self.group])
            total, guarded = scored.total, {}
            if monitor is not None:
                verdict, total = self._guarded(run, monitor, scored, mine, prompts)
                guarded = verdict.metrics
                if not (verdict.passed and step):
                    run.keep()
                if verdict.stop is not None:
                    caveats += (run.stopped(verdict.stop),)
                    break

            # 2. What the reference thinks of them; what the policy does, and its critic, is known in the first epoch.
            parts = []
            for these in np.split(np.arange(len(rows)), self.loop.accumulation):
                used = [rows[i] for i in these]
                with torch.no_grad(), model.disable_adapter():
                    reference = scoring.read(run.network, used)[0].log_probs
                value = torch.as_tensor(total[these] / price, dtype=torch.float32, device=reference.device)
                parts.append(Part(used, value, reference))
            if self.baseline.critic:
                self._ahead(run, parts)

            # 3. Learn from them.
            seen, norm = [], 0.0
            for _ in range(self.epochs):
                seen = []
                for k in run.parts():
                    loss, told = self._loss(run, parts[k])
                    run.backward(loss.mean())
                    seen.append(told)
                norm = run.apply()

            # 4. Move what depends on the policy, and tell.
            with torch.no_grad():
                log_ratio, record = self._record(run, parts, price)
            means = run.columns(scored.parts)
            record |= run.means(seen) | means | {"price": price, "grad_norm": norm} | rewards.metrics() | guarded
            rewards.update(means)
            state["rewards"] = rewards.state()
            if self.kl_target is not None:
                state["price"] = losses.price(price, record["kl"], self.kl_target, chosen.beta)
            if self.reestimate and solve is not None:
                chosen, moved = self._again(run, chosen, solve, scored.phi, log_ratio, step)
                if moved is not None:
                    rewards.follow(chosen)
                    monitor = Monitor.of(self.guard, chosen, votes) if self.guard is not None else None
                    record["moved"] = moved
            if step >= self.steps * (1 - self.average):
                run.average()
            tokens = sum(len(r.prompt) + len(r.response) for r in rows) * run.accelerator.num_processes
            run.log(tokens, record, ("objective", "reward", "kl"))

        also = (lambda path: critic.save_head(head, path)) if head is not None else (lambda path: None)
        return run.finish(base.path, caveats + rewards.caveats, also)

    def _ahead(self, run: Training, parts: list[Part]) -> None:
        """Ask policy and critic before the first step, since advantages are whitened over all passes together."""
        with torch.no_grad():
            masks = []
            for part in parts:
                seen, mask = scoring.read(run.network, part.rows)
                part.assess(self.baseline, seen.log_probs, seen.values, mask, self.group)
                masks.append(mask)
            width = max(mask.shape[1] for mask in masks)

            def whole(tables: Sequence[Any]) -> Tensor:
                return torch.cat([torch.nn.functional.pad(x, (0, width - x.shape[1])) for x in tables])

            white = self.baseline.whiten(whole([part.advantage for part in parts]), whole(masks), run.mean)
            for part, advantage in zip(parts, white.split([len(part.rows) for part in parts]), strict=True):
                part.advantage = advantage[:, : part.reference.shape[1]]

    def _loss(self, run: Training, part: Part) -> tuple[Float[Tensor, " row"], dict[str, Tensor]]:
        """Return the loss of each response, in nats per token that it could have had, and what is told about it."""
        seen, mask = scoring.read(run.network, part.rows)
        if part.old is None:
            part.assess(self.baseline, seen.log_probs, seen.values, mask, self.group)
        assert part.old is not None and part.advantage is not None
        loss = losses.clipped(seen.log_probs, part.old, part.advantage, mask, self.clip)
        bad = (~torch.isfinite(loss)).nonzero()
        if len(bad):
            raise TrainError(
                f"the loss is {loss[bad[0]].item()} at step {len(run.history) + 1} for the response "
                f"{run.form.read(part.rows[int(bad[0])])[:60]!r}; usually the learning rate is too high: lower it, or "
                "use dtype float32."
            )
        with torch.no_grad():
            told = {
                "clipped": losses.left(seen.log_probs, part.old, mask, self.clip),
                "loss": loss.detach() / self.max_response_tokens,
            }
        if isinstance(self.baseline, Critic):
            assert seen.values is not None and part.value is not None and part.target is not None
            value = losses.value_loss(seen.values, part.value, part.target, mask, self.baseline.clip)
            told["value_loss"] = value.detach() / self.max_response_tokens
            told["explained"] = losses.explained(part.value, part.target, mask)[None]
            loss = loss + self.baseline.weight * value
        return loss / self.max_response_tokens, told

    def _record(
        self, run: Training, parts: list[Part], price: float
    ) -> tuple[Float[np.ndarray, "prompt response"], dict[str, float]]:
        """Return `log(pi / pi_ref)` of this process's responses, and the step's means."""
        kl, kl3, reward = [], [], []
        for part in parts:
            assert part.old is not None
            # padding is 0 in both, so every place may count
            one, three = losses.kl_estimates(part.old - part.reference, torch.ones_like(part.old, dtype=torch.bool))
            kl.append(one)
            kl3.append(three)
            reward.append(part.reward)
        log_ratio, worth = torch.cat(kl), torch.cat(reward)
        net = price * (worth - log_ratio)
        spread = net.view(-1, self.group).std(-1) if self.group > 1 else torch.zeros_like(net)
        rows = [row for part in parts for row in part.rows]
        told = {
            "objective": net,
            "reward": price * worth,
            "kl": log_ratio,
            "kl3": torch.cat(kl3),
            "length": net.new_tensor([float(len(row.response)) for row in rows]),
            "cut": net.new_tensor([float(row.cut) for row in rows]),
            "spread": spread,
        }
        return log_ratio.view(-1, self.group).cpu().double().numpy(), run.means([told])

    def _guarded(
        self, run: Training, monitor: Monitor, scored: Scored, asked: Int[np.ndarray, " prompt"], prompts: list[str]
    ) -> tuple[Verdict, Float[np.ndarray, " response"]]:
        """Return what the guard says of all processes' responses, and the reward of this one's.

        A response that may not teach anything gets the mean of those to its prompt that may, so that it is told from
        them by its divergence from the reference alone.
        """
        phi, every = (run.gather(torch.as_tensor(x, device=run.accelerator.device)) for x in (scored.phi, asked))
        named = [prompts[i] for i in every.tolist() for _ in range(self.group)]
        verdict = monitor(phi.cpu().numpy(), named, last=run.history[-1] if run.history else None)
        mine = run.share(len(named))
        total = (scored.total - verdict.penalty[mine]).reshape(-1, self.group)
        counts = verdict.counts[mine].reshape(-1, self.group)
        mean = np.where(counts, total, 0).sum(1, keepdims=True) / np.maximum(counts.sum(1, keepdims=True), 1)
        return verdict, np.where(counts, total, mean).ravel()

    def _again(
        self,
        run: Training,
        chosen: Choice,
        solve: Solve,
        phi: Float[np.ndarray, "row feature"],
        log_ratio: Float[np.ndarray, "prompt response"],
        step: int,
    ) -> tuple[Choice, float | None]:
        """Ask the rule again when it is time, on all that was written since; go half of the way to what it says."""
        recent = run.state["recent"]
        recent.append((torch.as_tensor(phi).view(*log_ratio.shape, -1), torch.as_tensor(log_ratio)))
        if (step + 1) % self.reestimate:
            return chosen, None
        texts, ratios = (run.gather(torch.cat(p).to(run.accelerator.device)) for p in zip(*recent, strict=True))
        recent.clear()
        found = again(chosen, solve, texts.cpu().numpy(), ratios.cpu().numpy())
        chosen, moved = half_way(chosen, found)
        assert isinstance(chosen.reward, LinearReward)
        run.state |= {"reward": torch.as_tensor(chosen.reward.weights), "voters": torch.as_tensor(chosen.weights)}
        return chosen, moved
