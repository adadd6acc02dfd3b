"""The formulas of policy training, each written once; loops only compose them.

- `tokens`: log-probabilities of tokens and responses (`kernel` has the same for models whose logits need not be kept).
- `link`: how a log-ratio `log(pi / pi_ref)` is read as a reward, and with it which divergence holds the policy back.
- `slate`: what is asked of the candidates of a prompt, and the distillation of a lottery over them.
- `pair`: DPO, cDPO, rDPO, IPO and MODPO's margin, and the loss that holds a slate's level.
- `online`: PPO's clipped loss, baselines with GAE, the critic's loss, the divergence and its price.
"""

from pluralign.policy.losses.link import AbstractLink, ChiSquare, Link, LogRatio
from pluralign.policy.losses.online import (
    AbstractBaseline,
    Baseline,
    Critic,
    LeaveOneOut,
    Normalised,
    clipped,
    explained,
    gae,
    kl_estimates,
    left,
    price,
    value_loss,
)
from pluralign.policy.losses.pair import (
    AbstractPairLoss,
    Logistic,
    Robust,
    Square,
    dpo,
    label_entropy,
    level,
    soft_label,
)
from pluralign.policy.losses.slate import AbstractLoss, Distil, Wanted, agreement, drift, slate_kl, slate_mass
from pluralign.policy.losses.tokens import sequence_log_probs, token_log_probs

Loss = Logistic | Robust | Square | Distil

__all__ = [
    "AbstractBaseline",
    "AbstractLink",
    "AbstractLoss",
    "AbstractPairLoss",
    "Baseline",
    "ChiSquare",
    "Critic",
    "Distil",
    "LeaveOneOut",
    "Link",
    "LogRatio",
    "Logistic",
    "Loss",
    "Normalised",
    "Robust",
    "Square",
    "Wanted",
    "agreement",
    "clipped",
    "dpo",
    "drift",
    "explained",
    "gae",
    "kl_estimates",
    "label_entropy",
    "left",
    "level",
    "price",
    "sequence_log_probs",
    "slate_kl",
    "slate_mass",
    "soft_label",
    "token_log_probs",
    "value_loss",
]
