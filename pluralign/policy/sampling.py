"""Responses written by a model, with or without an adapter."""

from collections.abc import Sequence
from pathlib import Path

import torch
from peft import PeftModel
from transformers import GenerationConfig

from pluralign.errors import InputError
from pluralign.policy.models import Pretrained, bar, quiet


def sample(
    model: str | Path | Pretrained,
    prompts: Sequence[str],
    n: int = 4,
    max_tokens: int = 64,
    temperature: float = 1.0,
    seed: int = 0,
    adapter: str | Path | None = None,
    batch: int = 32,
    max_prompt_tokens: int = 128,
) -> list[list[str]]:
    """Return `n` responses to each prompt, drawn from `pi(y | x)^(1 / temperature)` token by token.

    Nothing but the temperature bends the distribution: no top-k, no nucleus, no penalty, whatever the model's
    generation config says. The same arguments give the same texts on the same machine.

    Args:
        model: hub name, folder, or `Pretrained`; a `Scratch` model is made first by `resolve`.
        prompts: as text.
        n: responses per prompt.
        max_tokens: of a response.
        temperature: 0 = always the most probable token.
        seed: of sampling.
        adapter: folder of a LoRA adapter; None = the base model.
        batch: responses that are written at once.
        max_prompt_tokens: longer prompts lose words from their start, as in training.

    Raises:
        InputError: a number is out of range, or the model or the adapter is not there.
    """
    for name, value, least in (
        ("n", n, 1),
        ("max_tokens", max_tokens, 1),
        ("batch", batch, 1),
        ("temperature", temperature, 0),
    ):
        if value < least:
            raise InputError(f"{name} is {value}; it must be at least {least}.")
    base = model if isinstance(model, Pretrained) else Pretrained(str(model))
    if adapter is not None and not (Path(adapter) / "adapter_config.json").is_file():
        raise InputError(f"{adapter} holds no adapter (adapter_config.json is missing); was its training finished?")
    network, form = base.load()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    options = (
        {"do_sample": True, "temperature": temperature, "top_k": 0, "top_p": 1.0}
        if temperature
        else {"do_sample": False}
    )
    padding = form.tokenizer.pad_token_id
    config = GenerationConfig(
        max_new_tokens=max_tokens,
        eos_token_id=list(form.stops),
        pad_token_id=form.stops[0] if padding is None else padding,
        **options,
    )
    asked = [form.prompt(text, max_prompt_tokens) for text in prompts]
    rows = [i for i in range(len(asked)) for _ in range(n)]
    written: list[list[str]] = [[] for _ in asked]
    with torch.random.fork_rng(), torch.inference_mode(), bar("samples", len(rows)) as advance:
        if adapter is not None:
            with quiet():
                network = PeftModel.from_pretrained(network, str(adapter)).eval()
        network = network.to(device)
        torch.manual_seed(seed)
        for start in range(0, len(rows), batch):
            group = rows[start : start + batch]
            width = max(len(asked[i]) for i in group)
            padded = [(0,) * (width - len(asked[i])) + asked[i] for i in group]
            mask = [(0,) * (width - len(asked[i])) + (1,) * len(asked[i]) for i in group]
            output = network.generate(
                input_ids=torch.tensor(padded, device=device),
                attention_mask=torch.tensor(mask, device=device),
                generation_config=config,
            )
            for i, ids in zip(group, output[:, width:].tolist(), strict=True):
                stop = next((k for k, token in enumerate(ids) if token in form.stops), len(ids))
                written[i].append(form.text(ids[:stop]))
            advance(len(group))
    return written
