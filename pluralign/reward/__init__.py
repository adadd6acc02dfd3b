"""From judgements and features to a posterior of what every voter wants; jax and numpyro live in this room alone."""

from pluralign.reward.inference import NUTS, SVI, AbstractInference
from pluralign.reward.population import AbstractPopulation, Hierarchical, Pooled, Voters
from pluralign.reward.prediction import constant, predict, score
from pluralign.reward.response import Davidson

__all__ = [
    "NUTS",
    "SVI",
    "AbstractInference",
    "AbstractPopulation",
    "Davidson",
    "Hierarchical",
    "Pooled",
    "Voters",
    "constant",
    "predict",
    "score",
]
