"""Hierarchical logistic models as arrays, and what a normal distribution expects of their likelihoods."""

from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from pluralign.errors import InputError
from pluralign.reward.comparison import Davidson
from pluralign.reward.judgements import FIRST, PAIRS, SECOND, TIE
from pluralign.reward.population import Hierarchical, Target

POSITION, TIES = 0, 1
"""Places in `shared`, the parameters of the response that all annotators have in common."""

SHARED_SCALE = (0.5, 1.5)
"""Prior standard deviation of each of them; their mean is zero."""

LOG_SCALE = 0.8
"""Prior standard deviation of the logarithm of every scale."""

POINTS, MASS = np.polynomial.hermite_e.hermegauss(15)


class Judged(NamedTuple):
    """Comparisons in padded order, annotators in the order of the buckets, those who judged nothing last.

    Attributes:
        x: per bucket, differences `[bucket, place, feature]`, zero where padded.
        outcome: `[choice]`, 0 = the first won, 1 = the second, 2 = tie.
        placed: `[choice]`, 1 where a bonus of the first slot applies, else 0.
        counts: `[choice]`, False where padded.
        group: `[annotator]`, index of the group.
    """

    x: tuple[Any, ...]
    outcome: Any
    placed: Any
    counts: Any
    group: Any

    def advantage(self, weights: Any) -> Any:
        """Return `x[choice] · weights[annotator of choice]`."""
        return self._each(lambda x, w: jnp.einsum("apf,af->ap", x, w).ravel(), weights)

    def spread(self, covariance: Any) -> Any:
        """Return `(x[choice] · covariance[annotator of choice] x[choice])^(1/2)`."""

        def variance(x: Any, v: Any) -> Any:
            return (jnp.einsum("apf,afg->apg", x, v) * x).sum(-1).ravel()

        return jnp.sqrt(jnp.maximum(self._each(variance, covariance), 0))

    def per_choice(self, value: Any) -> Any:
        """Return `value[annotator of choice]`."""
        return self._each(lambda x, v: jnp.broadcast_to(v[:, None], x.shape[:2]).ravel(), value)

    def total(self, value: Any) -> Any:
        """Return the sum over each annotator's choices."""
        return self._sums(lambda x, v: v.sum(1), value)

    def directions(self, value: Any) -> Any:
        """Return `sum value[choice] x[choice]` over each annotator's choices."""
        return self._sums(lambda x, v: jnp.einsum("apf,ap->af", x, v), value)

    def squares(self, value: Any) -> Any:
        """Return `sum value[choice] x[choice] x[choice]^T` over each annotator's choices."""
        return self._sums(lambda x, v: jnp.einsum("apf,apg->afg", x * v[..., None], x), value)

    def _each(self, function: Any, value: Any) -> Any:
        parts, start = [], 0
        for x in self.x:
            parts.append(function(x, value[start : start + len(x)]))
            start += len(x)
        return _joined(parts)

    def _sums(self, function: Any, value: Any) -> Any:
        parts, start = [], 0
        for x in self.x:
            size = x.shape[0] * x.shape[1]
            parts.append(function(x, value[start : start + size].reshape(x.shape[:2])))
            start += size
        silent = len(self.group) - sum(len(part) for part in parts)
        return _joined([*parts, jnp.zeros((silent, *parts[0].shape[1:]), parts[0].dtype)])


def _joined(parts: list[Any]) -> Any:
    """Return the parts in one; what comes after is compiled once, not once per part (minutes, with four parts)."""
    return jax.lax.optimization_barrier(jnp.concatenate(parts))


