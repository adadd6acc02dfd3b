"""Steering without retraining: choosing among what a model writes, and merging what was trained apart.

- `selecting`: best of n and rejection sampling, with what they cost in divergence.
- `merging`: one adapter out of several, by weights, and the weights that a rule prefers.
- `pareto`: which policies nobody improves on for every group at once, and their hypervolume.
"""

from pluralign.policy.steering.merging import Soup, Tasted, soup, taste
from pluralign.policy.steering.pareto import Front, hypervolume, on_front
from pluralign.policy.steering.selecting import (
    Accepted,
    Best,
    BestOfCurve,
    best_of,
    best_of_curve,
    best_of_kl,
    best_of_lottery,
    best_of_value,
    rejection,
)

__all__ = [
    "Accepted",
    "Best",
    "BestOfCurve",
    "Front",
    "Soup",
    "Tasted",
    "best_of",
    "best_of_curve",
    "best_of_kl",
    "best_of_lottery",
    "best_of_value",
    "hypervolume",
    "on_front",
    "rejection",
    "soup",
    "taste",
]
