"""Normal scatter about a centre, in coordinates in which chains mix."""

from typing import Any

import numpyro
from numpyro import distributions as dist


def scattered(name: str, centre: Any, spread: Any, information: Any) -> Any:
    """Return `value ~ Normal(centre, spread)`, one per member of the enclosing plates, partially centred.

    The chain moves

        z = (value - centre) (information + 1 / spread^2)^(1/2)

    If a member's own data told of its value with precision `information`, the root would be one over its posterior sd,
    so `z` has about unit scale in the posterior whatever `spread` is: not centred for members with little data, and
    without a funnel for those with much. The model is the same for every `information` (Gorinova, Moore and Hoffman
    2020 have `spread^c` in place of the root, which depends on units).

    Args:
        name: of the value; the site is called `{name}_z`.
        centre: mean.
        spread: standard deviation.
        information: precision of what a member's own data tell of its value, roughly.
    """
    root = (information + 1 / spread**2) ** 0.5
    return centre + numpyro.sample(f"{name}_z", dist.Normal(0, spread * root)) / root
