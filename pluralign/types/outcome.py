"""What came of it: policies, scores, welfare, the report."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Policy:
    """A trained LoRA adapter.

    Attributes:
        adapter: folder that `peft` loads.
        model: base model, as it was given.
        history: one record of metrics per logged step.
        caveats: of the choice that it was trained on.
    """

    adapter: Path
    model: str
    history: tuple[dict[str, float], ...]
    caveats: tuple[str, ...] = ()


@dataclass(frozen=True)
class Estimate:
    """A number with its 90 % interval (equal-tailed)."""

    mean: float
    low: float
    high: float


@dataclass(frozen=True)
class Score:
    """How well a model predicts judgements that it has not seen.

    Attributes:
        model: its name.
        log_loss: mean negative log probability of the outcome, in nats.
        stderr: standard error of `log_loss`, clustered by annotator.
        accuracy: share of outcomes that were the most probable one; NaN unless all judgements compare two items.
        judgements: how many were held out.
    """

    model: str
    log_loss: float
    stderr: float
    accuracy: float
    judgements: int


@dataclass(frozen=True)
class Welfare:
    """What a trained policy gives to a group, in the units of the chosen scale.

    Attributes:
        policy: name of the rule that it was trained for.
        group: name of the group.
        mass: the group's share of all voters.
        before: welfare under the base model, as inferred.
        after: welfare under the trained policy, as inferred.
        gain: their difference.
        true_before: the same under the simulated annotators' own utilities, if known.
        true_after: the same.
        true_gain: the same.
    """

    policy: str
    group: str
    mass: float
    before: Estimate
    after: Estimate
    gain: Estimate
    true_before: Estimate | None = None
    true_after: Estimate | None = None
    true_gain: Estimate | None = None


@dataclass(frozen=True)
class Sample:
    """A response that a policy wrote; `policy` is "base model" or the name of a rule."""

    policy: str
    prompt: str
    response: str


@dataclass(frozen=True)
class Evaluation:
    """What was measured after fitting and training.

    Attributes:
        scores: held-out predictions of the posterior beside simpler models.
        welfare: what each trained policy gives to each group.
        samples: responses side by side.
        notes: how it was measured, in sentences.
        front: which policies no other is better than for every group, as `policy.Front.table` tells it, of gains over
            the base model; None with fewer than two policies or groups.
    """

    scores: tuple[Score, ...] = ()
    welfare: tuple[Welfare, ...] = ()
    samples: tuple[Sample, ...] = ()
    notes: tuple[str, ...] = ()
    front: dict[str, Any] | None = None


@dataclass(frozen=True, eq=False)
class Report:
    """What a run says: a page for people, the same numbers for programs, and its verdicts in sentences.

    Attributes:
        html: the page.
        json: every number on the page.
        tables: the content of `json`, as plain objects.
        verdicts: what to remember.
        caveats: why the numbers must not be trusted yet; empty means that no check failed.
    """

    html: Path
    json: Path
    tables: dict[str, Any]
    verdicts: tuple[str, ...]
    caveats: tuple[str, ...] = ()
