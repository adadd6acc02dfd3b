"""Whether a model and its inference can be believed on a design: simulated from the prior, fitted, and ranked."""

from dataclasses import dataclass, replace
from functools import partial
from itertools import product
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import scipy.special
from jaxtyping import Bool, Float, Int
from numpyro import handlers
from scipy.stats import binom

from pluralign.errors import InputError
from pluralign.reward.comparison import GradedComparison
from pluralign.reward.inference import NUTS, AbstractInference, Draws
from pluralign.reward.items import advantage
from pluralign.reward.judgements import FIRST, GRADES, PAIRS, SECOND, TIE, VOTES, Acts, Judgements, Layout
from pluralign.reward.noise import SHARED
from pluralign.reward.population import OWN, AbstractPopulation
from pluralign.reward.together import sample_together
from pluralign.types import Features, Feedback, FitReport

LIKELIHOOD = "log likelihood"
LARGEST = 5  # slots: of five there are 541 rankings with ties
NULL = 20_000  # sets of ranks that are simulated to know how uniform ones look


@dataclass(frozen=True, eq=False)
class Calibration:
    """Where the truth came among the draws of its own posterior, many times over.

    Attributes:
        names: the quantities: an entry each of the parameters of the population, and the log likelihood.
        ranks: how many of the draws lie below the truth; if all is well, uniform on 0..draws.
        draws: among how many the truth was ranked.
        p: of each quantity, p value of uniform ranks, corrected for the number of quantities (Holm 1979).
        fit: diagnostics of all fits together.
    """

    names: tuple[str, ...]
    ranks: Int[np.ndarray, "quantity replication"]
    draws: int
    p: Float[np.ndarray, " quantity"]
    fit: FitReport

    @property
    def calibrated(self) -> bool:
        """True unless the ranks of some quantity are not uniform at the level 0.05."""
        return bool((self.p >= 0.05).all())

    @property
    def verdict(self) -> str:
        """What was found, in words."""
        count, replications = self.ranks.shape
        tested = f"{count} quantities, {replications} replications"
        if self.calibrated:
            return f"No sign of miscalibration: the smallest corrected p value is {self.p.min():.2g} ({tested})."
        order = np.argsort(self.p, kind="stable").tolist()
        found = [self._fault(q) for q in order if self.p[q] < 0.05]
        return (
            f"Not calibrated ({tested}): {'; '.join(found)}. Either the chains did not converge (run more `warmup` and "
            "`draws`), or what was simulated is not what the model assumes."
        )

    def _fault(self, quantity: int) -> str:
        """Say how ranks deviate: their mean, then their variance, in standard errors of a uniform's."""
        rank = (self.ranks[quantity] + 0.5) / (self.draws + 1)
        off = (rank.mean() - 0.5) * np.sqrt(12 * len(rank))
        wide = (rank.var() - 1 / 12) * np.sqrt(180 * len(rank))
        words = ("draws are too high", "draws are too low") if abs(off) > abs(wide) else ("too wide", "too narrow")
        worse = off if abs(off) > abs(wide) else wide
        return f"{self.names[quantity]}: {words[int(worse > 0)]} (p {self.p[quantity]:.2g})"


