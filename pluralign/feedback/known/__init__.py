"""Published data sets by name: where they are, under what terms, and how they become `Feedback`."""

import difflib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from rich.table import Column, Table
from rich.text import Text

from pluralign.artifacts import digest
from pluralign.errors import InputError
from pluralign.feedback.known.arena import ARENA
from pluralign.feedback.known.creativity import CREATIVITY, TTCW
from pluralign.feedback.known.dices import DICES_350, DICES_990
from pluralign.feedback.known.entry import Entry, File
from pluralign.feedback.known.finegrained import FINEGRAINED
from pluralign.feedback.known.helpsteer2 import HELPSTEER2, HELPSTEER2_PREFERENCE
from pluralign.feedback.known.hh import HH, HH_HARMLESS, HH_HELPFUL
from pluralign.feedback.known.llmfao import LLMFAO
from pluralign.feedback.known.multipref import MULTIPREF
from pluralign.feedback.known.polis import POLIS
from pluralign.feedback.known.preflib import PREFLIB
from pluralign.feedback.known.prism import PRISM
from pluralign.feedback.known.ukpconvarg1 import UKPCONVARG1
from pluralign.feedback.known.ultrafeedback import ULTRAFEEDBACK
from pluralign.feedback.source import AbstractSource
from pluralign.types import Feedback

__all__ = ["ENTRIES", "Entry", "File", "Known", "entry", "listing"]

ENTRIES = (
    LLMFAO,
    UKPCONVARG1,
    *POLIS,
    *PREFLIB,
    CREATIVITY,
    TTCW,
    PRISM,
    DICES_350,
    DICES_990,
    MULTIPREF,
    HELPSTEER2,
    HELPSTEER2_PREFERENCE,
    ARENA,
    HH,
    HH_HARMLESS,
    HH_HELPFUL,
    FINEGRAINED,
    ULTRAFEEDBACK,
)
"""All known data sets, those in which annotators can be told apart first."""


def entry(name: str) -> Entry:
    """Return what is known of a data set.

    Raises:
        InputError: nothing is known under this name.
    """
    known = {entry.name: entry for entry in ENTRIES}
    if name not in known:
        near = difflib.get_close_matches(name, list(known), 1, 0.5)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        raise InputError(f"no data set {name!r} is known; known are {', '.join(known)}.{hint}")
    return known[name]


def listing() -> Table:
    """Return all known data sets as a table: name, title, licence, whether it is on this machine."""
    table = Table(Column("name", no_wrap=True), "what it is", "licence", "here", show_lines=True)
    for known in ENTRIES:
        table.add_row(*map(Text, (known.name, known.title, known.licence, "yes" if known.where() else "")))
    return table


@dataclass(frozen=True)
class Known(AbstractSource):
    """A published data set by its name, from files that are on this machine (`pluralign data get NAME`).

    Args:
        name: of the data set; `pluralign data list` lists them.
        folder: that holds its files; none = its folder in PLURALIGN_DATA or in the user's cache.
    """

    name: str
    folder: str | Path | None = None
    kind: Literal["known"] = "known"

    def __post_init__(self):
        entry(self.name)

    def _located(self) -> Path:
        return entry(self.name).located(None if self.folder is None else Path(self.folder))

    def load(self) -> Feedback:
        """Check the files and read them.

        Raises:
            InputError: a file is missing, not the one that is known, or cannot be read.
        """
        known = entry(self.name)
        folder = self._located()
        files = known.checked(folder)
        votes = known.read(folder)
        told = {"kind": self.kind, "name": known.name, "licence": known.licence, "citation": known.citation}
        return replace(votes, provenance={**votes.provenance, **told, "files": files})

    def fingerprint(self) -> str:
        """Return a content hash of the files."""
        known = entry(self.name)
        return digest(self.name, [file["sha256"] for file in known.checked(self._located())])
