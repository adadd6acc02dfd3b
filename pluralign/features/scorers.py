from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

from pluralign import artifacts
from pluralign.errors import InputError
from pluralign.features import cache
from pluralign.features.base import AbstractLinearMap, Basis, Reading, centred
from pluralign.functions import Function, fingerprint
from pluralign.types import Feedback

# Raise it when the same texts, fields and weights would give other scores: what older code cached is then not read.
VERSION = 1


class Scored(NamedTuple):
    """What one scorer says: its columns, what tells it from any other scorer, and counts."""

    names: tuple[str, ...]
    scores: Float[np.ndarray, "item column"]
    how: Any
    facts: dict[str, Any]


@dataclass(frozen=True)
class Classifier:
    """A Hugging Face sequence classifier as a scorer: any reward model, or a classifier of sentiment, toxicity, tone.

    A model with one output gives that output. A model that tells apart labels `k` with logits `z` gives
    `log p_k / (1 - p_k) = z_k - log sum_{j != k} exp z_j`, and of two labels only the second, since the first is its
    negative. A model whose labels do not exclude each other (`multi_label_classification`) gives `z_k`.

    Args:
        name: of the feature; with several labels, features are called `name label`.
        model: name on the Hugging Face hub, or a local folder, of a model with a classification head.
        labels: those that become features, by the model's own names; None takes all (of two, the second).
        context: "none" scores the response alone; "prompt" scores it as an answer: as a chat if the tokenizer has a
            template, else as a pair of texts. Reward models need the prompt, most other classifiers do not.
        max_tokens: longest sequence, at least 8; the model's own limit counts if it is lower. What is too long is cut
            as the tokenizer does, and counted.
        batch_tokens: tokens per batch; decides memory and speed, not the result.
        device: such as `cpu` or `cuda`; None takes a GPU if there is one.
        cache: keep scores of the feedback in `$XDG_CACHE_HOME/pluralign`, found again by a hash of texts, fields and
            weights.
    """

    name: str
    model: str
    labels: tuple[str, ...] | None = None
    context: Literal["none", "prompt"] = "none"
    max_tokens: int = 512
    batch_tokens: int = 8192
    device: str | None = None
    cache: bool = True

    def __post_init__(self):
        for name, least in (("max_tokens", 8), ("batch_tokens", 1)):
            if getattr(self, name) < least:
                raise InputError(f"{name} of {self.name!r} is {getattr(self, name)}; it must be at least {least}.")
        if self.context not in ("none", "prompt"):
            raise InputError(f"context of {self.name!r} is {self.context!r}; it must be 'none' or 'prompt'.")
        if self.labels is not None and (not self.labels or len(set(self.labels)) < len(self.labels)):
            raise InputError(f"labels of {self.name!r} are {self.labels}; name at least one, and each once, or None.")

    def score(self, prompts: Sequence[str], responses: Sequence[str], more: bool = False) -> Scored:
        """Return the scores, from the cache if they are there; `more` as for `Encoder.adapted`.

        Raises:
            InputError: the model cannot be loaded, has no classification head or no such label.
        """
        revision = cache.identity(self.model, None)
        how = {"weights": revision, "context": self.context, "max_tokens": self.max_tokens}
        pairs = [(p if self.context == "prompt" else "", r) for p, r in zip(prompts, responses, strict=True)]
        distinct = sorted(set(pairs))
        key = artifacts.digest("classifier", VERSION, how, distinct)
        found = cache.load(key, len(distinct)) if self.cache else None
        if found is None:
            from pluralign.features import classify  # torch is imported only where a model has to run

            found = classify.scores(
                distinct,
                model=self.model,
                revision=revision,
                context=self.context == "prompt",
                max_tokens=self.max_tokens,
                batch_tokens=self.batch_tokens,
                device=self.device,
                more=more,
            )
            if self.cache and not more:
                cache.save(key, found)
        have = [str(label) for label in found["labels"]]
        asked = self.labels or (have[1:] if len(have) == 2 and found["exclusive"] else have)
        if missing := [label for label in asked if label not in have]:
            raise InputError(f"labels of {self.name!r} name {missing}; {self.model} has {have}.")
        names = (self.name,) if len(asked) == 1 else tuple(f"{self.name} {label}" for label in asked)
        place = {pair: row for row, pair in enumerate(distinct)}
        columns = [have.index(label) for label in asked]
        scores = found["states"][[place[pair] for pair in pairs]][:, columns].astype(np.float64)
        facts = {"model": self.model, "truncated": int(found["truncated"].sum())}
        return Scored(names, scores, how | {"labels": tuple(asked)}, facts)


