from pathlib import Path

from pluralign.feedback.build import Builder, concatenate
from pluralign.feedback.known.entry import Entry, File, github
from pluralign.feedback.known.rows import rows, table
from pluralign.types import Feedback, Scale

SOURCE = "salesforce/creativity_eval", "fced0ab2d3068244152d1302a8bd8e9f538440f5"
ART = "Art_or_Artifice"
VERDICT = Scale("verdict", ("No", "Yes"), "label")


def rankings(folder: Path) -> Feedback:
    """Read the experts' rankings of three versions of a text."""
    builder = Builder()
    items = {row.text("item"): row for row in rows(folder / "writing_rank_items.jsonl")}
    for row in table(folder / "writing_rankings.csv", "item", "annotator", "first", "second", "third"):
        item = row.one_of("item", items)
        responses, kinds = item["responses"], item["response_kind"] or []
        kinds = [*kinds, *[""] * (len(responses) - len(kinds))]
        slate = [builder.item(item.text("instruction"), *pair) for pair in zip(responses, kinds, strict=True)]
        places = {str(slot): slot for slot in range(len(slate))}
        best_first = [row.one_of(name, places) for name in ("first", "second", "third")]
        rank = [best_first.index(slot) for slot in range(len(slate))]
        builder.choice(slate, rank, builder.annotator(row.text("annotator"), study="writing"))
    return builder.feedback()


def criteria(folder: Path) -> Feedback:
    """Read the experts' verdicts on 14 criteria of creative writing."""
    builder = Builder()
    stories = {row.text("story_id"): row for row in rows(folder / "ttcw_short_stories.json")}
    for row in rows(folder / "ttcw_annotations.json"):
        story = row.one_of("story_id", stories)
        source = story.text("story_id").partition("_")[2]
        item = builder.item(story.text("plot"), story.text("content"), source)
        expert = builder.annotator(f"ttcw-{row.whole('expert_idx')}", study="ttcw")
        value = row.one_of("binary_verdict", {label: value for value, label in enumerate(VERDICT.labels)})
        builder.grade(item, value, VERDICT, expert, objective=row.text("category"))
    return builder.feedback()


def both(folder: Path) -> Feedback:
    """Read rankings and verdicts; the experts of the two studies are not matched."""
    return concatenate(rankings(folder), criteria(folder))


TTCW_FILES = (
    File(
        "ttcw_short_stories.json",
        github(*SOURCE, f"{ART}/stories/ttcw_short_stories.json"),
        "5ff3138ead096c50ecafc86c7be88837c96fd2d6a0d903042c0fb3ed867c2bcf",
    ),
    File(
        "ttcw_annotations.json",
        github(*SOURCE, f"{ART}/annotations/ttcw_annotations.json"),
        "f10b711378b80972ef80427d938aebea66b55e9d024d41815ec81ad67058d284",
    ),
)
TTCW_MAPPING = (
    "Each verdict (no, yes) of an expert on one of 14 criteria is a grade, with the criterion as its objective; the "
    "prompt is the plot. Of the 12 stories of The New Yorker only a link is published, which stands in place of the "
    "text: features of it mean nothing (source 'NewYorker'). Explanations are left out."
)
TTCW_CITATION = (
    "Tuhin Chakrabarty, Philippe Laban, Divyansh Agarwal, Smaranda Muresan and Chien-Sheng Wu, Art or Artifice? Large "
    "Language Models and the False Promise of Creativity, CHI 2024."
)
TTCW = Entry(
    name="ttcw",
    title="48 short stories, three experts' verdicts each on 14 criteria of creativity (2024)",
    home="https://github.com/salesforce/creativity_eval",
    licence="BSD 3-Clause",
    citation=TTCW_CITATION,
    mapping=TTCW_MAPPING,
    files=TTCW_FILES,
    read=criteria,
    folder="creativity_eval",
)
CREATIVITY = Entry(
    name="creativity_eval",
    title="TTCW, and 603 rankings by 13 writers of three versions of a text: raw, edited by AI, edited by a writer",
    home=TTCW.home,
    licence=TTCW.licence,
    citation=f"{TTCW_CITATION} Tuhin Chakrabarty, Philippe Laban and Chien-Sheng Wu, Can AI writing be salvaged? CHI "
    "2025.",
    mapping="Each ranking is a choice among three texts with their kind as source; writing_*.jsonl and .csv are a "
    "digest of Writing_Alignment/preference_ranking with writers' names replaced. " + TTCW_MAPPING,
    files=(
        *TTCW_FILES,
        File("writing_rank_items.jsonl", None, "d7138c3c8fe36fd3df3f87009ad1a7545bef028d08bd69fac0e49b2c245ff887"),
        File("writing_rankings.csv", None, "37e59ee1538e91e3d0c83f743ae3e7401d607f461ee11a7e83f1a364b846f870"),
    ),
    read=both,
)
