"""Low-rank adapters: what is trained, and how it is written."""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from transformers.modeling_layers import GradientCheckpointingLayer

from pluralign.errors import InputError
from pluralign.policy.models import quiet
from pluralign.policy.text import Format


@dataclass(frozen=True)
class Lora:
    """Low-rank adaptation (Hu et al. 2021): `W + (alpha / rank) B A`, with B zero before the first step.

    Args:
        rank: of the matrices.
        alpha: updates are scaled by `alpha / rank`.
        targets: names of the linear layers that get an adapter; null = all but the output layer.
        dropout: on the input of the adapter, in [0, 1).
        checkpointing: whether activations are computed again for the gradient instead of being kept; a third more
            time for much less memory, and the same numbers.
    """

    rank: int = 8
    alpha: float = 16.0
    targets: tuple[str, ...] | None = ("q_proj", "v_proj")
    dropout: float = 0.0
    checkpointing: bool = False
    kind: Literal["lora"] = "lora"

    def __post_init__(self):
        for name in ("rank", "alpha"):
            if not getattr(self, name) > 0:
                raise InputError(f"lora.{name} is {getattr(self, name)}; it must be above 0.")
        if not 0 <= self.dropout < 1:
            raise InputError(f"lora.dropout is {self.dropout}; it lies in [0, 1).")

    def attach(self, network: Any) -> PeftModel:
        """Return a network with a fresh adapter, which is all that trains, and does nothing yet.

        Raises:
            InputError: the network has no such layers.
        """
        config = LoraConfig(
            task_type="CAUSAL_LM",
            r=self.rank,
            lora_alpha=self.alpha,  # pyright: ignore[reportArgumentType]
            lora_dropout=self.dropout,
            target_modules=list(self.targets) if self.targets is not None else "all-linear",
        )
        names = sorted({name.split(".")[-1] for name, m in network.named_modules() if isinstance(m, torch.nn.Linear)})
        if self.checkpointing:
            # transformers before 5.23 knows it by the older name, which later ones warn of
            name = "activation_checkpointing_enable"
            getattr(network, name, network.gradient_checkpointing_enable)({"use_reentrant": False})
        try:
            with quiet():
                model = get_peft_model(network, config)
        except ValueError as error:
            raise InputError(
                f"peft refuses targets {self.targets}: {error}. The model's linear layers are {names}."
            ) from error
        return model.eval()  # pyright: ignore[reportReturnType]


@contextlib.contextmanager
def learning(model: torch.nn.Module) -> Iterator[None]:
    """Switch on what only a pass with gradients has: the adapter's dropout, and forgetting of activations.

    The model's own dropout stays off, so that before the first step the policy is exactly the reference.
    """
    for name, module in model.named_modules():
        if "lora_dropout" in name or isinstance(module, GradientCheckpointingLayer):
            module.training = True  # this module's own mark, not its parts'
    try:
        yield
    finally:
        model.eval()


def write(model: PeftModel, form: Format, path: Path, state: dict[str, Any] | None = None) -> None:
    """Write an adapter with its tokenizer to a folder that plain peft loads."""
    model.save_pretrained(str(path), save_embedding_layers=False, state_dict=state)
    form.tokenizer.save_pretrained(path)
