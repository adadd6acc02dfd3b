"""Three groups of readers who want different stories, and policies that are trained for all of them together.

    python benchmarks/stories.py --out runs/stories [--method dpo ppo] [--steps 300] [--seed 0] [--quick]

Real: the language model (stories15M under $PLURALIGN_MODELS), the sentence encoder, the texts and what is measured in
them. Simulated: the readers. Openings come from a small grammar; the model writes several continuations of each;
each reader has a utility that is linear in four measures of a story (how long its sentences are, how much of it is
spoken, how cheerful it is, how much it is about animals), and compares pairs of continuations (Bradley-Terry). From
these votes alone: posterior, utilities of the three groups, two rules, a policy for each rule and method. Openings that
neither rules nor training saw tell what each group got, by the utilities that the readers truly have.

Every stage keeps what it made under `--out` and is skipped when it is there, so a killed run goes on. `--quick` takes
stories260K and fewer of everything: about a minute.
"""

import argparse
import itertools
import json
import os
import re
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import torch
from jaxtyping import Float
from peft import PeftModel
from rich.console import Console
from rich.table import Table

from pluralign import artifacts, choice, features, policy, reward
from pluralign.policy import scoring
from pluralign.types import Choice, Choices, Features, Feedback, Grades, Linear, RewardPosterior, Truth, Utilities

BETA = 0.1  # price of a nat, in standard deviations of what a typical reader feels
BOOTSTRAP = 4000
STEPS = {"dpo": 200, "ppo": 40}
LORA = {"stories15M": policy.Lora(), "stories260K": policy.Lora(targets=None)}  # the small one has little to adapt
RATES = {"stories15M": {"dpo": 1e-3, "ppo": 2e-3}, "stories260K": {"dpo": 3e-3, "ppo": 1e-3}}
RULES = (choice.Utilitarian(), choice.Maximin())
KINDS = (("dog", "Max"), ("cat", "Mimi"), ("bird", "Pip"), ("bear", "Bob"), ("rabbit", "Fluffy"), ("frog", "Hop"))
PEOPLE = (("boy", "Tom"), ("boy", "Ben"), ("girl", "Lily"), ("girl", "Sara"), ("girl", "Mia"), ("boy", "Tim"))
NATURES = ("little", "happy", "kind", "brave", "curious", "clever")
LIKES = ("play in the garden", "sing songs", "run and jump", "look at the stars", "dig in the sand", "eat sweet fruit")
STARTS = ("One day,", "One sunny morning,", "One night,")
CHEERFUL = """happy glad smile smiled smiling laugh laughed laughing fun love loved loves joy proud hug hugged kind nice
    good great beautiful pretty wonderful yummy excited thanked thank thanks friend friends best safe warm play played
    """.split()
GLOOMY = """sad cry cried crying scared afraid angry mad hurt bad mean lost dark broke broken sick tired alone worried
    scary lonely sorry fell trouble upset ugly dirty pain dangerous screamed gloomy""".split()
ANIMALS = ("A story about animals in the forest.", "The dog, the cat and the bird played together.")
HOME = ("A story about children and their mother at home.", "The boy and the girl played with their toys.")


@dataclass(frozen=True)
class Size:
    """How large a run is."""

    model: str = "stories15M"
    prompts: int = 192
    held_out: int = 128
    candidates: int = 8
    tokens: int = 80
    people: int = 60
    votes: int = 40
    responses: int = 8


QUICK = Size("stories260K", prompts=96, held_out=48, candidates=6, tokens=64, people=30, responses=6)
GROUPS = {  # share of the people, and what they want of a standard deviation of each measure
    "talkers": (0.5, {"dialogue": 0.8, "length": 0.6}),
    "cheerful": (0.3, {"cheer": 0.8, "length": -0.6}),
    "animals": (0.2, {"animals": 0.6, "dialogue": -0.8}),
}
FIRM = 2.0  # logits of utility per standard deviation of it
SPREAD = 0.15  # by how much readers of one group differ, in the same standard deviations


# ---------------------------------------------------------------------------------------------- what is measured


def length(prompts: Sequence[str], responses: Sequence[str]) -> list[float]:
    """Return log words per sentence."""
    parts = [[s for s in re.split(r"[.!?]+", text) if re.search(r"\w", s)] for text in responses]
    return [float(np.log((1 + len(text.split())) / max(len(p), 1))) for text, p in zip(responses, parts, strict=True)]


