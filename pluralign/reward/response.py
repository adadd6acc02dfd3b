"""How an annotator's utilities become an outcome: the response model, rater noise included."""

from dataclasses import dataclass
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
from jaxtyping import Float
from numpyro import distributions as dist

from pluralign.reward.inference import Draws
from pluralign.reward.judgements import FIRST, TIE, Layout
from pluralign.reward.scatter import scattered


def log_probability(outcome: Any, eta: Any, tie: Any = None, lapse_logit: Any = None) -> Any:
    """Return the log probability of an outcome: Davidson's (1970) model, mixed with a uniform answer.

        Davidson = (exp(eta / 2), exp(-eta / 2), exp(tie)) / sum
        P = (1 - lapse) Davidson + lapse / (number of outcomes)

    Args:
        outcome: 0 = the first wins, 1 = the second, 2 = tie (not without `tie`).
        eta: logit advantage of the first over the second.
        tie: log tie propensity: at `eta = 0` a tie is `exp(tie)` times as probable as either win; none: no ties.
        lapse_logit: log odds of a random answer; none: never.
    """
    weight, total, outcomes = jnp.where(outcome == FIRST, eta, -eta) / 2, jnp.logaddexp(eta / 2, -eta / 2), 2
    if tie is not None:
        weight, total, outcomes = jnp.where(outcome == TIE, tie, weight), jnp.logaddexp(total, tie), 3
    davidson = weight - total
    if lapse_logit is None:
        return davidson
    # log(1 - lapse) = log(lapse) - lapse_logit: exact in both tails, and one softplus in place of two.
    return jax.nn.log_sigmoid(lapse_logit) + jnp.logaddexp(davidson - lapse_logit, -np.log(outcomes))


class Outcome(dist.Distribution):
    """The distribution of one outcome per choice, as `log_probability`."""

    support = dist.constraints.nonnegative_integer  # pyright: ignore

    def __init__(self, eta: Any, tie: Any, lapse_logit: Any):
        self.eta, self.tie, self.lapse_logit = eta, tie, lapse_logit
        super().__init__(batch_shape=jnp.shape(eta))

    def log_prob(self, value: Any, intermediates: Any = None) -> Any:
        """Return the log probability of outcomes, per choice."""
        return log_probability(value, self.eta, self.tie, self.lapse_logit)


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
        position: let the first slot have a bonus in logits, the same for all; corrections have no slots.
    """

    lapse: bool = True
    tie_spread: bool = True
    position: bool = True
    kind: Literal["davidson"] = "davidson"

    def observe(self, layout: Layout, eta: Any) -> None:
        """Write the part of a numpyro model from the advantage of the first, per choice, to the outcomes."""
        tie = lapse_logit = None
        annotators = numpyro.plate("annotator", layout.annotators)
        if self.position:
            eta = eta + layout.placed * numpyro.sample("position", dist.Normal(0, 0.5))
        if layout.ties:
            tie = numpyro.sample("tie_centre", dist.Normal(0, 1.5))
        if layout.ties and self.tie_spread:
            scale = numpyro.sample("tie_scale", dist.LogNormal(np.log(0.5), 0.8))
            with annotators:
                tie = scattered("tie", tie, scale, 0.08 * layout.judged)  # a tie is a coin of probability about 0.1
                numpyro.deterministic("tie", tie)
            tie = layout.per_choice(tie)
        if self.lapse:
            centre = numpyro.sample("lapse_centre", dist.Normal(-3, 1))
            scale = numpyro.sample("lapse_scale", dist.LogNormal(np.log(2), 0.5))
            with annotators:
                # Hardly told by data: without a position of its own, it mixes best.
                lapse_logit = scattered("lapse", centre, scale, 0.0)
                numpyro.deterministic("lapse", jax.nn.sigmoid(lapse_logit))
            lapse_logit = layout.per_choice(lapse_logit)
        with numpyro.plate("choice", len(layout.outcome)), numpyro.handlers.mask(mask=layout.counts):
            numpyro.sample("outcome", Outcome(eta, tie, lapse_logit), obs=layout.outcome)

    def rater(self, sites: Draws, annotators: int) -> dict[str, Float[np.ndarray, "draw annotator"]]:
        """Return `RewardPosterior.rater` from draws of the model's sites."""
        have = {name: sites[name] for name in ("lapse", "position") if name in sites}
        if "tie_centre" in sites:
            have["tie"] = sites.get("tie", sites["tie_centre"])
        shape = (len(next(iter(sites.values()))), annotators)
        return {
            name: np.broadcast_to(value.reshape(shape[0], -1), shape).astype(np.float32) for name, value in have.items()
        }
