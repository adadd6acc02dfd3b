"""How many judgements it takes: power on communities small enough to fit in seconds."""

import io
from dataclasses import replace

import numpy as np
import pytest
from rich.console import Console
from scipy.stats import binom

from pluralign import choice, cli, config, features, feedback, power, reward
from pluralign.errors import InputError
from pluralign.reward.together import fit_together
from pluralign.types import FitReport, RewardPosterior

STYLES = {"warmth": ("dear", "lovely"), "detail": ("exactly", "because")}
GROUPS = (feedback.Group("many", 6, {"warmth": 1.5}), feedback.Group("few", 2, {"detail": 1.5}))
COMMUNITY = feedback.Community(GROUPS, STYLES, prompts=10, candidates=4, spread=0.0, careless=0.0, tie=None)
EXPERIMENT = config.Experiment(
    COMMUNITY,
    features.Lexicon(STYLES),
    reward=reward.Hierarchical(group="group", response=reward.PLAIN),
    rules=(choice.Utilitarian(), choice.Maximin()),
    draws=60,
)
UNEQUAL = power.Claim(("few", "maximin"), ("few", "utilitarian"))
QUICK = reward.NUTS(draws=60, warmup=100, max_tree_depth=6)


def found(
    experiment: config.Experiment, claim: power.Claim, judgements: tuple[int, ...], repeats: int
) -> tuple[power.Point, ...]:
    found = power.analyse(
        experiment, claim, annotators=(8,), judgements=judgements, repeats=repeats, inference=QUICK, seed=1
    )
    assert [(p.annotators, p.judgements, p.repeats) for p in found.points] == [(8, j, repeats) for j in judgements]
    return found.points


def at_most_alpha(stated: int, repeats: int) -> bool:
    return stated <= binom.ppf(0.999, repeats, 0.05)


@pytest.mark.slow
def test_power_grows_with_judgements():
    little, much = found(EXPERIMENT, UNEQUAL, (2, 40), 16)
    assert little.stated + little.wrong <= 8
    assert much.true == 16  # the rules truly differ for the few
    assert much.stated >= 13
    assert not at_most_alpha(much.stated, 16)


@pytest.mark.slow
def test_equal_groups_are_told_apart_at_most_as_often_as_alpha():
    """A hierarchical posterior draws groups together, so it may stay below alpha, but not rise above.

    Of groups that are exactly alike, the claim is never true.
    """
    equal = tuple(replace(g, size=4, tastes={"warmth": 1.0}) for g in GROUPS)
    same = replace(EXPERIMENT, feedback=replace(COMMUNITY, groups=equal))
    claim = power.Claim(("many", "utilitarian"), ("few", "utilitarian"))
    (point,) = found(same, claim, (30,), 40)
    assert (point.true, point.stated, point.power) == (0, 0, None)
    assert at_most_alpha(point.wrong, 40)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::pluralign.errors.ConvergenceWarning")
def test_fits_together_are_fits_alone():
    votes = [replace(COMMUNITY, judgements=20, seed=s).load() for s in range(3)]
    phi = [features.Lexicon(STYLES).encode(v) for v in votes]
    nuts = reward.NUTS(draws=250, warmup=150)
    together = fit_together(EXPERIMENT.reward, votes, phi, inference=nuts)
    alone = EXPERIMENT.reward.fit(votes[1], phi[1], inference=nuts, seed=3)
    centre, sd = alone.weights.mean(0), alone.weights.std(0)
    off = [np.abs(p.weights.mean(0) - centre).max() / sd.mean() for p in together]
    assert off[1] < 0.35 < min(off[0], off[2])  # in posterior standard deviations: the same feedback, and others
    np.testing.assert_allclose(together[1].weights.std(0), sd, rtol=0.35)
    assert together[1].voters == alone.voters
    assert together[1].rater.keys() == alone.rater.keys()


