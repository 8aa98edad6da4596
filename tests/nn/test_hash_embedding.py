"""Hash ids against published vectors, numpy's wrapping int64, and the parity fixture."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from blt_jax.nn.embedding import lookup
from blt_jax.nn.hash_embedding import PRIMES, HashEmbedding, hash_ids
from tests.reference.hf_fixture import FIXTURES

HELLO = np.array([[1, 108, 105, 112, 112, 115, 2]])

VECTORS = [
    (3, 0, [443987, 25397, 266194, 386177, 358223, 190185, 428891]),
    (4, 0, [437197, 152135, 18458, 126626, 246609, 30240, 64575]),
    (8, 0, [172383, 265781, 240974, 110592, 127974, 137413, 181921]),
    (3, 1, [45033, 365687, 37366, 65361, 10661, 145767, 405875]),
]


@pytest.mark.parametrize("n, function, expected", VECTORS)
def test_published_vectors(n, function, expected):
    assert hash_ids(HELLO, n, function, 500_002)[0].tolist() == expected


@pytest.mark.parametrize("rows", [503, 50_002, 2**20, 30_000_001, 2**31 - 1])
def test_equals_wrapping_int64(rows):
    ids = np.random.default_rng(rows).integers(0, 260, (2, 300))
    for function in range(len(PRIMES)):
        for n in (1, 3, 8):
            total = np.zeros(ids.shape, np.int64)
            with np.errstate(over="ignore"):
                for j in range(n):
                    shifted = np.pad(ids, ((0, 0), (n - 1 - j, 0)))[:, : ids.shape[1]]
                    power = np.uint64(pow(PRIMES[function], j, 2**64)).astype(np.int64)
                    total += shifted.astype(np.int64) * power
            assert np.array_equal(hash_ids(ids, n, function, rows), total % rows)


def test_fixture():
    safetensors = pytest.importorskip("safetensors.numpy")
    folder = FIXTURES / "hashing"
    if not folder.exists():
        pytest.skip("parity fixtures are not beside this checkout")
    arrays = safetensors.load_file(folder / "hash.safetensors")
    assert tuple(json.loads((folder / "meta.json").read_text())["primes"]) == PRIMES
    for rows in (500_002, 30_000, 503):
        expected = arrays[f"hash_{rows}"]
        for function in range(len(PRIMES)):
            for s, n in enumerate(range(3, 9)):
                assert np.array_equal(
                    hash_ids(arrays["input_ids"], n, function, rows), expected[function, s]
                )


def test_newest_order_is_the_mirror_image():
    ids = np.random.default_rng(0).integers(4, 260, (1, 3))
    assert (
        hash_ids(ids, 3, 0, 500_002, order="newest")[0, 2]
        == hash_ids(ids[:, ::-1], 3, 0, 500_002)[0, 2]
    )


def embed(short, scope, ids, segment):
    module = HashEmbedding((3,), 1, 503, 4, short, "oldest", scope)
    params = module.init(jax.random.key(0), ids, segment)
    return module.apply(params, ids, segment)


def test_document_scope_makes_a_packed_document_equal_to_it_alone():
    ids = jnp.array([[1, 50, 60, 2, 1, 70, 80, 2]])
    segment = jnp.array([[1, 1, 1, 1, 2, 2, 2, 2]])
    alone = embed("pad", "document", ids[:, 4:], segment[:, 4:])
    assert np.array_equal(embed("pad", "document", ids, segment)[:, 4:], alone)
    assert not np.array_equal(embed("pad", "row", ids, segment)[:, 4:], alone)


def test_omitted_ngrams_add_nothing():
    ids, segment = jnp.array([[9, 9, 9, 9]]), jnp.ones((1, 4), jnp.int32)
    found = embed("omit", "row", ids, segment)
    assert not found[0, :2].any() and found[0, 2:].any(axis=-1).all()


def test_lookup_and_its_gradient_equal_the_one_hot_product():
    """Repeated rows add up, and id R (here 7) neither reads nor writes."""
    table, weight = (
        np.random.default_rng(i).normal(size=shape).astype(np.float32)
        for i, shape in enumerate([(7, 3), (2, 5, 3)])
    )
    ids = np.random.default_rng(2).integers(0, 8, (4, 2, 5))
    one_hot = np.eye(8, dtype=np.float32)[ids][..., :7]
    found, gradient = jax.value_and_grad(
        lambda t: (lookup(t, jnp.array(ids), jnp.float32) * weight).sum()
    )(table)
    np.testing.assert_allclose(
        found, (np.einsum("tblr,re->ble", one_hot, table) * weight).sum(), rtol=1e-5
    )
    np.testing.assert_allclose(gradient, np.einsum("tblr,ble->re", one_hot, weight), atol=1e-5)
