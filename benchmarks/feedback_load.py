"""How long it takes, and how much memory, to read a million comparisons into a checked `Feedback` and to describe it.

    python benchmarks/feedback_load.py [--comparisons 1000000] [--formats parquet crowded csv jsonl chat]

The limit is a bare pyarrow read of the same columns of the same file in the same run; for `jsonl` and `chat` a bare
loop of `json.loads` over the lines, which keeps nothing: no reader that checks anything can be faster. Every
measurement has a process of its own, so that peak memory is that of one read; seconds are wall time without imports,
`cpu` is time of the processor (all threads), which tells more where the machine is shared. `described` is the same
with `describe` after it. `text` is how many bytes the different texts have, which every reader has to hold.
`crowded` has only 400 items, so that many annotators judge each pair; `chat` holds a tenth of the comparisons, each
text a conversation with roles.

The bounds of a million comparisons from Parquet: 10 s for both, and 1 GB.
"""

import argparse
import csv
import json
import multiprocessing
import resource
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet

NAMES = {"prompt": "prompt", "first": "left", "second": "right", "outcome": "winner", "annotator": "worker"}
PROMPTS, RESPONSES, ANNOTATORS = 5_000, 10, 10_000
CHUNK = 100_000


def texts(rng: np.random.Generator, n: int, words: int) -> pa.Array:
    """Return different texts of `words` words each, about six letters a word."""
    vocabulary = np.array(["".join(rng.choice(list("abcdefghijklmnop"), rng.integers(3, 9))) for _ in range(2_000)])
    picked = vocabulary[rng.integers(0, len(vocabulary), (n, words))]
    return pa.array([f"{i}: {' '.join(row)}." for i, row in enumerate(picked)])


def chunks(comparisons: int, asked: int = PROMPTS, seed: int = 0) -> Iterator[pa.Table]:
    """Yield comparisons of random pairs of ten responses to each of 5,000 prompts, `CHUNK` rows at a time."""
    rng = np.random.default_rng(seed)
    prompts, responses = texts(rng, asked, 30), texts(rng, asked * RESPONSES, 60)
    for start in range(0, comparisons, CHUNK):
        n = min(CHUNK, comparisons - start)
        prompt, left = rng.integers(0, asked, n), rng.integers(0, RESPONSES, n)
        right = (left + rng.integers(1, RESPONSES, n)) % RESPONSES
        columns = {
            "prompt": prompts.take(pa.array(prompt)),
            "left": responses.take(pa.array(prompt * RESPONSES + left)),
            "right": responses.take(pa.array(prompt * RESPONSES + right)),
            "winner": pa.array(["left", "right", "tie"]).take(pa.array(rng.integers(0, 3, n))),
            "worker": pa.array([f"w{i}" for i in rng.integers(0, ANNOTATORS, n)]),
        }
        yield pa.table(columns)


def write_parquet(path: Path, comparisons: int, asked: int = PROMPTS) -> None:
    """Write with pyarrow's own settings."""
    writer = None
    for chunk in chunks(comparisons, asked):
        writer = writer or pyarrow.parquet.ParquetWriter(path, chunk.schema)
        writer.write_table(chunk)
    assert writer is not None
    writer.close()


def write_crowded(path: Path, comparisons: int) -> None:
    """Write comparisons of the responses to 40 prompts."""
    write_parquet(path, comparisons, 40)


def write_csv(path: Path, comparisons: int) -> None:
    """Write with quotes where they are needed."""
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(NAMES.values())
        for chunk in chunks(comparisons):
            writer.writerows(zip(*(chunk[name].to_pylist() for name in NAMES.values()), strict=True))


def write_jsonl(path: Path, comparisons: int) -> None:
    """Write one object a line."""
    with open(path, "w", encoding="utf-8") as file:
        for chunk in chunks(comparisons):
            file.writelines(json.dumps(row) + "\n" for row in chunk.to_pylist())