def dialogue(prompts: Sequence[str], responses: Sequence[str]) -> list[float]:
    """Return the share of characters between quotation marks; the last of them may be missing."""
    plain = [re.sub("[“”]", '"', text) for text in responses]
    return [sum(map(len, re.findall(r'"[^"]*"?', text))) / max(len(text), 1) for text in plain]


def cheer(prompts: Sequence[str], responses: Sequence[str]) -> list[float]:
    """Return cheerful less gloomy words, per word."""
    words = [re.findall(r"[a-z']+", text.lower()) for text in responses]
    return [(sum(w in CHEERFUL for w in text) - sum(w in GLOOMY for w in text)) / (5 + len(text)) for text in words]


@dataclass(frozen=True)
class Theme:
    """How much nearer a text is to some sentences than to others, by the cosine of a sentence encoder's states."""

    encoder: features.Encoder
    near: tuple[str, ...]
    far: tuple[str, ...]

    def __call__(self, prompts: Sequence[str], responses: Sequence[str]) -> Float[np.ndarray, " response"]:
        """Return the mean cosine with the one less that with the other."""
        texts = [*self.near, *self.far, *responses]
        states = self.encoder.read([""] * len(texts), texts).raw
        n, m = len(self.near), len(self.near) + len(self.far)
        return states[m:] @ (states[:n].mean(0) - states[n:m].mean(0))


def measures(models: Path) -> features.Scorers:
    """Return the feature map of a story."""
    encoder = features.Encoder(str(models / "all-MiniLM-L6-v2"), length=False, cache=False)
    theme = Theme(encoder, ANIMALS, HOME)
    return features.Scorers({"length": length, "dialogue": dialogue, "cheer": cheer, "animals": theme})


# ------------------------------------------------------------------------------------------------ the stages, in order


def openings(count: int, rng: np.random.Generator) -> list[str]:
    """Return different openings of stories."""
    made = [
        f"Once upon a time, there was a {nature} {kind} named {name}. {name} liked to {like}. {start}"
        for nature, (kind, name), like, start in itertools.product(NATURES, KINDS + PEOPLE, LIKES, STARTS)
    ]
    return [made[i] for i in rng.permutation(len(made))[:count]]


def teller(source: Path, folder: Path) -> str:
    """Copy a model; its stories end where the next would begin, which its tokenizer does not say."""
    if not folder.exists():
        shutil.copytree(source, temporary := folder.with_suffix(".partial"), dirs_exist_ok=True)
        for file, name, end in (("tokenizer_config.json", "eos_token", "<s>"), ("config.json", "eos_token_id", 1)):
            artifacts.write_json(temporary / file, json.loads((temporary / file).read_text()) | {name: end})
        artifacts.write_json(temporary / "generation_config.json", {"eos_token_id": 1, "bos_token_id": 1})
        os.replace(temporary, folder)
    return str(folder)


def community(prompts: Sequence[str], stories: Sequence[Sequence[str]], size: Size) -> Feedback:
    """Return who there is and what could be judged; `judge` adds the votes."""
    rows = [(i, x, y) for i, (x, ys) in enumerate(zip(prompts, stories, strict=True)) for y in ys]
    items = dict(zip(("prompt_id", "prompt", "response"), map(list, zip(*rows, strict=True)), strict=True))
    who = [name for name, (share, _) in GROUPS.items() for _ in range(round(share * size.people))]
    people = {"id": [f"{g}-{a:02d}" for a, g in enumerate(who)], "weight": [1.0] * len(who), "group": who}
    tables = datasets.Dataset.from_dict(items), datasets.Dataset.from_dict(people)
    return Feedback(*tables, ("overall",), Choices.none(), Grades.none())


def judge(votes: Feedback, phi: Features, size: Size, rng: np.random.Generator) -> Feedback:
    """Add votes: everyone compares random pairs of continuations of one opening, by Bradley-Terry."""
    wants = np.array([[GROUPS[g][1].get(name, 0.0) for name in phi.names] for g in votes.attribute("group")])
    weights = FIRM * (wants + SPREAD * rng.normal(size=wants.shape))
    who = np.repeat(np.arange(len(wants)), size.votes)
    first = rng.integers(len(phi.phi), size=len(who))
    shift = rng.integers(1, size.candidates, size=len(who))
    second = first - first % size.candidates + (first + shift) % size.candidates
    ahead = ((phi.phi[first] - phi.phi[second]) * weights[who]).sum(1)
    lost = (rng.random(len(who)) > 1 / (1 + np.exp(-ahead))).astype(int)
    order = np.tile(np.arange(size.votes), len(wants))
    choices = Choices(np.stack([first, second], 1), np.stack([lost, 1 - lost], 1), who, np.zeros_like(who), order)
    return replace(votes, choices=choices, truth=Truth(weights, phi.names, np.zeros(len(wants), bool)))


