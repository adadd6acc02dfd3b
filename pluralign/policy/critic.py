"""The value head of a critic: made, written beside an adapter, and found again."""

from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from pluralign.errors import InputError


def value_head(width: int) -> torch.nn.Linear:
    """Return a critic that expects nothing yet."""
    head = torch.nn.Linear(width, 1)
    torch.nn.init.zeros_(head.weight)
    torch.nn.init.zeros_(head.bias)
    return head


def save_head(head: torch.nn.Linear, folder: Path) -> None:
    """Write a critic beside an adapter, as `value_head.safetensors`."""
    state = {name: p.detach().cpu().contiguous() for name, p in head.state_dict().items()}
    save_file(state, folder / "value_head.safetensors")


def load_head(folder: str | Path) -> torch.nn.Linear:
    """Return the critic that was kept with an adapter.

    Raises:
        InputError: there is none.
    """
    file = Path(folder) / "value_head.safetensors"
    if not file.is_file():
        raise InputError(f"{folder} holds no value head; it is written where the baseline was a critic.")
    state = load_file(file)
    head = value_head(state["weight"].shape[1])
    head.load_state_dict(state)
    return head
