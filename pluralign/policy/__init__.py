"""From a choice to a LoRA adapter: the rule's lottery becomes what a language model writes.

- `dpo`, `ppo`: the two loops; what they share is in `training`, their formulas in `losses`.
- `rewards`: what online training asks of responses; `steering`: what can be had without training.
"""

from pluralign.policy import losses
from pluralign.policy.adapt import Lora
from pluralign.policy.dpo import DPO
from pluralign.policy.labels import FromPosterior, FromRule, FromVotes
from pluralign.policy.losses import Critic, LeaveOneOut, Normalised
from pluralign.policy.models import AbstractModel, Pretrained, Scratch, resolve
from pluralign.policy.ppo import PPO
from pluralign.policy.rewards import Classifier, Guard, Monitor, Rewards, Term
from pluralign.policy.reweigh import GroupRobust, MaxMin
from pluralign.policy.sampling import sample
from pluralign.policy.steering import Front, best_of, rejection, soup, taste
from pluralign.policy.training import Loop

__all__ = [
    "DPO",
    "PPO",
    "AbstractModel",
    "Classifier",
    "Critic",
    "FromPosterior",
    "FromRule",
    "FromVotes",
    "Front",
    "GroupRobust",
    "Guard",
    "LeaveOneOut",
    "Loop",
    "Lora",
    "MaxMin",
    "Monitor",
    "Normalised",
    "Pretrained",
    "Rewards",
    "Scratch",
    "Term",
    "best_of",
    "losses",
    "rejection",
    "resolve",
    "sample",
    "soup",
    "taste",
]
