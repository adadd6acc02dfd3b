"""Portions of annotators: gradients against the whole, and two devices against one."""

import json
import os
import subprocess
import sys
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pluralign import reward
from pluralign.errors import InputError
from pluralign.reward.inference import _Density
from pluralign.reward.judgements import Judgements
from pluralign.reward.population import Target
from pluralign.reward.portions import Portions

PLAIN = reward.Hierarchical(response=reward.PLAIN)


def target(population, votes, phi):
    return Target(population, population.layout(votes, Judgements.read(votes, phi)))


@pytest.fixture(scope="module")
def uneven(simulation):
    """Ten annotators of two teams; the first ones judged more, and one judged nothing."""
    world = simulation.simulate(2, annotators=10, judgements=12, features=2)
    c = world.votes.choices
    index = np.arange(len(c)) % 12
    return world, world.votes.where((c.annotator != 4) & ((c.annotator < 3) | (index < 5)))


@pytest.mark.parametrize(
    "population",
    [
        reward.Hierarchical(group="team"),
        reward.Mixture(components=2, response=reward.PLAIN),
        reward.Pooled(items=reward.ItemEffects(), response=reward.PLAIN),
    ],
    ids=lambda population: population.kind,
)
def test_the_mean_over_portions_is_the_whole(uneven, population):
    world, votes = uneven
    model = target(population, votes, world.phi)
    with jax.enable_x64(True):
        portions, density = Portions.of(model, 4, 1, 0), _Density(model)
        z = density.start(jax.random.key(0), 1.0)
        whole = jax.value_and_grad(density.potential)(z)
        one = jax.jit(jax.value_and_grad(portions.potential))
        parts = [one(z, portions.data, turn) for turn in range(portions.count)]
    assert portions.count == 3
    mean = jax.tree.map(lambda *values: np.mean(values, 0), *parts)
    jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-5), mean, jax.device_get(whole))
    assert np.std([value for value, _ in parts]) > 1  # a portion alone is another number


def test_every_judgement_is_in_one_portion_with_all_others_of_its_annotator(uneven):
    world, votes = uneven
    portions = Portions.of(target(PLAIN, votes, world.phi), 3, 1, 5)
    rows = [np.concatenate([b["row"][p][b["counts"][p]] for b in portions.data["pairs"]]) for p in range(4)]
    np.testing.assert_array_equal(np.sort(np.concatenate(rows)), np.arange(len(votes.choices)))
    who = [set(votes.choices.annotator[r].tolist()) for r in rows]
    assert sum(map(len, who)) == len(set().union(*who)) == 9
    assert max(map(len, rows)) < len(votes.choices) / 2


def test_minibatches_arrive_where_all_judgements_do(simulation):
    world = simulation.simulate(11, annotators=40, judgements=40, features=2, teams=1, careless=0, tie=-20.0)
    model = target(PLAIN, world.votes, world.phi)
    whole, report = reward.SVI(steps=3000).infer(model, 0)
    parts, other = reward.SVI(steps=6000, batch=10).infer(model, 0)
    assert "10 annotators" in other.method and "annotators" not in report.method
    for name in ("centre", "weights"):
        apart = abs(parts[name].mean(0) - whole[name].mean(0)) / whole[name].std(0)
        print(
            name,
            apart.mean(),
            whole[name].mean(0).ravel()[:4],
            parts[name].mean(0).ravel()[:4],
            whole[name].std(0).ravel()[:4],
        )
        assert apart.mean() < 0.35, name


def test_a_step_is_compiled_once(simulation, caplog):
    world = simulation.simulate(1, annotators=3, judgements=5, features=1)
    with jax.log_compiles(), caplog.at_level("WARNING"):
        reward.SVI(steps=250, draws=2).infer(target(PLAIN, world.votes, world.phi), 0)
    steps = [record for record in caplog.records if record.getMessage().startswith("Compiling jit(advance)")]
    assert len(steps) == 1, [record.getMessage()[:80] for record in caplog.records]


def test_portions_need_a_population(world):
    model = partial(PLAIN.model, PLAIN.layout(world.votes, Judgements.read(world.votes, world.phi)))
    with pytest.raises(InputError, match="`batch`"):
        reward.SVI(batch=4).infer(model, 0)
    with pytest.raises(InputError, match="devices is 999"):
        PLAIN.fit(world.votes, world.phi, inference=reward.SVI(devices=999))
    with pytest.raises(InputError, match="batch is 0"):
        reward.SVI(batch=0)
    with pytest.raises(InputError, match="devices is 0"):
        reward.SVI(devices=0)


TWO = """
import json, sys
import jax
import numpy as np
sys.path.insert(0, sys.argv[1])
from conftest import simulate
from pluralign import reward
from pluralign.reward.judgements import Judgements
from pluralign.reward.population import Target

world = simulate(6, annotators=9, judgements=12, features=2)
population = reward.Hierarchical(group="team", response=reward.PLAIN)
model = Target(population, population.layout(world.votes, Judgements.read(world.votes, world.phi)))
found = {}
for devices, batch in ((1, None), (1, 5), (2, 5)):
    sites, report = reward.SVI(steps=60, draws=20, devices=devices, batch=batch).infer(model, 0)
    found[f"{devices} {batch}"] = {name: value.mean(0).tolist() for name, value in sites.items()}
print(json.dumps({"devices": len(jax.devices()), "found": found}))
"""


def test_two_devices_find_what_one_does():
    env = os.environ | {"XLA_FLAGS": "--xla_force_host_platform_device_count=2", "JAX_PLATFORMS": "cpu"}
    command = [sys.executable, "-c", TWO, os.path.dirname(__file__)]
    answer = json.loads(subprocess.run(command, env=env, check=True, capture_output=True, text=True).stdout)
    assert answer["devices"] == 2
    found = answer["found"]
    for name, value in found["1 5"].items():
        np.testing.assert_allclose(found["2 5"][name], value, rtol=2e-3, atol=2e-3, err_msg=name)
    same = [np.allclose(found["1 None"][name], found["1 5"][name], atol=1e-2) for name in found["1 None"]]
    assert not all(same)  # sixty steps with other gradients end elsewhere


def test_the_judgements_of_a_portion_lie_on_its_devices(uneven):
    world, votes = uneven
    portions = Portions.of(target(PLAIN, votes, world.phi), None, 1, 0)
    assert portions.count == 1
    assert all(bucket["x"].dtype == jnp.float32 for bucket in portions.data["pairs"])
