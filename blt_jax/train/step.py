"""State, loss and the one jitted training step."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import optax

from blt_jax.config import ConfigError, Train
from blt_jax.families import network
from blt_jax.parallel import sharding
from blt_jax.parallel.run_compute import compute
from blt_jax.runs.config import Run
from blt_jax.train import bad_steps, optimizer


def new_state(run: Run, mesh: jax.sharding.Mesh) -> dict[str, Any]:
    """{"params", "moments", "step", "recent_loss"}: float32 parameters, optimiser state, int32
    step, float32 mean loss lately (`bad_steps.judge`); sharded over `mesh`.

    The backbone's layers come from `run.init.from_llama` where that is set. Raises ConfigError
    where it does not fit.
    """
    shardings = state_shardings(run, mesh)
    tx = optimizer.transform(run.optimizer)

    def make(key):
        params = network.init(key, run.model)
        return {
            "params": params,
            "moments": tx.init(params),
            "step": jnp.int32(0),
            "recent_loss": jnp.float32(0),
        }

    state = jax.jit(make, out_shardings=shardings)(jax.random.key(run.train.seed))
    if run.init.from_llama:
        # Only such a run reads safetensors.
        from blt_jax.interop.from_llama import latent_from_llama

        part = run.model.backbone
        layers = latent_from_llama(run.init.from_llama, run.model)
        state["params"][part] = jax.device_put(layers, shardings["params"][part])
    return state


def abstract_state(run: Run, mesh: jax.sharding.Mesh) -> dict[str, Any]:
    """`new_state` as jax.ShapeDtypeStructs with shardings; nothing is computed."""
    params = network.shapes(run.model)
    moments = jax.eval_shape(optimizer.transform(run.optimizer).init, params)
    scalar = lambda dtype: jax.ShapeDtypeStruct((), dtype)
    shapes = {
        "params": params,
        "moments": moments,
        "step": scalar(jnp.int32),
        "recent_loss": scalar(jnp.float32),
    }
    lay = lambda x, placement: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=placement)
    return jax.tree.map(lay, shapes, state_shardings(run, mesh))


def state_shardings(run: Run, mesh: jax.sharding.Mesh) -> dict[str, Any]:
    """Shardings of `new_state`: moments lie like their parameters (`sharding.moment_sharding`),
    scalars everywhere.
    """
    shapes, logical = network.shapes(run.model), network.logical_axes(run.model)
    params = sharding.parameter_shardings(mesh, shapes, logical)
    whole = sharding.everywhere(mesh)
    tx = optimizer.transform(run.optimizer)
    masked = lambda x: isinstance(x, optax.MaskedNode)
    moments = optax.tree.map_params(
        tx,
        lambda moment, *of: (
            moment if masked(moment) else sharding.moment_sharding(mesh, moment, *of)
        ),
        jax.eval_shape(tx.init, shapes),
        shapes,
        logical,
        transform_non_params=lambda _: whole,
        is_leaf=masked,
    )
    return {"params": params, "moments": moments, "step": whole, "recent_loss": whole}


@functools.lru_cache(maxsize=4)  # a run that goes on in the same process is not traced again
def make_step(run: Run, mesh: jax.sharding.Mesh) -> Any:
    """jitted (state, batch, schedule) -> (state, metrics); state is donated.

    The loss is the mean over the targets of the global batch, and what else the model minimises
    (`families.Losses`); with `train.device_rows`, gradients are summed over parts of it, and the
    auxiliary losses averaged: only the order of additions differs. Metrics are scalars: nats,
    text_bytes, positions and patches (sums over the batch), loss, good, learning_rate, grad_norm
    (before clipping), norms of gradient and weights by part, and the model's own. A bad step
    (`bad_steps.py`) changes nothing but the step's number where `train.bad_step` is "skip".
    """
    tx = optimizer.transform(run.optimizer)
    # A byte-ified model's latent layers are trained already: they move at a rate of their own
    # (docs/blt.md, section 11.6).
    slower = {run.model.backbone: run.init.latent_rate_factor} if run.init.from_llama else {}
    computed = compute(run.train, mesh.devices.flat[0].platform)
    layout, parts = state_shardings(run, mesh), _parts(run.train, mesh)

    def step(state, batch, schedule):
        targets = jnp.maximum(batch["loss_mask_BxL"].sum(), 1)

        def loss(params, rows):
            losses = run.model.losses(params, rows, computed)
            total = (losses.nats_BxL * rows["loss_mask_BxL"]).sum()
            mean = total / targets + losses.auxiliary / parts
            return mean, {"nats": total} | losses.metrics

        gradient_of = jax.value_and_grad(loss, has_aux=True)
        if parts == 1:
            (mean, sums), gradient = gradient_of(state["params"], batch)
        else:

            def add(so_far, rows):
                new = gradient_of(state["params"], rows)
                return lay(jax.tree.map(jnp.add, so_far, new)), None

            lay = lambda result: (
                result[0],
                jax.lax.with_sharding_constraint(result[1], layout["params"]),
            )
            cut = _cut(batch, parts, mesh)
            shapes = jax.eval_shape(gradient_of, state["params"], jax.tree.map(lambda x: x[0], cut))
            zeros = lay(jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes))
            ((mean, sums), gradient), _ = jax.lax.scan(add, zeros, cut)
        updates, moments = tx.update(gradient, state["moments"], state["params"])
        rate = optimizer.learning_rate(state["step"].astype(jnp.float32), schedule)
        rates = {part: rate * slower[part] if part in slower else rate for part in updates}
        params = {
            part: jax.tree.map(lambda w, u, part=part: w - rates[part] * u, weights, updates[part])
            for part, weights in state["params"].items()
        }
        norm = optax.tree.norm(gradient)
        good, recent = bad_steps.judge(state["recent_loss"], mean, norm, run.train.spike)
        if run.train.bad_step == "skip":
            old = state["params"], state["moments"]
            params, moments = bad_steps.keep_if(good, (params, moments), old)
        metrics = {
            "text_bytes": batch["bytes_BxL"].sum(),
            "positions": (batch["segment_BxL"] > 0).sum(),
            "patches": _given_patches(batch),
            **sums,
            "loss": mean,
            "good": good,
            "grad_norm": norm,
            "learning_rate": rate,
            "norms": {"gradient": _norms(gradient), "weights": _norms(params)},
        }
        return {
            "params": params,
            "moments": moments,
            "step": state["step"] + 1,
            "recent_loss": recent,
        }, metrics

    return jax.jit(
        step,
        donate_argnums=0,
        in_shardings=(layout, sharding.batch_sharding(mesh), None),
        out_shardings=(layout, None),
    )


def _given_patches(batch):
    """Patches that came with the batch."""
    return (batch["patch_segment_BxP"] > 0).sum() if "patch_segment_BxP" in batch else 0


def _norms(tree):
    """Euclidean norm of each part of a model; the hash tables are a part of their own."""
    parts = dict(tree)
    if "hash" in parts.get("encoder", {}):
        parts["hash"] = parts["encoder"]["hash"]
        parts["encoder"] = {key: value for key, value in parts["encoder"].items() if key != "hash"}
    return {part: optax.tree.norm(weights) for part, weights in parts.items()}


def _parts(train: Train, mesh):
    """How many times each device reads `device_rows` rows in one step. Raises ConfigError where it
    is not whole.
    """
    devices = sharding.row_devices(mesh)
    at_a_time = devices * train.device_rows or train.rows
    if train.rows % at_a_time:
        raise ConfigError(
            f"train.rows = {train.rows}: must be a multiple of {at_a_time}, train.device_rows on "
            f"{devices} devices"
        )
    return train.rows // at_a_time


def _cut(batch, parts, mesh):
    """[rows, ...] -> [parts, rows / parts, ...]; every device cuts the rows that it holds, none
    moves.
    """
    devices = sharding.row_devices(mesh)
    by_parts = jax.sharding.NamedSharding(
        mesh, jax.sharding.PartitionSpec(None, *sharding.batch_sharding(mesh).spec)
    )

    def cut(x):
        held = x.reshape(devices, parts, -1, *x.shape[1:])
        return jax.lax.with_sharding_constraint(
            held.swapaxes(0, 1).reshape(parts, -1, *x.shape[1:]), by_parts
        )

    return jax.tree.map(cut, batch)
