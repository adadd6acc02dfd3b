"""Responses written by a model, with or without an adapter."""

from collections.abc import Sequence
from pathlib import Path

import torch
from peft import PeftModel

from pluralign.errors import InputError
from pluralign.policy import rollout
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
    asked = [form.prompt(text, max_prompt_tokens) for text in prompts]
    with bar("samples", len(asked) * n) as advance:
        if adapter is not None:
            with quiet():
                network = PeftModel.from_pretrained(network, str(adapter)).eval()
        device = "cuda" if torch.cuda.is_available() else "cpu"
        network = network if network.device.type == device else network.to(device)  # quantised, it may not be moved
        generator = torch.Generator().manual_seed(seed)
        written = rollout.write(network, form, asked, n, max_tokens, temperature, generator, batch, advance)
    return [[form.read(row) for row in rows] for rows in written]
