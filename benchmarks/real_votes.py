"""How well held-out judgements of real people are predicted, beside simpler models, in one run.

    export PLURALIGN_DATA=...  PLURALIGN_ENCODER=...    (folders; the encoder may be a name on the hub)
    python benchmarks/real_votes.py [llmfao ukpconvarg1 folds prompts sushi] [--inference svi|joint|nuts] [--validate]

Data, filters and splits are fixed by this file: rows sorted by annotator and time; of the annotators with seven
judgements or more, a fifth are new (five judgements each may be learned from, the rest is test); of every other one
with five or more a fifth of the judgements is test. Log loss in nats, standard errors clustered by annotator, `macro`
the mean over annotators of their own log loss, ECE in 15 equal bins of the first's probability.

`--validate` is how the models were chosen: the same splits inside the training rows, test rows never looked at.
"""

import argparse
import csv
import json
import os
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import datasets
import numpy as np
from rich.console import Console
from rich.table import Table
from scipy.special import expit

from pluralign import features, reward
from pluralign.errors import ConvergenceWarning
from pluralign.types import Choices, Features, Feedback, Grades

FIRST, SECOND, TIE = 0, 1, 2
RANK = np.array([[0, 1], [1, 0], [0, 0]])
console = Console(width=150)


@dataclass(frozen=True, eq=False)
class Votes:
    """Comparisons of one data set, sorted by annotator and order."""

    first: np.ndarray
    second: np.ndarray
    outcome: np.ndarray
    annotator: np.ndarray
    prompt: np.ndarray  # of each item
    topic: np.ndarray  # of each item: what is held out together
    text: list[str]

    def feedback(self, rows: np.ndarray) -> Feedback:
        """Return these rows; items and annotators stay."""
        people = int(self.annotator.max()) + 1
        n = len(rows)
        return Feedback(
            items=datasets.Dataset.from_dict(
                {"prompt_id": self.prompt, "prompt": [str(p) for p in self.prompt], "response": self.text}
            ),
            annotators=datasets.Dataset.from_dict({"id": [str(a) for a in range(people)], "weight": [1.0] * people}),
            objectives=("overall",),
            choices=Choices(
                slate=np.stack([self.first[rows], self.second[rows]], 1),
                rank=RANK[self.outcome[rows]],
                annotator=self.annotator[rows],
                objective=np.zeros(n, int),
                context=np.full(n, -1),
            ),
            grades=Grades.none(),
        )


def index(values: list[str]) -> tuple[np.ndarray, list[str]]:
    """Return the rank of each value among the distinct ones, as strings."""
    names = sorted(set(values))
    place = {name: i for i, name in enumerate(names)}
    return np.array([place[v] for v in values]), names


def read_csv(path: Path) -> list[dict[str, str]]:
    """Return the rows of a CSV file."""
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def votes_of(keys, outcome, who: list[str], order, items: dict[str, tuple[str, str, str]]) -> Votes:
    """Sort by annotator and order, and number everything by the rank of its key as a string."""
    item, names = index([key for pair in keys for key in pair])
    item = item.reshape(-1, 2)
    annotator, _ = index(who)
    rows = np.lexsort((np.asarray(order), annotator))
    prompt, _ = index([items[name][0] for name in names])
    topic, _ = index([items[name][1] for name in names])
    text = [items[name][2] for name in names]
    return Votes(item[rows, 0], item[rows, 1], np.asarray(outcome)[rows], annotator[rows], prompt, topic, text)


def llmfao(folder: Path) -> Votes:
    """Return the votes of 124 crowd workers on answers of language models."""
    rows = read_csv(folder / "llmfao" / "crowd-comparisons.csv")
    texts = {}
    with (folder / "llmfao" / "pairs-crowd.jsonl").open(encoding="utf-8") as file:
        for line in map(json.loads, file):
            for side in "xy":
                key = f"{int(line['prompt']):03d}_{int(line[f'model_{side}']):03d}"
                texts[key] = (f"{int(line['prompt']):03d}", f"{int(line['prompt']):03d}", line[f"result_{side}"])
    keys = [tuple(f"{int(r['prompt']):03d}_{int(r[m]):03d}" for m in ("model_x", "model_y")) for r in rows]
    said = [{"left": FIRST, "right": SECOND, "tie": TIE}[r["winner"]] for r in rows]
    return votes_of(keys, said, [f"{int(r['worker']):03d}" for r in rows], range(len(rows)), texts)


