from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Bool, Int
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from pluralign.feedback.cells import sorted_codes
from pluralign.types import Choices, Feedback


@dataclass(frozen=True)
class Connection:
    """What the judgements of one objective connect, and so what can be told apart.

    Attributes:
        objective: what was asked.
        never: items that were neither compared with another item nor graded.
        unconnected_prompts: prompts with compared items, but not all of whose items comparisons connect.
        pieces: connected pieces of those prompts' items.
        alone: annotators with judgements, none of them on a prompt on which another annotator judged.
        camps: sets of annotators without any prompt in common, neither directly nor through others.
        with_itself: slates that show the same item twice.
    """

    objective: str
    never: int
    unconnected_prompts: int
    pieces: int
    alone: int
    camps: int
    with_itself: int

    def sentence(self, alike: int = 0) -> str:
        """Return what is not identified, in one sentence; empty if all that was judged hangs together.

        Args:
            alike: of how many other objectives the same is true.
        """
        gaps = [
            (
                self.pieces,
                f"how {self.pieces:,} pieces of {self.unconnected_prompts:,} prompts compare, which no chain "
                "of comparisons connects",
            ),
            (self.never, f"what {self.never:,} items that nobody judged are worth"),
            (self.camps > 1, f"whether {self.camps:,} sets of annotators with no prompt in common differ"),
        ]
        told = [text for gap, text in gaps if gap]
        if not told:
            return ""
        others = f" and {alike} other objective{'s' * (alike > 1)}" if alike else ""
        asked = f"On {'each of ' * (alike > 0)}{self.objective!r}{others}"
        return f"{asked} these judgements alone do not say {'; nor '.join(told)}: only features can."


def sentences(found: Iterable[Connection]) -> Iterator[str]:
    """Yield what is not identified; once for objectives of which the same can be said."""
    alike: dict[str, list[Connection]] = {}
    for connection in found:
        alike.setdefault(replace(connection, objective="").sentence(), []).append(connection)
    yield from (same[0].sentence(len(same) - 1) for told, same in alike.items() if told)


def connections(feedback: Feedback) -> tuple[Connection, ...]:
    """Return what each objective's judgements connect."""
    prompt = feedback.prompt_id
    return tuple(_connection(feedback, prompt, o) for o in range(len(feedback.objectives)))


def _connection(feedback: Feedback, prompt: Int[np.ndarray, " item"], objective: int) -> Connection:
    choices = feedback.choices.where(feedback.choices.objective == objective)
    grades = feedback.grades.where(feedback.grades.objective == objective)
    people = len(feedback.annotators)
    compared = in_slates(choices, len(prompt))
    judged = compared.copy()
    judged[grades.item] = True
    unconnected, pieces = pieces_of_prompts(choices, prompt, np.isin(prompt, prompt[compared]))

    filled = choices.slate >= 0
    who = np.concatenate([np.broadcast_to(choices.annotator[:, None], filled.shape)[filled], grades.annotator])
    where = np.concatenate([prompt[choices.slate[filled]], prompt[grades.item]])
    _, first = sorted_codes(who, where)
    who, where = who[first], where[first]
    company = np.bincount(where)[where] > 1
    active = np.flatnonzero(np.bincount(who))
    size = people + int(prompt.max(initial=0)) + 1
    graph = coo_array((np.ones(len(who), np.int8), (who, people + where)), shape=(size, size))
    label = connected_components(graph.tocsr(), directed=False)[1]
    return Connection(
        objective=feedback.objectives[objective],
        never=int((~judged).sum()),
        unconnected_prompts=unconnected,
        pieces=pieces,
        alone=len(active) - len(np.unique(who[company])),
        camps=len(np.unique(label[active])),
        with_itself=int(twice(choices).sum()),
    )


def in_slates(choices: Choices, items: int) -> Bool[np.ndarray, " item"]:
    """Return which items stand in a slate with another item."""
    head = np.take_along_axis(choices.slate, (choices.slate >= 0).argmax(1)[:, None], 1)
    several = ((choices.slate >= 0) & (choices.slate != head)).any(1)
    found = np.zeros(items, bool)
    slate = choices.slate[several]
    found[slate[slate >= 0]] = True
    return found


def twice(choices: Choices) -> Bool[np.ndarray, " choice"]:
    """Return which slates show an item twice."""
    slate = np.sort(choices.slate, axis=1)
    return ((slate[:, 1:] == slate[:, :-1]) & (slate[:, 1:] >= 0)).any(1)


def pieces_of_prompts(
    choices: Choices, prompt_id: Int[np.ndarray, " item"], counts: Bool[np.ndarray, " item"]
) -> tuple[int, int]:
    """Return how many prompts have items in more than one component, and how many components those are."""
    filled = choices.slate >= 0
    head = np.take_along_axis(choices.slate, filled.argmax(1)[:, None], 1)
    row, column = np.broadcast_to(head, choices.slate.shape)[filled], choices.slate[filled]
    graph = coo_array((np.ones(len(row), np.int8), (row, column)), shape=(len(prompt_id), len(prompt_id)))
    label = connected_components(graph.tocsr(), directed=False)[1].astype(np.int64)
    components = np.unique(prompt_id[counts] * (label.max(initial=0) + 1) + label[counts])
    pieces = np.bincount(components // (label.max(initial=0) + 1))
    return int((pieces > 1).sum()), int(pieces[pieces > 1].sum())