def of_groups(posterior: RewardPosterior, votes: Feedback, phi: Features) -> Utilities:
    """Return the groups' utilities: their members' mean, each in its own standard deviations above the reference."""
    people = choice.rescale(choice.utilities(posterior, phi), choice.NoScale())
    label = np.array(votes.attribute("group"))
    share = np.stack([(label == name) / (label == name).sum() for name in GROUPS])
    assert isinstance(people.value, Linear)
    mean = np.einsum("gv,svf->sgf", share, people.value.weights)
    value = Linear(people.value.phi, mean, people.value.offset @ share.T)
    return replace(people, value=value, mass=[(label == name).mean() for name in GROUPS], voters=tuple(GROUPS))


def truth(posterior: RewardPosterior, votes: Feedback) -> RewardPosterior:
    """Return the readers' true weights as a posterior of one draw."""
    assert votes.truth is not None
    return replace(posterior, weights=votes.truth.weights[None, :, None], rater={}, common={}, own={})


def divergence(model: str, adapter: Path, prompts: Sequence[str], stories: list[list[str]], size: Size) -> list[float]:
    """Return `mean log(pi / pi_ref)` of a policy's own stories for each opening: estimates of its KL, in nats."""
    network, form = policy.Pretrained(model).load()
    network = PeftModel.from_pretrained(network, str(adapter)).eval()
    rows = [form.row(form.prompt(x, 128), y, size.tokens) for x, ys in zip(prompts, stories, strict=True) for y in ys]
    with torch.inference_mode():
        trained = scoring.score(network, rows, 32)
        with network.disable_adapter():
            reference = scoring.score(network, rows, 32)
    return (trained - reference).reshape(len(prompts), -1).mean(1).tolist()


@dataclass(frozen=True)
class Bench:
    """What is there before any policy is trained."""

    out: Path
    size: Size
    seed: int
    model: str
    scorers: features.Scorers
    prompts: list[str]
    held_out: list[str]
    votes: Feedback
    phi: Features
    utilities: Utilities  # of the groups, as inferred
    true: Utilities  # the same, as they are
    fit: Any

    @classmethod
    def build(cls, out: Path, size: Size, seed: int, told: Callable[[str], Any]) -> "Bench":
        """Write stories, have them judged, and infer what the groups want."""
        settings = artifacts.plain([size, seed])
        if kept(out / "settings.json", lambda: settings) != settings:
            raise SystemExit(f"{out} holds a run of other settings; give another --out.")
        models = Path(os.environ["PLURALIGN_MODELS"])
        model, scorers, rng = teller(models / size.model, out / "model"), measures(models), np.random.default_rng(seed)
        texts = openings(size.prompts + size.held_out, rng)
        prompts, held_out = texts[: size.prompts], texts[size.prompts :]
        told("continuations to be judged")
        options = {"max_tokens": size.tokens, "batch": 64}
        stories = kept(
            out / "stories.json", lambda: policy.sample(model, prompts, n=size.candidates, seed=seed, **options)
        )
        told("measures, votes and posterior")
        votes = community(prompts, stories, size)
        phi = scorers.encode(votes)
        votes = judge(votes, phi, size, rng)
        if not (out / "posterior").exists():
            how = reward.VariationalEM() if size.people < 50 else reward.Gibbs()
            plain = reward.Response(reward.Davidson(tie_spread=False), rater=reward.Rater(lapse=False))
            people = reward.Hierarchical(group="group", response=plain)
            people.fit(votes, phi, inference=how, seed=seed).save(out / "posterior")
        posterior = RewardPosterior.load(out / "posterior")
        inferred = of_groups(posterior, votes, phi)
        true = of_groups(truth(posterior, votes), votes, phi)
        return cls(out, size, seed, model, scorers, prompts, held_out, votes, phi, inferred, true, posterior.fit)

    def choose(self, rule: choice.AbstractRule) -> Choice:
        """Return a rule's choice on the candidates."""
        return rule.choose(self.utilities, risk=choice.Mean(), beta=BETA)

    def train(self, method: str, rule: choice.AbstractWelfare, steps: int) -> Path:
        """Return the folder of a trained adapter; one that is there already is kept."""
        folder = self.out / method / "policies" / {"dpo": rule.kind, "ppo": f"{rule.kind}-ppo"}[method] / "adapter"
        if folder.is_dir():
            return folder
        chosen, out = self.choose(rule), self.out / method
        how = {"model": self.model, "steps": steps, "max_response_tokens": self.size.tokens, "seed": self.seed}
        how |= {"lora": LORA[self.size.model], "learning_rate": RATES[self.size.model][method]}
        if method == "dpo":
            trainer = policy.DPO(batch=16, **how)
            return trainer.train(chosen, self.votes, self.phi, out=out).adapter
        online = policy.PPO(prompts=8, group=4, reestimate=10, **how)

        def again(utilities: Utilities, beta: float) -> Choice:
            return rule.choose(utilities, beta=beta)

        return online.train(chosen, self.votes, self.phi, self.scorers, out=out, again=again).adapter

    def write(self, name: str, adapter: Path | None) -> list[list[str]]:
        """Return stories for the openings that nobody saw."""
        how = {"n": self.size.responses, "max_tokens": self.size.tokens, "batch": 64, "seed": self.seed + 1}
        file = self.out / "written" / f"{name}.json"
        return kept(file, lambda: policy.sample(self.model, self.held_out, adapter=adapter, **how))

    def read(self, stories: list[list[str]]) -> Float[np.ndarray, "item feature"]:
        """Return the features of stories for the openings that nobody saw."""
        flat = [(x, y) for x, ys in zip(self.held_out, stories, strict=True) for y in ys]
        return self.scorers.encode_texts([x for x, _ in flat], [y for _, y in flat], self.phi)

    def worth(self, utilities: Utilities, phi: Float[np.ndarray, "item feature"]) -> Float[np.ndarray, "group prompt"]:
        """Return what each group thinks of stories, mean over draws and stories of an opening."""
        return utilities.of(phi).mean(0).reshape(len(GROUPS), len(self.held_out), -1).mean(-1)


