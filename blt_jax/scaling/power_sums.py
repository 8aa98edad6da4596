"""Laws that are sums of products of powers, such as E + A / N^alpha + B / D^beta, and their fit.

In logs such a law is log y = logsumexp_k(design_kxp theta_p), linear inside: one objective with an
analytic gradient serves every law of this kind. Fitted as in Chinchilla (arXiv 2203.15556, appendix
D.3): Huber loss of log residuals, from a grid of starts. Two repairs to that recipe, after arXiv
2404.10102 (appendix): the objective is scaled so that L-BFGS does not stop early, and features are
centred, so that one grid of starts fits budgets of any size. The starts are first followed in step
by damped Gauss-Newton, several times faster than one L-BFGS run after another.
"""

import dataclasses
import itertools
from collections.abc import Mapping

import numpy as np

Design = tuple[np.ndarray, np.ndarray]  # (design_KxMxP, offset_KxM), see `Law.design`

STARTS = 40  # of the grid, those of lowest objective, that are followed


@dataclasses.dataclass(frozen=True)
class Power:
    """feature ^ (sign x exponent). A `fixed` exponent is not fitted; else `exponent` names the
    fitted constant.
    """

    feature: str
    exponent: str
    sign: int = -1
    fixed: float | None = None
    starts: tuple[float, ...] = (0.1, 0.3, 0.7)


@dataclasses.dataclass(frozen=True)
class Term:
    """constant x product of powers; without powers, a constant."""

    constant: str
    powers: tuple[Power, ...] = ()


@dataclasses.dataclass(frozen=True)
class Law:
    """target = sum of terms. `delta` is where the Huber loss of log residuals turns from squares to
    sizes.

    The grid of starts shares the mean level among the terms in all ratios of `levels`.
    """

    name: str
    target: str
    terms: tuple[Term, ...]
    delta: float = 1e-3
    levels: tuple[float, ...] = (1, 4, 16)

    @property
    def constants(self) -> tuple[str, ...]:
        """Names of what is fitted, in the order of theta: the constants (as logs), then the
        exponents.
        """
        exponents = (
            power.exponent for term in self.terms for power in term.powers if power.fixed is None
        )
        return (*(term.constant for term in self.terms), *exponents)

    @property
    def features(self) -> tuple[str, ...]:
        """Names of what the law depends on."""
        return tuple(dict.fromkeys(power.feature for term in self.terms for power in term.powers))

    def __str__(self) -> str:
        return f"{self.target} = " + " + ".join(_word(term) for term in self.terms)

    def design(self, logs: Mapping[str, np.ndarray], centre: Mapping[str, float]) -> Design:
        """(design_KxMxP, offset_KxM) for {feature: log values_M}, centred by {feature: log}."""
        names = self.constants
        rows = np.broadcast(*logs.values()).size if logs else 1
        design_KxMxP = np.zeros((len(self.terms), rows, len(names)))
        offset_KxM = np.zeros((len(self.terms), rows))
        for k, term in enumerate(self.terms):
            design_KxMxP[k, :, k] = 1
            for power in term.powers:
                x_M = power.sign * (np.ravel(logs[power.feature]) - centre[power.feature])
                if power.fixed is None:
                    design_KxMxP[k, :, names.index(power.exponent)] += x_M
                else:
                    offset_KxM[k] += power.fixed * x_M
        return design_KxMxP, offset_KxM

    def starts(self, level: float) -> np.ndarray:
        """starts_SxP: shares of the mean level among the terms, times each exponent's starts."""
        ratios = map(np.array, itertools.product(self.levels, repeat=len(self.terms)))
        shares = {tuple(ratio / ratio.sum()) for ratio in ratios}
        exponents = [p.starts for term in self.terms for p in term.powers if p.fixed is None]
        return np.array(
            [[*np.log(level * np.array(share)), *exponent] for share in sorted(shares)
             for exponent in itertools.product(*exponents)]
        )  # fmt: skip

    def uncentred(
        self, theta_RxP: np.ndarray, centre: Mapping[str, float]
    ) -> dict[str, np.ndarray]:
        """{name: values_R} of constants and exponents in the units of the table."""
        theta_RxP, names = np.atleast_2d(theta_RxP), self.constants
        values = {}
        for k, term in enumerate(self.terms):
            log_R = theta_RxP[:, k].copy()
            for power in term.powers:
                exponent = (
                    theta_RxP[:, names.index(power.exponent)]
                    if power.fixed is None
                    else power.fixed
                )
                log_R -= power.sign * exponent * centre[power.feature]
            # an absurd replicate may have an infinite constant: it stays a replicate
            with np.errstate(over="ignore"):
                values[term.constant] = np.exp(log_R)
        values |= {name: theta_RxP[:, i] for i, name in enumerate(names) if i >= len(self.terms)}
        return values


