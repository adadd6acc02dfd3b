"""How annotators may err: the parameters of noise by name, and how they scatter."""

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import numpyro

from pluralign.reward.judgements import Layout
from pluralign.reward.scatter import scattered

Noise = dict[str, Any]
"""Parameters by name: of raters `[annotator ...]` in the model, per act where a likelihood takes them."""

SHARED = ("base", "slate_tie", "strength_step")
"""Noise that all annotators share."""

RATER = (
    "lapse",
    "temperature",
    "position",
    "tie",
    "threshold",
    "emphasis",
    "leniency",
    "stretch",
    "agreeing",
    "passing",
)
"""Noise that annotators have each for themselves: `RewardPosterior.rater`."""


def same(value: Any) -> Any:
    """Return the value itself."""
    return value


SPREAD: dict[str, tuple[str, str, Callable[[Any], Any]]] = {
    "lapse_logit": ("lapse_scale", "lapse_centre", same),
    "temperature": ("temperature_scale", "", jnp.exp),
    "position": ("position_scale", "position_centre", same),
    "tie": ("tie_scale", "tie_centre", same),
    "threshold": ("threshold_scale", "threshold_centre", jnp.exp),
    "leniency": ("leniency_scale", "", same),
    "stretch": ("stretch_scale", "", same),
    "emphasis": ("emphasis_scale", "", same),
    "agreeing": ("agreeing_scale", "agreeing_centre", same),
    "passing": ("passing_scale", "passing_centre", same),
}
"""How annotators scatter, each by `link(centre + scale z)`: the sites that hold scale and centre, and the link."""


def of_each(name: str, layout: Layout, centre: Any, spread: Any, information: Any) -> Any:
    """Write the model of one parameter per annotator; arguments as of `scattered`."""
    with numpyro.plate("annotator", layout.annotators):
        return numpyro.deterministic(name, scattered(name, centre, spread, information))
