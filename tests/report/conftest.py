from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from datasets import Dataset

from pluralign import artifacts
from pluralign.types import (
    CalibrationCurve,
    Certificate,
    Choice,
    Choices,
    Decision,
    Decisions,
    Estimate,
    Evaluation,
    Features,
    Feedback,
    FitReport,
    Grades,
    LeaveOneOut,
    Linear,
    LinearReward,
    Policy,
    PredictiveCheck,
    RewardPosterior,
    Sample,
    Score,
    Truth,
    Utilities,
    Welfare,
)

CAVEATS = (
    "R-hat of `spread` is 1.34 (> 1.01): the chains disagree; run more warm-up.",
    "17 divergences after warm-up.",
)
GROUPS = ("brevity", "warmth", "facts")
NASTY = "<script>alert('x')</script>"


def softmax(x):
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def choose(name, utilities, group_weight, beta):
    """Make a lottery that maximises a fixed weighting of voters: what every rule comes down to."""
    draws, voters = utilities.shape[:2]
    weights = np.broadcast_to(utilities.mass * group_weight / (utilities.mass @ group_weight) / draws, (draws, voters))
    lottery = softmax(np.log(utilities.reference) + utilities.weighted(weights) / beta)
    value = float((weights * utilities.expected(lottery)).sum())
    return Choice(
        name=name,
        lottery=lottery,
        weights=weights,
        reward=LinearReward(np.einsum("sv,svf->f", weights, utilities.value.weights)),
        beta=beta,
        risk="mean over draws",
        certificate=Certificate(value, value + 3e-9, 3e-9, 8.7e-5, 31, 0.137),
        utilities=utilities,
    )


def decide(rng, names, draws, prompts, candidates, reasons=None):
    """Make decisions that mostly, but not always, follow the first rule's."""
    winner = rng.integers(candidates, size=(draws, prompts))
    winner[:, 0] = 0  # one prompt on which there is no doubt
    made = []
    for name in names:
        other = np.where(rng.random((draws, prompts)) < 0.1, (winner + 1) % candidates, winner)
        made.append(Decision(name, np.eye(candidates)[other], np.eye(candidates)[other[0]]))
    return Decisions(tuple(made), reasons or {})


def describe_estimate(values):
    return Estimate(float(values.mean()), *(float(q) for q in np.quantile(values, [0.05, 0.95])))


def make_feedback(rng, phi, weights, groups, careless, names, truth=True, per_annotator=30):
    prompts, candidates, _ = phi.shape
    annotators = len(weights)
    flat = phi.reshape(prompts * candidates, -1)
    who = np.repeat(np.arange(annotators), per_annotator)
    x = rng.integers(prompts, size=len(who))
    slate = np.stack([rng.permutation(candidates)[:2] for _ in who]) + (x * candidates)[:, None]
    margin = np.einsum("cf,cf->c", flat[slate[:, 0]] - flat[slate[:, 1]], weights[who])
    first = rng.random(len(who)) < 1 / (1 + np.exp(-np.where(careless[who], 0, margin)))
    rank = np.where(first[:, None], [[0, 1]], [[1, 0]])
    rank[rng.random(len(who)) < 0.08] = 0
    prompt_ids = np.repeat(np.arange(prompts), candidates)
    items = {
        "prompt_id": prompt_ids.tolist(),
        "prompt": [f"How do I repair a bicycle tyre? (question {p})" for p in prompt_ids],
        "response": [f"Answer {i}: take the wheel off, then the tyre." for i in range(len(flat))],
        "source": ["simulated"] * len(flat),
    }
    table = {
        "id": [f"ann{a:03d}" for a in range(annotators)],
        "weight": [1.0] * annotators if groups is None else [1 + a % 3 for a in range(annotators)],
    }
    if groups is not None:
        table["group"] = [GROUPS[g] for g in groups]
        table["careless"] = [str(bool(c)) for c in careless]
    zero = np.zeros(len(who), int)
    return Feedback(
        Dataset.from_dict(items),
        Dataset.from_dict(table),
        ("better",),
        Choices(slate, rank, who, zero, np.tile(np.arange(per_annotator), annotators)),
        Grades.none(),
        {"source": "simulated community", "seed": 7, "hash": "0123456789abcdef"},
        Truth(weights, names, careless) if truth else None,
    )


