"""How utilities become what an annotator says: the response model, rater noise included."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
from jaxtyping import Float
from numpyro import distributions as dist

from pluralign.reward import likelihood
from pluralign.reward.comparison import Comparison, Davidson
from pluralign.reward.inference import Draws
from pluralign.reward.judgements import GRADES, PAIRS, SLATES, VOTES, Acts, Layout
from pluralign.reward.noise import RATER, SPREAD, Noise, of_each
from pluralign.reward.scatter import scattered


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
                noise[name] = of_each(name, layout, 0.0, scale, 0.2 * layout.judged)
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
            noise[name] = of_each(name, layout, centre, scale, information * layout.judged)
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
                noise["position"] = of_each("position", layout, centre, scale, 0.15 * layout.judged)
            else:
                position = numpyro.sample("position_centre", dist.Normal(0, 0.5))
                noise["position"] = jnp.broadcast_to(position, layout.annotators)
        if self.temperature:
            scale = numpyro.sample("temperature_scale", dist.LogNormal(np.log(0.3), 0.8))
            log_temperature = of_each("log_temperature", layout, 0.0, scale, 0.1 * layout.judged)
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
