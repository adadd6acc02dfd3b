import json

import numpy as np
import pytest
from datasets import Dataset

from pluralign import artifacts
from pluralign.errors import InputError
from pluralign.types import Choices, Feedback, FitReport, Grades, RewardPosterior, Truth


def feedback() -> Feedback:
    items = Dataset.from_dict({"prompt_id": [0, 0], "prompt": ["p", "p"], "response": ["a", "ü\n"], "source": ["", ""]})
    annotators = Dataset.from_dict({"id": ["x"], "weight": [1.0]})
    choices = Choices(*(np.array(a) for a in ([[0, 1]], [[0, 1]], [0], [0], [-1])))
    truth = Truth(np.array([[1.0, 2.0]]), ("f", "g"), np.array([True]))
    return Feedback(items, annotators, ("overall",), choices, Grades.none(), {"rows": 1, "why": None}, truth)


def same(a, b) -> None:
    assert type(a) is type(b)
    for name, value in vars(a).items():
        other = getattr(b, name)
        if isinstance(value, np.ndarray):
            assert value.dtype == other.dtype
            np.testing.assert_array_equal(value, other)
        elif isinstance(value, Dataset):
            assert value.to_dict() == other.to_dict()
        elif hasattr(value, "__dict__") and not isinstance(value, FitReport):
            same(value, other)
        else:
            assert value == other


def test_feedback_and_posterior_come_back_as_they_were(tmp_path):
    same(artifacts.load(artifacts.save(feedback(), tmp_path / "f"), Feedback), feedback())
    fit = FitReport("NUTS", 2, 3, 0, {"w": 1.0}, {"w": 5.0}, {"w": 6.0}, 1.5, ("bad",), ("note",))
    draws = np.ones((6, 1, 1, 2), np.float32)
    posterior = RewardPosterior(draws, np.ones(1), ("v",), None, {"lapse": np.zeros((6, 1))}, ("f", "g"), fit)
    loaded = RewardPosterior.load(posterior.save(tmp_path / "p"))
    assert loaded.fit == fit
    np.testing.assert_array_equal(loaded.weights, draws)
    np.testing.assert_array_equal(loaded.rater["lapse"], np.zeros((6, 1)))


def test_the_key_is_read_back_and_a_missing_artifact_has_none(tmp_path):
    artifacts.save(feedback(), tmp_path / "f", key="k1")
    assert artifacts.key_of(tmp_path / "f") == "k1"
    assert artifacts.key_of(tmp_path / "g") is None


def test_a_changed_file_a_wrong_type_and_a_missing_folder_are_refused(tmp_path):
    path = artifacts.save(feedback(), tmp_path / "f")
    with pytest.raises(InputError, match="holds a Feedback, not a RewardPosterior"):
        RewardPosterior.load(path)
    with pytest.raises(InputError, match="holds no artifact"):
        RewardPosterior.load(tmp_path / "g")
    (path / "arrays.npz").write_bytes(b"other")
    with pytest.raises(InputError, match="was changed since"):
        artifacts.load(path, Feedback)


def test_a_write_that_fails_leaves_the_old_artifact(tmp_path, monkeypatch):
    path = artifacts.save(feedback(), tmp_path / "f", key="old")
    monkeypatch.setattr(artifacts, "write_json", lambda *_: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(OSError, match="disk full"):
        artifacts.save(feedback(), path, key="new")
    monkeypatch.undo()
    assert [p.name for p in tmp_path.iterdir() if p.name != "cache"] == ["f"]
    assert artifacts.key_of(path) == "old"
    assert artifacts.load(path, Feedback).objectives == ("overall",)


def test_json_is_strict(tmp_path):
    path = artifacts.write_json(
        tmp_path / "x.json", {"a": np.array([1.0, np.nan]), "b": (1, np.int32(2)), "c": feedback().truth}
    )
    read = json.loads(path.read_text(), parse_constant=lambda _: pytest.fail("not strict JSON"))
    assert read == {
        "a": [1.0, None],
        "b": [1, 2],
        "c": {"weights": [[1.0, 2.0]], "features": ["f", "g"], "careless": [True]},
    }


def test_digest_tells_type_shape_and_order():
    a = np.arange(4)
    digests = [artifacts.digest(x) for x in (a, a.reshape(2, 2), a.astype(float), a[::-1])]
    digests += [artifacts.digest("ab", "c"), artifacts.digest("a", "bc")]
    assert len(set(digests)) == len(digests)
