"""Does training still read the patches that were calibrated? One line when it no longer does, and
one when it does again.

Counts are gathered into windows of at least N patches, and a window's mean is compared with what
the calibration expects. N is such that chance alone moves the mean by `tolerance` only once in SURE
standard deviations: rows are read in a shuffled order, so the noise of a window is that of so many
rows, which the row index has measured (`patch_noise`). The histogram of patch lengths would not do:
patches of one document are alike, so their own variance understates the noise of a short window;
rows are packed to equal patch counts, so that of documents overstates it.
"""

import math
from typing import Any

from blt_jax.patching.calibrate import Calibration

TOLERANCE = 0.025  # of the mean: as much as it moves the FLOPs per byte of the latent model
SURE = 5.0  # standard deviations: 6 windows in 10^7 by chance (two-sided, normal)
ROWS = 64  # a window's least, for its sum to be near normal


class Drift:
    """Watches text bytes per patch. `mean` is what is expected, `noise` the variance of (bytes -
    mean x patches) per patch, in bytes^2; `least`: patches that a window must have at least.

    A mean beyond `tolerance` (a share of `mean`) is drift, until one is within half of it. A drift
    of twice the tolerance is reported before 2 x `window` patches are read.
    """

    def __init__(
        self, mean: float, noise: float, *, tolerance: float = TOLERANCE, least: float = 0
    ):
        self.mean, self.tolerance = mean, tolerance
        enough = noise * (SURE / (tolerance * mean)) ** 2
        self.window = max(1, math.ceil(least), math.ceil(enough))  # patches
        self.drifted = False
        self._bytes = self._patches = 0

    def count(self, text_bytes: int, patches: int) -> str:
        """Adds what was read; returns one line when drift begins or ends, and "" otherwise."""
        self._bytes += text_bytes
        self._patches += patches
        if self._patches < self.window:
            return ""
        mean, counted = self._bytes / self._patches, self._patches
        self._bytes = self._patches = 0
        off = mean / self.mean - 1
        before, bound = self.drifted, self.tolerance / 2 if self.drifted else self.tolerance
        self.drifted = abs(off) > bound
        if self.drifted == before:
            return ""
        measured = (
            f"{mean:.3f} bytes per patch over {counted:,} patches, {off:+.1%} from the calibrated "
            f"{self.mean:.3f}"
        )
        if self.drifted:
            return (
                f"patches drift: {measured}; was the store, the entropy model or the index "
                "changed? Prepare again"
            )
        return f"patches are as calibrated again: {measured}"


def watch(calibration: Calibration, header: dict[str, Any], tolerance: float = TOLERANCE) -> Drift:
    """The Drift of training on a row index, from its Calibration and its header.

    Rows begin a patch wherever a span begins, so they have some more patches than the rule gives:
    the calibrated mean is lowered by the share that the index has counted.
    """
    expected = calibration.text_bytes_per_patch * header["document_patches"] / header["patches"]
    least = ROWS * header["patches"] / header["rows"]
    return Drift(expected, header["patch_noise"], tolerance=tolerance, least=least)
