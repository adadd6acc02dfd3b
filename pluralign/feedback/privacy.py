from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pluralign.types import Feedback

PATTERNS = {
    "e-mail addresses": r"\b[A-Za-z0-9._%+-]+@[A-Za-z0-9-]+(\.[A-Za-z0-9-]+)*\.[A-Za-z]{2,}\b",
    # only what is written as people write phone numbers: a plus, or groups of 3, 3 and 4 digits set apart
    "phone numbers": r"(^|[^\w.+-])(\+[1-9]\d{0,2}[ .-]?(\(\d{1,4}\)[ .-]?)?\d{2,4}([ .-]?\d{2,4}){2,4}"
    r"|(\(\d{3}\) ?|\d{3}[ .-])\d{3}[ .-]\d{4})($|[^\w-])",
}
SHOWN = 5


@dataclass(frozen=True)
class Personal:
    """Where personal data seems to stand; never the data itself.

    Attributes:
        what: "e-mail addresses" or "phone numbers".
        where: "prompts", "responses" or "annotator ids".
        count: in how many different prompts, responses or annotators.
        first: the first few indices, of items or of annotators.
    """

    what: str
    where: str
    count: int
    first: tuple[int, ...]


def personal(feedback: Feedback) -> tuple[Personal, ...]:
    """Return where e-mail addresses and phone numbers stand in prompts, responses and ids of annotators.

    Patterns are narrow: what they find is nearly always one, what they miss may be many.
    """
    one = np.unique(feedback.prompt_id, return_index=True)[1]  # item of each prompt
    texts = (
        ("prompts", column(feedback.items, "prompt").take(pa.array(one)), one),
        ("responses", column(feedback.items, "response"), np.arange(len(feedback.items))),
        ("annotator ids", column(feedback.annotators, "id"), np.arange(len(feedback.annotators))),
    )
    found = []
    for where, text, index in texts:
        for what, pattern in PATTERNS.items():
            hits = pc.match_substring_regex(text, pattern).combine_chunks()  # pyright: ignore
            at = np.sort(index[hits.fill_null(False).to_numpy(zero_copy_only=False)])
            if len(at):
                found.append(Personal(what, where, len(at), tuple(int(i) for i in at[:SHOWN])))
    return tuple(found)


def column(table, name: str) -> pa.ChunkedArray:
    """Return a column of a data set as words, without going through Python."""
    values = table.with_format("arrow")[:][name]
    return pa.chunked_array([values] if isinstance(values, pa.Array) else values.chunks, values.type).cast(
        pa.large_string()
    )