CHECKED = {
    "bfmi": (0.94, 1.02),
    "loo": LeaveOneOut(-842.4, 20.7, 61.3, 0.0035, 0.565, 1000, 1440),
    "checks": (
        PredictiveCheck("first shown wins", "everyone", "group", 1440, 0.531, 0.522, 0.5, 0.544, 0.4, 0.4),
        PredictiveCheck("log loss", "everyone", "group", 1440, 0.571, 0.583, 0.56, 0.606, 0.37, 0.4),
        PredictiveCheck("log loss", "group = warmth", "group", 390, 0.6, 0.58, 0.53, 0.63, 0.52, 0.6),
        PredictiveCheck("log loss", "ann017", "annotator", 30, 1.204, 0.566, 0.41, 0.722, 1e-7, 4.8e-6),
        PredictiveCheck("ties", "ann002", "annotator", 30, 0.4, 0.08, 0.0, 0.16, 0.0002, 0.0096),
    ),
    "calibration": tuple(
        CalibrationCurve(
            of, error, 0.026, p, tuple((i + 0.5) / 15 for i in range(15)),
            tuple((i + 0.5) / 15 + error * (-1) ** i for i in range(15)),
            (40, 55, 70, 80, 90, 80, 60, 50, 60, 80, 90, 80, 70, 55, 40),
        )
        for of, error, p in (("in sample", 0.017, 0.8), ("left out", 0.031, 0.2))
    ),
}  # fmt: skip


def make_posterior(rng, weights, spread, draws, names, votes, careless, caveats=(), checked=False):
    voters, weight = tuple(votes.annotators["id"]), np.array(votes.annotators["weight"])
    centre = weights + spread * rng.normal(size=weights.shape) / 2
    sample = centre + spread * rng.normal(size=(draws, *weights.shape))
    lapse = np.where(careless, 0.75, 0.06)[None] * np.exp(rng.normal(size=(draws, len(weights))) / 4)
    fit = FitReport(
        "NUTS",
        chains=2,
        draws=draws // 2,
        divergences=17 if caveats else 0,
        rhat={"mean": 1.002, "spread": 1.34 if caveats else 1.006, "deviation": 1.004},
        ess_bulk={"mean": 812.0, "spread": 401.5, "deviation": 655.0},
        ess_tail={"mean": 640.0, "spread": 388.0, "deviation": 702.0},
        seconds=41.7,
        caveats=tuple(caveats),
        notes=("Weights are in logits; the scale is pinned by a unit slope of the response model.",),
        **CHECKED if checked else {},
    )
    rater = {"lapse": np.minimum(lapse, 0.99), "position": 0.1 + 0.05 * rng.normal(size=(draws, len(weights)))}
    return RewardPosterior(sample[:, :, None, :], weight / weight.sum(), voters, None, rater, names, fit)


def save_all(run, **parts):
    for name, value in parts.items():
        if isinstance(value, dict):
            for inner, part in value.items():
                folder = f"{name}/{inner}/policy" if name == "policies" else f"{name}/{inner}"
                artifacts.save(part, run / folder, key=artifacts.digest(folder))
        else:
            artifacts.save(value, run / name, key=artifacts.digest(name))
    return run


def history(rng, steps=60):
    t = np.arange(1, steps + 1)
    margin = 1.4 * (1 - np.exp(-t / 20)) + 0.1 * rng.normal(size=steps)
    return tuple(
        {
            "step": int(5 * s),
            "loss": float(0.69 * np.exp(-s / 40) + 0.02 * rng.normal()),
            "margin": float(m),
            "accuracy": float(np.clip(0.5 + 0.3 * m, 0, 1)),
            "grad_norm": float(rng.random()),
            "seconds": float(s),
        }
        for s, m in zip(t, margin, strict=True)
    )


