from pathlib import Path

from pluralign.feedback.build import Builder
from pluralign.feedback.known.entry import Entry, File, hub
from pluralign.feedback.known.rows import rows
from pluralign.types import Feedback, Scale

SOURCE = "nvidia/HelpSteer2", "990b2711a36180dd19d9c94b8627844866f8982a"
ASPECTS = "helpfulness", "correctness", "coherence", "complexity", "verbosity"
LIKERT = Scale("0 to 4", ("0", "1", "2", "3", "4"))
RATINGS, PREFERENCES = "disagreements/disagreements.jsonl.gz", "preference/preference.jsonl.gz"
NEITHER = -100


def ratings(folder: Path) -> Feedback:
    """Read every annotator's ratings of a response on five aspects."""
    builder = Builder()
    for n, row in enumerate(rows(folder / RATINGS), 1):
        item = builder.item(row.text("prompt"), row.text("response"))
        for aspect in ASPECTS:
            values = row[aspect]
            if not isinstance(values, list) or not all(value in range(5) for value in values):
                raise row.wrong(aspect, "a list of ratings from 0 to 4")
            for m, value in enumerate(values, 1):
                builder.grade(item, int(value), LIKERT, builder.annotator(f"{n}.{m}"), objective=aspect)
    return builder.feedback()


def preferences(folder: Path) -> Feedback:
    """Read every annotator's preference between two responses, before outliers were filtered."""
    builder = Builder()
    for n, row in enumerate(rows(folder / PREFERENCES), 1):
        pair = [builder.item(row.text("prompt"), row.text(f"response_{i}")) for i in (1, 2)]
        for m, given in enumerate(row.rows("all_preferences_unprocessed"), 1):
            strength = given.whole("strength")
            if strength == NEITHER or pair[0] == pair[1]:
                builder.set_aside("neither response is acceptable" if strength == NEITHER else "same text", given.place)
            elif abs(strength) > 3:
                raise given.wrong("strength", f"from -3 (the first is much better) to 3, or {NEITHER}")
            else:
                rank = (int(strength > 0), int(strength < 0))
                builder.choice(pair, rank, builder.annotator(f"{n}.{m}"), strength=abs(strength))
    return builder.feedback()


WHO = (
    "Annotators are not published: 'n.m' is the m-th of those who judged the n-th sample, so disagreement within a "
    "sample is there, but nobody is seen twice and nothing can be learned of what one annotator wants."
)
HELPSTEER2 = Entry(
    name="helpsteer2",
    title="Ratings of 21,362 responses on five aspects by about three annotators each (HelpSteer2, 2024)",
    home="https://huggingface.co/datasets/nvidia/HelpSteer2",
    licence="CC BY 4.0",
    citation="Zhilin Wang et al., HelpSteer2: Open-source dataset for training top-performing reward models, 2024, "
    "arXiv:2406.08673.",
    mapping="Each annotator's rating from 0 to 4 is a grade, with the aspect as objective; more complexity or "
    "verbosity is a higher grade, which is not to say better. " + WHO,
    files=(File(RATINGS, hub(*SOURCE, RATINGS)),),
    read=ratings,
)
HELPSTEER2_PREFERENCE = Entry(
    name="helpsteer2-preference",
    title="Preferences between two responses, with strength, by about three annotators a pair (HelpSteer2, 2024)",
    home=HELPSTEER2.home,
    licence=HELPSTEER2.licence,
    citation="Zhilin Wang et al., HelpSteer2-Preference: Complementing Ratings with Preferences, 2024, "
    "arXiv:2410.01257.",
    mapping="Each annotator's preference is a comparison of strength 1 to 3; 0 is a tie. All preferences are read, not "
    "the three most similar; where neither response was acceptable (-100) there is no order, and the row is set "
    "aside. " + WHO,
    files=(File(PREFERENCES, hub(*SOURCE, PREFERENCES)),),
    read=preferences,
    folder="helpsteer2",
)
