"""Responses written in groups: a prompt is read once, however many responses it gets."""

import inspect
from collections.abc import Callable, Sequence
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from transformers import DynamicCache, GenerationConfig, LogitsProcessorList
from transformers.cache_utils import DynamicLayer, DynamicSlidingWindowLayer

from pluralign.policy import scoring
from pluralign.policy.text import Format, Row


@torch.inference_mode()
def write(
    model: Any,
    form: Format,
    prompts: Sequence[tuple[int, ...]],
    n: int,
    max_tokens: int,
    temperature: float,
    generator: torch.Generator,
    batch: int = 128,
    advance: Callable[[int], Any] = lambda n: None,
) -> list[list[Row]]:
    """Return `n` responses to each prompt, drawn from `pi(y | x)^(1 / temperature)` token by token.

    A token is drawn by inverting the distribution function: the first whose cumulative probability exceeds a uniform
    number. Nothing else bends the distribution, whatever the model's generation config says. A response ends with the
    token of `form.stops` that ended it, or is `cut`.

    Args:
        model: as it stands, its adapter on or off; whatever `scoring` takes.
        form: says which tokens end a response.
        prompts: as tokens, not empty.
        n: responses per prompt.
        max_tokens: of a response.
        temperature: 0 = always the most probable token, the first if there are several.
        generator: of the uniform numbers; the same state gives the same responses, whatever `batch` is
            (but for rounding, which differs between batches).
        batch: responses that are written at once; at least `n` of them if prompts are to be read once.
        advance: told how many responses were written.
    """
    network = scoring.unwrap(model)
    uniform = torch.rand(len(prompts), n, max_tokens, dtype=torch.float64, generator=generator, device=generator.device)
    rows: list[list[Row]] = [[] for _ in prompts]
    few = max(1, batch // n)
    for start in range(0, len(prompts), few):
        asked = list(prompts[start : start + few])
        for first in range(0, n, batch):
            drawn = uniform[start : start + few, first : first + batch]
            told = _group(network, form, asked, drawn, temperature)
            for i, tokens in enumerate(told):
                rows[start + i // drawn.shape[1]].append(_row(asked[i // drawn.shape[1]], tokens, form.stops))
            advance(len(told))
    return rows


def _row(prompt: tuple[int, ...], tokens: list[int], stops: Sequence[int]) -> Row:
    end = next((k + 1 for k, token in enumerate(tokens) if token in stops), None)
    return Row(prompt, tuple(tokens[:end]), end is None)


def _group(
    network: Any,
    form: Format,
    prompts: list[tuple[int, ...]],
    uniform: Float[Tensor, "prompt response token"],
    temperature: float,
) -> list[list[int]]:
    """Return the tokens of each response, with whatever the model wrote behind the end; a prompt's are neighbours."""
    device = next(network.parameters()).device
    width = max(map(len, prompts))
    ids = torch.tensor([(0,) * (width - len(p)) + p for p in prompts], device=device)
    counts = torch.tensor([[0] * (width - len(p)) + [1] * len(p) for p in prompts], device=device)
    n, length = uniform.shape[1:]
    uniform = uniform.flatten(0, 1).to(device)
    inner = network.get_base_model() if hasattr(network, "get_base_model") else network
    cache = DynamicCache(config=inner.config)
    # Keys and values can be repeated; of whatever else a model remembers its own `generate` knows.
    if inner._is_stateful or any(
        type(layer) not in (DynamicLayer, DynamicSlidingWindowLayer) for layer in cache.layers
    ):
        return _generate(inner, form, ids, counts, uniform, temperature)
    accepted = inspect.signature(inner.forward).parameters
    padded = bool((counts == 0).any())

    def step(tokens: Int[Tensor, "row token"], counts: Int[Tensor, "row place"]) -> Float[Tensor, "row vocabulary"]:
        inputs: dict[str, Any] = {"input_ids": tokens}
        if padded:
            inputs["attention_mask"] = counts
            if "position_ids" in accepted:
                inputs["position_ids"] = (counts.cumsum(-1) - 1).clamp(min=0)[:, -tokens.shape[1] :]
        if "logits_to_keep" in accepted:
            inputs["logits_to_keep"] = 1
        return network(**inputs, past_key_values=cache, use_cache=True).logits[:, -1]

    logits = step(ids, counts).repeat_interleave(n, 0)
    cache.batch_repeat_interleave(n)
    counts = counts.repeat_interleave(n, 0)
    written = torch.full((len(logits), length), form.stops[0], device=device)
    live = torch.arange(len(logits), device=device)  # which response each row of the batch is
    stops = torch.tensor(form.stops, device=device)
    for k in range(length):
        token = draw(logits, uniform[live, k], temperature)
        written[live, k] = token
        on = ~torch.isin(token, stops)
        alive = int(on.sum())
        if not alive or k + 1 == length:
            break
        # Rows that have ended write on behind their end, until a quarter of the batch is worth moving the rest for.
        if 4 * alive <= 3 * len(live):
            kept = on.nonzero()[:, 0]
            cache.batch_select_indices(kept)
            live, token, counts = live[kept], token[kept], counts[kept]
        counts = torch.cat([counts, counts.new_ones(len(counts), 1)], 1)
        logits = step(token[:, None], counts)
    return written.tolist()


def draw(
    logits: Float[Tensor, "row vocabulary"], uniform: Float[Tensor, " row"], temperature: float
) -> Int[Tensor, " row"]:
    """Return a token of each row's `softmax(logits / temperature)`, by inverting its distribution function.

    Args:
        logits: of the next token.
        uniform: in [0, 1).
        temperature: 0 = the most probable token.
    """
    if not temperature:
        return logits.argmax(-1)
    below = (logits.float() / temperature).softmax(-1).cumsum(-1, dtype=torch.float64)
    found = torch.searchsorted(below, uniform.to(below)[:, None] * below[:, -1:], right=True)[:, 0]
    return found.clamp(max=logits.shape[-1] - 1)  # a number so near 1 that its product was rounded up


def _generate(
    inner: Any,
    form: Format,
    ids: Int[Tensor, "prompt place"],
    counts: Int[Tensor, "prompt place"],
    uniform: Float[Tensor, "row token"],
    temperature: float,
) -> list[list[int]]:
    """Write with the model's own `generate`, which knows its memory, and reads a prompt for each of its responses."""
    width, n = ids.shape[1], len(uniform) // len(ids)

    def choose(so_far: Int[Tensor, "row place"], logits: Float[Tensor, "row vocabulary"]) -> Tensor:
        """Leave one token possible, so that the most probable one is the one drawn."""
        token = draw(logits, uniform[:, so_far.shape[1] - width], temperature)
        return torch.full_like(logits, -torch.inf).scatter(1, token[:, None], 0.0)

    config = GenerationConfig(
        max_new_tokens=uniform.shape[1], eos_token_id=list(form.stops), pad_token_id=form.stops[0], do_sample=False
    )
    own = inner.generation_config
    try:
        inner.generation_config = GenerationConfig()  # what it says of penalties and the like would be merged in
        found = inner.generate(
            input_ids=ids.repeat_interleave(n, 0),
            attention_mask=counts.repeat_interleave(n, 0),
            generation_config=config,
            logits_processor=LogitsProcessorList([choose]),  # pyright: ignore[reportArgumentType]
        )
    finally:
        inner.generation_config = own
    return found[:, width:].tolist()
