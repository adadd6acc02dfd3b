"""An experiment is its components, nested; YAML is their literal form.

A new component becomes a choice in YAML by its name in one of the unions below.
"""

import difflib
import os
import re
import types as python_types
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, dataclass, field, fields, is_dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

import yaml
from pydantic import Field, TypeAdapter, ValidationError

from pluralign import policy
from pluralign.artifacts import plain
from pluralign.choice import (
    IRV,
    LCPO,
    OWA,
    AbstractWelfare,
    AlphaFair,
    Approval,
    Black,
    Borda,
    ChiSquareRobust,
    Condorcet,
    Copeland,
    EgalitarianLottery,
    Floor,
    GapScale,
    Gini,
    KalaiSmorodinsky,
    Kemeny,
    KLRobust,
    LeximaxPlurality,
    Leximin,
    LinearKemeny,
    MaximalLottery,
    Maximin,
    Mean,
    Minimax,
    Nash,
    NashBargaining,
    NashLottery,
    NoScale,
    Plurality,
    Positional,
    PrefVoting,
    RandomDictatorship,
    RangeScale,
    RankedPairs,
    RankScale,
    Schulze,
    StdScale,
    TotalVariationRobust,
    Utilitarian,
    VoterCVaR,
)
from pluralign.choice.risk import Risk as AnyRisk
from pluralign.errors import InputError
from pluralign.features import Concatenate, Encoder, FineTuned, Items, Lexicon, RandomFourier, Scorers
from pluralign.feedback import ByAnnotator, ByJudgement, ByPrompt, ByTime, Community, Population, Several, holdout
from pluralign.feedback.several import Part
from pluralign.functions import Function
from pluralign.policy import DPO, PPO
from pluralign.reward import NUTS, SVI, Gibbs, Hierarchical, Laplace, VariationalEM
from pluralign.reward import Population as Model
from pluralign.types import Choices, Feedback, Grades

Source = Annotated[Part | Several | Community, Field(discriminator="kind")]
FeatureMap = Annotated[
    Encoder | Lexicon | Items | Scorers | FineTuned | RandomFourier | Concatenate, Field(discriminator="kind")
]
Inference = Annotated[NUTS | SVI | Gibbs | VariationalEM | Laplace, Field(discriminator="kind")]
Split = Annotated[ByJudgement | ByAnnotator | ByPrompt | ByTime, Field(discriminator="kind")]
Scale = Annotated[NoScale | StdScale | RangeScale | GapScale | RankScale, Field(discriminator="kind")]
Welfare = Utilitarian | Nash | Maximin | Leximin | AlphaFair | KalaiSmorodinsky | NashBargaining
Ranked = OWA | Gini | VoterCVaR
Robust = KLRobust | ChiSquareRobust | TotalVariationRobust
Ordinal = Plurality | Borda | Positional | Copeland | Minimax | Schulze | RankedPairs | Kemeny | Black | IRV | Approval
Randomised = MaximalLottery | RandomDictatorship | NashLottery | EgalitarianLottery
LinearRule = LCPO | LeximaxPlurality | LinearKemeny
Rule = Annotated[
    Welfare | Ranked | Robust | Ordinal | Condorcet | PrefVoting | Randomised | LinearRule, Field(discriminator="kind")
]
Rewarding = AbstractWelfare | Leximin | LinearRule | Borda | MaximalLottery  # have a reward for new responses
Risk = Annotated[AnyRisk, Field(discriminator="kind")]


@dataclass(frozen=True)
class Limit:
    """A constraint on objectives: all voters' expectation is at least or at most so much, in logits over the reference.

    Args:
        objectives: how much each objective counts, by name, such as `{harm: 1}`.
        at_least: the least that the expectation may be; 0 is what the reference gives.
        at_most: the most.
        risk: how posterior draws are combined; `{kind: cvar, tail: 0.1}` makes it a chance constraint.
    """

    objectives: dict[str, float]
    at_least: float | None = None
    at_most: float | None = None
    risk: Risk = field(default_factory=Mean)
    kind: Literal["limit"] = "limit"

    def __post_init__(self):
        if self.at_least is None and self.at_most is None:
            raise InputError(f"the limit on {', '.join(self.objectives)} demands nothing; give at_least or at_most.")


