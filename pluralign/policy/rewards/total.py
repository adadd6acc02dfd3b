"""What an online loop asks of responses: the chosen reward, and everything that stands beside it.

    total = rule + sum_term (weight + multiplier_at_least - multiplier_at_most) score_term

in units of the choice's welfare, so that the optimum is `pi_ref exp(total / beta)` with the choice's beta. All of it
depends on the texts alone, but for self-play, where opponents are the other responses to the same prompt, and for a
missing score, which counts as the mean of what is there.

Parts that are told beside the total, each by itself (see `docs/rewards-online.md`): `rule`; `win_rate` where the reward
is one; `group/NAME`, what each group of voters gains; `term/NAME`, the score of each term.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float

from pluralign.artifacts import digest
from pluralign.errors import InputError
from pluralign.policy.rewards.duels import AbstractOpponents, AgainstReference, Ballots, Field, SelfPlay
from pluralign.policy.rewards.terms import Column, Groups, Term, broken, filled
from pluralign.types import CautiousReward, Choice, Features, Feedback, Linear, LinearReward, Utilities

VOTERS = 12  # without declared groups, voters are told one by one if they are no more than this
OPPONENTS: dict[str, AbstractOpponents] = {  # of rules whose reward is a win rate, by the name of the choice
    "borda": AgainstReference(),
    "maximal-lottery": SelfPlay(),
    "maximal-lottery-entropy": SelfPlay(),
}


@runtime_checkable
class Encodes(Protocol):
    """Whatever makes features of texts, such as any map of `pluralign.features`."""

    def encode_texts(self, prompts: Sequence[str], responses: Sequence[str], like: Features) -> Any:
        """Return features of responses to prompts, [response feature], in the basis of `like`."""
        ...


@dataclass(frozen=True, eq=False)
class Scored:
    """What responses are worth.

    Attributes:
        total: the reward, in units of the choice's welfare.
        parts: by name, each in its own unit; NaN = missing.
        phi: features of the responses.
    """

    total: Column
    parts: dict[str, Column]
    phi: Float[np.ndarray, "response feature"]

    def means(self) -> dict[str, float]:
        """Return the mean of each part over responses that have it; a part that none has is left out."""
        there = {name: column[~np.isnan(column)] for name, column in self.parts.items()}
        return {name: float(column.mean()) for name, column in there.items() if len(column)}


class Rewards:
    """The reward of a choice for any response, with terms beside it; made by `of`.

    Attributes:
        multipliers: of the terms' limits, by name; never negative.
        caveats: what users must know before they trust numbers made from it.
    """

    multipliers: dict[str, float]
    caveats: tuple[str, ...]

    @classmethod
    def of(
        cls,
        chosen: Choice,
        votes: Feedback,
        phi: Features,
        features: Encodes,
        terms: Sequence[Term] = (),
        opponents: AbstractOpponents | None = None,
    ) -> "Rewards":
        """Return the reward that trains a policy towards a choice.

        A linear or cautious reward is taken as the choice has it. Caution is measured from what the reference writes on
        the same prompt: from the choice's candidates, or from what `learn` was told; on other prompts from the
        reference's mean over all prompts, which also counts how unsure that prompt is as a whole (a caveat says so). A
        rule without multipliers has a win rate: Borda's against the reference, a maximal lottery's against the policy.

        Args:
            chosen: by a rule, on utilities that are linear in features.
            votes: that it was made from.
            phi: features of the items of `votes`.
            features: the map that made them.
            terms: what else counts, is limited, or is told.
            opponents: in a win rate, whom responses have to beat. A rule that is neither Borda nor a maximal lottery
                has no win rate of its own; to give opponents here is then a decision of yours, and not the rule's.

        Raises:
            InputError: utilities are dense; the rule has no reward for new responses; phi or votes do not belong to
                the choice; two terms have one name.
        """
        return cls(chosen, votes, phi, features, terms, opponents)

    def __init__(
        self,
        chosen: Choice,
        votes: Feedback,
        phi: Features,
        features: Encodes,
        terms: Sequence[Term],
        opponents: AbstractOpponents | None,
    ):
        names = [term.name for term in terms]
        if len(set(names)) < len(names):
            raise InputError(f"terms are called {names}; give each a name of its own.")
        if len(phi.phi) != len(votes.items):
            raise InputError(f"phi has {len(phi.phi)} rows, votes has {len(votes.items)} items; encode these votes.")
        if not isinstance(chosen.utilities.value, Linear) or (chosen.weights is not None and chosen.reward is None):
            raise InputError(
                f"{chosen.name} was chosen on utilities (or constraints) without features, so it says nothing of new "
                "responses; train it by DPO, which needs the candidates only."
            )
        if chosen.reward is None and opponents is None and chosen.name not in OPPONENTS:
            raise InputError(
                f"{chosen.name} only has a lottery over candidates, and no reward for new responses; train it by DPO "
                "with the loss Distil, or say with `opponents` which win rate is to stand for it."
            )
        if chosen.reward is not None and opponents is not None:
            raise InputError(f"{chosen.name} has a reward of its own, so nobody has to be beaten; leave out opponents.")
        prompts, responses = list(votes.items["prompt"]), list(votes.items["response"])
        self.multipliers = {name: 0.0 for term in terms for name in term.limits}
        self.caveats = ()
        self._terms, self._texts, self._phi = tuple(terms), features, phi
        self._row = {key: i for i, key in enumerate(zip(prompts, responses, strict=True))}
        self._fields, self._learnt = _fields(chosen, prompts), dict[str, Field]()
        self._ballots = Ballots.of(chosen.utilities) if chosen.reward is None else None
        self._opponents = opponents or OPPONENTS.get(chosen.name)
        self._columns = {f"group/{name}": worth for name, worth in _groups(chosen.utilities)}
        self._columns |= {
            f"term/{t.name}": _mean(t.source, t.source.mass) for t in self._terms if isinstance(t.source, Utilities)
        }
        for name, (weights, _) in self._columns.items():
            self._fits(name, weights)
        self._reward: LinearReward | CautiousReward | None = None
        if chosen.reward is not None:
            self.follow(chosen)

    def follow(self, chosen: Choice) -> None:
        """Take the reward of another choice on the same features, whose weights of voters follow a policy that moves.

        Nothing else changes: neither the candidates that stand for the reference, nor groups, nor terms.

        Raises:
            InputError: it has no reward, or one of other features.
        """
        if chosen.reward is None:
            raise InputError(f"{chosen.name} has no reward to follow; a win rate needs no new one.")
        self._fits("the reward", chosen.reward.weights)
        self._reward = chosen.reward

    def __call__(self, prompts: Sequence[str], responses: Sequence[str]) -> Scored:
        """Return what responses are worth; those to the same prompt are a group.

        Raises:
            InputError: prompts and responses differ in number; a win rate has no opponents.
            TrainError: a score or a feature is not finite, or a term does not give one score for each response.
        """
        if len(prompts) != len(responses):
            raise InputError(f"{len(prompts)} prompts for {len(responses)} responses; pass one prompt per response.")
        if not len(responses):
            return Scored(np.zeros(0), {}, np.zeros((0, len(self._phi.names))))
        phi = self._encode(prompts, responses)
        groups = _grouped(prompts)
        parts = self._rule(phi, groups)
        parts |= {name: phi @ weights + offset for name, (weights, offset) in self._columns.items()}
        for term in self._terms:
            if not isinstance(term.source, Utilities):
                parts[f"term/{term.name}"] = term.ask(prompts, responses)
        total = parts["rule"].copy()
        for term in self._terms:
            column = parts[f"term/{term.name}"]
            if np.isnan(column).all():
                self._warn(f"the term {term.name!r} had no score for any response of a batch; it was left out there.")
            price = term.weight + sum(sign * self.multipliers[name] for name, (sign, _) in term.limits.items())
            if price:
                total += price * filled(column, groups)
        return Scored(total, parts, phi)

    def learn(self, prompts: Sequence[str], responses: Sequence[str]) -> None:
        """Say what the reference writes on prompts that are not the choice's, each response as likely as the others.

        Caution and win rates against the reference need it there. A prompt of the choice keeps its candidates.
        """
        phi = self._encode(prompts, responses)
        for prompt, members in _grouped(prompts):
            self._learnt[prompt] = Field(phi[members], np.full(len(members), 1 / len(members)))

    def update(self, means: Mapping[str, float]) -> None:
        """Move the multipliers of limits by one step of dual ascent.

        Args:
            means: of parts under the policy, as `Scored.means` returns them; over all processes, if there are several.
                A term that is not among them, because nothing was scored, keeps its multipliers.
        """
        for term in self._terms:
            mean = means.get(f"term/{term.name}")
            if mean is None:
                continue
            for name, (sign, limit) in term.limits.items():
                self.multipliers[name] = max(0.0, self.multipliers[name] + term.rate * sign * (limit - mean))

    def metrics(self) -> dict[str, float]:
        """Return `multiplier/NAME` of every limit."""
        return {f"multiplier/{name}": value for name, value in self.multipliers.items()}

    def fingerprint(self) -> str:
        """Return a hash of what decides rewards, apart from multipliers and what was learnt."""
        arrays = [] if self._ballots is None else [self._ballots.weights, self._ballots.mass]
        if self._reward is not None:
            arrays = [np.asarray(value) for value in vars(self._reward).values()]
        terms = [term.fingerprint() for term in self._terms]
        return digest(repr(self._opponents), self._phi.names, self._phi.phi, terms, *arrays)

    def state(self) -> dict[str, Any]:
        """Return what a checkpoint must keep, as plain values; what `learn` was told is told again."""
        return {"multipliers": dict(self.multipliers), "caveats": list(self.caveats)}

    def load(self, state: Mapping[str, Any]) -> None:
        """Go on from what `state` returned.

        Raises:
            InputError: it is of other terms.
        """
        if set(state["multipliers"]) != set(self.multipliers):
            raise InputError(
                f"the checkpoint has the limits {sorted(state['multipliers'])}, these terms have "
                f"{sorted(self.multipliers)}; go on with the terms that it was started with."
            )
        self.multipliers = {name: float(state["multipliers"][name]) for name in self.multipliers}
        self.caveats = tuple(state["caveats"])

    def _rule(self, phi: Float[np.ndarray, "response feature"], groups: Groups) -> dict[str, Column]:
        """Return the rule's own reward."""
        if isinstance(self._reward, CautiousReward):
            known = [self._field(prompt) for prompt, _ in groups]
            if None in known:
                self._warn(
                    "caution was measured from the reference's mean over all prompts where a prompt is not the "
                    "choice's; call `Rewards.learn` with what the reference writes there."
                )
            against = np.tile(self._reward.origin, (len(phi), 1))
            for field, (_, members) in zip(known, groups, strict=True):
                if field is not None:
                    against[members] = field.share @ field.phi
            return {"rule": self._reward.score(phi, against)}
        if self._reward is not None:
            return {"rule": self._reward.score(phi)}
        assert self._ballots is not None and self._opponents is not None
        rule, rate = np.zeros(len(phi)), np.full(len(phi), np.nan)
        for prompt, members in groups:
            field = self._field(prompt)
            rule[members] = self._opponents.score(self._ballots, phi[members], field)
            if field is not None:
                rate[members] = 0.5 + AgainstReference().score(self._ballots, phi[members], field)
        return {"rule": rule, "win_rate": rate}

    def _field(self, prompt: str) -> Field | None:
        return self._fields.get(prompt) or self._learnt.get(prompt)

    def _encode(self, prompts: Sequence[str], responses: Sequence[str]) -> Float[np.ndarray, "response feature"]:
        """Return features; each text is read once, and items of the feedback have those that they have there."""
        keys = list(zip(prompts, responses, strict=True))
        new = [key for key in dict.fromkeys(keys) if key not in self._row]
        read = {}
        if new:
            found = self._texts.encode_texts([p for p, _ in new], [r for _, r in new], self._phi)
            read = dict(zip(new, np.asarray(found, np.float64), strict=True))
            bad = ~np.isfinite(list(read.values())).all(1)
            if bad.any():
                raise broken("a feature", np.nan, *new[int(bad.argmax())])
        known = self._phi.phi
        return np.stack([read[key] if key in read else known[self._row[key]].astype(np.float64) for key in keys])

    def _fits(self, name: str, weights: Float[np.ndarray, "... feature"]) -> None:
        have, need = weights.shape[-1], self._phi.phi.shape[1]
        if have != need:
            raise InputError(f"{name} weighs {have} features, phi has {need}; pass the phi that it was made from.")

    def _warn(self, caveat: str) -> None:
        if caveat not in self.caveats:
            self.caveats += (caveat,)


