"""What is assumed of the people behind the judgements: a new population is one frozen dataclass and a line here."""

from typing import Annotated

from pydantic import Field

from pluralign.reward.population.base import OWN, AbstractPopulation, Target, Voters
from pluralign.reward.population.hierarchical import Hierarchical
from pluralign.reward.population.low_rank import LowRank
from pluralign.reward.population.mixture import Mixture
from pluralign.reward.population.pooled import Pooled

Population = Annotated[Pooled | Hierarchical | Mixture | LowRank, Field(discriminator="kind")]

__all__ = [
    "OWN",
    "AbstractPopulation",
    "Hierarchical",
    "LowRank",
    "Mixture",
    "Pooled",
    "Population",
    "Target",
    "Voters",
]
