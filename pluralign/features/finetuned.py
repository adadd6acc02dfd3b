import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from jaxtyping import Float, Int

from pluralign import artifacts
from pluralign.errors import InputError
from pluralign.features import cache
from pluralign.features.base import AbstractLinearMap, Basis, Reading, centred
from pluralign.features.encoder import Encoder
from pluralign.types import Feedback

# Raise it when the same judgements, fields and weights would give another adapter: older ones are then not used.
VERSION = 1


class Pairs(NamedTuple):
    """Comparisons of two texts: rows of `texts`, the share of the win that the first has, and whose head judges."""

    texts: list[tuple[str, str]]
    first: Int[np.ndarray, " pair"]
    second: Int[np.ndarray, " pair"]
    won: Float[np.ndarray, " pair"]
    head: Int[np.ndarray, " pair"]
    heads: int


@dataclass(frozen=True)
class FineTuned(AbstractLinearMap):
    """Features from a model that was first taught the comparisons: a reward model whose last layer is left to Bayes.

    A LoRA adapter on the encoder's model and a linear head `v` on its pooled states `h` are trained by the pooled
    Bradley-Terry model, `min -mean_pair [y log p + (1 - y) log(1 - p)]` with `p = sigmoid(v · (h_first - h_second))`,
    `y` = 1, 1/2 (a tie) or 0. Some texts are held out with all their comparisons, and the adapter is kept as it was
    after the epoch with the least log loss on those. The states then become features as those of `Encoder` do. What was
    learned can be a direction in which states differ little, which principal components pass over; so the rewards of
    the heads, each divided by its standard deviation within prompts (ddof 0), are features too. Each objective has a
    head of its own, and with `group` each group of annotators, on states that they share.

    **The adapter has seen the judgements.** A posterior that is fitted to the same comparisons counts them twice: its
    intervals are too narrow, by how much nobody knows. Held-out scores are honest only if the adapter was made from the
    training part: `features.encode(train)`. The provenance says how many comparisons were used (`comparisons`), the log
    loss on those held out before (chance: the head starts at 0) and after, and has a `note` with this warning. The loss
    after is the least of several epochs, so it, too, flatters a little.

    The adapter is kept in `$XDG_CACHE_HOME/pluralign/adapters` under a hash of all that it was made from: the same call
    does not train twice, and `encode_texts` needs the adapter there.

    Args:
        encoder: the model to start from, how its states are pooled, and how many dimensions are kept.
        group: attribute of annotators, a head for each of its values; None pools all.
        heads: add the rewards of the heads, `reward1` and so on; False keeps the principal components alone.
        rank: of the LoRA matrices.
        alpha: of LoRA; updates are scaled by `alpha / rank`.
        learning_rate: of the adapter (Adam); the head learns ten times as fast.
        epochs: at most so many passes over the comparisons.
        patience: epochs without a better held-out log loss after which training stops.
        batch: comparisons in one step.
        held_out: share of the comparisons, above 0 and below 1, that only early stopping sees; rounded up to all of
            some texts.
        seed: of the split, the adapter's first values and the order of comparisons.
        kind: names this feature map in configs.

    Raises:
        InputError: a field is out of range; later, no comparisons of two, the adapter is gone from the cache, or
            whatever `Encoder` raises.
        TrainError: later, a loss is not finite.
    """

    encoder: Encoder
    group: str | None = None
    heads: bool = True
    rank: int = 8
    alpha: float = 16.0
    learning_rate: float = 1e-3
    epochs: int = 5
    patience: int = 2
    batch: int = 16
    held_out: float = 0.2
    seed: int = 0
    kind: Literal["fine-tuned"] = "fine-tuned"

    def __post_init__(self):
        for name in ("rank", "alpha", "learning_rate", "epochs", "patience", "batch"):
            if not getattr(self, name) > 0:
                raise InputError(f"{name} is {getattr(self, name)}; it must be above 0.")
        if not 0 < self.held_out < 1 or self.seed < 0:
            raise InputError(
                f"held_out is {self.held_out} and seed {self.seed}; a share lies above 0 and below 1, a seed is not "
                "negative."
            )
        if self.encoder.gguf_file is not None:
            raise InputError("the encoder's weights are in GGUF format, which cannot be trained; give the original.")

    def read(
        self, prompts: Sequence[str], responses: Sequence[str], given: Feedback | Mapping[str, Any] | None = None
    ) -> Reading:
        """Return pooled states under the adapter, which is trained first if it was not yet.

        Raises:
            InputError: there is nothing to train on, or the adapter of these features is gone.
        """
        if isinstance(given, Feedback):
            folder = self._trained(given)
        else:
            name = (given or {}).get("adapter")
            folder = _folder(str(name))
            if name is None or not (folder / "told.json").is_file():
                raise InputError(
                    f"the adapter {name} that made these features is not in {folder.parent}; encode the feedback again "
                    "(the same feedback, fields and seed make it anew), or bring the folder back."
                )
        told = json.loads((folder / "told.json").read_text(encoding="utf-8"))
        reading = self.encoder.adapted(prompts, responses, folder, isinstance(given, Mapping))
        head = np.load(folder / "head.npy")
        rewards = reading.raw[:, : head.shape[1]] @ head.T
        raw = np.concatenate([reading.raw, rewards], axis=1) if self.heads else reading.raw
        note = (
            f"Features were fine-tuned on {told['comparisons']:,} comparisons of the feedback that they were made "
            "from; a posterior fitted to the same comparisons counts them twice, and its intervals are too narrow."
        )
        how = reading.how | {"kind": self.kind, "heads": self.heads}
        return Reading(raw, how, reading.facts | told | {"note": note})

    def basis(self, reading: Reading, prompt: Int[np.ndarray, " item"]) -> Basis:
        """Choose the basis as `Encoder` does, and beside it the heads that learned anything."""
        count = reading.facts["trained_heads"] if self.heads else 0
        width = reading.raw.shape[1] - count
        basis = self.encoder.basis(reading._replace(raw=reading.raw[:, :width]), prompt)
        rewards = reading.raw[:, width:].astype(np.float64)
        spread = np.sqrt(np.mean(centred(rewards, prompt) ** 2, axis=0))
        learned = np.flatnonzero(spread > 0)  # a head that is best at its start is 0
        rows = np.zeros((len(learned), width + count))
        rows[np.arange(len(learned)), width + learned] = 1 / spread[learned]
        axes = np.concatenate([np.pad(basis.axes, ((0, 0), (0, count))), rows]).astype(np.float32)
        origin = np.concatenate([basis.origin, rewards.mean(0)]).astype(np.float32)
        return Basis((*basis.names, *(f"reward{k + 1}" for k in learned)), origin, axes, basis.facts)

    def _trained(self, feedback: Feedback) -> Path:
        """Return the folder of the adapter for this feedback, trained now if need be."""
        base = cache.identity(self.encoder.model, None)
        pairs = self._pairs(feedback)
        fields = {name: value for name, value in vars(self).items() if name not in ("encoder", "heads")}
        reads = [self.encoder.pooling, self.encoder.context, self.encoder.max_tokens]
        folder = _folder(artifacts.digest(VERSION, base, fields, reads, *pairs))
        if not (folder / "told.json").is_file():
            from pluralign.features import finetune  # torch is imported only where a model has to run

            finetune.train(self, pairs, base, folder)
        return folder

    def _pairs(self, feedback: Feedback) -> Pairs:
        """Return the comparisons of two different texts."""
        choices = feedback.choices
        two = (choices.slate >= 0).sum(1) == 2
        order = np.argsort(choices.slate < 0, axis=1, kind="stable")[:, :2]  # the filled slots first
        slate, rank = (np.take_along_axis(x, order, 1)[two] for x in (choices.slate, choices.rank))
        rank = np.where(rank < 0, np.iinfo(np.int32).max, rank)  # not ranked is below all ranked
        asked = feedback.items["prompt"] if self.encoder.context == "prompt" else [""] * len(feedback.items)
        texts = list(zip(asked, feedback.items["response"], strict=True))
        used = sorted({texts[i] for i in slate.ravel()})
        place = {text: row for row, text in enumerate(used)}
        first, second = np.array([[place[texts[i]] for i in pair] for pair in slate]).reshape(-1, 2).T
        differ = first != second
        if not differ.any():
            raise InputError(
                "the feedback has no comparisons of two different texts, and fine-tuning learns from these only; take "
                "`Encoder` for other judgements."
            )
        groups = np.zeros(len(feedback.annotators), int)
        if self.group is not None:
            groups = np.unique(np.array(feedback.attribute(self.group)), return_inverse=True)[1]
        head = choices.objective[two] * (groups.max() + 1) + groups[choices.annotator[two]]
        heads, head = np.unique(head[differ], return_inverse=True)
        won = (1 + np.sign(rank[:, 1].astype(int) - rank[:, 0])) / 2
        return Pairs(used, first[differ], second[differ], won[differ], head, len(heads))


def _folder(key: str) -> Path:
    return cache.root() / "adapters" / key