def _mean(utilities: Utilities, share: Float[np.ndarray, " voter"]) -> tuple[Float[np.ndarray, " feature"], float]:
    """Return weights and offset of what these voters gain, mean over draws."""
    assert isinstance(utilities.value, Linear)
    weights, offset = utilities.value.weights.mean(0), utilities.value.offset.mean(0)
    return share @ weights, float(share @ offset)


def _groups(utilities: Utilities) -> list[tuple[str, tuple[Float[np.ndarray, " feature"], float]]]:
    """Return the mean utility of each group, voters by mass; of each voter if there are no groups and few voters."""
    counts = utilities.mass > 0
    if utilities.groups is None and counts.sum() > VOTERS:
        return [("everyone", _mean(utilities, utilities.mass))]
    label = np.array(utilities.groups or utilities.voters)
    names = dict.fromkeys(label[counts].tolist())
    share = [np.where(label == name, utilities.mass, 0) for name in names]
    return [(name, _mean(utilities, part / part.sum())) for name, part in zip(names, share, strict=True)]


def _fields(chosen: Choice, prompts: list[str]) -> dict[str, Field]:
    """Return the candidates of each prompt of a choice, by its text."""
    utilities = chosen.utilities
    assert isinstance(utilities.value, Linear) and utilities.item is not None
    fields: dict[str, Field] = {}
    for x, reference in enumerate(utilities.reference):
        on = np.flatnonzero(reference > 0)
        item = int(utilities.item[x, on[0]])
        if not 0 <= item < len(prompts):
            raise InputError(
                f"the choice names item {item}, votes has {len(prompts)}; pass the votes that it was made from."
            )
        # Prompts with the same text are one prompt to a policy; the first one's candidates stand for it.
        fields.setdefault(prompts[item], Field(utilities.value.phi[x, on], reference[on], chosen.lottery[x, on]))
    return fields


def _grouped(prompts: Sequence[str]) -> Groups:
    """Return each prompt with the places of its responses."""
    places: dict[str, list[int]] = {}
    for i, prompt in enumerate(prompts):
        places.setdefault(prompt, []).append(i)
    return [(prompt, np.array(members)) for prompt, members in places.items()]
