"""Texts to pooled hidden states: tokens, batches, one forward pass each."""

import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Shaped
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from transformers import AutoModel, AutoTokenizer
from transformers.utils import logging

from pluralign.errors import InputError


class Sequenced(NamedTuple):
    """One text as the model reads it; tokens `start..stop` are pooled, those from `second` on are segment 1."""

    ids: list[int]
    start: int
    stop: int
    second: int
    cut_prompt: bool
    cut_response: bool


def pooled(
    pairs: Sequence[tuple[str, str]],
    *,
    model: str,
    revision: str,
    gguf_file: str | None,
    last: bool,
    context: bool,
    max_tokens: int,
    batch_tokens: int,
    device: str | None,
    adapter: Path | None,
    more: bool,
) -> dict[str, Shaped[np.ndarray, "item *_"]]:
    """Return normalised pooled states (`states`) and counts per text.

    Raises:
        InputError: the model cannot be loaded or has no plain sequence of states, or a state is not finite.
    """
    tokenizer, network, _ = (kept if more else ready)(model, revision, gguf_file, AutoModel, adapter, device)
    sequences = sequenced(tokenizer, pairs, context=context, limit=limit(tokenizer, network, max_tokens))
    pad, segments = padding(tokenizer)
    order: list[int] = []
    blocks: list[np.ndarray] = []
    with torch.inference_mode(), bar(f"Encoding texts with {Path(model).name}", len(pairs)) as advance:
        for rows in _batches([len(s.ids) for s in sequences], batch_tokens):
            batch = [sequences[row] for row in rows]
            order += rows
            blocks.append(forward(network, batch, pad, segments, last).numpy(force=True))
            advance(len(rows))
    states = np.concatenate(blocks)[np.argsort(order)]
    broken = ~np.isfinite(states).all(1)
    if broken.any():
        text = pairs[int(broken.argmax())][1]
        raise InputError(f"{model} gives states that are not finite for {text[:80]!r}; are its weights damaged?")
    return {
        "states": states,
        "tokens": np.array([len(s.ids) for s in sequences]),
        "truncated_prompts": np.array([s.cut_prompt for s in sequences]),
        "truncated_responses": np.array([s.cut_response for s in sequences]),
    }


def ready(
    model: str, revision: str, gguf_file: str | None, kind: Any, adapter: Path | None, device: str | None
) -> tuple[Any, Any, set[str]]:
    """Return what `load` does, with an adapter on it, where it is to read; nobody may change it."""
    tokenizer, network, missing = load(model, revision, gguf_file, kind)
    if adapter is not None:
        from peft import PeftModel

        with torch.random.fork_rng(), quiet():  # peft draws first values before it reads the true ones
            network = PeftModel.from_pretrained(network, str(adapter))
    where = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    return tokenizer, network.eval().to(where), missing


# Texts that come batch after batch, such as those of a policy in training, find the model as the last batch left it.
kept = lru_cache(maxsize=1)(ready)


def load(model: str, revision: str, gguf_file: str | None, kind: Any) -> tuple[Any, Any, set[str]]:
    """Return a tokenizer, a model of this automatic class of transformers, and the names of weights it lacks.

    Raises:
        InputError: it cannot be loaded, or is an encoder-decoder.
    """
    folder = Path(model).expanduser()
    source, options = (str(folder), {}) if folder.is_dir() else (model, {"revision": revision})
    if gguf_file:
        options["gguf_file"] = gguf_file
    bars = logging.is_progress_bar_enabled()
    if not sys.stderr.isatty():
        logging.disable_progress_bar()
    try:
        tokenizer = AutoTokenizer.from_pretrained(source, **options)
        network, told = kind.from_pretrained(source, dtype=torch.float32, output_loading_info=True, **options)
    except (OSError, ValueError, ImportError) as error:
        raise InputError(
            f"{model} cannot be loaded as a transformers model with its tokenizer: {str(error).strip().splitlines()[0]}"
        ) from error
    finally:
        if bars:
            logging.enable_progress_bar()
    if network.config.is_encoder_decoder:
        raise InputError(f"{model} is an encoder-decoder; pooling needs an encoder or a causal language model.")
    return tokenizer, network, set(told["missing_keys"])


def limit(tokenizer: Any, network: Any, max_tokens: int) -> int:
    """Return the length of the longest sequence that may be read."""
    longest = getattr(network.config, "max_position_embeddings", None) or max_tokens
    return min(max_tokens, longest, tokenizer.model_max_length)


def padding(tokenizer: Any) -> tuple[int, bool]:
    """Return the token to pad with, and whether the model is told of segments.

    Padding goes to the right whatever the tokenizer prefers: then positions count from 0 in every model, the causal
    mask alone keeps padding from the states, and nothing has to know about sides.
    """
    pad = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else 0
    return pad, "token_type_ids" in tokenizer.model_input_names


