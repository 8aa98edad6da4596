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
        self.signal = None  # the first signal that came

    def __enter__(self):
        self._before = {number: signal.signal(number, self._handle) for number in SIGNALS}
        return self

    def __exit__(self, *exception):
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _handle(self, number, frame):
        if number == signal.SIGINT and self.signal == signal.SIGINT:
            raise KeyboardInterrupt
        if not self.requested:
            self.requested, self.signal = True, signal.Signals(number)
