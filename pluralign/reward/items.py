"""What makes an item good or bad beyond its features."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpyro
from numpyro import distributions as dist

from pluralign.errors import InputError
from pluralign.reward.judgements import Acts, Layout
from pluralign.reward.scatter import scattered


@dataclass(frozen=True)
class ItemEffects:
    """A quality of its own for every item that was judged, the same for all annotators.

        u[annotator, item] = phi[item] · w[annotator] + quality[item]
        item_spread ~ LogNormal(log(scale / 2), 0.8)
        quality[item, objective] ~ Normal(0, item_spread)

    With repeated items it takes up what the features miss, so that it is neither noise nor, worse, the tastes of those
    who judged it. Of a response that nobody judged the quality is 0 give or take `item_spread`: rewards of new
    responses are those of their features alone.

    Args:
        scale: prior median of the spread of a pair's difference in quality, in logits.
    """

    scale: float = 1.0

    def __post_init__(self):
        if not self.scale > 0:
            raise InputError(f"scale is {self.scale}; a prior scale in logits is positive.")

    def sample(self, layout: Layout) -> Any:
        """Write the model of the items; return `quality[item objective]`."""
        spread = numpyro.sample("item_spread", dist.LogNormal(np.log(self.scale / 2), 0.8))
        with numpyro.plate("item", layout.items, dim=-2), numpyro.plate("objective", layout.objectives, dim=-1):
            # A comparison of a coin tells of a difference in logits with precision 1/4, half as much of either side.
            quality = scattered("quality", 0.0, spread, 0.1 * layout.exposure[:, None])
            return numpyro.deterministic("quality", quality)


def advantage(acts: Acts, quality: Any) -> Any:
    """Return what the items' own quality adds to `Acts.utility`, from `quality[item objective]`."""
    return acts.contrast(quality[acts.item, acts.objective[:, None]])