def ukpconvarg1(folder: Path) -> Votes:
    """Return the votes of 900 workers on which of two arguments is the more convincing."""
    folder = folder / "ukpconvarg1"
    sides: dict[str, set[str]] = {}
    arguments = read_csv(folder / "arguments.csv")
    for r in arguments:
        sides.setdefault(r["title"], set()).add(r["topic"])
    # Both stances of a topic are held out together.
    texts = {r["arg_id"]: (r["topic"], r["topic"].split("_")[0], r["text"]) for r in arguments}
    pairs = {r["pair_id"]: (r["arg1_id"], r["arg2_id"]) for r in read_csv(folder / "pairs.csv")}
    rows = read_csv(folder / "judgments.csv")
    said = [{"a1": FIRST, "a2": SECOND, "equal": TIE}[r["value"]] for r in rows]
    when = index([r["submit_time"] for r in rows])[0] * len(rows) + np.arange(len(rows))
    return votes_of([pairs[r["pair_id"]] for r in rows], said, [r["worker"] for r in rows], when, texts)


DATA = {"llmfao": llmfao, "ukpconvarg1": ukpconvarg1}
COUNTS = {  # of test rows (seen, new), two-way and three-way: the split is the published one, or nothing is measured
    ("llmfao", False): (887, 997),
    ("llmfao", True): (1453, 1533),
    ("ukpconvarg1", False): (9973, 9331),
    ("ukpconvarg1", True): (12815, 12994),
}

TOPIC_ROWS = {"llmfao": 1191, "ukpconvarg1": 12418}


def by_annotator(votes: Votes, ties: bool, rows: np.ndarray | None = None, seed: int = 0):
    """Return rows of (train, seen, new): some judgements of most annotators, most judgements of some."""
    rng = np.random.default_rng(seed)
    rows = np.arange(len(votes.outcome)) if rows is None else rows
    own = {a: rows[votes.annotator[rows] == a] for a in range(int(votes.annotator.max()) + 1)}
    many = np.array([a for a, r in own.items() if len(r) >= 7])
    new_people = set(rng.permutation(many)[: round(0.2 * len(many))].tolist())
    train, seen, new = [], [], []
    for a, r in own.items():
        if a in new_people:
            new.append(r)
            continue
        test = rng.permutation(len(r))[: round(0.2 * len(r))] if len(r) >= 5 else np.zeros(0, int)
        seen.append(r[np.sort(test)])
        train.append(np.delete(r, test))
    counts = (lambda r: r) if ties else (lambda r: r[votes.outcome[r] != TIE])
    new = [counts(r) for r in new]
    train = [counts(r) for r in train] + [r[:5] for r in new]
    return np.concatenate(train), counts(np.concatenate(seen)), np.concatenate([r[5:] for r in new])


def by_topic(votes: Votes, rows: np.ndarray | None = None, seed: int = 1):
    """Return rows of (train, test): three topics are held out."""
    rng = np.random.default_rng(seed)
    rows = np.arange(len(votes.outcome)) if rows is None else rows
    rows = rows[votes.outcome[rows] != TIE]
    topics = np.unique(votes.topic[votes.first[rows]])
    held = np.isin(votes.topic[votes.first[rows]], rng.permutation(topics)[:3])
    return rows[~held], rows[held]


@dataclass(frozen=True)
class Result:
    """How well a model predicts held-out comparisons."""

    log_loss: float
    error: float
    accuracy: float
    macro: float
    ece: float

    def __str__(self) -> str:
        return f"{self.log_loss:.3f} ± {self.error:.3f}  {self.accuracy:.3f}  {self.macro:.3f}  {self.ece:.3f}"


