"""Effective draws per second of the ways to infer a hierarchical posterior, side by side in one run.

    python benchmarks/inference.py                     # 200 annotators x 16 features x 40,000 comparisons
    python benchmarks/inference.py --small             # a quick look
    python benchmarks/inference.py --cost              # variational EM and Gibbs against size, slopes on log-log scales
    python benchmarks/inference.py --mixing            # Gibbs at 5, 20 and 200 judgements of each annotator
    python benchmarks/inference.py --large             # 10,000 x 32 x 1,000,000: variational EM and Gibbs
    python benchmarks/inference.py --pymc PYTHON       # PYTHON: an interpreter that has pymc and nutpie

`seconds` are of the wall, compilation included (with `--repeat 2`, a second time without, but for NUTS, which compiles
every model); `cpu` are of the processor, all threads, which tell more where the machine is shared. `ess` is the
smallest bulk effective sample size over centre and spread. The load of the machine is printed beside: quote ratios.
"""

import argparse
import dataclasses
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from arviz_stats.base.array import array_stats

from pluralign import reward
from pluralign.reward.em import VariationalEM
from pluralign.reward.gibbs import Gibbs
from pluralign.reward.judgements import PAIRS, Block, Judgements, Layout
from pluralign.reward.population import Target

PYMC = """
import sys, time
import arviz, nutpie, numpy as np, pymc as pm
data = np.load(sys.argv[1])
x, y, who = data["x"], data["y"], data["who"]
people, features = int(who.max()) + 1, x.shape[1]
begin, cpu = time.perf_counter(), time.process_time()
with pm.Model() as model:
    scale = pm.LogNormal("centre_scale", 0, 0.8)
    centre = pm.Normal("centre", 0, scale, shape=features)
    spread = pm.LogNormal("spread", np.log(0.5), 0.8, shape=features)
    weights = pm.Normal("weights", centre, spread, shape=(people, features))
    pm.Bernoulli("first", logit_p=(x * weights[who]).sum(1), observed=y == 0)
trace = nutpie.sample(nutpie.compile_pymc_model(model), draws=int(sys.argv[2]), tune=int(sys.argv[2]), chains=2,
                      cores=2, seed=0, progress_bar=False)
seconds, cpu = time.perf_counter() - begin, time.process_time() - cpu
found = {n: trace.posterior[n].values for n in ("centre", "spread", "weights")}
np.savez(sys.argv[1], seconds=seconds, cpu=cpu, **found)
"""


def simulate(annotators: int, features: int, judgements: int, seed: int = 0) -> Target:
    rng = np.random.default_rng(seed)
    phi = rng.normal(size=(2000, features)) / np.sqrt(2 * features)
    weights = rng.normal(size=features) * 1.5 + rng.normal(size=(annotators, features))
    who = np.sort(rng.integers(0, annotators, judgements)).astype(np.int32)
    item = rng.integers(0, len(phi), (judgements, 2)).astype(np.int32)
    eta = ((phi[item[:, 0]] - phi[item[:, 1]]) * weights[who]).sum(1)
    said = (rng.random(judgements) > 1 / (1 + np.exp(-eta))).astype(np.int32)
    none = np.zeros(judgements, np.int32)
    block = Block(item, said, who, none, none + 1, none, np.arange(judgements))
    names = tuple(f"f{i}" for i in range(features))
    read = Judgements(phi, names, {PAIRS: block}, annotators, ("overall",), (), 0)
    return Target(reward.Hierarchical(response=reward.PLAIN), Layout.of(read, np.zeros(annotators, np.int32)))


def smallest_ess(sites: dict[str, np.ndarray], chains: int) -> float:
    ess = []
    for name in ("centre", "spread"):
        draws = sites[name].reshape(chains, -1, sites[name][0].size).astype(float)
        ess.append(np.min(array_stats.ess(draws, chain_axis=0, draw_axis=1)))
    return float(min(ess))


