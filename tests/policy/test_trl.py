"""What TRL's own trainers do with our rewards and data."""

import collections

import numpy as np
import pytest
from datasets import Dataset
from peft import LoraConfig
from transformers import AutoModelForCausalLM, AutoTokenizer

from pluralign import choice, features
from pluralign.errors import InputError
from pluralign.policy import trl as ours
from pluralign.policy.rewards import Rewards, Term
from pluralign.types import Choices, Feedback, Grades, Linear, Utilities
from tests.policy.conftest import make_choice, make_feedback


def words(prompts, responses):
    return [float(len(r.split())) for r in responses]


def letters(prompts, responses):
    return [float(sum(c in "aeiou" for c in r)) for r in responses]


SCORERS = features.Scorers({"words": words, "letters": letters})


@pytest.fixture(scope="module")
def chosen(votes):
    """A choice of two voters who want the opposite of each other, in words and in vowels."""
    phi = SCORERS.encode(votes)
    count = len(votes.items) // 3
    weights = np.array([[[1.0, 0.5], [-0.5, 1.0]]])
    table = Linear(phi.phi.reshape(3, count, 2), weights, np.zeros((1, 2)))
    utilities = Utilities(table, [0.6, 0.4], np.full((3, count), 1 / count), groups=("many", "few"))
    return choice.Utilitarian().choose(utilities, beta=0.5), phi


def test_texts_and_messages_are_worth_the_same(votes, chosen):
    rule, phi = chosen
    function = ours.reward_function(rule, votes, phi, SCORERS)
    assert function.__name__ == "utilitarian"
    prompts, texts = ["tell me about the cat", "what"], ["it sleeps", "oh no no"]
    expected = Rewards.of(rule, votes, phi, SCORERS)(prompts, texts)
    told = collections.defaultdict(list)
    plain = function(
        prompts, [f" {t}\n" for t in texts], [[1], [2]], log_metric=lambda n, v: told[n].append(v), x=[1, 2]
    )
    np.testing.assert_allclose(plain, expected.total)
    assert told == {name: [value] for name, value in expected.means().items()}
    assert set(told) == {"rule", "group/many", "group/few"}
    system = [{"role": "system", "content": "be brief"}]
    chats = [[*system, {"role": "user", "content": p}] for p in prompts]
    answers = [[{"role": "assistant", "content": t}] for t in texts]
    assert function(prompts=chats, completions=answers) == plain
    with pytest.raises(InputError, match="one user turn"):
        function([[*chats[0], *answers[0], *chats[1]]], [answers[0]])


@pytest.fixture(scope="module")
def library():
    return pytest.importorskip("trl")


quietly = pytest.mark.filterwarnings("ignore")  # what TRL warns of is not ours to mend
COMMON = {
    "max_steps": 2, "logging_steps": 1, "report_to": "none", "use_cpu": True, "bf16": False, "save_strategy": "no",
    "per_device_train_batch_size": 8, "disable_tqdm": True, "learning_rate": 1e-3, "activation_checkpointing": False,
}  # fmt: skip


def parts(tiny):
    model, tokenizer = AutoModelForCausalLM.from_pretrained(tiny.path), AutoTokenizer.from_pretrained(tiny.path)
    return {"model": model, "processing_class": tokenizer, "peft_config": LoraConfig(r=4, target_modules=["q_proj"])}


class Watched:
    """Keeps what a trainer asked a reward, and what it was told."""

    def __init__(self, function):
        self.function, self.calls, self.__name__ = function, [], function.__name__

    def __call__(self, prompts, completions, **columns):
        self.calls.append((prompts, completions, self.function(prompts, completions, **columns)))
        return self.calls[-1][-1]


@quietly
@pytest.mark.parametrize("kind", ["GRPO", "RLOO"])
def test_its_online_trainers_log_our_reward(kind, library, tiny, votes, chosen, tmp_path):
    rule, phi = chosen
    term = Term("words", words, at_least=3.0, rate=0.5)
    reward = ours.reward_function(rule, votes, phi, SCORERS, (term,))
    watched = Watched(reward)
    config = getattr(library, f"{kind}Config")(
        str(tmp_path), num_generations=4, max_completion_length=6, beta=rule.beta, seed=1, **COMMON
    )
    trainer = getattr(library, f"{kind}Trainer")(
        reward_funcs=watched, args=config, train_dataset=ours.prompts(votes), callbacks=[ours.Multipliers(reward)],
        **parts(tiny),
    )  # fmt: skip
    trainer.train()
    logs = [log for log in trainer.state.log_history if "rewards/utilitarian/mean" in log]
    assert len(logs) == len(watched.calls) == 2
    price = 0.0
    for log, (prompts, completions, told) in zip(logs, watched.calls, strict=True):
        texts = [text.strip() for text in completions]
        assert set(prompts) <= set(votes.items["prompt"])
        fresh = Rewards.of(rule, votes, phi, SCORERS)(prompts, texts)  # without the term
        length = np.array(words(prompts, texts))
        np.testing.assert_allclose(told, fresh.total + price * length, atol=1e-6)
        assert log["rewards/utilitarian/mean"] == pytest.approx(np.mean(told), abs=1e-5)
        assert log["group/few"] == pytest.approx(fresh.means()["group/few"], abs=1e-5)
        assert log["multiplier/words at least"] == pytest.approx(price)
        price = max(0.0, price + 0.5 * (3.0 - length.mean()))
    assert reward.rewards.multipliers == {"words at least": pytest.approx(price)}


