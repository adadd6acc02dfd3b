from collections import defaultdict
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
from jaxtyping import Int

from pluralign.errors import InputError
from pluralign.feedback.known.entry import Entry, File, github
from pluralign.feedback.known.rows import Row, texts
from pluralign.feedback.table import Table
from pluralign.types import Feedback

SOURCE = "UKPLab/acl2016-convincing-arguments", "ca9d24e41b8805ff2e1d3585d552b49bb64a65f7"
SIDES = (
    "ban-plastic-water-bottles_no-bad-for-the-economy",
    "ban-plastic-water-bottles_yes-emergencies-only",
    "christianity-or-atheism-_atheism",
    "christianity-or-atheism-_christianity",
    "evolution-vs-creation_creation",
    "evolution-vs-creation_evolution",
    "firefox-vs-internet-explorer_it-has-a-cute-logo-oh-and-extensions-err-add-ons",
    "firefox-vs-internet-explorer_there-s-more-browsers-than-the-ie-firefox-is-an-animal",
    "gay-marriage-right-or-wrong_allowing-gay-marriage-is-right",
    "gay-marriage-right-or-wrong_allowing-gay-marriage-is-wrong",
    "human-growth-and-development-should-parents-use-spanking-as-an-option-to-discipline-_no",
    "human-growth-and-development-should-parents-use-spanking-as-an-option-to-discipline-_yes",
    "if-your-spouse-committed-murder-and-he-or-she-confided-in-you-would-you-turn-them-in-_no",
    "if-your-spouse-committed-murder-and-he-or-she-confided-in-you-would-you-turn-them-in-_yes",
    "india-has-the-potential-to-lead-the-world-_no-against",
    "india-has-the-potential-to-lead-the-world-_yes-for",
    "is-it-better-to-have-a-lousy-father-or-to-be-fatherless-_fatherless",
    "is-it-better-to-have-a-lousy-father-or-to-be-fatherless-_lousy-father",
    "is-porn-wrong-_no-is-is-not",
    "is-porn-wrong-_yes-porn-is-wrong",
    "is-the-school-uniform-a-good-or-bad-idea-_bad",
    "is-the-school-uniform-a-good-or-bad-idea-_good",
    "personal-pursuit-or-advancing-the-common-good-_advancing-the-comnong-good",
    "personal-pursuit-or-advancing-the-common-good-_personal-pursuit",
    "pro-choice-vs-pro-life_pro-choice",
    "pro-choice-vs-pro-life_pro-life",
    "should-physical-education-be-mandatory-in-schools-_no-",
    "should-physical-education-be-mandatory-in-schools-_yes-",
    "tv-is-better-than-books_books",
    "tv-is-better-than-books_tv",
    "william-farquhar-ought-to-be-honoured-as-the-rightful-founder-of-singapore_no-it-is-raffles-",
    "william-farquhar-ought-to-be-honoured-as-the-rightful-founder-of-singapore_yes-of-course-",
)
"""Names of the published files, one a side of a debate."""


Columns = dict[str, list[str]]


def read(folder: Path) -> Feedback:
    """Read all answers."""
    from datasets import Dataset

    columns = _tables(folder) if (folder / "judgments.csv").is_file() else _published(folder)
    said: dict[str, set[str]] = defaultdict(set)
    for worker, word in zip(columns["worker"], columns["stance"], strict=True):
        said[worker] |= {word} - {""}
    stance = {worker: min(words) if len(words) == 1 else "varies" * bool(words) for worker, words in said.items()}
    time = _seconds(columns["time"])
    votes = Table(
        Dataset.from_dict({**columns, "stance": [stance[w] for w in columns["worker"]], "time": time}),
        prompt="prompt",
        first="first",
        second="second",
        outcome="value",
        annotator="worker",
        attributes=("stance",),
        outcomes={"a1": "first", "a2": "second"},
        order="time",
    ).load()
    # A table has no times, and sets the pairs of equal texts aside.
    kept = np.array([one != two for one, two in zip(columns["first"], columns["second"], strict=True)])
    return replace(votes, choices=replace(votes.choices, time=time[kept]))


