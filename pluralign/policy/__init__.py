"""From a choice to a LoRA adapter: the rule's lottery becomes what a language model writes."""

from pluralign.policy import losses
from pluralign.policy.adapt import Lora
from pluralign.policy.dpo import DPO
from pluralign.policy.guard import Guard
from pluralign.policy.labels import FromPosterior, FromRule, FromVotes
from pluralign.policy.models import AbstractModel, Pretrained, Scratch, resolve
from pluralign.policy.online import Critic, LeaveOneOut, Normalised
from pluralign.policy.ppo import PPO
from pluralign.policy.reweigh import GroupRobust, MaxMin
from pluralign.policy.sampling import sample
from pluralign.policy.terms import Term
from pluralign.policy.training import Loop

__all__ = [
    "DPO",
    "PPO",
    "AbstractModel",
    "Critic",
    "FromPosterior",
    "FromRule",
    "FromVotes",
    "GroupRobust",
    "Guard",
    "LeaveOneOut",
    "Loop",
    "Lora",
    "MaxMin",
    "Normalised",
    "Pretrained",
    "Scratch",
    "Term",
    "losses",
    "resolve",
    "sample",
]
