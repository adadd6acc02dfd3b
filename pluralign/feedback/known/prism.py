from itertools import groupby
from pathlib import Path

from pluralign.feedback.build import Builder
from pluralign.feedback.known.chat import transcript
from pluralign.feedback.known.entry import Entry, File, hub
from pluralign.feedback.known.rows import Row, rows
from pluralign.types import Feedback, Scale

SOURCE = "HannahRoseKirk/prism-alignment", "18ab5cfb37456f4ec8cbc00212ce54cf7b1239f6"
SCORE = Scale("terrible to perfect", tuple(str(score) for score in range(1, 101)))
SAID = "age", "gender", "education", "employment_status", "english_proficiency", "study_locale"
GROUPED = {"ethnicity": "simplified", "religion": "simplified", "location": "reside_region"}


def read(folder: Path) -> Feedback:
    """Read every turn of every conversation: one choice among the responses, and a score for each."""
    builder = Builder()
    people = {row.text("user_id"): _attributes(row) for row in rows(folder / "survey.jsonl")}
    for sitting, row in enumerate(rows(folder / "conversations.jsonl")):
        who = builder.annotator(row.text("user_id"), 1.0, **row.one_of("user_id", people))
        said: list[tuple[str, str]] = []
        for _, turn in groupby(row.rows("conversation_history"), key=lambda message: message.whole("turn")):
            messages = list(turn)
            said += [("Human", m.text("content")) for m in messages if m.text("role") == "user"]
            answers = [m for m in messages if m.text("role") == "model"]
            chosen = _judged(builder, answers, transcript(said), who, sitting)
            if chosen is None:
                builder.set_aside("nothing chosen: the rest of the conversation has no context", row.place)
                break
            said.append(("Assistant", chosen))
    return builder.feedback()


def _judged(builder: Builder, answers: list[Row], prompt: str, who: int, sitting: int) -> str | None:
    """Add choice and scores of one turn; return the chosen text."""
    items = [builder.item(prompt, a.text("content"), a.text("model_name")) for a in answers]
    for item, answer in zip(items, answers, strict=True):
        if answer["score"] in range(1, 101):
            builder.grade(item, answer.whole("score") - 1, SCORE, who, sitting=sitting)
        else:
            builder.set_aside("no score from 1 to 100", answer.place)
    best = {item: a for item, a in zip(items, answers, strict=True) if a["if_chosen"] is True}
    slate = list(dict.fromkeys(items))
    if len(best) == 1 and len(slate) > 1:
        builder.choice(slate, [0 if item in best else -1 for item in slate], who, sitting=sitting)
    elif best:
        builder.set_aside("all responses the same" if len(slate) == 1 else "more than one chosen", answers[0].place)
    return next((answer.text("content") for answer in best.values()), None)


def _attributes(row: Row) -> dict[str, str]:
    flat = {name: row[name] for name in SAID} | {name: row.row(name)[inner] for name, inner in GROUPED.items()}
    return {name: "" if value is None else str(value) for name, value in flat.items()}


PRISM = Entry(
    name="prism",
    title="8,011 conversations of 1,396 people from 75 countries with 21 language models, and who they are (2024)",
    home="https://huggingface.co/datasets/HannahRoseKirk/prism-alignment",
    licence="human texts CC BY 4.0, answers of models CC BY-NC 4.0 and their providers' terms",
    citation="Hannah Rose Kirk et al., The PRISM Alignment Dataset: What Participatory, Representative and "
    "Individualised Human Feedback Reveals About the Subjective and Multicultural Alignment of Large Language Models, "
    "NeurIPS 2024, arXiv:2404.16019.",
    mapping="In each turn the choice among two to four answers is a choice of the best, and each answer's score from 1 "
    "to 100 a grade; a conversation is a sitting. The prompt is the conversation so far. Attributes come from the "
    "survey: " + ", ".join([*SAID, "ethnicity and religion (simplified)", "location (region of residence)"]) + ". "
    "Feedback on whole conversations is left out.",
    files=tuple(File(name, hub(*SOURCE, name)) for name in ("survey.jsonl", "conversations.jsonl")),
    read=read,
)
