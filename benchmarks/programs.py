"""Welfare programs: beside one cvxpy program, at full size, and what they cost against every axis.

python benchmarks/programs.py              # beside cvxpy with Clarabel, and the hard case (two minutes)
python benchmarks/programs.py --large      # 200 draws x 10,000 voters x 10,000 prompts x 8 candidates, 32 features
python benchmarks/programs.py --prompts    # 2,000 prompts, each judged by itself, side by side and one by one
python benchmarks/programs.py --cost       # seconds against draws, voters, prompts, candidates and features
"""

import argparse
import resource
import time

import cvxpy as cp
import numpy as np

from pluralign import choice
from pluralign.types import Linear, Utilities

RISKS = (choice.Mean(), choice.CVaR(0.25))
RULES = (
    choice.Utilitarian(),
    choice.Nash(),
    choice.AlphaFair(2.0),
    choice.Gini(),
    choice.VoterCVaR(0.25),
    choice.KLRobust(0.2),
    choice.Maximin(),
)


def dense(draws: int, voters: int, prompts: int, candidates: int, seed: int = 0) -> Utilities:
    """Utilities without structure."""
    rng = np.random.default_rng(seed)
    shape = (draws, voters, prompts, candidates)
    value = rng.normal(size=(1, *shape[1:])) + 0.5 * rng.normal(size=shape)
    utilities = Utilities(value, np.full(voters, 1 / voters), np.full(shape[2:], 1 / candidates))
    return choice.rescale(utilities, choice.StdScale())


def linear(draws: int, voters: int, prompts: int, candidates: int, features: int, seed: int = 0) -> Utilities:
    """Utilities that are linear in features, in logits, with room above 0 for rules that need it."""
    rng = np.random.default_rng(seed)
    own = 0.5 * rng.normal(size=features) + rng.normal(size=(voters, features))
    weights = np.empty((draws, voters, features))
    for s in range(draws):
        weights[s] = own + 0.3 * rng.normal(size=(voters, features))
    phi = rng.normal(size=(prompts, candidates, features)) / np.sqrt(features)
    value = Linear(phi, weights, np.full((draws, voters), 12.0))
    return Utilities(value, np.full(voters, 1 / voters), np.full((prompts, candidates), 1 / candidates))


def stated(rule: choice.AbstractWelfare, risk: choice.AbstractRisk, utilities: Utilities, beta: float) -> np.ndarray:
    """Return the lottery of the same program, stated in full for a conic solver."""
    reference, value = utilities.reference, utilities.dense()
    p = cp.Variable(reference.size, nonneg=True)
    u = cp.reshape(value.reshape(-1, reference.size) @ p / len(reference), value.shape[:2], order="C")
    rows = np.kron(np.eye(len(reference)), np.ones(reference.shape[1]))
    divergence = cp.sum(cp.rel_entr(p, reference.ravel())) / len(reference)
    welfare = risk.combine(rule.welfare(u, utilities.mass))
    cp.Problem(cp.Maximize(welfare - beta * divergence), [rows @ p == 1]).solve(solver=cp.CLARABEL)
    return p.value.reshape(reference.shape)


def timed(rule: choice.AbstractRule, utilities: Utilities, risk: choice.AbstractRisk, beta: float) -> str:
    start, spent = time.perf_counter(), time.process_time()
    found = rule.choose(utilities, risk, beta).certificate
    wall, cpu = time.perf_counter() - start, time.process_time() - spent
    return f"{wall:>9.2f}{cpu:>9.2f}{found.cuts:>6}{found.tv_bound:>10.0e}"


