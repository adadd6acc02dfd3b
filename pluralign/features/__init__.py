"""Texts to features: what rewards are linear in."""

from pluralign.features.base import AbstractFeatureMap, AbstractLinearMap, Basis, Reading
from pluralign.features.combine import Concatenate, RandomFourier, judged
from pluralign.features.encoder import Encoder
from pluralign.features.finetuned import FineTuned
from pluralign.features.items import Items
from pluralign.features.lexicon import Lexicon
from pluralign.features.scorers import Classifier, Scorers

__all__ = [
    "AbstractFeatureMap",
    "AbstractLinearMap",
    "Basis",
    "Classifier",
    "Concatenate",
    "Encoder",
    "FineTuned",
    "Items",
    "Lexicon",
    "RandomFourier",
    "Reading",
    "Scorers",
    "judged",
]
