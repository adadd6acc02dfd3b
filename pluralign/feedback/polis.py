"""Conversations of Polis (Small et al. 2021, https://compdemocracy.org): people vote on each other's comments."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from jaxtyping import Int

from pluralign.artifacts import digest
from pluralign.errors import InputError
from pluralign.feedback import cells, read
from pluralign.feedback.build import Builder
from pluralign.feedback.columns import Rows
from pluralign.feedback.source import AbstractSource
from pluralign.types import Choices, Feedback, Grades, Scale

SCALE = Scale("agree/pass/disagree", ("disagree", "pass", "agree"), "vote")
VOTE = "A vote is 1, 0 or -1."
MODERATED = {"-1": 0, "0": 1, "1": 2}
ENDINGS = {
    "comments": ("comments.csv",),
    "matrix": ("participants-votes.csv", "participant-votes.csv"),
    "votes": ("votes.csv",),
    "summary": ("summary.csv",),
}


@dataclass(frozen=True)
class Polis(AbstractSource):
    """The export of one conversation of Polis: grades agree, pass or disagree of comments.

    Items are the comments: the prompt is the conversation's topic, the response is the comment, the source is its
    author. Votes are read from `votes.csv` if it is there (one vote a row, with its time; of several votes of a person
    on a comment the latest counts), else from `participants-votes.csv` (one person a row, no times). The latter also
    tells the group that Polis put each person into: the attribute `group-id`, empty for those in none.

    Exports differ in whether 1 or -1 means agree. Two things in the export betray a wrong sign, and are checked: people
    hardly ever disagree with their own comments, and `comments.csv` counts agrees and disagrees. (These counts often
    differ a little from the votes, since they may count votes that were changed later; the provenance counts such
    comments in `counts_differ`.)

    Args:
        folder: with the files of the export; their names may have a prefix, as in `2025-07-04-1200-7abc-comments.csv`.
        topic: the prompt; by default that of `summary.csv`.
        agree: the number that means agree.
        rejected: whether votes on comments that moderators rejected count; Polis itself leaves them out.
    """

    folder: str | Path
    topic: str | None = None
    agree: Literal[1, -1] = 1
    rejected: bool = False
    kind: Literal["polis"] = "polis"

    def _files(self) -> dict[str, Path]:
        folder, found = Path(self.folder), {}
        if not folder.is_dir():
            raise InputError(f"{folder} is not a folder; give the one with comments.csv and participants-votes.csv.")
        for kind, endings in ENDINGS.items():
            paths = [p for p in sorted(folder.iterdir()) if p.name.endswith(endings) and p not in found.values()]
            if len(paths) > 1:
                names = ", ".join(p.name for p in paths)
                raise InputError(f"{folder} has several files {endings[0]}: {names}; one folder is one conversation.")
            if paths:
                found[kind] = paths[0]
        if "comments" not in found or not {"votes", "matrix"} & set(found):
            raise InputError(f"{folder} lacks comments.csv, or both votes.csv and participants-votes.csv.")
        return found

    def fingerprint(self) -> str:
        """Return a content hash of the files of the export."""
        return digest([file["sha256"] for file in self._hashes()])

    def _hashes(self) -> list[dict[str, str]]:
        return [{"name": path.name, "sha256": read.fingerprint(path, ())} for path in self._files().values()]

    def load(self) -> Feedback:
        """Read the votes.

        Raises:
            InputError: a file is missing or cannot be read, a cell is bad, numbers of votes are not those that the
                export states, or agree seems to be the other sign; with the place and the mend.
        """
        from datasets import Dataset

        files = self._files()
        topic = self._topic(files)
        comments = _comments(files["comments"])
        sign = cells.words({str(self.agree): 2, "0": 1, str(-self.agree): 0})
        votes = (_long if "votes" in files else _wide)(
            files["votes" if "votes" in files else "matrix"], sign, self.agree
        )
        groups = _groups(files["matrix"]) if "matrix" in files else {}

        row_of = {id: row for row, id in enumerate(comments.id)}
        row = np.array([row_of.get(id, -1) for id in votes.comments], np.int64)[votes.comment]
        differ = self._check_sign(files, comments, votes, row)
        used = (comments.moderated > 0) | self.rejected
        counts = (row >= 0) & used[row]
        aside = {
            "a vote that the voter cast again later": votes.repeated,
            "a vote on a comment that comments.csv does not have": int((row < 0).sum()),
            "a vote on a comment that moderators rejected": int(((row >= 0) & ~used[row]).sum()),
        }
        aside = {reason: n for reason, n in aside.items() if n}
        if not counts.any():
            raise InputError(f"{self.folder} has no vote that counts; set aside: {aside or 'nothing'}.")

        name = Path(self.folder).absolute().name  # people of different conversations are different people
        builder = Builder()
        texts = zip(comments.body, comments.author, used.tolist(), strict=True)
        item = np.array([builder.item(topic, text, f"{name} {who}") if use else -1 for text, who, use in texts])
        judged, who = np.unique(votes.voter[counts], return_inverse=True)
        time = votes.time[counts]
        return Feedback(
            items=builder.items(),
            annotators=Dataset.from_dict(
                {
                    "id": [f"{name} {votes.voters[i]}" for i in judged.tolist()],
                    "weight": np.ones(len(judged)),
                    **({"group-id": [groups.get(votes.voters[i], "") for i in judged.tolist()]} if groups else {}),
                }
            ),
            objectives=("overall",),
            choices=Choices.none(),
            grades=Grades(
                item=item[row[counts]],
                value=votes.grade[counts],
                scale=np.zeros(len(who)),
                annotator=who,
                objective=np.zeros(len(who)),
                context=cells.order(time, who) if "votes" in files else np.full(len(who), -1),
                time=time,
            ),
            scales=(SCALE,),
            provenance={
                "kind": self.kind,
                "files": self._hashes(),
                "rows": len(votes.voter) + votes.repeated,
                "participants": len(votes.voters),
                "counts_differ": len(differ),
                "counts_differ_at": differ[:20],
                "set_aside": aside,
            },
        )

    def _topic(self, files: dict[str, Path]) -> str:
        if self.topic is not None:
            return self.topic
        mend = "Give the prompt yourself: `topic`."
        if "summary" not in files:
            raise InputError(f"{self.folder} has no summary.csv to take the topic from. {mend}")
        try:
            key, *topic = read.read(files["summary"], ()).names  # it has no header: its first line is the topic
        except InputError as error:
            raise InputError(f"{error} {mend}") from error
        if key != "topic" or not "".join(topic).strip():
            raise InputError(f"{files['summary']}, line 1 is {','.join((key, *topic))!r}, not `topic,<text>`. {mend}")
        return topic[0]

    def _check_sign(
        self, files: dict[str, Path], comments: "_Comments", votes: "_Votes", row: Int[np.ndarray, " vote"]
    ) -> list[str]:
        """Check that the votes say agree where people would, and return the comments whose counts differ."""
        here = row >= 0
        found = np.zeros((3, len(comments.id)), int)
        np.add.at(found, (votes.grade[here], row[here]), 1)
        disagrees, _, agrees = found
        author = np.array([*comments.author, ""])[row]
        own = votes.grade[author == np.array(votes.voters)[votes.voter]]
        margin = int((own == 2).sum() - (own == 0).sum())
        # A handful of authors is no evidence, but more are the better evidence: some exports had the wrong sign in
        # votes.csv and, in keeping with it, in the counts of comments.csv.
        alike = int((agrees - disagrees) @ (comments.agrees - comments.disagrees))
        if (margin if abs(margin) >= 3 else alike) < 0:
            evidence = (
                f"people would disagree with {(own == 0).sum()} and agree with {(own == 2).sum()} of their own comments"
                if abs(margin) >= 3
                else f"agrees and disagrees would be the other way round in {comments.name}"
            )
            used = files["votes" if "votes" in files else "matrix"].name
            raise InputError(
                f"{used}: if {self.agree} meant agree, {evidence}. Some exports have the other sign: set "
                f"agree={-self.agree}."
            )
        differ = (agrees != comments.agrees) | (disagrees != comments.disagrees)
        return [comments.id[i] for i in np.flatnonzero(differ).tolist()]


@dataclass(frozen=True, eq=False)
class _Comments:
    """What `comments.csv` says; `moderated` is 0 = rejected, 1 = not moderated, 2 = accepted."""

    name: str
    id: list[str]
    author: list[str]
    body: list[str]
    agrees: Int[np.ndarray, " comment"]
    disagrees: Int[np.ndarray, " comment"]
    moderated: Int[np.ndarray, " comment"]


@dataclass(frozen=True, eq=False)
class _Votes:
    """The last vote of each person on each comment, as indices into `voters` and `comments` (their ids)."""

    voters: list[str]
    comments: list[str]
    voter: Int[np.ndarray, " vote"]
    comment: Int[np.ndarray, " vote"]
    grade: Int[np.ndarray, " vote"]
    time: Int[np.ndarray, " vote"]
    repeated: int


def _comments(path: Path) -> _Comments:
    names = ("comment-id", "author-id", "comment-body", "agrees", "disagrees", "moderated")
    rows = read.read(path, names)
    cells.filled(rows, names, "Every comment has an id, an author, a text and counts.")
    id, author, body = (_texts(rows, name) for name in names[:3])
    _unique(rows, "comment-id")
    return _Comments(
        rows.name,
        id,
        author,
        body,
        _counts(rows, "agrees"),
        _counts(rows, "disagrees"),
        cells.meant(rows, "moderated", cells.words(MODERATED), "It is -1 = rejected, 0 = not moderated, 1 = accepted."),
    )


def _wide(path: Path, sign: cells.Meaning, agree: int) -> _Votes:
    columns = [name for name in read.read(path, ()).names if name.isdecimal()]
    rows = read.read(path, ("participant", "n-votes", "n-agree", "n-disagree", *columns))
    cells.filled(rows, ("participant",), "Every person has an id.")
    _unique(rows, "participant")
    if not columns:
        raise InputError(f"{path} has no columns 0, 1, 2, ... with the votes on the comments of these numbers.")
    grade = np.stack([cells.meant(rows, name, sign, VOTE, optional=True) for name in columns], 1)
    for name, counted in {"n-votes": grade >= 0, "n-agree": grade == 2, "n-disagree": grade == 0}.items():
        if name not in rows.columns:
            continue
        wrong = np.flatnonzero(_counts(rows, name) != counted.sum(1))
        if len(wrong):
            row = int(wrong[0])
            raise InputError(
                f"{cells.at(rows, row)}: participant {rows.columns['participant'].at(row)} has {name} "
                f"{rows.columns[name].at(row)}, but {counted[row].sum()} such votes ({len(wrong)} rows in all). "
                f"Was the file edited, or does {agree} mean disagree? Then set agree={-agree}."
            )
    voter, comment = np.nonzero(grade >= 0)
    unknown = np.full(len(voter), -1)
    return _Votes(_texts(rows, "participant"), columns, voter, comment, grade[voter, comment], unknown, 0)


def _long(path: Path, sign: cells.Meaning, agree: int) -> _Votes:
    rows = read.read(path, ("timestamp", "comment-id", "voter-id", "vote"))
    cells.filled(rows, ("timestamp", "comment-id", "voter-id"), "Every vote has a time, a comment and a voter.")
    voter, comment = (cells.column(rows, name) for name in ("voter-id", "comment-id"))
    grade, time = cells.meant(rows, "vote", sign, VOTE), cells.times(rows, "timestamp")
    by = np.lexsort((np.arange(len(time)), time, comment.codes, voter.codes))
    pair = np.stack([voter.codes, comment.codes])[:, by]
    last = np.sort(by[np.append((pair[:, 1:] != pair[:, :-1]).any(0), True)])
    return _Votes(
        voter.values,
        comment.values,
        voter.codes[last],
        comment.codes[last],
        grade[last],
        time[last],
        len(time) - len(last),
    )


def _groups(path: Path) -> dict[str, str]:
    rows = read.read(path, ("participant", "group-id"))
    if "group-id" not in rows.columns:
        return {}
    return dict(zip(_texts(rows, "participant"), _texts(rows, "group-id"), strict=True))


def _texts(rows: Rows, name: str) -> list[str]:
    return [text or "" for text in cells.column(rows, name).texts()]


def _counts(rows: Rows, name: str) -> Int[np.ndarray, " row"]:
    return cells.meant(
        rows, name, lambda word: int(word) if word.isdecimal() and len(word) < 16 else None, "It is a number of votes."
    )


def _unique(rows: Rows, name: str) -> None:
    ids, seen = rows.columns[name].codes, set()
    for row, id in enumerate(ids.tolist()):
        if id in seen:
            raise InputError(f"{cells.at(rows, row)}: {name} {rows.columns[name].at(row)!r} is there twice.")
        seen.add(id)