def calibrate(
    population: AbstractPopulation,
    votes: Feedback,
    phi: Features,
    *,
    inference: AbstractInference | None = None,
    replications: int = 100,
    draws: int = 63,
    truth: AbstractPopulation | None = None,
    seed: int = 0,
) -> Calibration:
    """Check by simulation that posteriors are as wide as they should be and where they should be.

        theta ~ prior,  said ~ P(said | theta),  theta_1 ... theta_draws ~ posterior given said
        rank = #{f(theta_s, said) < f(theta, said)} is uniform on 0..draws

    for every quantity `f` (Talts, Betancourt, Simpson, Vehtari and Gelman 2018, theorem 1). The log likelihood is one
    of them: it finds posteriors that forget the data, which parameters alone cannot (Modrak et al. 2023, section 3). A
    quantity's ranks are compared with uniform ones by the largest deviation of their distribution function, in
    binomial tail probabilities (Saeilynoja, Buerkner and Vehtari 2022, section 2); its p value is simulated.

    Uniform ranks are an average over communities from the prior. In one whose people differ more than it expects, the
    intervals of single annotators cover less often: they are drawn towards the others too much.

    Components of a mixture have no names, directions no sign: the truth is put among the draws in a random place, and
    `canonical` names them all at once, which treats truth and draws alike.

    Args:
        population: the model.
        votes: the design: who judged what. What they said does not count, except that ties are possible only if
            there is one, and that a ranking fills as many places as this one did.
        phi: features of the items.
        inference: of each fit; all are one run, see `fit_together`. Default: `NUTS(draws=500)`.
        replications: communities that are simulated.
        draws: of the posterior, evenly thinned, among which the truth is ranked.
        truth: what is simulated from, if not `population`: the same model with other settings, to see what happens if
            the assumptions are wrong.
        seed: of everything.

    Returns:
        Ranks, p values and a verdict.

    Raises:
        InputError: the truth has other parameters than the population, or slates are larger than can be enumerated.
        FitError: the draws are not finite.
    """
    if replications < 10 or draws < 1:
        raise InputError(f"replications is {replications} and draws {draws}; they must be at least 10 and 1.")
    rng = np.random.default_rng(seed)
    layout = population.layout(votes, Judgements.read(votes, phi))
    with jax.enable_x64(False):
        simulated = _simulated(truth or population, layout, replications, seed)
        assumed = jax.eval_shape(partial(_values, population, layout), jax.random.key(0))
        if {n: v.shape for n, v in assumed.items()} != {n: v.shape[1:] for n, v in simulated.items()}:
            raise InputError("`truth` has other parameters than `population`; only settings of one model may differ.")
        layouts = _said(truth or population, layout, votes, simulated, rng)
    sites, report = sample_together(population, layouts, inference=inference or NUTS(draws=500), seed=seed)
    with jax.enable_x64(False):
        evaluate = jax.jit(
            lambda values, said: jax.vmap(lambda v: _evaluated(population, _heard(layout, said), v))(values)
        )
        ranks: dict[str, list[float]] = {}
        for r, own in enumerate(sites):
            keep = np.linspace(0, len(next(iter(own.values()))) - 1, draws).round().astype(int)
            place = int(rng.integers(draws + 1))
            values = {n: np.insert(own[n][keep], place, v[r], 0) for n, v in simulated.items()}
            said = {form: {"said": acts.said, "strength": acts.strength} for form, acts in layouts[r].acts.items()}
            found = {name: np.asarray(value)[None] for name, value in evaluate(values, said).items()}
            for name, value in population.canonical(found).items():
                if name in OWN or name.endswith("_z"):
                    continue
                for index in np.ndindex(value.shape[2:]):
                    entry = value[(0, slice(None), *index)]
                    rank = np.nan if (entry == entry[0]).all() else _rank(entry, place, rng)
                    ranks.setdefault(f"{name}{list(index) if index else ''}", []).append(rank)
    # Zeros of a triangle are not parameters, nor is what another one says as well.
    table = {tuple(row): name for name, row in reversed(ranks.items()) if np.isfinite(row).all()}
    names, rows = tuple(reversed(table.values())), np.array(list(reversed(table)), int)
    return Calibration(names, rows, draws, _holm(_p_values(rows, draws, rng)), report)


def _rank(entry: Float[np.ndarray, " draw"], place: int, rng: np.random.Generator) -> int:
    """Return how many draws lie below the one at `place`, equal ones at random."""
    equal = int((entry == entry[place]).sum()) - 1
    return int((entry < entry[place]).sum()) + int(rng.integers(equal + 1))


