"""From judgements and features to a posterior of what every voter wants; jax and numpyro live in this room alone."""

from pluralign.reward.calibrate import Calibration, calibrate
from pluralign.reward.checks import criticise
from pluralign.reward.comparison import AbstractComparison, Davidson, GradedComparison, RaoKupper, Thurstone
from pluralign.reward.em import VariationalEM
from pluralign.reward.export import to_arviz
from pluralign.reward.gibbs import Gibbs
from pluralign.reward.inference import NUTS, SVI, AbstractInference
from pluralign.reward.items import ItemEffects
from pluralign.reward.laplace import Laplace
from pluralign.reward.newcomer import adapt, newcomer
from pluralign.reward.population import AbstractPopulation, Hierarchical, LowRank, Mixture, Pooled, Population, Voters
from pluralign.reward.prediction import constant, log_likelihood, log_predictive, predict, score
from pluralign.reward.reliability import Reliability, reliability
from pluralign.reward.response import PLAIN, OrderedLogit, PlackettLuce, Rater, Response, ThreeWay
from pluralign.reward.uncertainty import Decomposition, decompose, hidden_context, leverage

__all__ = [
    "NUTS",
    "PLAIN",
    "SVI",
    "AbstractComparison",
    "AbstractInference",
    "AbstractPopulation",
    "Calibration",
    "Davidson",
    "Decomposition",
    "Gibbs",
    "GradedComparison",
    "Hierarchical",
    "ItemEffects",
    "Laplace",
    "LowRank",
    "Mixture",
    "OrderedLogit",
    "PlackettLuce",
    "Pooled",
    "Population",
    "RaoKupper",
    "Rater",
    "Reliability",
    "Response",
    "ThreeWay",
    "Thurstone",
    "VariationalEM",
    "Voters",
    "adapt",
    "calibrate",
    "constant",
    "criticise",
    "decompose",
    "hidden_context",
    "leverage",
    "log_likelihood",
    "log_predictive",
    "newcomer",
    "predict",
    "reliability",
    "score",
    "to_arviz",
]
