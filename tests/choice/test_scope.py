"""Each prompt judged by itself."""

import numpy as np
import pytest

from pluralign import choice
from pluralign.errors import InputError
from pluralign.types import Utilities


def test_nobodys_loss_on_one_prompt_is_made_good_on_another():
    """On each prompt one voter could have all; over both together, turn about is fair and costs nothing."""
    value = np.array([[[3.0, 1.0], [0.0, 1.0]], [[0.0, 1.0], [3.0, 1.0]]])[None]
    utilities = Utilities(value, [0.5, 0.5], np.full((2, 2), 0.5))
    together = choice.Maximin().choose(utilities, beta=0.01)
    np.testing.assert_allclose(together.lottery, [[1, 0], [1, 0]], atol=1e-3)
    apart = choice.each_prompt(choice.Maximin(), utilities, beta=0.01)
    np.testing.assert_allclose(apart.lottery, [[0, 1], [0, 1]], atol=1e-3)
    assert apart.weights is None
    assert apart.reward is None


@pytest.mark.parametrize("rule", [choice.Maximin(), choice.Nash(), choice.Gini()], ids=lambda r: r.name)
def test_each_row_is_the_rules_choice_on_one_prompt(make, rule):
    utilities = make(seed=4)
    chosen = choice.each_prompt(rule, utilities, choice.CVaR(0.5), beta=0.2, scale=choice.RangeScale())
    value, reference = utilities.dense(), utilities.reference
    for x in range(3):
        on = reference[x] > 0
        alone = Utilities(value[:, :, x : x + 1, on], utilities.mass, reference[x : x + 1, on])
        row = rule.choose(choice.rescale(alone, choice.RangeScale()), choice.CVaR(0.5), 0.2)
        np.testing.assert_allclose(chosen.lottery[x, on], row.lottery[0], atol=1e-4)
        assert (chosen.lottery[x, ~on] == 0).all()
    assert chosen.certificate.tv_bound <= 1e-3


@pytest.mark.parametrize("rule", [choice.Utilitarian(), choice.Borda(), choice.MaximalLottery()], ids=lambda r: r.name)
def test_rules_that_look_at_one_prompt_at_a_time_do_not_change(make, rule):
    utilities = make(seed=4)
    apart, together = choice.each_prompt(rule, utilities, beta=0.2), rule.choose(utilities, beta=0.2)
    np.testing.assert_allclose(apart.lottery, together.lottery, atol=1e-6)
    assert apart.certificate.value == pytest.approx(together.certificate.value, abs=1e-6)


def test_the_prompt_that_cannot_be_judged_is_named():
    value = np.array([[[1.0, 2.0], [-1.0, -2.0]], [[1.0, 2.0], [1.0, 2.0]]])[None]
    utilities = Utilities(value, [0.5, 0.5], np.full((2, 2), 0.5), prompts=(3, 8))
    with pytest.raises(InputError, match="prompt 8, judged by itself: nash needs positive utilities"):
        choice.each_prompt(choice.Nash(), utilities)
