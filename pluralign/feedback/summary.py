import math
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float, Int
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from scipy.special import stdtrit

from pluralign.types import Choices, Feedback

LEVEL = 0.9
GROUPS_SHOWN = 12


@dataclass(frozen=True)
class Summary:
    """What one should know of feedback before trusting it. Shares are 0 to 1; None = cannot be computed.

    Intervals are 90 %, by the jackknife over annotators (each annotator with all its judgements is one draw).

    Attributes:
        judgements: how many choices.
        tie_share: share of choices in which the best rank is shared.
        annotators: how many, with or without judgements.
        groups: how many annotators have each value of an attribute, for attributes with at most 12 values.
        prompts: how many.
        items: how many different (prompt, response) pairs.
        per_annotator: smallest, median and largest number of judgements of an annotator.
        single: annotators with one judgement.
        busiest_share: share of judgements made by the busiest 10 % of annotators (rounded up).
        first_wins: how often the first shown wins, of comparisons without a tie.
        first_wins_interval: its interval.
        duplicates: judgements that repeat an earlier one: same annotator, same slate in the same order, same outcome.
        contradictions: cases of an annotator who gave different outcomes for the same two items, in any order.
        set_aside: rows that the source did not use, by reason.
        unconnected_prompts: prompts whose candidates the comparisons do not connect.
        pieces: connected pieces of those prompts' candidates.
        shared_pairs: pairs of items that more than one annotator judged.
        agreement: probability that two judgements of one pair by different annotators, drawn at random, agree.
        agreement_interval: its interval.
        empty_responses: items whose response is an empty text.
        simulated: whether the annotators are simulated.
        warnings: what needs attention, in sentences.
    """

    judgements: int
    tie_share: float | None
    annotators: int
    groups: dict[str, dict[str, int]]
    prompts: int
    items: int
    per_annotator: tuple[int, float, int]
    single: int
    busiest_share: float | None
    first_wins: float | None
    first_wins_interval: tuple[float, float] | None
    duplicates: int
    contradictions: int
    set_aside: dict[str, int]
    unconnected_prompts: int
    pieces: int
    shared_pairs: int
    agreement: float | None
    agreement_interval: tuple[float, float] | None
    empty_responses: int
    simulated: bool
    warnings: tuple[str, ...]

    def table(self) -> Table:
        """Return the numbers as a table that fits a terminal of 80 columns."""
        table = Table(title="Feedback", title_justify="left", title_style="bold", show_header=False, width=78)
        table.add_column(style="cyan", max_width=30)
        table.add_column()
        low, middle, high = self.per_annotator
        people = f"{self.annotators:,}" + (" (simulated)" if self.simulated else "")
        pieces = f" ({self.pieces:,} pieces)" if self.pieces else ""
        lines = {
            "judgements": f"{self.judgements:,}, {_percent(self.tie_share)} ties",
            "annotators": people,
            **{f"  {name}": _counts(groups) for name, groups in self.groups.items()},
            "judgements per annotator": f"{low:,} to {high:,}, median {middle:,g}",
            "annotators with one judgement": f"{self.single:,}",
            "judgements by the busiest 10 %": _percent(self.busiest_share),
            "prompts, items": f"{self.prompts:,}, {self.items:,}",
            "first shown wins": _percent(self.first_wins, self.first_wins_interval),
            "pairs with several annotators": f"{self.shared_pairs:,}",
            "  raw agreement on them": _percent(self.agreement, self.agreement_interval),
            "exact duplicates": f"{self.duplicates:,}",
            "self-contradictions": f"{self.contradictions:,}",
            "prompts not connected": f"{self.unconnected_prompts:,}{pieces}",
            "empty responses": f"{self.empty_responses:,}",
            "rows set aside": _counts(self.set_aside) or "0",
        }
        for name, value in lines.items():
            table.add_row(Text(name), Text(value))
        return table

    def __rich__(self) -> RenderableType:
        """Return the table with the warnings under it."""
        return Group(self.table(), *(Text(f"! {warning}", style="yellow") for warning in self.warnings))


