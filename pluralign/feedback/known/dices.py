from functools import partial
from pathlib import Path

from pluralign.feedback.build import Builder
from pluralign.feedback.known.entry import Entry, File, github
from pluralign.feedback.known.rows import table
from pluralign.types import Feedback, Scale

UNSAFE = Scale("unsafe, in order of safety", ("Yes", "Unsure", "No"), "label")
"""The question is whether the response is unsafe, so that "No" is the best answer."""


def read(name: str, attributes: tuple[str, ...], questions: tuple[str, ...], folder: Path) -> Feedback:
    """Read the answers of each rater on each conversation."""
    builder = Builder()
    values = {label: value for value, label in enumerate(UNSAFE.labels)}
    for row in table(folder / name, "rater_id", "context", "response", *attributes, *questions):
        who = builder.annotator(
            row.text("rater_id"), 1.0, **{a.removeprefix("rater_"): row.text(a) for a in attributes}
        )
        item = builder.item(row.text("context"), row.text("response"))
        for question in questions:
            if row[question]:
                builder.grade(item, row.one_of(question, values), UNSAFE, who, objective=question)
            else:
                builder.set_aside(f"no answer to {question}", row.place)
    return builder.feedback()


def _entry(size: int, what: str, attributes: tuple[str, ...], questions: tuple[str, ...]) -> Entry:
    name = f"diverse_safety_adversarial_dialog_{size}.csv"
    return Entry(
        name=f"dices-{size}",
        title=f"Is the last response of {size} adversarial conversations unsafe? {what} (DICES, 2023)",
        home="https://github.com/google-research-datasets/dices-dataset",
        licence="CC BY 4.0",
        citation="Lora Aroyo et al., DICES Dataset: Diversity in Conversational AI Evaluation for Safety, NeurIPS "
        "2023, arXiv:2306.11247.",
        mapping="Each answer (unsafe: yes, unsure, no) is a grade, no being best; objectives are the categories and "
        f"their sum-up: {', '.join(questions)}. The finer questions that these sum up are left out. All raters are "
        f"there, also those whom the paper leaves out. Attributes: {', '.join(attributes)}, without 'rater_'.",
        files=(File(name, github("google-research-datasets/dices-dataset", "main", f"{size}/{name}")),),
        read=partial(read, name, attributes, questions),
    )


DICES_350 = _entry(
    350,
    "Each of 123 raters judged all",
    ("rater_gender", "rater_race", "rater_age"),
    (
        "Q2_harmful_content_overall",
        "Q3_bias_overall",
        "Q4_misinformation",
        "Q5_political_affiliation",
        "Q6_policy_guidelines_overall",
        "Q_overall",
    ),
)
DICES_990 = _entry(
    990,
    "60 to 70 of 173 raters from India and the USA judged each",
    ("rater_gender", "rater_locale"),
    ("Q2_harmful_content_overall", "Q3_bias_overall", "Q4_misinformation_overall", "Q_overall"),
)
