"""What is known of annotators besides their judgements, as a regression takes it."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from pluralign.errors import InputError
from pluralign.types import Feedback


@dataclass(frozen=True, eq=False)
class Design:
    """What covariates say of annotators, as a regression takes them.

    A covariate that holds numbers is one column, in standard deviations from its mean, 0 where it is not known; of any
    other every value is a column that is 1 for those who have it. No value is the reference: effects shrink to 0.

    Attributes:
        value: one row per annotator.
        names: of the columns, such as `age` or `sex = f`.
        covariate: index of the covariate that each column is of.
    """

    value: Float[np.ndarray, "annotator column"]
    names: tuple[str, ...]
    covariate: tuple[int, ...]

    @classmethod
    def none(cls, annotators: int) -> "Design":
        """Return a design that says nothing."""
        return cls(np.zeros((annotators, 0)), (), ())

    @classmethod
    def of(cls, votes: Feedback, covariates: tuple[str, ...]) -> "Design":
        """Code attributes of the annotators.

        Raises:
            InputError: there is no such attribute, or it says nothing since all have the same.
        """
        columns: list[np.ndarray] = []
        names, owner = [], []
        for c, name in enumerate(covariates):
            said = np.array(votes.attribute(name))
            number = _numbers(said)
            levels = np.unique(said)
            if len(levels) < 2 or (number is not None and not np.nanstd(number) > 0):
                raise InputError(f"all annotators have the same {name!r}, so it explains nothing; leave it out.")
            if number is not None:
                columns.append(np.nan_to_num((number - np.nanmean(number)) / np.nanstd(number)))
                names.append(name)
                owner.append(c)
                continue
            columns += [(said == level).astype(float) for level in levels]
            names += [f"{name} = {level}" for level in levels]
            owner += [c] * len(levels)
        if not columns:
            return cls.none(len(votes.annotators))
        return cls(np.stack(columns, 1), tuple(names), tuple(owner))


def _numbers(said: np.ndarray) -> Float[np.ndarray, " annotator"] | None:
    """Return words as numbers, NaN where there is none; None unless they are numbers, and more than two."""
    unknown = np.isin(said, ("", "None", "nan"))
    try:
        number = np.where(unknown, np.nan, np.where(unknown, "0", said).astype(float))
    except ValueError:
        return None
    return number if len(np.unique(number[np.isfinite(number)])) > 2 and not np.isinf(number).any() else None
