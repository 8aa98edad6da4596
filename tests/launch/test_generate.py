"""The generate command, as a person runs it."""

import io
import subprocess
import sys
import types

import pytest

import blt_jax
from blt_jax.config import ConfigError
from blt_jax.infer.shown_text import ShownText
from blt_jax.patching import Patching
from launch import generate
from tests.infer.test_equality import BLT, PATCHER
from tests.infer.test_generate import PROMPTS
from tests.interop.test_facade import save_run

DEFAULTS = dict(
    MAX_NEW_BYTES=60, TEMPERATURE=0.0, TOP_P=1.0, SEED=0, STOP=[], COLOUR=False, PLOT=""
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    study = tmp_path_factory.mktemp("study")
    save_run(study / "entropy_model", PATCHER)
    save_run(study / "runs" / "patches", BLT, Patching("entropy", threshold=5.325))
    return study / "runs" / "patches"


def run(monkeypatch, **options):
    """What `main` prints, in this process: programs of tiny models take long to compile anew."""
    for name, value in (DEFAULTS | options).items():
        monkeypatch.setattr(generate, name, types.SimpleNamespace(value=value), raising=False)
    out = types.SimpleNamespace(buffer=io.BytesIO(), isatty=lambda: False)
    monkeypatch.setattr(sys, "stdout", out)
    assert generate.main([]) == 0
    monkeypatch.undo()
    return out.buffer.getvalue().decode()


def plain(text):
    return "".join(part.split("m", 1)[-1] for part in text.split("\033["))


def test_prints_what_the_model_writes(folder, tmp_path, monkeypatch, capfd):
    (tmp_path / "prompt").write_bytes(b"caf\xe9 at noon")
    prompts = [*PROMPTS[:3], (tmp_path / "prompt").read_bytes()]
    asked = [*(p.decode() for p in PROMPTS[:3]), f"@{tmp_path / 'prompt'}"]
    printed = run(
        monkeypatch, MODEL=str(folder), PROMPT=asked, COLOUR=True, PLOT=str(tmp_path / "out.png")
    )
    shown = []
    for number, text in enumerate(blt_jax.load(folder).generate(prompts, 60)):
        one = ShownText(colour=True)
        one.add(text, [False] * len(text))
        shown.append(
            f"--- {number + 1}: "
            f"{prompts[number].decode(errors='replace')!r}\n{plain(one.take(final=True))}\n"
        )
    assert plain(printed) == "".join(shown)
    assert ";4m" in printed, "the latent model ran somewhere"
    notes = capfd.readouterr().err
    for note in ("empty prompt", "no UTF-8 from byte 3 on", "beyond the 64 positions"):
        assert note in notes
    assert (tmp_path / "out.png").read_bytes().startswith(b"\x89PNG")


def test_refusals_are_one_line(folder, tmp_path, monkeypatch, capfd):
    (tmp_path / "long").write_bytes(b"a" * 1_000_000)
    with pytest.raises(ConfigError, match="prompt of 1,000,001 ids"):
        run(monkeypatch, MODEL=str(folder), PROMPT=[f"@{tmp_path / 'long'}"])
    assert capfd.readouterr().err == ""
    with pytest.raises(ConfigError, match="is a plain LM: it has no patches"):
        run(monkeypatch, MODEL=str(folder.parents[1] / "entropy_model"), PROMPT=["a"], COLOUR=True)
    command = [
        sys.executable,
        "-m",
        "launch.generate",
        f"--model={tmp_path / 'nowhere'}",
        "--prompt=a",
    ]
    done = subprocess.run(command, capture_output=True, text=True)
    assert (
        done.returncode == 2
        and "nowhere" in done.stderr.splitlines()[-1]
        and "Traceback" not in done.stderr
    )


def test_characters_come_whole_and_visible():
    shown = ShownText()
    shown.add("é".encode()[:1], [True])
    assert shown.take() == ""
    shown.add("é".encode()[1:] + b"\xff\xf0", [False] * 3)
    assert shown.take() == "é\ufffd" and shown.take(final=True) == "\ufffd"
    coloured = ShownText(colour=True)
    coloured.add(b"ab\x1b", [True, False, False])
    a, b, escape = coloured.take().split("\033[0m")[:3]
    assert a.endswith(";4ma") and b.endswith("mb") and a[:4] != b[:4] and escape.endswith("m\u241b")
