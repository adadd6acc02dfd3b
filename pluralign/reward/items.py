"""What makes an item good or bad beyond its features."""

from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp
import numpy as np
import numpyro
from numpyro import distributions as dist

from pluralign.errors import InputError
from pluralign.reward.judgements import Acts, Layout
from pluralign.reward.scatter import scattered
from pluralign.reward.turn import turned


@dataclass(frozen=True)
class ItemEffects:
    """A quality of its own for every item that was judged, the same for all annotators, or seen differently by each.

        u[annotator, item] = phi[item] · w[annotator] + quality[item] + sum_k place[annotator, k] item_factor[item, k]
        item_spread ~ LogNormal(log(scale / 2), 0.8)
        quality[item, objective] ~ Normal(0, item_spread)
        factor_spread ~ LogNormal(log(scale / 4), 0.8), item_factor[item, objective, k] ~ Normal(0, factor_spread)
        place[annotator, k] ~ Normal(0, 1)

    With repeated items it takes up what the features miss, so that it is neither noise nor, worse, the tastes of those
    who judged it. Of a response that nobody judged the quality is 0 give or take `item_spread`: rewards of new
    responses are those of their features alone. The factors are those of matrix factorisation (Salakhutdinov and Mnih
    2008), for items that annotators see differently for reasons that no feature knows; they are known up to a rotation.

    Args:
        scale: prior median of the spread of a pair's difference in quality, in logits.
        factors: along how many directions annotators may differ about items; only where annotators are voters.
    """

    scale: float = 1.0
    factors: int = 0

    def __post_init__(self):
        if not self.scale > 0:
            raise InputError(f"scale is {self.scale}; a prior scale in logits is positive.")
        if self.factors < 0:
            raise InputError(f"factors is {self.factors}; it is a number of directions, 0 for none.")

    def sample(self, layout: Layout) -> dict[str, Any]:
        """Write the model of the items; return `quality[item objective]`, and with factors these and the places."""
        spread = numpyro.sample("item_spread", dist.LogNormal(np.log(self.scale / 2), 0.8))
        item, objective = numpyro.plate("item", layout.items, dim=-2), numpyro.plate("asked", layout.objectives, dim=-1)
        with item, objective:
            # A comparison of a coin tells of a difference in logits with precision 1/4, half as much of either side.
            quality = scattered("quality", 0.0, spread, 0.1 * layout.exposure[:, None])
            quality = numpyro.deterministic("quality", quality)
        if not self.factors:
            return {"quality": quality}
        spread = numpyro.sample("factor_spread", dist.LogNormal(np.log(self.scale / 4), 0.8))
        shape = [layout.items, layout.objectives, self.factors]
        told = jnp.broadcast_to(0.1 * layout.exposure[:, None, None], shape)
        with numpyro.plate_stack("items", shape):
            factor = numpyro.deterministic("item_factor", scattered("item_factor", 0.0, spread, told))
        with numpyro.plate("annotator", layout.annotators, dim=-2), numpyro.plate("factor", self.factors, dim=-1):
            place = numpyro.deterministic("place", numpyro.sample("place_of_items_z", dist.Normal(0, 1)))
        return {"quality": quality, "factor": factor, "place": place}

    def canonical(self, sites: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Return draws `[chain draw ...]` whose factors are turned towards their mean, and the places with them."""
        if not self.factors:
            return sites
        factor, place = sites["item_factor"], sites["place"]
        flat = np.moveaxis(factor.reshape(-1, *factor.shape[2:]), -1, 1).astype(np.float64)
        turn = turned(flat.reshape(*flat.shape[:2], -1))
        lead = factor.shape[:2]
        turn = turn.reshape(*lead, *turn.shape[1:])
        found = np.einsum("cskj,csioj->csiok", turn, factor), np.einsum("cskj,csaj->csak", turn, place)
        return sites | dict(zip(("item_factor", "place"), (f.astype(np.float32) for f in found), strict=True))


def advantage(acts: Acts, items: dict[str, Any]) -> Any:
    """Return what items are worth beyond their features, in the shape of `Acts.utility`, from `ItemEffects.sample`."""
    at = (acts.item, acts.objective[:, None])
    worth = items["quality"][at]
    if "factor" in items:
        worth = worth + jnp.einsum("ask,ak->as", items["factor"][at], acts.each(items["place"]))
    return acts.contrast(worth)
