import math
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

import numpy as np
import pyarrow.compute as pc
from jaxtyping import Float, Int
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text
from scipy.special import stdtrit

from pluralign.feedback.agreement import CORRECTION, Agreement, Answers, agreement, answers
from pluralign.feedback.cells import sorted_codes
from pluralign.feedback.connection import Connection, connections, pieces_of_prompts, sentences
from pluralign.feedback.privacy import Personal, column, personal
from pluralign.feedback.slips import slips
from pluralign.feedback.suspects import Suspect, crowded, suspects
from pluralign.types import FORMS, Choices, Feedback

LEVEL = 0.9
GROUPS_SHOWN = 12
NAMED = 5
ALWAYS = 10  # comparisons from which on it is no chance that the same side wins all of them
SECOND_LOOK = {
    "careless": "nobody else's answers foretell theirs, so they answer at random or want what nobody else wants",
    "opposite": "they say the contrary of most others, so they answer the wrong way round or want the contrary",
    "contradictory": "asked again, they answer differently more often than others do",
    "straight": "they always pick the same side or grade",
    "coordinated": "the two give nearly always the same answers, beyond what people of like mind do",
    "hurried": "most of their judgements took less than a third of the usual time",
}


@dataclass(frozen=True)
class Summary:
    """What one should know of feedback before trusting it. Shares are 0 to 1; None = cannot be computed.

    Intervals are 90 %, by the jackknife over annotators (each annotator with all its judgements is one draw).

    Attributes:
        judgements: how many choices and grades.
        by_form: how many judgements of each form; grades stand under the name of their scale and its form.
        by_objective: how many judgements of each objective.
        tie_share: share of choices in which the best rank is shared.
        annotators: how many, with or without judgements.
        groups: how many annotators have each value of an attribute, for attributes with at most 12 values.
        by_group: how many judgements annotators with each of those values made.
        prompts: how many.
        items: how many different (prompt, response) pairs.
        per_annotator: smallest, median and largest number of judgements of an annotator.
        single: annotators with one judgement.
        busiest_share: share of judgements made by the busiest 10 % of annotators (rounded up).
        first_wins: how often the first shown wins, of comparisons without a tie; a correction is none.
        first_wins_interval: its interval.
        duplicates: judgements that repeat an earlier one: same annotator, same slate in the same order, same outcome;
            or the same grade of the same item.
        contradictions: cases of an annotator who gave different outcomes for the same two items, in any order, or
            different grades to the same item.
        set_aside: rows that the source did not use, by reason.
        unconnected_prompts: prompts whose candidates the comparisons do not connect.
        pieces: connected pieces of those prompts' candidates.
        shared_pairs: pairs of items that more than one annotator judged.
        agreement: probability that two judgements of one pair by different annotators, drawn at random, agree.
        agreement_interval: its interval.
        alphas: agreement beyond chance by objective and form or scale.
        connections: what the judgements of each objective connect.
        suspects: annotators who deserve a second look; none of them is left out of anything.
        personal: where personal data seems to stand.
        empty_responses: items whose response is an empty text.
        simulated: whether the annotators are simulated.
        warnings: what needs attention, in sentences.
    """

    judgements: int
    by_form: dict[str, int]
    by_objective: dict[str, int]
    tie_share: float | None
    annotators: int
    groups: dict[str, dict[str, int]]
    by_group: dict[str, dict[str, int]]
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
    alphas: tuple[Agreement, ...]
    connections: tuple[Connection, ...]
    suspects: tuple[Suspect, ...]
    personal: tuple[Personal, ...]
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
        compared = self.tie_share is not None
        lines = {
            "judgements": f"{self.judgements:,}" + (f", {_percent(self.tie_share)} ties" if compared else ""),
            "  by form": _counts(self.by_form),
            **({"  by objective": _counts(self.by_objective)} if len(self.by_objective) > 1 else {}),
            **{f"  by {name}": _counts(groups) for name, groups in self.by_group.items()},
            "annotators": people,
            **{f"  {name}": _counts(groups) for name, groups in self.groups.items()},
            "judgements per annotator": f"{low:,} to {high:,}, median {middle:,g}",
            "annotators with one judgement": f"{self.single:,}",
            "judgements by the busiest 10 %": _percent(self.busiest_share),
            "prompts, items": f"{self.prompts:,}, {self.items:,}",
            "first shown wins": _percent(self.first_wins, self.first_wins_interval),
            "pairs with several annotators": f"{self.shared_pairs:,}",
            "  raw agreement on them": _percent(self.agreement, self.agreement_interval),
            "agreement beyond chance": "Krippendorff's alpha, 0 = chance",
            **{f"  {a.objective}, {a.form}": _alpha(a) for a in self.alphas},
            "exact duplicates": f"{self.duplicates:,}",
            "self-contradictions": f"{self.contradictions:,}",
            "prompts not connected": f"{self.unconnected_prompts:,}{pieces}" if compared else "no comparisons",
            "items never judged": _counts({c.objective: c.never for c in self.connections}),
            "sets of annotators apart": _counts({c.objective: c.camps for c in self.connections}),
            "worth a second look": _counts(dict(Counter(s.reason for s in self.suspects))) or "nobody",
            "personal data": _counts({f"{p.what} in {p.where}": p.count for p in self.personal}) or "none seen",
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
    given = answers(feedback)
    shared = tuple(a.shared() for a in given)
    # Half of all work, and numpy and scipy let go of the interpreter while they sort and multiply.
    with ThreadPoolExecutor(1) as beside:
        found = beside.submit(suspects, feedback, given, shared)
        summary, decided = _counted(feedback, shared)
        summary = replace(summary, suspects=found.result())
    warnings = _warnings(summary, decided, crowded(shared, len(feedback.annotators)))
    return replace(summary, warnings=(*warnings, *slips(feedback)))


def _counted(feedback: Feedback, shared: tuple[Answers, ...]) -> tuple[Summary, int]:
    """Return everything but suspects and warnings, and how many comparisons of two are decided."""
    choices, grades, items, people = feedback.choices, feedback.grades, feedback.items, feedback.annotators
    n, annotators = len(choices) + len(grades), len(people)
    per_annotator = np.bincount(np.concatenate([choices.annotator, grades.annotator]), minlength=annotators)
    attributes = {name: feedback.attribute(name) for name in people.column_names if name not in ("id", "weight")}
    groups = {name: values for name, values in attributes.items() if len(set(values)) <= GROUPS_SHOWN}
    prompt_id = feedback.prompt_id
    unconnected, pieces = pieces_of_prompts(choices, prompt_id, np.ones(len(items), bool))
    busiest = np.sort(per_annotator)[::-1][: math.ceil(0.1 * annotators)].sum()
    best = (choices.rank == 0).sum(1)

    pair, who, first_won, oriented = _pairs(choices, len(items))
    decided = first_won != 0
    first = _sums(who[decided], first_won[decided] > 0, np.ones(decided.sum()), annotators)
    own, by = sorted_codes(pair, who)
    answer, said = sorted_codes(own, oriented)
    others = _alike(pair) - np.bincount(own)[own]
    agreed = _sums(who, _alike(pair, oriented) - np.bincount(answer)[answer], others, annotators)
    different = np.bincount(own[said])  # more than one answer by the same annotator contradict each other
    _, rows = sorted_codes(choices.annotator, choices.objective, *choices.slate.T, *choices.rank.T)
    graded, _ = sorted_codes(grades.annotator, grades.objective, grades.scale, grades.item)
    _, values = sorted_codes(graded, grades.value)
    regraded = np.bincount(graded[values])
    numbers = {
        "judgements": n,
        "by_form": _by_form(feedback),
        "by_objective": _tally(feedback.objectives, np.concatenate([choices.objective, grades.objective])),
        "tie_share": float((best > 1).mean()) if len(choices) else None,
        "annotators": annotators,
        "groups": {name: dict(sorted(Counter(values).items())) for name, values in groups.items()},
        "by_group": {name: _weighed(values, per_annotator) for name, values in groups.items()},
        "prompts": int((np.bincount(prompt_id) > 0).sum()),
        "items": len(items),
        "per_annotator": _spread(per_annotator),
        "single": int((per_annotator == 1).sum()),
        "busiest_share": float(busiest / n) if n else None,
        "first_wins": _ratio(*first),
        "first_wins_interval": _interval(*first, shared=1),
        "duplicates": n - len(rows) - len(values),
        "contradictions": int((different > 1).sum() + (regraded > 1).sum()),
        "set_aside": {str(k): int(v) for k, v in feedback.provenance.get("set_aside", {}).items()},
        "unconnected_prompts": unconnected,
        "pieces": pieces,
        "shared_pairs": int((np.bincount(pair[by]) > 1).sum()),
        "agreement": _ratio(*agreed),
        "agreement_interval": _interval(*agreed, shared=2),
        "alphas": tuple(agreement(a) for a in shared),
        "connections": connections(feedback),
        "suspects": (),
        "personal": personal(feedback),
        "empty_responses": int(pc.sum(pc.equal(column(items, "response"), "")).as_py() or 0),  # pyright: ignore
        "simulated": bool(feedback.provenance.get("simulated", False)),
    }
    return Summary(**numbers, warnings=()), int(decided.sum())


def _warnings(summary: Summary, decided: int, crowded: bool) -> Iterator[str]:
    s = summary
    if s.annotators == 1 and s.judgements:
        yield "All judgements are by one annotator: nothing can be learned of how people differ."
    if s.first_wins in (0, 1) and decided >= ALWAYS:
        side = "first" if s.first_wins else "second"
        yield (
            f"The {side} of two always wins, {decided:,} times: the table seems to put the winner there, as columns "
            "`chosen` and `rejected` do. Then what was shown first is not known, and a model with a position effect "
            "would explain everything by it."
        )
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
    if s.judgements:
        yield from sentences(s.connections)
    if s.annotators > 1 and s.judgements and not any(a.units for a in s.alphas):
        yield "No two annotators judged the same: how far they agree cannot be told."
    twice = sum(connection.with_itself for connection in s.connections)
    if twice:
        yield f"{twice:,} slates show an item twice: what is said of it and itself tells of positions only."
    for reason, text in SECOND_LOOK.items():
        named = [" and ".join(map(str, x.annotators)) for x in s.suspects if x.reason == reason]
        if named:
            more = f" and {len(named) - NAMED:,} more" if len(named) > NAMED else ""
            what = "pairs of annotators" if reason == "coordinated" else "annotators"
            yield f"A second look at {what} no. {', '.join(named[:NAMED])}{more} (counted from 0): {text}."
    if crowded:
        yield "So many annotators answered about so few items that the coordinated are not looked for."
    for p in s.personal:
        rest = ", ..." if p.count > len(p.first) else ""
        of = "annotators" if p.where == "annotator ids" else "items"
        yield (
            f"{p.count:,} {p.where} seem to hold {p.what} ({of} no. {', '.join(map(str, p.first))}{rest}, "
            "counted from 0): personal data; mask it, or make sure that you may use it."
        )
    if s.empty_responses:
        yield f"{s.empty_responses:,} responses are empty texts; in CSV a response that was lost looks the same."


def _pairs(choices: Choices, items: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Return pair, annotator, who won (1 first, 0 tie, -1 second), and the same seen from the lower item index."""
    two = ((choices.slate >= 0).sum(1) == 2) & (choices.form != CORRECTION)
    spare = ((0, 0), (0, max(0, 2 - choices.slate.shape[1])))  # demonstrations alone have one slot
    slate, rank = (np.pad(block[two], spare, constant_values=-1) for block in (choices.slate, choices.rank))
    filled = np.argsort(slate < 0, axis=1, kind="stable")[:, :2]
    slate = np.take_along_axis(slate, filled, 1).astype(np.int64)
    rank = np.take_along_axis(rank, filled, 1)
    rank = np.where(rank < 0, np.iinfo(np.int32).max, rank)
    won = np.sign(rank[:, 1] - rank[:, 0]).astype(np.int64)
    key = (choices.objective[two] * items + slate.min(1)) * items + slate.max(1)
    pair, _ = sorted_codes(key)
    return pair, choices.annotator[two], won, np.where(slate[:, 0] < slate[:, 1], won, -won)


def _alike(*codes: Int[np.ndarray, " choice"]) -> Int[np.ndarray, " choice"]:
    """Return how many choices have the same codes as each choice, itself included."""
    together = sorted_codes(*codes)[0]
    return np.bincount(together)[together]


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


def _by_form(feedback: Feedback) -> dict[str, int]:
    names = [f"{scale.name} ({scale.form})" for scale in feedback.scales]
    return _tally(FORMS, feedback.choices.form) | _tally(names, feedback.grades.scale)


def _tally(names: Sequence[str], index: Int[np.ndarray, " judgement"]) -> dict[str, int]:
    counts = np.bincount(index, minlength=len(names)).tolist()
    total: Counter[str] = Counter()  # two scales may have one name
    for name, count in zip(names, counts, strict=True):
        total[name] += count
    return {name: count for name, count in total.items() if count}


def _weighed(values: Sequence[str], counts: Int[np.ndarray, " annotator"]) -> dict[str, int]:
    names, index = np.unique(np.array(values, dtype=object), return_inverse=True)
    totals = np.bincount(index, counts).astype(int).tolist()
    return dict(zip(names.tolist(), totals, strict=True))


def _alpha(a: Agreement) -> str:
    if a.alpha is None:
        return f"unknown ({a.units:,} in common)"
    inside = f" (90 % interval {a.interval[0]:.2f} to {a.interval[1]:.2f})" if a.interval else ""
    return f"{a.alpha:.2f}{inside}"


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
