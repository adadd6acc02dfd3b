"""What people say of two: from the advantage of the first to a win, a loss or a tie."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import jax.numpy as jnp
import numpy as np
import numpyro
from numpyro import distributions as dist
from pydantic import Field

from pluralign.reward import likelihood
from pluralign.reward.judgements import FIRST, TIE, Layout
from pluralign.reward.noise import Noise, of_each


class AbstractComparison(ABC):
    """How the advantage of the first of two becomes a win, a loss or a tie."""

    @abstractmethod
    def sample(self, layout: Layout) -> Noise:
        """Write the model of the parameters; without ties in the data there are none, and ties are impossible."""

    @abstractmethod
    def log_probability(self, outcome: Any, eta: Any, noise: Noise, strength: Any = 0) -> Any:
        """Return the log probability of 0 = the first wins, 1 = the second, 2 = tie.

        Args:
            outcome: as above.
            eta: utility of the first less that of the second.
            noise: parameters by name.
            strength: how strongly the winner is said to be preferred, 0 = not said.
        """

    def log_outcomes(self, outcome: Any, noise: Noise, strength: Any) -> Any:
        """Return minus the log probability of this from one who answers at random."""
        return np.log(3) if "tie" in noise or "threshold" in noise else np.log(2)


@dataclass(frozen=True)
class Davidson(AbstractComparison):
    """Davidson's (1970) comparisons with ties; Bradley-Terry without.

        P = (exp(eta / 2), exp(-eta / 2), exp(tie[annotator])) / sum
        tie[annotator] ~ Normal(tie_centre, tie_scale)

    Args:
        tie_spread: let annotators differ in how readily they call a tie.
    """

    tie_spread: bool = True
    kind: Literal["davidson"] = "davidson"

    def sample(self, layout: Layout) -> Noise:
        """Write the model of tie propensities."""
        if not layout.ties:
            return {}
        tie = numpyro.sample("tie_centre", dist.Normal(0, 1.5))
        if not self.tie_spread:
            return {"tie": jnp.broadcast_to(tie, layout.annotators)}
        scale = numpyro.sample("tie_scale", dist.LogNormal(np.log(0.5), 0.8))
        return {"tie": of_each("tie", layout, tie, scale, 0.08 * layout.judged)}  # a tie is a coin of about 0.1

    def log_probability(self, outcome: Any, eta: Any, noise: Noise, strength: Any = 0) -> Any:
        """Return the log probability of the outcome, however strongly it was preferred."""
        return likelihood.davidson(outcome, eta, noise.get("tie"))


@dataclass(frozen=True)
class RaoKupper(AbstractComparison):
    """Rao and Kupper's (1967) comparisons: a win needs an advantage that exceeds a threshold.

        P(first) = sigmoid(eta - threshold[annotator])
        P(second) = sigmoid(-eta - threshold[annotator])
        log threshold[annotator] ~ Normal(threshold_centre, threshold_scale)

    Args:
        tie_spread: let annotators differ in their thresholds.
    """

    tie_spread: bool = True
    kind: Literal["rao-kupper"] = "rao-kupper"

    def sample(self, layout: Layout) -> Noise:
        """Write the model of thresholds."""
        return _thresholds(layout, self.tie_spread)

    def log_probability(self, outcome: Any, eta: Any, noise: Noise, strength: Any = 0) -> Any:
        """Return the log probability of the outcome, however strongly it was preferred."""
        return likelihood.rao_kupper(outcome, eta, noise.get("threshold", jnp.zeros(())))


@dataclass(frozen=True)
class Thurstone(AbstractComparison):
    """Thurstone's (1927, case V) comparisons, with ties by a threshold (Glenn and David 1960).

        P(first) = Phi(eta - threshold[annotator])
        P(second) = Phi(-eta - threshold[annotator])
        log threshold[annotator] ~ Normal(threshold_centre, threshold_scale)

    `eta` is in standard deviations of the difference, not logits. Phi is the normal distribution function itself.

    Args:
        tie_spread: let annotators differ in their thresholds.
    """

    tie_spread: bool = True
    kind: Literal["thurstone"] = "thurstone"

    def sample(self, layout: Layout) -> Noise:
        """Write the model of thresholds."""
        return _thresholds(layout, self.tie_spread)

    def log_probability(self, outcome: Any, eta: Any, noise: Noise, strength: Any = 0) -> Any:
        """Return the log probability of the outcome, however strongly it was preferred."""
        return likelihood.thurstone(outcome, eta, noise.get("threshold"))


@dataclass(frozen=True)
class GradedComparison(AbstractComparison):
    """Comparisons that say how strongly, "slightly better", "much better": an ordered logit of the difference.

        P(the first is better, at least by l) = sigmoid(eta - cut[annotator, l]), and likewise the second
        cut[annotator, 1] = threshold[annotator] as in Rao and Kupper, 0 if there are no ties
        cut[annotator, l] = cut[annotator, 1] + exp(emphasis[annotator]) (strength_step[2] + ... + strength_step[l])
        strength_step ~ LogNormal(0, 0.8), emphasis[annotator] ~ Normal(0, emphasis_scale)

    Agresti's (1992, section 2) cumulative model. A judgement that does not say how
    strongly is a win by any strength.

    Args:
        tie_spread: let annotators differ in their thresholds.
        emphasis: let annotators differ in how readily they use strong words.
    """

    tie_spread: bool = True
    emphasis: bool = True
    kind: Literal["graded"] = "graded"

    def sample(self, layout: Layout) -> Noise:
        """Write the model of thresholds and of the steps between strengths."""
        noise = _thresholds(layout, self.tie_spread)
        if layout.strengths > 1:
            steps = dist.LogNormal(0, 0.8).expand([layout.strengths - 1]).to_event(1)
            noise["strength_step"] = numpyro.sample("strength_step", steps)
            if self.emphasis:
                scale = numpyro.sample("emphasis_scale", dist.LogNormal(np.log(0.25), 0.8))
                noise["emphasis"] = of_each("emphasis", layout, 0.0, scale, 0.2 * layout.judged)
        return noise

    def log_probability(self, outcome: Any, eta: Any, noise: Noise, strength: Any = 0) -> Any:
        """Return the log probability of the outcome with its strength."""
        threshold = noise.get("threshold", jnp.zeros(()))
        won = likelihood.rao_kupper(outcome, eta, threshold)
        if "strength_step" not in noise:
            return won
        steps = jnp.exp(noise.get("emphasis", jnp.zeros(())))[..., None] * noise["strength_step"]
        parts = [jnp.broadcast_to(c, (*eta.shape, c.shape[-1])) for c in (threshold[..., None], steps)]
        level = jnp.where(outcome == TIE, 0, jnp.where(outcome == FIRST, strength, -strength))
        said = likelihood.graded_comparison(level, eta, jnp.concatenate(parts, -1))
        return jnp.where((strength > 0) & (outcome != TIE), said, won)

    def log_outcomes(self, outcome: Any, noise: Noise, strength: Any) -> Any:
        """Return minus the log probability of this from one who answers at random, any strength as probable."""
        strengths = noise["strength_step"].shape[-1] + 1 if "strength_step" in noise else 1
        every = np.log(2 * strengths + ("threshold" in noise))
        return jnp.where((strength > 0) | (outcome == TIE), every, every - np.log(strengths))


def _thresholds(layout: Layout, tie_spread: bool) -> Noise:
    if not layout.ties:
        return {}
    centre = numpyro.sample("threshold_centre", dist.Normal(-0.5, 1))
    if not tie_spread:
        return {"threshold": jnp.broadcast_to(jnp.exp(centre), layout.annotators)}
    scale = numpyro.sample("threshold_scale", dist.LogNormal(np.log(0.5), 0.8))
    log_threshold = of_each("log_threshold", layout, centre, scale, 0.08 * layout.judged)
    return {"threshold": numpyro.deterministic("threshold", jnp.exp(log_threshold))}


Comparison = Annotated[Davidson | RaoKupper | Thurstone | GradedComparison, Field(discriminator="kind")]
