"""Policies that are a table of log-ratios, one number per candidate, trained by the loop's own objective."""

from dataclasses import replace

import numpy as np
import torch
from datasets import Dataset

from pluralign.policy import DPO
from pluralign.policy.candidates import Candidates
from pluralign.policy.labels import Labels, Slates
from pluralign.policy.reweigh import State
from pluralign.types import Choice, Feedback, Utilities
from tests.policy.conftest import make_choice, make_feedback


def texts(chosen: Choice) -> Feedback:
    """Items for every entry of a choice's table."""
    prompts, n = chosen.lottery.shape
    return make_feedback([f"x{i}" for i in range(prompts)], [[f"y{j}" for j in range(n)]] * prompts)


def labelled(train: DPO, chosen: Choice, votes: Feedback | None = None, margin=None) -> Labels:
    votes = texts(chosen) if votes is None else votes
    candidates = Candidates.of(chosen, votes)
    return train.labels.of(chosen, votes, candidates, train.reweigh is not None, margin)


def everything(train: DPO, labels: Labels) -> tuple[Slates, np.ndarray]:
    """All slates that can be drawn, and how often each is: whole prompts, all pairs, or all ballots."""
    rows = labels.candidates.rows
    if labels.ballots is not None:
        return Slates(labels.ballots.pair, np.arange(len(labels.ballots.pair))), labels.ballots.weight
    if train.slate is None:
        return Slates(rows, np.full(len(rows), -1)), np.full(len(rows), 1 / len(rows))
    pairs, weight = [], []
    for row in rows:
        row = row[row >= 0]
        found = [(a, b) for a in row for b in row if a != b]
        pairs += found
        weight += [1 / len(found) / len(rows)] * len(found)
    return Slates(np.array(pairs), np.full(len(pairs), -1)), np.array(weight)


def at(table: torch.Tensor, slates: Slates) -> torch.Tensor:
    there = torch.from_numpy(slates.candidates >= 0)
    return torch.where(there, table[torch.from_numpy(slates.candidates)], 0)


def minimiser(
    train: DPO, labels: Labels, state: State | None = None, start: np.ndarray | None = None, exact: float = 1e-11
) -> np.ndarray:
    """The log-ratios at which the mean objective over all slates is least, by L-BFGS in float64."""
    table = torch.tensor(np.zeros(len(labels.candidates.item)) if start is None else start, requires_grad=True)
    slates, weight = everything(train, labels)
    optimizer = torch.optim.LBFGS(
        [table], max_iter=500, tolerance_grad=exact, tolerance_change=exact / 1000, line_search_fn="strong_wolfe"
    )

    def closure():
        optimizer.zero_grad()
        loss, _ = train.objective(at(table, slates), slates, labels, state or State.start(labels))
        total = (loss * torch.from_numpy(weight)).sum()
        total.backward()
        return total

    optimizer.step(closure)
    return table.detach().numpy()


def played(train: DPO, labels: Labels, steps=25) -> tuple[np.ndarray, State]:
    """Log-ratios and weights of groups when both have settled: the policy answers each update by its best."""
    assert train.reweigh is not None
    state, h = State.start(labels), None
    slates, weight = everything(train, labels)
    for _ in range(steps):
        h = minimiser(train, labels, state, h, 1e-6)
        with torch.no_grad():
            values = at(torch.tensor(h), slates)
            _, told = train.objective(values, slates, labels, state)
        state = state.saw(slates.candidates, values.numpy())
        losses = {name: float((v * torch.from_numpy(weight)).sum()) for name, v in told.items()}
        group = np.array([losses.get(f"loss/{g}", 0.0) for g in labels.groups])
        state = train.reweigh.update(state, labels, slates.candidates, group, 1.0)
    assert h is not None
    return h, state


def policy(labels: Labels, h: np.ndarray) -> np.ndarray:
    """`reference exp(h)` in the places of the choice's table; sums to 1 only if the level is right."""
    table = np.zeros(labels.candidates.counts.shape)
    table[labels.candidates.counts] = labels.candidates.reference * np.exp(h)
    return table


def distance(p, q) -> float:
    return float(np.abs(np.asarray(p) - np.asarray(q)).sum(-1).max() / 2)


def community(value, mass, reference=None, beta=0.1, groups=None, draws_of=None) -> Choice:
    """A choice over utilities [voter prompt candidate] (or [draw voter prompt candidate]); its lottery is not used."""
    value = np.asarray(value, np.float64)
    value = value[None] if value.ndim == 3 else value
    reference = np.full(value.shape[2:], 1 / value.shape[3]) if reference is None else np.asarray(reference)
    utilities = Utilities(value, mass, reference, groups=groups)
    base = make_choice(np.zeros(reference.shape), beta=beta, reference=reference)
    return replace(base, utilities=utilities, weights=np.tile(utilities.mass / len(value), (len(value), 1)))


def voting(votes: Feedback, comparisons, annotators=("ada",), objectives=("overall",)) -> Feedback:
    """Feedback with comparisons (first item, second item, rank of each, annotator[, objective])."""
    from pluralign.types import Choices

    first, second, rank, who, *what = zip(*comparisons, strict=True)
    n = len(comparisons)
    choices = Choices(np.stack([first, second], 1), np.array(rank), who, what[0] if what else [0] * n, [-1] * n)
    table = Dataset.from_dict({"id": list(annotators), "weight": [1.0] * len(annotators)})
    return replace(votes, annotators=table, objectives=objectives, choices=choices)
