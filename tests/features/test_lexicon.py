import math
import re

import numpy as np
import pytest

from pluralign.errors import InputError
from pluralign.features import Encoder, Lexicon

KIND = {"warm": ("dear", "love", "don't"), "cold": ("no", "don't")}
RESPONSES = ["Dear, DEAR me: I love-love it", "No. don't; nobody don't!", "", "Élan vital, lover"]


def test_counts_are_those_made_by_hand(feedback):
    votes = feedback([0, 0, 1, 1], ["love"] * 2 + ["no no"] * 2, RESPONSES)
    phi = Lexicon(KIND, length=True).encode(votes)
    assert phi.names == ("warm", "cold", "length")
    # Words: dear dear me i love love it | no don't nobody don't | none | lan vital lover.
    expected = [[4, 0, math.log(8)], [2, 3, math.log(5)], [0, 0, 0], [0, 0, math.log(4)]]
    np.testing.assert_allclose(phi.phi, expected, rtol=1e-6)
    np.testing.assert_array_equal(phi.prompt_id, [0, 0, 1, 1])
    np.testing.assert_array_equal(phi.basis, np.eye(3))
    assert phi.provenance["words"] == 14
    without = Lexicon(KIND).encode(votes)
    np.testing.assert_array_equal(without.phi, np.array(expected)[:, :2])


def test_new_responses_and_copies_count_alike(feedback):
    lexicon = Lexicon(KIND)
    like = lexicon.encode(feedback([0, 0, 0], ["?"] * 3, [RESPONSES[0], RESPONSES[1], RESPONSES[0]]))
    np.testing.assert_array_equal(like.phi[0], like.phi[2])
    np.testing.assert_array_equal(lexicon.encode_texts(["?"] * 2, RESPONSES[:2], like), like.phi[:2])
    assert lexicon.encode_texts([], [], like).shape == (0, 2)


def test_features_of_another_map_are_refused(feedback, bert):
    like = Lexicon(KIND).encode(feedback([0], ["?"], ["no"]))
    with pytest.raises(InputError, match="categories = "):
        Lexicon({"warm": ("dear",), "cold": ("no",)}).encode_texts(["?"], ["no"], like)
    with pytest.raises(InputError, match="kind = 'lexicon', this map has 'encoder'"):
        Encoder(str(bert)).encode_texts(["why"], ["salt"], like)
    with pytest.raises(InputError, match="2 prompts for 1 responses"):
        Lexicon(KIND).encode_texts(["?", "?"], ["no"], like)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"categories": {}}, "categories is empty"),
        ({"categories": {"warm": ()}}, "categories['warm'] has no words"),
        ({"categories": {"warm": ("dear", "no", "dear")}}, "lists ['dear'] more than once"),
        ({"categories": {"warm": ("Dear", "so what", "ok")}}, "lists ['Dear', 'so what'], which no text can contain"),
        ({"categories": {"length": ("long",)}, "length": True}, "a 'length' of its own"),
    ],
)
def test_a_lexicon_that_cannot_count_is_refused(fields, message):
    with pytest.raises(InputError, match=re.escape(message)):
        Lexicon(**fields)


def test_feedback_without_items_is_refused(feedback):
    with pytest.raises(InputError, match="no items"):
        Lexicon(KIND).encode(feedback([], [], []))
