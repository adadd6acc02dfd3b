"""The log-probability of responses under a causal language model."""

import inspect
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from pluralign.errors import InputError
from pluralign.policy import kernel, losses
from pluralign.policy.text import Row


class Read(NamedTuple):
    """What a model makes of tokens.

    Attributes:
        log_probs: `log pi(token | all before it)`, in nats, at least float32; 0 where a token does not count.
        hidden: last hidden state at the place before each token, the one that predicts it.
        values: what the scorer's value head makes of `hidden`; None if it has none.
    """

    log_probs: Float[Tensor, "row token"]
    hidden: Float[Tensor, "row token width"]
    values: Float[Tensor, "row token"] | None = None


class Scorer(torch.nn.Module):
    """A causal language model as a function from tokens to their log-probabilities, to be trained as one module.

    Most models predict by `logits = W hidden + b`; then logits are never kept (`kernel`). Whether this one does is
    tried out once: its output layer is made to say something else, and the model must repeat it word for word. One
    that scales or caps its logits, or whose output layer is not a plain frozen one (an adapter on it, four bits), is
    asked for its logits instead.

    Args:
        model: of transformers, or peft's wrapper of one, on its device and with its adapter.
        head: from a hidden state to a number, in its own dtype, for a critic.

    Raises:
        InputError: the model has no output layer.
    """

    def __init__(self, model: Any, head: torch.nn.Module | None = None):
        super().__init__()
        self.model, self.critic = model, head
        # what FSDP asks for, to hold a layer at a time and not the whole model
        self._no_split_modules = getattr(_inner(model), "_no_split_modules", None)
        self.repeats = self._repeats()

    def forward(
        self,
        ids: Int[Tensor, "row place"],
        counts: Bool[Tensor, "row place"],
        length: int,
        wanted: Bool[Tensor, "row token"] | None = None,
    ) -> Read:
        """Return what the model makes of the last `length` places, each from all that count before it.

        Args:
            ids: prompts with responses, padded on either side; any value where `counts` is False.
            counts: True = a token, False = padding.
            length: below the number of places.
            wanted: which of the last places to score; None = those that count. Each counts and has one before it.
        """
        inputs: dict[str, Any] = {"input_ids": ids}
        # Causal attention never looks right, so padding there needs no mask, and positions are right as they are.
        if (counts[:, 1:] & ~counts[:, :-1]).any():
            inputs["attention_mask"] = counts.long()
            if "position_ids" in inspect.signature(_inner(self.model).forward).parameters:
                inputs["position_ids"] = (counts.long().cumsum(-1) - 1).clamp(min=0)
        tokens, wanted = ids[:, -length:], counts[:, -length:] if wanted is None else wanted
        head = self._head()
        if self.repeats and type(head) is torch.nn.Linear and not head.weight.requires_grad:
            hidden = _inner(self.model).base_model(**inputs, use_cache=False).last_hidden_state[:, -length - 1 : -1]
            found = kernel.token_log_probs(hidden[wanted], head.weight, head.bias, tokens[wanted])
            return Read(found.new_zeros(wanted.shape).index_put((wanted,), found), hidden, self._values(hidden))
        # peft's wrapper hides the signature of the model inside
        if "logits_to_keep" in inspect.signature(_inner(self.model).forward).parameters:
            inputs["logits_to_keep"] = length + 1
        seen: list[Tensor] = []
        with head.register_forward_pre_hook(lambda _, given: seen.append(given[0])):
            logits = self.model(**inputs, use_cache=False).logits
        if not seen:
            raise InputError(f"{type(_inner(self.model)).__name__} does not use its output layer to predict.")
        found = losses.token_log_probs(logits[:, -length - 1 : -1], tokens, wanted)
        hidden = seen[0][:, -length - 1 : -1]
        return Read(found, hidden, self._values(hidden))

    def _values(self, hidden: Float[Tensor, "row token width"]) -> Float[Tensor, "row token"] | None:
        return self.critic(hidden.to(next(self.critic.parameters()).dtype)).squeeze(-1) if self.critic else None

    def _head(self) -> Any:
        head = _inner(self.model).get_output_embeddings()
        if head is None:
            raise InputError(f"{type(_inner(self.model)).__name__} has no output layer; use a causal language model.")
        return head

    @torch.no_grad()
    def _repeats(self) -> bool:
        """Return whether the model's logits are what its output layer says of the last hidden state, word for word."""
        inner, head = _inner(self.model), self._head()
        if getattr(inner, "base_model", inner) is inner:
            return False
        read: list[Tensor] = []
        said: list[Tensor] = []

        def say(_: Any, given: tuple[Tensor, ...], result: Tensor) -> Tensor:
            read.append(given[0])
            # Large enough for any cap to show, and different in each word.
            said.append(torch.linspace(-1000, 1000, result.numel(), device=result.device).view_as(result).to(result))
            return said[0]

        def listen(_: Any, __: Any, result: Any) -> None:
            read.append(result[0])

        with head.register_forward_hook(say), inner.base_model.register_forward_hook(listen):
            ids = torch.zeros(1, 2, dtype=torch.long, device=head.weight.device)
            logits = self.model(input_ids=ids, use_cache=False).logits
        if len(said) != 1 or len(read) != 2 or logits.shape != said[0].shape or read[0].shape != read[1].shape:
            return False
        return torch.equal(logits.to(said[0]), said[0]) and torch.equal(read[0], read[1])