def _values(population: AbstractPopulation, layout: Layout, key: Any) -> dict[str, Any]:
    """Return what the model's own nodes are in one draw from the prior."""
    nodes = handlers.trace(handlers.seed(population.model, key)).get_trace(layout)
    return {name: n["value"] for name, n in nodes.items() if n["type"] == "sample" and not n["is_observed"]}


def _evaluated(population: AbstractPopulation, layout: Layout, values: dict[str, Any]) -> dict[str, Any]:
    """Return all that the model says at these values of its own nodes."""
    nodes = handlers.trace(handlers.substitute(population.model, values)).get_trace(layout)
    observed = [n["fn"].log_prob(n["value"]) for n in nodes.values() if n["type"] == "sample" and n["is_observed"]]
    kept = {name: n["value"] for name, n in nodes.items() if n["type"] == "deterministic" or name in values}
    return kept | {LIKELIHOOD: jnp.sum(jnp.stack(observed))}


def _simulated(population: AbstractPopulation, layout: Layout, replications: int, seed: int) -> Draws:
    keys: Any = jax.random.split(jax.random.key(seed), replications)
    return jax.device_get(jax.jit(jax.vmap(partial(_values, population, layout)))(keys))


def _heard(layout: Layout, said: dict[str, dict[str, Any]]) -> Layout:
    return replace(layout, acts={form: replace(acts, **said[form]) for form, acts in layout.acts.items()})


def _said(
    population: AbstractPopulation, layout: Layout, votes: Feedback, simulated: Draws, rng: np.random.Generator
) -> list[Layout]:
    """Return the layout of what the simulated communities say: `population.posterior` says who wants what, not they."""
    sites = jax.device_get(jax.jit(jax.vmap(partial(_evaluated, population, layout)))(simulated))
    people, response = [], population.response
    for r in range(len(sites[LIKELIHOOD])):
        one = {name: value[r : r + 1] for name, value in sites.items()}
        if "membership" in one:  # before anything was said, memberships are masses
            kind = rng.choice(one["mass"].shape[1], layout.annotators, p=one["mass"][0] / one["mass"][0].sum())
            one["membership"] = np.eye(one["mass"].shape[1])[kind][None]
        voters, noise = population.voters(one, votes), response.rater_of(one, layout.annotators)
        noise |= {name: one[name] for name in SHARED if name in one}
        if "lapse" in noise:
            noise["lapse_logit"] = scipy.special.logit(noise["lapse"])
        shares = np.eye(layout.annotators) if voters.membership is None else voters.membership
        person = {"weights": np.einsum("av,svof->saof", shares, voters.weights), "noise": noise}
        known = {"quality": "quality", "factor": "item_factor", "place": "place"}
        items = {name: one[site] for name, site in known.items() if site in one}
        people.append(person | ({"items": items} if items else {}))
    people = jax.tree.map(lambda *values: np.concatenate(values).astype(np.float32), *people)
    said = {}
    for form, acts in layout.acts.items():
        outcomes, strengths, possible = _outcomes(population, layout, acts)

        def log_p(person: Any, outcome: Any, strength: Any, acts: Acts = acts) -> Any:
            utility = acts.utility(person["weights"])
            if "items" in person:
                utility = utility + advantage(acts, person["items"])
            said = jnp.broadcast_to(outcome, acts.said.shape)
            put = replace(acts, said=said, strength=jnp.broadcast_to(strength, acts.strength.shape))
            return response.log_probability(put, utility, person["noise"], layout.levels)

        over_outcomes = jax.vmap(log_p, (None, 0, 0))
        each: Any = jax.jit(jax.vmap(over_outcomes, (0, None, None)))(people, outcomes, strengths)
        weight = np.where(possible, np.exp(np.asarray(each, np.float64)), 0)  # [replication outcome act]
        below = np.cumsum(weight, 1) / weight.sum(1, keepdims=True)
        drawn = (rng.random((len(below), 1, below.shape[2])) > below).sum(1)
        drawn = np.minimum(drawn, len(outcomes) - 1)
        said[form] = (outcomes[drawn].astype(acts.said.dtype), strengths[drawn])
    return [
        _heard(layout, {form: {"said": value[r], "strength": strength[r]} for form, (value, strength) in said.items()})
        for r in range(len(sites[LIKELIHOOD]))
    ]


