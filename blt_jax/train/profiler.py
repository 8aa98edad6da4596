"""A trace of some steps, for TensorBoard's profile page or Perfetto:
`--config.profile.steps=10:15`.
"""

from typing import Any

import jax

from blt_jax import storage
from blt_jax.config import Profile


class Profiler:
    """Writes `FOLDER/profile/` while the steps of `config` run; `before` and `after` each step."""

    def __init__(self, config: Profile, folder):
        self.first, self.last = config.range
        self.folder, self.running = folder / "profile", False

    def before(self, step: int) -> None:
        if self.first and step == self.first:
            self.growing = storage.Growing(self.folder)
            jax.profiler.start_trace(str(self.growing.here))
            self.running = True

    def after(self, step: int, values: Any) -> None:
        """`values`: something that the step computes; a trace ends when it is there."""
        if self.running and step == self.last:
            jax.block_until_ready(values)
            self.close()
            print(f"profile of steps {self.first} to {self.last}: {self.folder}", flush=True)

    def close(self) -> None:
        if self.running:
            jax.profiler.stop_trace()
            self.growing.close()
            self.running = False
