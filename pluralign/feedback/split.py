import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from jaxtyping import Bool, Int

from pluralign.errors import InputError
from pluralign.types import Feedback

ENOUGH = 5
Parts = tuple[Bool[np.ndarray, " choice"], Bool[np.ndarray, " grade"]]


def holdout(feedback: Feedback, share: float = 0.2, seed: int = 0) -> tuple[Feedback, Feedback]:
    """Keep some judgements of every annotator with at least five for evaluation.

    Of such an annotator's n choices, `round(share n)` drawn at random (but never all) are for testing; those with
    fewer than five train only. Grades are drawn in the same way. Items and annotators stay as they are in both parts.
    `ByJudgement` keeps repeated judgements of the same on one side, which this does not.

    Args:
        feedback: to be split.
        share: of each annotator's choices and of each one's grades to hold out, above 0 and below 1.
        seed: of the draw.

    Returns:
        The feedback to train on and the feedback to test on.

    Raises:
        InputError: `share` is out of range, or nothing would be held out.
    """
    if not 0 < share < 1:
        raise InputError(f"share is {share}; allowed: above 0 and below 1.")
    rng = np.random.default_rng(seed)
    choices, grades = feedback.choices, feedback.grades
    drawn, graded = _drawn(choices.annotator, share, rng), _drawn(grades.annotator, share, rng)
    if not drawn.any() and not graded.any():
        raise InputError(
            f"share {share} holds nothing out: it needs annotators with {ENOUGH} choices, and round(share n) above 0. "
            "Where everybody judged once or twice, hold out whole annotators (`holdout: {kind: by-annotator}`) or "
            "nothing (`holdout: 0`)."
        )
    return (
        replace(feedback, choices=choices.where(~drawn), grades=grades.where(~graded)),
        replace(feedback, choices=choices.where(drawn), grades=grades.where(graded)),
    )


def _drawn(
    annotator: Int[np.ndarray, " judgement"], share: float, rng: np.random.Generator
) -> Bool[np.ndarray, " judgement"]:
    held_out = np.zeros(len(annotator), bool)
    for rows in np.split(np.argsort(annotator, kind="stable"), np.cumsum(np.bincount(annotator))[:-1]):
        n = len(rows)
        if n >= ENOUGH:
            held_out[rows[rng.permutation(n)[: min(round(share * n), n - 1)]]] = True
    return held_out


class AbstractSplit(ABC):
    """A way to keep some feedback for evaluation. Items and annotators stay as they are in both parts."""

    @abstractmethod
    def split(self, feedback: Feedback) -> tuple[Feedback, Feedback]:
        """Return the feedback to train on and the feedback to test on."""


@dataclass(frozen=True)
class ByJudgement(AbstractSplit):
    """Hold out a share of what each annotator judged: does the model know what a known annotator says of another slate?

    All that an annotator says on one objective about the same items, in any order, is on one side; a grade is about its
    item alone. Nothing else is kept together: a ranking of A, B and C and a comparison of A and B are two questions,
    and the answer to one may train a model that is tested on the other, as may the same comparison by another
    annotator. Where that would make the test too easy, `ByPrompt` and `ByAnnotator` keep more apart.

    Args:
        share: of what each annotator judged, above 0 and below 1, rounded; never all of it.
        seed: of the draw, which depends on contents only: the order of rows does not matter.
    """

    share: float = 0.2
    seed: int = 0
    kind: Literal["by-judgement"] = "by-judgement"

    def __post_init__(self):
        _share(self.share)

    def split(self, feedback: Feedback) -> tuple[Feedback, Feedback]:
        """Return the feedback to train on and the feedback to test on."""
        who, act = _acts(feedback, self.seed)
        order = np.lexsort((act, who))
        who, act = who[order], act[order]
        new = np.diff(who, prepend=~who[:1]) != 0
        first = np.flatnonzero(new | (np.diff(act, prepend=~act[:1]) != 0))  # the same may have been judged again
        begin = np.flatnonzero(new[first])
        n = np.diff(begin, append=len(first))
        place = np.arange(len(first)) - np.repeat(begin, n)
        chosen = place < np.repeat(np.minimum(np.round(self.share * n), n - 1), n)
        held = np.empty(len(order), bool)
        held[order] = np.repeat(chosen, np.diff(first, append=len(order)))
        return _parts(feedback, (held[: len(feedback.choices)], held[len(feedback.choices) :]))


