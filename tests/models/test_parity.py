"""Forward pass and gradients against an independent implementation, on its own random weights."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from blt_jax import models
from tests.reference import hf_fixture

# Two right float32 implementations agree to about 5e-6 here; the fixtures' README allows 1e-3.
TOLERANCE = 5e-5

NAMES = [
    "blt_entropy",
    "blt_entropy_first_layer",
    "blt_1b_structure",
    "blt_max_patch",
    "blt_explicit_lengths",
    "blt_encoder_all_layers",
    "blt_documents",
]
STATES = {
    "encoder_BxLxE": "encoder_hidden",
    "patches_BxPxKE": "patch_embeds",
    "latent_BxPxD": "global_hidden",
    "logits_BxLxV": "logits",
}


@pytest.mark.parametrize("name", NAMES)
def test_states_and_logits(name):
    config, weights, io, meta = hf_fixture.load(name)
    blt, _ = hf_fixture.configs(config)
    params = hf_fixture.params(weights, blt)
    shapes = jax.tree.map(jnp.shape, params)
    assert shapes == jax.tree.map(jnp.shape, models.shapes(blt)), "parameter trees differ"
    model = models.module(blt)
    cases = sorted({key.rsplit(".", 1)[0] for key in io if key.endswith(".logits")})
    batches = [hf_fixture.batch(io[f"{case}.input_ids"], io[f"{case}.patch_lengths"]) for case in cases]
    rows = np.cumsum([0] + [len(batch["ids_BxL"]) for batch in batches])
    states = jax.jit(lambda p, b: model.apply({"params": p}, b, method="states"))(params, padded_together(batches))
    for case, batch, begin, end in zip(cases, batches, rows[:-1], rows[1:], strict=True):
        length, slots = batch["ids_BxL"].shape[1], batch["patch_segment_BxP"].shape[1]
        owned = (batch["patch_BxL"][:, :, None] == np.arange(slots)).any(1)  # a patch of only the next byte is unread
        for ours, theirs in STATES.items():
            size, mask = (length, slice(None)) if "L" in ours else (slots, owned)
            error = np.abs(states[ours][begin:end, :size] - io[f"{case}.{theirs}"])[mask].max()
            assert error < TOLERANCE, f"{case} {theirs}: {error}"


def padded_together(batches, length=96):
    """All rows of all cases as one batch: what is padding must not matter."""
    fill = {"patch_BxL": length, "read_BxL": length - 1}
    pad = lambda key, x: np.pad(x, ((0, 0), (0, length - x.shape[1])), constant_values=fill.get(key, 0))  # noqa: E731
    return {key: np.concatenate([pad(key, batch[key]) for batch in batches]) for key in batches[0]}


@pytest.mark.parametrize("name", ["blt_entropy", "blt_entropy_first_layer", "blt_documents"])
def test_entropies(name):
    config, weights, io, _ = hf_fixture.load(name)
    _, lm = hf_fixture.configs(config)
    params = hf_fixture.patcher_params(weights, lm)
    cases = [key.rsplit(".", 1)[0] for key in io if key.endswith(".entropies")]
    batches = [hf_fixture.batch(io[f"{case}.input_ids"], io[f"{case}.patch_lengths"]) for case in cases]
    logp = jax.nn.log_softmax(jax.jit(lambda p, b: models.apply(p, b, lm))(params, padded_together(batches)), axis=-1)
    ours, row = -(jnp.exp(logp) * logp).sum(-1), 0
    for case in cases:
        theirs = io[f"{case}.entropies"]
        error = np.abs(ours[row : row + len(theirs), : theirs.shape[1]] - theirs).max()
        assert error < TOLERANCE, f"{case}: {error}"
        row += len(theirs)


@pytest.mark.parametrize("name", NAMES)
def test_gradients(name):
    config, weights, io, meta = hf_fixture.load(name)
    if not any(key.startswith("grad.") for key in io):
        pytest.skip(f"{name} holds no gradients")
    blt, _ = hf_fixture.configs(config)
    case = meta["grad_case"]
    ids = io[f"{case}.input_ids"]
    batch = hf_fixture.batch(ids, io[f"{case}.patch_lengths"])

    def loss(params):
        logp = jax.nn.log_softmax(models.apply(params, batch, blt)[:, :-1], axis=-1)
        return -jnp.take_along_axis(logp, ids[:, 1:, None], axis=-1).mean()

    ours = jax.jit(jax.grad(loss))(hf_fixture.params(weights, blt))
    known = {key[len("grad.") :]: value for key, value in io.items() if key.startswith("grad.")}
    theirs = hf_fixture.params({key: known.get(key, np.full_like(w, np.nan)) for key, w in weights.items()}, blt)
    compared = 0
    for a, b in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True):
        known_here = ~np.isnan(b)
        compared += known_here.sum()
        assert np.abs(np.where(known_here, a - np.nan_to_num(b), 0)).max() < TOLERANCE
    assert compared > 0
