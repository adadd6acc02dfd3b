"""A reward steers what is written, nothing is trained, and a guard sees when the reward leaves what is known.

The writer is a table of four answers here; any `functools.partial(policy.sample, model)` stands in its place.

python examples/steering.py
"""

import numpy as np

from pluralign import choice
from pluralign.policy.rewards import Guard, Monitor
from pluralign.policy.steering import best_of, best_of_kl, rejection
from pluralign.types import Linear, Utilities

rng = np.random.default_rng(0)
answers = ("short", "plain", "kind", "thorough")
probability = np.array([0.5, 0.3, 0.15, 0.05])
phi = np.array([[0.0, 0.0], [0.5, 0.2], [1.0, 1.0], [2.5, -0.5]])  # length and warmth
draws = np.array([0.4, 1.0]) + rng.normal(size=(200, 1, 2)) * np.array([0.5, 0.1])  # what length is worth is unsure

utilities = Utilities(Linear(phi[None], draws, np.zeros((200, 1))), np.ones(1), probability[None])
chosen = choice.Utilitarian().choose(utilities, beta=0.5)


def write(prompts, n):
    return [[answers[i] for i in rng.choice(4, n, p=probability)] for _ in prompts]


def score(prompts, responses):
    return chosen.reward.score(phi[[answers.index(y) for y in responses]])


reward = score([], answers)
best = best_of(["a question"] * 500, 8, write, score)
print("best of 8 keeps", {y: best.responses.count(y) for y in answers}, "of 500")
print(f"which is {best_of_kl(8, reward, probability):.3f} nats from the reference, and not {best.kl_bound:.3f}")

kept = rejection(["a question"], 20_000, write, score, chosen.beta, bound=float(reward.max()))
found = np.array([kept.responses[0].count(y) for y in answers]) / len(kept.responses[0])
print("rejection keeps", found.round(3), "the rule's lottery is", chosen.lottery[0].round(3))

monitor, record = Monitor.of(Guard(drop=0.5, patience=2), chosen), {}
for step in range(10):
    written = probability @ phi + step * np.array([[1.0, 0.0]])  # ever longer answers
    verdict = monitor(written, [0], last=record)
    record = verdict.metrics
    print(f"step {step}: reward {record['guard/proxy']:.2f}, lower bound {record['guard/lower']:.2f}")
    if verdict.stop:
        print("stopped:", verdict.stop)
        break

assert best_of_kl(8, reward, probability) < best.kl_bound, "answers repeat, so the bound is not reached"
assert 0.5 * np.abs(found - chosen.lottery[0]).sum() < 0.02, "rejection draws from the lottery that the rule chose"
assert verdict.stop and record["guard/proxy"] > 0 > record["guard/lower"], "the proxy still rose when it was stopped"
