from pathlib import Path

from pluralign.feedback.build import Builder
from pluralign.feedback.known.entry import Entry, File, hub
from pluralign.feedback.known.rows import rows
from pluralign.types import Feedback, Scale

SOURCE = "openbmb/UltraFeedback", "40b436560ca83a8dba36114c22ab3c66e43f6d5e"
FILES = tuple(f"{part}.jsonl" for part in ("evol_instruct", "false_qa", "flan", "sharegpt", "truthful_qa", "ultrachat"))
ASPECTS = "helpfulness", "honesty", "instruction_following", "truthfulness"
STARS = Scale("1 to 5", ("1", "2", "3", "4", "5"))


def read(folder: Path) -> Feedback:
    """Read the ratings that GPT-4 gave to four answers on four aspects."""
    builder = Builder()
    judge = builder.annotator("gpt-4")
    values = {label: value for value, label in enumerate(STARS.labels)}
    for row in (row for name in FILES for row in rows(folder / name)):
        for answer in row.rows("completions"):
            item = builder.item(row.text("instruction"), answer.text("response"), answer.text("model"))
            for aspect in ASPECTS:
                rated = answer.row("annotations").row(aspect)
                if rated["Rating"] == "N/A":
                    builder.set_aside(f"not rated: {aspect}", rated.place)
                else:
                    builder.grade(item, rated.one_of("Rating", values), STARS, judge, objective=aspect)
    return builder.feedback()


ULTRAFEEDBACK = Entry(
    name="ultrafeedback",
    title="Ratings by GPT-4 of four answers each to 63,967 instructions on four aspects (2023)",
    home="https://huggingface.co/datasets/openbmb/UltraFeedback",
    licence="MIT",
    citation="Ganqu Cui et al., UltraFeedback: Boosting Language Models with Scaled AI Feedback, 2023, "
    "arXiv:2310.01377.",
    mapping="Each rating from 1 to 5 is a grade, with the aspect as objective. The one annotator is 'gpt-4': nothing "
    "can be learned of disagreement. System prompts, the overall score and critiques are left out.",
    files=tuple(File(name, hub(*SOURCE, name)) for name in FILES),
    read=read,
)
