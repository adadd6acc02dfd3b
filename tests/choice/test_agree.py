import numpy as np
import pytest

from pluralign import choice
from pluralign.errors import InputError
from pluralign.types import Certificate, Choice, Utilities


def chosen(name, lottery) -> Choice:
    lottery = np.asarray(lottery, float)
    utilities = Utilities(np.zeros((1, 1, *lottery.shape)), [1.0], np.full(lottery.shape, 1 / lottery.shape[1]))
    certificate = Certificate(0.0, 0.0, 0.0, 0.0, 0, 0.0)
    return Choice(name, lottery, None, None, 0.1, "mean", certificate, utilities)


A = chosen("a", [[0.5, 0.3, 0.2], [1, 0, 0]])
B = chosen("b", [[0.3, 0.5, 0.2], [1, 0, 0]])
C = chosen("c", [[0.0, 0.5, 0.5], [0, 0, 1]])


def test_agreement_by_hand():
    found = choice.agreement([A, B, C])
    assert found.names == ("a", "b", "c")
    np.testing.assert_allclose(found.tv, [[0, 0.1, 0.75], [0.1, 0, 0.65], [0.75, 0.65, 0]])
    np.testing.assert_allclose(found.same, [[1, 0.5, 0], [0.5, 1, 0.5], [0, 0.5, 1]])


def test_a_mapping_gives_its_own_names():
    found = choice.agreement({"x": A, "y": A})
    assert found.names == ("x", "y")
    np.testing.assert_allclose(found.tv, 0)


def test_what_cannot_be_compared_is_refused():
    with pytest.raises(InputError, match="at least one"):
        choice.agreement([])
    with pytest.raises(InputError, match="a different name"):
        choice.agreement([A, A])
    with pytest.raises(InputError, match="d and a were made for different candidates"):
        choice.agreement([A, chosen("d", [[1.0, 0]])])
