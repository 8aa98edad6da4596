"""Every test runs on the CPU, whatever else the machine has, and compiles quickly rather than well.

The tests' programs are many and tiny: half of their time was LLVM's. What a test starts as a process of its own
compiles as for a user.
"""

import os

os.environ.setdefault("JAX_PLATFORMS", "cpu")
_before = os.environ.get("XLA_FLAGS")
os.environ["XLA_FLAGS"] = f"{_before or ''} --xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true"

import jax  # noqa: E402

jax.devices()  # reads the flags
if _before is None:
    del os.environ["XLA_FLAGS"]
else:
    os.environ["XLA_FLAGS"] = _before