def measure(p: np.ndarray, votes: Votes, rows: np.ndarray) -> Result:
    """Return losses of probabilities `[row outcome]`; accuracy counts the most probable outcome."""
    outcome, who = votes.outcome[rows], votes.annotator[rows]
    loss = -np.log(np.clip(p[np.arange(len(rows)), outcome], 1e-6, 1))
    _, cluster = np.unique(who, return_inverse=True)
    size = np.bincount(cluster)
    total = np.bincount(cluster, loss - loss.mean())
    error = np.sqrt((total**2).sum()) / len(loss) * np.sqrt(len(size) / (len(size) - 1))
    bins = np.minimum((p[:, FIRST] * 15).astype(int), 14)
    gap = np.abs(np.bincount(bins, p[:, FIRST] - (outcome == FIRST), minlength=15)).sum() / len(rows)
    macro = (np.bincount(cluster, loss) / size).mean()
    return Result(float(loss.mean()), float(error), float((p.argmax(1) == outcome).mean()), float(macro), float(gap))


def encode(votes: Votes, dimensions: int | None) -> Features:
    """Return features of the items: sentence embeddings, reduced, and length."""
    encoder = os.environ.get("PLURALIGN_ENCODER", "sentence-transformers/all-MiniLM-L6-v2")
    return features.Encoder(encoder, dimensions=dimensions).encode(votes.feedback(np.zeros(0, int)))


def fit(population, votes: Votes, rows: np.ndarray, phi: Features, inference):
    """Return a posterior, the seconds that it took, and how many caveats it has."""
    start = time.perf_counter()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # counted in the table instead
        posterior = population.fit(votes.feedback(rows), phi, inference=inference, seed=0)
    return posterior, time.perf_counter() - start


def predict(posterior, votes: Votes, rows: np.ndarray, phi: Features) -> np.ndarray:
    """Return probabilities `[row outcome]`."""
    return reward.predict(posterior, votes.feedback(rows), phi)


TEMPERED = reward.Response(rater=reward.Rater(temperature=True))
MODELS: dict[str, Callable[[], reward.AbstractPopulation]] = {
    "pooled, features": lambda: reward.Pooled(response=reward.PLAIN),
    "pooled, features + items": lambda: reward.Pooled(response=reward.PLAIN, items=reward.ItemEffects()),
    "+ temperature": lambda: reward.Pooled(response=TEMPERED, items=reward.ItemEffects()),
    "+ mixture of 3": lambda: reward.Mixture(3, response=TEMPERED, items=reward.ItemEffects()),
    "+ low rank 3": lambda: reward.LowRank(3, response=TEMPERED, items=reward.ItemEffects()),
    "+ deviations": lambda: reward.Hierarchical(response=TEMPERED, items=reward.ItemEffects()),
}
DECLARED = "+ low rank 3"  # by `--validate` on llmfao, two outcomes
DIMENSIONS = {"llmfao": 64, "ukpconvarg1": 32}
BEST = {  # (seen, new) log loss of the best of some thirty models that others tried on the same rows
    ("llmfao", False): (0.335, 0.674),
    ("llmfao", True): (0.770, 1.102),
    ("ukpconvarg1", False): (0.428, 0.456),
    ("ukpconvarg1", True): (0.801, 0.887),
}


