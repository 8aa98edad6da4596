"""Forward and backward of one batch: ours against transformers' `blt`, on the same weights and
patches.

Both in float32 on the same cores, 2 rows, random bytes, patches of 4.5 bytes in the mean. Each
figure is made by a process of its own, ours and the peer's in turn: seconds of the fastest of a few
steps after one that warms up, and the largest resident memory of the whole process. "local" is our
model with a latent model of width 16, which shows how encoder, decoder and cross-attention grow
with the length. Exponents are slopes of log seconds over log length. A peer that is killed for
memory, or takes longer than the limit, is named so.
"""

import argparse
import json
import math
import resource
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from blt_jax.config import ConfigError
from launch.bench import child, shapes

ROWS = 2
LENGTHS, QUICK = (512, 1024, 2048, 4096, 8192, 16384), (256, 512)
LIMIT = 420  # seconds for a process
SIDES = ("ours", "local", "peer")


def measure(quick: bool = False) -> dict[str, Any]:
    try:
        import transformers
    except ImportError:
        raise ConfigError(
            "suite train_step: the peer is missing; pip install -e '.[peer]'"
        ) from None
    import jax

    from blt_jax.families import network
    from blt_jax.interop import huggingface

    lengths = QUICK if quick else LENGTHS
    config = shapes.blt()
    sides: dict[str, dict[int, dict[str, Any]]] = {side: {} for side in SIDES}
    with tempfile.TemporaryDirectory() as folder:
        huggingface.save(
            folder, config, jax.tree.map(np.asarray, network.init(jax.random.key(0), config))
        )
        for length in lengths:
            for side in SIDES:
                given_up = sides[side] and "failed" in list(sides[side].values())[-1]
                result: dict[str, Any] = {"failed": "not tried"}
                if not given_up:
                    result = child.measured(__name__, folder, side, length, limit=LIMIT)
                sides[side][length] = result
                print(f"train_step: {side} at {length} bytes: {result}", flush=True)
    rows = []
    for length in lengths:
        ours, local, peer = (sides[side][length] for side in SIDES)
        rows.append(
            {
                "bytes": length,
                "ours_bytes_per_s": _speed(ours, length),
                "peer_bytes_per_s": _speed(peer, length),
                "ratio": peer["seconds"] / ours["seconds"] if "seconds" in peer else None,
                "ours_s": ours.get("seconds"),
                "local_s": local.get("seconds"),
                "peer_s": peer.get("seconds", peer.get("failed")),
                "ours_MiB": ours.get("mebibytes"),
                "peer_MiB": peer.get("mebibytes"),
                "loss_difference": abs(peer["loss"] - ours["loss"]) if "loss" in peer else None,
            }
        )
    half = [n for n in lengths if n >= lengths[-1] // 8]
    exponents = [
        {
            "side": side,
            "all_lengths": growth_exponent(sides[side], lengths),
            f"from_{half[0]}": growth_exponent(sides[side], half),
        }
        for side in SIDES
    ]
    return {
        "peer": f"transformers {transformers.__version__}",
        "tables": {"forward + backward, 2 rows, float32": rows, "growth exponent": exponents},
    }


def _speed(result: Mapping[str, Any], length: int) -> float | None:
    """Bytes/s of a measurement; None where it failed."""
    return ROWS * length / result["seconds"] if "seconds" in result else None


def growth_exponent(
    by_length: Mapping[int, Mapping[str, Any]], lengths: Sequence[int]
) -> float | None:
    """Slope of log seconds over log length; None with fewer than two lengths measured."""
    known = [
        (math.log(n), math.log(by_length[n]["seconds"]))
        for n in lengths
        if "seconds" in by_length[n]
    ]
    if len(known) < 2:
        return None
    x, y = np.array(known).T
    return float(np.polyfit(x, y, 1)[0])


def _ours(folder, side, batch, repeats):
    import jax

    from blt_jax.families import network
    from blt_jax.families.network import nats
    from blt_jax.interop import huggingface

    if side == "ours":
        loaded = huggingface.load(folder)
        config, params = loaded.model, loaded.params
    else:
        config = shapes.blt(latent_width=16)
        params = network.init(jax.random.key(0), config)
    mean = lambda p, b: nats(p, b, config, network.PLAIN).mean()
    step = jax.jit(jax.value_and_grad(mean))
    params, batch = jax.device_put(params), jax.device_put(batch)
    return shapes.fastest(lambda: step(params, batch), repeats), float(step(params, batch)[0])


def _peer(folder, batch, repeats):
    import torch
    from transformers import BltForCausalLM

    model = BltForCausalLM.from_pretrained(folder, dtype=torch.float32).train()
    # The peer counts the byte after the row too; in our layout it begins a patch, so that the last
    # byte reads its own.
    patch_BxL = np.append(
        batch["patch_BxL"], batch["patch_BxL"].max(axis=1, keepdims=True) + 1, axis=1
    )
    slots = batch["patch_segment_BxP"].shape[1] + 1
    lengths = np.stack([np.bincount(row, minlength=slots) for row in patch_BxL])
    ids, targets, lengths = (
        torch.tensor(x, dtype=torch.long) for x in (batch["ids_BxL"], batch["targets_BxL"], lengths)
    )

    def step():
        model.zero_grad()
        logits = model(input_ids=ids, patch_lengths=lengths, use_cache=False).logits
        loss = torch.nn.functional.cross_entropy(
            logits.reshape(-1, logits.shape[-1]), targets.reshape(-1)
        )
        loss.backward()
        return loss.item()

    seconds = []
    for _ in range(repeats + 1):
        begin = time.perf_counter()
        loss = step()
        seconds.append(time.perf_counter() - begin)
        if seconds[-1] > LIMIT / 4:  # the first step is good enough, rather than none
            return seconds[-1], loss
    return min(seconds[1:]), loss


def _main():
    parser = argparse.ArgumentParser(description="One measurement, in a process of its own.")
    parser.add_argument("folder")
    parser.add_argument("side", choices=SIDES)
    parser.add_argument("length", type=int)
    options = parser.parse_args()
    batch = shapes.bytes_batch(ROWS, options.length)
    repeats = 5 if options.length <= 1024 else 3 if options.length <= 4096 else 1
    side = (
        _peer(options.folder, batch, repeats)
        if options.side == "peer"
        else _ours(options.folder, options.side, batch, repeats)
    )
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (
        2**20 if sys.platform == "darwin" else 2**10
    )
    print(json.dumps({"seconds": side[0], "loss": side[1], "mebibytes": round(peak)}))


if __name__ == "__main__":
    _main()
