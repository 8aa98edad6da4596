"""How numbers are written, on the terminal, on the page and in pictures."""

from collections.abc import Callable

from blt_jax.scaling.bootstrap import Estimate

NOTHING = "-"  # where there is no value


def number(value: float | None, digits: int = 4) -> str:
    """1.239e8, 0.5014; the text of no value is NOTHING."""
    if value is None:
        return NOTHING
    return f"{value:.{digits}g}".replace("e+0", "e").replace("e+", "e")


def brief(value: float | None) -> str:
    """5e10, 1.02e21, 1.25: three digits, for a tick or a sentence."""
    return number(value, 3)


def count(value: float | None) -> str:
    """27k, 1.3M, 8B: parameters or bytes, for a tick or a table."""
    for unit, letter in ((1e9, "B"), (1e6, "M"), (1e3, "k")):
        if value is not None and unit <= value < 1000 * unit:
            return f"{value / unit:.3g}{letter}"
    return brief(value)


def cell(value: float | None) -> str:
    """1.26B, 48,128, 7841, 0.0512: for a wide table; whole numbers below 10,000 as they are."""
    if value is None:
        return NOTHING
    if isinstance(value, int) and value < 10_000:
        return str(value)
    for limit, letter in ((1e12, "T"), (1e9, "B"), (1e6, "M")):
        if limit <= value < 1e15:
            return f"{value / limit:.3g}{letter}"
    return f"{value:,.0f}" if 1e3 <= value < 1e6 else f"{value:.3g}"


def percent(value: float, digits: int = 0) -> str:
    """-12% of -0.12."""
    return f"{value:.{digits}%}"


def interval(estimate: Estimate, form: Callable[[float | None], str] = number) -> str:
    """'low to high', with the share of draws that gave a value where some did not."""
    if estimate.low is None:
        return "no interval"
    share = estimate.share if estimate.share is not None else 1.0
    some = "" if share > 0.999 else f", in {share:.0%} of draws"
    return f"{form(estimate.low)} to {form(estimate.high)}{some}"
