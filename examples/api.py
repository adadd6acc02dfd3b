"""The main job through the Python API, on votes that are simulated here and written to a CSV file as yours would be.

python examples/api.py
"""

import csv
import tempfile
from pathlib import Path

import numpy as np

from pluralign import choice, features, feedback, policy, report, reward

folder = Path(tempfile.mkdtemp())
styles = {"warmth": ("dear", "lovely", "glad"), "detail": ("exactly", "measured", "because")}
community = feedback.Community(
    groups=(
        feedback.Group("friends", 12, {"warmth": 1.5, "detail": -0.5}),
        feedback.Group("critics", 4, {"warmth": -0.5, "detail": 1.5}),
    ),
    styles=styles,
    prompts=20,
)
simulated = community.load()
with open(folder / "votes.csv", "w", newline="") as file:
    writer = csv.writer(file)
    writer.writerow(["prompt", "left", "right", "winner", "worker", "group"])
    group = simulated.attribute("group")
    for slate, rank, annotator in zip(
        simulated.choices.slate, simulated.choices.rank, simulated.choices.annotator, strict=True
    ):
        first, second = (simulated.items[int(i)] for i in slate)
        winner = "tie" if rank[0] == rank[1] else "left" if rank[0] == 0 else "right"
        writer.writerow(
            [first["prompt"], first["response"], second["response"], winner, f"w{annotator}", group[annotator]]
        )

votes = feedback.Table(
    folder / "votes.csv",
    prompt="prompt",
    first="left",
    second="right",
    outcome="winner",
    annotator="worker",
    attributes=("group",),
).load()
phi = features.Lexicon(styles).encode(votes)
posterior = reward.Hierarchical(group="group").fit(votes, phi, inference=reward.NUTS(), seed=0)
utilities = choice.utilities(posterior, phi, scale=choice.StdScale())
chosen = choice.Nash().choose(utilities, risk=choice.CVaR(tail=0.25), beta=0.1)
trained = policy.DPO(model=policy.Scratch(steps=150), steps=40).train(chosen, votes, phi, out=folder / "nash")
written = report.write(folder / "nash", groups="group")
print("report:", folder / "nash" / "report.html")

weights = posterior.weights.mean(0)[:, 0]  # voter, feature
friends = np.array(votes.attribute("group")) == "friends"
assert weights[friends].mean(0)[0] > weights[friends].mean(0)[1], "friends want warmth"
assert weights[~friends].mean(0)[1] > weights[~friends].mean(0)[0], "critics want detail"
assert chosen.certificate.tv_bound < 1e-3
assert (trained.adapter / "adapter_model.safetensors").exists()
