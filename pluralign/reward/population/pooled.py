"""Everyone wants the same."""

from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import numpyro
from numpyro import distributions as dist

from pluralign.reward.inference import Draws
from pluralign.reward.items import ItemEffects
from pluralign.reward.judgements import Layout
from pluralign.reward.noise import Noise
from pluralign.reward.population.base import (
    TOLD,
    AbstractPopulation,
    Law,
    Voters,
    check_no_factors,
    check_scale,
    sample_centre,
)
from pluralign.reward.response import Response
from pluralign.types import Feedback


@dataclass(frozen=True)
class Pooled(AbstractPopulation):
    """Everyone wants the same: one weight vector, one voter.

        spread ~ LogNormal(log scale, 0.8)
        w[objective, feature] ~ Normal(0, spread), or Laplace(0, spread)

    With `response=reward.PLAIN` it is the pooled Bradley-Terry model that most pipelines fit, with a prior in place of
    a penalty.

    Args:
        scale: prior median of the spread of a typical pair's utility differences, in logits.
        response: how utilities become outcomes.
        items: what an item is worth beyond its features; none: nothing.
        centre: law of the prior: `laplace` for interpretable features of which a few matter.
    """

    scale: float = 1.0
    response: Response = field(default_factory=Response)
    items: ItemEffects | None = None
    centre: Law = "normal"
    kind: Literal["pooled"] = "pooled"

    def __post_init__(self):
        check_scale(self.scale)
        check_no_factors(self.items)

    def model(self, layout: Layout) -> None:
        """Write the numpyro model."""
        spread = numpyro.sample("spread", dist.LogNormal(np.log(self.scale), 0.8))
        centre = sample_centre(layout, self.centre, spread, TOLD * layout.information.sum(0))
        numpyro.factor("said", self._said(layout, lambda acts: acts.shared(centre)).sum())

    def latents(self, objectives: int, features: int) -> int:
        """Return 0: all are alike."""
        return 0

    def person(self, common: Noise, z: Any) -> Any:
        """Return the weights that everybody has."""
        return common["centre"]

    def voters(self, sites: Draws, votes: Feedback) -> Voters:
        """Return the one voter, to whom every annotator belongs."""
        return Voters(sites["centre"][:, None], np.ones(1), ("everyone",), np.ones((len(votes.annotators), 1)))
