import warnings
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from jaxtyping import Int

from pluralign import artifacts
from pluralign.errors import InputError
from pluralign.features.base import AbstractLinearMap, Basis, Reading
from pluralign.types import Feedback

LONGEST = 60  # characters of a text in a name


@dataclass(frozen=True)
class Items(AbstractLinearMap):
    """A feature of its own for every alternative, so that a weight is what a voter finds this alternative worth.

    `phi[item, alternative] = 1` if the item is that alternative, else 0: for films, candidates, kinds of sushi, and all
    else that is known by its name and judged again and again. Only differences of worths mean something.

    An alternative is a response to a prompt; space around the texts does not count. Its feature is called after the
    response, shortened, and after its prompt too if there are several prompts.

    Args:
        across: the same response to different prompts is one alternative.
        unknown: what becomes of responses that are no alternative of the feedback. "zero": all features are 0, and a
            warning counts them; a zero is the worth that the prior expects, not a judgement. "refuse": an error.
        most: alternatives that are accepted, at least 2. Features are a dense table, and every annotator gets a weight
            for each.
        kind: names this feature map in configs.

    Raises:
        InputError: a field is out of range; later, there are more than `most` alternatives, or an unknown response is
            to be refused.
    """

    across: bool = False
    unknown: Literal["zero", "refuse"] = "zero"
    most: int = 2000
    kind: Literal["items"] = "items"

    def __post_init__(self):
        if self.unknown not in ("zero", "refuse"):
            raise InputError(f"unknown is {self.unknown!r}; it must be 'zero' or 'refuse'.")
        if self.most < 2:
            raise InputError(f"most is {self.most}; it must be at least 2.")

    def read(
        self, prompts: Sequence[str], responses: Sequence[str], given: Feedback | Mapping[str, Any] | None = None
    ) -> Reading:
        """Tell which alternative each response is; without features at hand, they are those of these texts.

        Raises:
            InputError: too many alternatives, or one that is not known.
        """
        pairs = [("" if self.across else p.strip(), r.strip()) for p, r in zip(prompts, responses, strict=True)]
        keys = {pair: artifacts.digest(*pair) for pair in dict.fromkeys(pairs)}
        told = given if isinstance(given, Mapping) else {}
        known = told.get("alternatives") if told.get("across") == self.across else None
        if known is None:
            if len(keys) > self.most:
                raise InputError(
                    f"{len(keys):,} different alternatives, each with a weight for every annotator; Items takes "
                    f"{self.most:,} (`most`). If the same responses come back to many prompts, set across = true. If "
                    "not, take features of texts, such as Encoder, and let `reward.ItemEffects` (in a config `items:` "
                    "under `reward:`) tell what each item is worth beyond them."
                )
            known = dict(zip(keys.values(), _names(list(keys)), strict=True))
        place = {key: column for column, key in enumerate(known)}
        column = np.array([place.get(keys[pair], -1) for pair in pairs])
        strangers = int((column < 0).sum())
        if strangers:
            said = (
                f"{strangers} of {len(pairs)} responses are no alternative of the feedback that the features were made "
                f"from, such as {pairs[int((column < 0).argmax())][1][:LONGEST]!r}"
            )
            if self.unknown == "refuse":
                raise InputError(f"{said}; name alternatives as the feedback does, or set unknown = 'zero'.")
            warnings.warn(f"{said}; nothing is known of their worth, and all their features are 0.", stacklevel=3)
        raw = np.zeros((len(pairs), len(known)), np.float32)
        raw[column >= 0, column[column >= 0]] = 1
        return Reading(raw, {"kind": self.kind, "across": self.across, "alternatives": known}, {})

    def basis(self, reading: Reading, prompt: Int[np.ndarray, " item"]) -> Basis:
        """Return the indicators as they are."""
        names = tuple(reading.how["alternatives"].values())
        return Basis(names, np.zeros(len(names), np.float32), np.eye(len(names), dtype=np.float32), {})


def _names(pairs: Sequence[tuple[str, str]]) -> list[str]:
    """Return a short name for each alternative, all different."""
    several = len({prompt for prompt, _ in pairs}) > 1
    names = [f"{_short(prompt)}: {_short(response)}" if several else _short(response) for prompt, response in pairs]
    times = Counter(names)
    # Texts that begin alike, or differ only in the space between words, are told apart by a hash.
    return [n if times[n] == 1 else f"{n} #{artifacts.digest(*pair)}" for n, pair in zip(names, pairs, strict=True)]


def _short(text: str) -> str:
    words = " ".join(text.split())
    return words if len(words) <= LONGEST else words[: LONGEST - 1].rstrip() + "…"
