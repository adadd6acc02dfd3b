"""Texts to the scores of a sequence classifier."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Shaped
from transformers import AutoModelForSequenceClassification

from pluralign.errors import InputError
from pluralign.features import states


def scores(
    pairs: Sequence[tuple[str, str]],
    *,
    model: str,
    revision: str,
    context: bool,
    max_tokens: int,
    batch_tokens: int,
    device: str | None,
    more: bool,
) -> dict[str, Shaped[np.ndarray, "..."]]:
    """Return scores (`states`), `labels`, whether these exclude each other, and which texts were `truncated`.

    Raises:
        InputError: the model cannot be loaded, has no classification head, or gives a score that is not finite.
    """
    load = states.kept if more else states.ready
    tokenizer, network, missing = load(model, revision, None, AutoModelForSequenceClassification, None, device)
    if missing:
        raise InputError(
            f"{model} has no weights for {sorted(missing)}: it is no sequence classifier, and its scores would be "
            "random. Take a model with a classification head, or `Encoder` for features of a model without one."
        )
    limit = states.limit(tokenizer, network, max_tokens)
    whole = [_tokens(tokenizer, prompt, response, context) for prompt, response in pairs]
    truncated = np.array([len(row["input_ids"]) > limit for row in whole])
    rows = [
        _tokens(tokenizer, *pair, context, truncation=True, max_length=limit) if cut else row
        for pair, row, cut in zip(pairs, whole, truncated, strict=True)
    ]
    if network.config.pad_token_id is None:
        network.config.pad_token_id = -1  # no token: causal classifiers then score at the last one of each row
    labels = [network.config.id2label[k] for k in range(network.config.num_labels)]
    exclusive = len(labels) > 1 and network.config.problem_type in (None, "single_label_classification")
    found = np.zeros((len(rows), len(labels)))
    with torch.inference_mode(), states.bar(f"Scoring texts with {Path(model).name}", len(rows)) as advance:
        for batch in _batches([len(row["input_ids"]) for row in rows], batch_tokens):
            inputs = {name: torch.tensor([rows[i][name] for i in batch], device=network.device) for name in rows[0]}
            logits = network(**inputs).logits.double()
            found[batch] = (_log_odds(logits) if exclusive else logits).numpy(force=True)
            advance(len(batch))
    broken = ~np.isfinite(found).all(1)
    if broken.any():
        text = pairs[int(broken.argmax())][1]
        raise InputError(f"{model} gives scores that are not finite for {text[:80]!r}; are its weights damaged?")
    return {
        "states": found,
        "labels": np.array(labels, dtype=np.str_),
        "exclusive": np.array(exclusive),
        "truncated": truncated,
    }


def _tokens(tokenizer: Any, prompt: str, response: str, context: bool, **options: Any) -> dict[str, list[int]]:
    """Return a text as the tokenizer would have it: as a chat, as a pair, or alone."""
    if context and tokenizer.chat_template:
        turns = [{"role": "user", "content": prompt}, {"role": "assistant", "content": response}]
        chat = tokenizer.apply_chat_template(turns, tokenize=False)
        return dict(tokenizer(chat, add_special_tokens=False, verbose=False, **options))  # the template has its own
    texts = (prompt, response) if context else (response,)
    return dict(tokenizer(*texts, verbose=False, **options))


def _batches(lengths: list[int], batch_tokens: int) -> Iterator[list[int]]:
    """Pack rows of the same length: without padding, no model has to be told where a row ends."""
    of_length: dict[int, list[int]] = {}
    for row, length in enumerate(lengths):
        of_length.setdefault(length, []).append(row)
    for length, rows in sorted(of_length.items(), reverse=True):
        size = max(1, batch_tokens // max(1, length))
        yield from (rows[i : i + size] for i in range(0, len(rows), size))


def _log_odds(logits: Float[torch.Tensor, "row label"]) -> Float[torch.Tensor, "row label"]:
    """Return `log p / (1 - p)` of each of the labels that exclude each other."""
    itself = torch.eye(logits.shape[1], dtype=torch.bool, device=logits.device)
    return logits - logits[:, None].masked_fill(itself, -torch.inf).logsumexp(-1)