def pymc(python: str, model: Target, draws: int) -> tuple[dict[str, np.ndarray], float, float]:
    acts = model.layout.acts[PAIRS]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "data.npz")
        x = np.concatenate([x.reshape(-1, x.shape[-1]) for _, x in acts.buckets])
        who = np.concatenate([np.repeat(who, x.shape[1]) for who, x in acts.buckets])
        np.savez(path, x=x[acts.counts], y=acts.said[acts.counts], who=who[acts.counts])
        subprocess.run([python, "-W", "ignore", "-c", PYMC, path, str(draws)], check=True)
        with np.load(path) as found:
            sites = {n: found[n].reshape(-1, *found[n].shape[2:]) for n in ("centre", "spread", "weights")}
            return sites, float(found["seconds"]), float(found["cpu"])


def compare(options: argparse.Namespace) -> None:
    model = simulate(options.annotators, options.features, options.judgements)
    draws = options.draws
    nuts = min(draws, options.nuts_draws)
    methods = {
        "em": ("variational EM", VariationalEM(draws=500), None),
        "gibbs": ("Gibbs", Gibbs(draws=draws, warmup=options.warmup, thin=options.thin), 2),
        "nuts": ("NUTS", reward.NUTS(draws=nuts, warmup=nuts), 2),
        "svi": ("SVI, mean field", reward.SVI(), None),
    }
    print(f"{options.annotators:,} annotators x {options.features} features x {options.judgements:,} comparisons")
    print("off: mean distance from Gibbs in its sds, and the ratio of sds, of centre | spread | weights")
    print(f"{'':24} {'seconds':>8} {'cpu':>7} {'ess':>6} {'ess/s':>8} {'ess/cpu s':>9}  load  {'off':33}  GB")
    sites = {}

    def row(name: str, found: dict[str, np.ndarray], seconds: float, cpu: float, chains: int | None) -> None:
        ess = smallest_ess(found, chains) if chains else float("nan")
        off = []
        for site in ("centre", "spread", "weights") if "Gibbs" in sites else ():
            ours, theirs = (np.reshape(s[site], (len(s[site]), -1)) for s in (found, sites["Gibbs"]))
            apart = abs(ours.mean(0) - theirs.mean(0)) / theirs.std(0)
            off.append(f"{apart.mean():.2f} {np.mean(ours.std(0) / theirs.std(0)):.2f}")
        memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
        line = f"{name:24} {seconds:8.1f} {cpu:7.1f} {ess:6.0f} {ess / seconds:8.2f} {ess / cpu:9.2f}"
        print(f"{line}  {os.getloadavg()[0]:4.1f}  {' | '.join(off):33}  {memory:.1f}", flush=True)

    order = [name for name in ("gibbs", "em", "nuts", "svi") if name in options.only]
    if order[:2] == ["gibbs", "em"] and options.judgements > 200_000:
        order[:2] = ["em", "gibbs"]  # so that the memory of variational EM alone is seen
    for name in order:
        label, inference, chains = methods[name]
        for again in range(options.repeat):
            begin, cpu = time.perf_counter(), time.process_time()
            found, report = inference.infer(model, again)
            seconds, cpu = time.perf_counter() - begin, time.process_time() - cpu
            if name == "gibbs":
                sites["Gibbs"] = found
            row(label + (", again" if again else ""), found, seconds, cpu, chains)
            for caveat in report.caveats:
                print("   ", caveat)
    if not options.pymc:
        print("PyMC + nutpie: not run; --pymc names an interpreter that has them.")
    else:
        row("PyMC + nutpie, centred", *pymc(options.pymc, model, options.pymc_draws), 2)