def kept(file: Path, make: Callable[[], Any]) -> Any:
    """Return the JSON in a file, made first if it is not there."""
    if not file.is_file():
        file.parent.mkdir(parents=True, exist_ok=True)
        artifacts.write_json(file, make())
    return json.loads(file.read_text())


# ------------------------------------------------------------------------------------------------------- what came out


def summary(gain: Float[np.ndarray, "group prompt"], mass: Float[np.ndarray, " group"], seed: int) -> dict[str, Any]:
    """Return the gain of every group and the welfare of every rule, each with a 90 % interval over openings.

    Resampled openings are the same for all policies of as many openings, so that differences are paired.
    """
    pick = np.random.default_rng(seed).integers(gain.shape[1], size=(BOOTSTRAP, gain.shape[1]))
    resampled = gain[:, pick].mean(-1).T  # [resample group]
    table = np.concatenate([gain.mean(1)[None], resampled])
    columns = {name: table[:, g] for g, name in enumerate(GROUPS)}
    columns |= {rule.kind: rule.marginal(table, mass)[0] for rule in RULES}
    return {n: [float(v[0]), *np.quantile(v[1:], [0.05, 0.95]).tolist()] for n, v in columns.items()}


def measured(bench: Bench, adapters: dict[str, Path]) -> list[dict[str, Any]]:
    """Return what every policy gives beside the untrained model, by the readers' true utilities and as inferred."""
    base = bench.read(bench.write("base", None))
    who = {"true": bench.true, "inferred": bench.utilities}
    rows = []
    for name, adapter in adapters.items():
        stories = bench.write(name, adapter)
        phi = bench.read(stories)
        gain = {kind: bench.worth(u, phi) - bench.worth(u, base) for kind, u in who.items()}
        kl = kept(
            bench.out / "kl" / f"{name}.json",
            lambda adapter=adapter, stories=stories: divergence(
                bench.model, adapter, bench.held_out, stories, bench.size
            ),
        )
        told = {kind: summary(g, bench.true.mass, bench.seed) for kind, g in gain.items()}
        error = float(np.std(kl, ddof=1) / np.sqrt(len(kl)))
        rows.append({"policy": name, **told, "kl": [float(np.mean(kl)), error], "gain": gain["true"].tolist()})
    return rows


def lifted(rows: list[dict[str, Any]], method: str, bench: Bench) -> dict[str, Any]:
    """Return what maximin gives to the group that the utilitarian policy serves worst, beyond what it gets there."""
    gain = {row["policy"]: np.array(row["gain"]) for row in rows}
    sum_, least = gain[f"{method} utilitarian"], gain[f"{method} maximin"]
    worst = int(sum_.mean(1).argmin())
    more = summary(least - sum_, bench.true.mass, bench.seed)
    return {"method": method, "group": list(GROUPS)[worst], "more": more[list(GROUPS)[worst]]}


