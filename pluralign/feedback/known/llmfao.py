from pathlib import Path

from pluralign.feedback.known.entry import Entry, File, github
from pluralign.feedback.table import Table
from pluralign.types import Feedback

SOURCE = "dustalov/llmfao", "9e224e94a40129fd6e1e1529b962307e84af40da"


def read(folder: Path) -> Feedback:
    """Read the crowd's comparisons; texts stand in the file of pairs."""
    return Table(
        folder / "crowd-comparisons.csv",
        prompt="text",
        first="result_x",
        second="result_y",
        outcome="winner",
        annotator="worker",
        join=folder / "pairs-crowd.jsonl",
        sources=("left", "right"),
    ).load()


LLMFAO = Entry(
    name="llmfao",
    title="Crowd comparisons of the answers of 59 language models to 13 prompts (LLMFAO, 2023)",
    home="https://github.com/dustalov/llmfao",
    licence="CC BY 4.0",
    citation="Dmitry Ustalov, LLMFAO: Large Language Model Feedback Analysis and Optimization, 2023, "
    "https://evalovernite.substack.com/p/llmfao-human-ranking; answers of the models: Crowdsourced LLM Benchmark, "
    "llmonitor.com.",
    mapping="Each vote is a comparison (left, right or tie) by a worker. Sources are the models.",
    files=(
        File(
            "crowd-comparisons.csv",
            github(*SOURCE, "crowd-comparisons.csv"),
            "106564a4bf06f047a4662979384313c22d9b4ca901e780f9e8419f8e5581adb1",
        ),
        File(
            "pairs-crowd.jsonl",
            github(*SOURCE, "pairs-crowd.jsonl"),
            "83c32e02deeb657e2b6a4cad7391c9bbabbd4f108f78392859b09eeb911ff04b",
        ),
    ),
    read=read,
)
