import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from jaxtyping import Int

from pluralign.errors import InputError
from pluralign.features.base import AbstractLinearMap, Basis, Reading
from pluralign.types import Feedback

WORD = re.compile(r"[a-z']+")


@dataclass(frozen=True)
class Lexicon(AbstractLinearMap):
    """Features that a person can read: how many words of each category a response contains.

    `phi[item, category] = #{words of the response, in lower case, that the category lists}`, words being matches of
    `[a-z']+`. Counts are neither centred nor scaled, so one unit of reward weight is one word. The prompt is ignored.

    >>> Lexicon({"warm": ("dear", "love"), "cold": ("no",)}).read(["Hello!"], ["Dear, dear me, no."]).raw
    array([[2., 1.]], dtype=float32)

    Args:
        categories: the words of each category, in lower case; a word may stand in several categories.
        length: add one feature, log(1 + number of words).
        kind: names this feature map in configs.

    Raises:
        InputError: no categories, one without words, a word twice in one category, or a word that cannot occur.
    """

    categories: dict[str, tuple[str, ...]]
    length: bool = False
    kind: Literal["lexicon"] = "lexicon"

    def __post_init__(self):
        if not self.categories:
            raise InputError("categories is empty; name at least one category with its words.")
        if self.length and "length" in self.categories:
            raise InputError("categories has a 'length' of its own; rename it or set length = false.")
        for name, words in self.categories.items():
            if not words:
                raise InputError(f"categories[{name!r}] has no words; list some or leave the category out.")
            twice = sorted({word for word in words if words.count(word) > 1})
            if twice:
                raise InputError(f"categories[{name!r}] lists {twice} more than once; a word counts once.")
            never = [word for word in words if not WORD.fullmatch(word)]
            if never:
                raise InputError(
                    f"categories[{name!r}] lists {never}, which no text can contain: words are lower-case letters "
                    "a-z and apostrophes, without spaces."
                )

    def read(
        self, prompts: Sequence[str], responses: Sequence[str], given: Feedback | Mapping[str, Any] | None = None
    ) -> Reading:
        """Count words."""
        belongs: dict[str, list[int]] = {}
        for column, words in enumerate(self.categories.values()):
            for word in words:
                belongs.setdefault(word, []).append(column)
        raw = np.zeros((len(responses), len(self.categories) + self.length), np.float32)
        total = 0
        for row, response in enumerate(responses):
            words = WORD.findall(response.lower())
            total += len(words)
            for word in words:
                raw[row, belongs.get(word, [])] += 1
            if self.length:
                raw[row, -1] = np.log1p(len(words))
        categories = {name: tuple(words) for name, words in self.categories.items()}
        return Reading(raw, {"kind": self.kind, "categories": categories, "length": self.length}, {"words": total})

    def basis(self, reading: Reading, prompt: Int[np.ndarray, " item"]) -> Basis:
        """Return the counts as they are."""
        names = (*self.categories, "length") if self.length else tuple(self.categories)
        return Basis(names, np.zeros(len(names), np.float32), np.eye(len(names), dtype=np.float32), {})
