"""What looks like a slip of whoever made the table, in sentences."""

from collections.abc import Iterator

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pluralign.feedback.privacy import column
from pluralign.types import Feedback

NUMBER = r"^\s*[+-]?\d+([.,]\d+)?\s*$"


def slips(feedback: Feedback) -> Iterator[str]:
    """Yield a sentence on annotators who may be the same person, and one on prompts that may be no texts."""
    ids = pc.utf8_lower(pc.replace_substring_regex(column(feedback.annotators, "id"), r"\s+", ""))  # pyright: ignore
    again = len(ids) - len(ids.unique())
    if again:
        yield (
            f"{again:,} annotator id{'s differ' if again > 1 else ' differs'} from another one only in case or white "
            "space. If these are the same people, spell them the same: now each counts as a person."
        )
    prompts = column(feedback.items, "prompt").take(pa.array(np.unique(feedback.prompt_id, return_index=True)[1]))
    numbers = int(pc.sum(pc.match_substring_regex(prompts, NUMBER)).as_py() or 0)  # pyright: ignore
    if 2 * numbers > len(prompts):
        yield (
            f"{numbers:,} of {len(prompts):,} prompts are numbers. If they are ids, name the column with the texts, or "
            "join the file that has them: features of an id mean nothing."
        )
