"""Robust parabolas in log size through the runs of one budget, and their minima."""

import dataclasses
from typing import Any

import numpy as np

from blt_jax.scaling.power_law import robust_linear


@dataclasses.dataclass(frozen=True)
class Minimum:
    """Of a parabola in log N through the sizes at one budget; `word` says where it lies."""

    parameters: float | None
    bpb: float | None
    word: str
    coefficients: tuple[float, ...] | None = None


def minimum(parameters: Any, loss: Any) -> Minimum:
    """Minimum over size at one budget, from at least three sizes; None values where it is not in
    the grid.
    """
    x_M, y_M = np.log(np.asarray(parameters, float)), np.asarray(loss, float)
    if len(set(x_M.tolist())) < 3:
        return Minimum(None, None, "too few sizes for a minimum")
    middle = x_M.mean()
    c0, c1, c2 = robust_linear(design(x_M - middle), y_M[None])[0]
    coefficients = float(c2), float(c1 - 2 * c2 * middle), float(c0 - c1 * middle + c2 * middle**2)
    at, least, word = (values[0] for values in vertex(x_M, np.array([[c0, c1, c2]]), middle))
    if np.isnan(at):
        return Minimum(None, None, word, coefficients)
    return Minimum(float(np.exp(at)), float(least), word, coefficients)


def vertex(
    x_M: np.ndarray, theta_Rx3: np.ndarray, middle: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(x_R, value_R, word_R) of the minima of c0 + c1 (x - middle) + c2 (x - middle)^2; NaN outside
    the grid x_M.
    """
    c0, c1, c2 = theta_Rx3.T
    with np.errstate(divide="ignore", invalid="ignore"):
        at_R = middle - c1 / (2 * c2)
        inside_R = (c2 > 0) & (at_R > x_M.min()) & (at_R < x_M.max())
        least_R = np.where(inside_R, c0 - c1**2 / (4 * c2), np.nan)
    step = np.ptp(x_M)
    rises_R = c1 * step + c2 * ((x_M.max() - middle) ** 2 - (x_M.min() - middle) ** 2) > 0
    outside_R = np.where(
        rises_R,
        "outside the grid, towards smaller models",
        "outside the grid, towards larger models",
    )
    return (
        np.where(inside_R, at_R, np.nan),
        least_R,
        np.where(inside_R, "inside the grid", outside_R),
    )


def design(x_M: np.ndarray) -> np.ndarray:
    """[M, 3]: 1, x, x^2."""
    return np.stack([np.ones_like(x_M), x_M, x_M**2], 1)