def cost() -> None:
    print(f"{'annotators':>10} {'features':>8} {'judgements':>10}  {'EM, s':>7} {'ms a sweep':>10}  load")
    base = (200, 16, 80_000)  # all with so many judgements each that Gibbs takes the same steps
    against = {
        "judgements": [(200, 16, 40_000), base, (200, 16, 160_000), (200, 16, 320_000)],
        "annotators": [(50, 16, 80_000), (100, 16, 80_000), base, (400, 16, 80_000)],
        "features": [(200, 8, 80_000), base, (200, 32, 80_000)],
    }
    found: dict[tuple[int, int, int], tuple[float, float]] = {}
    for name, sizes in against.items():
        for size in sizes:
            if size in found:
                continue
            model = simulate(*size)
            times = []
            for inference in (VariationalEM(draws=1), Gibbs(draws=20, warmup=20), Gibbs(draws=20, warmup=20, thin=6)):
                best = np.inf
                for _ in range(2 + (not times)):  # the first time it is compiled
                    begin = time.perf_counter()
                    inference.infer(model, 0)
                    best = min(best, time.perf_counter() - begin)
                times.append(best)
            # Two chains of (20 + 4) x 6 sweeps, the warm-up being rounded up, against two of 40.
            found[size] = times[0], (times[2] - times[1]) / (2 * (24 * 6 - 40)) * 1e3
            line = f"{size[0]:10,} {size[1]:8} {size[2]:10,}  {found[size][0]:7.2f} {found[size][1]:10.2f}"
            print(f"{line}  {os.getloadavg()[0]:.1f}", flush=True)
        axis = {"annotators": 0, "features": 1, "judgements": 2}[name]
        times = np.log([found[size] for size in sizes])
        slopes = np.polyfit(np.log([size[axis] for size in sizes]), times, 1)[0]
        print(f"slopes against {name}: EM {slopes[0]:.2f}, Gibbs {slopes[1]:.2f}", flush=True)


def mixing() -> None:
    for annotators, features, judgements in ((300, 4, 1500), (300, 4, 6000), (300, 4, 60_000), (400, 16, 8000)):
        model = simulate(annotators, features, judgements)
        begin = time.process_time()
        report = Gibbs(draws=1000).infer(model, 1)[1]
        ess = ", ".join(f"{name} {value:.0f}" for name, value in report.ess_bulk.items())
        print(
            f"{annotators} x {features} x {judgements:,}, {judgements // annotators} each: ESS {ess}; "
            f"R-hat {max(report.rhat.values()):.3f}; {time.process_time() - begin:.0f} CPU s. {report.notes[0]}",
            flush=True,
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in dataclasses.asdict(Size()).items():
        parser.add_argument(f"--{name.replace('_', '-')}", type=int, default=default)
    parser.add_argument("--only", nargs="+", choices=["em", "gibbs", "nuts", "svi"], default=["em", "gibbs", "nuts"])
    parser.add_argument("--small", action="store_true")
    parser.add_argument("--large", action="store_true")
    parser.add_argument("--cost", action="store_true")
    parser.add_argument("--mixing", action="store_true")
    parser.add_argument("--pymc")
    options = parser.parse_args()
    if options.small:
        vars(options).update(annotators=40, features=4, judgements=2000)
    if options.large:
        vars(options).update(annotators=10_000, features=32, judgements=1_000_000, draws=100, warmup=40)
        options.only = [name for name in options.only if name in ("em", "gibbs")]
    print(f"{os.cpu_count()} cores, {sys.version.split()[0]}, load {os.getloadavg()[0]:.1f}")
    if options.cost:
        cost()
    elif options.mixing:
        mixing()
    else:
        compare(options)


@dataclasses.dataclass(frozen=True)
class Size:
    """What is run, unless told otherwise."""

    annotators: int = 200
    features: int = 16
    judgements: int = 40_000
    draws: int = 1000
    warmup: int = 200
    thin: int = 1
    nuts_draws: int = 300
    pymc_draws: int = 300
    repeat: int = 1


if __name__ == "__main__":
    main()