@dataclass(frozen=True)
class Beside:
    """A function or a classifier that counts, is limited or is only told while a policy is trained online.

    In Python it is a `policy.Term`, which says what the numbers mean.

    Args:
        name: in metrics.
        function: `module:name` of a function `(prompts, responses) -> scores` of whole lists, None for what it cannot
            score.
        classifier: a sequence classifier, in place of a function.
        weight: of the score in the reward, in units of welfare per unit of score.
        at_least: the least that its mean may be under the policy.
        at_most: the most.
        rate: of the multiplier, per update.
    """

    name: str
    function: Function | None = None
    classifier: policy.Classifier | None = None
    weight: float = 0.0
    at_least: float | None = None
    at_most: float | None = None
    rate: float = 0.05

    def __post_init__(self):
        if (self.function is None) == (self.classifier is None):
            raise InputError(f"the term {self.name!r} takes either a function or a classifier.")
        self.term()  # what is out of range is told now

    def term(self) -> policy.Term:
        """Return what policies are trained with."""
        source = self.function or self.classifier
        assert source is not None  # checked above
        return policy.Term(self.name, source, self.weight, self.at_least, self.at_most, self.rate)


Constraint = Annotated[Floor | Limit, Field(discriminator="kind")]


@dataclass(frozen=True)
class Sampling:
    """How trained policies are measured: responses are sampled and scored by every voter's utility.

    Args:
        prompts: share of the prompts that rules and training never see, and policies are measured on;
            0 measures on the prompts of training, which the report then says.
        responses: sampled per prompt and policy.
        max_tokens: of a response.
        temperature: of sampling.
        shown: prompts whose responses stand side by side in the report.
    """

    prompts: float = 0.25
    responses: int = 8
    max_tokens: int = 48
    temperature: float = 1.0
    shown: int = 4
    kind: Literal["sampling"] = "sampling"

    def __post_init__(self):
        if not 0 <= self.prompts < 1:
            raise InputError(f"prompts is {self.prompts}; a share of prompts to hold out lies in [0, 1).")
        if self.responses < 1 or self.max_tokens < 1:
            raise InputError("responses and max_tokens must be at least 1.")


