"""Laws that are straight in logs, y = y0 x^a z^b, and robust linear fits of many replicates."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

from blt_jax.scaling import bootstrap


@dataclasses.dataclass(frozen=True, eq=False)
class PowerLaw:
    """y = constant x prod(feature^exponent), straight in logs, with 90% intervals."""

    target: str
    constant: bootstrap.Estimate
    exponents: dict[str, bootstrap.Estimate]  # of each feature
    rms: float  # of log residuals
    points: int
    theta_P: np.ndarray
    replicates_RxP: np.ndarray
    centre: np.ndarray

    def predict(self, *features: Any) -> np.ndarray:
        """Values at features (in the order of `exponents`), broadcast together."""
        return np.exp(self._log(self.theta_P[None], features)[0])

    def predict_replicates(self, *features: Any) -> np.ndarray:
        """The same of every bootstrap replicate, replicates first."""
        return np.exp(self._log(self.replicates_RxP, features))

    def band(self, *features: Any) -> tuple[np.ndarray | None, np.ndarray, np.ndarray | None]:
        """(low, value, high): the 90% band of the law; None for both ends without any freedom."""
        if not len(self.replicates_RxP):
            return None, self.predict(*features), None
        low, high = bootstrap.interval(self.predict_replicates(*features))
        return low, self.predict(*features), high

    def _log(self, theta_RxP: np.ndarray, features: Any) -> np.ndarray:
        arrays = np.broadcast_arrays(*(np.log(np.asarray(feature, float)) for feature in features))
        x_FxX = np.stack([array.ravel() for array in arrays]) - self.centre[:, None]
        return (theta_RxP[:, :1] + theta_RxP[:, 1:] @ x_FxX).reshape(-1, *arrays[0].shape)


def power_law(
    target: str,
    features: Mapping[str, np.ndarray],
    y_M: np.ndarray,
    y_RxM: np.ndarray,
    rng: np.random.Generator,
) -> PowerLaw:
    """PowerLaw of y on {feature: values_M}; y_RxM are y's replicates (empty: no freedom). NaN rows
    are left out.

    Replicates also weigh the rows at random, so that what the law misses between its points shows
    in the interval.
    """
    x_MxF = np.log(np.stack(list(features.values()), 1))
    given_M = np.isfinite(y_M)
    centre = x_MxF[given_M].mean(0)
    design_MxP = np.column_stack([np.ones(len(x_MxF)), x_MxF - centre])
    theta_P = robust_linear(design_MxP, np.log(y_M)[None])[0]
    if len(y_RxM):
        weights_RxM = bootstrap.weights(np.arange(len(y_M)), design_MxP.shape[1], len(y_RxM), rng)
        replicates_RxP = robust_linear(design_MxP, np.log(y_RxM), weights_RxM)
    else:
        replicates_RxP = np.empty((0, design_MxP.shape[1]))
    constant = lambda theta: np.exp(theta[..., 0] - theta[..., 1:] @ centre)
    residual_M = (design_MxP @ theta_P - np.log(y_M))[given_M]
    return PowerLaw(
        target=target,
        constant=bootstrap.estimate(constant(theta_P), constant(replicates_RxP)),
        exponents={
            name: bootstrap.estimate(theta_P[i + 1], replicates_RxP[:, i + 1])
            for i, name in enumerate(features)
        },
        rms=float(np.sqrt(np.mean(residual_M**2))),
        points=int(given_M.sum()),
        theta_P=theta_P,
        replicates_RxP=replicates_RxP,
        centre=centre,
    )


def robust_linear(
    design_MxP: np.ndarray,
    y_RxM: np.ndarray,
    weights_RxM: np.ndarray | None = None,
    rounds: int = 40,
) -> np.ndarray:
    """theta_RxP of y = design theta by Huber's loss, all replicates together; rows that are NaN in
    y are left out.

    The turn from squares to sizes is at 1.345 times the scale of each replicate's residuals: their
    median size in a fit of least absolute values, of which as many as there are constants are zero
    and do not count. A replicate with fewer rows than constants is NaN.
    """
    weights_RxM = (
        np.ones_like(y_RxM) if weights_RxM is None else np.broadcast_to(weights_RxM, y_RxM.shape)
    )
    given_RxM = np.isfinite(y_RxM)
    weights_RxM, y_RxM = np.where(given_RxM, weights_RxM, 0.0), np.where(given_RxM, y_RxM, 0.0)
    constants = design_MxP.shape[1]
    theta_RxP = _weighted_least_squares(design_MxP, y_RxM, weights_RxM)
    if len(design_MxP) > constants:
        absolute = theta_RxP
        for _ in range(rounds):
            size_RxM = np.abs(y_RxM - absolute @ design_MxP.T)
            floor_R = 1e-6 * np.max(size_RxM, axis=1, keepdims=True) + 1e-300
            absolute = _weighted_least_squares(
                design_MxP, y_RxM, weights_RxM / np.maximum(size_RxM, floor_R)
            )
        size_RxM = np.where(given_RxM, np.abs(y_RxM - absolute @ design_MxP.T), np.nan)
        counting_RxM = np.sort(size_RxM, axis=1)[:, constants:]
        empty_R = ~np.isfinite(counting_RxM).any(1)
        # as many rows as constants: the fit is exact, nothing is an outlier
        counting_RxM[empty_R] = np.inf
        turn_Rx1 = (
            1.345 * np.nanquantile(counting_RxM, 0.5, axis=1, method="lower")[:, None] / 0.6745
        )
        for _ in range(rounds):
            size_RxM = np.maximum(np.abs(y_RxM - theta_RxP @ design_MxP.T), 1e-300)
            trust_RxM = np.minimum(1.0, np.maximum(turn_Rx1, 1e-12) / size_RxM)
            theta_RxP = _weighted_least_squares(design_MxP, y_RxM, weights_RxM * trust_RxM)
    theta_RxP[given_RxM.sum(1) < constants] = np.nan
    return theta_RxP


def _weighted_least_squares(
    design_MxP: np.ndarray, y_RxM: np.ndarray, weights_RxM: np.ndarray
) -> np.ndarray:
    root_RxM = np.sqrt(weights_RxM / np.maximum(weights_RxM.max(1, keepdims=True), 1e-300))
    # pinv, not solve: a replicate may leave nearly all weight on too few rows.
    inverse_RxPxM = np.linalg.pinv(root_RxM[:, :, None] * design_MxP, rcond=1e-9)
    return np.einsum("rpm,rm->rp", inverse_RxPxM, root_RxM * y_RxM)
