"""Utilities -> Choice: whose gain counts how much, on which scale, how cautiously.

    utilities = choice.utilities(posterior, phi, scale=choice.StdScale())
    chosen = choice.Nash().choose(utilities, risk=choice.CVaR(tail=0.25), beta=0.1)

Rules need no reward model: `types.Utilities(value, mass, reference)` takes any table of utilities.
"""

from pluralign.choice.agree import Agreement, agreement
from pluralign.choice.build import utilities
from pluralign.choice.risk import AbstractRisk, CVaR, Mean
from pluralign.choice.scale import AbstractScale, GapScale, NoScale, RangeScale, StdScale, rescale
from pluralign.choice.welfare import AbstractRule, AbstractWelfare, Maximin, Nash, Utilitarian

__all__ = [
    "AbstractRisk",
    "AbstractRule",
    "AbstractScale",
    "AbstractWelfare",
    "Agreement",
    "CVaR",
    "GapScale",
    "Maximin",
    "Mean",
    "Nash",
    "NoScale",
    "RangeScale",
    "StdScale",
    "Utilitarian",
    "agreement",
    "rescale",
    "utilities",
]