def _outcomes(
    population: AbstractPopulation, layout: Layout, acts: Acts
) -> tuple[np.ndarray, Int[np.ndarray, " outcome"], Bool[np.ndarray, "outcome act"]]:
    """Return all that can be said `[outcome ...]`, how strongly, and of which act it can be."""
    whole = lambda count: np.ones((count, len(acts.counts)), bool)  # noqa: E731
    plain = lambda count: (np.arange(count), np.zeros(count, np.int32), whole(count))  # noqa: E731
    if acts.form == PAIRS:
        if not isinstance(population.response.pairs, GradedComparison) or layout.strengths < 2:
            return plain(3 if layout.ties else 2)
        # Every comparison says how strongly; only a tie does not.
        graded = [(w, s) for w in (FIRST, SECOND) for s in range(1, layout.strengths + 1)] + [(TIE, 0)] * layout.ties
        return (*np.array(graded, np.int32).T, whole(len(graded)))
    if acts.form == VOTES:
        return plain(3)
    if acts.form == GRADES:
        levels, none, _ = plain(max(layout.levels))
        return levels, none, levels[:, None] < np.array(layout.levels)[acts.aside]
    slots, ties = acts.item.shape[1], population.response.slates.ties
    if slots > LARGEST:
        raise InputError(f"a slate shows {slots} items; rankings are enumerated up to {LARGEST}. Calibrate on smaller.")
    sizes = lambda rank: np.bincount(np.array(rank) + 1, minlength=slots + 1)[1:]  # noqa: E731  # of blocks
    dense = lambda size: size[0] > 0 and (np.diff((size > 0).astype(int)) <= 0).all() and size.max() <= ties  # noqa: E731
    ranks = np.array([rank for rank in product(range(-1, slots), repeat=slots) if dense(sizes(rank))])
    shown, ranked = acts.item >= 0, ranks >= 0
    complete = (acts.said >= 0).sum(1) == shown.sum(1)
    places = np.where(complete, shown.sum(1), acts.said.max(1) + 1)
    inside = ~(ranked[:, None] & ~shown).any(2)
    ranked_all = (ranked[:, None] == shown).all(2)
    filled = ranks.max(1)[:, None] + 1
    return ranks, np.zeros(len(ranks), np.int32), inside & ((filled == places) | (ranked_all & (filled <= places)))


def _p_values(ranks: Int[np.ndarray, "quantity replication"], draws: int, rng: np.random.Generator) -> np.ndarray:
    """Return how often ranks that are uniform look less so."""
    replications = ranks.shape[1]
    share = np.arange(1, draws + 1) / (draws + 1)
    count = np.arange(replications + 1)[:, None]
    tail = np.minimum(binom.cdf(count, replications, share), binom.sf(count - 1, replications, share))

    def least(ranks: np.ndarray) -> np.ndarray:
        flat = ranks + (draws + 1) * np.arange(len(ranks))[:, None]
        below = np.bincount(flat.ravel(), minlength=len(ranks) * (draws + 1)).reshape(-1, draws + 1).cumsum(1)[:, :-1]
        return tail[below, np.arange(draws)].min(1)

    null = np.sort(least(rng.integers(0, draws + 1, (NULL, replications))))
    return (np.searchsorted(null, least(ranks) * (1 + 1e-9), side="right") + 1) / (NULL + 1)


def _holm(p: np.ndarray) -> np.ndarray:
    order = np.argsort(p, kind="stable")
    corrected = np.minimum(np.maximum.accumulate((len(p) - np.arange(len(p))) * p[order]), 1)
    return corrected[np.argsort(order, kind="stable")]
