"""Raw sources of judgements to `Feedback`: who judged what, and how.

`Table` reads comparisons from files and data sets, `Rankings` orders over more responses, `Ratings` grades; `Preflib`
reads elections, `Polis` votes on comments; `Known` names published data sets; `Several` joins sources; `Community`
simulates annotators whose wants are known. `describe` counts what a reader should know before trusting the data,
`coverage` compares annotators with a `Population` and `rake` weights them to it, `holdout` keeps some judgements for
evaluation, as do `ByJudgement`, `ByAnnotator`, `ByPrompt` and `ByTime`, without leakage.
"""

from pluralign.feedback.assignment import Active, Independent, Overlapping
from pluralign.feedback.behaviour import AlwaysFirst, AtRandom, Collude, Fatigue, Flip, Position, Temperature, Trigger
from pluralign.feedback.build import Builder, concatenate
from pluralign.feedback.community import Community, Group
from pluralign.feedback.coverage import Population, coverage, rake
from pluralign.feedback.known import Known
from pluralign.feedback.polis import Polis
from pluralign.feedback.preflib import Preflib
from pluralign.feedback.rankings import Rankings
from pluralign.feedback.ratings import Ratings
from pluralign.feedback.responding import (
    Approval,
    BestOf,
    Comparison,
    Correction,
    Demonstration,
    Ranking,
    Rating,
    Vote,
    YesNo,
)
from pluralign.feedback.several import Several
from pluralign.feedback.source import AbstractSource
from pluralign.feedback.split import ByAnnotator, ByJudgement, ByPrompt, ByTime, holdout
from pluralign.feedback.summary import Summary, describe
from pluralign.feedback.table import Table

__all__ = [
    "AbstractSource",
    "Active",
    "AlwaysFirst",
    "Approval",
    "AtRandom",
    "BestOf",
    "Builder",
    "ByAnnotator",
    "ByJudgement",
    "ByPrompt",
    "ByTime",
    "Collude",
    "Community",
    "Comparison",
    "Correction",
    "Demonstration",
    "Fatigue",
    "Flip",
    "Group",
    "Independent",
    "Known",
    "Overlapping",
    "Polis",
    "Population",
    "Position",
    "Preflib",
    "Ranking",
    "Rankings",
    "Rating",
    "Ratings",
    "Several",
    "Summary",
    "Table",
    "Temperature",
    "Trigger",
    "Vote",
    "YesNo",
    "concatenate",
    "coverage",
    "describe",
    "holdout",
    "rake",
]