def write_chat(path: Path, comparisons: int) -> None:
    """Write a tenth of the comparisons, every text a conversation of chat messages."""
    with open(path, "w", encoding="utf-8") as file:
        for chunk in chunks(comparisons // 10):
            for row in chunk.to_pylist():
                row["prompt"] = [
                    {"role": role, "content": f"{role}: {row['prompt']}"} for role in ("system", "user", "assistant")
                ]
                row["left"], row["right"] = ([{"role": "assistant", "content": row[s]}] for s in ("left", "right"))
                file.write(json.dumps(row) + "\n")


def votes(path: Path) -> Any:
    """Read the file with `Table`."""
    from pluralign.feedback import Table

    return Table(path, **NAMES).load()  # pyright: ignore[reportArgumentType]


def load(path: Path) -> int:
    """Return how many comparisons there are."""
    return len(votes(path).choices)


def described(path: Path) -> int:
    """Read the file and describe it."""
    from pluralign.feedback import describe

    return describe(votes(path)).judgements


def distinct(path: Path) -> int:
    """Return how many bytes the different texts of items and annotators have."""
    read = votes(path)
    columns = read.items["prompt"][:], read.items["response"][:], read.annotators["id"][:]
    return sum(len(text.encode()) for column in columns for text in set(column))


def bare_parquet(path: Path) -> int:
    """Read the five columns and keep them."""
    return len(pyarrow.parquet.read_table(path, columns=list(NAMES.values()), memory_map=False))


def bare_csv(path: Path) -> int:
    """Read the five columns and keep them."""
    types = dict.fromkeys(NAMES.values(), pa.string())
    convert = pyarrow.csv.ConvertOptions(column_types=types, include_columns=list(types))
    parse = pyarrow.csv.ParseOptions(newlines_in_values=True)
    return len(pyarrow.csv.read_csv(path, parse_options=parse, convert_options=convert))


def bare_json(path: Path) -> int:
    """Read every line and keep none."""
    with open(path, "rb") as file:
        return sum(bool(json.loads(line)) for line in file)


FORMATS: dict[str, tuple[str, Callable[[Path, int], None], Callable[[Path], int]]] = {
    "parquet": ("votes.parquet", write_parquet, bare_parquet),
    "crowded": ("crowded.parquet", write_crowded, bare_parquet),
    "csv": ("votes.csv", write_csv, bare_csv),
    "jsonl": ("votes.jsonl", write_jsonl, bare_json),
    "chat": ("chat.jsonl", write_chat, bare_json),
}


@dataclass(frozen=True)
class Cost:
    """Wall seconds, processor seconds, peak memory in GB, and the number of rows."""

    seconds: float
    cpu: float
    peak: float
    rows: int

    def __str__(self) -> str:
        return f"{self.seconds:8.1f} {self.cpu:6.1f} {self.peak:6.2f}"


def measured(job: Callable[[Path], int], path: Path) -> Cost:
    """Return what a job costs in a fresh process."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(_measure, (job, path))


def _measure(job: Callable[[Path], int], path: Path) -> Cost:
    import datasets  # noqa: F401  # its import is not what is measured

    import pluralign.feedback  # noqa: F401

    wall, cpu = time.perf_counter(), time.process_time()
    rows = job(path)
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    unit = 1 if sys.platform == "darwin" else 1024
    return Cost(wall, cpu, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e9, rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--comparisons", type=int, default=1_000_000)
    parser.add_argument("--formats", nargs="*", choices=list(FORMATS), default=list(FORMATS))
    parser.add_argument("--folder", type=Path, help="where the files are made and kept; by default in a passing one")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as passing:
        folder = arguments.folder or Path(passing)
        folder.mkdir(parents=True, exist_ok=True)
        columns = f"{'seconds':>8} {'cpu':>6} {'GB':>6}"
        print(
            f"{'format':8} {'rows':>9} {'file GB':>8} {'text GB':>8} |{columns} |{columns} described |{columns} bare | "
            "ratio, of cpu"
        )
        for name in arguments.formats:
            file, write, bare = FORMATS[name]
            path = folder / file
            if not path.exists():
                write(path, arguments.comparisons)
            limit, ours, told = (measured(job, path) for job in (bare, load, described))
            assert ours.rows == limit.rows == told.rows, f"{ours.rows} of {limit.rows} comparisons arrived"
            size, ratios = path.stat().st_size / 1e9, (ours.seconds / limit.seconds, ours.cpu / limit.cpu)
            print(
                f"{name:8} {ours.rows:9,} {size:8.2f} {measured(distinct, path).rows / 1e9:8.3f} |{ours} |{told}"
                f"           |{limit}      | {ratios[0]:5.1f} {ratios[1]:7.1f}",
                flush=True,
            )


if __name__ == "__main__":
    main()
