"""How an annotator's utilities become an outcome: the response model, rater noise included."""

from dataclasses import dataclass
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
from jaxtyping import Float
from numpyro import distributions as dist

from pluralign.reward.inference import Draws, centred
from pluralign.reward.judgements import Layout


def log_probabilities(eta: Any, tie: Any = None, lapse: Any = None) -> Any:
    """Return the log probability of (first, second, tie) along a new last axis; of (first, second) without `tie`.

    Davidson's (1970) model, mixed with a uniform answer:

        Davidson = (exp(eta / 2), exp(-eta / 2), exp(tie)) / sum
        P = (1 - lapse) Davidson + lapse / (number of outcomes)

    Args:
        eta: logit advantage of the first over the second.
        tie: log tie propensity: at `eta = 0` a tie is `exp(tie)` times as probable as either win.
        lapse: probability that the answer is random, in [0, 1).
    """
    logits = [eta / 2, -eta / 2] if tie is None else [eta / 2, -eta / 2, tie + jnp.zeros_like(eta)]
    davidson = jax.nn.log_softmax(jnp.stack(logits, -1), -1)
    if lapse is None:
        return davidson
    lapse = jnp.asarray(lapse)[..., None]
    return jnp.logaddexp(jnp.log1p(-lapse) + davidson, jnp.log(lapse / len(logits)))


@dataclass(frozen=True)
class Davidson:
    """Davidson's (1970) comparisons with ties, and raters who slip, differ in ties, and favour the first slot.

        eta = (phi[first] - phi[second]) · w[annotator] + position
        P = (1 - lapse[annotator]) (exp(eta / 2), exp(-eta / 2), exp(tie[annotator])) / sum + lapse[annotator] / 3

        position ~ Normal(0, 1/2)
        tie[annotator] ~ Normal(tie_centre, tie_scale)
        logit lapse[annotator] ~ Normal(lapse_centre, lapse_scale)

    A large `lapse_scale` makes the distribution of lapses U-shaped: some always answer at random, others never.
    Without any tie in the data a tie is impossible: plain Bradley-Terry, and `/ 2` in place of `/ 3`.

    Args:
        lapse: let annotators answer at random, each with a probability of their own.
        tie_spread: let annotators differ in how readily they call a tie.
        position: let the first slot have a bonus in logits, the same for all.
    """

    lapse: bool = True
    tie_spread: bool = True
    position: bool = True
    kind: Literal["davidson"] = "davidson"

    def observe(self, layout: Layout, eta: Any) -> None:
        """Write the part of a numpyro model from the advantage of the first, per choice, to the outcomes."""
        tie = lapse = None
        annotators = numpyro.plate("annotator", layout.annotators)
        if self.position:
            eta = eta + numpyro.sample("position", dist.Normal(0, 0.5))
        if layout.ties:
            tie = tie_centre = numpyro.sample("tie_centre", dist.Normal(0, 1.5))
        if layout.ties and self.tie_spread:
            tie_scale = numpyro.sample("tie_scale", dist.HalfNormal(1))
            with centred(tie=layout.judged / 100), annotators:
                tie = layout.per_choice(numpyro.sample("tie", dist.Normal(tie_centre, tie_scale)))
        if self.lapse:
            lapse_centre = numpyro.sample("lapse_centre", dist.Normal(-3, 1))
            lapse_scale = numpyro.sample("lapse_scale", dist.HalfNormal(2))
            with centred(lapse_logit=layout.judged / 100), annotators:
                lapse_logit = numpyro.sample("lapse_logit", dist.Normal(lapse_centre, lapse_scale))
            lapse = layout.per_choice(numpyro.deterministic("lapse", jax.nn.sigmoid(lapse_logit)))
        with numpyro.plate("choice", len(layout.outcome)), numpyro.handlers.mask(mask=layout.counts):
            numpyro.sample("outcome", dist.Categorical(logits=log_probabilities(eta, tie, lapse)), obs=layout.outcome)

    def rater(self, sites: Draws, annotators: int) -> dict[str, Float[np.ndarray, "draw annotator"]]:
        """Return `RewardPosterior.rater` from draws of the model's sites."""
        have = {name: sites[name] for name in ("lapse", "position") if name in sites}
        if "tie_centre" in sites:
            have["tie"] = sites.get("tie", sites["tie_centre"])
        shape = (len(next(iter(sites.values()))), annotators)
        return {
            name: np.broadcast_to(value.reshape(shape[0], -1), shape).astype(np.float32) for name, value in have.items()
        }
