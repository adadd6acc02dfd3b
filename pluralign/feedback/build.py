"""Feedback put together act by act, or from several feedbacks."""

from collections.abc import Hashable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from pluralign.errors import InputError
from pluralign.types import FORMS, Choices, Feedback, Grades, Scale

ITEM = ("prompt", "response", "source")


class Builder:
    """Collects acts of judging one at a time; equal items, annotators, objectives and scales become one.

    For sources whose rows need looking at one by one; a million rows are better laid out as arrays.

        builder = Builder()
        good, bad = builder.item("What is 2 + 2?", "4"), builder.item("What is 2 + 2?", "5")
        builder.choice([good, bad], [0, 1], builder.annotator("ann", age="30-39"))
        votes = builder.feedback(kind="example")
    """

    def __init__(self) -> None:
        self._index: dict[str, dict[Hashable, int]] = {n: {} for n in ("prompt", "item", "id", "objective", "scale")}
        self._items: list[dict[str, Any]] = []
        self._people: list[dict[str, Any]] = []
        self._choices: list[tuple[Any, ...]] = []
        self._grades: list[tuple[Any, ...]] = []
        self._made: dict[int, int] = {}
        self._set_aside: dict[str, list[str]] = {}

    def item(self, prompt: str, response: str, source: str = "") -> int:
        """Return the index of a response to a prompt; where several sources wrote it, all are named."""
        x = self._number("prompt", prompt)
        i = self._number("item", (x, response))
        if i == len(self._items):
            self._items.append({"prompt_id": x, "prompt": prompt, "response": response, "source": source})
        elif source and source not in self._items[i]["source"].split(" | "):
            self._items[i]["source"] = " | ".join(filter(None, (self._items[i]["source"], source)))
        return i

    def annotator(self, id: str, weight: float = 1.0, **attributes: str) -> int:
        """Return the index of an annotator; attributes that are given later are added.

        Raises:
            InputError: an attribute was something else before.
        """
        a = self._number("id", id)
        if a == len(self._people):
            self._people.append({"id": id, "weight": weight})
        for name, value in attributes.items():
            old = self._people[a].setdefault(name, value)
            if old != value:
                raise InputError(
                    f"annotator {id!r} has two values of {name!r}: {old!r} and {value!r}. "
                    "An attribute describes the annotator, so it cannot change."
                )
        return a

    def choice(
        self,
        slate: Sequence[int],
        rank: Sequence[int],
        annotator: int,
        *,
        objective: str = "overall",
        strength: int = 0,
        form: str | None = None,
        time: int = -1,
        sitting: int = -1,
    ) -> None:
        """Add an order over a slate, as in `Choices`; `form` is read off the slate if it is not one of `FORMS`."""
        code = -1 if form is None else FORMS.index(form)
        o, place = self._number("objective", objective), self._place(annotator)
        self._choices.append((tuple(slate), tuple(rank), annotator, o, place, strength, code, time, sitting))

    def grade(
        self,
        item: int,
        value: int,
        scale: Scale,
        annotator: int,
        *,
        objective: str = "overall",
        time: int = -1,
        sitting: int = -1,
    ) -> None:
        """Add a grade, as in `Grades`: `value` indexes `scale.labels`."""
        s, o = self._number("scale", scale), self._number("objective", objective)
        self._grades.append((item, value, s, annotator, o, self._place(annotator), time, sitting))

    def set_aside(self, reason: str, place: str) -> None:
        """Count a row that is not used, and remember where it stands."""
        self._set_aside.setdefault(reason, []).append(place)

    def feedback(self, **provenance: Any) -> Feedback:
        """Return all that was added.

        Raises:
            InputError: nothing was.
        """
        if not self._choices and not self._grades:
            raise InputError(f"there is no judgement in it; set aside: {self._counts() or 'nothing'}.")
        return Feedback(
            items=self.items(),
            annotators=self.annotators(),
            objectives=tuple(self._index["objective"]),  # pyright: ignore
            choices=self._ordered(),
            grades=Grades(*np.array(self._grades, np.int64).reshape(-1, 8).T),
            provenance={
                **provenance,
                "set_aside": self._counts(),
                "set_aside_at": {reason: places[:20] for reason, places in self._set_aside.items()},
            },
            scales=tuple(self._index["scale"]),  # pyright: ignore
        )

    def items(self) -> Any:
        """Return the table of items."""
        from datasets import Dataset

        prompt_id = np.array([item["prompt_id"] for item in self._items], np.int32)
        return Dataset.from_dict({"prompt_id": prompt_id, **{c: [i[c] for i in self._items] for c in ITEM}})

    def annotators(self) -> Any:
        """Return the table of annotators; an attribute that is not known of one is empty."""
        from datasets import Dataset

        columns = dict.fromkeys(name for person in self._people for name in person)
        return Dataset.from_dict({c: [person.get(c, "") for person in self._people] for c in columns})

    def _ordered(self) -> Choices:
        width = max((len(c[0]) for c in self._choices), default=2)
        slate, rank = (np.full((len(self._choices), width), -1) for _ in range(2))
        for row, (items, ranks, *_) in enumerate(self._choices):
            if len(items) != len(ranks):
                raise InputError(f"choice {row} has {len(items)} items and {len(ranks)} ranks.")
            slate[row, : len(items)], rank[row, : len(ranks)] = items, ranks
        rest = np.array([c[2:] for c in self._choices], np.int64).reshape(-1, 7)
        annotator, objective, context, strength, form, time, sitting = rest.T
        by_slate = Choices(slate, rank, annotator, objective, context, strength, None, time, sitting)  # pyright: ignore
        return replace(by_slate, form=np.where(form < 0, by_slate.form, form))

    def _number(self, kind: str, value: Hashable) -> int:
        return self._index[kind].setdefault(value, len(self._index[kind]))

    def _place(self, annotator: int) -> int:
        place = self._made.get(annotator, 0)
        self._made[annotator] = place + 1
        return place

    def _counts(self) -> dict[str, int]:
        return {reason: len(places) for reason, places in self._set_aside.items()}


