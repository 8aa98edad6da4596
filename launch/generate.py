"""Streams what a model writes after a prompt.

    python -m launch.generate --model=runs/quickstart/runs/NAME --prompt='Once upon a time' \\
        --max_new_bytes=200
    python -m launch.generate --model=DIR --prompt=@FILE --temperature=0.8 --top_p=0.9 --seed=1 \\
        --stop='\\n\\n' --colour

--model is a run folder or a Hugging Face directory (`blt`, `llama`). Several --prompt make one
batch, whose texts are printed one after the other. What is no UTF-8 is shown as U+FFFD, and on a
terminal control characters as their pictures (a model may write them, and a terminal would obey).
--colour gives each patch its colour and underlines the characters after which the latent model ran;
--plot=OUT.png draws the FLOPs of each byte.
"""

import codecs
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from absl import flags

import blt_jax
from blt_jax.config import ConfigError
from blt_jax.infer import flops_picture
from blt_jax.infer.shown_text import ShownText
from launch import flags as launch_flags

if TYPE_CHECKING:
    from blt_jax.facade import Model

STEPS = 16  # bytes between two looks of the host


def main(_: list[str]) -> int:
    prompts = [_prompt(text) for text in PROMPT.value or ()]
    model = blt_jax.load(MODEL.value)
    has_patches = model.config.patches != "none"
    if (COLOUR.value or PLOT.value) and not has_patches:
        raise ConfigError(
            f"--{'colour' if COLOUR.value else 'plot'}: {MODEL.value} is a plain LM: it has no "
            "patches"
        )
    longest = max(map(len, prompts))
    if longest < model.context < longest + MAX_NEW_BYTES.value and has_patches:
        _note(
            f"prompt and new bytes go beyond the {model.context:,} positions that the model was "
            "trained on"
        )
    texts = [ShownText(COLOUR.value, sys.stdout.isatty()) for _ in prompts]
    stops = [codecs.escape_decode(os.fsencode(stop))[0] for stop in STOP.value]
    for parts in model.stream(
        prompts, MAX_NEW_BYTES.value, TEMPERATURE.value, TOP_P.value, SEED.value, stops, steps=STEPS
    ):
        for text, (new, closed) in zip(texts, parts, strict=True):
            text.add(new, closed)
        if len(texts) == 1:
            _write(texts[0].take())
    for number, text in enumerate(texts):
        title = (
            f"--- {number + 1}: {prompts[number][:60].decode('utf-8', 'replace')!r}\n"
            if len(texts) > 1
            else ""
        )
        _write(title + text.take(final=True) + "\n")
    if PLOT.value:
        _plot(model, texts[0], PLOT.value)
    return 0


def _prompt(text: str) -> bytes:
    """The bytes of a --prompt, or of the file that @FILE names."""
    if not text:
        _note("empty prompt: the text begins from nothing")
    if not text.startswith("@"):
        return os.fsencode(text)
    try:
        data = Path(text[1:]).read_bytes()
    except OSError as error:
        raise ConfigError(f"--prompt={text}: {str(error.strerror).lower()}") from None
    try:
        data.decode()
    except UnicodeDecodeError as error:
        _note(f"{text[1:]} is no UTF-8 from byte {error.start} on: it is read as bytes")
    return data


def _note(line: str) -> None:
    print("note:", line, file=sys.stderr)


def _write(text: str) -> None:
    sys.stdout.buffer.write(text.encode())
    sys.stdout.buffer.flush()


def _plot(model: "Model", text: ShownText, path: str) -> None:
    figure = flops_picture.draw(
        model.config, model.patcher, model.context, bytes(text.bytes), text.closed
    )
    try:
        figure.savefig(path, dpi=110)
    except (OSError, ValueError) as error:
        raise ConfigError(f"--plot={path}: {error}") from None


if __name__ == "__main__":
    MODEL = flags.DEFINE_string("model", None, "Run folder, or Hugging Face directory.")
    PROMPT = flags.DEFINE_multi_string(
        "prompt", None, "Text, or @FILE; again for more rows of a batch."
    )
    MAX_NEW_BYTES = flags.DEFINE_integer(
        "max_new_bytes", 256, "Bytes that may follow.", lower_bound=0
    )
    TEMPERATURE = flags.DEFINE_float(
        "temperature", 0.0, "0: the likeliest byte each time.", lower_bound=0
    )
    TOP_P = flags.DEFINE_float(
        "top_p", 1.0, "Draw among the likeliest bytes that hold so much probability."
    )
    SEED = flags.DEFINE_integer("seed", 0, "Of the draws.")
    STOP = flags.DEFINE_multi_string(
        "stop", [], "A text ends before it; escapes such as \\n count."
    )
    COLOUR = flags.DEFINE_boolean("colour", False, "Show patches.")
    PLOT = flags.DEFINE_string(
        "plot", "", "Draw the FLOPs of each byte (of the first prompt's text) here."
    )
    flags.mark_flags_as_required(["model", "prompt"])
    launch_flags.run(main)