def _tables(folder: Path) -> Columns:
    """Return the columns of all answers from the three tables."""
    arguments = texts(folder / "arguments.csv", "arg_id", "title", "stance", "text")
    known = dict(
        zip(arguments["arg_id"], zip(*(arguments[c] for c in ("title", "stance", "text")), strict=True), strict=True)
    )
    pairs = texts(folder / "pairs.csv", "pair_id", "arg1_id", "arg2_id")
    pair = dict(zip(pairs["pair_id"], zip(pairs["arg1_id"], pairs["arg2_id"], strict=True), strict=True))
    answers = texts(folder / "judgments.csv", "pair_id", "worker", "value", "worker_stance", "submit_time")
    for file, ids, there in (
        ("judgments.csv", answers["pair_id"], pair),
        ("pairs.csv", pairs["arg1_id"] + pairs["arg2_id"], known),
    ):
        lost = sorted(set(ids) - set(there))
        if lost:
            raise InputError(f"{folder / file} names {len(lost)} ids that are in none of its tables, as {lost[0]!r}.")
    both = [[known[argument] for argument in pair[id]] for id in answers["pair_id"]]
    return {
        "prompt": [_prompt(title, stance) for (title, stance, _), _ in both],
        "first": [one for (_, _, one), _ in both],
        "second": [two for _, (_, _, two) in both],
        "worker": answers["worker"],
        "value": answers["value"],
        "stance": answers["worker_stance"],
        "time": answers["submit_time"],
    }


def _published(folder: Path) -> Columns:
    """Return the columns of all answers from the files as published."""
    columns: Columns = {name: [] for name in ("prompt", "first", "second", "worker", "value", "stance", "time")}
    for side in SIDES:
        path = folder / f"{side}.xml"
        try:
            pairs = ElementTree.parse(path).getroot()
        except ElementTree.ParseError as error:
            raise InputError(f"{path} is not whole XML ({error}); was it cut off? Fetch it again.") from error
        for n, pair in enumerate(pairs, 1):
            cells = {p: pair.findtext(p) for p in ("arg1/text", "arg2/text", "arg1/stance", "debateMetaData/title")}
            for m, task in enumerate(pair.iter("mTurkAssignment"), 1):
                row = Row(
                    f"{path.name}, pair {n}, assignment {m}",
                    {**cells, "workerStance": "", **{cell.tag: cell.text or "" for cell in task}},
                )
                columns["prompt"].append(_prompt(row.text("debateMetaData/title"), row.text("arg1/stance")))
                columns["first"].append(row.text("arg1/text"))
                columns["second"].append(row.text("arg2/text"))
                columns["worker"].append(row.text("turkID"))
                columns["value"].append(row.text("value"))
                columns["stance"].append(row.text("workerStance"))
                columns["time"].append(row.text("assignmentSubmitTime"))
    return columns


def _seconds(words: list[str]) -> Int[np.ndarray, " answer"]:
    """Return dates such as "2016-01-31 16:59:52.0 UTC" in seconds since 1970."""
    try:
        times = np.array([word.removesuffix(" UTC") for word in words], "datetime64[ms]")
    except ValueError as error:
        raise InputError(f"a time of submission is no date: {error}. Is this the file that is described?") from error
    return times.astype("datetime64[s]").astype(np.int64)


def _prompt(title: str, stance: str) -> str:
    return f"{title} Argue for: {stance}"


UKPCONVARG1 = Entry(
    name="ukpconvarg1",
    title="Which of two arguments for the same side of a debate convinces more: 16,927 pairs, five workers each (2016)",
    home="https://github.com/UKPLab/acl2016-convincing-arguments",
    licence="CC BY 4.0; source arguments CC BY 3.0 (createdebate.com) and public domain (convinceme.net)",
    citation="Ivan Habernal and Iryna Gurevych, Which argument is more convincing? Analyzing and predicting "
    "convincingness of Web arguments using bidirectional LSTM, ACL 2016.",
    mapping="Each answer (a1, a2 or equal) is a comparison by a worker, with its time. A worker's stance towards the "
    "arguments was asked pair by pair; as an attribute it is the one word that the worker always said (same, opposite, "
    "none), 'varies', or empty. Reasons, the MACE competence and the gold label are left out.",
    files=tuple(File(f"{side}.xml", github(*SOURCE, f"data/UKPConvArg1-full-XML/{side}.xml")) for side in SIDES),
    instead=(
        File("arguments.csv", None, "afb40de8a12f328d60774c319cd202d2b9eb19e5e50e0dee751cb9eaa1d337c7"),
        File("pairs.csv", None, "f9326df40f2f44b8128660f458970ee6b8a408a3dbab72769c2f28b9fad7792a"),
        File("judgments.csv", None, "045b2a540cdfbbfb6a5d6b8078c14b7dadb633656742a2101908305fb02f565e"),
    ),
    read=read,
)
