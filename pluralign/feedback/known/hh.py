from functools import partial
from os.path import commonprefix
from pathlib import Path

from pluralign.feedback.build import Builder
from pluralign.feedback.known.entry import Entry, File, github, hub
from pluralign.feedback.known.rows import rows
from pluralign.types import Feedback

TURN = "\n\nAssistant:"


def read(names: tuple[str, ...], folder: Path) -> Feedback:
    """Read pairs of transcripts; what is common to both up to the assistant's turn is the prompt."""
    builder = Builder()
    who = builder.annotator("unknown")
    for row in (row for name in names for row in rows(folder / name)):
        chosen, rejected = row.text("chosen"), row.text("rejected")
        common = commonprefix([chosen, rejected]).rfind(TURN) + len(TURN)  # noqa: RUF071  # texts, no paths
        if chosen == rejected or common < len(TURN):
            builder.set_aside("no difference" if chosen == rejected else "no common prompt", row.place)
            continue
        answers = [builder.item(chosen[:common], text[common:].strip()) for text in (chosen, rejected)]
        if answers[0] == answers[1]:
            builder.set_aside("no difference", row.place)
        else:
            builder.choice(answers, (0, 1), who)
    return builder.feedback()


def _entry(name: str, what: str, folder: str, *files: File) -> Entry:
    return Entry(
        name=name,
        title=f"Which of two continuations of a dialogue is {what} (HH-RLHF, 2022)",
        home="https://github.com/anthropics/hh-rlhf",
        licence="MIT",
        citation="Yuntao Bai et al., Training a Helpful and Harmless Assistant with Reinforcement Learning from Human "
        "Feedback, 2022, arXiv:2204.05862.",
        mapping="Each pair is a comparison that the chosen one won; the prompt is the common beginning up to an "
        "assistant's turn. The chosen one always stands first, so nothing can be learned of the order of showing. "
        "Annotators are not published: all pairs are by one annotator 'unknown', and nothing can be learned of "
        "disagreement.",
        files=files,
        read=partial(read, tuple(file.name for file in files)),
        folder=folder,
    )


HH = _entry(
    "hh-rlhf",
    "less harmful: the 2,312 test pairs",
    "hh_rlhf_harmless_test",
    File(
        "harmless-base-test.jsonl.gz",
        github("anthropics/hh-rlhf", "354e5c3cb8960630860dd5774a6ac2a58313bf4d", "harmless-base/test.jsonl.gz"),
        "ebfaaed21162a4de120ae85366075b34425e2a6303fac59b99555002f7016f03",
    ),
)
HH_HARMLESS, HH_HELPFUL = (
    _entry(
        f"hh-rlhf-{aim}",
        f"more {aim}: training and test pairs",
        "hh-rlhf",
        *(
            File(name, hub("Anthropic/hh-rlhf", "main", name))
            for name in (f"{aim}-base/train.jsonl.gz", f"{aim}-base/test.jsonl.gz")
        ),
    )
    for aim in ("harmless", "helpful")
)