@dataclass(frozen=True)
class Experiment:
    """From judgements to trained policies and a report.

    Args:
        feedback: where the judgements come from.
        features: how a response becomes numbers.
        population: who should be heard, by its margins; the annotators are compared with it, and count by raked weights
            if it says `rake: true`.
        reward: what is assumed of the population of annotators.
        inference: how the posterior is computed.
        holdout: share of each annotator's judgements that the posterior does not see and is scored on; or another
            split, such as `{kind: by-prompt, share: 0.2}` (or by-annotator, by-judgement, by-time); 0: nothing.
        objectives: how much each objective counts in a voter's utility, by name; needed if there are several.
        scale: what makes utilities of different voters comparable.
        rules: social-choice rules to compare.
        risk: how posterior draws are combined.
        beta: price of a nat of divergence from the reference, in units of welfare.
        constraints: what every rule that maximises welfare must give: floors of groups, limits on objectives.
        scope: `global` judges one policy over all prompts together; `prompt` judges each prompt by itself, so that no
            loss on one is made good on another (see `choice.each_prompt`).
        draws: posterior draws that enter the rules.
        enough: the data decide on a prompt if some candidate wins with at least this probability.
        policy: how policies are trained on the candidates; none trains nothing.
        train: names of the rules that policies are trained for: the kind, and what is not as usual, such as `gini-3`.
        online: how policies are trained on what they write themselves.
        train_online: names of the rules that policies are trained for online; they are told as `NAME-ppo`.
        terms: functions and classifiers that count beside a rule's reward, or are limited, in online training.
        sampling: how trained policies are measured.
        groups: annotator attribute by which the report tells who gains and who loses.
        seed: of everything random.
    """

    feedback: Source
    features: FeatureMap
    population: Population | None = None
    reward: Model = field(default_factory=Hierarchical)
    inference: Inference = field(default_factory=NUTS)
    holdout: float | Split = 0.2
    objectives: dict[str, float] | None = None
    scale: Scale = field(default_factory=StdScale)
    rules: tuple[Rule, ...] = (Utilitarian(), Nash(), Maximin())
    risk: Risk = field(default_factory=Mean)
    beta: float = 0.1
    constraints: tuple[Constraint, ...] = ()
    scope: Literal["global", "prompt"] = "global"
    draws: int = 100
    enough: float = 0.5
    policy: DPO | None = None
    train: tuple[str, ...] = ()
    online: PPO | None = None
    train_online: tuple[str, ...] = ()
    terms: tuple[Beside, ...] = ()
    sampling: Sampling = field(default_factory=Sampling)
    groups: str | None = None
    seed: int = 0

    def __post_init__(self):
        if isinstance(self.holdout, float | int) and not 0 <= self.holdout < 1:
            raise InputError(f"holdout is {self.holdout}; a share of judgements lies in [0, 1).")
        if not 0 < self.enough <= 1:
            raise InputError(f"enough is {self.enough}; the probability from which the data decide lies in (0, 1].")
        names = [rule.name for rule in self.rules]
        if len(set(names)) < len(names) or not names:
            raise InputError(f"rules are {names}; name at least one, and each once.")
        if not isinstance(self.risk, Mean) and (neutral := [rule.name for rule in self.rules if not rule.cautious]):
            raise InputError(
                f"risk is {self.risk.kind}, but {', '.join(neutral)} cannot be cautious: every draw of a voter is a "
                "ballot. Use `risk: {kind: mean}`, or run these rules in an experiment of their own."
            )
        free = [rule.name for rule in self.rules if not isinstance(rule, AbstractWelfare | Leximin)]
        if self.constraints and free:
            raise InputError(
                f"constraints hold for rules that maximise welfare, and {', '.join(free)} do not; leave out the "
                "constraints, or run these rules in an experiment of their own."
            )
        if self.constraints and self.scope == "prompt":
            raise InputError("constraints are about all prompts together; with `scope: prompt` there is no such thing.")
        if isinstance(self.scale, RankScale) and (self.train or self.train_online):
            raise InputError(
                "scale is rank, on which only judged responses have a place, so no policy can be measured on it; use "
                "`scale: {kind: std}` or range, or train nothing."
            )
        if self.population is not None and self.population.rake and self.reward.kind == "pooled":
            raise InputError(
                "population says `rake: true`, but a pooled reward has one voter, for whom annotators' weights mean "
                "nothing; use `reward: {kind: hierarchical}`, or do not rake."
            )
        for key, given, how in (("train", self.train, self.policy), ("train_online", self.train_online, self.online)):
            for name in given:
                if name not in names:
                    raise InputError(f"{key} names {name!r}, which is not among the rules {names}.{_near(name, names)}")
            if given and how is None:
                what = "policy: {kind: dpo, ...}" if key == "train" else "online: {kind: ppo, ...}"
                raise InputError(f"{key} names {list(given)} but there is no {what.split(':')[0]}; add `{what}`.")
        if self.terms and not self.train_online:
            raise InputError(
                f"terms name {[term.name for term in self.terms]}, which count in online training only, and "
                "train_online names no rule; name one, or leave out the terms."
            )
        for rule in self.rules:
            if rule.name in self.train_online and not isinstance(rule, Rewarding):
                raise InputError(
                    f"train_online names {rule.name}, which only has a lottery over candidates and no reward for new "
                    "responses; name it in `train` instead, where the loss `{kind: distil}` learns the lottery."
                )
        if self.train_online and self.scope == "prompt" and self.online is not None and self.online.reestimate:
            raise InputError("online.reestimate asks a rule about all prompts together; set it to 0, or scope: global.")

    def split(self, votes: Feedback) -> tuple[Feedback, Feedback]:
        """Return what the posterior is fitted to and what it is scored on."""
        if not isinstance(self.holdout, float | int):
            return self.holdout.split(votes)
        if self.holdout:
            return holdout(votes, self.holdout, self.seed)
        return votes, replace(votes, choices=Choices.none(), grades=Grades.none())

    def weighed(self, votes: Feedback) -> Feedback:
        """Return judgements whose annotators count as the declared population says, if there is one."""
        return votes if self.population is None else self.population.weigh(votes)


