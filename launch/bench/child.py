"""A measurement in a process of its own: a suite's module, started with arguments, prints JSON as
its last line.
"""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import blt_jax

# Where blt_jax lies: a checkout, or the packages of an installation.
ROOT = Path(blt_jax.__file__).resolve().parents[1]


def measured(suite: str, *arguments: object, limit: float) -> dict[str, Any]:
    """What `python -m blt_jax bench.SUITE arguments...` prints, or {"failed": why}: an error,
    memory, over `limit` seconds.
    """
    part = f"bench.{suite.rpartition('.')[2]}"
    command = [sys.executable, "-m", "blt_jax", part, *map(str, arguments)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=limit, cwd=ROOT)
    except subprocess.TimeoutExpired:
        return {"failed": f"over {limit} s"}
    if done.returncode:
        memory = done.returncode == -9 or "memory" in done.stderr
        return {"failed": "out of memory" if memory else done.stderr.strip().splitlines()[-1]}
    return json.loads(done.stdout.strip().splitlines()[-1])
