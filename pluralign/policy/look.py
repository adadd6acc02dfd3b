"""A look at what a policy would write: offline training never sees it, so now and then it writes for its guard."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Float

from pluralign.policy import rollout, scoring
from pluralign.policy.labels import Labels
from pluralign.policy.rewards import Encodes, Guard, Monitor, Verdict
from pluralign.policy.text import Format
from pluralign.policy.training import Training, seed_of
from pluralign.types import Choice, Features, Feedback

PROMPTS, EACH = 16, 4  # prompts of a look, the same in all looks so that they compare, and responses to each


@dataclass(frozen=True, eq=False)
class Look:
    """Writes responses with the policy as it is, and asks its guard what to make of them.

    Attributes:
        monitor: of the guard.
        labels: as they are without caution.
        doubt: of each candidate, standard deviation over draws of its reward.
        features: the map that made `phi`.
        phi: of the feedback's items.
        prompts: of a look, by all processes together.
        asked: the same as tokens.
        max_tokens: of a response.
        seed: of what is written.
    """

    monitor: Monitor
    labels: Labels
    doubt: Float[np.ndarray, " candidate"]
    features: Encodes
    phi: Features
    prompts: list[str]
    asked: list[tuple[int, ...]]
    max_tokens: int
    seed: int

    @classmethod
    def of(
        cls,
        guard: Guard,
        chosen: Choice,
        votes: Feedback,
        phi: Features,
        features: Encodes,
        labels: Labels,
        form: Format,
        room: tuple[int, int],
        seed: int,
    ) -> "Look":
        """Learn from a choice what its posterior knows, and pick the prompts.

        Args:
            guard: the limits.
            chosen: on utilities that are linear in `phi`.
            votes: that it was made from.
            phi: features of their items.
            features: the map that made them.
            labels: made from the choice.
            form: of the model.
            room: tokens of a prompt and of a response, at most.
            seed: of prompts and of what is written.
        """
        monitor, candidates = Monitor.of(guard, chosen, votes), labels.candidates
        doubt = monitor.doubt(phi.phi[candidates.item], candidates.prompts)
        every = list(dict.fromkeys(candidates.prompts))
        picked = np.random.default_rng([seed, PROMPTS]).choice(len(every), PROMPTS, replace=PROMPTS > len(every))
        prompts = [every[i] for i in picked]
        asked = [form.prompt(text, room[0]) for text in prompts]
        return cls(monitor, labels, doubt, features, phi, prompts, asked, room[1], seed)

    def __call__(self, run: Training, step: int) -> Verdict:
        """Return what the guard says of the policy before a step, the same in all processes."""
        mine = run.share(PROMPTS)
        generator = torch.Generator(run.accelerator.device)
        generator.manual_seed(seed_of(self.seed, step, run.accelerator.process_index, EACH))
        written = rollout.write(run.model, run.form, self.asked[mine], EACH, self.max_tokens, 1.0, generator)
        rows = [row for rows in written for row in rows]
        ratio = scoring.score(run.network, rows, 4 * EACH)
        with run.model.disable_adapter():
            ratio -= scoring.score(run.network, rows, 4 * EACH)
        named = [prompt for prompt in self.prompts for _ in range(EACH)]
        own = named[mine.start * EACH : mine.stop * EACH]
        seen = self.features.encode_texts(own, [run.form.read(row) for row in rows], self.phi)
        device = run.accelerator.device
        phi, ratio = (run.gather(torch.as_tensor(np.asarray(x, np.float64), device=device)) for x in (seen, ratio))
        return self.monitor(phi.cpu().numpy(), named, ratio.cpu().numpy(), last(run.history))

    def asks(self, told: Mapping[str, float]) -> Labels:
        """Return the labels for what the guard last told: cautious, or those of the reference to fall back to.

        Caution takes `caution sd_draw(r) / beta` from the log-ratio that is wanted of a candidate.
        """
        caution, strikes = told.get("guard/caution", 0.0), told.get("guard/strikes", 0.0)
        guard, target = self.monitor.guard, self.labels.target
        if guard.action == "fallback" and strikes >= guard.patience:
            return replace(self.labels, target=np.zeros_like(target))
        return replace(self.labels, target=target - caution * self.doubt[:, None] / self.labels.beta)


def last(history: Sequence[Mapping[str, float]]) -> Mapping[str, float]:
    """Return the last record that holds what a guard told; empty: there is none."""
    return next((record for record in reversed(history) if "guard/strikes" in record), {})