@partial(
    jax.tree_util.register_dataclass,
    data_fields=("judged", "order"),
    meta_fields=("groups", "grouped", "free", "log_medians"),
)
@dataclass(frozen=True, eq=False)
class Problem:
    """One hierarchical logistic model.

        shared[k] ~ Normal(0, SHARED_SCALE[k])                         for k in `free`
        log scale ~ Normal(its logarithm in `log_medians`, LOG_SCALE)  for each scale

    Attributes:
        judged: the comparisons.
        order: `[annotator]`, index of each annotator in the feedback, in the order of `judged`.
        groups: how many there are.
        grouped: whether groups scatter about a common centre; else there is one, and it is the centre.
        free: which entries of `shared` are parameters; otherwise no bonus (0) and no ties (minus infinity).
        log_medians: prior medians of the logarithms of `spread`, `group_spread` and `centre_scale`.
    """

    judged: Judged
    order: Any
    groups: int
    grouped: bool
    free: tuple[int, ...]
    log_medians: tuple[float, float, float]

    @property
    def annotators(self) -> int:
        """How many annotators there are."""
        return len(self.order)

    @property
    def features(self) -> int:
        """How many features there are."""
        return self.judged.x[0].shape[-1]

    @property
    def shared(self) -> np.ndarray:
        """Where `shared` starts, and stays where it is not free."""
        return np.array([0.0, -1.0 if TIES in self.free else -np.inf])

    def sites(self, draws: "Draw") -> dict[str, np.ndarray]:
        """Return draws under the names that `Hierarchical` has, annotators in the order of the feedback."""
        one = np.s_[..., None, :]  # the one objective
        sites = {
            "spread": np.exp(draws.log_spread)[one],
            "centre_scale": np.exp(draws.log_centre_scale),
            "weights": draws.weights[..., np.argsort(self.order), :][one],
        }
        if self.grouped:
            sites["group_spread"] = np.exp(draws.log_group_spread)[one]
            sites |= {"centre": draws.centre[one], "group_centre": draws.mean[one]}
        else:
            sites["centre"] = draws.mean
        names = {POSITION: "position_centre", TIES: "tie_centre"}
        return sites | {names[k]: draws.shared[..., k] for k in self.free}


class Draw(NamedTuple):
    """Everything that is not known.

    Attributes:
        weights: `[annotator feature]`.
        log_spread: `[feature]`.
        mean: `[group feature]`, of the annotators of each group; without groups, the one centre.
        centre: `[feature]`, of the groups; without groups it is not used.
        log_group_spread: `[feature]`; the same.
        log_centre_scale: `[]`.
        shared: `[2]`.
    """

    weights: Any
    log_spread: Any
    mean: Any
    centre: Any
    log_group_spread: Any
    log_centre_scale: Any
    shared: Any


def read(model: Any, inference: str) -> Problem:
    """Return the problem behind a model: the only place that looks into populations, responses and layouts.

    Raises:
        InputError: the model is none of this family.
    """
    if not isinstance(model, Target) or not isinstance(model.population, Hierarchical):
        raise InputError(f"{inference} covers the population Hierarchical alone; use NUTS for this model.")
    population, layout = model.population, model.layout
    pairs, rater = population.response.pairs, population.response.rater
    beyond = {
        "judgements other than comparisons of two": set(layout.acts) != {PAIRS},
        "several objectives": layout.objectives > 1,
        "`covariates`": bool(population.covariates),
        "a centre that is not normal": population.centre != "normal",
        "`items`": population.items is not None,
        "`lapse`": rater.lapse,
        "`temperature`": rater.temperature,
        "`position_spread`": rater.position and rater.position_spread,
        "a response to pairs that is not Davidson's": not isinstance(pairs, Davidson),
        "`tie_spread`": isinstance(pairs, Davidson) and pairs.tie_spread and layout.ties,
    }
    if any(beyond.values()):
        raise InputError(
            f"{inference} covers comparisons of two for one objective, by raters who differ in what they want alone; "
            f"this model has {', '.join(name for name, have in beyond.items() if have)}. Use NUTS for it, or "
            "Response(Davidson(tie_spread=False), rater=Rater(lapse=False))."
        )
    acts = layout.acts[PAIRS]
    who = np.concatenate([who for who, _ in acts.buckets])
    order = np.concatenate([who, np.setdiff1d(np.arange(layout.annotators), who)])
    judged = Judged(
        x=tuple(jnp.asarray(x, float) for _, x in acts.buckets),
        outcome=jnp.asarray(acts.said),
        placed=jnp.asarray(acts.aside, float),
        counts=jnp.asarray(acts.counts),
        group=jnp.asarray(layout.group[order]),
    )
    log_scale = float(np.log(population.scale))
    return Problem(
        judged=judged,
        order=order,
        groups=layout.groups,
        grouped=population.group is not None,
        free=(POSITION,) * rater.position + (TIES,) * layout.ties,
        log_medians=(log_scale - float(np.log(2)), log_scale, log_scale),
    )


