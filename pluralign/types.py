"""The frozen dataclasses that pass between rooms. numpy only: torch and jax never meet here.

Axis words, the same in shape annotations, einops patterns, numpyro plates and docs:
`choice` (one act of choosing), `slot` (a place in a slate), `grade` (one act of grading), `annotator`,
`item` (a prompt with a response), `prompt`, `candidate` (an item among those of its prompt), `objective`,
`feature`, `draw` (of the posterior), `voter` (whoever a rule counts: an annotator, a latent component, a group).

Masks: True means *counts*. Utilities are in logits until a `scale` says otherwise.
"""

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Bool, Float, Int

from pluralign.errors import InputError

if TYPE_CHECKING:
    from datasets import Dataset

Array = np.ndarray


def _check(ok: bool, message: str) -> None:
    if not ok:
        raise InputError(message)


def _freeze(instance: Any, **arrays: tuple[Any, Any]) -> None:
    """Convert each field to an array of the stated dtype; a frozen dataclass still owns its arrays."""
    for name, (value, dtype) in arrays.items():
        object.__setattr__(instance, name, np.asarray(value, dtype))


def _fill(instance: Any, n: int, **defaults: int) -> None:
    """Give columns that were left out their value for "unknown"."""
    for name, value in defaults.items():
        if getattr(instance, name) is None:
            object.__setattr__(instance, name, np.full(n, value))


def _finite(name: str, value: Array) -> None:
    if value.size and not np.isfinite(value).all():
        where = tuple(int(i) for i in np.argwhere(~np.isfinite(value))[0])
        raise InputError(f"{name}{list(where)} is {value[where]}; every entry must be finite.")


def _simplex(name: str, value: Array) -> None:
    """Check that the last axis of `value` is a probability vector."""
    _finite(name, value)
    _check(bool((value >= 0).all()), f"{name} has a negative entry ({value.min():.6g}).")
    off = np.abs(value.sum(-1) - 1)
    if off.size and off.max() > 1e-6:
        row = np.unravel_index(int(off.argmax()), off.shape)
        where = f"{name}{[int(i) for i in row]}" if off.ndim else name
        raise InputError(f"{where} sums to {value.sum(-1)[row]:.8g}, not 1; divide it by its sum.")


def _apart(a: Array, b: Array) -> Array:
    """Return total variation along the last axis."""
    return np.abs(a - b).sum(-1) / 2


def _stderr(values: Array) -> Array:
    """Return the standard error of the mean over the first axis; NaN for one value."""
    n = len(values)
    return values.std(0, ddof=1) / np.sqrt(n) if n > 1 else np.full(values.shape[1:], np.nan)


FORMS = ("comparison", "best-of", "ranking", "correction", "demonstration")
"""What kind of act a choice was; a correction is an edited response preferred to the original."""


@dataclass(frozen=True, eq=False)
class Choices:
    """Comparisons, ties, best-of-k, rankings, corrections, demonstrations: an order over a slate.

    Attributes:
        slate: item index in each slot as it was shown, -1 = empty slot.
        rank: 0 = best, equal = tie, -1 = shown but not ranked (below all ranked) or empty.
        annotator: index of who chose.
        objective: index of what was asked (into `Feedback.objectives`).
        context: place of the choice in the annotator's own order of work, -1 = unknown.
        strength: how strongly the best is preferred, 1 = least; 0 = not stated, or a tie.
        form: index into `FORMS`; by default read off the slate: one slot is a demonstration, two are a comparison,
            more with one best and no further order are best-of-k, else a ranking.
        time: when, in seconds since 1970 (UTC), -1 = unknown.
        sitting: index of the sitting (session, task, batch), -1 = unknown.
    """

    slate: Int[Array, "choice slot"]
    rank: Int[Array, "choice slot"]
    annotator: Int[Array, " choice"]
    objective: Int[Array, " choice"]
    context: Int[Array, " choice"]
    strength: Int[Array, " choice"] = None  # pyright: ignore[reportAssignmentType]  # filled in, as are those below
    form: Int[Array, " choice"] = None  # pyright: ignore[reportAssignmentType]
    time: Int[Array, " choice"] = None  # pyright: ignore[reportAssignmentType]
    sitting: Int[Array, " choice"] = None  # pyright: ignore[reportAssignmentType]

    def __post_init__(self):
        n = len(self.slate)
        _fill(self, n, strength=0, time=-1, sitting=-1)
        _freeze(self, slate=(self.slate, np.int32), rank=(self.rank, np.int32))
        _check(self.slate.ndim == 2, f"slate must be [choice slot], got shape {self.slate.shape}.")
        _check(self.rank.shape == self.slate.shape, "rank and slate must have the same shape.")
        ranked = (self.slate < 0) & (self.rank >= 0)
        _check(not ranked.any(), "an empty slot (slate -1) carries a rank.")
        best = np.where(self.rank >= 0, self.rank, np.iinfo(np.int32).max).min(1, initial=2**31 - 1)
        _check(bool((best == 0).all()), "every choice needs a best item: some row of rank has no 0.")
        if self.form is None:
            shown = (self.slate >= 0).sum(1)
            single = ((self.rank == 0).sum(1) == 1) & (self.rank <= 0).all(1)
            names = np.select([shown == 1, shown == 2, single], [4, 0, 1], 2)
            object.__setattr__(self, "form", names)
        _freeze(self, **{name: (getattr(self, name), np.int32) for name in ("annotator", "objective", "context")})
        _freeze(self, strength=(self.strength, np.int8), form=(self.form, np.int8), time=(self.time, np.int64))
        _freeze(self, sitting=(self.sitting, np.int32))
        for name in ("annotator", "objective", "context", "strength", "form", "time", "sitting"):
            shape = getattr(self, name).shape
            _check(shape == (n,), f"{name} must be [choice] = [{n}], got shape {shape}.")
        _check(bool((self.strength >= 0).all()), "strength has a negative entry; 0 = not stated.")
        _check(bool(((self.form >= 0) & (self.form < len(FORMS))).all()), f"form must index {FORMS}.")

    def __len__(self) -> int:
        return len(self.slate)

    @classmethod
    def none(cls) -> "Choices":
        """Return an empty block."""
        return cls(*np.zeros((2, 0, 2), np.int32), *np.zeros((3, 0), np.int32))

    def where(self, counts: Bool[Array, " choice"]) -> "Choices":
        """Return the choices for which `counts` is True."""
        return Choices(**{name: value[counts] for name, value in vars(self).items()})


