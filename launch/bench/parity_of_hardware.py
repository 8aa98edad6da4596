"""Are BLT's FLOP savings real? Achieved FLOP/s of a BLT over that of a token LM with as many FLOPs
per byte.

FLOPs are `executed`: the matrix products of the traced training step (forward and backward, no
optimiser), padding, masks and recomputation included (`blt_jax/flops/trace.py`). The token LM has
the BLT's latent width and as many layers as bring its executed FLOPs per byte nearest; its tokens
stand for 4.5 bytes. Both read the same number of text bytes. The ratio is of FLOP/s: 1 means that
BLT's FLOPs run as fast as the token model's. `share_of_matmul` is FLOP/s over those of one large
square matrix product in the same run: what the device gives at best.
"""

import dataclasses
import functools
from typing import Any, cast

import jax
import numpy as np

from blt_jax.config import Stack
from blt_jax.families import Model, network, preset
from blt_jax.families.blt.config import Blt
from blt_jax.families.lm.config import Lm
from blt_jax.families.network import PLAIN, backend_of, nats
from blt_jax.flops import hardware, trace
from launch.bench import shapes

TOKEN_BYTES = 4.5


def measure(quick: bool = False) -> dict[str, Any]:
    platform = jax.default_backend()
    cases: list[tuple[str, Blt, int, int, int]]
    if platform == "cpu":
        cases = [
            ("8M", shapes.blt(), 4096, length, 2) for length in ((1024,) if quick else (2048, 8192))
        ]
        compute = PLAIN
    else:
        cases = [
            (name, cast(Blt, preset(f"blt-{name}")), 128_000, 8192, 2)
            for name in (("400m",) if quick else ("400m", "1b"))
        ]
        compute = dataclasses.replace(
            PLAIN, dtype=jax.numpy.bfloat16, attention=backend_of(platform), remat="full"
        )
    rows, reach = [], shapes.matmul_rate(compute.dtype)
    for name, blt, vocab, length, count in cases:
        blt = dataclasses.replace(blt, hash_rows=min(blt.hash_rows, 50_000))  # lookups are no FLOPs
        tokens = round(length / TOKEN_BYTES)
        pair: dict[str, tuple[Model, Any]] = {"blt": (blt, shapes.bytes_batch(count, length))}
        aim = _flops(*pair["blt"], compute)
        ids = np.random.default_rng(1).integers(0, vocab, (count, tokens + 1)).astype(np.int32)
        batch = shapes.unit_batch(ids)
        token_lm = functools.partial(_token_lm, blt.latent, vocab)
        flops_at = functools.partial(_flops_at, token_lm, batch, compute)
        layers = shapes.layers_for(aim, flops_at)
        pair["tokens"] = (token_lm(layers), batch)
        speeds = {side: _speed(*pair[side], compute) for side in pair}
        for side, (flops, seconds) in speeds.items():
            rows.append(
                {
                    "size": name,
                    "model": side if side == "blt" else f"{layers}-layer token LM",
                    "row_bytes": length,
                    "executed_FLOPs_per_byte": flops / (count * length),
                    "bytes_per_s": count * length / seconds,
                    "GFLOP_per_s": flops / seconds / 1e9,
                    "share_of_matmul": flops / seconds / reach,
                    "MFU": hardware.mfu(
                        flops / seconds, jax.devices()[0].device_kind, np.dtype(compute.dtype).name
                    ),
                    "ratio_of_FLOP_per_s": (flops / seconds)
                    / (speeds["tokens"][0] / speeds["tokens"][1]),
                }
            )
    return {"tables": {f"training step, executed FLOPs, {np.dtype(compute.dtype).name}": rows}}


def _token_lm(latent: Stack, vocab: int, layers: int) -> Lm:
    return Lm(Stack(layers, latent.width, latent.heads), vocab, "token")


def _flops_at(token_lm, batch, compute, layers: int) -> float:
    return _flops(token_lm(layers), batch, compute)


def _gradient(config, compute):
    return jax.jit(jax.value_and_grad(lambda p, b: nats(p, b, config, compute).mean()))


def _flops(config, batch, compute):
    return trace.count(_gradient(config, compute), network.shapes(config), batch).flops


def _speed(config, batch, compute):
    """(executed FLOPs, seconds) of a step."""
    params = jax.jit(lambda key: network.init(key, config))(jax.random.key(0))
    step, batch = _gradient(config, compute), jax.device_put(batch)
    return _flops(config, batch, compute), shapes.fastest(lambda: step(params, batch), 4)