def make_demo(run, seed=0, caveats=(), draws=100, prompts=40):
    """A whole run of the simulated community: 3 groups, 48 annotators, 3 rules, 2 policies, truth, evaluation."""
    rng = np.random.default_rng(seed)
    names = ("length", "warmth", "hedging", "digits", "questions", "formality")
    sizes, annotators = (28, 13, 7), 48
    groups = np.repeat(np.arange(3), sizes)
    centres = np.array(
        [[-1.2, 0.1, -0.3, 0.2, 0.0, 0.1], [0.6, 1.3, 0.2, -0.4, 0.3, -0.5], [0.8, -0.6, -0.9, 1.1, 0, 0.6]]
    )
    weights = centres[groups] + 0.3 * rng.normal(size=(annotators, len(names)))
    careless = np.zeros(annotators, bool)
    careless[[3, 20, 30, 45]] = True
    phi = rng.normal(size=(prompts, 5, len(names)))
    phi -= phi.mean(1, keepdims=True)
    votes = make_feedback(rng, phi, weights, groups, careless, names)
    voters = tuple(votes.annotators["id"])
    posterior = make_posterior(rng, weights, 0.25, draws, names, votes, careless, caveats, checked=True)
    scale = "standard deviation of the annotator's utility over the candidates (posterior mean)"
    sd = np.sqrt(np.einsum("xyf,vf->xyv", phi, weights).var((0, 1)))
    reference = np.full(phi.shape[:2], 1 / phi.shape[1])
    offset = np.zeros((draws, annotators))
    linear = Linear(phi, posterior.weights[:, :, 0] / sd[:, None], offset)
    utilities = Utilities(linear, posterior.mass, reference, None, voters, None, scale, tuple(caveats))
    truth = replace(utilities, value=Linear(phi, (weights / sd[:, None])[None], offset[:1]), caveats=())
    one = lambda *w: np.array(w)[groups]  # noqa: E731
    choices = {
        "utilitarian": choose("utilitarian", utilities, one(1.0, 1.0, 1.0), 0.1),
        "nash": choose("nash", utilities, one(0.8, 1.2, 1.6), 0.1),
        "maximin": choose("maximin", utilities, one(0.5, 1.4, 3.4), 0.1),
    }
    welfare, samples = [], []
    for name in ("utilitarian", "maximin"):
        after, true = utilities.expected(choices[name].lottery), truth.expected(choices[name].lottery)
        for g, group in enumerate(GROUPS):
            gain, real = 0.4 * after[:, groups == g].mean(1), 0.4 * true[:, groups == g].mean(1)
            base = 0.05 * rng.normal(size=draws)
            welfare.append(
                Welfare(
                    name, group, posterior.mass[groups == g].sum(),
                    *(describe_estimate(v) for v in (base, base + gain, gain)),
                    *(describe_estimate(v) for v in (base - 0.01, base + real, real + 0.03 * rng.normal(size=draws))),
                )
            )  # fmt: skip
    for x in range(3):
        prompt = f"How do I repair a bicycle tyre? (question {x})"
        samples += [
            Sample("base model", prompt, "Well, you might perhaps ask someone.\n\nOr not."),
            Sample("utilitarian", prompt, f"Take the wheel off. {NASTY if x == 0 else ''}"),
            Sample("maximin", prompt, "" if x == 1 else "Of course! Take the wheel off:\n1. levers\n2. patch"),
        ]
    points = [
        {
            "name": name,
            "on": True,
            "share": 0.9,
            "worst": min(g.mean for g in own),
            "welfare": [artifacts.plain(g) for g in own],
        }
        for name in ("utilitarian", "maximin")
        for own in [[w.gain for w in welfare if w.policy == name]]
    ]
    front = {"groups": list(GROUPS), "reference": [0.0] * len(GROUPS), "points": points}
    front["volume"] = {"mean": 0.5, "low": 0.4, "high": 0.6}
    evaluation = Evaluation(
        (
            Score("posterior (hierarchical)", 0.6123, 0.0131, 0.684, 288),
            Score("pooled Bradley-Terry", 0.6681, 0.0142, 0.601, 288),
            Score("constant", 0.6931, 0.0009, 0.5, 288),
        ),
        tuple(welfare),
        tuple(samples),
        ("Policies were measured on 10 prompts that neither the rules nor training saw, 8 responses each.",),
        front,
    )
    policies = {
        name: Policy(Path("adapter"), "tiny language model", history(rng), tuple(caveats))
        for name in ("utilitarian", "maximin")
    }
    features = Features(
        phi.reshape(-1, len(names)), votes.prompt_id, names, np.zeros(6), np.eye(6),
        {"model": "lexicon", "hash": "fedcba9876543210"},
    )  # fmt: skip
    decided = decide(np.random.default_rng(seed), list(choices), draws, prompts, 5, {"irv": "too many ways."})
    save_all(
        run, decisions=decided, feedback=votes, features=features, posterior=posterior, choices=choices, truth=truth, policies=policies,
        evaluation=evaluation,
    )  # fmt: skip
    config = "# pluralign run configs/quickstart.yaml\nseed: 0\nfeedback:\n  kind: community\n  seed: 7\n"
    artifacts.write_text(run / "experiment.yaml", config)
    return run