@dataclass(frozen=True)
class Scale:
    """What grades mean.

    Attributes:
        name: of the scale, such as "helpfulness 0-4".
        labels: of its grades, the lowest first; grade 0 is `labels[0]`.
        form: "rating" (stars, Likert), "label" (yes/no and other ordered labels), "approval" (approved or not),
            "vote" (disagree, pass, agree).
    """

    name: str
    labels: tuple[str, ...]
    form: str = "rating"

    def __post_init__(self):
        _check(len(self.labels) >= 2, f"scale {self.name!r} has the labels {self.labels}; it needs at least two.")
        _check(len(set(self.labels)) == len(self.labels), f"scale {self.name!r} names a label twice: {self.labels}.")
        forms = ("rating", "label", "approval", "vote")
        _check(self.form in forms, f"scale {self.name!r} has the form {self.form!r}; it is one of {', '.join(forms)}.")


@dataclass(frozen=True, eq=False)
class Grades:
    """Ratings, Likert grades, labels, approvals, agree/pass/disagree votes: one value for one item.

    Attributes:
        item: index of what was graded.
        value: grade on its scale, 0 = lowest.
        scale: index of the scale (into `Feedback.scales`).
        annotator: index of who graded.
        objective: index of what was asked.
        context: place in the annotator's own order of work, -1 = unknown.
        time: when, in seconds since 1970 (UTC), -1 = unknown.
        sitting: index of the sitting (session, task, batch), -1 = unknown.
    """

    item: Int[Array, " grade"]
    value: Int[Array, " grade"]
    scale: Int[Array, " grade"]
    annotator: Int[Array, " grade"]
    objective: Int[Array, " grade"]
    context: Int[Array, " grade"]
    time: Int[Array, " grade"] = None  # pyright: ignore[reportAssignmentType]  # filled in
    sitting: Int[Array, " grade"] = None  # pyright: ignore[reportAssignmentType]

    def __post_init__(self):
        _fill(self, len(self.item), time=-1, sitting=-1)
        _freeze(self, **{n: (v, np.int64 if n == "time" else np.int32) for n, v in vars(self).items()})
        shapes = {name: value.shape for name, value in vars(self).items()}
        _check(set(shapes.values()) == {(len(self.item),)}, f"all fields must be [grade], got {shapes}.")

    def __len__(self) -> int:
        return len(self.item)

    @classmethod
    def none(cls) -> "Grades":
        """Return an empty block."""
        return cls(*([np.zeros(0, np.int32)] * 6))

    def where(self, counts: Bool[Array, " grade"]) -> "Grades":
        """Return the grades for which `counts` is True."""
        return Grades(**{name: value[counts] for name, value in vars(self).items()})


@dataclass(frozen=True, eq=False)
class Truth:
    """What a simulated community really wants: `u[annotator, item] = phi[item] · weights[annotator]`."""

    weights: Float[Array, "annotator feature"]
    features: tuple[str, ...]
    careless: Bool[Array, " annotator"]

    def __post_init__(self):
        _freeze(self, weights=(self.weights, np.float64), careless=(self.careless, np.bool_))
        expected = (len(self.careless), len(self.features))
        _check(self.weights.shape == expected, f"weights must be {expected}, got {self.weights.shape}.")