class Answer(NamedTuple):
    """Davidson's (1970) model at one advantage.

        P = (exp(eta / 2), exp(-eta / 2), exp(tie)) / sum

    Attributes:
        log_p: log probability of the outcome.
        lead: probability of the first minus that of the second.
        tied: probability of a tie.
        slope: of `log_p` along `eta`.
        curvature: minus the second derivative of `log_p` along `eta`.
    """

    log_p: Any
    lead: Any
    tied: Any
    slope: Any
    curvature: Any


def answer(judged: Judged, advantage: Any, shared: Any) -> Answer:
    """Return the response to an advantage, per choice; all zero where padded."""
    eta, tie = advantage + shared[POSITION] * judged.placed, shared[TIES]
    half = jnp.abs(eta) / 2
    rest = jnp.exp(-half)
    total = 1 + rest**2 + jnp.exp(tie) * rest  # over exp(half), which cannot overflow
    lead, tied = jnp.sign(eta) * (1 - rest**2) / total, jnp.exp(tie) * rest / total
    sign = jnp.where(judged.outcome == FIRST, 1.0, jnp.where(judged.outcome == SECOND, -1.0, 0.0))
    log_p = jnp.where(judged.outcome == TIE, tie, sign * eta / 2) - half - jnp.log(total)
    fields = (log_p, lead, tied, (sign - lead) / 2, (1 - tied - lead**2) / 4)
    return Answer(*(jnp.where(judged.counts, value, 0) for value in fields))


def told_of_shared(judged: Judged, at: Answer) -> tuple[Any, Any]:
    """Return the gradient and minus the Hessian of the log likelihood in `shared`, summed over choices."""
    tie = jnp.where(judged.counts, judged.outcome == TIE, False)
    gradient = jnp.stack([(at.slope * judged.placed).sum(), (tie - at.tied).sum()])
    cross = -(at.tied * at.lead * judged.placed).sum() / 2
    corners = (at.curvature * judged.placed).sum(), (at.tied * (1 - at.tied)).sum()
    return gradient, jnp.array([[corners[0], cross], [cross, corners[1]]])


class Expected(NamedTuple):
    """What normal distributions of the annotators' weights expect of the log likelihood.

    Attributes:
        value: `[annotator]`.
        slope: `[annotator feature]`, expected gradient along the weights.
        precision: `[annotator feature feature]`, minus the expected Hessian along the weights.
        shared: gradient and minus the Hessian along `shared`, over all choices.
    """

    value: Any
    slope: Any
    precision: Any
    shared: tuple[Any, Any]

    def linear(self, mean: Any) -> Any:
        """Return the precision times the mean of the normal surrogate of each likelihood."""
        return self.slope + jnp.einsum("afg,ag->af", self.precision, mean)


def expected(judged: Judged, mean: Any, covariance: Any, shared: Any) -> Expected:
    """Return expectations under `weights[annotator] ~ Normal(mean, covariance)`, by Gauss-Hermite quadrature.

    An advantage is one normal number, so that each expectation is an integral in one dimension; and the gradients of
    an expectation along mean and covariance are the expected gradient and half the expected Hessian (Opper and
    Archambeau 2009, equations 9 and 10).

    Args:
        judged: the comparisons.
        mean: `[annotator feature]`.
        covariance: `[annotator feature feature]`.
        shared: `[2]`.
    """
    eta, spread = judged.advantage(mean), judged.spread(covariance)

    def add(sums: Any, point: Any) -> Any:
        z, mass = point
        at = answer(judged, eta + z * spread, shared)
        new = (at.log_p, at.slope, at.curvature, told_of_shared(judged, at))
        return jax.tree.map(lambda old, value: old + mass * value, sums, new), None

    zero = jnp.zeros_like(eta)
    points = jnp.asarray(POINTS, eta.dtype), jnp.asarray(MASS / MASS.sum(), eta.dtype)
    start = (zero, zero, zero, (jnp.zeros(2, eta.dtype), jnp.zeros((2, 2), eta.dtype)))
    (value, slope, curvature, told), _ = jax.lax.scan(add, start, points)
    return Expected(judged.total(value), judged.directions(slope), judged.squares(curvature), told)
