"""Responses written in groups: a prompt is read once, however many responses it gets; and what is learned from them."""

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor
from transformers import DynamicCache, GenerationConfig, LogitsProcessorList
from transformers.cache_utils import DynamicLayer, DynamicSlidingWindowLayer

from pluralign.policy import scoring
from pluralign.policy.losses import AbstractBaseline
from pluralign.policy.text import Format, Row

BLOCK = 256


@dataclass(eq=False)
class Part:
    """Responses of one pass, whole groups of them, and what was thought of them before the policy learned from them.

    Attributes:
        rows: the responses as tokens.
        reward: of each, in nats.
        reference: `log pi_ref` of each token.
        old: `log pi` of each token, by the policy that wrote it.
        value: what the critic expected before each token.
        advantage: of each token.
        target: of the critic.
    """

    rows: list[Row]
    reward: Float[Tensor, " row"]
    reference: Float[Tensor, "row token"]
    old: Float[Tensor, "row token"] | None = None
    value: Float[Tensor, "row token"] | None = None
    advantage: Float[Tensor, "row token"] | None = None
    target: Float[Tensor, "row token"] | None = None

    def assess(
        self,
        baseline: AbstractBaseline,
        log_probs: Float[Tensor, "row token"],
        value: Float[Tensor, "row token"] | None,
        mask: Bool[Tensor, "row token"],
        group: int,
    ) -> None:
        """Keep what the policy that wrote the responses, and its critic, think of them."""
        self.old, self.value = log_probs.detach(), value.detach() if value is not None else None
        self.advantage = baseline.advantage(self.reward, self.old - self.reference, self.value, mask, group)
        self.target = self.advantage + self.value if self.value is not None else None


class _Room(DynamicLayer):
    """Keys and values with room behind them, so that those of a new token need not be copied with all before."""

    def __init__(self, layer: Any, room: int):
        super().__init__()
        self.lazy_initialization(layer.keys, layer.values)
        self._take([F.pad(held, (0, 0, 0, room)) for held in (layer.keys, layer.values)], layer.keys.shape[2])

    def _take(self, room: list[Tensor], n: int) -> None:
        self._held, (self.keys, self.values) = room, (held[:, :, :n] for held in room)

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        start, stop = self.get_seq_length(), self.get_seq_length() + key_states.shape[2]
        for held, new in zip(self._held, (key_states, value_states), strict=True):
            held[:, :, start:stop] = new
        self._take(self._held, stop)
        return self._held[0][:, :, :stop], self._held[1][:, :, :stop]

    def batch_select_indices(self, indices: Tensor) -> None:
        self._take([held[indices] for held in self._held], self.get_seq_length())


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
    cache.layers = [_Room(layer, length) if type(layer) is DynamicLayer else layer for layer in cache.layers]
    counts = counts.repeat_interleave(n, 0)
    written = torch.full((len(logits), length), form.stops[0], device=device)
    live = torch.arange(len(logits), device=device)  # which response each row of the batch is
    stops, on = torch.tensor(form.stops, device=device), torch.ones_like(live, dtype=torch.bool)
    for k in range(length):
        token = draw(logits, uniform[live, k], temperature)
        written[live, k] = token
        on &= ~torch.isin(token, stops)
        alive = int(on.sum())
        if not alive or k + 1 == length:
            break
        # Rows that have ended write on behind their end, until a quarter of the batch is worth moving the rest for.
        if 4 * alive <= 3 * len(live):
            kept = on.nonzero()[:, 0]
            cache.batch_select_indices(kept)
            live, token, counts, on = live[kept], token[kept], counts[kept], on[kept]
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
    chances = (logits.float() / temperature).softmax(-1)
    # First a block of tokens, then a token of it: a running sum over the whole vocabulary would take longer than all.
    blocks = F.pad(chances, (0, -chances.shape[-1] % BLOCK)).unflatten(-1, (-1, BLOCK))
    mass = blocks.sum(-1).double()
    block, left = _pass(mass, uniform.to(mass) * mass.sum(-1))
    return block * BLOCK + _pass(blocks[torch.arange(len(blocks), device=block.device), block].double(), left)[0]


def _pass(
    mass: Float[Tensor, "row option"], number: Float[Tensor, " row"]
) -> tuple[Int[Tensor, " row"], Float[Tensor, " row"]]:
    """Return the first option whose running sum of mass passes a number, and what of the number is left for it."""
    upto = mass.cumsum(-1)
    # sums of the same in another order may be a rounding apart; below the whole, some option of mass passes
    number = torch.minimum(number, torch.nextafter(upto[:, -1], torch.zeros_like(number)))
    found = torch.searchsorted(upto, number[:, None], right=True)
    return found[:, 0], (number - (upto - mass).gather(1, found)[:, 0]).clamp(min=0)


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
