"""For users of TRL: the reward of a choice in its online trainers, and judgements in its preference format.

Nothing here imports trl, and nothing else in pluralign needs it (extra `trl`).
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from accelerate import PartialState
from accelerate.utils import gather_object
from datasets import Dataset, DatasetInfo
from jaxtyping import Float
from transformers import TrainerCallback

from pluralign.errors import InputError
from pluralign.policy.rewards import Encodes, Rewards, Term
from pluralign.policy.rewards.duels import AbstractOpponents
from pluralign.types import Choice, Features, Feedback

SAME = 1e-9  # candidates that the rule moves by amounts nearer than this, in nats, are tied


class RewardFunction:
    """A reward in the form that TRL's GRPOTrainer and RLOOTrainer call; made by `reward_function`.

    Attributes:
        rewards: what scores the texts.
        means: of the parts of the reward in the latest call.
    """

    rewards: Rewards
    means: dict[str, float]

    def __init__(self, rewards: Rewards, name: str):
        self.rewards, self.means, self.__name__ = rewards, {}, name

    def __call__(
        self, prompts: Sequence[Any], completions: Sequence[Any], completion_ids: Any = None, **columns: Any
    ) -> list[float]:
        """Return the reward of each completion; parts of it go to the trainer's log, if it has one.

        Args:
            prompts: as texts or as messages, one per completion.
            completions: as texts or as messages.
            completion_ids: not read.
            columns: what else the trainer tells; `log_metric` is used.

        Raises:
            InputError: a prompt has turns besides one of the user (and one of the system).
            TrainError: a score is not finite.
        """
        scored = self.rewards([asked(p) for p in prompts], [said(c) for c in completions])
        self.means = scored.means()
        if log := columns.get("log_metric"):
            for name, mean in (self.means | self.rewards.metrics()).items():
                log(name, mean)
        return scored.total.tolist()


class Multipliers(TrainerCallback):
    """Moves the multipliers of limits after each step of a TRL trainer: `callbacks=[Multipliers(reward)]`.

    Args:
        function: the reward function of the trainer.
    """

    def __init__(self, function: RewardFunction):
        self.function = function

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Update from the means of all processes, once for each batch of completions."""
        told = gather_object([self.function.means]) if PartialState().num_processes > 1 else [self.function.means]
        names = dict.fromkeys(name for means in told for name in means)
        self.function.rewards.update({n: float(np.mean([m[n] for m in told if n in m])) for n in names})
        self.function.means = {}


def reward_function(
    chosen: Choice,
    votes: Feedback,
    phi: Features,
    features: Encodes,
    terms: Sequence[Term] = (),
    opponents: AbstractOpponents | None = None,
) -> RewardFunction:
    """Return the reward of a choice as an entry of `reward_funcs`; its name in logs is the rule's.

    TRL reaches the choice's optimum, `pi_ref exp(total / beta)`, where it maximises the mean reward less
    `beta KL(pi || pi_ref)` per response, with the choice's beta: `RLOOConfig(beta=chosen.beta)` does, while GRPO pays
    for KL by the token and by default divides rewards by their spread. See `docs/trl.md`. The arguments are those of
    `Rewards.of`. Multipliers of limits stay where they are unless `Multipliers` is among the callbacks.

    Raises:
        InputError: as `Rewards.of`.
    """
    return RewardFunction(Rewards.of(chosen, votes, phi, features, terms, opponents), chosen.name)


def preferences(
    votes: Feedback,
    objective: str | None = None,
    weigh: Float[np.ndarray, " annotator"] | None = None,
    conversational: bool = False,
) -> Dataset:
    """Return comparisons of two responses as `prompt`, `chosen`, `rejected`, with `annotator`, who chose.

    Ties say nothing in this format and are left out, as is everything that is no comparison of two; how many stands in
    `.info.description`. Plain texts begin a response with a space, as pluralign does itself.

    Args:
        votes: with comparisons.
        objective: which was asked; needed if there are several.
        weigh: how much each annotator counts, in any unit. TRL's losses have no weights, so comparisons are then
            repeated or left out: of as many in all, each stands in the data as often as its share, rounded up or down.
        conversational: write messages in place of texts, for models with a chat template.

    Raises:
        InputError: there is no such objective, or no comparison that is not a tie; a weight is negative or not finite.
    """
    choices, names = votes.choices, votes.objectives
    if objective is None and len(names) > 1:
        raise InputError(f"the feedback has the objectives {names}; say which.")
    if objective is not None and objective not in names:
        raise InputError(f"there is no objective {objective!r}; the feedback has {names}.")
    about = choices.where(choices.objective == (0 if objective is None else names.index(objective)))
    two = (about.slate >= 0).sum(1) == 2
    pairs = about.where(two)
    row = np.arange(len(pairs))[:, None]
    slots = np.argsort(pairs.slate < 0, axis=1, kind="stable")[:, :2]  # where the two stand
    items, ranks = pairs.slate[row, slots], pairs.rank[row, slots]
    ties = (ranks == 0).all(1)
    kept = ~ties
    better = np.where(ranks[kept, 0] == 0, 0, 1)
    first, second = (items[kept][np.arange(kept.sum()), k] for k in (better, 1 - better))
    annotator = pairs.annotator[kept]
    if not len(annotator):
        raise InputError("there is no comparison of two responses that is not a tie, so there is nothing to export.")
    if weigh is not None:
        order = _repeated(np.asarray(weigh, np.float64), annotator, len(votes.annotators))
        first, second, annotator = first[order], second[order], annotator[order]
    told = f"{len(annotator)} comparisons; left out: {ties.sum()} ties, {(~two).sum()} that do not compare two."
    ids = [str(name) for name in votes.annotators["id"]]
    return _dataset(votes, first, second, told, conversational, annotator=[ids[a] for a in annotator])