@dataclass(frozen=True, repr=False)
class Scorers(AbstractLinearMap):
    """Features that are scores: what Python functions, reward models and classifiers say of a response.

    `phi = (score - mean score) / spread`, with `spread^2` the mean square of scores centred within each prompt (ddof 0)
    over the distinct items of the feedback. New responses are scaled by the same two numbers.

    A score that is missing, None or NaN, is refused unless `missing` is "indicate"; then its feature is 0, what an
    average score gives, and a scorer of whose scores some are missing in the feedback has one more feature, `name
    missing`, 1 where the score is missing. An infinite score is never accepted.

    The provenance holds a fingerprint of every scorer: of a function its code, defaults and what it closes over (not
    what it calls elsewhere, nor global variables); of any other callable its `fingerprint` attribute if it has one,
    else the code of its `__call__` and the repr of its attributes; of a classifier its weights and fields.

    >>> Scorers({"loud": lambda prompts, responses: [r.count("!") for r in responses]}).read(["a"], ["Hi!!"]).raw
    array([[2., 0.]], dtype=float32)

    Args:
        functions: `(prompts, responses) -> scores` by name, one score per response, which must not depend on the other
            responses; `module:name` in a config.
        classifiers: models that score.
        standardise: divide by the spread; False leaves each score in its own unit.
        missing: what becomes of a function's missing scores.
        kind: names this feature map in configs.

    Raises:
        InputError: no scorer, or two of one name; later, a score that is not finite, a scorer that does not tell
            responses to a prompt apart, or whatever `Classifier` raises.
    """

    functions: dict[str, Function] = field(default_factory=dict)
    classifiers: tuple[Classifier, ...] = ()
    standardise: bool = True
    missing: Literal["refuse", "indicate"] = "refuse"
    kind: Literal["scorers"] = "scorers"

    def __post_init__(self):
        names = [*self.functions, *(c.name for c in self.classifiers)]
        if not names or len(set(names)) < len(names):
            raise InputError(f"scorers are {names}; give at least one, and each a name of its own.")
        if self.missing not in ("refuse", "indicate"):
            raise InputError(f"missing is {self.missing!r}; it must be 'refuse' or 'indicate'.")

    def __repr__(self) -> str:
        """Tell functions by what they do, not by where they stand in memory, so that a run knows them again."""
        prints = {name: fingerprint(function) for name, function in self.functions.items()}
        rest = f"standardise={self.standardise}, missing={self.missing!r}"
        return f"Scorers(functions={prints}, classifiers={self.classifiers}, {rest})"

    def read(
        self, prompts: Sequence[str], responses: Sequence[str], given: Feedback | Mapping[str, Any] | None = None
    ) -> Reading:
        """Score each response; raw are the scores, then 1 for each that is missing.

        Raises:
            InputError: a scorer does not give one number for each response.
        """
        scored = [
            Scored((name,), _called(name, function, prompts, responses), fingerprint(function), {})
            for name, function in self.functions.items()
        ]
        scored += [c.score(prompts, responses, isinstance(given, Mapping)) for c in self.classifiers]
        names = tuple(name for s in scored for name in s.names)
        scores = np.column_stack([s.scores for s in scored])
        gone = np.isnan(scores)
        bad = ~np.isfinite(scores) if self.missing == "refuse" else np.isinf(scores)
        if bad.any():
            row, column = np.argwhere(bad)[0]
            raise InputError(
                f"scorer {names[column]!r} gives {scores[row, column]} for the response {responses[row][:80]!r} to "
                f"the prompt {prompts[row][:80]!r}; a score is a finite number. If it cannot score some responses, "
                "let it give None for them and set missing = 'indicate'."
            )
        which = [*self.functions, *(c.name for c in self.classifiers)]
        how = {"kind": self.kind, "scorers": {name: s.how for name, s in zip(which, scored, strict=True)}}
        facts = {c.name: s.facts for c, s in zip(self.classifiers, scored[len(self.functions) :], strict=True)}
        raw = np.column_stack([np.where(gone, 0, scores), gone]).astype(np.float32)
        return Reading(raw, how | {"missing": self.missing, "columns": names}, {"classifiers": facts})

    def basis(self, reading: Reading, prompt: Int[np.ndarray, " item"]) -> Basis:
        """Choose means and spreads.

        Raises:
            InputError: a scorer gives all responses to a prompt the same score.
        """
        names = reading.how["columns"]
        count = len(names)
        scores, gone = reading.raw[:, :count].astype(np.float64), reading.raw[:, count:] > 0
        told = [_moments(name, scores[:, k], gone[:, k], prompt) for k, name in enumerate(names)]
        mean, spread = np.array(told).T
        unit = spread if self.standardise else np.ones(count)
        # A missing score stands in raw as 0 with its mark, which brings in what takes it to the mean.
        axes = np.column_stack([np.diag(1 / unit), np.diag(mean / unit)])
        marked = np.flatnonzero(gone.any(0))
        axes = np.concatenate([axes, np.eye(2 * count)[count + marked]])
        facts = {"missing_scores": int(gone.sum()), "spread": tuple(spread.tolist()), "standardise": self.standardise}
        origin = np.concatenate([mean, np.zeros(count)])
        names += tuple(f"{names[column]} missing" for column in marked)
        return Basis(names, origin.astype(np.float32), axes.astype(np.float32), facts)


def _moments(
    name: str, score: Float[np.ndarray, " item"], gone: Bool[np.ndarray, " item"], prompt: Int[np.ndarray, " item"]
) -> tuple[float, float]:
    """Return the mean of a scorer's scores and their spread within prompts."""
    present = score[~gone]
    spread = np.sqrt(np.mean(centred(present[:, None], prompt[~gone]) ** 2)) if len(present) else 0.0
    if spread <= np.finfo(np.float32).eps * np.abs(present).max(initial=0):
        raise InputError(
            f"scorer {name!r} gives all responses to a prompt the same score, so it has nothing to say of which is "
            "better; leave it out. Does every prompt have only one response (is prompt_id right)?"
        )
    return float(present.mean()), float(spread)


def _called(
    name: str, function: Callable[..., Any], prompts: Sequence[str], responses: Sequence[str]
) -> Float[np.ndarray, "item 1"]:
    """Return what a function says, NaN for None."""
    said = function(list(prompts), list(responses))
    try:
        scores = np.array([np.nan if score is None else score for score in said], np.float64)
    except (TypeError, ValueError) as error:
        raise InputError(f"scorer {name!r} does not give one number for each response ({error}).") from error
    if scores.shape != (len(responses),):
        raise InputError(
            f"scorer {name!r} gives scores of shape {scores.shape} for {len(responses)} responses; it is called with "
            "all prompts and all responses at once, and gives one number for each response."
        )
    return scores[:, None]
