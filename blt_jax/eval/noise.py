"""The five noises of the BLT paper (section 6.1, Table 3), on characters, each a function of (text,
seed) alone.

The paper gives a sentence for each and leaves the rest open; here a character is a Unicode code
point, white space and punctuation included, every rate is a coin per character, and AntSpeak joins
all characters, so that a space becomes three. Equal texts are noised alike wherever they stand, so
the endings of a question get draws of their own. Bytes that are not UTF-8 are characters that have
no case.
"""

import difflib
import hashlib
from collections.abc import Sequence

import numpy as np

from blt_jax.config import ConfigError

DROP, REPEAT = 0.1, 0.2  # shares of characters
MOST = 4  # copies in all that a repeated one may come to
WHERE = ("prompt", "completion", "both")


def _ant_speak(text, random):
    return " ".join(text.upper())


def _drop(text, random):
    return "".join(
        c for c, kept in zip(text, random.random(len(text)) >= DROP, strict=True) if kept
    )


def _random_case(text, random):
    return "".join(
        c.upper() if up else c.lower()
        for c, up in zip(text, random.random(len(text)) < 0.5, strict=True)
    )


def _repeat(text, random):
    copies = np.where(random.random(len(text)) < REPEAT, random.integers(2, MOST + 1, len(text)), 1)
    return "".join(c * n for c, n in zip(text, copies, strict=True))


def _upper_case(text, random):
    return text.upper()


NOISES = {
    "AntSpeak": _ant_speak,
    "Drop": _drop,
    "RandomCase": _random_case,
    "Repeat": _repeat,
    "UpperCase": _upper_case,
}


def chosen(names: Sequence[str]) -> list[str]:
    """The noises of a list of names, all for ["all"]. Raises ConfigError with the nearest known
    name.
    """
    for name in names:
        if name != "all" and name not in NOISES:
            lower = {known.lower(): known for known in NOISES}
            near = difflib.get_close_matches(name.lower(), lower, 1)
            hint = (
                f"did you mean {lower[near[0]]!r}?"
                if near
                else f"known are {', '.join(NOISES)}, all"
            )
            raise ConfigError(f"noise {name!r}: {hint}")
    return list(NOISES) if "all" in names else list(dict.fromkeys(names))


def noised(text: bytes, name: str, seed: int = 0) -> bytes:
    """`text` under noise `name`. Drop may leave nothing of a short text; then it stays as it is."""
    digest = int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "little")
    random = np.random.default_rng([seed, list(NOISES).index(name), digest])
    noisy = NOISES[name](text.decode("utf-8", "surrogateescape"), random).encode(
        "utf-8", "surrogateescape"
    )
    return noisy or text


def characters(text: bytes) -> int:
    """Code points; a byte that is not UTF-8 counts as one."""
    return len(text.decode("utf-8", "surrogateescape"))
