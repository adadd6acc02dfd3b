"""The stages in order. Each writes an artifact under the run folder and is skipped while its inputs are unchanged.

    feedback -> features -> posterior -> scores -> choices/<rule>, decisions -> policies/<rule> -> evaluation -> report

A stage's key is a hash of its own configuration and of the keys before it, so a change is followed by exactly the
stages that depend on it, and a run that was killed goes on at the stage where it was (training: at its checkpoint).
"""

import time
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from jaxtyping import Float
from rich.console import Console

from pluralign import __version__, artifacts, choice, config, features, feedback, policy, report, reward
from pluralign.config import Experiment, Rule
from pluralign.errors import ConvergenceWarning
from pluralign.types import (
    Choice,
    Decisions,
    Estimate,
    Evaluation,
    Features,
    Feedback,
    FitReport,
    Policy,
    RewardPosterior,
    Sample,
    Truth,
    Utilities,
    Welfare,
)

T = TypeVar("T")
MOST_GROUPS = 12  # values of an attribute whose groups are looked at
BOOTSTRAP = 400  # resamples of prompts behind an interval
PATIENCE = 30.0  # seconds in which a rule has to decide in every draw


@dataclass(frozen=True)
class Stages:
    """Runs a stage, or reads what it wrote when the same inputs were last seen."""

    folder: Path
    console: Console

    def run(self, name: str, kind: type[T], key: str, make: Callable[[], T]) -> T:
        """Return the artifact `name`, made by `make` unless one with this key stands in the run folder."""
        path = self.folder / name
        if artifacts.key_of(path) == key:
            self.console.print(f"[dim]{name:<28} unchanged[/dim]")
            return artifacts.load(path, kind)
        self.console.print(f"[bold]{name}[/bold] ...")
        start = time.perf_counter()
        value = make()
        artifacts.save(value, path, key=key)
        self.console.print(f"{name:<28} {time.perf_counter() - start:.1f} s")
        return value