def choix_ep(votes: Votes, train: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
    """Return how choix predicts: worths of items by expectation propagation, prior variance 1, nobody told apart."""
    import choix

    lost = votes.outcome[train] == SECOND
    pairs = np.stack([votes.first[train], votes.second[train]], 1)
    pairs[lost] = pairs[lost, ::-1]
    mean, cov = choix.ep_pairwise(len(votes.text), pairs.tolist(), 1.0)

    def first(rows: np.ndarray) -> np.ndarray:
        a, b = votes.first[rows], votes.second[rows]
        variance = cov[a, a] + cov[b, b] - 2 * cov[a, b]
        return expit((mean[a] - mean[b]) / np.sqrt(1 + np.pi * variance / 8))  # the mean of a logistic-normal, nearly

    return first


def crowdkit(votes: Votes, train: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
    """Return how crowd-kit predicts: worths of items by maximum likelihood, clipped at .01."""
    import pandas as pd
    from crowdkit.aggregation import BradleyTerry

    left, right = votes.first[train], votes.second[train]
    won = np.where(votes.outcome[train] == FIRST, left, right)
    table = pd.DataFrame({"worker": votes.annotator[train], "left": left, "right": right, "label": won})
    worth = np.zeros(len(votes.text))
    found = BradleyTerry(n_iter=100).fit_predict(table)
    worth[found.index.to_numpy()] = found.to_numpy()

    def first(rows: np.ndarray) -> np.ndarray:
        a, b = worth[votes.first[rows]], worth[votes.second[rows]]
        with np.errstate(invalid="ignore"):
            return np.clip(np.nan_to_num(a / (a + b), nan=0.5), 0.01, 0.99)

    return first


PEERS = {"choix, EP": choix_ep, "crowd-kit, Bradley-Terry": crowdkit}


def peers(table: Table, votes: Votes, train: np.ndarray, *tests: np.ndarray) -> None:
    """Add a row for each other package: comparisons without ties, items without features, annotators pooled."""
    for label, make in PEERS.items():
        start = time.perf_counter()
        try:
            first = make(votes, train)
        except ImportError as error:
            table.add_row(label, *[f"{error.name} is not installed"] * len(tests), "", "")
            continue
        cells = []
        for rows in tests:
            p = first(rows)
            cells.append(str(measure(np.stack([p, 1 - p, 0 * p], 1), votes, rows)))
        table.add_row(label, *cells, f"{time.perf_counter() - start:.0f} s", "")


def header(title: str, *columns: str) -> Table:
    """Return an empty table."""
    table = Table("model", *columns, "fit", "caveats", title=title, box=None, header_style="bold")
    for column in table.columns[1:]:
        column.justify = "right"
    return table


def annotators(name: str, votes: Votes, phi: Features, inference, ties: bool, validate: bool, only: str | None) -> None:
    """Print how well judgements of known and of new annotators are predicted."""
    train, seen, new = by_annotator(votes, ties)
    if (len(seen), len(new)) != COUNTS[name, ties]:
        raise SystemExit(f"{name}: {len(seen)} and {len(new)} test rows, not {COUNTS[name, ties]}; other data?")
    if validate:
        train, seen, new = by_annotator(votes, ties, np.sort(train), seed=2)
    what = "three outcomes" if ties else "ties left out"
    table = header(
        f"{name}, {what}: {len(train):,} judgements to learn from; log loss ± error, accuracy, macro, ECE",
        f"known annotators ({len(seen):,})",
        f"new annotators, 5 each ({len(new):,})",
    )
    constant = np.bincount(votes.outcome[train], minlength=3) / len(train)
    flat = [str(measure(np.tile(constant, (len(rows), 1)), votes, rows)) for rows in (seen, new)]
    table.add_row("constant", *flat, "", "")
    if not ties and only in (None, "peers"):
        peers(table, votes, train, seen, new)
    for label, make in MODELS.items():
        if only is not None and only not in label:
            continue
        posterior, seconds = fit(make(), votes, train, phi, inference)
        cells = [str(measure(predict(posterior, votes, rows, phi), votes, rows)) for rows in (seen, new)]
        label += " (declared)" if label == DECLARED else ""
        table.add_row(label, *cells, f"{seconds:.0f} s", _caveats(posterior))
    if not validate:
        best = BEST[name, ties]
        table.add_row("[dim]best known to us", *(f"[dim]{x:.3f}{' ' * 29}" for x in best), "", "")
    console.print(table, "")


def _caveats(posterior) -> str:
    return str(len(posterior.fit.caveats) or "")


def topics(name: str, votes: Votes, phi: Features, inference, validate: bool, only: str | None) -> None:
    """Print how well judgements on topics that nobody judged are predicted."""
    train, test = by_topic(votes)
    if len(test) != TOPIC_ROWS[name]:
        raise SystemExit(f"{name}: {len(test)} test rows on held-out topics, not {TOPIC_ROWS[name]}; other data?")
    if validate:
        train, test = by_topic(votes, train, seed=2)
    table = header(f"{name}, held-out topics: {len(train):,} judgements to learn from", f"test ({len(test):,})")
    constant = np.bincount(votes.outcome[train], minlength=3) / len(train)
    table.add_row("constant", str(measure(np.tile(constant, (len(test), 1)), votes, test)), "", "")
    for label, make in MODELS.items():
        if only is not None and only not in label:
            continue
        posterior, seconds = fit(make(), votes, train, phi, inference)
        p = predict(posterior, votes, test, phi)
        table.add_row(label, str(measure(p, votes, test)), f"{seconds:.0f} s", _caveats(posterior))
    if not validate:
        table.add_row("[dim]best known to us", f"[dim]{ {'llmfao': 0.633, 'ukpconvarg1': 0.554}[name]:.3f}", "", "")
    console.print(table, "")


def folds(votes: Votes, phi: Features, inference, only: str | None) -> None:
    """Print how well newcomers are predicted after 0, 5 and 20 of their judgements, without fitting again.

    Workers with 25 judgements that are no tie or more, in five folds; each one's judgements in random order: the first
    20 may be learned from, the others are predicted whatever the number learned from.
    """
    rng = np.random.default_rng(0)
    rows = np.flatnonzero(votes.outcome != TIE)
    who = votes.annotator[rows]
    people = rng.permutation(np.flatnonzero(np.bincount(who) >= 25))
    order = {a: rng.permutation(rows[who == a]) for a in people}
    table = header(
        f"llmfao, {len(people)} newcomers in five folds: log loss ± error, accuracy, macro, ECE",
        *(f"after {k} judgements" for k in (0, 5, 20)),
    )
    for label, make in MODELS.items():
        if only is not None and only not in label:
            continue
        parts: dict[int, list[np.ndarray]] = {0: [], 5: [], 20: []}
        tested, seconds = [], 0.0
        for fold in np.array_split(people, 5):
            posterior, took = fit(make(), votes, rows[~np.isin(who, fold)], phi, inference)
            test = np.concatenate([order[a][20:] for a in fold])
            tested.append(test)
            for k, found in parts.items():
                known = posterior
                if k:
                    said = np.concatenate([order[a][:k] for a in fold])
                    known = reward.adapt(posterior, votes.feedback(said), phi)
                found.append(predict(known, votes, test, phi))
            seconds += took
        test = np.concatenate(tested)
        cells = [str(measure(np.concatenate(found), votes, test)) for found in parts.values()]
        table.add_row(label, *cells, f"{seconds:.0f} s", "")
    console.print(table, "")


def sushi(folder: Path, inference, validate: bool, only: str | None) -> None:
    """Print how well rankings of ten kinds of sushi by new people are predicted, and pairs after some of theirs."""
    lines = (folder / "preflib" / "00014-sushi" / "00014-00000001.soc").read_text(encoding="utf-8").splitlines()
    rankings = []
    for line in lines:
        if not line.startswith("#") and ":" in line:
            count, order = line.split(":")
            rankings += int(count) * [[int(i) - 1 for i in order.split(",")]]
    order = np.array(rankings)
    rng = np.random.default_rng(0)
    test = np.sort(rng.permutation(len(order))[:1000])
    if validate:
        order, rng = np.delete(order, test, 0), np.random.default_rng(7)
        test = np.sort(rng.permutation(len(order))[:800])
    learn = np.delete(order, test, 0)
    pairs = np.array([(i, j) for i in range(10) for j in range(i + 1, 10)])
    asked = np.stack([pairs[rng.permutation(45)] for _ in test])
    place = np.argsort(order[test], 1)
    phi = Features(
        phi=np.eye(10),
        prompt_id=np.zeros(10, int),
        names=tuple(f"sushi {i}" for i in range(10)),
        origin=np.zeros(10),
        basis=np.eye(10),
    )

    def said(slate: np.ndarray, rank: np.ndarray, annotator: np.ndarray, people: int) -> Feedback:
        n = len(slate)
        items = {"prompt_id": [0] * 10, "prompt": ["sushi"] * 10, "response": [str(i) for i in range(10)]}
        return Feedback(
            items=datasets.Dataset.from_dict(items),
            annotators=datasets.Dataset.from_dict({"id": [str(a) for a in range(people)], "weight": [1.0] * people}),
            objectives=("overall",),
            choices=Choices(slate, rank, annotator, np.zeros(n, int), np.full(n, -1)),
            grades=Grades.none(),
        )

    def compared(which: slice) -> Feedback:
        """Pairs of every test voter, shown in the order asked."""
        who = np.repeat(np.arange(len(test)), asked[:, which].shape[1])
        slate = asked[:, which].reshape(-1, 2)
        return said(slate, np.argsort(np.argsort(place[who[:, None], slate], 1), 1), who, len(test))

    table = Table("model", "nats a ranking", "pairs, 0 seen", "5 seen", "10 seen", "fit", box=None, header_style="bold")
    table.title = f"sushi: {len(test):,} new people, rankings of 10; log loss on pairs 11 to 45"
    ranks = np.broadcast_to(np.arange(10), learn.shape)
    votes = said(learn, ranks, np.arange(len(learn)), len(learn))
    unseen = said(order[test], ranks[: len(test)], np.zeros(len(test), int), 1)
    for label, population in {
        "Plackett-Luce, pooled": reward.Pooled(response=reward.PLAIN),
        "mixture of 5": reward.Mixture(5, response=reward.PLAIN),
        "mixture of 10": reward.Mixture(10, response=reward.PLAIN),
        "low rank 4": reward.LowRank(4, response=reward.PLAIN),
        "low rank 6 (declared)": reward.LowRank(6, response=reward.PLAIN),
    }.items():
        if only is not None and only not in label:
            continue
        start = time.perf_counter()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            posterior = population.fit(votes, phi, inference=inference, seed=0)
        seconds = time.perf_counter() - start
        anybody = reward.newcomer(posterior, people=20)
        nats = -reward.log_predictive(anybody, unseen, phi)["slates"].mean()
        known = {0: anybody}
        for k in (5, 10):  # a thousand people at once, so few chains for each
            known[k] = reward.adapt(posterior, compared(slice(k)), phi, draws=40, steps=40)
        cells = []
        for k, who in known.items():
            rest = compared(slice(10, 45))
            if not k:  # the same person for all: nothing is known of any
                c = rest.choices
                rest = said(c.slate, c.rank, np.zeros(len(c), int), 1)
            cells.append(-reward.log_predictive(who, rest, phi)["pairs"].mean())
        table.add_row(label, f"{nats:.3f}", *(f"{x:.3f}" for x in cells), f"{seconds:.0f} s")
    table.add_row("[dim]uniform", f"[dim]{np.log(np.arange(1, 11)).sum():.3f}", *["[dim]0.693"] * 3, "")
    if not validate:
        table.add_row("[dim]best known to us", "[dim]13.63", "", "[dim]0.549", "[dim]0.520", "")
    console.print(table, "")


INFERENCE = {
    "svi": reward.SVI(steps=2000),
    "joint": reward.SVI(steps=6000, joint=True),
    "nuts": reward.NUTS(draws=300, warmup=300),
}


def main() -> None:
    """Print the tables that were asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tasks", nargs="*", default=["llmfao", "ukpconvarg1", "folds", "prompts", "sushi"])
    parser.add_argument("--inference", choices=INFERENCE, help="default: joint for sushi, svi for the others")
    parser.add_argument("--dimensions", type=int)
    parser.add_argument("--only", help="models whose name contains this")
    parser.add_argument("--validate", action="store_true", help="score on a part of the training rows instead")
    parser.add_argument("--ties", type=int, choices=(0, 1), help="two outcomes only, or three only")
    args = parser.parse_args()
    folder, inference = Path(os.environ["PLURALIGN_DATA"]), INFERENCE[args.inference or "svi"]
    for name, load in DATA.items():
        if not {name, "prompts", *(["folds"] if name == "llmfao" else [])} & set(args.tasks):
            continue
        votes = load(folder)
        phi = encode(votes, args.dimensions or DIMENSIONS[name])
        for ties in (False, True):
            if name in args.tasks and args.ties in (None, int(ties)):
                annotators(name, votes, phi, inference, ties, args.validate, args.only)
        if name == "llmfao" and "folds" in args.tasks:
            folds(votes, phi, inference, args.only)
        if "prompts" in args.tasks:
            topics(name, votes, phi, inference, args.validate, args.only)
    if "sushi" in args.tasks:
        sushi(folder, INFERENCE[args.inference or "joint"], args.validate, args.only)


if __name__ == "__main__":
    main()