def describe(feedback: Feedback) -> Summary:
    """Count what one should know of feedback before trusting it; see `Summary`."""
    choices, items, people = feedback.choices, feedback.items, feedback.annotators
    n, annotators = len(choices), len(people)
    per_annotator = np.bincount(choices.annotator, minlength=annotators)
    attributes = {
        name: Counter(feedback.attribute(name)) for name in people.column_names if name not in ("id", "weight")
    }
    unconnected, pieces = _connected(choices, feedback.prompt_id)
    busiest = np.sort(per_annotator)[::-1][: math.ceil(0.1 * annotators)].sum()
    best = (choices.rank == 0).sum(1)

    pair, who, first_won, oriented = _pairs(choices, len(items))
    decided = first_won != 0
    first = _sums(who[decided], first_won[decided] > 0, np.ones(decided.sum()), annotators)
    others = _alike(pair) - _alike(pair, who)
    agreement = _sums(who, _alike(pair, oriented) - _alike(pair, who, oriented), others, annotators)
    by = _first(pair, who)
    answers = _first(pair, who, oriented)  # more than one by the same annotator contradict each other
    different = np.bincount(_together(pair[answers], who[answers]))
    rows = _first(choices.annotator, choices.objective, *choices.slate.T, *choices.rank.T)
    numbers = {
        "judgements": n,
        "tie_share": float((best > 1).mean()) if n else None,
        "annotators": annotators,
        "groups": {name: dict(sorted(c.items())) for name, c in attributes.items() if len(c) <= GROUPS_SHOWN},
        "prompts": len(np.unique(feedback.prompt_id)),
        "items": len(items),
        "per_annotator": _spread(per_annotator),
        "single": int((per_annotator == 1).sum()),
        "busiest_share": float(busiest / n) if n else None,
        "first_wins": _ratio(*first),
        "first_wins_interval": _interval(*first, shared=1),
        "duplicates": n - len(rows),
        "contradictions": int((different > 1).sum()),
        "set_aside": {str(k): int(v) for k, v in feedback.provenance.get("set_aside", {}).items()},
        "unconnected_prompts": unconnected,
        "pieces": pieces,
        "shared_pairs": int((np.bincount(pair[by]) > 1).sum()),
        "agreement": _ratio(*agreement),
        "agreement_interval": _interval(*agreement, shared=2),
        "empty_responses": sum(not text for text in items["response"][:]),
        "simulated": bool(feedback.provenance.get("simulated", False)),
    }
    summary = Summary(**numbers, warnings=())
    return replace(summary, warnings=tuple(_warnings(summary)))


def _warnings(summary: Summary) -> Iterator[str]:
    s = summary
    if s.first_wins_interval and not s.first_wins_interval[0] <= 0.5 <= s.first_wins_interval[1]:
        yield (
            f"The first shown wins {_percent(s.first_wins)} of the time: raters lean to one side, "
            "or responses were not shown in random order. Let the model have a position effect."
        )
    if s.single:
        yield f"{_people(s.single)} judged only once: nothing can be learned of their own wants beyond their group's."
    if s.busiest_share is not None and s.busiest_share > 0.5 and s.annotators >= 10:
        yield (
            f"The busiest 10 % of annotators made {_percent(s.busiest_share)} of the judgements: "
            "pooled numbers are mostly theirs."
        )
    if s.duplicates:
        yield f"{s.duplicates:,} judgements repeat an earlier one exactly; if rows were copied by mistake, drop them."
    if s.contradictions:
        yield f"{s.contradictions:,} times an annotator answered differently about the same two responses: noise."
    if s.set_aside:
        yield f"{sum(s.set_aside.values()):,} rows were not used: {_counts(s.set_aside)}."
    if s.unconnected_prompts:
        yield (
            f"In {s.unconnected_prompts:,} of {s.prompts:,} prompts no chain of comparisons connects all candidates "
            f"({s.pieces:,} pieces): only features can say how the pieces compare."
        )
    if s.empty_responses:
        yield f"{s.empty_responses:,} responses are empty texts; in CSV a response that was lost looks the same."


