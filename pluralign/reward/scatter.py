"""Normal scatter about a centre, in coordinates in which chains mix."""

from typing import Any

import jax.numpy as jnp
import numpyro
from numpyro import distributions as dist


def scattered(name: str, centre: Any, spread: Any, information: Any) -> Any:
    """Sample `value ~ Normal(centre, spread)`, one per member of the enclosing plates, partially centred.

    The chain moves `z = (value - (1 - c) centre) / sd` with

        c = information spread^2 / (1 + information spread^2)
        sd = (information + 1 / spread^2)^(-1/2)

    `sd` and `c` are the posterior sd and the weight of the data if the member's own data told of `value` with precision
    `information`, so `z` has about unit scale in the posterior whatever `spread` is: centred for members with much
    data, not centred for those with little. The model is the same for every `information` (Papaspiliopoulos, Roberts
    and Sköld 2007; Gorinova, Moore and Hoffman 2020 have `spread^(1 - c)` in place of `sd`, which depends on units).

    Args:
        name: of the site.
        centre: mean.
        spread: standard deviation.
        information: precision of what a member's own data tell of its value, roughly.
    """
    c = information * spread**2 / (1 + information * spread**2)
    sd = (information + 1 / spread**2) ** -0.5
    z = numpyro.sample(f"{name}_z", dist.Normal(c * centre / sd, spread / sd))
    return numpyro.deterministic(name, jnp.asarray((1 - c) * centre + sd * z))
