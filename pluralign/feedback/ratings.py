"""Grades from tables: stars, Likert answers, labels, approvals."""

import re
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np
from jaxtyping import Int

from pluralign.errors import InputError
from pluralign.feedback import cells, read
from pluralign.feedback.build import Builder
from pluralign.feedback.columns import Rows
from pluralign.feedback.read import File
from pluralign.feedback.source import AbstractSource
from pluralign.types import Choices, Feedback, Grades, Scale

LABELS = 10_000
Levels = str | tuple[str, ...]
Form = Literal["rating", "label", "approval", "vote"]


@dataclass(frozen=True)
class Ratings(AbstractSource):
    """Grades of single responses in a CSV, TSV, JSON, JSONL or Parquet file or a `datasets.Dataset`.

    Either one row an annotator and a response, with a column of grades for each objective:

        Ratings("answers.csv", prompt="question", response="answer", annotator="worker",
                grades={"helpfulness": "help", "safety": "safe"},
                scales={"helpfulness": "1..5", "safety": ("no", "yes")})

    or one row a grade, with a column that names its objective:

        Ratings("grades.csv", prompt="question", response="answer", annotator="worker",
                grades="value", objective="aspect", scales="1..5")

    A blank grade is no grade: it is set aside and counted. Every other word must be on its scale; case does not matter,
    and numbers are equal if their values are.

    Args:
        path: file (text files also with .gz), folder of `Dataset.save_to_disk`, or in Python a `datasets.Dataset`.
        prompt: column with the prompt's text.
        response: column with the text of the response that was graded.
        annotator: column with the annotator's id.
        grades: column of grades, or the column of each objective.
        scales: labels of the grades, the lowest first, or whole numbers as in "1..5"; one scale for all objectives or
            one for each.
        objective: column that names what was asked, if `grades` is one column; without it that is "overall".
        forms: what kind of grade it is (see `Scale`), of all objectives or of each.
        attributes: columns that describe the annotator; constant for each, blank = not known.
        source: column that names who wrote the response.
        time: column that says when; it orders each annotator's work. Without it that is the order of rows.
        sitting: column that names the session, task or batch.
    """

    path: File
    prompt: str
    response: str
    annotator: str
    grades: str | dict[str, str]
    scales: Levels | dict[str, Levels]
    objective: str | None = None
    forms: Form | dict[str, Form] = "rating"
    attributes: tuple[str, ...] = ()
    source: str | None = None
    time: str | None = None
    sitting: str | None = None
    kind: Literal["ratings"] = "ratings"
    # pydantic knows no `datasets.Dataset`; an instance is all that it needs to check.
    __pydantic_config__: ClassVar[dict[str, Any]] = {"arbitrary_types_allowed": True}

    def __post_init__(self):
        cells.check_attributes(self.attributes)
        if isinstance(self.grades, dict) and (self.objective is not None or not self.grades):
            raise InputError(
                "grades names the column of each objective, so it needs one, and `objective` must be left out."
            )
        if isinstance(self.grades, dict):
            names = self.grades
        elif self.objective is None:
            names = ("overall",)
        else:  # only the data know
            names = next((given for given in (self.scales, self.forms) if isinstance(given, dict)), ("",))
        for name in names:
            self._scale(name)

    @property
    def _wanted(self) -> tuple[str, ...]:
        columns = tuple(self.grades.values()) if isinstance(self.grades, dict) else (self.grades,)
        optional = (name for name in (self.objective, self.source, self.time, self.sitting) if name)
        return (self.prompt, self.response, self.annotator, *columns, *self.attributes, *optional)

    def fingerprint(self) -> str:
        """Return a content hash of the file."""
        return read.fingerprint(self.path, self._wanted)

    def load(self) -> Feedback:
        """Read the grades.

        Raises:
            InputError: the file cannot be read, a column is missing, a cell is bad, or a word is not on its scale; with
                its place and the mend.
        """
        rows, builder = read.read(self.path, self._wanted), Builder()
        item = cells.items(rows, builder, self.prompt, self.response, self.source)
        who = cells.annotators(rows, builder, self.annotator, self.attributes)
        time, sitting = cells.times(rows, self.time), cells.sittings(rows, self.sitting)
        names, objective, value = self._values(rows)
        scales = {name: self._scale(name) for name in names}
        known = list(dict.fromkeys(scales.values()))
        scale = np.array([known.index(scales[name]) for name in names])

        row, column = np.nonzero(value >= 0)
        asked = objective[row, column]
        aside = {f"no grade for {name!r}": int(((value < 0) & (objective == o)).sum()) for o, name in enumerate(names)}
        aside = {reason: n for reason, n in aside.items() if n}
        if not len(row):
            raise InputError(f"{rows.name} holds no grade; set aside: {aside}.")
        return Feedback(
            items=builder.items(),
            annotators=builder.annotators(),
            objectives=tuple(names),
            choices=Choices.none(),
            grades=Grades(
                item=item[row],
                value=value[row, column],
                scale=scale[asked],
                annotator=who[row],
                objective=asked,
                context=cells.order(time[row], who[row]),
                time=time[row],
                sitting=sitting[row],
            ),
            scales=tuple(known),
            provenance={
                "kind": self.kind,
                "files": [{"name": rows.name, "sha256": self.fingerprint()}],
                "rows": len(rows.place),
                "set_aside": aside,
            },
        )

    def _values(self, rows: Rows) -> tuple[list[str], Int[np.ndarray, "row column"], Int[np.ndarray, "row column"]]:
        """Return the names of the objectives, and of each row and column the objective and the grade, -1 = none."""
        if isinstance(self.grades, dict):
            values = [self._read(rows, column, name) for name, column in self.grades.items()]
            objective = np.broadcast_to(np.arange(len(values)), (len(rows.place), len(values)))
            return list(self.grades), objective, np.stack(values, 1)
        if self.objective is None:
            return ["overall"], np.zeros((len(rows.place), 1), int), self._read(rows, self.grades, "overall")[:, None]
        cells.filled(rows, (self.objective,), "A grade needs an objective.")
        column = cells.column(rows, self.objective)
        code, first = cells.numbered(column.codes)
        names = [column.at(row) or "" for row in first.tolist()]
        value = np.full(len(code), -1)
        for o, name in enumerate(names):
            own = np.flatnonzero(code == o)
            value[own] = self._read(cells.take(rows, own), self.grades, name)
        return names, code[:, None], value[:, None]

    def _read(self, rows: Rows, column: str, objective: str) -> Int[np.ndarray, " row"]:
        scale = self._scale(objective)
        word = cells.words({label: grade for grade, label in enumerate(scale.labels)})
        mend = f"The scale of {objective!r} is {', '.join(scale.labels)} (lowest first); change it in `scales`."
        return cells.meant(rows, column, word, mend, optional=True)

    def _scale(self, objective: str) -> Scale:
        levels = self._of("scales", self.scales, objective)
        span = re.fullmatch(r"\s*(-?\d{1,9})\s*\.\.\s*(-?\d{1,9})\s*", levels) if isinstance(levels, str) else None
        if isinstance(levels, str) and span is None:
            raise InputError(
                f"scales has {levels!r}; write whole numbers as in '1..5', or a list of labels, lowest first."
            )
        if span and int(span[2]) - int(span[1]) >= LABELS:
            raise InputError(f"scales has {levels!r}, which is more than {LABELS:,} labels; put them into bins.")
        labels = tuple(map(str, range(int(span[1]), int(span[2]) + 1))) if span else tuple(levels)
        same = cells.words({label: grade for grade, label in enumerate(labels)})
        for grade, label in enumerate(labels):
            if not label.strip() or same(label) != grade:
                raise InputError(f"the labels {labels} have two that read the same, or a blank one: {label!r}.")
        name = f"{labels[0]} to {labels[-1]}" if labels else "empty"
        return Scale(name, labels, self._of("forms", self.forms, objective))

    def _of(self, what: str, given: Any, objective: str) -> Any:
        """Return what is given for an objective."""
        if not isinstance(given, dict):
            return given
        if objective not in given:
            raise InputError(f"{what} has nothing for the objective {objective!r}; it has {sorted(given)}.")
        return given[objective]
