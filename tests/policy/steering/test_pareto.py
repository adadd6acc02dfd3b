import json
from itertools import combinations

import numpy as np
import pytest

from pluralign.errors import InputError
from pluralign.policy.steering import Front, hypervolume, on_front


def by_inclusion_and_exclusion(points, reference):
    """Volume of a union of boxes with a common corner: alternating sums of intersections."""
    sides = np.maximum(np.asarray(points) - reference, 0)
    return sum(
        (-1) ** (k + 1) * np.min(subset, axis=0).prod()
        for k in range(1, len(sides) + 1)
        for subset in combinations(sides, k)
    )


@pytest.mark.parametrize("groups", [1, 2, 3, 4, 6])
@pytest.mark.parametrize("n", [1, 2, 7])
def test_volume_as_by_inclusion_and_exclusion(groups, n):
    rng = np.random.default_rng(10 * groups + n)
    for _ in range(10):
        points = np.round(rng.normal(1, 1, (n, groups)), 1)  # rounded: some coordinates are equal
        corner = np.round(rng.normal(0, 0.3, groups), 1)
        assert hypervolume(points, corner) == pytest.approx(by_inclusion_and_exclusion(points, corner), abs=1e-9)


@pytest.mark.parametrize("groups", [2, 3, 5])
def test_volume_as_by_monte_carlo(groups):
    rng = np.random.default_rng(groups)
    points = np.abs(rng.normal(size=(40, groups)))
    points /= np.linalg.norm(points, axis=1, keepdims=True)  # on a sphere: all on the front
    assert on_front(points).all()
    x = rng.random((200_000, groups))
    inside = np.zeros(len(x), bool)
    for p in points:
        inside |= (x <= p).all(1)
    error = (inside.mean() * (1 - inside.mean()) / len(x)) ** 0.5
    assert abs(hypervolume(points, np.zeros(groups)) - inside.mean()) < 4 * error


@pytest.mark.parametrize(("groups", "steps"), [(2, 50), (3, 9), (4, 5)])
def test_volume_under_a_staircase_on_the_simplex(groups, steps):
    """Grid points with sum `steps` + d - 1 and entries from 1: unit cubes below them are those with sum of cells < steps."""
    grid = np.array(list(np.ndindex(*(steps,) * groups))) + 1.0
    points = grid[grid.sum(1) == steps + groups - 1]
    cubes = (grid.sum(1) <= steps + groups - 1).sum()
    assert hypervolume(points, np.zeros(groups)) == pytest.approx(cubes)
    assert hypervolume(points * 0.5, np.zeros(groups)) == pytest.approx(cubes / 2**groups)


def test_only_what_is_above_the_reference_counts():
    points = np.array([[3.0, 1.0], [1.0, 3.0], [-1.0, 9.0], [2.0, 0.5], [1.0, 3.0]])
    assert hypervolume(points, np.zeros(2)) == pytest.approx(3 + 2)
    assert hypervolume(points, np.array([4.0, 4.0])) == 0
    assert hypervolume(points, np.array([-2.0, 0.0])) == pytest.approx(5 + 3 * 2 + 1 * 6)


def test_dominated_points_are_off_the_front_and_equal_ones_on_it():
    points = np.array([[1.0, 0, 0], [0, 1, 0], [0, 0, 1], [0.5, 0, 0], [1, 0, 0], [1, 0, -1], [0.2, 0.2, 0.2]])
    assert on_front(points).tolist() == [True, True, True, False, True, False, True]
    rng = np.random.default_rng(0)
    for groups in (1, 2, 4):
        points = rng.integers(0, 4, size=(30, groups))
        expected = [not any(all(q >= p) and any(q > p) for q in points) for p in points]
        assert on_front(points.astype(float)).tolist() == expected


def test_shares_of_draws_and_intervals():
    rng = np.random.default_rng(0)
    common = rng.normal(0, 10, size=(4000, 1, 1))  # uncertain about all alike: does not matter
    base = np.array([[2.0, 0.0], [0.0, 2.0], [1.9, -0.1]])
    noise = np.zeros((4000, 3, 2))
    noise[:, 2] = rng.normal(0, 0.2, size=(4000, 1))
    front = Front.of(("a", "b", "c"), ("left", "right"), base + common + noise)
    assert front.on.tolist() == [True, True, False]
    assert front.share[1] == 1
    # c is on the front if its noise exceeds 0.1, and then a is off it: a normal tail
    assert front.share[2] == pytest.approx(0.3085, abs=0.03)
    assert front.share[0] == pytest.approx(1 - front.share[2])
    alone = Front.of(("a", "b"), ("left", "right"), base[:2] + 1)
    assert alone.volume.mean == pytest.approx(3 + 2)
    assert alone.volume.low == alone.volume.high == alone.volume.mean
    assert alone.worst.tolist() == [1, 1]


def test_volumes_of_draws_make_the_interval():
    sizes = np.linspace(1, 2, 101)
    front = Front.of(("a",), ("g", "h", "i"), np.broadcast_to(sizes[:, None, None], (101, 1, 3)), np.zeros(3))
    assert front.volume.mean == pytest.approx((sizes**3).mean())
    assert (front.volume.low, front.volume.high) == pytest.approx((1.05**3, 1.95**3))


def test_the_table_holds_what_a_picture_needs():
    rng = np.random.default_rng(0)
    front = Front.of(
        ("a", "b"), ("g", "h"), rng.normal(size=(200, 2, 2)) + np.array([[3.0, 0], [1, 2]]), np.array([0.5, 0])
    )
    table = json.loads(json.dumps(front.table()))  # plain
    assert table["groups"] == ["g", "h"]
    assert table["reference"] == [0.5, 0]
    assert [p["name"] for p in table["points"]] == ["a", "b"]
    assert table["points"][0]["worst"] == pytest.approx(front.welfare[:, 0, 1].mean())
    assert table["points"][1]["worst"] == pytest.approx(front.welfare[:, 1, 0].mean() - 0.5)
    assert table["points"][0]["welfare"][1]["low"] == pytest.approx(np.quantile(front.welfare[:, 0, 1], 0.05))
    assert table["volume"]["mean"] == front.volume.mean


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: hypervolume(np.zeros((2, 0)), np.zeros(0)), "one number per group"),
        (lambda: hypervolume(np.full((2, 2), np.nan), np.zeros(2)), "finite"),
        (lambda: Front.of(("a",), ("g", "h"), np.zeros((2, 2))), "for 1 policies and 2 groups"),
        (lambda: Front.of(("a",), ("g", "h"), np.full((1, 2), np.inf)), "finite"),
    ],
)
def test_what_is_refused(call, message):
    with pytest.raises(InputError, match=message):
        call()
