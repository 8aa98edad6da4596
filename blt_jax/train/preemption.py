"""Being told to stop: signals become a flag that a loop reads between two steps."""

import signal

SAVED_EXIT_CODE = 42  # "saved, run me again", on every engine; 0 means finished and nothing else

# Slurm and Kubernetes send SIGTERM, a person SIGINT, `sbatch --signal` is commonly asked for SIGUSR2.
SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR2)


class StopSignal:
    """Context manager; inside it the `SIGNALS` only set `requested`. For the main thread.

    A second SIGINT raises KeyboardInterrupt, for whoever does not want to wait for the save. The
    handlers from before are back after the context.
    """

    def __init__(self):
        self.requested = False
        self._interrupts = 0

    def __enter__(self):
        self._before = {number: signal.signal(number, self._handle) for number in SIGNALS}
        return self

    def __exit__(self, *exception):
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _handle(self, number, frame):
        self.requested = True
        self._interrupts += number == signal.SIGINT
        if self._interrupts > 1:
            raise KeyboardInterrupt