def make_crowd(run, seed=1, draws=80, prompts=13):
    """A real crowd: 124 annotators of whom nothing is known, 33 features without meaning, no truth, nothing trained."""
    rng = np.random.default_rng(seed)
    names = (*(f"pc{i}" for i in range(32)), "log_length")
    weights = 0.5 * rng.normal(size=33) * np.exp(-np.arange(33) / 12) + 0.2 * rng.normal(size=(124, 33))
    careless = rng.random(124) < 0.08
    phi = rng.normal(size=(prompts, 8, 33))
    votes = make_feedback(rng, phi, weights, None, careless, names, truth=False, per_annotator=20)
    voters = tuple(votes.annotators["id"])
    posterior = make_posterior(rng, weights, 0.15, draws, names, votes, careless)
    reference = np.full(phi.shape[:2], 1 / 8)
    linear = Linear(phi, posterior.weights[:, :, 0], np.zeros((draws, 124)))
    utilities = Utilities(linear, posterior.mass, reference, None, voters, None, "logits, not rescaled")
    lopsided = np.exp(rng.normal(size=124))
    choices = {
        "utilitarian": choose("utilitarian", utilities, np.ones(124), 0.5),
        "nash": choose("nash", utilities, lopsided, 0.5),
    }
    evaluation = Evaluation(
        (Score("posterior (hierarchical)", 0.98, 0.03, 0.61, 1700), Score("constant", 1.09, 0.01, 0.39, 1700))
    )
    save_all(run, feedback=votes, posterior=posterior, choices=choices, evaluation=evaluation)
    return run


def make_api(run, seed=2):
    """What the Python API alone leaves: choices, feedback and a policy."""
    made = make_demo(run.with_name(f"{run.name}_whole"), seed, draws=20, prompts=12)
    run.mkdir()
    for name in ("choices", "feedback", "policies"):
        (made / name).rename(run / name)
    return run


@pytest.fixture(scope="session")
def demo(tmp_path_factory):
    return make_demo(tmp_path_factory.mktemp("report") / "demo")


@pytest.fixture(scope="session")
def doubtful(tmp_path_factory):
    return make_demo(tmp_path_factory.mktemp("report") / "doubtful", seed=3, caveats=CAVEATS, draws=40)


@pytest.fixture(scope="session")
def crowd(tmp_path_factory):
    return make_crowd(tmp_path_factory.mktemp("report") / "crowd")


@pytest.fixture(scope="session")
def api(tmp_path_factory):
    return make_api(tmp_path_factory.mktemp("report") / "api")
