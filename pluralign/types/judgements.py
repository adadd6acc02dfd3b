"""Who judged what, and how: `Feedback` with its choices and grades."""

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Bool, Float, Int

from pluralign.errors import InputError
from pluralign.types.checks import Array, check, fill, freeze

if TYPE_CHECKING:
    from datasets import Dataset

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
        fill(self, n, strength=0, time=-1, sitting=-1)
        freeze(self, slate=(self.slate, np.int32), rank=(self.rank, np.int32))
        check(self.slate.ndim == 2, f"slate must be [choice slot], got shape {self.slate.shape}.")
        check(self.rank.shape == self.slate.shape, "rank and slate must have the same shape.")
        ranked = (self.slate < 0) & (self.rank >= 0)
        check(not ranked.any(), "an empty slot (slate -1) carries a rank.")
        best = np.where(self.rank >= 0, self.rank, np.iinfo(np.int32).max).min(1, initial=2**31 - 1)
        check(bool((best == 0).all()), "every choice needs a best item: some row of rank has no 0.")
        if self.form is None:
            shown = (self.slate >= 0).sum(1)
            single = ((self.rank == 0).sum(1) == 1) & (self.rank <= 0).all(1)
            names = np.select([shown == 1, shown == 2, single], [4, 0, 1], 2)
            object.__setattr__(self, "form", names)
        freeze(self, **{name: (getattr(self, name), np.int32) for name in ("annotator", "objective", "context")})
        freeze(self, strength=(self.strength, np.int8), form=(self.form, np.int8), time=(self.time, np.int64))
        freeze(self, sitting=(self.sitting, np.int32))
        for name in ("annotator", "objective", "context", "strength", "form", "time", "sitting"):
            shape = getattr(self, name).shape
            check(shape == (n,), f"{name} must be [choice] = [{n}], got shape {shape}.")
        check(bool((self.strength >= 0).all()), "strength has a negative entry; 0 = not stated.")
        check(bool(((self.form >= 0) & (self.form < len(FORMS))).all()), f"form must index {FORMS}.")

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
        check(len(self.labels) >= 2, f"scale {self.name!r} has the labels {self.labels}; it needs at least two.")
        check(len(set(self.labels)) == len(self.labels), f"scale {self.name!r} names a label twice: {self.labels}.")
        forms = ("rating", "label", "approval", "vote")
        check(self.form in forms, f"scale {self.name!r} has the form {self.form!r}; it is one of {', '.join(forms)}.")


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
        fill(self, len(self.item), time=-1, sitting=-1)
        freeze(self, **{n: (v, np.int64 if n == "time" else np.int32) for n, v in vars(self).items()})
        shapes = {name: value.shape for name, value in vars(self).items()}
        check(set(shapes.values()) == {(len(self.item),)}, f"all fields must be [grade], got {shapes}.")

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
        freeze(self, weights=(self.weights, np.float64), careless=(self.careless, np.bool_))
        expected = (len(self.careless), len(self.features))
        check(self.weights.shape == expected, f"weights must be {expected}, got {self.weights.shape}.")


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
            check(not missing, f"{table} lacks the columns {missing}; it has {have}.")
        bounds = {"annotator": len(self.annotators), "objective": len(self.objectives)}
        for name, block, item in (("choices", self.choices, "slate"), ("grades", self.grades, "item")):
            for column, size in {item: len(self.items), **bounds}.items():
                index, lowest = getattr(block, column), -1 if column == "slate" else 0
                if index.size and not (lowest <= index.min() and index.max() < size):
                    bad = index[(index < lowest) | (index >= size)].flat[0]
                    raise InputError(f"{name}.{column} holds {bad}, outside {lowest}..{size - 1}.")
        grades, levels = self.grades, np.array([len(scale.labels) for scale in self.scales] + [0])
        known = (grades.scale >= 0) & (grades.scale < len(self.scales))
        check(bool(known.all()), f"grades.scale holds an index outside 0..{len(self.scales) - 1}; name it in scales.")
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
        check(name in have, f"annotators have no attribute {name!r}; they have {have or 'none'}.")
        return tuple(str(value) for value in self.annotators[name])