def pairs(chosen: Choice, votes: Feedback, conversational: bool = False) -> Dataset:
    """Return all pairs of a prompt's candidates as a rule sees them: `prompt`, `chosen`, `rejected`, `margin`.

    Chosen is what the rule makes likelier than the reference does; `margin` is by how much more, the difference of
    `log(p* / pi_ref)`, in nats. TRL's DPO reads which is preferred and not the margin, so it goes beyond the rule's
    lottery, as far as its `beta` and steps let it; `policy.DPO` has labels that end there.

    Args:
        chosen: what the rule decided.
        votes: that it was made from.
        conversational: write messages in place of texts.

    Raises:
        InputError: the choice is not of these votes, or moves no candidate.
    """
    utilities, ratio = chosen.utilities, chosen.log_ratio()
    item = np.asarray(utilities.item)
    if item.max() >= len(votes.items):
        raise InputError(
            f"the choice names item {item.max()}, votes has {len(votes.items)}; pass the votes that it was made from."
        )
    a, b = np.triu_indices(item.shape[1], 1)
    there = (utilities.reference > 0) & (item >= 0)
    x, k = np.nonzero(there[:, a] & there[:, b])
    margin = ratio[x, a[k]] - ratio[x, b[k]]
    kept = np.abs(margin) > SAME
    if not kept.any():
        raise InputError(f"{chosen.name} moves no candidate away from another, so there is no pair to train on.")
    first, second = item[x, a[k]][kept], item[x, b[k]][kept]
    swap = margin[kept] < 0
    told = f"{kept.sum()} pairs by {chosen.name}; left out: {(~kept).sum()} that it moves alike."
    better, worse = np.where(swap, second, first), np.where(swap, first, second)
    return _dataset(votes, better, worse, told, conversational, margin=np.abs(margin[kept]).tolist())


def prompts(votes: Feedback, conversational: bool = False) -> Dataset:
    """Return each prompt once, as the data of an online trainer."""
    texts = list(dict.fromkeys(votes.items["prompt"]))
    return Dataset.from_dict({"prompt": [_user(text) for text in texts] if conversational else texts})


def asked(prompt: Any) -> str:
    """Return the text of a prompt, as the features of pluralign read it.

    Raises:
        InputError: it has turns besides one of the user (and one of the system).
    """
    if isinstance(prompt, str):
        return prompt
    turns = [turn for turn in prompt if turn["role"] != "system"]
    if len(turns) != 1 or turns[0]["role"] != "user":
        raise InputError(
            f"a prompt has the turns {[turn['role'] for turn in prompt]}; pluralign scores the answer to one user turn."
        )
    return turns[0]["content"]


def said(completion: Any) -> str:
    """Return the text of a completion, without space at its ends."""
    text = completion if isinstance(completion, str) else "".join(turn["content"] or "" for turn in completion)
    return text.strip()


def _user(text: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": text}]


def _dataset(
    votes: Feedback, better: np.ndarray, worse: np.ndarray, told: str, conversational: bool, **columns: list[Any]
) -> Dataset:
    prompts, responses = list(votes.items["prompt"]), list(votes.items["response"])

    def answer(text: str) -> Any:
        if conversational:
            return [{"role": "assistant", "content": text}]
        return f" {text}" if text else ""

    asked = [prompts[i] for i in better]
    rows = {
        "prompt": [_user(text) for text in asked] if conversational else asked,
        "chosen": [answer(responses[i]) for i in better],
        "rejected": [answer(responses[i]) for i in worse],
    }
    return Dataset.from_dict(rows | columns, info=DatasetInfo(description=told))


def _repeated(weigh: Float[np.ndarray, " weight"], annotator: np.ndarray, count: int) -> np.ndarray:
    """Return rows in proportion to the weight of who judged, by systematic sampling: as often as expected, rounded."""
    if weigh.shape != (count,) or not (np.isfinite(weigh).all() and (weigh >= 0).all()):
        raise InputError(f"weigh must be {count} finite numbers, one per annotator, not negative; got {weigh}.")
    upto = np.cumsum(weigh[annotator])
    if not upto[-1] > 0:
        raise InputError("weigh is 0 for everybody who compared; somebody must count.")
    places = (np.arange(len(annotator)) + 0.5) / len(annotator) * upto[-1]
    return np.searchsorted(upto, places)
