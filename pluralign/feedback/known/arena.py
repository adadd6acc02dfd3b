from pathlib import Path

from pluralign.feedback.build import Builder
from pluralign.feedback.known.chat import transcript
from pluralign.feedback.known.entry import Entry, File, hub
from pluralign.feedback.known.rows import Row, rows
from pluralign.types import Feedback

NAME = "data/train-00000-of-00001-cced8514c7ed782a.parquet"
RANKS = {"model_a": (0, 1), "model_b": (1, 0), "tie": (0, 0), "tie (bothbad)": (0, 0)}
ROLES = {"user": "Human", "assistant": "Assistant"}


def read(folder: Path) -> Feedback:
    """Read the votes in the order in which they were given."""
    builder = Builder()
    for row in sorted(rows(folder / NAME), key=lambda row: row["tstamp"]):
        prompts, pair = zip(*(_split(row, f"conversation_{x}") for x in "ab"), strict=True)
        if prompts[0] != prompts[1] or pair[0] == pair[1]:
            builder.set_aside("different prompts" if prompts[0] != prompts[1] else "same text", row.place)
            continue
        slate = [builder.item(prompts[0], text, row.text(f"model_{x}")) for text, x in zip(pair, "ab", strict=True)]
        builder.choice(
            slate, row.one_of("winner", RANKS), builder.annotator(row.text("judge")), time=int(row["tstamp"])
        )
    return builder.feedback()


def _split(row: Row, name: str) -> tuple[str, str]:
    """Return the first message, and all that follows as the response to it."""
    first, *rest = row.rows(name)
    return first.text("content"), transcript((m.one_of("role", ROLES), m.text("content")) for m in rest)


ARENA = Entry(
    name="chatbot-arena",
    title="33,000 votes of 13,383 visitors between the answers of two of 20 language models (2023)",
    home="https://huggingface.co/datasets/lmsys/chatbot_arena_conversations",
    licence="prompts CC BY 4.0, answers of models CC BY-NC 4.0; conditions to accept on its page",
    citation="Lianmin Zheng et al., Judging LLM-as-a-Judge with MT-Bench and Chatbot Arena, NeurIPS 2023, "
    "arXiv:2306.05685.",
    mapping="Each vote is a comparison by a visitor ('judge') with its time; 'tie' and 'tie (bothbad)' are both ties. "
    "The prompt is the first message; in longer conversations the response is all that follows. Language, moderation "
    "and toxicity tags are left out.",
    files=(File(NAME, hub("lmsys/chatbot_arena_conversations", "1b6335d42a1d2c7e34870c905d03ab964f7f2bd8", NAME)),),
    read=read,
)
