"""Laws that are sums of products of powers, such as E + A / N^alpha + B / D^beta, and their robust fit.

In logs such a law is log y = logsumexp_k(design_kxp theta_p), linear inside: one objective with an analytic gradient
serves every law of this kind. Fitted as in Chinchilla (arXiv 2203.15556, appendix D.3): Huber loss of log residuals,
L-BFGS from a grid of starts. Two repairs to that recipe, after arXiv 2404.10102 (appendix): the objective is scaled so
that the optimiser does not stop early, and features are centred, so that one grid of starts fits budgets of any size.
"""

import dataclasses
import itertools

import numpy as np
from scipy import optimize, special

STARTS = 40  # of the grid, those of lowest objective, that are followed to their end


@dataclasses.dataclass(frozen=True)
class Power:
    """feature ^ (sign x exponent). A `fixed` exponent is not fitted; else `exponent` names the fitted constant."""

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
    """target = sum of terms. `delta` is where the Huber loss of log residuals turns from squares to sizes.

    The grid of starts shares the mean level among the terms in all ratios of `levels`.
    """

    name: str
    target: str
    terms: tuple[Term, ...]
    delta: float = 1e-3
    levels: tuple[float, ...] = (1, 4, 16)

    @property
    def constants(self):
        """Names of what is fitted, in the order of theta: the constants (as logs), then the exponents."""
        exponents = (power.exponent for term in self.terms for power in term.powers if power.fixed is None)
        return (*(term.constant for term in self.terms), *exponents)

    @property
    def features(self):
        return tuple(dict.fromkeys(power.feature for term in self.terms for power in term.powers))

    def __str__(self):
        return f"{self.target} = " + " + ".join(_word(term) for term in self.terms)

    def design(self, logs, centre):
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

    def starts(self, level):
        """starts_SxP: shares of the mean level among the terms, times each exponent's own starts."""
        shares = [np.array(share) for share in itertools.product(self.levels, repeat=len(self.terms))]
        shares = {tuple(share / share.sum()) for share in shares}
        exponents = [p.starts for term in self.terms for p in term.powers if p.fixed is None]
        return np.array(
            [[*np.log(level * np.array(share)), *exponent] for share in sorted(shares)
             for exponent in itertools.product(*exponents)]
        )  # fmt: skip

    def uncentred(self, theta_RxP, centre):
        """{name: values_R} of constants and exponents in the units of the table."""
        theta_RxP, names, found = np.atleast_2d(theta_RxP), self.constants, {}
        for k, term in enumerate(self.terms):
            log_R = theta_RxP[:, k].copy()
            for power in term.powers:
                exponent = theta_RxP[:, names.index(power.exponent)] if power.fixed is None else power.fixed
                log_R -= power.sign * exponent * centre[power.feature]
            with np.errstate(over="ignore"):  # an absurd replicate may have an infinite constant: it stays a replicate
                found[term.constant] = np.exp(log_R)
        found |= {name: theta_RxP[:, i] for i, name in enumerate(names) if i >= len(self.terms)}
        return found


def _word(term):
    words = [term.constant]
    for power in term.powers:
        exponent = power.exponent if power.fixed is None else f"{power.fixed:g}"
        words.append(f"{power.feature}^{'-' if power.sign < 0 else ''}{exponent}")
    return " ".join(words)


def log_values(theta_RxP, design_KxMxP, offset_KxM):
    """log y_RxM of the law at the rows of the design."""
    return special.logsumexp(np.einsum("kmp,rp->rkm", design_KxMxP, np.atleast_2d(theta_RxP)) + offset_KxM, axis=1)


def objective(theta_P, design_KxMxP, offset_KxM, log_y_M, weights_M, delta):
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


def minimise(law, design, log_y_M, start_P, weights_M, passes=5):
    """(theta_P, Huber sum) of L-BFGS from one start, restarted from where it stopped until that gains nothing."""
    scale = 1 / law.delta**2
    best, theta_P = np.inf, start_P

    def scaled(theta_P):
        value, gradient_P = objective(theta_P, *design, log_y_M, weights_M, law.delta)
        return value * scale, gradient_P * scale

    for _ in range(passes):
        found = optimize.minimize(
            scaled, theta_P, jac=True, method="L-BFGS-B", options={"maxiter": 1000, "maxfun": 2000, "ftol": 1e-11}
        )
        gain, best, theta_P = best - found.fun, min(best, found.fun), found.x
        if gain < 1e-7 * max(best, 1e-3):  # in units of delta^2: a perfect fit need not be improved for ever
            break
    return theta_P, best / scale


def fit(law, design, log_y_M):
    """(theta_P, Huber sum): the best of one pass from each of the STARTS best starts of the grid, polished."""
    weights_M = np.ones(len(log_y_M))
    starts_SxP = law.starts(np.exp(np.mean(log_y_M)))
    at_S = [objective(start_P, *design, log_y_M, weights_M, law.delta)[0] for start_P in starts_SxP]
    near = starts_SxP[np.argsort(at_S, kind="stable")[:STARTS]]
    passed = (minimise(law, design, log_y_M, start_P, weights_M, passes=1) for start_P in near)
    theta_P, _ = min(passed, key=lambda found: found[1])
    return minimise(law, design, log_y_M, theta_P, weights_M)


def refit(law, design, log_y_RxM, theta_P, weights_RxM):
    """theta_RxP of replicates, each from the optimum of the full data."""
    return np.array([minimise(law, design, y, theta_P, w)[0] for y, w in zip(log_y_RxM, weights_RxM, strict=True)])
