"""What online training asks of responses, and what watches that it is not asked too much.

- `total`: the reward of a choice, with everything that stands beside it.
- `terms`, `classifier`: functions, sequence classifiers and single objectives that count, or are limited.
- `duels`: win rates, for rules that know only who prefers what to what.
- `again`: a rule asked again on what the policy writes now.
- `guard`: limits to training, judged by the posterior behind the choice.
"""

from pluralign.policy.rewards.classifier import Classifier
from pluralign.policy.rewards.duels import (
    AbstractOpponents,
    AgainstLottery,
    AgainstReference,
    AgainstWinner,
    Opponents,
    SelfPlay,
)
from pluralign.policy.rewards.guard import Guard, Monitor, Verdict
from pluralign.policy.rewards.terms import Term
from pluralign.policy.rewards.total import Encodes, Rewards, Scored

__all__ = [
    "AbstractOpponents",
    "AgainstLottery",
    "AgainstReference",
    "AgainstWinner",
    "Classifier",
    "Encodes",
    "Guard",
    "Monitor",
    "Opponents",
    "Rewards",
    "Scored",
    "SelfPlay",
    "Term",
    "Verdict",
]
