"""Training, the facade and generation cut a document alike, by a rule that reads ids and entropies."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import blt_jax
from blt_jax import patching as port
from blt_jax.config import BYTE_OFFSET
from blt_jax.data import pack
from blt_jax.data.store import Store, write_entropies
from blt_jax.families.lm.config import Lm
from blt_jax.patching import Patching, Rule, live, row_starts
from blt_jax.patching.row_layout import lengths_to_starts
from blt_jax.study import prepare
from tests.data.corpus import made
from tests.interop.test_facade import BLT, LOCAL, save_run

VOWELS = np.frombuffer(b"aeiou", np.uint8).astype(np.int32) + BYTE_OFFSET


class SureVowel(Rule):
    """A patch begins after a vowel that left the next byte clearer than the byte before it did."""

    reads = ("ids", "entropies")

    def decide(self, ids, entropies, patching):
        falls = entropies[..., 1:] < entropies[..., :-1] - np.float32(patching.threshold)
        return np.isin(ids[..., 1:], VOWELS) & falls

    def remember(self, ids, entropies, patching):
        return {"entropy": np.float32(entropies[-1])}

    def step(self, memory, position_B, ids_B, entropy_B, patching):
        vowel_B = (ids_B[:, None] == VOWELS).any(axis=-1)
        falls_B = entropy_B < memory["entropy"] - np.float32(patching.threshold)
        return {"entropy": entropy_B}, vowel_B & falls_B


@pytest.fixture
def patching(monkeypatch):
    monkeypatch.setitem(port.RULES, "sure vowel", f"{__name__}:SureVowel")
    return Patching("sure vowel", threshold=0.001, max_length=9)


def test_one_cut_everywhere(patching, tmp_path):
    save_run(tmp_path / "entropy_model", Lm(LOCAL))
    save_run(tmp_path / "runs" / "blt", BLT, patching)
    model = blt_jax.load(tmp_path / "runs" / "blt")
    bare = made(tmp_path / "store", count=12, largest=120)
    entropies = [model.entropies(bare.ids(i)[None])[0] for i in range(len(bare))]
    write_entropies(tmp_path / "store", "train", entropies, "test")
    store = Store(tmp_path / "store", "train")

    calibration = prepare.calibrated("blt", patching, store, tmp_path / "calibration.json")
    flags_of = lambda i: row_starts.document_starts(store, i, patching)
    pack.build_index(store, tmp_path / "rows", positions=64, starts_of=flags_of)
    index = pack.StartFlags(store, tmp_path / "rows")
    never = Patching("entropy", threshold=1e9, max_length=patching.max_length)
    patches = free = 0  # of all, those that the rule began
    step = jax.jit(lambda state, *new: live.step(state, *new, patching))
    for i in range(len(store)):
        ids, measured = store.ids(i), store.entropies(i).astype(np.float32)
        trained = index.read(i)
        patches += trained.sum()
        free += trained.sum() - row_starts.starts(ids, measured, never).sum()
        facade = lengths_to_starts(model.patch_lengths(ids[None])[0])
        np.testing.assert_array_equal(trained, facade[:-1], f"document {i}")
        state = live.after([ids[:1]], [measured[:1]], patching)
        for t in range(1, len(ids)):
            state, start_B = step(state, jnp.array(ids[t : t + 1]), jnp.array(measured[t : t + 1]))
            assert bool(start_B[0]) == facade[t + 1], (i, t)
    assert calibration.patches == patches and free > 20


class Unreadable:
    """A store in which reading ids, or entropies, is an error."""

    def __init__(self, store, **values):
        self.sizes, self._store, self._values = store.sizes, store, values

    def __getattr__(self, name):
        if name not in self._values:
            raise AssertionError(f"{name} were read")
        return self._values[name]


@pytest.mark.parametrize("rule, reads", [("entropy", "entropies"), ("space", "ids"), ("byte", "")])
def test_only_what_the_rule_reads_is_read(rule, reads, tmp_path):
    store = made(tmp_path, count=1)
    readable = {
        "ids": store.ids,
        "entropies": lambda i: np.zeros(int(store.sizes[i]) + 2, np.float16),
    }
    some = Unreadable(store, **{name: value for name, value in readable.items() if name == reads})
    flags = row_starts.document_starts(some, 1, Patching(rule))
    assert flags.shape == (store.sizes[1] + 2,)