@dataclass(frozen=True, eq=False)
class Feedback:
    """Who judged what, and how.

    Attributes:
        items: table of `prompt_id` (dense integers from 0), `prompt`, `response`, `source`.
        annotators: table of `id`, `weight` (how much the annotator counts) and any attributes.
        objectives: names of what was asked.
        choices: all orders over slates.
        grades: all grades.
        provenance: where it came from: source config, content hash, rows read, rows set aside and why.
        truth: the simulated annotators' own utilities, if there are any.
        scales: what the values of `grades` mean.
    """

    items: "Dataset"
    annotators: "Dataset"
    objectives: tuple[str, ...]
    choices: Choices
    grades: Grades
    provenance: dict[str, Any] = field(default_factory=dict)
    truth: Truth | None = None
    scales: tuple[Scale, ...] = ()

    def __post_init__(self):
        for table, columns in (("items", ("prompt_id", "prompt", "response")), ("annotators", ("id", "weight"))):
            have = getattr(self, table).column_names
            missing = [c for c in columns if c not in have]
            _check(not missing, f"{table} lacks the columns {missing}; it has {have}.")
        bounds = {"annotator": len(self.annotators), "objective": len(self.objectives)}
        for name, block, item in (("choices", self.choices, "slate"), ("grades", self.grades, "item")):
            for column, size in {item: len(self.items), **bounds}.items():
                index, lowest = getattr(block, column), -1 if column == "slate" else 0
                if index.size and not (lowest <= index.min() and index.max() < size):
                    bad = index[(index < lowest) | (index >= size)].flat[0]
                    raise InputError(f"{name}.{column} holds {bad}, outside {lowest}..{size - 1}.")
        grades, levels = self.grades, np.array([len(scale.labels) for scale in self.scales] + [0])
        known = (grades.scale >= 0) & (grades.scale < len(self.scales))
        _check(bool(known.all()), f"grades.scale holds an index outside 0..{len(self.scales) - 1}; name it in scales.")
        off = (grades.value < 0) | (grades.value >= levels[grades.scale])
        if off.any():
            row = int(off.argmax())
            labels = self.scales[grades.scale[row]].labels
            raise InputError(
                f"grades.value[{row}] is {grades.value[row]}; its scale has the grades 0..{len(labels) - 1}."
            )

    @property
    def prompt_id(self) -> Int[Array, " item"]:
        """Index of each item's prompt."""
        return np.asarray(self.items["prompt_id"][:], np.int32)

    def where(self, counts: Bool[Array, " choice"]) -> "Feedback":
        """Return the same items and annotators with only the choices for which `counts` is True."""
        return replace(self, choices=self.choices.where(counts))

    def attribute(self, name: str) -> tuple[str, ...]:
        """Return one attribute of every annotator, as words.

        Raises:
            InputError: there is no such attribute.
        """
        have = [c for c in self.annotators.column_names if c not in ("id", "weight")]
        _check(name in have, f"annotators have no attribute {name!r}; they have {have or 'none'}.")
        return tuple(str(value) for value in self.annotators[name])


@dataclass(frozen=True, eq=False)
class Features:
    """Linear features of items, `phi = (raw - origin) basis^T`, with what is needed to make more of them.

    Attributes:
        phi: one row per item of the feedback.
        prompt_id: index of each item's prompt; items of one prompt are its candidates.
        names: one per feature.
        origin: subtracted from the raw representation.
        basis: rows are features in terms of the raw representation.
        provenance: model, pooling, explained variance, content hash.
    """

    phi: Float[Array, "item feature"]
    prompt_id: Int[Array, " item"]
    names: tuple[str, ...]
    origin: Float[Array, " raw"]
    basis: Float[Array, "feature raw"]
    provenance: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self):
        _freeze(self, **{name: (getattr(self, name), np.float32) for name in ("phi", "origin", "basis")})
        _freeze(self, prompt_id=(self.prompt_id, np.int32))
        _check(self.phi.ndim == 2, f"phi must be [item feature], got shape {self.phi.shape}.")
        shape = (len(self.phi),)
        _check(self.prompt_id.shape == shape, f"prompt_id must be [item] = {list(shape)}, got {self.prompt_id.shape}.")
        _check(bool((self.prompt_id >= 0).all()), "prompt_id has a negative entry; prompts are numbered from 0.")
        _check(len(self.names) == self.phi.shape[1], f"{len(self.names)} names, {self.phi.shape[1]} features.")
        expected = (self.phi.shape[1], len(self.origin))
        _check(self.basis.shape == expected, f"basis must be {expected}, got {self.basis.shape}.")
        _finite("phi", self.phi)

    def project(self, raw: Float[Array, "item raw"]) -> Float[Array, "item feature"]:
        """Return the features of further items from their raw representation."""
        return (np.asarray(raw, np.float32) - self.origin) @ self.basis.T


@dataclass(frozen=True)
class LeaveOneOut:
    """How well judgements are predicted from all the others, by importance sampling.

    Attributes:
        elpd: expected log predictive density, the sum over all judgements of `log P(judgement | all others)`, in nats.
        stderr: its standard error, clustered by annotator.
        p_loo: effective number of parameters, by how much the log predictive density falls when judgements are left
            out.
        bad: share of judgements whose Pareto k is above `limit`; what is said of these cannot be trusted.
        limit: the largest k that is good with so many draws.
        sampled: of how many judgements it was computed.
        judgements: how many there are.
    """

    elpd: float
    stderr: float
    p_loo: float
    bad: float
    limit: float
    sampled: int
    judgements: int


