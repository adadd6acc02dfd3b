"""What is known of a published data set."""

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from pluralign.errors import InputError
from pluralign.feedback.fetch import fetch, sha256
from pluralign.types import Feedback

SHOWN = 6
SUMS = "SHA256SUMS"
"""Checksums that were seen when files without a known one came, in the format that `sha256sum --check` reads."""


@dataclass(frozen=True)
class File:
    """One published file.

    Args:
        name: path inside the folder of the data set.
        url: where it is published; none = it cannot be downloaded in this form.
        sha256: its checksum; none = no checksum is known.
    """

    name: str
    url: str | None
    sha256: str | None = None


@dataclass(frozen=True)
class Entry:
    """One data set: where it is published, under what terms, and how it becomes `Feedback`.

    Args:
        name: that users type.
        title: what it is, in a line.
        home: its page.
        licence: of the data.
        citation: what to cite.
        mapping: how it becomes choices and grades, what is the annotator, and what is left out.
        files: as published.
        read: makes feedback of a folder that holds the files.
        folder: name of its folder among the data sets; default: its name.
        instead: files made from the published ones, read in their place where they are there.
    """

    name: str
    title: str
    home: str
    licence: str
    citation: str
    mapping: str
    files: tuple[File, ...]
    read: Callable[[Path], Feedback]
    folder: str = ""
    instead: tuple[File, ...] = ()

    def table(self) -> Table:
        """Return what is known as a table that fits a terminal of 80 columns."""
        table = Table(title=self.title, title_justify="left", title_style="bold", show_header=False, width=78)
        table.add_column(style="cyan")
        table.add_column(overflow="fold")
        folder = self.where()
        files = [f"{file.name}: {file.sha256 or 'no checksum is known'}" for file in self.files[:SHOWN]]
        files += [f"and {len(self.files) - SHOWN} more"] * (len(self.files) > SHOWN)
        lines = {
            "name": self.name,
            "home": self.home,
            "licence": self.licence,
            "citation": self.citation,
            "how it is read": self.mapping,
            "files (SHA-256)": "\n".join(files),
            "on this machine": str(folder) if folder else f"no; `pluralign data get {self.name}`",
        }
        for name, value in lines.items():
            table.add_row(Text(name), Text(value))
        return table

    def present(self, folder: Path) -> tuple[File, ...]:
        """Return the files of a folder that `read` would read, none unless all are there."""
        for files in (self.instead, self.files):
            if files and all((folder / file.name).is_file() for file in files):
                return files
        return ()

    def where(self, folder: Path | None = None) -> Path | None:
        """Return the folder that holds all files: the one given, else in one of `roots()`; none = nowhere."""
        folders = [root / (self.folder or self.name) for root in roots()] if folder is None else [folder]
        return next((path for path in folders if self.present(path)), None)

    def located(self, folder: Path | None = None) -> Path:
        """Return the folder that holds all files.

        Raises:
            InputError: there is none.
        """
        found = self.where(folder)
        if found is None:
            asked = folder or roots()[0] / (self.folder or self.name)
            missing = [file.name for file in self.files if not (asked / file.name).is_file()]
            raise InputError(
                f"{self.name}: {asked} lacks {', '.join(missing[:3])}"
                f"{f' and {len(missing) - 3} more files' if len(missing) > 3 else ''}. "
                f"`pluralign data get {self.name}` downloads what is published; see {self.home}."
            )
        return found

    def checked(self, folder: Path) -> list[dict[str, str]]:
        """Return name, SHA-256 and standing of the files that are read.

        Raises:
            InputError: a file is not the one that is known.
        """
        return [self._check(folder, file, _recorded(folder)) for file in self.present(folder)]

    def _check(self, folder: Path, file: File, recorded: Mapping[str, str]) -> dict[str, str]:
        found = sha256(folder / file.name)
        if file.sha256 not in (None, found):
            raise InputError(
                f"{folder / file.name} is not the file that is known: its SHA-256 is {found}, not {file.sha256}. "
                f"Delete it and `pluralign data get {self.name}`; a file that you changed is read as a Table instead."
            )
        if file.sha256 is None and recorded.get(file.name, found) != found:
            raise InputError(
                f"{folder / file.name} has changed: its SHA-256 is {found}, but {SUMS} beside it says "
                f"{recorded[file.name]}. Delete it and `pluralign data get {self.name}`, or, if you changed it on "
                f"purpose, delete its line in {SUMS}."
            )
        known = "checksum is right" if file.sha256 else "no checksum is known"
        return {"name": file.name, "sha256": found, "standing": known}

    def get(self, folder: Path | None = None, console: Console | None = None) -> Path:
        """Download the files that are not there yet, check all of them, and return their folder.

        Args:
            folder: where they lie or shall lie; default: where they are, else the first of `roots()`.
            console: shows a progress bar; default: none.

        Raises:
            InputError: a file cannot be had or is not the one that is known, or one has no address.
        """
        folder = self.where(folder) or folder or roots()[0] / (self.folder or self.name)
        if not self.present(folder):
            self._download(folder, console)
        recorded = _recorded(folder)
        seen = {file["name"]: file["sha256"] for file in self.checked(folder)}
        unknown = {file.name for file in self.present(folder) if file.sha256 is None} - set(recorded)
        if unknown:
            lines = [f"{seen[name]}  {name}\n" for name in sorted(unknown)]
            try:
                with open(folder / SUMS, "a", encoding="utf-8") as stream:
                    stream.writelines(lines)
            except OSError as error:
                raise InputError(f"{folder / SUMS} cannot be written ({error.strerror}).") from error
        return folder

    def _download(self, folder: Path, console: Console | None) -> None:
        missing = [file for file in self.files if not (folder / file.name).is_file()]
        for file in missing:
            if file.url is None:
                raise InputError(
                    f"{file.name} of {self.name} has no address to download it from: its terms forbid that, or it was "
                    f"made from other files (`pluralign data describe {self.name}`). A copy from {self.home} goes to "
                    f"{folder}."
                )
        columns = TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TimeRemainingColumn()
        with Progress(*columns, console=console, disable=console is None) as bars:
            for file in missing:
                bar = bars.add_task(file.name, total=None)

                def progress(have: int, total: int | None, bar=bar) -> None:
                    bars.update(bar, completed=have, total=total)

                fetch(str(file.url), folder / file.name, file.sha256, progress=progress)


def roots() -> list[Path]:
    """Return the folders that hold a folder for each data set: PLURALIGN_DATA if it is set, then the user's cache."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "pluralign" / "data"
    own = os.environ.get("PLURALIGN_DATA")
    return [Path(own), cache] if own else [cache]


def github(repository: str, commit: str, path: str) -> str:
    """Return the address of a file in a GitHub repository."""
    return f"https://raw.githubusercontent.com/{repository}/{commit}/{quote(path)}"


def hub(repository: str, revision: str, path: str) -> str:
    """Return the address of a file in a data set on the Hugging Face hub."""
    return f"https://huggingface.co/datasets/{repository}/resolve/{revision}/{quote(path)}"


def _recorded(folder: Path) -> dict[str, str]:
    if not (folder / SUMS).is_file():
        return {}
    lines = (folder / SUMS).read_text(encoding="utf-8").splitlines()
    return {name: found for found, name in (line.split("  ", 1) for line in lines if "  " in line)}
