import numpy as np
import pytest

from pluralign.errors import InputError
from pluralign.types import Choices, Features, Linear, Utilities

rng = np.random.default_rng(0)


def utilities(**changes) -> Utilities:
    fields = {"value": rng.normal(size=(2, 3, 4, 5)), "mass": [0.2, 0.3, 0.5], "reference": np.full((4, 5), 0.2)}
    return Utilities(**(fields | changes))


def test_linear_utilities_say_what_their_dense_form_says():
    phi, weights, offset = rng.normal(size=(4, 5, 6)), rng.normal(size=(2, 3, 6)), rng.normal(size=(2, 3))
    linear = utilities(value=Linear(phi, weights, offset))
    by_hand = np.array(
        [
            [[[phi[x, y] @ weights[s, v] + offset[s, v] for y in range(5)] for x in range(4)] for v in range(3)]
            for s in range(2)
        ]
    )
    np.testing.assert_allclose(linear.dense(), by_hand, atol=1e-12)
    dense = utilities(value=by_hand)
    lottery = rng.dirichlet(np.ones(5), size=4)
    np.testing.assert_allclose(linear.expected(lottery), dense.expected(lottery), atol=1e-12)
    np.testing.assert_allclose(
        dense.expected(lottery),
        [[sum(lottery[x] @ by_hand[s, v, x] for x in range(4)) / 4 for v in range(3)] for s in range(2)],
    )
    multipliers = rng.random((2, 3))
    np.testing.assert_allclose(linear.weighted(multipliers), dense.weighted(multipliers), atol=1e-12)
    np.testing.assert_allclose(linear.of(phi[0])[1, 2], by_hand[1, 2, 0], atol=1e-12)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"mass": [0.2, 0.3, 0.4]}, r"mass sums to 0.9"),
        ({"mass": [0.7, 0.5, -0.2]}, "negative entry"),
        ({"reference": np.full((4, 5), 0.1)}, r"reference\[0\] sums to 0.5"),
        ({"value": np.full((2, 3, 4, 5), np.nan)}, r"value\[0, 0, 0, 0\] is nan"),
        ({"value": np.zeros((2, 3, 4, 6))}, "reference is"),
    ],
)
def test_utilities_name_the_offending_value(changes, message):
    with pytest.raises(InputError, match=message):
        utilities(**changes)


def test_a_choice_needs_a_best_item_and_no_rank_in_an_empty_slot():
    with pytest.raises(InputError, match="no 0"):
        Choices([[0, 1]], [[1, 2]], [0], [0], [-1])
    with pytest.raises(InputError, match="empty slot"):
        Choices([[0, -1]], [[0, 1]], [0], [0], [-1])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"prompt_id": [0, 0]}, r"prompt_id must be \[item\] = \[3\]"),
        ({"prompt_id": [0, 0, -1]}, "prompt_id has a negative entry"),
        ({"names": ("a",)}, "1 names, 2 features"),
        ({"basis": np.eye(3)}, "basis must be"),
        ({"phi": [[0, 0], [0, np.inf], [0, 0]]}, r"phi\[1, 1\] is inf"),
    ],
)
def test_features_name_the_offending_value(changes, message):
    fields = {
        "phi": np.eye(3)[:, :2],
        "prompt_id": [0, 0, 1],
        "names": ("a", "b"),
        "origin": [1, 1],
        "basis": np.eye(2),
    }
    assert Features(**fields).prompt_id.tolist() == [0, 0, 1]
    with pytest.raises(InputError, match=message):
        Features(**(fields | changes))