@dataclass(frozen=True)
class PredictiveCheck:
    """What somebody did beside what the fitted model would have them do.

    Attributes:
        statistic: what was counted.
        who: name of the annotator or group.
        of: "annotator" or "group".
        judgements: how many it is about.
        observed: what they did.
        expected: its posterior predictive mean.
        low: 5 % quantile of the posterior predictive distribution, about.
        high: 95 % quantile, about.
        p: two-sided posterior predictive p value.
        q: the same, corrected for how many annotators (or groups) were looked at (Benjamini and Hochberg 1995).
    """

    statistic: str
    who: str
    of: str
    judgements: int
    observed: float
    expected: float
    low: float
    high: float
    p: float
    q: float


@dataclass(frozen=True)
class CalibrationCurve:
    """Predicted probabilities that the first of two wins beside how often it won, by bins of the prediction.

    Attributes:
        of: "in sample" or "left out".
        error: expected calibration error, `sum_bin count / total |observed - predicted|`.
        by_chance: what the error would be on average if every prediction were right.
        p: p value of the bins' deviations if every prediction were right.
        predicted: mean prediction of each bin that is not empty.
        observed: share of wins of the first.
        count: judgements.
    """

    of: str
    error: float
    by_chance: float
    p: float
    predicted: tuple[float, ...]
    observed: tuple[float, ...]
    count: tuple[int, ...]


@dataclass(frozen=True)
class FitReport:
    """Whether the numbers of a posterior can be trusted.

    Attributes:
        method: what made the draws.
        chains: how many independent chains.
        draws: draws per chain.
        divergences: divergent transitions after warm-up.
        rhat: worst rank-normalised split R-hat of each site (Vehtari et al. 2021).
        ess_bulk: smallest bulk effective sample size of each site.
        ess_tail: smallest tail effective sample size of each site.
        seconds: wall time of the fit.
        caveats: what is wrong, in sentences; empty means that every check passed.
        notes: facts about the fit that are no fault (conventions, what was not identified and how it is pinned).
        bfmi: estimated Bayesian fraction of missing information of each chain; empty unless the sampler has energies.
        loo: predictions of judgements that are left out one by one; None if nobody asked.
        checks: posterior predictive checks, of all groups and of the annotators that are off.
        calibration: of predicted wins of the first of two.
    """

    method: str
    chains: int
    draws: int
    divergences: int
    rhat: dict[str, float]
    ess_bulk: dict[str, float]
    ess_tail: dict[str, float]
    seconds: float
    caveats: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    bfmi: tuple[float, ...] = ()
    loo: LeaveOneOut | None = None
    checks: tuple[PredictiveCheck, ...] = ()
    calibration: tuple[CalibrationCurve, ...] = ()

    @property
    def converged(self) -> bool:
        """True if no check failed."""
        return not self.caveats


@dataclass(frozen=True, eq=False)
class RewardPosterior:
    """Draws of every voter's reward weights: `r[draw, voter](item) = phi[item] · weights[draw, voter, objective]`.

    Attributes:
        weights: in logits per unit of feature.
        mass: how much each voter counts, sums to 1.
        voters: their names.
        membership: probability that an annotator is a voter; None if voters are the annotators, in order.
        rater: per annotator and draw, parameters of noise: `lapse` (probability of a random answer),
            `temperature` (utilities are divided by it), `position` (logit bonus of the first slot), `tie` (log tie
            propensity), `threshold` (an advantage that is needed to win), `leniency` (logits by which grades are
            raised), `stretch` (log factor of the cutpoints of grades); only those in the model.
        features: names of the features.
        fit: diagnostics.
        objectives: names of the objectives.
        quality: what each judged item is worth beyond its features, in logits; None if the model has no item effects.
        common: per draw, parameters that all annotators share, and those of the population.
        own: per draw and voter, what is known of it besides weights: `tradeoff` (how much each of the other objectives
            counts in the overall one), `place` (along the factors of items, `common["item_factor"]`).
        covariates: names of the columns that regress the population's mean, `common["effect"]`.
        model: the population with its settings, as plain values.
    """

    weights: Float[Array, "draw voter objective feature"]
    mass: Float[Array, " voter"]
    voters: tuple[str, ...]
    membership: Float[Array, "annotator voter"] | None
    rater: dict[str, Float[Array, "draw annotator"]]
    features: tuple[str, ...]
    fit: FitReport
    objectives: tuple[str, ...] = ("overall",)
    quality: Float[Array, "draw item objective"] | None = None
    common: dict[str, Float[Array, "draw ..."]] = field(default_factory=dict)
    own: dict[str, Float[Array, "draw voter ..."]] = field(default_factory=dict)
    covariates: tuple[str, ...] = ()
    model: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self):
        _freeze(self, weights=(self.weights, np.float32), mass=(self.mass, np.float64))
        _check(self.weights.ndim == 4, f"weights must be [draw voter objective feature], got {self.weights.shape}.")
        _finite("weights", self.weights)
        _simplex("mass", self.mass)
        _check(len(self.mass) == self.weights.shape[1] == len(self.voters), "mass, voters and weights disagree.")
        _check(len(self.features) == self.weights.shape[3], "feature names and weights disagree.")
        _check(len(self.objectives) == self.weights.shape[2], "objectives and weights disagree.")

    def at(self, draws: Int[Array, " draw"]) -> "RewardPosterior":
        """Return the posterior of these draws alone."""
        chosen = {name: {n: v[draws] for n, v in getattr(self, name).items()} for name in ("rater", "common", "own")}
        quality = None if self.quality is None else self.quality[draws]
        return replace(self, weights=self.weights[draws], quality=quality, **chosen)

    def beyond(self, items: Int[Array, "..."], objective: int = 0) -> Float[Array, "draw voter ..."]:
        """Return what items are worth beyond their features to each voter, in logits; 0 without item effects.

        Args:
            items: their indices.
            objective: index of what is asked.
        """
        if self.quality is None:
            return np.zeros((len(self.weights), 1, *np.shape(items)))
        worth = self.quality[:, items, objective].astype(np.float64)[:, None]
        if "item_factor" in self.common:
            factor = self.common["item_factor"][:, items, objective].astype(np.float64)
            worth = worth + np.einsum("s...k,svk->sv...", factor, self.own["place"].astype(np.float64))
        return worth

    def save(self, path: str | Path) -> Path:
        """Write the posterior with its diagnostics to a folder, atomically."""
        from pluralign import artifacts

        return artifacts.save(self, path)

    @classmethod
    def load(cls, path: str | Path) -> "RewardPosterior":
        """Read what `save` wrote.

        Raises:
            InputError: the folder does not hold a posterior, or was changed since it was written.
        """
        from pluralign import artifacts

        return artifacts.load(path, cls)