def load(path: str | Path, overrides: Mapping[str, str] | None = None) -> Experiment:
    """Read an experiment from YAML.

    `${NAME}` and `${NAME:-default}` stand for environment variables.

    Args:
        path: of the YAML file.
        overrides: dotted path of a key to its new value, in YAML, such as `{"inference.draws": "200"}`.

    Raises:
        InputError: the file is not there or not YAML; a key is unknown (with its path and the nearest right one);
            a value is of the wrong type or out of range.
    """
    try:
        text = Path(path).read_text(encoding="utf-8")
    except OSError as error:
        raise InputError(f"cannot read the config {path}: {error.strerror}.") from error
    return parse(text, overrides, origin=str(path))


def parse(text: str, overrides: Mapping[str, str] | None = None, *, origin: str = "config") -> Experiment:
    """Read an experiment from YAML text; as `load`."""
    try:
        data = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise InputError(f"{origin} is not YAML: {error}") from error
    if not isinstance(data, dict):
        raise InputError(f"{origin} must be a mapping of keys such as `feedback:` and `features:`.")
    data = {key: value for key, value in data.items() if not str(key).startswith("x-")}  # a place for YAML anchors
    for dotted, value in (overrides or {}).items():
        _override(data, dotted, yaml.safe_load(value))
    data = _expand(data, origin)
    _check_keys(data, Experiment, ())
    try:
        return TypeAdapter(Experiment).validate_python(data)
    except ValidationError as error:
        told = [f"  {_dotted(e['loc'])}: {_said(e)}" for e in error.errors()]
        raise InputError("\n".join([f"{origin} does not fit:", *told])) from error


def dump(experiment: Experiment) -> str:
    """Return the YAML that `parse` reads back as the same experiment, every default written out."""
    return yaml.safe_dump(plain(experiment), sort_keys=False, allow_unicode=True, width=100)


def _dotted(path: Sequence[Any]) -> str:
    """Return a pydantic location as a path that a user would type: without the tags of unions, however deep."""
    hint, words = Experiment, []
    for part in path[:-1] if path[-1:] == ("[key]",) else path:
        members = [member for member in _members(hint) if member is not type(None)]
        if len(members) > 1:
            hint = _kinds(hint).get(part) or next((m for m in members if str(part).startswith(_bare(m))), Any)
            continue
        component = members[0]
        if not is_dataclass(component):
            hint = get_args(component)[-1 if get_origin(component) is dict else 0] if get_args(component) else Any
        elif part in (hints := get_type_hints(component, include_extras=True)):
            hint = hints[part]
        else:  # the class's own name
            continue
        words.append(str(part))
    return ".".join(words) or "config"


def _bare(hint: Any) -> str:
    """Return how pydantic's tag of a member of a union begins."""
    return (get_origin(hint) or hint).__name__


def _said(error: Any) -> str:
    if error["loc"][-1:] == ("[key]",):
        return f"the name {error['loc'][-2]} is no text; put it in quotes, for YAML reads yes, no and 1990 otherwise."
    return error["msg"].removeprefix("Value error, ")


def _near(word: str, known: Sequence[str]) -> str:
    close = difflib.get_close_matches(str(word), list(known), n=1, cutoff=0.5)
    return f" Did you mean {close[0]!r}?" if close else ""


