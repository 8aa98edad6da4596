"""State, loss and the one jitted training step."""

import jax
import jax.numpy as jnp
import optax

from blt_jax import models
from blt_jax.config import Run, Train
from blt_jax.parallel import rules
from blt_jax.train import optimizer


def compute(train: Train, platform):
    """The Compute of a run on "cpu", "gpu" or "tpu". dtype "auto": bfloat16 where matrix units want it (design, 9)."""
    name = train.dtype
    if name == "auto":
        name = "float32" if platform == "cpu" else "bfloat16"
    return models.Compute(jnp.dtype(name), train.remat)


def nats(params, batch, config, compute):
    """Cross-entropy of each target in nats, float32 [B, L]; 0 where loss_mask_BxL is 0."""
    logits_BxLxV = models.apply(params, batch, config, compute)
    losses = optax.softmax_cross_entropy_with_integer_labels(logits_BxLxV, batch["targets_BxL"])
    return losses * batch["loss_mask_BxL"]


def new_state(run: Run, mesh):
    """{"params", "moments", "step"}: float32 parameters, optimiser state, int32 step; sharded over `mesh`."""
    key = jax.random.key(run.train.seed)
    tx = optimizer.transform(run.optimizer)

    def make(key):
        params = models.init(key, run.model)
        return {"params": params, "moments": tx.init(params), "step": jnp.int32(0)}

    return jax.jit(make, out_shardings=state_shardings(run, mesh))(key)


def state_shardings(run: Run, mesh):
    """Shardings of `new_state`: moments lie like their parameters, scalars everywhere."""
    shapes = models.shapes(run.model)
    params = rules.parameter_shardings(mesh, shapes, models.logical_axes(run.model))
    whole = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec())
    moments = jax.eval_shape(optimizer.transform(run.optimizer).init, shapes)
    is_params = lambda x: jax.tree.structure(x) == jax.tree.structure(shapes)  # noqa: E731
    moments = jax.tree.map(lambda x: params if is_params(x) else whole, moments, is_leaf=is_params)
    return {"params": params, "moments": moments, "step": whole}


def make_step(run: Run, mesh):
    """jitted (state, batch, schedule) -> (state, metrics); state is donated.

    The loss is the mean over the targets of the global batch. Metrics are scalars: nats and text_bytes
    (sums over the batch), loss, grad_norm (before clipping), learning_rate.
    """
    tx = optimizer.transform(run.optimizer)
    how = compute(run.train, mesh.devices.flat[0].platform)

    def step(state, batch, schedule):
        def loss(params):
            total = nats(params, batch, run.model, how).sum()
            return total / jnp.maximum(batch["loss_mask_BxL"].sum(), 1), total

        (mean, total), gradient = jax.value_and_grad(loss, has_aux=True)(state["params"])
        updates, moments = tx.update(gradient, state["moments"], state["params"])
        rate = optimizer.learning_rate(state["step"].astype(jnp.float32), schedule)
        params = jax.tree.map(lambda w, u: w - rate * u, state["params"], updates)
        metrics = {
            "nats": total,
            "text_bytes": batch["bytes_BxL"].sum(),
            "loss": mean,
            "grad_norm": optax.tree.norm(gradient),
            "learning_rate": rate,
        }
        return {"params": params, "moments": moments, "step": state["step"] + 1}, metrics

    state = state_shardings(run, mesh)
    return jax.jit(
        step, donate_argnums=0, in_shardings=(state, rules.batch_sharding(mesh), None), out_shardings=(state, None)
    )