@dataclass(frozen=True, eq=False)
class Linear:
    """Utilities that are linear in features: `U[draw, voter, prompt, candidate] = phi · weights + offset`."""

    phi: Float[Array, "prompt candidate feature"]
    weights: Float[Array, "draw voter feature"]
    offset: Float[Array, "draw voter"]

    def __post_init__(self):
        _freeze(self, **{name: (value, np.float64) for name, value in vars(self).items()})
        _check(self.phi.shape[-1] == self.weights.shape[-1], "phi and weights disagree on features.")
        _check(self.offset.shape == self.weights.shape[:2], "offset must be [draw voter].")
        for name, value in vars(self).items():
            _finite(name, value)


@dataclass(frozen=True, eq=False)
class Utilities:
    """What each voter gains from each candidate answer, in every posterior draw.

    Attributes:
        value: the utilities, dense or kept factored.
        mass: how much each voter counts, sums to 1.
        reference: the policy to stay near, rows sum to 1; 0 = not a candidate of this prompt.
        item: index of each candidate among the feedback's items, -1 = none.
        voters: their names.
        prompts: index of each row among the feedback's prompts.
        scale: in words, what makes utilities of different voters comparable.
        caveats: of the posterior behind them.
        groups: group of each voter, if any are declared.
    """

    value: Float[Array, "draw voter prompt candidate"] | Linear
    mass: Float[Array, " voter"]
    reference: Float[Array, "prompt candidate"]
    item: Int[Array, "prompt candidate"] | None = None
    voters: tuple[str, ...] | None = None
    prompts: tuple[int, ...] | None = None
    scale: str = "as given"
    caveats: tuple[str, ...] = ()
    groups: tuple[str, ...] | None = None

    def __post_init__(self):
        _freeze(self, mass=(self.mass, np.float64), reference=(self.reference, np.float64))
        if not isinstance(self.value, Linear):
            _freeze(self, value=(self.value, np.float64))
            _check(self.value.ndim == 4, f"value must be [draw voter prompt candidate], got {self.value.shape}.")
            _finite("value", self.value)
        _simplex("mass", self.mass)
        _simplex("reference", self.reference)
        shape = self.shape
        _check(self.mass.shape == shape[1:2], f"mass is {self.mass.shape}, value has {shape[1]} voters.")
        _check(self.reference.shape == shape[2:], f"reference is {self.reference.shape}, value needs {shape[2:]}.")
        count = int(np.prod(self.reference.shape))
        item = np.arange(count).reshape(self.reference.shape) if self.item is None else np.asarray(self.item)
        _freeze(self, item=(item, np.int32))
        _check(item.shape == self.reference.shape, "item and reference must have the same shape.")
        if self.voters is None:
            object.__setattr__(self, "voters", tuple(f"voter {v}" for v in range(shape[1])))
        if self.prompts is None:
            object.__setattr__(self, "prompts", tuple(range(shape[2])))
        names = len(self.voters or ())
        _check(names == shape[1], f"{names} voter names, {shape[1]} voters.")
        if self.groups is not None:
            _check(len(self.groups) == shape[1], f"{len(self.groups)} groups, but {shape[1]} voters.")

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """Sizes of (draw, voter, prompt, candidate)."""
        if isinstance(self.value, Linear):
            return (*self.value.offset.shape, *self.value.phi.shape[:2])  # pyright: ignore[reportReturnType]
        return self.value.shape  # pyright: ignore[reportReturnType]

    def dense(self) -> Float[Array, "draw voter prompt candidate"]:
        """Return `U[draw, voter, prompt, candidate]` in full."""
        if not isinstance(self.value, Linear):
            return self.value
        tilted = np.einsum("xyf,svf->svxy", self.value.phi, self.value.weights, optimize=True)
        return tilted + self.value.offset[:, :, None, None]

    def expected(self, lottery: Float[Array, "prompt candidate"]) -> Float[Array, "draw voter"]:
        """Return `u[draw, voter] = mean_prompt sum_candidate lottery U`."""
        if not isinstance(self.value, Linear):
            # As products of a matrix with a vector these are as fast as memory; einsum would copy the table first.
            return (self.value.reshape(*self.shape[:2], -1) @ np.ravel(lottery)) / len(lottery)
        embedding = np.ravel(lottery) @ self.value.phi.reshape(-1, self.value.phi.shape[-1]) / len(lottery)
        return self.value.weights @ embedding + self.value.offset

    def weighted(self, weights: Float[Array, "draw voter"]) -> Float[Array, "prompt candidate"]:
        """Return `sum_{draw, voter} weights U`, the reward that these multipliers make."""
        if not isinstance(self.value, Linear):
            rows = self.value.reshape(weights.size, -1)
            return (np.ravel(weights) @ rows).reshape(self.shape[2:])
        contracted = np.ravel(weights) @ self.value.weights.reshape(weights.size, -1)
        return self.value.phi @ contracted + (weights * self.value.offset).sum()

    def of(self, phi: Float[Array, "item feature"]) -> Float[Array, "draw voter item"]:
        """Return the utilities of further responses from their features.

        Raises:
            InputError: these utilities are dense, so they say nothing of responses outside the table.
        """
        if not isinstance(self.value, Linear):
            raise InputError("dense utilities know only their own candidates; make them from features instead.")
        return np.einsum("svf,if->svi", self.value.weights, np.asarray(phi, np.float64)) + self.value.offset[..., None]