def beside() -> None:
    print("One program by cuts and by cvxpy with Clarabel, dense utilities without structure")
    print(
        f"{'draws x voters x prompts x candidates':<40}{'rule':<12}{'cuts, s':>9}{'cvxpy, s':>10}{'ratio':>8}{'TV':>9}"
    )
    for size in ((8, 8, 32, 8), (16, 16, 64, 8), (32, 32, 128, 8)):
        utilities = dense(*size)
        for rule in (choice.Nash(), choice.Maximin()):
            start = time.perf_counter()
            ours = rule.choose(utilities, choice.CVaR(0.25), 0.1).lottery
            own = time.perf_counter() - start
            start = time.perf_counter()
            theirs = stated(rule, choice.CVaR(0.25), utilities, 0.1)
            peer = time.perf_counter() - start
            apart = np.abs(ours - theirs).sum(-1).mean() / 2
            name = " x ".join(map(str, size))
            print(f"{name:<40}{rule.name:<12}{own:>9.3f}{peer:>10.2f}{peer / own:>8.0f}{apart:>9.0e}", flush=True)
    print("\nThe hard case: a minimum over voters in many draws, no structure, hardly any price: 64 x 50 x 128 x 8")
    print(f"{'rule':<14}{'risk':<8}{'beta':>6}{'wall, s':>9}{'CPU, s':>9}{'cuts':>6}{'TV bound':>10}")
    utilities = dense(64, 50, 128, 8)
    for risk in RISKS:
        for beta in (0.1, 0.01):
            row = timed(choice.Maximin(), utilities, risk, beta)
            print(f"{'maximin':<14}{risk.kind:<8}{beta:>6}{row}", flush=True)


def large() -> None:
    utilities = linear(200, 10_000, 10_000, 8, 32)
    print("200 draws x 10,000 voters x 10,000 prompts x 8 candidates, 32 features, beta 0.1")
    print(f"{'rule':<14}{'risk':<8}{'wall, s':>9}{'CPU, s':>9}{'cuts':>6}{'TV bound':>10}{'peak, GB':>10}")
    for rule in RULES:
        for risk in RISKS:
            row = timed(rule, utilities, risk, 0.1)
            peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
            print(f"{rule.name:<14}{risk.kind:<8}{row}{peak:>10.2f}", flush=True)


def prompts() -> None:
    utilities = dense(16, 16, 2000, 8)
    print("2,000 prompts judged by themselves, 16 draws x 16 voters x 8 candidates, beta 0.1; CPU ms a prompt")
    print(
        f"{'rule':<14}{'risk':<8}{'together':>10}{'of 50, one by one':>20}{'cuts':>6}{'TV, mean':>10}{'apart, TV':>11}"
    )
    few = Utilities(utilities.dense()[:, :, :50], utilities.mass, utilities.reference[:50])
    for rule in (choice.Nash(), choice.Gini(), choice.KLRobust(0.2), choice.Maximin()):
        for risk in RISKS:
            start = time.process_time()
            found = choice.each_prompt(rule, utilities, risk, 0.1)
            own, start = time.process_time() - start, time.process_time()
            alone = [rule.choose(one(few, x), risk, 0.1).lottery[0] for x in range(50)]
            peer = time.process_time() - start
            apart = np.abs(found.lottery[:50] - alone).sum(-1).max() / 2
            cuts, certified = found.certificate.cuts / 2000, found.certificate.tv_bound
            cells = f"{own / 2:>10.2f}{1000 * peer / 50:>20.2f}{cuts:>6.0f}{certified:>10.0e}{apart:>11.0e}"
            print(f"{rule.name:<14}{risk.kind:<8}{cells}", flush=True)


def one(utilities: Utilities, x: int) -> Utilities:
    return Utilities(utilities.dense()[:, :, x : x + 1], utilities.mass, utilities.reference[x : x + 1])


def cost() -> None:
    base = {"draws": 50, "voters": 500, "prompts": 500, "candidates": 8, "features": 32}
    print(f"CPU seconds, best of 3, at {base} and with one axis twice and four times as large; beta 0.1, CVaR")
    print(f"{'axis':<12}{'nash x1':>9}{'x2':>7}{'x4':>7}{'maximin x1':>13}{'x2':>7}{'x4':>7}")
    for axis in base:
        told = []
        for rule in (choice.Nash(), choice.Maximin()):
            for times in (1, 2, 4):
                utilities, spent = linear(**base | {axis: times * base[axis]}), []
                for _ in range(3):
                    start = time.process_time()
                    rule.choose(utilities, choice.CVaR(0.25), 0.1)
                    spent.append(time.process_time() - start)
                told.append(min(spent))
        cells = "".join(f"{t:>{w}.2f}" for t, w in zip(told, (9, 7, 7, 13, 7, 7), strict=True))
        print(f"{axis:<12}{cells}", flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--large", action="store_true")
    parser.add_argument("--prompts", action="store_true")
    parser.add_argument("--cost", action="store_true")
    given = parser.parse_args()
    if given.large:
        large()
    elif given.prompts:
        prompts()
    elif given.cost:
        cost()
    else:
        beside()