def read(model: Any, rows: Sequence[Row]) -> tuple[Read, Bool[Tensor, "row token"]]:
    """Return what the model makes of each row's response, token by token, and which tokens there are.

    All rows are read in one forward pass. Column 0 is the first token of each response; `hidden` means nothing where
    there is no token.

    Args:
        model: a causal language model, bare or in peft's wrapper; or a `Scorer`, bare or in accelerate's wrapper,
            which saves a trial pass of two tokens.
        rows: with prompts that are not empty.
    """
    seen, index, mask = _pass(model, rows)
    hidden = seen.hidden.gather(1, index[:, :, None].expand(-1, -1, seen.hidden.shape[-1]))
    values = seen.values.gather(1, index) * mask if seen.values is not None else None
    return Read(seen.log_probs.gather(1, index) * mask, hidden, values), mask


def token_log_probs(model: Any, rows: Sequence[Row]) -> tuple[Float[Tensor, "row token"], Bool[Tensor, "row token"]]:
    """Return the first part of `read` alone, `log pi` of each token of each response, and which tokens there are."""
    seen, index, mask = _pass(model, rows)
    return seen.log_probs.gather(1, index) * mask, mask


def log_probs(model: Any, rows: Sequence[Row]) -> Float[Tensor, " row"]:
    """Return `log pi(response | prompt)` of each row, in nats, by one forward pass; arguments are those of `read`."""
    return _pass(model, rows)[0].log_probs.sum(-1)


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
    scorer = _scorer(model)
    with torch.no_grad():  # what inference mode makes, scattered weights could not be gathered into again
        for start in range(0, len(rows), batch):
            chosen = order[start : start + batch]
            result[chosen] = log_probs(scorer, [rows[i] for i in chosen]).cpu().double().numpy()
            advance(len(chosen))
    return result


def unwrap(model: Any) -> Any:
    """Return the causal language model, in peft's wrapper if it has one, that is inside of what can be scored."""
    model = _bare(model)
    return model.model if isinstance(model, Scorer) else model


def _pass(model: Any, rows: Sequence[Row]) -> tuple[Read, Int[Tensor, "row token"], Bool[Tensor, "row token"]]:
    """Read rows, padded on the right: of the places read, those of responses, and which responses have a token.

    Returns:
        What was read at the last places of all rows, 0 where there is no response; the index among those places of
        each token of each response, or of any place if it has ended; and whether it has not.
    """
    first, longest = min(len(r.prompt) for r in rows), max(1, *(len(r.response) for r in rows))
    width = max(len(r.prompt) + max(1, len(r.response)) for r in rows)
    prompt, response = np.array([[len(r.prompt)] for r in rows]), np.array([[len(r.response)] for r in rows])
    place, token = np.arange(width), np.arange(longest)
    counts = place < prompt + response
    ids = np.zeros(counts.shape, np.int64)
    ids[counts] = np.concatenate([r.prompt + r.response for r in rows])
    index = np.minimum(prompt - first + token, width - first - 1)
    scorer = _scorer(model)
    device = next(scorer.parameters()).device
    wanted, counts, ids, index, mask = (
        torch.from_numpy(a).to(device)
        for a in ((counts & (place >= prompt))[:, first:], counts, ids, index, token < response)
    )
    return scorer(ids, counts, width - first, wanted), index, mask


def _scorer(model: Any) -> Any:
    return model if isinstance(_bare(model), Scorer) else Scorer(model)


def _bare(model: Any) -> Any:
    """Return what accelerate, or torch.compile, has wrapped."""
    for name in ("_orig_mod", "module"):
        model = getattr(model, name, model)
    return model


def _inner(model: Any) -> Any:
    return model.get_base_model() if hasattr(model, "get_base_model") else model
