"""State, loss and the one jitted training step."""

import functools
import logging

import jax
import jax.numpy as jnp
import optax

from blt_jax.config import ConfigError, Train
from blt_jax.families import network
from blt_jax.parallel import sharded_embedding
from blt_jax.parallel import sharding as rules
from blt_jax.runs.config import Run
from blt_jax.train import bad_steps, optimizer

log = logging.getLogger(__name__)


@functools.cache  # so that it is logged once
def compute(train: Train, platform):
    """The Compute of a run on a jax platform. dtype "auto": bfloat16 where matrix units want it
    (ARCHITECTURE.md); attention "auto": the platform's own backend. What was chosen is logged.
    """
    dtype, attention = train.dtype, train.attention
    if dtype == "auto":
        dtype = "float32" if platform == "cpu" else "bfloat16"
    if attention == "auto":
        attention = network.backend_of(platform)
    log.info(
        "%s: compute in %s, attention by %s, remat %s", platform, dtype, attention, train.remat
    )
    return network.Compute(jnp.dtype(dtype), train.remat, attention, sharded_embedding.lookup)


def nats(params, batch, config, compute):
    """Cross-entropy of each target in nats, float32 [B, L]; 0 where loss_mask_BxL is 0."""
    return network.losses(params, batch, config, compute) * batch["loss_mask_BxL"]


def new_state(run: Run, mesh):
    """{"params", "moments", "step", "recent_loss"}: float32 parameters, optimiser state, int32
    step, float32 mean loss lately (`guard.judge`); sharded over `mesh`.

    The latent layers come from `run.init.from_llama` where that is set. Raises ConfigError where it
    does not fit.
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
        from blt_jax.interop.from_llama import (
            latent_from_llama,
        )  # only such a run reads safetensors

        latent = latent_from_llama(run.init.from_llama, run.model)
        state["params"]["latent"] = jax.device_put(latent, shardings["params"]["latent"])
    return state


def abstract_state(run: Run, mesh):
    """`new_state` as jax.ShapeDtypeStructs with shardings; nothing is computed."""
    params = network.shapes(run.model)
    moments = jax.eval_shape(optimizer.transform(run.optimizer).init, params)
    one = lambda dtype: jax.ShapeDtypeStruct((), dtype)
    shapes = {
        "params": params,
        "moments": moments,
        "step": one(jnp.int32),
        "recent_loss": one(jnp.float32),
    }
    lay = lambda x, sharding: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding)
    return jax.tree.map(lay, shapes, state_shardings(run, mesh))


def state_shardings(run: Run, mesh):
    """Shardings of `new_state`: moments lie like their parameters (`rules.moment_sharding`),
    scalars everywhere.
    """
    shapes, logical = network.shapes(run.model), network.logical_axes(run.model)
    params = rules.parameter_shardings(mesh, shapes, logical)
    whole = rules.everywhere(mesh)
    tx = optimizer.transform(run.optimizer)
    masked = lambda x: isinstance(x, optax.MaskedNode)
    moments = optax.tree.map_params(
        tx,
        lambda moment, *of: moment if masked(moment) else rules.moment_sharding(mesh, moment, *of),
        jax.eval_shape(tx.init, shapes),
        shapes,
        logical,
        transform_non_params=lambda _: whole,
        is_leaf=masked,
    )
    return {"params": params, "moments": moments, "step": whole, "recent_loss": whole}


@functools.lru_cache(maxsize=4)  # a run that goes on in the same process is not traced again
def make_step(run: Run, mesh):
    """jitted (state, batch, schedule) -> (state, metrics); state is donated.

    The loss is the mean over the targets of the global batch; with `train.device_rows`, gradients
    are summed over parts of it, and only the order of additions differs. A bad step (`guard.py`)
    changes nothing but the step's number where `train.bad_step` is "skip". Metrics are scalars:
    nats, text_bytes, positions and patches (sums over the batch), loss, good, learning_rate,
    grad_norm (before clipping), and norms of gradient and weights by part.
    """
    tx = optimizer.transform(run.optimizer)
    # A byte-ified model's latent layers are trained already: they move at a rate of their own
    # (docs/blt.md, section 11.6).
    slower = {"latent": run.init.latent_rate_factor} if run.init.from_llama else {}
    how = compute(run.train, mesh.devices.flat[0].platform)
    layout = state_shardings(run, mesh)

    parts = _parts(run.train, mesh)

    def step(state, batch, schedule):
        targets = jnp.maximum(batch["loss_mask_BxL"].sum(), 1)

        def loss(params, rows):
            total = nats(params, rows, run.model, how).sum()
            return total / targets, total

        gradient_of = jax.value_and_grad(loss, has_aux=True)
        if parts == 1:
            (mean, total), gradient = gradient_of(state["params"], batch)
        else:

            def add(sums, rows):
                new = gradient_of(state["params"], rows)
                return lay(jax.tree.map(jnp.add, sums, new)), None

            lay = lambda sums: (
                sums[0],
                jax.lax.with_sharding_constraint(sums[1], layout["params"]),
            )
            zeros = lay(
                ((jnp.float32(0), jnp.float32(0)), jax.tree.map(jnp.zeros_like, state["params"]))
            )
            ((mean, total), gradient), _ = jax.lax.scan(add, zeros, _cut(batch, parts, mesh))
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
            "nats": total,
            "text_bytes": batch["bytes_BxL"].sum(),
            "positions": (batch["segment_BxL"] > 0).sum(),
            "patches": (batch["patch_segment_BxP"] > 0).sum()
            if "patch_segment_BxP" in batch
            else 0,
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
        in_shardings=(layout, rules.batch_sharding(mesh), None),
        out_shardings=(layout, None),
    )


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
    devices = rules.row_devices(mesh)
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
    devices = rules.row_devices(mesh)
    sharding = jax.sharding.NamedSharding(
        mesh, jax.sharding.PartitionSpec(None, *rules.batch_sharding(mesh).spec)
    )

    def cut(x):
        held = x.reshape(devices, parts, -1, *x.shape[1:])
        return jax.lax.with_sharding_constraint(
            held.swapaxes(0, 1).reshape(parts, -1, *x.shape[1:]), sharding
        )

    return jax.tree.map(cut, batch)
