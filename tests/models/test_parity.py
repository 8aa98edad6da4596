"""Forward pass and gradients against an independent implementation, on its own random weights."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from blt_jax.families import hf_tensors, network
from tests.reference import hf_fixture

# Two right float32 implementations agree to about 5e-6 here; the fixtures' README allows 1e-3.
TOLERANCE = 5e-5
STATES = {
    "encoder_BxLxE": "encoder_hidden",
    "patches_BxPxKE": "patch_embeds",
    "latent_BxPxD": "global_hidden",
    "logits_BxLxV": "logits",
}


@pytest.mark.parametrize("name", hf_fixture.BLT_NAMES)
def test_states_and_logits(name):
    config, weights, io, _ = hf_fixture.load(name)
    blt, _ = hf_fixture.configs(config)
    params = hf_fixture.params(weights, blt)
    shapes = jax.tree.map(jnp.shape, params)
    assert shapes == jax.tree.map(jnp.shape, network.shapes(blt)), "parameter trees differ"
    model = blt.module(network.PLAIN)
    cases = hf_fixture.cases(io)
    batches = [
        hf_fixture.batch(io[f"{case}.input_ids"], io[f"{case}.patch_lengths"]) for case in cases
    ]
    rows = np.cumsum([0] + [len(batch["ids_BxL"]) for batch in batches])
    together = hf_fixture.padded_together(batches)
    states = hf_fixture.run(
        lambda p, b: model.apply({"params": p}, b, method="states"), params, together
    )
    errors = dict.fromkeys(STATES.values(), 0.0)
    for case, batch, begin, end in zip(cases, batches, rows[:-1], rows[1:], strict=True):
        length, slots = batch["ids_BxL"].shape[1], batch["patch_segment_BxP"].shape[1]
        owned = (batch["patch_BxL"][:, :, None] == np.arange(slots)).any(
            1
        )  # a patch of only the next byte is unread
        for ours, theirs in STATES.items():
            size, mask = (length, slice(None)) if "L" in ours else (slots, owned)
            error = np.abs(states[ours][begin:end, :size] - io[f"{case}.{theirs}"])[mask].max()
            errors[theirs] = max(errors[theirs], float(error))
            assert error < TOLERANCE, f"{case} {theirs}: {error}"
    print(name, *(f"{state} {error:.1e}" for state, error in errors.items()))


def _mean_loss(params, batch, config):
    """Mean cross-entropy (nats) of each id but the first of the rows."""
    logp = jax.nn.log_softmax(network.apply(params, batch, config)[:, :-1], axis=-1)
    return -jnp.take_along_axis(logp, batch["ids_BxL"][:, 1:, None], axis=-1).mean()


QUICK = ("blt_entropy", "llama_gqa")  # of gradients: the other fixtures are slow
ALL = [*hf_fixture.BLT_NAMES, "llama_gqa"]


@pytest.mark.parametrize(
    "name", [n if n in QUICK else pytest.param(n, marks=pytest.mark.slow) for n in ALL]
)
def test_gradients(name):
    config, weights, io, meta = hf_fixture.load(name)
    model, _ = hf_fixture.configs(config)
    if name == "llama_gqa":
        ids = io["input_ids"]
        batch = {"ids_BxL": ids, "segment_BxL": np.ones_like(ids)}
    else:
        case = meta["grad_case"]
        batch = hf_fixture.batch(io[f"{case}.input_ids"], io[f"{case}.patch_lengths"])
    grad = hf_fixture.run(
        jax.grad(lambda p, b: _mean_loss(p, b, model)), hf_fixture.params(weights, model), batch
    )
    named = dict(
        hf_tensors.from_params(grad, model.huggingface().tensors(model), network.shapes(model))
    )
    stored = {key[len("grad.") :]: value for key, value in io.items() if key.startswith("grad.")}
    assert stored and meta["grad_norms"], "the fixture holds no gradients"
    for key, theirs in stored.items():
        assert np.abs(named[key] - theirs).max() < TOLERANCE, key
    assert set(meta["grad_norms"]) == set(named), "every parameter has a gradient"
    for key, norm in meta["grad_norms"].items():
        assert abs(np.linalg.norm(named[key].astype(np.float64)) - norm) <= 1e-3 * norm, key
    errors = [np.abs(named[key] - theirs).max() for key, theirs in stored.items()]
    print(name, f"gradients {max(errors):.1e}")