def _word(term: Term) -> str:
    words = [term.constant]
    for power in term.powers:
        exponent = power.exponent if power.fixed is None else f"{power.fixed:g}"
        words.append(f"{power.feature}^{'-' if power.sign < 0 else ''}{exponent}")
    return " ".join(words)


def log_values(
    theta_RxP: np.ndarray, design_KxMxP: np.ndarray, offset_KxM: np.ndarray
) -> np.ndarray:
    """log y_RxM of the law at the rows of the design."""
    terms_RxKxM = (
        np.einsum("kmp,rp->rkm", design_KxMxP, np.atleast_2d(theta_RxP), optimize=True) + offset_KxM
    )
    top_RxM = terms_RxKxM.max(1)
    return np.log(np.exp(terms_RxKxM - top_RxM[:, None]).sum(1)) + top_RxM


def objective(
    theta_P: np.ndarray,
    design_KxMxP: np.ndarray,
    offset_KxM: np.ndarray,
    log_y_M: np.ndarray,
    weights_M: np.ndarray,
    delta: float,
) -> tuple[float, np.ndarray]:
    """(sum of weighted Huber terms of log residuals, its gradient_P)."""
    terms_KxM = design_KxMxP @ theta_P + offset_KxM
    top_M = terms_KxM.max(0)
    terms_KxM = np.exp(terms_KxM - top_M)
    total_M = terms_KxM.sum(0)
    residual_M = np.log(total_M) + top_M - log_y_M
    clipped_M = np.clip(residual_M, -delta, delta)
    value = weights_M @ (clipped_M * (residual_M - 0.5 * clipped_M))
    pull_KxM = terms_KxM * (weights_M * clipped_M / total_M)
    return value, np.einsum("km,kmp->p", pull_KxM, design_KxMxP)


def minimise(
    law: Law,
    design: Design,
    log_y_M: np.ndarray,
    start_P: np.ndarray,
    weights_M: np.ndarray,
    passes: int = 5,
) -> tuple[np.ndarray, float]:
    """(theta_P, Huber sum) of L-BFGS from one start, restarted while that helps."""
    from scipy import optimize  # takes longer to import than what a command needs until it fits

    scale = 1 / law.delta**2
    best, theta_P = np.inf, start_P

    def scaled(theta_P: np.ndarray) -> tuple[float, np.ndarray]:
        value, gradient_P = objective(theta_P, *design, log_y_M, weights_M, law.delta)
        return value * scale, gradient_P * scale

    for _ in range(passes):
        end = optimize.minimize(
            scaled,
            theta_P,
            jac=True,
            method="L-BFGS-B",
            options={"maxiter": 1000, "maxfun": 2000, "ftol": 1e-11},
        )
        gain, best, theta_P = best - end.fun, min(best, end.fun), end.x
        # in units of delta^2: a perfect fit need not be improved for ever
        if gain < 1e-7 * max(best, 1e-3):
            break
    return theta_P, best / scale


def fit(law: Law, design: Design, log_y_M: np.ndarray) -> tuple[np.ndarray, float]:
    """(theta_P, Huber sum): the best end below the STARTS best starts of the grid, polished by
    L-BFGS.
    """
    weights_M = np.ones(len(log_y_M))
    starts_SxP = law.starts(np.exp(np.mean(log_y_M)))
    at_S = [objective(start_P, *design, log_y_M, weights_M, law.delta)[0] for start_P in starts_SxP]
    near_SxP = starts_SxP[np.argsort(at_S, kind="stable")[:STARTS]]
    log_y_SxM = np.broadcast_to(log_y_M, (len(near_SxP), len(log_y_M)))
    ends_SxP = descend(law, design, log_y_SxM, near_SxP, np.ones_like(log_y_SxM))
    least_S = [objective(end_P, *design, log_y_M, weights_M, law.delta)[0] for end_P in ends_SxP]
    return minimise(law, design, log_y_M, ends_SxP[np.argmin(least_S)], weights_M)


