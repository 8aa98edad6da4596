"""A measurement in a process of its own: a suite's module, started with arguments, prints JSON as
its last line.
"""

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def told(module, *arguments, limit):
    """What `python -m module arguments...` prints, or {"failed": why}: an error, memory, over
    `limit` seconds.
    """
    command = [sys.executable, "-m", module, *map(str, arguments)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=limit, cwd=ROOT)
    except subprocess.TimeoutExpired:
        return {"failed": f"over {limit} s"}
    if done.returncode:
        memory = done.returncode == -9 or "memory" in done.stderr
        return {"failed": "out of memory" if memory else done.stderr.strip().splitlines()[-1]}
    return json.loads(done.stdout.strip().splitlines()[-1])