def test_feedbacks_of_different_shape_are_not_fitted_together():
    votes = [replace(COMMUNITY, judgements=j).load() for j in (5, 6)]
    phi = [features.Lexicon(STYLES).encode(v) for v in votes]
    with pytest.raises(InputError, match="as many annotators and judgements"):
        fit_together(EXPERIMENT.reward, votes, phi, inference=QUICK)
    with pytest.raises(InputError, match="rank is 2"):
        fit_together(EXPERIMENT.reward, votes, phi, inference=reward.SVI(rank=2))


def test_the_margin_of_a_claim():
    """By hand: a's gain is (1 * 2 + 3 * 1) / 3 = 5/3 in the first draw and 1 in the second; b's is 1 and 2."""
    gain = {"r": np.array([[2.0, 1.0, 1.0], [1.0, 1.0, 2.0]]), "s": np.array([[0.0, 0.0, 9.0], [1.5, 1.5, 9.0]])}
    mass = np.array([0.2, 0.1, 0.7])
    member = {"a": np.array([True, True, False]), "b": np.array([False, False, True])}
    for more, less, margin in (
        (("a", "r"), ("b", "r"), (2 / 3, -1)),
        (("b", "s"), ("a", "r"), (22 / 3, 8)),
        (("a", "s"), ("a", "r"), (-5 / 3, 1 / 2)),
    ):
        np.testing.assert_allclose(power.Claim(more, less).margin(gain, mass, member), margin)
        np.testing.assert_allclose(power.Claim(less, more).margin(gain, mass, member), np.negative(margin))


