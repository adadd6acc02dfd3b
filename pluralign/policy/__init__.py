"""From a choice to a LoRA adapter: the rule's lottery becomes what a language model writes."""

from pluralign.policy import losses
from pluralign.policy.dpo import DPO
from pluralign.policy.models import AbstractModel, Pretrained, Scratch, resolve
from pluralign.policy.sampling import sample

__all__ = ["DPO", "AbstractModel", "Pretrained", "Scratch", "losses", "resolve", "sample"]
