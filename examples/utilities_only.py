"""Social choice on a utility matrix of your own: no votes, no reward model, no language model.

Two groups score three answers to one question. The per-answer minimum would serve the compromise that nobody wants;
maximin over expectations mixes. Numbers: Chakraborty et al. (2024), MaxMin-RLHF, with a price on divergence.

    python examples/utilities_only.py
"""

import numpy as np

from pluralign import choice, types

value = np.array([[1.0, 0.0, 0.4], [0.0, 1.0, 0.4]]).reshape(1, 2, 1, 3)  # draw, voter, prompt, candidate
utilities = types.Utilities(value, mass=np.array([0.7, 0.3]), reference=np.full((1, 3), 1 / 3))

for rule in (choice.Utilitarian(), choice.Nash(), choice.Maximin()):
    chosen = rule.choose(utilities, beta=0.1)
    lottery, u = chosen.lottery[0], utilities.expected(chosen.lottery)[0]
    print(f"{rule.name:12} {lottery.round(3)}  utilities {u.round(3)}  certified to {chosen.certificate.tv_bound:.0e}")

maximin = choice.Maximin().choose(utilities, beta=0.1)
assert np.allclose(maximin.lottery[0], [0.42232, 0.42232, 0.15536], atol=1e-4)
assert np.allclose(utilities.expected(maximin.lottery), 0.48446, atol=1e-4)