@dataclass(frozen=True)
class Certificate:
    """Proof of how near a lottery is to the optimum of its program.

    Attributes:
        value: objective at the lottery, in units of welfare.
        upper_bound: no lottery reaches more.
        gap: `upper_bound - value`.
        tv_bound: no optimal lottery is farther than this from the returned one, mean total variation over prompts:
            `sqrt(gap / (2 beta))` with the best value met, by strong concavity and Pinsker's inequality.
        cuts: supergradients that the bound is made of.
        seconds: wall time of the solve.
    """

    value: float
    upper_bound: float
    gap: float
    tv_bound: float
    cuts: int
    seconds: float


@dataclass(frozen=True)
class Demand:
    """What a constraint demanded of a lottery, and what it cost.

    Attributes:
        name: what had to be worth at least 0.
        value: what it is worth at the lottery, in its own units.
        multiplier: welfare that one unit less of it would have bought; 0: it did not bind.
    """

    name: str
    value: float
    multiplier: float


@dataclass(frozen=True, eq=False)
class LinearReward:
    """A reward for any response: `r = phi · weights`; only differences within a prompt mean something."""

    weights: Float[Array, " feature"]

    def __post_init__(self):
        _freeze(self, weights=(self.weights, np.float64))
        _finite("weights", self.weights)

    def score(self, phi: Float[Array, "item feature"]) -> Float[Array, " item"]:
        """Return the reward of responses with these features.

        Raises:
            InputError: the features are not those that the reward was made from.
        """
        phi = np.asarray(phi, np.float64)
        have, need = phi.shape[-1], len(self.weights)
        _check(have == need, f"{have} features, but this reward was made from {need}; encode with the same map.")
        return phi @ self.weights