def refit(
    law: Law,
    design: Design,
    log_y_RxM: np.ndarray,
    theta_P: np.ndarray,
    weights_RxM: np.ndarray,
) -> np.ndarray:
    """theta_RxP of replicates, each from the optimum of the full data.

    A term that has faded there starts at a hundredth of the mean level: a replicate may need it.
    """
    start_P, terms = np.array(theta_P), len(law.terms)
    start_P[:terms] = np.maximum(start_P[:terms], np.mean(log_y_RxM) + np.log(0.01))
    return descend(law, design, log_y_RxM, np.tile(start_P, (len(log_y_RxM), 1)), weights_RxM)


def descend(
    law: Law,
    design: Design,
    log_y_RxM: np.ndarray,
    theta_RxP: np.ndarray,
    weights_RxM: np.ndarray,
    rounds: int = 1000,
) -> np.ndarray:
    """theta_RxP at the minima below many starts or replicates, all followed in step.

    Gauss-Newton on squares reweighted to Huber's loss, damped until the loss falls
    (Levenberg-Marquardt): the minima of `minimise` at a small part of its time.
    """
    (design_KxMxP, _), constants = design, theta_RxP.shape[1]
    theta_RxP, damping_R = np.array(theta_RxP), np.full(len(theta_RxP), 1e-3)
    going = np.arange(len(theta_RxP))
    for _ in range(rounds):
        if not len(going):
            break
        log_y_GxM, weights_GxM, theta_GxP = log_y_RxM[going], weights_RxM[going], theta_RxP[going]
        value_G, residual_GxM, share_GxKxM = _huber(
            theta_GxP, design, log_y_GxM, weights_GxM, law.delta
        )
        trust_GxM = weights_GxM / np.maximum(1, np.abs(residual_GxM) / law.delta)
        slope_GxMxP = np.einsum("gkm,kmp->gmp", share_GxKxM, design_KxMxP)
        pulled_GxPxM = (slope_GxMxP * trust_GxM[:, :, None]).transpose(0, 2, 1)
        curve_GxPxP = pulled_GxPxM @ slope_GxMxP
        gradient_GxP = (pulled_GxPxM @ residual_GxM[:, :, None])[:, :, 0]
        diagonal_GxP = np.einsum("gpp->gp", curve_GxPxP)
        # for a constant that has faded from the law
        floor_Gx1 = 1e-9 * diagonal_GxP.max(1, keepdims=True) + 1e-300
        damped_GxP = damping_R[going][:, None] * (diagonal_GxP + floor_Gx1) + floor_Gx1
        step_GxP = np.linalg.solve(
            curve_GxPxP + damped_GxP[:, :, None] * np.eye(constants), gradient_GxP[:, :, None]
        )
        moved_GxP = theta_GxP - np.clip(step_GxP[:, :, 0], -1, 1)
        gain_G = value_G - _huber(moved_GxP, design, log_y_GxM, weights_GxM, law.delta)[0]
        better_G = gain_G > 0
        theta_RxP[going[better_G]] = moved_GxP[better_G]
        damping_R[going] = np.clip(damping_R[going] * np.where(better_G, 0.2, 5.0), 1e-9, 1e9)
        least_G = 1e-7 * np.maximum(value_G, 1e-3 * law.delta**2)
        going = going[np.where(better_G, gain_G > least_G, damping_R[going] < 1e6)]
    return theta_RxP


def _huber(
    theta_RxP: np.ndarray,
    design: Design,
    log_y_RxM: np.ndarray,
    weights_RxM: np.ndarray,
    delta: float,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(sum of weighted Huber terms_R, residual_RxM, each term's share of the law_RxKxM)."""
    design_KxMxP, offset_KxM = design
    terms_RxKxM = np.einsum("kmp,rp->rkm", design_KxMxP, theta_RxP) + offset_KxM
    top_RxM = terms_RxKxM.max(1)
    terms_RxKxM = np.exp(terms_RxKxM - top_RxM[:, None])
    total_RxM = terms_RxKxM.sum(1)
    residual_RxM = np.log(total_RxM) + top_RxM - log_y_RxM
    clipped_RxM = np.clip(residual_RxM, -delta, delta)
    value_R = np.sum(weights_RxM * clipped_RxM * (residual_RxM - 0.5 * clipped_RxM), axis=1)
    return value_R, residual_RxM, terms_RxKxM / total_RxM[:, None]
