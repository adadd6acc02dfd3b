"""The log-probability of responses under a causal language model."""

import inspect
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from pluralign.policy import losses
from pluralign.policy.text import Row


def log_probs(model: Any, rows: Sequence[Row]) -> Float[Tensor, " row"]:
    """Return `log pi(response | prompt)` of each row, in nats, by one forward pass.

    Prompts are padded on the left and responses on the right, so that all responses begin in the same column and
    logits are made there only. What a padded place holds does not matter: it is masked from attention, from
    positions and from the sum.
    """
    width, length = max(len(r.prompt) for r in rows), max(len(r.response) for r in rows)
    ids = np.zeros((len(rows), width + length), np.int64)
    counts = np.zeros(ids.shape, bool)
    for i, row in enumerate(rows):
        start, stop = width - len(row.prompt), width + len(row.response)
        ids[i, start:stop] = row.prompt + row.response
        counts[i, start:stop] = True
    device = next(model.parameters()).device
    tokens, mask = torch.from_numpy(ids).to(device), torch.from_numpy(counts).to(device)
    inputs: dict[str, Any] = {"input_ids": tokens, "attention_mask": mask.long()}
    # peft's wrapper hides the signature of the model inside
    accepted = inspect.signature(_inner(model).forward).parameters
    if "position_ids" in accepted:
        inputs["position_ids"] = (mask.long().cumsum(-1) - 1).clamp(min=0)
    if "logits_to_keep" in accepted:
        inputs["logits_to_keep"] = length + 1
    logits = model(**inputs, use_cache=False).logits[:, -length - 1 : -1]
    return losses.sequence_log_probs(logits, tokens[:, width:], mask[:, width:])


def score(
    model: Any, rows: Sequence[Row], batch: int, advance: Callable[[int], Any] = lambda n: None
) -> Float[np.ndarray, " row"]:
    """Return `log_probs` of any number of rows without gradients, rows of similar length together.

    Args:
        model: as it stands; to score the reference, disable its adapter.
        rows: in any order.
        batch: rows in one forward pass.
        advance: told how many rows were done after each pass.
    """
    result = np.zeros(len(rows), np.float64)
    order = sorted(range(len(rows)), key=lambda i: -len(rows[i].prompt) - len(rows[i].response))
    with torch.inference_mode():
        for start in range(0, len(rows), batch):
            chosen = order[start : start + batch]
            result[chosen] = log_probs(model, [rows[i] for i in chosen]).cpu().double().numpy()
            advance(len(chosen))
    return result


def _inner(model: Any) -> Any:
    return model.get_base_model() if hasattr(model, "get_base_model") else model
