"""Greedy bytes of tiny models that lie on one device, and over meshes of 8 forced host devices.

    XLA_FLAGS=--xla_force_host_platform_device_count=8 JAX_PLATFORMS=cpu python -m tests.infer.eight_devices

A program of its own, as `tests/parallel/eight_devices.py`. Prints JSON: of every model and mesh the
new ids of each row, and how many parameters lie split.
"""

import json

import jax
import numpy as np

from blt_jax.config import Mesh
from blt_jax.facade import Model
from blt_jax.families import network
from blt_jax.families.blt.config import Blt
from blt_jax.interop.huggingface import Pretrained
from blt_jax.parallel import sharding
from blt_jax.parallel.mesh import make_mesh
from blt_jax.patching import Patching
from tests.infer.test_equality import PATCHER
from tests.interop.test_round_trip import random_params
from tests.parallel.eight_devices import BLT, LM

MESHES = {
    "one device": None,
    "fsdp=8": Mesh(data=1, fsdp=8),
    "tensor=4 x data=2": Mesh(data=2, tensor=4),
}
NEW = 24


def generated(config, mesh):
    """(new ids of each row, parameters that lie split)."""
    params = random_params(config)
    if mesh is not None:  # laid as training lays them
        layout = sharding.parameter_shardings(
            mesh, network.shapes(config), network.logical_axes(config)
        )
        params = jax.device_put(params, layout)
    patched = (PATCHER, random_params(PATCHER, 1), Patching("entropy", threshold=5.325))
    parts = patched if isinstance(config, Blt) else (None, None, None)
    model = Model("there", Pretrained(config, params, *parts, 64), None, np.float32, network.PLAIN)
    rng = np.random.default_rng(0)
    prompts = [rng.integers(4, 260, n).astype(np.int32) for n in (9, 3, 17, 5)]
    split = sum(not x.sharding.is_fully_replicated for x in jax.tree.leaves(model._on_device))
    return model.generate_ids(prompts, NEW), split


def main():
    told = []
    for name, mesh in MESHES.items():
        mesh = mesh and make_mesh(mesh)
        for kind, config in (("BLT", BLT), ("token LM", LM)):
            ids, split = generated(config, mesh)
            told.append({"model": kind, "mesh": name, "ids": ids, "split": split})
    print(json.dumps(told))


if __name__ == "__main__":
    main()
