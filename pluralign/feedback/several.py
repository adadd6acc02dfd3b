"""Judgements from several places as one feedback."""

from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import Field

from pluralign.artifacts import digest
from pluralign.errors import InputError
from pluralign.feedback.build import concatenate
from pluralign.feedback.known import Known
from pluralign.feedback.polis import Polis
from pluralign.feedback.preflib import Preflib
from pluralign.feedback.rankings import Rankings
from pluralign.feedback.ratings import Ratings
from pluralign.feedback.source import AbstractSource
from pluralign.feedback.table import Table
from pluralign.types import Feedback

Part = Table | Rankings | Ratings | Known | Polis | Preflib
"""What reads judgements that were really made."""


@dataclass(frozen=True)
class Several(AbstractSource):
    """Several sources as one feedback, such as a table of comparisons and one of ratings by the same people.

    Items with the same prompt and response are one item, annotators with the same id one annotator, objectives with the
    same name one objective; see `concatenate`.

    Args:
        parts: the sources, at least one.
    """

    parts: tuple[Annotated[Part, Field(discriminator="kind")], ...]
    kind: Literal["several"] = "several"

    def __post_init__(self):
        if not self.parts:
            raise InputError("parts is empty; name at least one source.")

    def fingerprint(self) -> str:
        """Return a content hash of all parts."""
        return digest([part.fingerprint() for part in self.parts])

    def load(self) -> Feedback:
        """Read all parts.

        Raises:
            InputError: a part cannot be read, or an annotator's attribute differs between parts.
        """
        return concatenate(*(part.load() for part in self.parts))
