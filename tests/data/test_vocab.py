"""Bytes <-> ids."""

import numpy as np

from blt_jax.data import vocab


def test_published_example():
    assert vocab.encode(b"hello").tolist() == [1, 108, 105, 112, 112, 115, 2]
    assert vocab.encode(b"", eos=False).tolist() == [1] and vocab.encode(
        b"a", bos=False, eos=False
    ).tolist() == [101]


def test_every_byte_round_trips_and_specials_vanish():
    text = bytes(range(256))
    assert vocab.decode(vocab.encode(text)) == text
    assert vocab.decode([0, 1, 2, 3, 4, 259]) == b"\x00\xff"
    assert vocab.encode(text).dtype == np.int32
