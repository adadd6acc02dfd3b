from collections import defaultdict
from pathlib import Path

from pluralign.feedback.build import Builder
from pluralign.feedback.known.entry import Entry, File, hub
from pluralign.feedback.known.rows import rows
from pluralign.types import Feedback

NAME = "MultiPref-Train.jsonl"
POOLS = "normal", "expert"
OBJECTIVES = "overall", "helpful", "truthful", "harmless"
ANSWERS = {
    "A-is-clearly-better": ((0, 1), 2),
    "A-is-slightly-better": ((0, 1), 1),
    "Tie": ((0, 0), 0),
    "B-is-slightly-better": ((1, 0), 1),
    "B-is-clearly-better": ((1, 0), 2),
}


def read(folder: Path) -> Feedback:
    """Read the answers of four annotators a pair, in the order in which they were given."""
    tasks = [
        (pool, row, task)
        for row in rows(folder / NAME)
        for pool in POOLS
        for task in row.rows(f"{pool}_worker_annotations")
    ]
    pools: dict[str, set[str]] = defaultdict(set)
    for pool, _, task in tasks:
        pools[task.text("evaluator")].add(pool)
    builder = Builder()
    for _, row, task in sorted(tasks, key=lambda task: task[2].time("timestamp")):
        id = task.text("evaluator")
        who = builder.annotator(id, pool=" and ".join(sorted(pools[id])))
        pair = [builder.item(row.text("text"), row.text(f"completion_{x}"), row.text(f"model_{x}")) for x in "ab"]
        for objective in OBJECTIVES:
            name = f"{objective}_pref"
            if pair[0] == pair[1] or task[name] is None:
                builder.set_aside("same text" if pair[0] == pair[1] else f"no answer: {objective}", task.place)
                continue
            rank, strength = task.one_of(name, ANSWERS)
            builder.choice(pair, rank, who, objective=objective, strength=strength, time=task.time("timestamp"))
    return builder.feedback()


MULTIPREF = Entry(
    name="multipref",
    title="About 10,000 pairs of answers, each compared by two crowd workers and two experts on four aspects (2024)",
    home="https://huggingface.co/datasets/allenai/multipref",
    licence="ODC-BY",
    citation="Lester James V. Miranda et al., Hybrid Preferences: Learning to Route Instances for Human vs. AI "
    "Feedback, 2024, arXiv:2410.19133.",
    mapping="Each answer is a comparison with its time; slightly better is strength 1, clearly better 2. Objectives: "
    f"{', '.join(OBJECTIVES)}. The attribute 'pool' says whether the annotator is a normal worker or an expert. "
    "Reasons, confidence and time spent are left out.",
    files=(File(NAME, hub("allenai/multipref", "12910233a0238a997ebe425656e9dfed7b0ff031", NAME)),),
    read=read,
)
