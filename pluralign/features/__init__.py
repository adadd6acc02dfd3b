"""Texts to features: what rewards are linear in."""

from pluralign.features.base import AbstractFeatureMap, Basis, Reading
from pluralign.features.encoder import Encoder
from pluralign.features.lexicon import Lexicon

__all__ = ["AbstractFeatureMap", "Basis", "Encoder", "Lexicon", "Reading"]
