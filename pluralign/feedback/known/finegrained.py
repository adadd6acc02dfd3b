from collections import Counter
from itertools import combinations
from pathlib import Path

from pluralign.errors import InputError
from pluralign.feedback.build import Builder
from pluralign.feedback.known.entry import Entry, File, github
from pluralign.feedback.known.rows import rows
from pluralign.types import Feedback, Scale

SOURCE = "allenai/FineGrainedRLHF", "a1469d4eba0b3754bcb343beb88f0aca24bf4848"
RANKS = {0: (0, 0), 1: (0, 1), 2: (1, 0)}
ASPECTS = {
    "errors": ("Irrelevant", "Redundant", "Incoherent", "Wrong-Grounding", "Unverifiable"),
    "missing-info": ("Missing-Answer", "Missing-Major-Auxiliary", "Missing-Minor-Auxiliary"),
}
FAULTS = Scale("number of faults, the fewest best", ("3 or more", "2", "1", "none"))


def read(folder: Path) -> Feedback:
    """Read comparisons of four answers, faults marked in the first of them, and its correction."""
    builder = Builder()
    who = builder.annotator("unknown")
    for row in rows(folder / "dev_feedback.json"):
        answers = [builder.item(row.text("question"), row.text(f"prediction {n}")) for n in (1, 2, 3, 4)]
        wanted = row["preference"]
        if not isinstance(wanted, list) or len(wanted) != 6 or not set(wanted) <= set(RANKS):
            raise row.wrong("preference", "six of 0, 1 and 2")
        for pair, outcome in zip(combinations(answers, 2), wanted, strict=True):
            if pair[0] == pair[1]:
                builder.set_aside("a response compared with itself", row.place)
            else:
                builder.choice(pair, RANKS[outcome], who)
        marked = row.row("feedback")
        for kind, aspects in ASPECTS.items():
            faults = Counter(fault.text("error type") for fault in marked.rows(kind))
            if set(faults) - set(aspects):
                raise InputError(f"{marked.place} has faults {sorted(faults)}; known are {', '.join(aspects)}.")
            for aspect in aspects:
                builder.grade(answers[0], 3 - min(faults[aspect], 3), FAULTS, who, objective=aspect)
        text = marked.text("corrected-prediction")
        if text == row.text("prediction 1") or not text.strip():
            builder.set_aside("nothing corrected" if text.strip() else "nothing left by the correction", row.place)
        else:
            corrected = builder.item(row.text("question"), text, "corrected")
            builder.choice((corrected, answers[0]), (0, 1), who, form="correction")
    return builder.feedback()


FINEGRAINED = Entry(
    name="finegrained-rlhf",
    title="500 questions: comparisons of four answers, faults marked in the first, and its correction (2023)",
    home="https://github.com/allenai/FineGrainedRLHF",
    licence="Apache-2.0",
    citation="Zeqiu Wu et al., Fine-Grained Human Feedback Gives Better Rewards for Language Model Training, NeurIPS "
    "2023.",
    mapping="Six comparisons of the four answers to a question, 0 = tie. The number of spans marked in the first "
    "answer, in each of eight categories, is a grade (none is best, 3 or more worst), with the category as objective; "
    "where the spans lie is left out. The corrected answer is a correction of the first. The passages that the answers "
    "rest on are no part of the prompt. Annotators are not published: all is by one annotator 'unknown', and nothing "
    "can be learned of disagreement.",
    files=(
        File(
            "dev_feedback.json",
            github(*SOURCE, "tasks/qa_feedback/data/dev_feedback.json"),
            "f394289ecfdc5a2d1663170254b92d75ad3c53ba36df9f627c70d4c6fc4f3291",
        ),
    ),
    read=read,
    folder="finegrained_rlhf_dev",
)