def run(experiment: Experiment, out: str | Path, console: Console | None = None) -> report.Report:
    """Carry an experiment from judgements to the report.

    Args:
        experiment: what to do.
        out: run folder; what stands there already and is current is kept.
        console: where progress is told.

    Returns:
        The report, whose files are `out/report.html` and `out/report.json`.
    """
    folder, console = Path(out), console or Console(stderr=True)
    artifacts.write_text(folder / "experiment.yaml", config.dump(experiment))
    stages = Stages(folder, console)
    e = experiment

    key = artifacts.digest(__version__, e.feedback, e.feedback.fingerprint(), e.population)
    votes = stages.run("feedback", Feedback, key, lambda: e.weighed(e.feedback.load()))
    console.print(feedback.describe(votes))
    if e.population is not None:
        console.print(feedback.coverage(votes, e.population.margins, used=e.population.rake))
    if e.groups:
        votes.attribute(e.groups)  # a wrong name is told now, not after training

    train, test = e.split(votes)
    seen_by = (e.holdout, e.seed) if features.judged(e.features) else ()  # what is held out is kept from features too
    key = artifacts.digest(key, e.features, *seen_by)
    phi = stages.run("features", Features, key, lambda: e.features.encode(train))

    key = artifacts.digest(key, e.reward, e.inference, e.holdout, e.seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # said below, also where the fit is an earlier one
        posterior = stages.run("posterior", RewardPosterior, key, lambda: _posterior(e, train, phi))
    for caveat in posterior.fit.caveats:
        console.print(f"[yellow]![/yellow] {caveat}", highlight=False)
    scores = stages.run("scores", Evaluation, key, lambda: _scores(e, posterior, train, test, phi))
    for score in scores.scores:
        console.print(f"  {score.model:<24} held-out log loss {score.log_loss:.4f} ± {score.stderr:.4f}")

    seen, unseen = split_prompts(votes, e.sampling.prompts, e.seed)
    key = artifacts.digest(key, e.scale, e.draws, [int(p) for p in seen], e.objectives)
    utilities, constraints = problem(e, posterior, votes, phi, seen)
    if votes.truth is not None and votes.truth.features == phi.names:
        true = _truth(votes.truth, votes)
        stages.run("truth", Utilities, key, lambda: choice.utilities(true, phi, scale=e.scale, prompts=seen))
    choices = {
        rule.name: stages.run(
            f"choices/{rule.name}",
            Choice,
            artifacts.digest(key, rule, e.risk, e.beta, e.constraints, e.scope, e.groups if e.constraints else None),
            lambda rule=rule: choose(e, rule, utilities, constraints),
        )
        for rule in e.rules
    }
    stages.run(
        "decisions",
        Decisions,
        artifacts.digest(key, e.rules, e.enough),
        lambda: choice.decisions(e.rules, utilities, e.enough, PATIENCE),
    )
    trained = {name: _train(e, choices[name], votes, phi, folder, console) for name in e.train}
    for rule in e.rules:
        if rule.name in e.train_online:
            made = _train_online(e, rule, choices[rule.name], posterior, votes, phi, folder, console)
            trained[f"{rule.name}-ppo"] = made
    key = artifacts.digest(key, e.sampling, [artifacts.hash_of(folder / "policies" / n / "policy") for n in trained])
    stages.run(
        "evaluation", Evaluation, key, lambda: _evaluate(e, scores, posterior, votes, phi, unseen, trained, folder)
    )
    return report.write(folder, groups=e.groups)


def problem(
    e: Experiment, posterior: RewardPosterior, votes: Feedback, phi: Features, prompts: list[int]
) -> tuple[Utilities, tuple[choice.AbstractConstraint, ...]]:
    """Return the table that rules start from, and what it must give."""
    groups = voter_groups(e, posterior, votes)

    def table(scale: choice.AbstractScale, objectives: Mapping[str, float] | None) -> Utilities:
        return choice.utilities(
            posterior, phi, scale=scale, draws=e.draws, prompts=prompts, objectives=objectives, groups=groups
        )

    constraints = tuple(
        choice.Bound(table(choice.NoScale(), c.objectives), c.at_least, c.at_most, c.risk, ", ".join(c.objectives))
        if isinstance(c, config.Limit)
        else c
        for c in e.constraints
    )
    return table(e.scale, e.objectives), constraints


def choose(
    e: Experiment, rule: Rule, utilities: Utilities, constraints: tuple[choice.AbstractConstraint, ...]
) -> Choice:
    """Return what a rule chooses, in the experiment's scope and under its constraints."""
    if e.scope == "prompt":
        return choice.each_prompt(rule, utilities, e.risk, e.beta, scale=e.scale)
    if constraints and isinstance(rule, choice.AbstractWelfare | choice.Leximin):
        return rule.choose(utilities, e.risk, e.beta, constraints)
    return rule.choose(utilities, risk=e.risk, beta=e.beta)


def voter_groups(e: Experiment, posterior: RewardPosterior, votes: Feedback) -> tuple[str, ...]:
    """Return the group of every voter: its annotator's attribute, or its own name if voters are no annotators."""
    if posterior.membership is not None:
        return posterior.voters
    return votes.attribute(e.groups) if e.groups else ("everyone",) * len(posterior.voters)


def split_prompts(votes: Feedback, share: float, seed: int) -> tuple[list[int], list[int]]:
    """Return prompts for choosing and training, and prompts for measuring (the same ones if `share` is 0)."""
    n = int(votes.prompt_id.max()) + 1
    order = np.random.default_rng(seed).permutation(n)
    held = sorted(int(p) for p in order[: round(share * n)])
    return sorted(set(range(n)) - set(held)), held or list(range(n))


def _posterior(e: Experiment, train: Feedback, phi: Features) -> RewardPosterior:
    """Return the fit, and what is to be said against its model, of every attribute with a few values."""
    posterior = e.reward.fit(train, phi, inference=e.inference, seed=e.seed)
    names = [name for name in train.annotators.column_names if name not in ("id", "weight")]
    groups = [name for name in names if 2 <= len(set(train.attribute(name))) <= MOST_GROUPS]
    return reward.criticise(posterior, train, phi, groups=groups, seed=e.seed)


def _scores(e: Experiment, posterior: RewardPosterior, train: Feedback, test: Feedback, phi: Features) -> Evaluation:
    if not len(test.choices) + len(test.grades):
        return Evaluation(notes=("No judgements were held out, so no prediction was scored.",))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # a note of the evaluation instead
        pooled = reward.Pooled(response=reward.PLAIN).fit(train, phi, inference=e.inference, seed=e.seed)
    other = len(test.grades) + int(((test.choices.slate >= 0).sum(1) != 2).sum())
    scores = [
        reward.score(posterior, test, phi, name=f"posterior ({e.reward.kind})"),
        reward.score(pooled, test, phi, name="pooled" if other else "pooled Bradley-Terry"),
    ]
    notes = [f"Pooled baseline: {caveat}" for caveat in pooled.fit.caveats]
    if other:
        notes.append(
            f"{other:,} of the judgements held out are no comparisons of two: no accuracy, no constant baseline."
        )
    else:
        scores.append(reward.constant(train, test, name="constant"))
    return Evaluation(tuple(scores), notes=tuple(notes))


def _truth(truth: Truth, votes: Feedback) -> RewardPosterior:
    """Return the simulated annotators' own weights as a posterior of one certain draw."""
    weight = np.asarray(votes.annotators["weight"], np.float64)
    fit = FitReport(
        method="known by construction", chains=1, draws=1, divergences=0, rhat={}, ess_bulk={}, ess_tail={}, seconds=0
    )
    voters = tuple(str(a) for a in votes.annotators["id"])
    weights = truth.weights[None, :, None, :].astype(np.float32)
    return RewardPosterior(weights, weight / weight.sum(), voters, None, {}, truth.features, fit)


def _train(e: Experiment, chosen: Choice, votes: Feedback, phi: Features, folder: Path, console: Console) -> Policy:
    assert e.policy is not None  # Experiment checked it
    how = e.policy
    return _timed(
        f"policies/{chosen.name}", console, lambda: how.train(chosen, votes, phi, folder, features=e.features)
    )


def _train_online(
    e: Experiment,
    rule: Rule,
    chosen: Choice,
    posterior: RewardPosterior,
    votes: Feedback,
    phi: Features,
    folder: Path,
    console: Console,
) -> Policy:
    """Train on the policy's own responses; objectives stand beside the rule's reward, and their limits are kept."""
    assert e.online is not None  # Experiment checked it
    how, limits = e.online, [c for c in e.constraints if isinstance(c, config.Limit)]
    floors = tuple(c for c in e.constraints if not isinstance(c, config.Limit))

    def objective(weights: Mapping[str, float]) -> Utilities:
        return choice.utilities(posterior, phi, scale=choice.NoScale(), draws=e.draws, objectives=weights)

    told = [policy.Term(name, objective({name: 1.0})) for name in e.objectives or {} if len(e.objectives or {}) > 1]
    told += [policy.Term(", ".join(c.objectives), objective(c.objectives), 0.0, c.at_least, c.at_most) for c in limits]

    told += [beside.term() for beside in e.terms]

    def again(utilities: Utilities, beta: float) -> Choice:
        return choose(replace(e, beta=beta), rule, utilities, floors)

    def train() -> Policy:
        return how.train(chosen, votes, phi, e.features, folder, again if how.reestimate else None, told)

    return _timed(f"policies/{chosen.name}-ppo", console, train)


def _timed(name: str, console: Console, make: Callable[[], Policy]) -> Policy:
    console.print(f"[bold]{name}[/bold] ...")
    start = time.perf_counter()
    made = make()
    console.print(f"{name:<28} {time.perf_counter() - start:.1f} s")
    return made


def _evaluate(
    e: Experiment,
    scores: Evaluation,
    posterior: RewardPosterior,
    votes: Feedback,
    phi: Features,
    prompts: list[int],
    trained: dict[str, Policy],
    folder: Path,
) -> Evaluation:
    """Sample from the base model and from every policy; score the samples by every voter's utility."""
    if not trained:
        return scores
    how = e.policy or e.online
    assert how is not None
    text = {int(i): p for i, p in zip(votes.prompt_id, votes.items["prompt"], strict=True)}
    asked = [text[p] for p in prompts]
    n, options = e.sampling.responses, {"max_tokens": e.sampling.max_tokens, "temperature": e.sampling.temperature}
    model = policy.resolve(how.model, votes, folder, how.seed)
    written = {
        name: policy.sample(model, asked, n=n, seed=e.seed, adapter=adapter, **options)
        for name, adapter in {"base model": None, **{name: p.adapter for name, p in trained.items()}}.items()
    }
    rows = [
        (prompt, response)
        for responses in written.values()
        for prompt, r in zip(asked, responses, strict=True)
        for response in r
    ]
    encoded = e.features.encode_texts([p for p, _ in rows], [r for _, r in rows], phi)
    by_policy = dict(zip(written, encoded.reshape(len(written), len(asked), n, -1), strict=True))

    groups = voter_groups(e, posterior, votes)
    inferred = choice.utilities(posterior, phi, scale=e.scale, draws=e.draws, prompts=prompts, objectives=e.objectives)
    true = None
    if votes.truth is not None and votes.truth.features == phi.names:
        true = choice.utilities(_truth(votes.truth, votes), phi, scale=e.scale, prompts=prompts)
    names = list(dict.fromkeys(groups))
    told = [
        [_welfare(p, g, np.array([x == g for x in groups]), inferred, true, by_policy, e.seed) for g in names]
        for p in trained
    ]
    welfare = tuple(w for row in told for w, _ in row)
    front = None
    if len(trained) > 1 and len(names) > 1:
        gains = np.array([[gain for _, gain in row] for row in told])  # [policy group resample]
        front = policy.Front.of(list(trained), names, np.moveaxis(gains, -1, 0)).table()
    shown = np.random.default_rng(e.seed).permutation(len(asked))[: e.sampling.shown]
    samples = tuple(Sample(name, asked[x], written[name][x][0]) for x in shown for name in written)
    where = "prompts that neither the rules nor training saw" if e.sampling.prompts else "the prompts of training"
    notes = (
        f"Policies were measured on {len(asked)} {where}, {n} responses each; intervals cover the posterior's "
        "uncertainty and the sampling of prompts and responses (bootstrap over prompts).",
    )
    return Evaluation(scores.scores, welfare, samples, scores.notes + notes, front)


def _welfare(
    name: str,
    group: str,
    counts: np.ndarray,
    inferred: Utilities,
    true: Utilities | None,
    encoded: dict[str, Float[np.ndarray, "prompt response feature"]],
    seed: int,
) -> tuple[Welfare, Float[np.ndarray, " resample"]]:
    """Return what policy `name` gives to the voters for whom `counts` is True, beside the base model, and the gains."""

    def estimates(
        utilities: Utilities,
    ) -> tuple[tuple[Estimate, Estimate, Estimate], Float[np.ndarray, " resample"]]:
        mass = utilities.mass * counts / utilities.mass[counts].sum()
        before, after = (
            np.stack([mass @ utilities.of(responses).mean(-1).T for responses in encoded[p]], axis=-1)
            for p in ("base model", name)
        )  # [draw prompt]
        rng = np.random.default_rng(seed)  # the same resamples for every policy and group, so differences are paired
        pick = rng.integers(before.shape[1], size=(BOOTSTRAP, before.shape[1]))
        draw = np.arange(BOOTSTRAP) % len(before)
        resampled = [x[draw[:, None], pick].mean(1) for x in (before, after)]
        gain = resampled[1] - resampled[0]
        ends = interval(before.mean(), resampled[0]), interval(after.mean(), resampled[1])
        return (*ends, interval((after - before).mean(), gain)), gain

    mass, (told, gain) = float(inferred.mass[counts].sum()), estimates(inferred)
    return Welfare(name, group, mass, *told, *(estimates(true)[0] if true is not None else (None,) * 3)), gain


def interval(mean: Any, values: Float[np.ndarray, " resample"]) -> Estimate:
    """Return a mean with the 5 % and 95 % quantiles of its resamples."""
    low, high = np.quantile(values, [0.05, 0.95])
    return Estimate(float(mean), float(low), float(high))
