"""The five noises: what the paper says of each, rates, and draws that depend on text and seed
alone.
"""

import numpy as np
import pytest

from blt_jax.config import ConfigError
from blt_jax.eval import noise

TEXT = ("The quick brown fox, jumps over 13 lazy dogs; ünïcode straße. " * 60).encode()


def test_what_the_paper_says():
    assert noise.noised(b"Hi yo", "AntSpeak") == b"H I   Y O"
    assert noise.noised("aé\n".encode(), "UpperCase") == "AÉ\n".encode()
    assert noise.noised(TEXT, "RandomCase").lower().decode().casefold() == TEXT.decode().casefold()
    assert (
        noise.noised(b"\xffa\xfe", "AntSpeak") == b"\xff A \xfe"
    )  # what is not UTF-8 stays as it is


def test_rates():
    text, count = TEXT.decode(), noise.characters(TEXT)
    assert count == len(text) < len(TEXT)
    dropped = noise.characters(noise.noised(TEXT, "Drop"))
    assert abs(1 - dropped / count - 0.1) < 0.02
    cased = [c for c in noise.noised(TEXT, "RandomCase").decode() if c.isascii() and c.isalpha()]
    assert abs(np.mean([c.isupper() for c in cased]) - 0.5) < 0.03
    distinct = "".join(map(chr, range(0x4E00, 0x4E00 + 4000)))
    repeated = noise.noised(distinct.encode(), "Repeat").decode()
    copies = np.array([repeated.count(c) for c in distinct])
    assert "".join(c * n for c, n in zip(distinct, copies, strict=True)) == repeated
    assert set(copies) == {1, 2, 3, 4} and abs((copies > 1).mean() - 0.2) < 0.02


@pytest.mark.parametrize("name", list(noise.NOISES))
def test_draws_depend_on_text_and_seed_alone(name):
    one = noise.noised(TEXT, name)
    assert one == noise.noised(TEXT, name) and one != TEXT
    drawn = name in ("Drop", "RandomCase", "Repeat")
    assert (one != noise.noised(TEXT, name, seed=1)) == drawn
    assert noise.noised(b"", name) == b"" and noise.noised(b"a", name)


def test_names():
    assert noise.chosen(["all"]) == list(noise.NOISES) and noise.chosen(["Drop", "Drop"]) == [
        "Drop"
    ]
    with pytest.raises(ConfigError, match="noise 'antspeek': did you mean 'AntSpeak'"):
        noise.chosen(["antspeek"])
    with pytest.raises(ConfigError, match="noise 'qqq': known are AntSpeak, Drop"):
        noise.chosen(["qqq"])