def _override(data: Any, dotted: str, value: Any) -> None:
    *parents, last = dotted.split(".")
    for depth, key in enumerate(parents):
        where = ".".join(parents[: depth + 1])
        if isinstance(data, list):
            data = data[_index(data, key, where)]
        elif isinstance(data, dict):
            if data.get(key) is None:
                data[key] = {}
            data = data[key]
        else:
            raise InputError(f"override {dotted!r}: {'.'.join(parents[:depth])!r} is {data!r}, which has no keys.")
    if isinstance(data, list):
        data[_index(data, last, dotted)] = value
    elif isinstance(data, dict):
        data[last] = value
    else:
        raise InputError(f"override {dotted!r}: {'.'.join(parents)!r} is {data!r}, which has no keys.")


def _index(data: list, key: str, where: str) -> int:
    if not key.isdigit() or int(key) >= len(data):
        raise InputError(f"override {where!r}: {key!r} is not a position from 0 to {len(data) - 1}.")
    return int(key)


def _expand(value: Any, origin: str) -> Any:
    """Put environment variables in place of `${NAME}` and `${NAME:-default}`."""
    if isinstance(value, dict):
        return {key: _expand(v, origin) for key, v in value.items()}
    if isinstance(value, list):
        return [_expand(v, origin) for v in value]
    if not isinstance(value, str):
        return value

    def substitute(match: re.Match) -> str:
        name, default = match["name"], match["default"]
        if name not in os.environ and default is None:
            raise InputError(f"{origin} uses ${{{name}}}, which is not set; `export {name}=...` or write the path out.")
        return os.environ.get(name) or default or ""

    return re.sub(r"\$\{(?P<name>\w+)(:-(?P<default>[^}]*))?\}", substitute, value)


def _members(hint: Any) -> list[Any]:
    """Return the alternatives of a type hint, unions and annotations taken apart."""
    if get_origin(hint) is Annotated:
        return _members(get_args(hint)[0])
    if get_origin(hint) in (Union, python_types.UnionType):
        return [member for part in get_args(hint) for member in _members(part)]
    return [hint]


def _kinds(hint: Any) -> dict[str, type]:
    components = [m for m in _members(hint) if is_dataclass(m)]
    return {f.default: c for c in components for f in fields(c) if f.name == "kind"}  # pyright: ignore[reportReturnType]


def _check_keys(value: Any, hint: Any, path: tuple[str, ...]) -> None:
    """Refuse unknown keys and kinds, naming their path and the nearest right one."""
    where = ".".join(path) or "config"
    for member in _members(hint):
        if isinstance(value, list) and get_origin(member) is tuple:
            for i, element in enumerate(value):
                _check_keys(element, get_args(member)[0], (*path, str(i)))
    components = [m for m in _members(hint) if is_dataclass(m)]
    if not components or not isinstance(value, dict):
        return
    kinds = _kinds(hint)
    if len(components) > 1 and value.get("kind") is None:
        raise InputError(f"{where} needs a `kind`: one of {', '.join(kinds)}.")
    if "kind" in value and value["kind"] not in kinds:
        raise InputError(
            f"{where}.kind is {value['kind']!r}; it is one of {', '.join(kinds)}.{_near(value['kind'], [*kinds])}"
        )
    component = kinds[value["kind"]] if "kind" in value else components[0]
    hints = get_type_hints(component, include_extras=True)
    known = [f.name for f in fields(component)]
    for key, inner in value.items():
        if key not in known:
            raise InputError(
                f"{'.'.join((*path, str(key)))} is not a key; {where} takes {', '.join(known)}.{_near(key, known)}"
            )
        given = next(f for f in fields(component) if f.name == key)
        default = given.default_factory() if given.default_factory is not MISSING else given.default
        if isinstance(inner, dict) and "kind" not in inner and is_dataclass(default) and "kind" in vars(default):
            inner["kind"] = vars(default)["kind"]  # `inference: {draws: 200}` changes the default component
        _check_keys(inner, hints[key], (*path, str(key)))
    required = [f.name for f in fields(component) if f.default is MISSING and f.default_factory is MISSING]
    missing = [name for name in required if name not in value]
    if missing:
        raise InputError(
            f"{where} lacks {', '.join(missing)}, which {'have' if len(missing) > 1 else 'has'} no default."
        )
