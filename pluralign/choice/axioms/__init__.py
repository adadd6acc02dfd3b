"""Axioms that are checked, not claimed: each returns a small witness that a person can follow, or what it looked at.

    axioms.check(choice.Borda(), rankings)["condorcet-winner"]        # on these ballots
    axioms.card(choice.Schulze())                                     # on many profiles
    axioms.of_reward(scores, utilities), axioms.of_policy(lottery, utilities)    # of what was learned

Definitions follow Brandt, Conitzer, Endriss, Lang and Procaccia (eds.), Handbook of Computational Social Choice (2016).
"""

from pluralign.choice.axioms.axiom import (
    AbstractAxiom,
    AbstractComparing,
    AbstractStanding,
    Change,
    Evidence,
    Finding,
    Violation,
)
from pluralign.choice.axioms.cards import (
    ALL,
    Card,
    approvals,
    card,
    check,
    examine,
    form,
    orders,
    points,
    random_societies,
    table,
    worth,
)
from pluralign.choice.axioms.learned import Pair, PolicyAxioms, RewardAxioms, lottery_of, of_policy, of_reward
from pluralign.choice.axioms.majority import CondorcetLoser, CondorcetWinner, Majority, PairwiseMajority, Pareto, Smith
from pluralign.choice.axioms.outcome import Judge
from pluralign.choice.axioms.response import Monotonicity, StrategyProofness
from pluralign.choice.axioms.shares import Core, PopulationProportionality, ProportionalFairness
from pluralign.choice.axioms.society import Society
from pluralign.choice.axioms.symmetry import Anonymity, Homogeneity, Neutrality, ReversalSymmetry, ScaleInvariance
from pluralign.choice.axioms.textbook import PROFILES, named, profile
from pluralign.choice.axioms.variable import Clones, IrrelevantAlternatives, Participation, Reinforcement

__all__ = [
    "ALL",
    "PROFILES",
    "AbstractAxiom",
    "AbstractComparing",
    "AbstractStanding",
    "Anonymity",
    "Card",
    "Change",
    "Clones",
    "CondorcetLoser",
    "CondorcetWinner",
    "Core",
    "Evidence",
    "Finding",
    "Homogeneity",
    "IrrelevantAlternatives",
    "Judge",
    "Majority",
    "Monotonicity",
    "Neutrality",
    "Pair",
    "PairwiseMajority",
    "Pareto",
    "Participation",
    "PolicyAxioms",
    "PopulationProportionality",
    "ProportionalFairness",
    "Reinforcement",
    "ReversalSymmetry",
    "RewardAxioms",
    "ScaleInvariance",
    "Smith",
    "Society",
    "StrategyProofness",
    "Violation",
    "approvals",
    "card",
    "check",
    "examine",
    "form",
    "lottery_of",
    "named",
    "of_policy",
    "of_reward",
    "orders",
    "points",
    "profile",
    "random_societies",
    "table",
    "worth",
]