@dataclass(frozen=True, eq=False)
class CautiousReward:
    """A reward that is sure of itself response by response, over draws of linear rewards.

        r = mean of the worst `tail` of (phi - origin) · weights[draw], less k times their standard deviation (ddof 0)

    It is no expectation of one reward, so the draws stay. What is uncertain about all responses to a prompt alike must
    not count: values are measured from what the reference writes, and that must be told for each prompt (`against`).

    Attributes:
        weights: of the features, in every draw.
        origin: mean features of what the reference writes, over all prompts.
        k: standard deviations subtracted, at least 0.
        tail: share of draws, the worst ones, whose mean is taken; in [0, 1], 0 is the worst draw.
    """

    weights: Float[Array, "draw feature"]
    origin: Float[Array, " feature"]
    k: float = 0.0
    tail: float = 1.0

    def __post_init__(self):
        _freeze(self, weights=(self.weights, np.float64), origin=(self.origin, np.float64))
        _finite("weights", self.weights)
        _finite("origin", self.origin)
        _check(self.weights.shape[1:] == self.origin.shape, "weights and origin disagree on features.")
        _check(bool(np.isfinite(self.k)) and self.k >= 0, f"k is {self.k}; it must be finite and not negative.")
        _check(0 <= self.tail <= 1, f"tail is {self.tail}; the share of worst draws lies in [0, 1].")

    def score(
        self, phi: Float[Array, "item feature"], against: Float[Array, "#item feature"] | None = None
    ) -> Float[Array, " item"]:
        """Return the reward of responses with these features.

        Args:
            phi: of the responses.
            against: mean features of what the reference writes on each response's own prompt; None: `origin`, which
                counts the uncertainty about how far the prompt is from others as the response's.

        Raises:
            InputError: the features are not those that the reward was made from.
        """
        phi = np.asarray(phi, np.float64)
        have, need = phi.shape[-1], len(self.origin)
        _check(have == need, f"{have} features, but this reward was made from {need}; encode with the same map.")
        return self.of(self.weights @ (phi - (self.origin if against is None else against)).T)

    def of(self, values: Float[Array, "draw *shape"]) -> Float[Array, "*shape"]:
        """Return the cautious value of what is worth `values` in every draw."""
        k = max(self.tail * len(values), 1.0)
        share = np.clip(k - np.arange(len(values)), 0, 1) / k
        worst = np.tensordot(share, np.sort(values, axis=0), axes=1) if self.tail < 1 else values.mean(0)
        return worst - self.k * values.std(0)


@dataclass(frozen=True, eq=False)
class Choice:
    """What a social-choice rule decided.

    Attributes:
        name: of the rule, as in configs and file names.
        lottery: probability of each candidate, rows sum to 1.
        weights: the rule's multipliers of `u[draw, voter]`; None for rules that have none.
        reward: how to score a response that was not a candidate; None if utilities have no features.
        beta: price of a nat of divergence from the reference, in units of welfare.
        risk: in words, how draws were combined.
        certificate: evidence of optimality.
        utilities: the problem that was solved.
        demands: what constraints demanded, each a row of `rows`.
        rows: what each demand is worth, in place of voters; None without constraints.
        prices: multipliers of `rows`.
    """

    name: str
    lottery: Float[Array, "prompt candidate"]
    weights: Float[Array, "draw voter"] | None
    reward: LinearReward | CautiousReward | None
    beta: float
    risk: str
    certificate: Certificate
    utilities: Utilities
    demands: tuple[Demand, ...] = ()
    rows: Utilities | None = None
    prices: Float[Array, "draw row"] | None = None

    def __post_init__(self):
        _freeze(self, lottery=(self.lottery, np.float64))
        _simplex("lottery", self.lottery)

    @property
    def caveats(self) -> tuple[str, ...]:
        """What the user must know before trusting any number made from this choice."""
        return self.utilities.caveats

    def log_ratio(self) -> Float[Array, "prompt candidate"]:
        """Return `log(lottery / reference)`, centred to mean 0 under the reference; 0 where the reference is 0.

        It is what a policy has to learn. From the multipliers it is exact even where the lottery underflows.
        """
        reference = self.utilities.reference
        if self.weights is not None:
            ratio = self.utilities.weighted(self.weights) / self.beta
            if self.rows is not None and self.prices is not None:
                ratio = ratio + self.rows.weighted(self.prices) / self.beta
        else:
            counts = (reference > 0) & (self.lottery > 0)
            ratio = np.log(np.where(counts, self.lottery, 1e-12) / np.where(reference > 0, reference, 1))
        ratio = np.where(reference > 0, ratio, 0)
        return np.where(reference > 0, ratio - (reference * ratio).sum(-1, keepdims=True), 0)


