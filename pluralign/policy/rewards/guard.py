"""Guard rails of training: what the policy's responses look like to a posterior that knows how little it knows.

A proxy reward that is optimised long enough rises where it is wrong (Gao, Schulman and Hilton 2022). The proxy cannot
tell, but the posterior behind it can: its draws part, and features leave the data. The monitor watches both, online at
every step, offline at every so-manyth, when the policy writes for it; and a guard says what is too much and what then
happens. At each look it tells, means over the look's responses:

- `guard/proxy`: the rule's reward, less that of what the reference writes on the same prompt, in units of welfare.
- `guard/lower`: its lower bound, `mean - k sd` over posterior draws, response by response.
- `guard/gap`: `guard/proxy - guard/lower`; grows as the policy goes where draws part.
- `guard/drop`: how far `guard/lower` is below the best that it was; the proxy may rise all the while.
- `guard/kl`: `log(pi / pi_ref)`, in nats per response.
- `guard/disagreement`: probability that two posterior draws order two responses to one prompt differently, in [0, 1/2]
  but for few draws; absent if no prompt has two different responses.
- `guard/leverage`: share of responses that are farther from the data than 99 % of the candidates are; about 0.01 for
  responses like the candidates.
- `guard/strikes`: looks in a row in which a limit was passed.
- `guard/caution`: standard deviations that are subtracted from the reward from then on.
- `guard/best`: the best that `guard/lower` was.
"""

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from jaxtyping import Bool, Float

from pluralign.errors import InputError
from pluralign.policy.rewards.leverage import as_new, directions, distance, square
from pluralign.types import CautiousReward, Choice, Feedback, Linear, LinearReward

QUANTILE = 0.99  # of the candidates' leverage, beyond which a response is far from the data
FOLDS = 5  # a candidate's leverage is measured with data that do not hold its prompt, as a new response's is
MORE = 0.5  # standard deviations by which caution rises at a time


@dataclass(frozen=True)
class Guard:
    """Limits to training, and what happens when one is passed in `patience` looks in a row.

    - `stop`: training ends, the adapter goes back to what it was at the last look before the limit was passed, and the
      policy says why.
    - `caution`: half a standard deviation more is subtracted from each response's reward, from then on; offline from
      each candidate's, of which labels are made.
    - `fallback`: responses teach nothing until all limits hold again, so that only the divergence from the reference
      acts and the policy goes back to it. And whatever the limits say, a response farther from the data than 99 % of
      the candidates never teaches anything: the posterior does not know what it is worth. Offline, where only
      candidates teach, labels are those of the reference until the limits hold.

    Args:
        kl: at most so many nats per response from the reference.
        leverage: at most this share of responses farther from the data than 99 % of the candidates, in [0, 1].
        disagreement: at most this probability that two draws order two responses to a prompt differently, in [0, 1].
        gap: at most so much between the reward and its lower bound, in units of welfare.
        drop: the lower bound at most so far below the best that it was, in units of welfare; a mean over a step's
            responses is noisy, so leave room.
        action: what happens.
        k: standard deviations over draws from the mean to the lower bound.
        patience: looks in a row.
        ridge: added to the data's spread in every direction, as a share of its mean, so that directions in which the
            candidates happen not to differ count as far, not as infinitely far.
        every: steps from look to look offline, where the policy has to write for each; online every step is one.
    """

    kl: float | None = None
    leverage: float | None = None
    disagreement: float | None = None
    gap: float | None = None
    drop: float | None = None
    action: Literal["stop", "caution", "fallback"] = "stop"
    k: float = 2.0
    patience: int = 3
    ridge: float = 0.01
    every: int = 10
    kind: Literal["guard"] = "guard"

    def __post_init__(self):
        for name in ("kl", "leverage", "disagreement", "gap", "drop", "k", "ridge"):
            value = getattr(self, name)
            if value is not None and not (np.isfinite(value) and value >= 0):
                raise InputError(f"guard.{name} is {value}; it must be finite and not negative.")
        for name in ("patience", "every"):
            if getattr(self, name) < 1:
                raise InputError(f"guard.{name} is {getattr(self, name)}; it must be at least 1.")
        if not self.limits and self.action != "fallback":
            raise InputError(
                f"the guard has no limit, so it would never {self.action}; set kl, leverage, disagreement, gap or drop."
            )

    @property
    def limits(self) -> dict[str, float]:
        """The limits that are set."""
        every = {name: getattr(self, name) for name in ("kl", "leverage", "disagreement", "gap", "drop")}
        return {name: value for name, value in every.items() if value is not None}


@dataclass(frozen=True, eq=False)
class Verdict:
    """What a monitor says of the responses of one look.

    Attributes:
        metrics: `guard/...`, for the record of the step; the next call reads them from there.
        counts: whether a response may teach what its reward says; False: its advantage is to be 0.
        penalty: to be subtracted from the rewards, in units of welfare.
        passed: names of the limits that were passed.
        stop: why training must end; None: it goes on.
    """

    metrics: dict[str, float]
    counts: Bool[np.ndarray, " response"]
    penalty: Float[np.ndarray, " response"]
    passed: tuple[str, ...]
    stop: str | None