@dataclass(frozen=True)
class ByAnnotator(AbstractSplit):
    """Hold out all judgements of a share of the annotators: does the model know what people want who were not asked?

    Args:
        share: of the annotators with judgements, above 0 and below 1, rounded; never all of them.
        group: attribute of which each value gives its share, if any.
        seed: of the draw, which depends on contents only: the order of rows does not matter.
    """

    share: float = 0.2
    group: str | None = None
    seed: int = 0
    kind: Literal["by-annotator"] = "by-annotator"

    def __post_init__(self):
        _share(self.share)

    def split(self, feedback: Feedback) -> tuple[Feedback, Feedback]:
        """Return the feedback to train on and the feedback to test on."""
        ids, choices, grades = list(feedback.annotators["id"]), feedback.choices, feedback.grades
        strata = feedback.attribute(self.group) if self.group else ("",) * len(ids)
        active = np.unique(np.concatenate([choices.annotator, grades.annotator])).tolist()
        chosen = _least({ids[a]: strata[a] for a in active}, self.share, self.seed)
        held = np.array([name in chosen for name in ids], bool)
        return _parts(feedback, (held[choices.annotator], held[grades.annotator]))


@dataclass(frozen=True)
class ByPrompt(AbstractSplit):
    """Hold out all judgements on a share of the prompts: does the model know what is wanted of prompts it never saw?

    Prompts with the same text are one.

    Args:
        share: of the prompts with judgements, above 0 and below 1, rounded; never all of them.
        seed: of the draw, which depends on contents only: the order of rows does not matter.
    """

    share: float = 0.2
    seed: int = 0
    kind: Literal["by-prompt"] = "by-prompt"

    def __post_init__(self):
        _share(self.share)

    def split(self, feedback: Feedback) -> tuple[Feedback, Feedback]:
        """Return the feedback to train on and the feedback to test on."""
        text, choices, grades = feedback.items["prompt"][:], feedback.choices, feedback.grades
        shown = choices.slate[choices.slate >= 0]
        judged = np.unique(np.concatenate([shown, grades.item])).tolist()
        chosen = _least({text[i]: "" for i in judged}, self.share, self.seed)
        held = np.array([prompt in chosen for prompt in text] + [False], bool)
        on = held[choices.slate]  # an empty slot, -1, counts as not held
        mixed = on.any(1) & ~(on | (choices.slate < 0)).all(1)
        if mixed.any():
            raise InputError(
                f"choice {int(mixed.argmax())} compares items of different prompts; "
                "such feedback cannot be split by prompt, only by judgement, annotator or time."
            )
        return _parts(feedback, (np.asarray(on.any(1)), held[grades.item]))


@dataclass(frozen=True)
class ByTime(AbstractSplit):
    """Hold out the latest judgements: does the model know what is wanted later?

    Late judgements that repeat an early one, of the same annotator and objective on the same items, are left out of
    both parts and counted in `provenance["set_aside"]` of the test part. What else may have been learned early is the
    same as of `ByJudgement`.

    Args:
        share: of the judgements, above 0 and below 1; those at the time of the cut are all for testing.
    """

    share: float = 0.2
    kind: Literal["by-time"] = "by-time"

    def __post_init__(self):
        _share(self.share)

    def split(self, feedback: Feedback) -> tuple[Feedback, Feedback]:
        """Return the feedback to train on and the feedback to test on."""
        choices, grades = feedback.choices, feedback.grades
        time = np.concatenate([choices.time, grades.time])
        if not len(time) or (time < 0).any():
            raise InputError(
                f"{int((time < 0).sum()):,} of {len(time):,} judgements have no time; name the column of times in the "
                "source, or split by judgement, annotator or prompt."
            )
        cut = np.sort(time)[len(time) - max(round(self.share * len(time)), 1)]
        late = (np.asarray(choices.time >= cut), np.asarray(grades.time >= cut))
        train, test = _parts(feedback, late)
        _, act = _acts(feedback, 0)
        again = np.isin(act, act[~np.concatenate(late)]) & np.concatenate(late)
        again = again[: len(choices)], again[len(choices) :]
        left_out = int(again[0].sum() + again[1].sum())
        if not left_out:
            return train, test
        aside = dict(feedback.provenance.get("set_aside", {}))
        aside["the same annotator judged the same before the cut"] = left_out
        kept = replace(test, choices=choices.where(late[0] & ~again[0]), grades=grades.where(late[1] & ~again[1]))
        return train, replace(kept, provenance={**feedback.provenance, "set_aside": aside})


