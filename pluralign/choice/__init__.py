"""Utilities -> Choice: whose gain counts how much, on which scale, how cautiously.

    utilities = choice.utilities(posterior, phi, scale=choice.StdScale())
    chosen = choice.Nash().choose(utilities, risk=choice.CVaR(tail=0.25), beta=0.1)

Rules need no reward model: `types.Utilities(value, mass, reference)` takes any table of utilities. Ordinal rules take
rankings as well, `choice.Schulze().winners(rankings)`, or margins in batches, `choice.Schulze().from_margins(margins)`.
"""

from pluralign.choice import audit, axioms, draws
from pluralign.choice.agree import Agreement, agreement
from pluralign.choice.build import utilities
from pluralign.choice.cautious import AbstractCaution, LowerBound, LowerTail, cautious
from pluralign.choice.constraint import AbstractConstraint, Bound, Floor
from pluralign.choice.decision import Disagreement, decide, decisions, disagreement
from pluralign.choice.fair import EgalitarianLottery, NashLottery
from pluralign.choice.gain import Gains, gains
from pluralign.choice.game import self_play
from pluralign.choice.leximin import Leximin
from pluralign.choice.linear import LCPO, AbstractLinear, LeximaxPlurality, LinearKemeny
from pluralign.choice.lottery import AbstractLottery, MaximalLottery, RandomDictatorship
from pluralign.choice.met import Met, met
from pluralign.choice.orders import Kemeny, RankedPairs
from pluralign.choice.peers import PrefVoting
from pluralign.choice.ranked import OWA, AbstractRanked, Gini, VoterCVaR
from pluralign.choice.risk import AbstractRisk, CVaR, Ellipsoid, Entropic, Mean, Semideviation, WorstCase
from pluralign.choice.robust import AbstractRobust, ChiSquareRobust, KLRobust, TotalVariationRobust
from pluralign.choice.rule import AbstractRule, AbstractWelfare
from pluralign.choice.scale import AbstractScale, GapScale, NoScale, RangeScale, RankScale, StdScale, rescale
from pluralign.choice.scope import each_prompt
from pluralign.choice.scoring import IRV, Approval, Plurality, Positional
from pluralign.choice.tournament import Black, Borda, Condorcet, Copeland, Minimax, Schulze
from pluralign.choice.voting import AbstractMargins, AbstractVoting
from pluralign.choice.welfare import AlphaFair, KalaiSmorodinsky, Maximin, Nash, NashBargaining, Utilitarian

__all__ = [
    "IRV",
    "LCPO",
    "OWA",
    "AbstractCaution",
    "AbstractConstraint",
    "AbstractLinear",
    "AbstractLottery",
    "AbstractMargins",
    "AbstractRanked",
    "AbstractRisk",
    "AbstractRobust",
    "AbstractRule",
    "AbstractScale",
    "AbstractVoting",
    "AbstractWelfare",
    "Agreement",
    "AlphaFair",
    "Approval",
    "Black",
    "Borda",
    "Bound",
    "CVaR",
    "ChiSquareRobust",
    "Condorcet",
    "Copeland",
    "Disagreement",
    "EgalitarianLottery",
    "Ellipsoid",
    "Entropic",
    "Floor",
    "Gains",
    "GapScale",
    "Gini",
    "KLRobust",
    "KalaiSmorodinsky",
    "Kemeny",
    "LeximaxPlurality",
    "Leximin",
    "LinearKemeny",
    "LowerBound",
    "LowerTail",
    "MaximalLottery",
    "Maximin",
    "Mean",
    "Met",
    "Minimax",
    "Nash",
    "NashBargaining",
    "NashLottery",
    "NoScale",
    "Plurality",
    "Positional",
    "PrefVoting",
    "RandomDictatorship",
    "RangeScale",
    "RankScale",
    "RankedPairs",
    "Schulze",
    "Semideviation",
    "StdScale",
    "TotalVariationRobust",
    "Utilitarian",
    "VoterCVaR",
    "WorstCase",
    "agreement",
    "audit",
    "axioms",
    "cautious",
    "decide",
    "decisions",
    "disagreement",
    "draws",
    "each_prompt",
    "gains",
    "met",
    "rescale",
    "self_play",
    "utilities",
]