def _pairs(choices: Choices, items: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Return pair, annotator, who won (1 first, 0 tie, -1 second), and the same seen from the lower item index."""
    two = (choices.slate >= 0).sum(1) == 2
    filled = np.argsort(choices.slate[two] < 0, axis=1, kind="stable")[:, :2]
    slate = np.take_along_axis(choices.slate[two], filled, 1).astype(np.int64)
    rank = np.take_along_axis(choices.rank[two], filled, 1)
    rank = np.where(rank < 0, np.iinfo(np.int32).max, rank)
    won = np.sign(rank[:, 1] - rank[:, 0]).astype(np.int64)
    key = (choices.objective[two] * items + slate.min(1)) * items + slate.max(1)
    pair = np.unique(key, return_inverse=True)[1]
    return pair, choices.annotator[two], won, np.where(slate[:, 0] < slate[:, 1], won, -won)


def _together(*codes: Int[np.ndarray, " choice"]) -> Int[np.ndarray, " choice"]:
    """Return one code for each combination of codes; sorting integers is ten times faster than sorting rows."""
    together = np.zeros(len(codes[0]), np.int64)
    for code in codes:
        code = code.astype(np.int64) - code.min(initial=0)
        together = np.unique(together * (code.max(initial=0) + 1) + code, return_inverse=True)[1]
    return together


def _alike(*codes: Int[np.ndarray, " choice"]) -> Int[np.ndarray, " choice"]:
    """Return how many choices have the same codes as each choice, itself included."""
    together = _together(*codes)
    return np.bincount(together)[together]


def _first(*codes: Int[np.ndarray, " choice"]) -> Int[np.ndarray, " combination"]:
    """Return one choice for each combination of codes."""
    return np.unique(_together(*codes), return_index=True)[1]


def _sums(annotator: np.ndarray, top: np.ndarray, bottom: np.ndarray, n: int) -> tuple[np.ndarray, np.ndarray]:
    """Return numerator and denominator of a ratio, summed by annotator."""
    return np.bincount(annotator, top, n).astype(float), np.bincount(annotator, bottom, n).astype(float)


def _ratio(top: Float[np.ndarray, " annotator"], bottom: Float[np.ndarray, " annotator"]) -> float | None:
    return float(top.sum() / bottom.sum()) if bottom.sum() > 0 else None


def _interval(
    top: Float[np.ndarray, " annotator"], bottom: Float[np.ndarray, " annotator"], *, shared: int
) -> tuple[float, float] | None:
    """Jackknife over annotators: `var = (G - 1)/G sum_a (ratio without a - their mean)^2`, t with G - 1 degrees.

    Where a unit belongs to `shared` annotators it stands in the sums of each, but goes as soon as one of them goes.
    """
    top, bottom = top[bottom > 0], bottom[bottom > 0]
    left = bottom.sum() / shared - bottom
    if len(top) < 2 or (left <= 0).any():
        return None
    without = (top.sum() / shared - top) / left
    deviation = math.sqrt((len(top) - 1) * without.var())
    if deviation == 0:
        return None
    middle, half = top.sum() / bottom.sum(), float(stdtrit(len(top) - 1, (1 + LEVEL) / 2)) * deviation
    return max(0.0, float(middle - half)), min(1.0, float(middle + half))


def _connected(choices: Choices, prompt_id: Int[np.ndarray, " item"]) -> tuple[int, int]:
    """Return how many prompts have candidates in more than one component, and how many components those are."""
    filled = choices.slate >= 0
    head = np.take_along_axis(choices.slate, filled.argmax(1)[:, None], 1)
    row, column = np.broadcast_to(head, choices.slate.shape)[filled], choices.slate[filled]
    graph = coo_array((np.ones(len(row), np.int8), (row, column)), shape=(len(prompt_id), len(prompt_id)))
    label = connected_components(graph.tocsr(), directed=False)[1]
    pieces = np.bincount(prompt_id[_first(prompt_id, label)])
    return int((pieces > 1).sum()), int(pieces[pieces > 1].sum())


def _spread(counts: Int[np.ndarray, " annotator"]) -> tuple[int, float, int]:
    if not len(counts):
        return 0, 0.0, 0
    return int(counts.min()), float(np.median(counts)), int(counts.max())


def _percent(share: float | None, interval: tuple[float, float] | None = None) -> str:
    if share is None:
        return "unknown"
    inside = f" (90 % interval {100 * interval[0]:.1f} to {100 * interval[1]:.1f})" if interval else ""
    return f"{100 * share:.1f} %{inside}"


def _counts(counts: dict[str, int]) -> str:
    return ", ".join(f"{name or '(missing)'} {count:,}" for name, count in counts.items())


def _people(n: int) -> str:
    return f"{n:,} annotator{'s' * (n != 1)}"
