"""The axiom cards of every rule, computed, for docs/axioms.md.

python benchmarks/axioms.py                  # writes docs/axioms.json (some minutes)
python benchmarks/axioms.py borda schulze    # prints the cards of these rules, with witnesses
"""

import argparse
import json
import time
from pathlib import Path

from pluralign import choice
from pluralign.choice import axioms

PROFILES, TRIES, SEED = 100, 60, 0
FEW = 25
SLOW = ("nash-lottery", "egalitarian-lottery", "nash-bargaining", "linear-kemeny")  # milliseconds for each outcome
ORDERS = (
    choice.Plurality(),
    choice.Borda(),
    choice.Positional(),
    choice.IRV(),
    choice.Copeland(),
    choice.Minimax(),
    choice.Schulze(),
    choice.RankedPairs(),
    choice.Kemeny(),
    choice.Black(),
    choice.Condorcet(),
    choice.MaximalLottery(),
    choice.RandomDictatorship(),
)
APPROVALS = (choice.Approval(), choice.NashLottery(), choice.EgalitarianLottery())
LINEAR = (choice.LCPO(), choice.LeximaxPlurality(), choice.LinearKemeny())
UTILITIES = (
    choice.Utilitarian(),
    choice.AlphaFair(alpha=0.5),
    choice.Nash(),
    choice.AlphaFair(alpha=2.0),
    choice.OWA(),
    choice.Gini(),
    choice.VoterCVaR(),
    choice.KLRobust(),
    choice.ChiSquareRobust(),
    choice.TotalVariationRobust(),
    choice.NashBargaining(),
    choice.KalaiSmorodinsky(),
    choice.Maximin(),
    choice.Leximin(),
)
KINDS = {"orders": ORDERS, "approvals": APPROVALS, "utilities": UTILITIES, "linear": LINEAR}
OUT = Path(__file__).parents[1] / "docs" / "axioms.json"


def told(rule: choice.AbstractRule) -> tuple[axioms.Card, dict[str, dict]]:
    """Return a rule's card, and what is written of it."""
    clock = time.perf_counter()
    some = FEW if rule.name in SLOW else PROFILES
    card = axioms.card(rule, some, tries=min(TRIES, some), seed=SEED)
    print(f"{rule.name}: {len(card.broken)} broken, {time.perf_counter() - clock:.1f} s", flush=True)
    return card, {
        name: {
            "profiles": card.profiles,
            "tried": one.tried,
            "refused": one.refused,
            "witness": one.violation and str(one.violation),
        }
        for name, one in card.findings.items()
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("rules", nargs="*")
    asked = parser.parse_args().rules
    if asked:
        for rule in (rule for rules in KINDS.values() for rule in rules if rule.name in asked):
            print(told(rule)[0])
        return
    found = {kind: {rule.name: told(rule)[1] for rule in rules} for kind, rules in KINDS.items()}
    settings = {"profiles": PROFILES, "tries": TRIES, "seed": SEED}
    OUT.write_text(json.dumps({**settings, "cards": found}, indent=1) + "\n")


if __name__ == "__main__":
    main()
