from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal

import numpy as np
from jaxtyping import Bool, Float, Int

from pluralign.artifacts import digest
from pluralign.errors import InputError
from pluralign.feedback.assignment import Active, Assignment, Independent, Plan
from pluralign.feedback.behaviour import WORD, Acts, Behaviour
from pluralign.feedback.responding import AbstractGrading, Comparison, Form
from pluralign.feedback.source import AbstractSource
from pluralign.types import Choices, Feedback, Grades, Truth

LAPSE = 0.8
"""How often a careless annotator answers at random."""
BEHAVIOUR, ATTRIBUTE, ITEM, OBJECTIVE = range(4)
"""Keys of the random generators beside the main one."""

TOPICS = (
    "sea moon river forest city garden winter summer spring autumn rain snow wind cloud storm sunrise mountain valley "
    "desert island beach bridge road train ship boat harbour market kitchen bread cheese soup tea coffee apple orange "
    "lemon honey salt sugar clock mirror window door candle lamp chair table piano violin drum guitar song dance film "
    "novel poem letter map museum library school castle village farm horse dog cat bird owl fox wolf whale bee spider "
    "rose oak tulip star planet"
).split()
ASKS = (
    "tell me about the {}",
    "what is the {} like",
    "describe the {}",
    "what should i know about the {}",
    "say something about the {}",
    "explain the {} to me",
    "write a line about the {}",
    "how would you picture the {}",
)
FACTS = (
    "is old|is near here|has a name|changes with time|is known to many|can be seen from here|belongs to all of us|"
    "looks different at night|has a story|is part of our life|is quiet today|was here before us|has many sides|"
    "is easy to find|is on the left|has its own colour|is often in books|stays where it is|is new to some|"
    "has a sound|means something to people|can be large or small|is in the picture|will be here tomorrow"
).split("|")
NEUTRAL = frozenset(WORD.findall(" ".join((*TOPICS, *ASKS, *FACTS)).lower()))


@dataclass(frozen=True)
class Group:
    """Annotators who want about the same.

    Args:
        name: of the group.
        size: how many annotators.
        tastes: logits that one word of a style adds to a response; 0 for styles that are not named.
        attributes: of annotators, each drawn for itself: name to values and their probabilities.
        item_spread: standard deviation of what an item is worth to the group beyond its styles, in logits.
        sees: styles that annotators notice; all if none. They judge by what those tell of the utility, see `Community`.
        objectives: tastes beyond `tastes`, in the same logits, for each objective that is asked for, by its name.
    """

    name: str
    size: int
    tastes: dict[str, float]
    attributes: dict[str, dict[str, float]] = field(default_factory=dict)
    item_spread: float = 0.0
    sees: tuple[str, ...] | None = None
    objectives: dict[str, dict[str, float]] = field(default_factory=dict)

    def __post_init__(self):
        _need(self.size >= 1, "size", self.size, f"at least 1 in group {self.name!r}")
        further = {f"objectives[{name!r}]": tastes for name, tastes in self.objectives.items()}
        for where, tastes in {"tastes": self.tastes, **further}.items():
            for style, value in tastes.items():
                _need(bool(np.isfinite(value)), f"{where}[{style!r}]", value, f"finite in group {self.name!r}")
        _need(0 <= self.item_spread < np.inf, "item_spread", self.item_spread, "at least 0 and finite")
        for name, shares in self.attributes.items():
            _need(name not in ("id", "weight", "group"), "attributes", name, "names other than id, weight and group")
            total = sum(shares.values())
            fair = min(shares.values(), default=-1) >= 0 and abs(total - 1) < 1e-6
            _need(fair, f"attributes[{name!r}]", shares, "probabilities of at least 0 that sum to 1")

    def wants(self, objective: str, style: str) -> float:
        """Return the group's taste for a style where this objective is asked for."""
        return self.tastes.get(style, 0.0) + self.objectives.get(objective, {}).get(style, 0.0)