@contextmanager
def quiet() -> Iterator[None]:
    """Keep a note of transformers to peft from our users: peft 0.21 asks for a property by its old name."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".is_gradient_checkpointing. is deprecated", FutureWarning)
        yield


@contextmanager
def bar(title: str, total: int) -> Iterator[Callable[[int], None]]:
    """Show a progress bar on a terminal, nothing elsewhere; yields how to advance it."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), disable=not sys.stderr.isatty()) as progress:
        task = progress.add_task(title, total=total)
        yield lambda n: progress.advance(task, n)


def sequenced(tokenizer: Any, pairs: Sequence[tuple[str, str]], *, context: bool, limit: int) -> list[Sequenced]:
    """Tokenise prompt and response apart, so that it is certain which tokens are the response's."""

    def tokens(texts: Sequence[str]) -> dict[str, list[int]]:
        distinct = sorted(set(texts))
        ids = tokenizer(distinct, add_special_tokens=False, verbose=False)["input_ids"] if distinct else []
        return dict(zip(distinct, ids, strict=True))

    encoder = tokenizer.cls_token_id is not None
    head, middle, tail = _frame(tokenizer)
    question = {prompt: prompt for prompt, _ in pairs}
    if context and tokenizer.chat_template:
        head, middle, tail = [], [], []  # the template brings its own
        for prompt in question:
            turn = [{"role": "user", "content": prompt}]
            question[prompt] = tokenizer.apply_chat_template(turn, tokenize=False, add_generation_prompt=True)
    if not (context and encoder):
        middle = []
    before = tokens(list(question.values())) if context else {}
    after = tokens([response for _, response in pairs])
    room = limit - len(head) - len(middle) - len(tail)
    if room < 1:
        raise InputError(f"max_tokens leaves no room: the model reads {limit} tokens, special ones included.")

    sequences = []
    for prompt, response in pairs:
        kept = after[response][:room]
        asked = before[question[prompt]] if context else []
        cut = max(0, len(asked) + len(kept) - room)
        opening = [*head, *asked[cut:], *middle]
        ids = [*opening, *kept, *tail]
        if not ids:  # an empty text, and a tokenizer that adds nothing: some token must stand for it
            ids = [next(t for t in (tokenizer.bos_token_id, tokenizer.eos_token_id, 0) if t is not None)]
        if context:
            start, stop = len(opening), len(opening) + len(kept)
        else:
            start, stop = 0 if encoder else len(head), len(ids)
        if start >= stop:  # nothing to pool: the state just before the response
            start, stop = max(0, start - 1), max(1, start)
        second = len(opening) if context else len(ids)
        sequences.append(Sequenced(ids, start, stop, second, cut > 0, len(kept) < len(after[response])))
    return sequences


def _frame(tokenizer: Any) -> tuple[list[int], list[int], list[int]]:
    """Return the special tokens that the tokenizer puts before, between and after two texts."""

    def special(*texts: str) -> tuple[list[int], list[int]]:
        out = tokenizer(*texts, return_special_tokens_mask=True)
        return out["input_ids"], out["special_tokens_mask"]

    ids, mask = special("a")
    plain = [i for i, m in enumerate(mask) if not m]
    head, tail = (ids[: plain[0]], ids[plain[-1] + 1 :]) if plain else (ids, [])
    ids, mask = special("a", "a")
    inner = [i for i, m in zip(ids, mask, strict=True) if m]
    return head, inner[len(head) : len(inner) - len(tail)], tail


def _batches(lengths: list[int], batch_tokens: int) -> Iterator[list[int]]:
    """Pack rows of like length; the longest first, so that a batch too large for memory fails at once."""
    rows: list[int] = []
    for row in sorted(range(len(lengths)), key=lambda row: -lengths[row]):
        if rows and (len(rows) + 1) * lengths[rows[0]] > batch_tokens:
            yield rows
            rows = []
        rows.append(row)
    if rows:
        yield rows


def forward(
    network: Any, batch: Sequence[Sequenced], pad: int, segments: bool, last: bool
) -> Float[torch.Tensor, "row hidden"]:
    """Return `h / |h|` with `h` the pooled last hidden state."""
    shape = len(batch), max(len(s.ids) for s in batch)
    ids = torch.full(shape, pad)
    counts, pool, segment = torch.zeros(shape, dtype=torch.long), torch.zeros(shape), torch.zeros_like(ids)
    for row, s in enumerate(batch):
        ids[row, : len(s.ids)] = torch.tensor(s.ids)
        counts[row, : len(s.ids)] = 1
        segment[row, s.second : len(s.ids)] = 1
        start = s.stop - 1 if last else s.start
        pool[row, start : s.stop] = 1 / (s.stop - start)
    inputs = {"input_ids": ids, "attention_mask": counts}
    if segments:
        inputs["token_type_ids"] = segment
    where = network.device
    hidden = network(**{name: value.to(where) for name, value in inputs.items()}).last_hidden_state
    return torch.nn.functional.normalize(torch.einsum("rt,rth->rh", pool.to(where), hidden), dim=-1)
