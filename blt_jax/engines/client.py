"""A cluster's own command-line clients: what they print, and one line where they fail."""

import os
import shutil
import subprocess
from collections.abc import Mapping

from blt_jax.config import ConfigError

PATIENCE = 60  # seconds that a client may take


def call(
    *argv: str, need: str, environment: Mapping[str, str] | None = None, patience: int = PATIENCE
) -> str:
    """What a client prints. `need`: what to say where there is no such program.

    Nobody answers its questions: one that asks fails. Raises ConfigError with its last words where
    it fails.
    """
    environment = os.environ if environment is None else environment
    if shutil.which(argv[0], path=environment.get("PATH")) is None:
        raise ConfigError(f"there is no {argv[0]} on this machine; {need}")
    try:
        done = subprocess.run(
            argv,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=patience,
            env=environment,
        )
    except subprocess.TimeoutExpired:
        raise ConfigError(
            f"{argv[0]} did not answer within {patience} s; is the cluster's controller up?"
        ) from None
    if done.returncode:
        raise ConfigError(f"{argv[0]}: {_why(done) or f'exit code {done.returncode}'}")
    return done.stdout


def _why(done):
    """Why a client failed: stderr, without the usage that argparse puts before it, or the end of
    stdout.
    """
    lines = [line for line in done.stderr.splitlines() if line.strip()]
    if lines and lines[0].startswith("usage:"):
        return lines[-1]
    return " ".join(line.strip() for line in lines[-3:]) or " ".join(
        done.stdout.strip().splitlines()[-3:]
    )