@pytest.mark.parametrize("item_spread", [0.0, 2.0])
def test_whether_a_claim_is_true_is_found_by_hand(item_spread):
    """Where the posterior is wrong about everyone, what is true still comes from what the annotators want."""
    groups = tuple(replace(g, item_spread=item_spread) for g in GROUPS)
    source = replace(COMMUNITY, groups=groups, prompts=4)
    votes, e = source.load(), replace(EXPERIMENT, feedback=source, scale=choice.NoScale())
    phi = features.Lexicon(STYLES).encode(votes)
    weights = -np.where(np.array(votes.attribute("group"))[:, None] == "many", [1.5, 0], [0, 1.5])
    fit = FitReport("made up", 1, 1, 0, {}, {}, {}, 0)
    voters = tuple(votes.annotators["id"])
    posterior = RewardPosterior(weights[None, :, None], np.full(8, 1 / 8), voters, None, {}, phi.names, fit)
    claim = power.Claim(("many", "utilitarian"), ("few", "utilitarian"))
    probability, true = power._found(e, source, claim, votes, phi, posterior)
    lottery = e.rules[0].choose(choice.utilities(posterior, phi, scale=e.scale), risk=e.risk, beta=e.beta).lottery
    gain = {"many": [], "few": []}
    for a, group in enumerate(votes.attribute("group")):
        total = 0.0
        for i, row in enumerate(votes.items):
            words = row["response"].split()
            u = sum(
                w * sum(x in STYLES[s] for x in words) for s, w in {g.name: g for g in GROUPS}[group].tastes.items()
            )
            u = votes.provenance["utility"][a][i] if item_spread else u
            total += (lottery[i // 4, i % 4] - 1 / 4) * u / 4
        gain[group].append(total)
    margin = np.mean(gain["many"]) - np.mean(gain["few"])
    assert abs(margin) > 0.1
    assert true == (margin > 0)
    if not item_spread:
        assert probability != true  # the posterior has it the wrong way round


def test_the_interval_is_that_of_wilson():
    """From his formula: (p + z^2 / 2n -+ z sqrt(p q / n + z^2 / 4 n^2)) / (1 + z^2 / n), p = 0.8, n = 10, z = 1.96."""
    point = power.Point(8, 10, repeats=12, true=10, stated=8, wrong=1)
    assert point.interval == pytest.approx((0.4902, 0.9433), abs=1e-4)
    never = replace(point, true=0, stated=0)
    assert (never.power, never.interval) == (None, (0.0, 1.0))


def test_the_table_names_the_fewest_judgements_and_fits_80_columns():
    grid = (
        power.Point(10, 40, 20, true=20, stated=20, wrong=0),
        power.Point(20, 10, 20, true=10, stated=8, wrong=2),  # 16 of 20, if what is false counted
        power.Point(40, 5, 20, true=20, stated=15, wrong=0),
        power.Point(5, 5, 20, true=0, stated=0, wrong=3),
    )
    found = power.Power("a longer claim about guardians under maximin and utilitarian", 0.05, grid, ("is loose", "b"))
    assert found.enough == grid[1]
    console = Console(width=80, record=True, file=io.StringIO())
    console.print(found)
    text = console.export_text()
    assert "20 annotators with 10 each" in text
    assert "† 2 caveats of the fits; the first: is loose" in text
    assert "10 of 20" in text and "2 of 10" in text and "n/a" in text
    assert "false of most communities" in text
    assert max(map(len, text.splitlines())) <= 80
    assert power.Power("x", 0.05, grid[2:]).enough is None


@pytest.mark.parametrize(
    ("total", "sizes"), [(8, [6, 2]), (16, [12, 4]), (2, [1, 1]), (3, [2, 1]), (100, [75, 25]), (11, [8, 3])]
)
def test_groups_keep_their_proportions(total, sizes):
    assert [g.size for g in power._resized(COMMUNITY, total)] == sizes


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"claim": power.Claim(("none", "maximin"), ("few", "maximin"))}, "group 'none'; allowed: many, few"),
        ({"claim": power.Claim(("few", "nash"), ("few", "maximin"))}, "rule 'nash'; allowed: utilitarian, maximin"),
        ({"annotators": (1,)}, "annotators is 1, but there are 2 groups"),
        ({"annotators": ()}, "nothing to try; name at least one number of annotators"),
        ({"repeats": 0}, "repeats is 0"),
        ({"alpha": 1.0}, "alpha 1.0"),
        ({"experiment": replace(EXPERIMENT, feedback=feedback.Table("v.csv", prompt="p", first="a", second="b",
            outcome="o", annotator="w"))}, "kind 'table', use `kind: community`"),
        ({"experiment": replace(EXPERIMENT, feedback=replace(COMMUNITY, groups=(
            replace(GROUPS[0], objectives={"kind": {}, "short": {"detail": -1.0}}), GROUPS[1])))},
            "objectives kind, short; a power analysis takes one"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_named(change, message):
    given = {"experiment": EXPERIMENT, "claim": UNEQUAL, "annotators": (8,)} | change
    with pytest.raises(InputError, match=message):
        power.analyse(given.pop("experiment"), given.pop("claim"), **given)


def test_a_claim_is_two_different_words():
    assert power.Claim.parse("few:maximin", "few:utilitarian") == UNEQUAL
    with pytest.raises(InputError, match="'few' names no group and rule"):
        power.Claim.parse("few", "few:maximin")
    with pytest.raises(InputError, match="with itself"):
        power.Claim.parse("few:maximin", "few:maximin")


def test_the_command_hands_everything_over(tmp_path, monkeypatch, capsys):
    (tmp_path / "c.yaml").write_text(config.dump(EXPERIMENT))
    seen = {}

    def analyse(experiment, claim, **given):
        seen.update(given, experiment=experiment, claim=claim)
        return "done"

    monkeypatch.setattr(power, "analyse", analyse)
    words = f"power {tmp_path}/c.yaml --more few:maximin --less few:utilitarian --annotators 8 16 --beta 0.3".split()
    cli.main(words)
    assert "done" in capsys.readouterr().out
    assert (seen["claim"], seen["annotators"], seen["experiment"].beta) == (UNEQUAL, (8, 16), 0.3)