def _share(share: float) -> None:
    if not 0 < share < 1:
        raise InputError(f"share is {share}; allowed: above 0 and below 1.")


def _acts(feedback: Feedback, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return hashes of the annotator and of what was judged, of all choices and grades; equal if the contents are.

    Two things that differ have the same hash with probability 2^-64, and are then on one side.
    """
    columns = feedback.items["prompt"][:], feedback.items["response"][:]
    item = _hashes(seed, zip(*columns, strict=True))
    who = _hashes(seed, feedback.annotators["id"][:])
    choices, grades = feedback.choices, feedback.grades
    shown = np.sort(np.where(choices.slate >= 0, np.append(item, np.uint64(0))[choices.slate], np.uint64(0)), axis=1)
    shown[:, 1:][shown[:, 1:] == shown[:, :-1]] = 0  # each item counts once
    asked = _hashes(seed, feedback.objectives)[choices.objective]
    scales = [(objective, scale.name) for objective in feedback.objectives for scale in feedback.scales]
    graded = np.append(_hashes(seed, scales), np.uint64(0))[grades.objective * len(feedback.scales) + grades.scale]
    whose = np.concatenate([who[choices.annotator], who[grades.annotator]])
    act = np.concatenate([_mixed(shown.sum(1)) + asked, _mixed(item[grades.item]) + graded])
    return whose, _mixed(act ^ whose)


def _hashes(seed: int, contents: Iterable[Any]) -> np.ndarray:
    found = (hashlib.blake2b(json.dumps([seed, c]).encode(), digest_size=8).digest() for c in contents)
    return np.frombuffer(b"".join(found), np.uint64)


def _mixed(number: np.ndarray) -> np.ndarray:
    """Return a permutation of 64-bit numbers in which every bit depends on every other."""
    for shift, factor in ((32, 0x9E3779B97F4A7C15), (29, 0x9E3779B97F4A7C15), (32, 1)):
        number = (number ^ (number >> np.uint64(shift))) * np.uint64(factor)
    return number


def _least(stratum: dict, share: float, seed: int) -> set:
    """Return the keys with the least hash of their contents: of each stratum a share, rounded, but never all."""
    place = {key: hashlib.blake2b(json.dumps([seed, key]).encode(), digest_size=16).digest() for key in stratum}
    strata: dict[str, list] = {}
    for key in sorted(stratum, key=lambda key: place[key]):
        strata.setdefault(stratum[key], []).append(key)
    return {key for keys in strata.values() for key in keys[: min(round(share * len(keys)), len(keys) - 1)]}


def _parts(feedback: Feedback, held_out: Parts) -> tuple[Feedback, Feedback]:
    choices, grades = feedback.choices, feedback.grades
    train = replace(feedback, choices=choices.where(~held_out[0]), grades=grades.where(~held_out[1]))
    test = replace(feedback, choices=choices.where(held_out[0]), grades=grades.where(held_out[1]))
    for part, name in ((train, "train on"), (test, "test on")):
        if not len(part.choices) and not len(part.grades):
            raise InputError(f"the split leaves nothing to {name}; change its share, or split by something else.")
    return train, test
