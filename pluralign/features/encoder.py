from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from jaxtyping import Float, Int

from pluralign import artifacts
from pluralign.errors import InputError
from pluralign.features import cache
from pluralign.features.base import AbstractLinearMap, Basis, Reading, centred
from pluralign.types import Feedback

# Raise it when the same texts, fields and weights would give other states: what older code cached is then not read.
VERSION = 1


@dataclass(frozen=True)
class Encoder(AbstractLinearMap):
    """Features from the hidden states of any Hugging Face encoder or causal language model.

    `raw = (h / |h|, log(1 + characters))` with `h` the pooled last hidden state, and
    `phi = (raw - mean raw) basis^T`, where the basis holds the leading right singular vectors of the raw matrix
    centred within each prompt, times one number that makes the mean square of the centred features 1, and apart
    from these the length divided by its standard deviation within prompts (ddof 0).

    Only differences between responses to one prompt move a choice, so directions that tell prompts apart are worth
    nothing: hence the centring within prompts before the singular value decomposition. The features themselves keep
    one common origin; it cancels in every difference, and new prompts need no mean of their own.

    Args:
        model: name on the Hugging Face hub, or a local folder.
        pooling: `mean` over the tokens that count, or the `last` of them. `mean` suits sentence encoders, `last`
            is the state from which a causal model goes on.
        context: `none` reads the response alone, as sentence encoders were trained to: the whole sequence counts, with
            [CLS] and [SEP], but without the opening token of a causal model, which has seen nothing. `prompt` reads
            prompt and response as one sequence, and only the response's tokens count: for causal models, whose
            states say little of an answer without its question. The prompt goes through the chat template if the
            tokenizer has one; if not, an encoder gets a separator, and a causal model the two texts as they are.
        dimensions: principal components to keep, at least 1; None keeps all. More than the rank of the data are not
            there: then all are kept, and the provenance says how many were asked for.
        max_tokens: longest sequence, special tokens included, at least 8; the model's own limit counts if it is lower.
            What is too long loses the beginning of the prompt first, then the end of the response; both are counted.
        batch_tokens: tokens per batch, padding included; decides memory and speed, not the result.
        length: add the feature `length`, log(1 + characters of the response).
        centre: centre within prompts before choosing the components; False centres over all items.
        gguf_file: file name, if the weights are in GGUF format; needs the package `gguf`.
        device: such as `cpu` or `cuda`; None takes a GPU if there is one. Computes in float32 everywhere.
        cache: keep pooled states of the feedback in `$XDG_CACHE_HOME/pluralign` (default `~/.cache/pluralign`), found
            again by a hash of texts, fields and weights.
        kind: names this feature map in configs.

    Raises:
        InputError: a field is out of range; later, the model cannot be loaded, or no items differ within a prompt.
    """

    model: str
    pooling: Literal["mean", "last"] = "mean"
    context: Literal["none", "prompt"] = "none"
    dimensions: int | None = 32
    max_tokens: int = 256
    batch_tokens: int = 8192
    length: bool = True
    centre: bool = True
    gguf_file: str | None = None
    device: str | None = None
    cache: bool = True
    kind: Literal["encoder"] = "encoder"

    def __post_init__(self):
        for name, least in (("dimensions", 1), ("max_tokens", 8), ("batch_tokens", 1)):
            value = getattr(self, name)
            if value is not None and value < least:
                raise InputError(f"{name} is {value}; it must be at least {least}.")
        for name, allowed in (("pooling", ("mean", "last")), ("context", ("none", "prompt"))):
            if getattr(self, name) not in allowed:
                raise InputError(f"{name} is {getattr(self, name)!r}; it must be one of {allowed}.")

    def read(
        self, prompts: Sequence[str], responses: Sequence[str], given: Feedback | Mapping[str, Any] | None = None
    ) -> Reading:
        """Return normalised pooled states, from the cache if they are there.

        Raises:
            InputError: the model cannot be loaded, or its states are not finite.
        """
        return self.adapted(prompts, responses, None, isinstance(given, Mapping))

    def adapted(self, prompts: Sequence[str], responses: Sequence[str], adapter: Path | None, more: bool) -> Reading:
        """Read as `read` does, with a LoRA adapter on the model; its folder is called after a hash of what made it.

        Args:
            prompts: one per response.
            responses: to represent.
            adapter: None = the model alone.
            more: texts beyond those of the feedback: their states are not kept on disk, but the model in memory, for
                the next texts; of several models the last.
        """
        revision = cache.identity(self.model, self.gguf_file)
        how = {"kind": self.kind, "weights": revision, "pooling": self.pooling, "context": self.context}
        how |= {"max_tokens": self.max_tokens, "length": self.length}
        how |= {} if adapter is None else {"adapter": adapter.name}
        pairs = [(p if self.context == "prompt" else "", r) for p, r in zip(prompts, responses, strict=True)]
        distinct = sorted(set(pairs))  # sorted: the order of items changes neither the batches nor the cache key
        key = artifacts.digest(VERSION, how | {"length": None}, distinct)
        found = cache.load(key, len(distinct)) if self.cache else None
        if found is None:
            from pluralign.features import states  # torch is imported only where a model has to run

            found = states.pooled(
                distinct,
                model=self.model,
                revision=revision,
                gguf_file=self.gguf_file,
                last=self.pooling == "last",
                context=self.context == "prompt",
                max_tokens=self.max_tokens,
                batch_tokens=self.batch_tokens,
                device=self.device,
                adapter=adapter,
                more=more,
            )
            if self.cache and not more:
                cache.save(key, found)
        place = {pair: row for row, pair in enumerate(distinct)}
        raw = found["states"][[place[pair] for pair in pairs]]
        if self.length:
            characters = np.log1p([len(response) for response in responses])
            raw = np.column_stack([raw, characters]).astype(np.float32)
        counts = {name: int(found[name].sum()) for name in ("tokens", "truncated_prompts", "truncated_responses")}
        return Reading(raw, how, {"model": self.model, "gguf_file": self.gguf_file, "texts": len(distinct)} | counts)

    def basis(self, reading: Reading, prompt: Int[np.ndarray, " item"]) -> Basis:
        """Choose principal components within prompts, and the length beside them.

        Raises:
            InputError: nothing varies within a prompt.
        """
        raw, group = reading.raw, prompt if self.centre else np.zeros_like(prompt)
        within = centred(raw.astype(np.float64), group)
        width = raw.shape[1] - self.length
        axes, explained = _components(within[:, :width], self.dimensions)
        kept = len(axes)
        basis = np.zeros((kept + self.length, raw.shape[1]))
        basis[:kept, :width] = axes
        names = tuple(f"pc{i + 1}" for i in range(kept))
        if self.length:
            spread = np.sqrt(np.mean(within[:, -1] ** 2))
            if spread == 0:
                raise InputError("all responses to a prompt have the same number of characters; set length = false.")
            basis[-1, -1] = 1 / spread
            names = (*names, "length")
        facts = {"centre": self.centre, "dimensions": kept, "dimensions_asked": self.dimensions}
        facts |= {"explained": float(explained.sum()), "explained_each": tuple(explained.tolist())}
        return Basis(names, raw.mean(0, dtype=np.float64).astype(np.float32), basis.astype(np.float32), facts)


def _components(
    within: Float[np.ndarray, "item width"], dimensions: int | None
) -> tuple[Float[np.ndarray, "component width"], Float[np.ndarray, " component"]]:
    """Return scaled principal axes of centred rows, and the share of variance of each.

    The sign is fixed: the entry of largest magnitude of each axis is positive.
    """
    _, sigma, axes = np.linalg.svd(within, full_matrices=False)
    # Rows come from float32, so what is below its resolution is rounding and no direction.
    rank = int((sigma > max(within.shape) * np.finfo(np.float32).eps * max(sigma[0], 1e-6)).sum())
    if rank == 0:
        raise InputError(
            "no two responses to a prompt have different states, so there is nothing to choose between. Does every "
            "prompt have only one response (is prompt_id right)? Do the responses differ only beyond max_tokens?"
        )
    kept = rank if dimensions is None else min(dimensions, rank)
    axes, power = axes[:kept], sigma**2
    strongest = axes[np.arange(kept), np.abs(axes).argmax(1)]
    scale = np.sqrt(len(within) * kept / power[:kept].sum())
    return axes * (np.sign(strongest) * scale)[:, None], power[:kept] / power.sum()
