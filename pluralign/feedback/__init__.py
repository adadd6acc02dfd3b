"""Raw sources of judgements to `Feedback`: who judged what, and how.

`Table` reads files and data sets, `Community` simulates annotators whose wants are known,
`describe` counts what a reader should know before trusting the data, `holdout` keeps some judgements for evaluation.
"""

from pluralign.feedback.community import Community, Group
from pluralign.feedback.preflib import Preflib
from pluralign.feedback.source import AbstractSource
from pluralign.feedback.split import holdout
from pluralign.feedback.summary import Summary, describe
from pluralign.feedback.table import Table

__all__ = ["AbstractSource", "Community", "Group", "Preflib", "Summary", "Table", "describe", "holdout"]