@dataclass(frozen=True)
class Community(AbstractSource):
    """A simulated community whose wants are known, so that every inference from its votes can be checked.

    Responses are short texts of one to four clauses, each neutral or with one word of one style. The features of
    a response are how often words of each style occur in it,

        phi[item, style] = number of tokens of the lower-cased response, [a-z']+, that are words of the style.

    Annotator a of group g wants, and values a response at,

        w_a = tastes_g + spread * e_a,  e_a ~ Normal(0, I),        u_a(item) = phi[item] · w_a   (logits).

    It is shown two different responses of a random prompt, first and second in random order, and answers by the
    model of Davidson (1970), with `tie` the log tie propensity (no ties if None), unless its mind is elsewhere:

        P(first) : P(second) : P(tie)  =  exp(u_1) : exp(u_2) : exp(tie + (u_1 + u_2) / 2)   with prob. 1 - lapse_a,
        each answer equally often                                                            with prob. lapse_a,

    where lapse_a is 0.8 for a careless annotator and `slip` for any other. `truth` of the feedback holds w_a.

    All else is optional and changes no random number of what is there without it. `form` asks for something else than
    comparisons; `assignment` shows the same to several; a group with `item_spread` values items beyond their styles,

        u_a(item) = phi[item] · w_a + q[group, item],  q ~ Normal(0, item_spread^2),

    and then `truth` is none, since no weights hold it: `provenance["utility"]` is u[annotator, item], and
    `provenance["careless"]` says who is. A group that `sees` only the counts v(item) of some styles judges by the mean
    over the community's items that look the same,

        E[u_a | v(item)]  =  mean of u_a over all items with equal v.

    Groups with `objectives` have tastes for each of them; a judgement asks for one, drawn uniformly, and then

        w_ao = tastes_g + objectives_g[o] + spread * e_ao,  e_ao ~ Normal(0, I),

    where objectives_g[o] is 0 if the group does not name the objective, and q is the same for all. With several
    objectives `truth` is none too, and `provenance["utility"]` is u[objective, annotator, item].

    `behaviours` bend what annotators answer, one after the other, each with its own share of annotators, drawn apart,
    so that one annotator may have several; what annotators want stays as it is. `provenance["behaviours"]` says who
    (indices of annotators). It is no attribute of annotators, so that no model sees it.

    Args:
        groups: who is in the community.
        styles: words that show each style, in lower case.
        prompts: how many prompts, at most 640.
        candidates: different responses to each prompt, 2 to 1000.
        judgements: comparisons by each annotator.
        spread: standard deviation of annotators within their group, logits per word, at least 0.
        careless: share of annotators who mostly answer at random, 0 to 1; spread evenly over the groups.
        slip: probability that any other annotator answers at random, 0 to 1.
        tie: log tie propensity; at -1 two equally good responses tie with probability 0.16; none = no ties.
        seed: of all that is random.
        form: what annotators are asked; `tie` is for comparisons and votes only.
        behaviours: noise of annotators, spam and attacks, in the order in which they take effect.
        assignment: who is asked about what.
    """

    groups: tuple[Group, ...]
    styles: dict[str, tuple[str, ...]]
    prompts: int = 60
    candidates: int = 6
    judgements: int = 30
    spread: float = 0.3
    careless: float = 0.15
    slip: float = 0.02
    tie: float | None = -1.0
    seed: int = 0
    form: Form = field(default_factory=Comparison)
    behaviours: tuple[Behaviour, ...] = ()
    assignment: Assignment = field(default_factory=Independent)
    kind: Literal["community"] = "community"

    def __post_init__(self):
        names = [group.name for group in self.groups]
        _need(bool(names) and len(set(names)) == len(names), "groups", names, "at least one, with different names")
        _need(bool(self.styles), "styles", self.styles, "at least one style with its words")
        words = [word for style in self.styles.values() for word in style]
        for style, own in self.styles.items():
            _need(bool(own), f"styles[{style!r}]", own, "at least one word")
            for word in own:
                _need(bool(WORD.fullmatch(word)), f"styles[{style!r}]", word, "single words of a-z and '")
                _need(words.count(word) == 1, f"styles[{style!r}]", word, "words that stand only once in all styles")
                _need(word not in NEUTRAL, f"styles[{style!r}]", word, "words that neutral clauses do not use")
        for group in self.groups:
            for style in (*group.tastes, *(style for tastes in group.objectives.values() for style in tastes)):
                _need(style in self.styles, f"tastes of {group.name!r}", style, f"styles: {', '.join(self.styles)}")
            for style in group.sees or ():
                _need(style in self.styles, f"sees of {group.name!r}", style, f"styles: {', '.join(self.styles)}")
        _need(1 <= self.prompts <= len(ASKS) * len(TOPICS), "prompts", self.prompts, "1 to 640")
        _need(2 <= self.candidates <= 1000, "candidates", self.candidates, "2 to 1000")
        _need(self.form.slots <= self.candidates, "candidates", self.candidates, f"at least {self.form.slots} to show")
        active = isinstance(self.assignment, Active)
        compares = isinstance(self.form, Comparison)
        _need(compares or not active, "form", self.form.kind, "comparison, if the assignment is active")
        alone = isinstance(self.assignment, Independent) or len(self._objectives) == 1
        _need(alone, "assignment", self.assignment.kind, "independent, if groups have several objectives")
        enough = self.judgements >= self.assignment.stages
        _need(enough, "judgements", self.judgements, f"at least {self.assignment.stages}, one for each round")
        _need(self.judgements >= 1, "judgements", self.judgements, "at least 1")
        _need(0 <= self.spread < np.inf, "spread", self.spread, "at least 0 and finite")
        _need(0 <= self.careless <= 1, "careless", self.careless, "0 to 1")
        _need(0 <= self.slip <= 1, "slip", self.slip, "0 to 1")
        _need(self.tie is None or bool(np.isfinite(self.tie)), "tie", self.tie, "finite, or none for no ties")

    @property
    def _objectives(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(o for group in self.groups for o in group.objectives)) or ("overall",)

    def fingerprint(self) -> str:
        """Return a content hash of the word lists; all else is in the fields."""
        return digest(TOPICS, ASKS, FACTS, LAPSE)

    def load(self) -> Feedback:
        """Simulate the community."""
        from datasets import Dataset

        rng = np.random.default_rng(self.seed)
        topics = rng.permutation(TOPICS)
        questions = [ASKS[i // len(topics)].format(topics[i % len(topics)]) for i in range(self.prompts)]
        responses = [r for i in range(self.prompts) for r in self._responses(str(topics[i % len(topics)]), rng)]
        counts = self._counts(responses)

        group = np.repeat(np.arange(len(self.groups)), [g.size for g in self.groups])
        tastes = np.array([[[g.wants(o, s) for s in self.styles] for g in self.groups] for o in self._objectives])
        own = rng.normal(size=(1, len(group), len(self.styles)))
        further = self._child(OBJECTIVE).normal(size=(len(tastes) - 1, *own.shape[1:]))
        weights = tastes[:, group] + self.spread * np.concatenate([own, further])
        careless = self._spread_out(self.careless, group, rng)
        utility = weights @ counts.T + self._beyond(len(responses))[group]
        bent = [self._spread_out(b.share, group, self._child(BEHAVIOUR, k)) for k, b in enumerate(self.behaviours)]
        noticed = np.stack([self._noticed(u, counts, group) for u in utility])
        judged = self._judge(noticed, careless, bent, responses, counts, rng)

        told: dict[str, Any] = {}
        if self.behaviours:
            members = [np.flatnonzero(who).tolist() for who in bent]
            told["behaviours"] = [
                asdict(b) | {"annotators": who} for b, who in zip(self.behaviours, members, strict=True)
            ]
        unchanged = len(group) * self.judgements - len(judged)
        aside = {"a correction that changes nothing": unchanged} if unchanged else {}
        linear = not any(g.item_spread for g in self.groups) and len(utility) == 1
        if not linear:
            told |= {
                "utility": utility if len(utility) > 1 else utility[0],
                "careless": np.flatnonzero(careless).tolist(),
            }

        names = [self.groups[g].name for g in group]
        width = len(str(len(group) - 1))
        prompt_id = np.repeat(np.arange(self.prompts, dtype=np.int32), self.candidates)
        return Feedback(
            items=Dataset.from_dict(
                {
                    "prompt_id": prompt_id,
                    "prompt": [questions[i] for i in prompt_id],
                    "response": responses,
                    "source": ["simulated"] * len(responses),
                }
            ),
            annotators=Dataset.from_dict(
                {
                    "id": [f"{name}-{a:0{width}d}" for a, name in enumerate(names)],
                    "weight": np.ones(len(group)),
                    "group": names,
                    **self._attributes(group),
                }
            ),
            objectives=self._objectives,
            choices=judged if isinstance(judged, Choices) else _no_choices(),
            grades=judged if isinstance(judged, Grades) else Grades.none(),
            provenance={"kind": self.kind, "simulated": True, "fields": asdict(self), "set_aside": aside, **told},
            truth=Truth(weights=weights[0], features=tuple(self.styles), careless=careless) if linear else None,
            scales=(self.form.scale,) if isinstance(self.form, AbstractGrading) else (),
        )

    def utility(self, votes: Feedback, objective: str | None = None) -> Float[np.ndarray, "annotator item"]:
        """Return what every annotator of this community truly wants: its utility of every item, in logits.

        Args:
            votes: what `load` returned.
            objective: which is asked for; it may be none if there is only one.

        Raises:
            InputError: there is no such objective, or there are several and none is named.
        """
        names = self._objectives
        asked = names[0] if objective is None and len(names) == 1 else objective
        _need(asked in names, "objective", asked, ", ".join(names))
        if votes.truth is None:
            known = np.asarray(votes.provenance["utility"])
            return known if known.ndim == 2 else known[names.index(str(asked))]
        return votes.truth.weights @ self._counts(list(votes.items["response"])).T

    def _child(self, *key: int) -> np.random.Generator:
        """Return a generator of its own, so that an ability that is used moves no other random number."""
        return np.random.default_rng(np.random.SeedSequence(self.seed, spawn_key=key))

    def _attributes(self, group: Int[np.ndarray, " annotator"]) -> dict[str, list[str]]:
        """Draw every annotator's attributes; one that its group does not have is empty."""
        names = dict.fromkeys(name for g in self.groups for name in g.attributes)
        columns = {}
        for k, name in enumerate(names):
            rng = self._child(ATTRIBUTE, k)
            shares = [self.groups[g].attributes.get(name, {"": 1.0}) for g in group]
            columns[name] = [str(rng.choice(list(s), p=np.array(list(s.values())) / sum(s.values()))) for s in shares]
        return columns

    def _beyond(self, items: int) -> Float[np.ndarray, "group item"]:
        """Draw what items are worth to each group beyond their styles."""
        spread = np.array([g.item_spread for g in self.groups])
        return spread[:, None] * self._child(ITEM).normal(size=(len(self.groups), items))

    def _noticed(
        self,
        utility: Float[np.ndarray, "annotator item"],
        counts: Float[np.ndarray, "item style"],
        group: Int[np.ndarray, " annotator"],
    ) -> Float[np.ndarray, "annotator item"]:
        """Return E[u | v(x)], x uniform over the items."""
        found = utility.copy()
        for g, own in enumerate(self.groups):
            if own.sees is not None:
                seen = counts[:, [style in own.sees for style in self.styles]]
                alike = np.unique(seen, axis=0, return_inverse=True)[1].ravel()
                same = alike[:, None] == np.arange(alike.max() + 1)
                found[group == g] = ((utility[group == g] @ same) / same.sum(0))[:, alike]
        return found

    def _responses(self, topic: str, rng: np.random.Generator) -> list[str]:
        """Write different responses; each has its own mixture of styles, so that counts differ between them."""
        words = list(self.styles.values())
        found: dict[str, None] = {}
        while len(found) < self.candidates:
            mixture = rng.dirichlet(np.full(len(words), 0.5))
            clauses = []
            for fact in rng.permutation(FACTS)[: rng.integers(1, 5)]:
                clause = f"the {topic} {fact}" if not clauses else f"it {fact}"
                if rng.random() < 0.75:
                    clause = f"{rng.choice(words[rng.choice(len(words), p=mixture)])} , {clause}"
                clauses.append(clause)
            found[" . ".join(clauses) + " ."] = None
        return list(found)

    def _counts(self, texts: list[str]) -> Float[np.ndarray, "item style"]:
        style = {word: k for k, words in enumerate(self.styles.values()) for word in words}
        counts = np.zeros((len(texts), len(self.styles)))
        for i, text in enumerate(texts):
            for word in WORD.findall(text.lower()):
                if word in style:
                    counts[i, style[word]] += 1
        return counts

    def _spread_out(
        self, share: float, group: Int[np.ndarray, " annotator"], rng: np.random.Generator
    ) -> Bool[np.ndarray, " annotator"]:
        """Draw systematically along groups in random order within: every group gets its share, up to one."""
        n = len(group)
        k = round(share * n)
        line = np.lexsort((rng.random(n), group))
        drawn = np.zeros(n, bool)
        drawn[line[((np.arange(k) + rng.random()) * n / max(k, 1)).astype(int)]] = True
        return drawn

    def _judge(
        self,
        utility: Float[np.ndarray, "objective annotator item"],
        careless: Bool[np.ndarray, " annotator"],
        bent: list[Bool[np.ndarray, " annotator"]],
        texts: list[str],
        counts: Float[np.ndarray, "item style"],
        rng: np.random.Generator,
    ) -> Choices | Grades:
        people, size = np.arange(len(careless)), (self.prompts, self.candidates, self.form.slots)
        slate = np.zeros((len(people), self.judgements, self.form.slots), int)
        answer = np.zeros((len(people), self.judgements), int)
        asked = self._child(OBJECTIVE, 0).integers(len(utility), size=answer.shape)
        shown, won = np.zeros((0, self.form.slots), int), np.zeros(0, int)
        for places in np.array_split(np.arange(self.judgements), self.assignment.stages):
            annotator, place = np.repeat(people, len(places)), np.tile(places, len(people))
            slates = self.assignment.slates(Plan(len(people), len(places), *size, counts, shown, won), rng)
            acts = Acts(
                slate=slates,
                annotator=annotator,
                progress=place / max(self.judgements - 1, 1),
                utility=utility[asked[annotator, place][:, None], annotator[:, None], slates],
                lapse=np.where(careless, LAPSE, self.slip)[annotator],
                texts=texts,
                styles=self.styles,
            )
            answers = self._answer(acts, bent, rng)
            slate[annotator, place], answer[annotator, place] = slates, answers
            if self.assignment.stages > 1:  # of comparisons
                rank = self._record(slates, answers, annotator, place, asked).rank
                shown, won = np.concatenate([shown, slates]), np.concatenate([won, rank[:, 1] - rank[:, 0]])
        annotator, place = np.repeat(people, self.judgements), np.tile(np.arange(self.judgements), len(people))
        return self._record(slate.reshape(-1, self.form.slots), answer.ravel(), annotator, place, asked)

    def _answer(
        self, acts: Acts, bent: list[Bool[np.ndarray, " annotator"]], rng: np.random.Generator
    ) -> Int[np.ndarray, " act"]:
        """Draw an answer to each act, behaviours included."""
        for k, (behaviour, who) in enumerate(zip(self.behaviours, bent, strict=True)):
            new, here = behaviour.bend(acts, self._child(BEHAVIOUR, k, 0)), who[acts.annotator]
            acts = replace(
                acts,
                utility=np.where(here[:, None], new.utility, acts.utility),
                lapse=np.where(here, new.lapse, acts.lapse),
            )
        chances = self.form.log_chances(acts.utility, -np.inf if self.tie is None else self.tie)
        wanted = (chances + rng.gumbel(size=chances.shape)).argmax(1)  # a softmax draw
        possible = np.flatnonzero(np.isfinite(chances).any(0))
        at_random = possible[rng.integers(len(possible), size=len(wanted))]
        return np.where(rng.random(len(wanted)) < acts.lapse, at_random, wanted)

    def _record(
        self, slate: np.ndarray, answer: np.ndarray, annotator: np.ndarray, place: np.ndarray, asked: np.ndarray
    ) -> Any:
        who = {"annotator": annotator, "objective": asked[annotator, place], "context": place}
        return self.form.record(slate, answer, who)


def _no_choices() -> Choices:
    pairs, columns = np.zeros((2, 0, 2), int), np.zeros((3, 0), int)
    return Choices(*pairs, *columns)


def _need(ok: bool, name: str, value: Any, allowed: str) -> None:
    if not ok:
        raise InputError(f"{name} is {value!r}; allowed: {allowed}.")