def judged() -> Feedback:
    """Two annotators; a comparison each way, one tie, one best of three, one on another objective."""
    base = make_feedback(["ask"], [["yes", "no", "maybe"]])
    people = Dataset.from_dict({"id": ["ada", "bob"], "weight": [1.0, 1.0]})
    slate = [[0, 1, -1], [1, 2, -1], [-1, 2, 0], [0, 1, 2], [2, 1, -1], [0, 2, -1]]
    rank = [[0, 1, -1], [0, 0, -1], [-1, -1, 0], [0, -1, -1], [0, 1, -1], [1, 0, -1]]
    choices = Choices(slate, rank, [0, 0, 1, 0, 0, 1], [0, 0, 0, 0, 1, 0], [-1] * 6)
    return Feedback(base.items, people, ("good", "kind"), choices, Grades.none())


def test_comparisons_become_preferences():
    data = ours.preferences(judged(), "good")
    assert data.column_names == ["prompt", "chosen", "rejected", "annotator"]
    rows = [tuple(row.values()) for row in data]
    assert rows == [("ask", " yes", " no", "ada"), ("ask", " yes", " maybe", "bob"), ("ask", " maybe", " yes", "bob")]
    assert data.info.description == "3 comparisons; left out: 1 ties, 1 that do not compare two."
    (row,) = ours.preferences(judged(), "kind", conversational=True)
    assert row["prompt"] == [{"role": "user", "content": "ask"}]
    assert [row[k] for k in ("chosen", "rejected")] == [[{"role": "assistant", "content": t}] for t in ("maybe", "no")]
    assert ours.prompts(judged())[:] == {"prompt": ["ask"]}
    assert ours.prompts(judged(), conversational=True)[0]["prompt"] == row["prompt"]


def test_annotators_who_count_more_stand_there_more_often():
    names = collections.Counter(ours.preferences(judged(), "good", np.array([4.0, 1.0]))["annotator"])
    assert names == {"ada": 2, "bob": 1}  # of three by shares of 4, 1 and 1 in 6
    assert set(ours.preferences(judged(), "good", np.array([0.0, 3.0]))["annotator"]) == {"bob"}
    same = ours.preferences(judged(), "good", np.array([2.0, 2.0]))
    assert same[:] == ours.preferences(judged(), "good")[:]
    for weigh in ([1.0], [np.nan, 1.0], [-1.0, 1.0], [0.0, 0.0]):
        with pytest.raises(InputError, match="weigh"):
            ours.preferences(judged(), "good", np.array(weigh))


def test_what_cannot_be_exported():
    with pytest.raises(InputError, match="say which"):
        ours.preferences(judged())
    with pytest.raises(InputError, match="no objective 'god'"):
        ours.preferences(judged(), "god")
    tied = judged()
    with pytest.raises(InputError, match="nothing to export"):
        ours.preferences(tied.where((tied.choices.rank[:, :2] == 0).all(1)), "good")


def test_pairs_of_a_choice_are_ordered_by_the_rule():
    votes = make_feedback(["one", "two"], [["a", "b", "c"], ["d", "e", "f"]])
    tilt = np.array([[0.3, -1.0, 0.3], [2.0, 0.5, 0.0]])
    rule = make_choice(tilt, reference=[[0.2, 0.3, 0.5], [0.5, 0.5, 0.0]])
    data = ours.pairs(rule, votes)
    found = {(row["prompt"], row["chosen"], row["rejected"]): row["margin"] for row in data}
    expected = {("one", " a", " b"): 1.3, ("one", " c", " b"): 1.3, ("two", " d", " e"): 1.5}
    assert found == {key: pytest.approx(value) for key, value in expected.items()}
    assert data.info.description.startswith("3 pairs by nash; left out: 1 ")
    with pytest.raises(InputError, match="moves no candidate"):
        ours.pairs(make_choice(np.zeros((2, 3))), votes)
    with pytest.raises(InputError, match="pass the votes"):
        ours.pairs(make_choice(np.eye(3)), votes)


@quietly
@pytest.mark.parametrize("source", ["votes", "choice"])
def test_its_preference_trainer_takes_the_data(source, library, tiny, votes, tmp_path):
    if source == "votes":
        data = ours.preferences(votes)
    else:
        data = ours.pairs(make_choice(np.random.default_rng(0).normal(size=(3, 5))), votes)
    config = library.DPOConfig(str(tmp_path), max_length=64, **COMMON)
    trainer = library.DPOTrainer(args=config, train_dataset=data, **parts(tiny))
    trainer.train()
    losses = [log["loss"] for log in trainer.state.log_history if "loss" in log]
    assert losses[0] == pytest.approx(np.log(2), abs=1e-3)  # before the first step policy and reference are the same
    assert len(losses) == 2