def show(rows: list[dict[str, Any]], console: Console) -> None:
    """Print gains, in standard deviations of what readers feel, with half of the width of 90 % intervals."""
    for kind, title in (("true", "what readers truly gain over the untrained model"), ("inferred", "as inferred")):
        table = Table("policy", *GROUPS, *(f"W {rule.kind}" for rule in RULES), "KL, nats", title=title)
        for row in rows:
            cells = [f"{m:+.2f} ±{(high - low) / 2:.2f}" for m, low, high in row[kind].values()]
            table.add_row(row["policy"], *cells, f"{row['kl'][0]:.1f} ±{1.645 * row['kl'][1]:.1f}")
        console.print(table)


def draw(rows: list[dict[str, Any]], file: Path) -> None:
    """Draw each group's gain under every policy."""
    import matplotlib.pyplot as plt

    colours = dict(zip(GROUPS, ("#0072B2", "#E69F00", "#009E73"), strict=True))
    figure, axes = plt.subplots(figsize=(7.2, 2.9), layout="constrained")
    place = np.arange(len(rows))
    for g, name in enumerate(GROUPS):
        mean, low, high = np.array([row["true"][name] for row in rows]).T
        bars = {"yerr": [mean - low, high - mean], "error_kw": {"lw": 1, "ecolor": "#333333"}}
        label = f"{name}, {GROUPS[name][0]:.0%} of readers"
        axes.bar(place + 0.26 * (g - 1), mean, 0.24, color=colours[name], label=label, **bars)
    axes.axhline(0, color="#333333", lw=0.8)
    axes.set_xticks(place, [row["policy"] for row in rows])
    axes.set_ylabel("gain over the untrained\nmodel, standard deviations")
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, ncols=3, fontsize=8, loc="lower center", bbox_to_anchor=(0.5, 1.0))
    figure.savefig(file, metadata={"Date": None})


def run(out: Path, size: Size, steps: dict[str, int], seed: int, console: Console) -> dict[str, Any]:
    """Do all stages that are missing, and tell what came out."""
    begin, seconds = time.perf_counter(), {}

    def told(stage: str) -> None:
        console.print(f"{time.perf_counter() - begin:7.0f} s  {stage}")

    bench = Bench.build(out, size, seed, told)
    adapters = {}
    for method, rule in itertools.product(steps, RULES):
        name = f"{method} {rule.kind}"
        told(name)
        start = time.perf_counter()
        adapters[name] = bench.train(method, rule, steps[method])
        seconds[name] = kept(out / "seconds" / f"{name}.json", lambda start=start: time.perf_counter() - start)
    told("stories for openings that nobody saw")
    rows = measured(bench, adapters)
    show(rows, console)
    lifts = [lifted(rows, method, bench) for method in steps]
    for lift in lifts:
        m, low, high = lift["more"]
        told(
            f"{lift['method']}: maximin gives {lift['group']} {m:+.2f} [{low:+.2f}, {high:+.2f}] more than utilitarian"
        )
    for x in range(3):
        console.print(f"\n[bold]{bench.held_out[x]}[/bold]", highlight=False)
        for name in ("base", *adapters):
            text = " ".join(json.loads((out / "written" / f"{name}.json").read_text())[x][0].split())
            console.print(f"[dim]{name}:[/dim] {text}", highlight=False)
    draw(rows, out / "stories.svg")
    result = {
        "size": size,
        "seed": seed,
        "steps": steps,
        "beta": BETA,
        "seconds": seconds,
        "rows": rows,
        "lifts": lifts,
    }
    result |= {"fit": bench.fit.caveats, "versions": artifacts.versions()}
    artifacts.write_json(out / "results.json", artifacts.plain(result))
    return result


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("runs/stories"))
    parser.add_argument("--method", nargs="+", choices=("dpo", "ppo"), default=["dpo", "ppo"])
    parser.add_argument("--steps", type=int, default=None, help="of training; 200 of DPO, 40 of PPO")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--quick", action="store_true", help="a smaller model and fewer of everything")
    told = parser.parse_args()
    steps = {method: told.steps or STEPS[method] for method in told.method}
    run(told.out, QUICK if told.quick else Size(), steps, told.seed, Console(width=118))


if __name__ == "__main__":
    main()
