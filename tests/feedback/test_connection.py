from dataclasses import replace

import networkx as nx
import numpy as np
from datasets import Dataset

from pluralign.feedback.connection import Connection, connections, sentences
from pluralign.types import Choices, Feedback, Grades, Scale


def feedback(prompt_id, slates, who, objective, grades=None, people=5) -> Feedback:
    width = max(map(len, slates), default=2)
    slate = np.array([[*s, *[-1] * (width - len(s))] for s in slates]).reshape(-1, width)
    rank = np.array([[0, *[1] * (len(s) - 1), *[-1] * (width - len(s))] for s in slates]).reshape(-1, width)
    return Feedback(
        items=Dataset.from_dict({"prompt_id": prompt_id, "prompt": ["p"] * len(prompt_id), "response": prompt_id}),
        annotators=Dataset.from_dict({"id": [f"w{a}" for a in range(people)], "weight": [1.0] * people}),
        objectives=("help", "harm"),
        choices=Choices(slate, rank, who, objective, [0] * len(slates)),
        grades=grades or Grades.none(),
        scales=(Scale("yes", ("no", "yes"), "label"),),
    )


def test_by_hand():
    prompts = [0, 0, 0, 0, 0, 1, 1, 2, 2]
    slates = [(0, 1), (2, 3), (5, 6), (7, 8), (8, 8), (2, 0, 1), (5,)]
    who, objective = [0, 1, 2, 3, 3, 4, 4], [0, 0, 0, 0, 0, 1, 1]
    grades = Grades([4, 4], [0, 1], [0, 0], [0, 3], [0, 1], [0, 0])
    found = connections(feedback(prompts, slates, who, objective, grades))
    assert found == (
        # {0, 1}, {2, 3} and 4, which was only graded, hang apart; 0 and 1 judged the same prompt, 2 and 3 nobody else's
        Connection("help", never=0, unconnected_prompts=1, pieces=3, alone=2, camps=3, with_itself=1),
        # 3, 5, 6, 7, 8 were not judged, 5 was only demonstrated; {0, 1, 2}, 3 and 4 hang apart
        Connection("harm", never=5, unconnected_prompts=1, pieces=3, alone=0, camps=1, with_itself=0),
    )
    for part in ("3 pieces of 1 prompts compare", "3 sets of annotators"):
        assert part in found[0].sentence()
    more = [replace(found[1], objective=name) for name in ("care", "wit")]
    assert [s.partition(" these")[0] for s in sentences([*found, *more])] == [
        "On 'help'",
        "On each of 'harm' and 2 other objectives",
    ]
    whole = connections(feedback([0, 0, 0], [(0, 1), (1, 2)], [0, 1], [0, 0]))[0]
    assert whole.sentence() == ""


def test_camps_and_pieces_are_those_of_networkx():
    rng = np.random.default_rng(0)
    for _ in range(20):
        prompts = np.repeat(np.arange(8), 4)
        n = int(rng.integers(4, 14))
        prompt = rng.integers(8, size=n)
        slates = [tuple(4 * p + rng.permutation(4)[: rng.integers(2, 4)]) for p in prompt]
        who = rng.integers(10, size=n)
        found = connections(feedback(prompts, slates, who, [0] * n, people=10))[0]
        people = nx.Graph((f"w{a}", int(p)) for a, p in zip(who, prompt, strict=True))
        items = nx.Graph((s[0], i) for s in slates for i in s[1:])
        items.add_nodes_from(i for p in prompt for i in range(4 * p, 4 * p + 4))
        seen = {i for s in slates for i in s}
        parts = [{i // 4 for i in part} for part in nx.connected_components(items)]
        per_prompt = [sum(p in part for part in parts) for p in range(8)]
        assert found.camps == nx.number_connected_components(people)
        assert found.pieces == sum(k for k in per_prompt if k > 1)
        assert found.unconnected_prompts == sum(k > 1 for k in per_prompt)
        assert found.never == 32 - len(seen)
        assert found.alone == sum(all(set(prompt[who == a]) & set(prompt[who == b]) == set() for b in set(who) - {a})
                                  for a in set(who))  # fmt: skip