@dataclass(frozen=True, eq=False)
class Monitor:
    """Watches responses with the posterior behind a choice; made by `of`, it keeps nothing from call to call.

    Attributes:
        guard: the limits.
        reward: what is optimised.
        weights: of the features in the rule's reward, in every posterior draw.
        places: row of `origins` of each prompt.
        origins: mean features of what the reference writes on each prompt; the last row is the mean over prompts, for
            prompts that are not among them.
        whiten: features to directions in which squares add up to the leverage.
        beyond: directions in which the data say nothing at all, if there is no ridge.
        far: leverage of the candidate that 99 % of the candidates do not exceed.
    """

    guard: Guard
    reward: LinearReward | CautiousReward
    weights: Float[np.ndarray, "draw feature"]
    places: Mapping[Any, int]
    origins: Float[np.ndarray, "place feature"]
    whiten: Float[np.ndarray, "feature direction"]
    beyond: Float[np.ndarray, "feature unknown"]
    far: float

    @classmethod
    def of(cls, guard: Guard, chosen: Choice, votes: Feedback | None = None) -> "Monitor":
        """Learn from a choice what its posterior knows.

        In draw s the rule's reward is `sum_v lambda_v U[s, v]`, with its multipliers summed over draws, as for rewards
        that are cautious per response; rules without multipliers are watched by the voters' mass.

        Args:
            guard: the limits.
            chosen: on utilities that are linear in features.
            votes: that it was made from; prompts are then known by their texts. None: by the row of the choice.

        Raises:
            InputError: utilities are dense; no prompt has two candidates that differ; a limit needs more draws.
        """
        utilities = chosen.utilities
        if not isinstance(utilities.value, Linear):
            raise InputError("dense utilities say nothing of new responses, so there is nothing to guard them by.")
        weights = _weights(chosen)
        if guard.disagreement is not None and len(weights) < 2:
            raise InputError("guard.disagreement is about two posterior draws, and there is one; leave it out.")
        phi, reference = utilities.value.phi, utilities.reference
        own = np.einsum("xy,xyf->xf", reference, phi)
        folds, size = np.arange(len(phi)) % FOLDS, (reference > 0).sum(1)
        pairs = np.bincount(folds, size * (size - 1) / 2, FOLDS)
        squares = np.array([square(phi[folds == k], reference[folds == k] > 0) for k in range(FOLDS)])
        if not squares.any():
            raise InputError("no prompt has two candidates that differ, so nothing tells what is near the data.")
        leverages = []
        for k in range(FOLDS):
            others = np.arange(FOLDS) != k
            if not squares[others].any():  # one prompt only: it has to be measured by itself
                others[:] = True
            known = directions(squares[others].sum(0) / pairs[others].sum(), guard.ridge)
            leverages.append(distance(as_new(phi[folds == k], reference[folds == k]), *known))
        far = float(np.quantile(np.concatenate(leverages), QUANTILE, method="higher"))
        if not np.isfinite(far):
            raise InputError(
                "candidates of some prompts differ in directions in which others never do, so without a ridge all are "
                "infinitely far from the data; set guard.ridge above 0."
            )
        names = [votes.items["prompt"][i] for i in _first(chosen)] if votes is not None else range(len(phi))
        places = {name: i for i, name in reversed(list(enumerate(names)))}  # of equal texts the first stands
        reward = chosen.reward or LinearReward(weights.mean(0))
        origins = np.vstack([own, own.mean(0)])
        known = directions(squares.sum(0) / pairs.sum(), guard.ridge)
        return cls(guard, reward, weights, places, origins, *known, far)

    def leverage(self, away: Float[np.ndarray, "response feature"]) -> Float[np.ndarray, " response"]:
        """Return how far differences of features are from the differences between candidates.

        `h(x) = x' (S + ridge I)^+ x / rank(S)`, with `S` the mean of `(phi_i - phi_j) (phi_i - phi_j)'` over pairs of
        candidates of one prompt. Without a ridge its mean over these pairs is 1.
        """
        return distance(away, self.whiten, self.beyond)

    def doubt(
        self, phi: Float[np.ndarray, "response feature"], prompts: Sequence[Hashable]
    ) -> Float[np.ndarray, " response"]:
        """Return the standard deviation over draws of what responses gain; arguments are those of a call."""
        return (self.weights @ (phi - self._against(prompts)).T).std(0)

    def _against(self, prompts: Sequence[Hashable]) -> Float[np.ndarray, "response feature"]:
        return self.origins[[self.places.get(name, -1) for name in prompts]]

    def __call__(
        self,
        phi: Float[np.ndarray, "response feature"],
        prompts: Sequence[Hashable],
        log_ratio: Float[np.ndarray, " response"] | None = None,
        last: Mapping[str, float] | None = None,
    ) -> Verdict:
        """Return what the guard says of the responses of a step, of all processes together.

        Args:
            phi: their features.
            prompts: the prompt of each, as the monitor was made (text or row); one that it does not know is measured
                from the mean over all prompts.
            log_ratio: `log(pi / pi_ref)` of each; None: the `kl` of `last`, for loops that know it only afterwards.
            last: record of the look before, with `guard/...` and `kl`; None or empty: this is the first.

        Raises:
            InputError: a number is not finite; disagreement is limited, and no prompt has two different responses.
        """
        phi, last = np.asarray(phi, np.float64), last or {}
        if phi.shape != (len(prompts), self.weights.shape[1]) or not len(phi):
            raise InputError(
                f"phi is {phi.shape} for {len(prompts)} responses; the reward has {self.weights.shape[1]} features."
            )
        if not np.isfinite(phi).all() or not (log_ratio is None or np.isfinite(log_ratio).all()):
            raise InputError("a feature or log-ratio of a response is not finite, so nothing can be said of it.")
        against = self._against(prompts)
        away = phi - against
        if isinstance(self.reward, CautiousReward):
            proxy = float(self.reward.score(phi, against).mean())
        else:
            proxy = float(self.reward.score(away).mean())
        values = self.weights @ away.T
        spread = values.std(0)
        lower = float((values.mean(0) - self.guard.k * spread).mean())
        known = self.leverage(away) <= self.far
        best = last.get("guard/best", lower)
        seen = {
            "kl": last.get("kl", 0.0) if log_ratio is None else float(np.mean(log_ratio)),
            "leverage": float(1 - known.mean()),
            "gap": proxy - lower,
            "drop": max(best - lower, 0.0),
        }
        differ = _disagreement(values, prompts)
        if np.isfinite(differ):
            seen["disagreement"] = differ
        elif "disagreement" in self.guard.limits:
            raise InputError(
                "guard.disagreement is about responses to one prompt, and no prompt has two that differ; let the "
                "policy write several per prompt, or leave the limit out."
            )
        limits = self.guard.limits
        passed = tuple(name for name in limits if seen[name] > limits[name])
        strikes = last.get("guard/strikes", 0.0) + 1 if passed else 0.0
        acts = strikes >= self.guard.patience
        caution = last.get("guard/caution", 0.0)
        counts, more, stop = np.ones(len(phi), bool), 0.0, None
        if self.guard.action == "fallback":
            counts = known & (not acts)
        elif acts and self.guard.action == "caution":
            more, strikes = MORE, 0.0
        elif acts:
            told = ", ".join(f"{name} is {seen[name]:.4g}, above its limit {limits[name]:.4g}" for name in passed)
            stop = f"{told}; a limit was passed in {strikes:.0f} looks in a row (proxy {proxy:.4g}, lower {lower:.4g})"
        numbers = seen | {"proxy": proxy, "lower": lower, "strikes": strikes, "caution": caution + more}
        numbers["best"] = max(best, lower)
        metrics = {f"guard/{name}": float(value) for name, value in numbers.items()}
        return Verdict(metrics, counts, caution * spread, passed, stop)


