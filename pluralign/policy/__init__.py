"""From a choice to a LoRA adapter: the rule's lottery becomes what a language model writes."""

from pluralign.policy import losses
from pluralign.policy.adapt import Lora
from pluralign.policy.dpo import DPO
from pluralign.policy.models import AbstractModel, Pretrained, Scratch, resolve
from pluralign.policy.sampling import sample
from pluralign.policy.training import Loop

__all__ = ["DPO", "AbstractModel", "Loop", "Lora", "Pretrained", "Scratch", "losses", "resolve", "sample"]