@dataclass(frozen=True, eq=False)
class Decision:
    """What a rule decides on each prompt in every posterior draw alone, and on posterior mean utilities.

    How far two decisions are apart is `sum_candidate |a - b| / 2` of their shares: 1 or 0 where each has one winner;
    with ties and lotteries, how often the two would answer differently if they followed one lot as far as they can.

    Attributes:
        name: of the rule.
        shares: 1 for the only winner, 1 / k for each of k tied winners, a lottery's chances; rows sum to 1.
        plug_in: the same on posterior mean utilities.
        enough: the data decide on a prompt if some candidate wins with at least this probability; in (0, 1].
    """

    name: str
    shares: Float[Array, "draw prompt candidate"]
    plug_in: Float[Array, "prompt candidate"]
    enough: float = 0.5

    def __post_init__(self):
        _freeze(self, shares=(self.shares, np.float64), plug_in=(self.plug_in, np.float64))
        _check(self.shares.ndim == 3, f"shares must be [draw prompt candidate], got shape {self.shares.shape}.")
        _check(self.plug_in.shape == self.shares.shape[1:], "plug_in and shares disagree on prompts or candidates.")
        _simplex("shares", self.shares)
        _simplex("plug_in", self.plug_in)
        _check(0 < self.enough <= 1, f"enough is {self.enough}; the probability from which data decide is in (0, 1].")

    @property
    def probability(self) -> Float[Array, "prompt candidate"]:
        """Probability that each candidate wins: the mean over draws."""
        return self.shares.mean(0)

    @property
    def stderr(self) -> Float[Array, "prompt candidate"]:
        """Monte Carlo standard error of `probability` from independent draws; NaN if there is only one."""
        return _stderr(self.shares)

    @property
    def likeliest(self) -> Float[Array, " prompt"]:
        """Probability of the most probable winner; with few draws that of a long shot among many is too high."""
        return self.probability.max(-1)

    @property
    def decided(self) -> Bool[Array, " prompt"]:
        """Whether some candidate wins with probability `enough`, but for rounding."""
        return self.likeliest >= self.enough - 1e-9

    @property
    def differs(self) -> Float[Array, " prompt"]:
        """Probability that a draw decides otherwise than posterior means do."""
        return _apart(self.shares, self.plug_in).mean(0)

    @property
    def differs_stderr(self) -> Float[Array, " prompt"]:
        """Monte Carlo standard error of `differs`; NaN if there is only one draw."""
        return _stderr(_apart(self.shares, self.plug_in))

    @property
    def ignorance(self) -> Float[Array, " prompt"]:
        """Probability that two different draws decide differently, over all pairs of draws; NaN if there is only one.

        The mean distance of all pairs of numbers comes from their order, `sum_i (2 i - n + 1) x_(i) * 2 / (n (n - 1))`
        with i from 0 (Gini's mean difference).
        """
        n = len(self.shares)
        if n < 2:
            return np.full(self.shares.shape[1], np.nan)
        rank = 2 * np.arange(n) - n + 1
        return np.einsum("s,sxy->x", rank, np.sort(self.shares, axis=0)) / (n * (n - 1))

    def apart(self, other: "Decision") -> Float[Array, "draw prompt"]:
        """Return how far another rule's decision is from this one in the same draw."""
        here, there = self.shares.shape, other.shares.shape
        _check(here == there, f"{self.name} decided on {here} draws, prompts, candidates, {other.name} on {there}.")
        return _apart(self.shares, other.shares)


@dataclass(frozen=True, eq=False)
class Decisions:
    """What several rules decide on one posterior.

    Attributes:
        rules: of each rule that decides in every draw.
        reasons: why others do not, by the name of the rule.
    """

    rules: tuple[Decision, ...]
    reasons: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Policy:
    """A trained LoRA adapter.

    Attributes:
        adapter: folder that `peft` loads.
        model: base model, as it was given.
        history: one record of metrics per logged step.
        caveats: of the choice that it was trained on.
    """

    adapter: Path
    model: str
    history: tuple[dict[str, float], ...]
    caveats: tuple[str, ...] = ()


@dataclass(frozen=True)
class Estimate:
    """A number with its 90 % interval (equal-tailed)."""

    mean: float
    low: float
    high: float


@dataclass(frozen=True)
class Score:
    """How well a model predicts judgements that it has not seen.

    Attributes:
        model: its name.
        log_loss: mean negative log probability of the outcome, in nats.
        stderr: standard error of `log_loss`, clustered by annotator.
        accuracy: share of outcomes that were the most probable one; NaN unless all judgements compare two items.
        judgements: how many were held out.
    """

    model: str
    log_loss: float
    stderr: float
    accuracy: float
    judgements: int


@dataclass(frozen=True)
class Welfare:
    """What a trained policy gives to a group, in the units of the chosen scale.

    Attributes:
        policy: name of the rule that it was trained for.
        group: name of the group.
        mass: the group's share of all voters.
        before: welfare under the base model, as inferred.
        after: welfare under the trained policy, as inferred.
        gain: their difference.
        true_before: the same under the simulated annotators' own utilities, if known.
        true_after: the same.
        true_gain: the same.
    """

    policy: str
    group: str
    mass: float
    before: Estimate
    after: Estimate
    gain: Estimate
    true_before: Estimate | None = None
    true_after: Estimate | None = None
    true_gain: Estimate | None = None


@dataclass(frozen=True)
class Sample:
    """A response that a policy wrote; `policy` is "base model" or the name of a rule."""

    policy: str
    prompt: str
    response: str


@dataclass(frozen=True)
class Evaluation:
    """What was measured after fitting and training.

    Attributes:
        scores: held-out predictions of the posterior beside simpler models.
        welfare: what each trained policy gives to each group.
        samples: responses side by side.
        notes: how it was measured, in sentences.
    """

    scores: tuple[Score, ...] = ()
    welfare: tuple[Welfare, ...] = ()
    samples: tuple[Sample, ...] = ()
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class Report:
    """What a run says: a page for people, the same numbers for programs, and its verdicts in sentences.

    Attributes:
        html: the page.
        json: every number on the page.
        tables: the content of `json`, as plain objects.
        verdicts: what to remember.
        caveats: why the numbers must not be trusted yet; empty means that no check failed.
    """

    html: Path
    json: Path
    tables: dict[str, Any]
    verdicts: tuple[str, ...]
    caveats: tuple[str, ...] = ()
