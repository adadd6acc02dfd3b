import re
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
from jaxtyping import Bool, Float, Int

from pluralign.artifacts import digest
from pluralign.errors import InputError
from pluralign.feedback.source import AbstractSource
from pluralign.types import Choices, Feedback, Grades, Truth

LAPSE = 0.8
"""How often a careless annotator answers at random."""
WORD = re.compile(r"[a-z']+")

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
    """

    name: str
    size: int
    tastes: dict[str, float]

    def __post_init__(self):
        _need(self.size >= 1, "size", self.size, f"at least 1 in group {self.name!r}")
        for style, value in self.tastes.items():
            _need(bool(np.isfinite(value)), f"tastes[{style!r}]", value, f"finite in group {self.name!r}")


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
            for style in group.tastes:
                _need(style in self.styles, f"tastes of {group.name!r}", style, f"styles: {', '.join(self.styles)}")
        _need(1 <= self.prompts <= len(ASKS) * len(TOPICS), "prompts", self.prompts, "1 to 640")
        _need(2 <= self.candidates <= 1000, "candidates", self.candidates, "2 to 1000")
        _need(self.judgements >= 1, "judgements", self.judgements, "at least 1")
        _need(0 <= self.spread < np.inf, "spread", self.spread, "at least 0 and finite")
        _need(0 <= self.careless <= 1, "careless", self.careless, "0 to 1")
        _need(0 <= self.slip <= 1, "slip", self.slip, "0 to 1")
        _need(self.tie is None or bool(np.isfinite(self.tie)), "tie", self.tie, "finite, or none for no ties")

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
        tastes = np.array([[g.tastes.get(style, 0.0) for style in self.styles] for g in self.groups])
        weights = tastes[group] + self.spread * rng.normal(size=(len(group), len(self.styles)))
        careless = self._careless(group, rng)
        choices = self._judge(weights @ counts.T, careless, rng)

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
                }
            ),
            objectives=("overall",),
            choices=choices,
            grades=Grades.none(),
            provenance={"kind": self.kind, "simulated": True, "fields": asdict(self), "set_aside": {}},
            truth=Truth(weights=weights, features=tuple(self.styles), careless=careless),
        )

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

    def _careless(
        self, group: Int[np.ndarray, " annotator"], rng: np.random.Generator
    ) -> Bool[np.ndarray, " annotator"]:
        """Draw systematically along groups in random order within: every group gets its share, up to one."""
        n = len(group)
        k = round(self.careless * n)
        line = np.lexsort((rng.random(n), group))
        careless = np.zeros(n, bool)
        careless[line[((np.arange(k) + rng.random()) * n / max(k, 1)).astype(int)]] = True
        return careless

    def _judge(
        self,
        utility: Float[np.ndarray, "annotator item"],
        careless: Bool[np.ndarray, " annotator"],
        rng: np.random.Generator,
    ) -> Choices:
        n = len(careless) * self.judgements
        annotator = np.repeat(np.arange(len(careless)), self.judgements)
        first = rng.integers(self.candidates, size=n)
        second = (first + rng.integers(1, self.candidates, size=n)) % self.candidates
        slate = rng.integers(self.prompts, size=n)[:, None] * self.candidates + np.stack([first, second], 1)

        u = utility[annotator[:, None], slate]
        tie = -np.inf if self.tie is None else self.tie
        logits = np.column_stack([u, tie + u.mean(1)])
        wanted = (logits + rng.gumbel(size=logits.shape)).argmax(1)  # a softmax draw
        at_random = rng.integers(2 if self.tie is None else 3, size=n)
        lapse = rng.random(n) < np.where(careless, LAPSE, self.slip)[annotator]
        outcome = np.where(lapse, at_random, wanted)  # 0 first, 1 second, 2 tie
        return Choices(
            slate=slate,
            rank=np.stack([outcome == 1, outcome == 0], 1),
            annotator=annotator,
            objective=np.zeros(n, int),
            context=np.tile(np.arange(self.judgements), len(careless)),
        )


def _need(ok: bool, name: str, value: Any, allowed: str) -> None:
    if not ok:
        raise InputError(f"{name} is {value!r}; allowed: {allowed}.")