def concatenate(*parts: Feedback) -> Feedback:
    """Return all judgements of several feedbacks as one; equal items, annotators, objectives and scales become one.

    An annotator's order of work (`context`) goes on from part to part. Attributes that only some parts know are empty
    elsewhere. `provenance` lists those of the parts.

    Raises:
        InputError: no part, an annotator's attribute or weight differs between parts, or a part knows its truth.
    """
    if not parts:
        raise InputError("nothing to concatenate.")
    if any(part.truth is not None for part in parts):
        raise InputError("a simulated community's truth belongs to its own items; simulate one community instead.")
    builder, blocks = Builder(), ([], [])
    objectives: dict[str, int] = {}
    scales: dict[Scale, int] = {}
    made = np.zeros(sum(len(part.annotators) for part in parts), np.int64)
    weights: dict[int, float] = {}
    for part in parts:
        columns = [part.items[c] if c in part.items.column_names else [""] * len(part.items) for c in ITEM]
        item = np.array([builder.item(*row) for row in zip(*columns, strict=True)] + [-1])
        who = []
        for person in part.annotators.to_list():  # pyright: ignore
            weight = person.pop("weight")
            who.append(builder.annotator(person.pop("id"), weight, **{k: v for k, v in person.items() if v != ""}))
            if weights.setdefault(who[-1], weight) != weight:
                raise InputError(f"an annotator weighs {weights[who[-1]]} in one part and {weight} in another.")
        who = np.array(who, np.int64)
        asked = np.array([objectives.setdefault(o, len(objectives)) for o in part.objectives], np.int64)
        scale = np.array([scales.setdefault(s, len(scales)) for s in part.scales] + [0])
        for block, old in zip(blocks, (part.choices, part.grades), strict=True):
            own = who[old.annotator]
            context = np.where(old.context < 0, -1, old.context + made[own])
            moved = replace(old, annotator=own, objective=asked[old.objective], context=context)
            if isinstance(moved, Choices):
                block.append(replace(moved, slate=item[moved.slate]))
            else:
                block.append(replace(moved, item=item[moved.item], scale=scale[moved.scale]))
        for block in blocks:
            np.maximum.at(made, block[-1].annotator, block[-1].context + 1)
    return Feedback(
        items=builder.items(),
        annotators=builder.annotators(),
        objectives=tuple(objectives),
        choices=Choices(**_stacked(blocks[0], slate=-1, rank=-1)),
        grades=Grades(**_stacked(blocks[1])),
        provenance={"kind": "several", "parts": [part.provenance for part in parts], "set_aside": _total(parts)},
        scales=tuple(scales),
    )


def _stacked(blocks: list[Any], **empty: int) -> dict[str, np.ndarray]:
    """Concatenate every column; slates of fewer slots are filled up with `empty`."""
    columns = {}
    for name in vars(blocks[0]):
        values = [getattr(block, name) for block in blocks]
        if name in empty:
            width = max(v.shape[1] for v in values)
            values = [np.pad(v, ((0, 0), (0, width - v.shape[1])), constant_values=empty[name]) for v in values]
        columns[name] = np.concatenate(values)
    return columns


def _total(parts: Sequence[Feedback]) -> dict[str, int]:
    total: dict[str, int] = {}
    for part in parts:
        for reason, n in part.provenance.get("set_aside", {}).items():
            total[reason] = total.get(reason, 0) + n
    return total