def _weights(chosen: Choice) -> Float[np.ndarray, "draw feature"]:
    """Return the weights of features in the rule's reward, draw by draw."""
    if isinstance(chosen.reward, CautiousReward):
        return chosen.reward.weights
    value = chosen.utilities.value
    assert isinstance(value, Linear)
    of_voter = chosen.utilities.mass if chosen.weights is None else chosen.weights.sum(0)
    weights = np.einsum("v,svf->sf", of_voter, value.weights)
    if chosen.rows is not None and chosen.prices is not None and isinstance(chosen.rows.value, Linear):
        weights = weights + np.einsum("r,srf->sf", chosen.prices.sum(0), chosen.rows.value.weights)
    return weights


def _first(chosen: Choice) -> list[int]:
    """Return one item of each prompt of the choice."""
    item = np.asarray(chosen.utilities.item)
    on = (chosen.utilities.reference > 0).argmax(1)
    return [int(i) for i in item[np.arange(len(item)), on]]


def _disagreement(values: Float[np.ndarray, "draw response"], prompts: Sequence[Hashable]) -> float:
    """Return the probability that two draws order two responses to one prompt differently; NaN if nothing is ordered.

    With a share p of the S draws for one order and q for the other, two different draws differ with probability
    `2 p q S / (S - 1)`. Pairs that are equal in every draw, such as a text and itself, have no order.
    """
    draws = len(values)
    if draws < 2:
        return float("nan")
    groups: dict[Hashable, list[int]] = {}
    for i, name in enumerate(prompts):
        groups.setdefault(name, []).append(i)
    every = []
    for members in groups.values():
        i, j = np.triu_indices(len(members), 1)
        gap = values[:, members][:, i] - values[:, members][:, j]
        gap = gap[:, (gap != 0).any(0)]
        every.append(2 * (gap > 0).mean(0) * (gap < 0).mean(0) * draws / (draws - 1))
    pairs = np.concatenate(every)
    return float(pairs.mean()) if len(pairs) else float("nan")
