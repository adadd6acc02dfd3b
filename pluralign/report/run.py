"""What a run folder holds, and what it does not hold and why."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import yaml

from pluralign import artifacts
from pluralign.errors import InputError
from pluralign.types import Choice, Decisions, Evaluation, Features, Feedback, Policy, RewardPosterior, Utilities

T = TypeVar("T")

# Why a part may be absent: what a reader of the page should know, and what to do to have it.
REASONS = {
    "feedback": "The run folder holds no judgements, so annotators and their attributes are not described.",
    "features": "The run folder holds no features, so their model and hash are not listed.",
    "posterior": "The run folder holds no reward posterior: fit, inferred preferences and reliability are not shown.",
    "truth": "The annotators are real, or their own utilities were not saved: nothing tells the true values.",
    "decisions": "What each rule decides in every posterior draw was not worked out, so nothing says how sure it is.",
    "policies": "No policy was trained in this run, so there are no training curves.",
    "evaluation": "Nothing was measured after fitting: no held-out scores, no welfare of trained policies.",
    "config": "The run was made without a config file (through the Python API).",
}


@dataclass(frozen=True, eq=False)
class Run:
    """A run folder, read.

    Attributes:
        path: the folder.
        choices: one per rule; never empty.
        decisions: what rules decide in every draw.
        policies: trained policies by the name of their rule.
        config: text of `experiment.yaml`.
        manifests: type, key, hash and versions of each artifact, by its path in the folder.
        absent: why a part is not there.
    """

    path: Path
    choices: dict[str, Choice]
    feedback: Feedback | None
    features: Features | None
    posterior: RewardPosterior | None
    truth: Utilities | None
    decisions: Decisions | None
    policies: dict[str, Policy]
    evaluation: Evaluation | None
    config: str | None
    manifests: dict[str, dict[str, Any]]
    absent: dict[str, str]

    def seeds(self) -> dict[str, Any]:
        """Return every value called `seed` in the config, by its dotted path."""
        try:
            tree = yaml.safe_load(self.config or "")
        except yaml.YAMLError:  # the text stands on the page all the same
            return {}
        return dict(_seeds(tree, ()))


def read(path: str | Path) -> Run:
    """Read a run folder.

    Raises:
        InputError: no such folder, or it holds no choices; or one of its artifacts is damaged.
    """
    path = Path(path)
    if not path.is_dir():
        raise InputError(f"{path} is no folder; give the folder that `pluralign run` wrote, such as runs/quickstart.")
    choices = {p.parent.name: artifacts.load(p.parent, Choice) for p in _found(path, "choices/*")}
    if not choices:
        raise InputError(
            f"{path} is no run folder: it has no choices/<rule>/. Either the run stopped before a rule was solved "
            "(run it again, it goes on where it was), or this is a folder within or above the run's own."
        )

    def part(name: str, kind: type[T]) -> T | None:
        return artifacts.load(path / name, kind) if (path / name / artifacts.MANIFEST).exists() else None

    config = path / "experiment.yaml"
    parts: dict[str, Any] = {
        "feedback": part("feedback", Feedback),
        "features": part("features", Features),
        "posterior": part("posterior", RewardPosterior),
        "truth": part("truth", Utilities),
        "decisions": part("decisions", Decisions),
        "policies": {p.parent.parent.name: artifacts.load(p.parent, Policy) for p in _found(path, "policies/*/policy")},
        # `scores` is what a run that stopped before its policies were measured leaves.
        "evaluation": part("evaluation", Evaluation) or part("scores", Evaluation),
        "config": config.read_text(encoding="utf-8") if config.exists() else None,
    }
    absent = {name: REASONS[name] for name, value in parts.items() if not value}
    manifests = {
        str(p.parent.relative_to(path)): _summary(json.loads(p.read_text(encoding="utf-8")))
        for pattern in ("*", "choices/*", "policies/*/policy")
        for p in _found(path, pattern)
    }
    return Run(path, choices, **parts, manifests=manifests, absent=absent)


def _found(path: Path, pattern: str) -> list[Path]:
    """Return manifests, without those of folders that were cut off while being written (their names have a dot)."""
    found = path.glob(f"{pattern}/{artifacts.MANIFEST}")
    return sorted(p for p in found if not any(part.startswith(".") for part in p.relative_to(path).parts))


def _summary(manifest: dict[str, Any]) -> dict[str, Any]:
    return {"type": manifest["value"]["$type"], **{name: manifest[name] for name in ("key", "hash", "versions")}}


def _seeds(tree: Any, path: tuple[str, ...]):
    for key, value in tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ():
        if key == "seed":
            yield ".".join((*path, "seed")), value
        else:
            yield from _seeds(value, (*path, str(key)))
