"""How utilities become what an annotator says: the response model, rater noise included."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
from jaxtyping import Float
from numpyro import distributions as dist
from pydantic import Field

from pluralign.reward import likelihood
from pluralign.reward.inference import Draws
from pluralign.reward.judgements import FIRST, GRADES, PAIRS, SLATES, TIE, VOTES, Acts, Layout
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


def _same(value: Any) -> Any:
    return value


SPREAD: dict[str, tuple[str, str, Callable[[Any], Any]]] = {
    "lapse_logit": ("lapse_scale", "lapse_centre", _same),
    "temperature": ("temperature_scale", "", jnp.exp),
    "position": ("position_scale", "position_centre", _same),
    "tie": ("tie_scale", "tie_centre", _same),
    "threshold": ("threshold_scale", "threshold_centre", jnp.exp),
    "leniency": ("leniency_scale", "", _same),
    "stretch": ("stretch_scale", "", _same),
    "emphasis": ("emphasis_scale", "", _same),
    "agreeing": ("agreeing_scale", "agreeing_centre", _same),
    "passing": ("passing_scale", "passing_centre", _same),
}
"""How annotators scatter, each by `link(centre + scale z)`: the sites that hold scale and centre, and the link."""


def _own(name: str, layout: Layout, centre: Any, spread: Any, information: Any) -> Any:
    with numpyro.plate("annotator", layout.annotators):
        return numpyro.deterministic(name, scattered(name, centre, spread, information))


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
        return {"tie": _own("tie", layout, tie, scale, 0.08 * layout.judged)}  # a tie is a coin of about 0.1

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
                noise["emphasis"] = _own("emphasis", layout, 0.0, scale, 0.2 * layout.judged)
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
    log_threshold = _own("log_threshold", layout, centre, scale, 0.08 * layout.judged)
    return {"threshold": numpyro.deterministic("threshold", jnp.exp(log_threshold))}


@dataclass(frozen=True)
class PlackettLuce:
    """Rankings and choices from more than two: Plackett (1975), Luce (1959); with ties Davidson-Luce.

    Stage by stage the best of what is left is chosen, `P(item) = exp(u) / sum`; slots that were not ranked are what
    was left at the end. Tied blocks of `d` items have weight `exp(mean u + slate_tie[d])` (Turner, van Etten, Firth
    and Kosmidis 2020, equation 3).

    Args:
        ties: largest number of items tied in a block; 1: none.
    """

    ties: int = 1
    kind: Literal["plackett-luce"] = "plackett-luce"

    def sample(self, layout: Layout) -> Noise:
        """Write the model of the prevalence of ties, shared by all."""
        if self.ties == 1:
            return {}
        return {"slate_tie": numpyro.sample("slate_tie", dist.Normal(-1, 1.5).expand([self.ties - 1]).to_event(1))}

    def log_probability(self, rank: Any, utility: Any, shown: Any, noise: Noise) -> Any:
        """Return the log probability of the ranks `[... slot]`."""
        return likelihood.davidson_luce(utility, rank, noise.get("slate_tie"), shown)

    def log_outcomes(self, rank: Any, shown: Any) -> Any:
        """Return the log of the number of rankings with as many places, for one who ranks at random.

        Where nothing is left unranked, ties may have filled fewer places than there were: then there was one per slot.
        """
        upto = range(rank.shape[-1] + 1)
        table = [[likelihood.log_rankings(slots, places, self.ties) for places in upto] for slots in upto]
        slots, complete = shown.sum(-1), ((rank >= 0) | ~shown).all(-1)
        return jnp.asarray(table)[slots, jnp.where(complete, slots, rank.max(-1) + 1)]


@dataclass(frozen=True)
class OrderedLogit:
    """Grades on an ordered scale, each annotator with a leniency and a stretch of the scale of its own.

        P(level <= l) = sigmoid(cut[annotator, scale, objective, l] - u)                     (McCullagh 1980)
        cut[annotator, scale, objective, l] = exp(stretch[annotator]) base[scale, objective, l] - leniency[annotator]
        base[..., 0] ~ Normal(0, 2), base[..., l] - base[..., l - 1] ~ LogNormal(0, 0.8)
        leniency[annotator] ~ Normal(0, leniency_scale)
        stretch[annotator] ~ Normal(0, stretch_scale)

    Of two levels (yes or no, approved or not) it is a threshold.

    Args:
        leniency: let annotators differ in where they put the cutpoints.
        stretch: let annotators differ in how much of the scale they use.
    """

    leniency: bool = True
    stretch: bool = True
    kind: Literal["ordered-logit"] = "ordered-logit"

    def sample(self, layout: Layout) -> Noise:
        """Write the model of cutpoints."""
        shape = (len(layout.levels), layout.objectives)
        with numpyro.plate("scale", shape[0], dim=-2), numpyro.plate("objective", shape[1], dim=-1):
            lowest: Any = numpyro.sample("lowest_cut", dist.Normal(0, 2))
            steps = dist.LogNormal(0, 0.8).expand([max(layout.levels) - 2]).to_event(1)
            step: Any = numpyro.sample("cut_step", steps) if max(layout.levels) > 2 else jnp.zeros((*shape, 0))
        base = jnp.concatenate([lowest[..., None], lowest[..., None] + jnp.cumsum(step, -1)], -1)
        noise: Noise = {"base": numpyro.deterministic("base", base)}
        for name, used, typical in (("leniency", self.leniency, 0.5), ("stretch", self.stretch, 0.25)):
            if used:
                scale = numpyro.sample(f"{name}_scale", dist.LogNormal(np.log(typical), 0.8))
                noise[name] = _own(name, layout, 0.0, scale, 0.2 * layout.judged)
        return noise

    def log_probability(self, level: Any, utility: Any, last: Any, noise: Noise) -> Any:
        """Return the log probability of the level; `last` is the highest of its scale."""
        base = noise["base"] * jnp.exp(noise["stretch"])[..., None] if "stretch" in noise else noise["base"]
        cut = base - noise["leniency"][..., None] if "leniency" in noise else base
        # Scales with fewer levels than the longest one have no cut above their last.
        cut = jnp.where(jnp.arange(cut.shape[-1]) < last[..., None], cut, cut + 1e4)
        return likelihood.ordered_logit(level, utility, cut)


@dataclass(frozen=True)
class ThreeWay:
    """Votes that may pass: agree, pass or disagree, a pass being no grade between the other two.

        P(agree, disagree, pass) = (exp(eta / 2), exp(-eta / 2), exp(passing[annotator])) / sum
        eta = u + agreeing[annotator]
        agreeing[annotator] ~ Normal(agreeing_centre, agreeing_scale)
        passing[annotator] ~ Normal(passing_centre, passing_scale)

    Davidson's (1970) comparison with the annotator's own threshold: people pass on what is near it, and because they do
    not care or know, each to their own degree.
    """

    kind: Literal["three-way"] = "three-way"

    def sample(self, layout: Layout) -> Noise:
        """Write the model of thresholds and of passing."""
        noise: Noise = {}
        for name, spread, information in (("agreeing", 1.0, 0.2), ("passing", 1.0, 0.15)):
            centre = numpyro.sample(f"{name}_centre", dist.Normal(0, 1.5))
            scale = numpyro.sample(f"{name}_scale", dist.LogNormal(np.log(spread), 0.8))
            noise[name] = _own(name, layout, centre, scale, information * layout.judged)
        return noise

    def log_probability(self, vote: Any, utility: Any, noise: Noise) -> Any:
        """Return the log probability of 0 = disagree, 1 = pass, 2 = agree."""
        return likelihood.three_way(vote, utility, -noise["agreeing"], noise["passing"])


@dataclass(frozen=True)
class Rater:
    """How annotators err, whatever they are asked.

        u is divided by temperature[annotator],    log temperature[annotator] ~ Normal(0, temperature_scale)
        the first of two has u + position[annotator],    position[annotator] ~ Normal(position_centre, position_scale)
        P = (1 - lapse[annotator]) P(u) + lapse[annotator] uniform,    logit lapse ~ Normal(lapse_centre, lapse_scale)

    A large `lapse_scale` makes the distribution of lapses U-shaped: some always answer at random, others never. The
    scale of an annotator's utilities and its temperature cannot both be seen in choices: temperatures are 1 in the
    geometric mean, and tastes that differ only in strength are called temperature as far as the priors allow.

    Args:
        lapse: let annotators answer at random, each with a probability of their own.
        temperature: let annotators differ in how consistent they are.
        position: let the first slot have a bonus in logits; corrections have no slots.
        position_spread: let annotators differ in it.
    """

    lapse: bool = True
    temperature: bool = False
    position: bool = True
    position_spread: bool = False

    def sample(self, layout: Layout) -> Noise:
        """Write the model of raters."""
        noise: Noise = {}
        if self.position and PAIRS in layout.acts:
            if self.position_spread:
                centre = numpyro.sample("position_centre", dist.Normal(0, 0.5))
                scale = numpyro.sample("position_scale", dist.LogNormal(np.log(0.25), 0.8))
                noise["position"] = _own("position", layout, centre, scale, 0.15 * layout.judged)
            else:
                position = numpyro.sample("position_centre", dist.Normal(0, 0.5))
                noise["position"] = jnp.broadcast_to(position, layout.annotators)
        if self.temperature:
            scale = numpyro.sample("temperature_scale", dist.LogNormal(np.log(0.3), 0.8))
            log_temperature = _own("log_temperature", layout, 0.0, scale, 0.1 * layout.judged)
            noise["temperature"] = numpyro.deterministic("temperature", jnp.exp(log_temperature))
        if self.lapse:
            centre = numpyro.sample("lapse_centre", dist.Normal(-3, 1))
            scale = numpyro.sample("lapse_scale", dist.LogNormal(np.log(2), 0.5))
            with numpyro.plate("annotator", layout.annotators):
                # Hardly told by data: without a position of its own, it mixes best.
                logit = scattered("lapse", centre, scale, 0.0)
            noise["lapse"] = numpyro.deterministic("lapse", jax.nn.sigmoid(logit))
            noise["lapse_logit"] = logit
        return noise


Comparison = Annotated[Davidson | RaoKupper | Thurstone | GradedComparison, Field(discriminator="kind")]


@dataclass(frozen=True)
class Response:
    """From utilities to everything that annotators say.

    Args:
        pairs: comparisons of two.
        slates: rankings, and choices from more than two.
        grades: ratings, labels, approvals.
        votes: agree, pass, disagree.
        rater: noise that is common to them.
    """

    pairs: Comparison = field(default_factory=Davidson)
    slates: PlackettLuce = field(default_factory=PlackettLuce)
    grades: OrderedLogit = field(default_factory=OrderedLogit)
    votes: ThreeWay = field(default_factory=ThreeWay)
    rater: Rater = field(default_factory=Rater)

    def sample(self, layout: Layout) -> Noise:
        """Write the model of all parameters that the forms in the data need."""
        noise = self.rater.sample(layout)
        parts = {PAIRS: self.pairs, SLATES: self.slates, GRADES: self.grades, VOTES: self.votes}
        for form in layout.acts:
            noise |= parts[form].sample(layout)
        return noise

    def log_probability(self, acts: Acts, utility: Any, noise: Noise, levels: tuple[int, ...]) -> Any:
        """Return the log probability of each act, from `Acts.utility` (`[... act (slot)]`)."""
        own = {name: acts.each(value) for name, value in noise.items() if name in (*RATER, "lapse_logit")}
        slot = acts.form == SLATES
        if "temperature" in own:
            utility = utility / (own["temperature"][:, None] if slot else own["temperature"])
        if acts.form == PAIRS:
            eta = utility + acts.aside * own["position"] if "position" in own else utility
            own |= {name: noise[name] for name in ("strength_step",) if name in noise}
            log_p = self.pairs.log_probability(acts.said, eta, own, acts.strength)
            log_outcomes = self.pairs.log_outcomes(acts.said, own, acts.strength)
        elif slot:
            shown = acts.item >= 0
            log_p = self.slates.log_probability(acts.said, utility, shown, noise)
            log_outcomes = self.slates.log_outcomes(acts.said, shown)
        elif acts.form == VOTES:
            log_p, log_outcomes = self.votes.log_probability(acts.said, utility, own), np.log(3)
        else:
            count = jnp.asarray(levels)[acts.aside]
            base = noise["base"][acts.aside, acts.objective]
            log_p = self.grades.log_probability(acts.said, utility, count - 1, own | {"base": base})
            log_outcomes = jnp.log(count)
        if "lapse_logit" in own:
            log_p = likelihood.lapsed(log_p, own["lapse_logit"], log_outcomes)
        return log_p

    def log_likelihood(self, layout: Layout, utility: Callable[[Acts], Any]) -> Float[jax.Array, "... annotator"]:
        """Write the model of the parameters; return the log likelihood of all that each annotator said."""
        noise = self.sample(layout)
        parts = [
            acts.total(self.log_probability(acts, utility(acts), noise, layout.levels)) for acts in layout.acts.values()
        ]
        return jnp.sum(jnp.stack(parts), 0)

    def latents(self) -> int:
        """Return how many independent standard normals make the noise of a person nobody has met."""
        return len(SPREAD)

    def person(self, common: Noise, z: Any) -> Noise:
        """Return the noise of the person that `z` stands for, in one draw of `RewardPosterior.common`."""
        noise: Noise = {}
        for (name, (scale, centre, link)), own in zip(SPREAD.items(), z, strict=True):
            if scale in common or centre in common:
                noise[name] = link(common.get(centre, 0.0) + common.get(scale, 0.0) * own)
        if "lapse_logit" in noise:
            noise["lapse"] = jax.nn.sigmoid(noise["lapse_logit"])
        return noise

    def rater_of(self, sites: Draws, annotators: int) -> dict[str, Float[np.ndarray, "draw annotator"]]:
        """Return `RewardPosterior.rater` from draws of the model's sites."""
        draws = len(next(iter(sites.values())))
        have = {name: sites[name] for name in RATER if name in sites}
        for name, (_, centre, link) in SPREAD.items():
            if name in RATER and centre in sites and name not in sites:  # the same for all
                have[name] = np.asarray(link(sites[centre]))
        return {
            name: np.broadcast_to(value.reshape(draws, -1), (draws, annotators)).astype(np.float32)
            for name, value in have.items()
        }


PLAIN = Response(Davidson(tie_spread=False), rater=Rater(lapse=False, position=False))
"""Bradley-Terry (Davidson where there are ties) without rater noise: what most pipelines fit."""
