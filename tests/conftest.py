"""Every test runs on the CPU, whatever else the machine has, and compiles quickly rather than well.

The tests' programs are many and tiny: half of their time was LLVM's. What a test starts as a
process of its own compiles as for a user. All of them share one cache of compiled programs, which
is empty at the start of a session.
"""

import atexit
import os
import shutil
import tempfile
from pathlib import Path

from tests import QUICK

os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault(
    "GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT", "false"
)  # would ask Google what kind a bucket is
_before = os.environ.get("XLA_FLAGS")
os.environ["XLA_FLAGS"] = f"{_before or ''} {QUICK}"

if "PYTEST_XDIST_WORKER" not in os.environ:
    os.environ["JAX_COMPILATION_CACHE_DIR"] = tempfile.mkdtemp(prefix="compiled-")
    os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"  # the many small ones add up
    os.environ["JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES"] = "-1"
    atexit.register(shutil.rmtree, os.environ["JAX_COMPILATION_CACHE_DIR"], ignore_errors=True)

import jax  # noqa: E402
import pytest  # noqa: E402

jax.devices()  # reads the flags
if _before is None:
    del os.environ["XLA_FLAGS"]
else:
    os.environ["XLA_FLAGS"] = _before

LONG = (
    "launch",
    "parallel",
    "faults",
    "train",
    "models",
)  # folders of files that take a minute or more


DEFAULT = "not faults and not slow"  # of setup.cfg


def pytest_configure(config):
    """Files and folders named on the command line run whole, their slow tests too."""
    words = [word for word in config.invocation_params.args if not str(word).startswith("-")]
    named = [word for word in words if Path(str(word).split("::")[0]).exists()]
    if named and config.option.markexpr == DEFAULT:
        config.option.markexpr = "not faults"


def pytest_collection_modifyitems(items):
    """Long files first, so that none is left alone at the end."""
    tests = Path(__file__).parent
    rank = {folder: i for i, folder in enumerate(LONG)}
    items.sort(key=lambda item: rank.get(item.path.relative_to(tests).parts[0], len(LONG)))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers():
    """One file more than cores at a time: many a test waits, for a clock, a signal or another's
    program.
    """
    return min(os.cpu_count() or 1, 4) + 1
