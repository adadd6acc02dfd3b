"""Normal scatter about a centre, in coordinates in which chains mix."""

from typing import Any

import numpyro
from numpyro import distributions as dist


def scattered(name: str, centre: Any, spread: Any, information: Any) -> Any:
    """Return `value ~ Normal(centre, spread)`, one per member of the enclosing plates, partially centred.

    If a member's own data told of its value with precision `information`, then, given centre and spread, the value
    would have the posterior precision `information + 1 / spread^2` and a mean that moves with `(1 - kappa) centre`:

        kappa = information / (information + 1 / spread^2)
        z = (value - (1 - kappa) centre) (information + 1 / spread^2)^(1/2)

    This is what the chain moves: about unit scale in the posterior, and uncorrelated with the centre, for members with
    little data (not centred) as for members with much (centred). The model is the same for every `information`
    (Papaspiliopoulos, Roberts and Skoeld 2007, section 3, have the same `kappa` for the location alone).

    Args:
        name: of the value; the site is called `{name}_z`.
        centre: mean.
        spread: standard deviation.
        information: precision of what a member's own data tell of its value, roughly.
    """
    precision = information + 1 / spread**2
    kappa, root = information / precision, precision**0.5
    z = numpyro.sample(f"{name}_z", dist.Normal(kappa * centre * root, spread * root))
    return (1 - kappa) * centre + z / root
