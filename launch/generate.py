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

from absl import flags

import blt_jax
from blt_jax.config import ConfigError
from blt_jax.families.blt.config import Blt
from blt_jax.flops import per_byte
from launch import flags as launch_flags

COLOURS = (36, 33, 35, 32)  # ANSI foregrounds, one patch after the other
STEPS = 16  # bytes between two looks of the host
PICTURES = {code: 0x2400 + code for code in range(0x20) if chr(code) not in "\n\t"} | {0x7F: 0x2421}
PICTURES |= dict.fromkeys(range(0x80, 0xA0), 0xFFFD)


def main(_):
    prompts = [_prompt(one) for one in PROMPT.value]
    model = blt_jax.load(MODEL.value)
    if (COLOUR.value or PLOT.value) and not isinstance(model.config, Blt):
        raise ConfigError(
            f"--{'colour' if COLOUR.value else 'plot'}: {MODEL.value} is a plain LM: it has no "
            "patches"
        )
    longest = max(map(len, prompts))
    if longest < model.context < longest + MAX_NEW_BYTES.value and isinstance(model.config, Blt):
        _note(
            f"prompt and new bytes go beyond the {model.context:,} positions that the model was "
            "trained on"
        )
    texts = [_Shown(COLOUR.value) for _ in prompts]
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


def _prompt(text):
    """The bytes of a --prompt, or of the file that @FILE names."""
    if not text:
        _note("empty prompt: the text begins from nothing")
    if not text.startswith("@"):
        return os.fsencode(text)
    try:
        data = Path(text[1:]).read_bytes()
    except OSError as error:
        raise ConfigError(f"--prompt={text}: {error.strerror.lower()}") from None
    try:
        data.decode()
    except UnicodeDecodeError as error:
        _note(f"{text[1:]} is no UTF-8 from byte {error.start} on: it is read as bytes")
    return data


def _note(line):
    print("note:", line, file=sys.stderr)


def _write(text):
    sys.stdout.buffer.write(text.encode())
    sys.stdout.buffer.flush()


class _Shown:
    """Bytes as they come, and the text that is certain of them."""

    def __init__(self, colour):
        self.bytes, self.closed = bytearray(), []
        self._colour, self._patch, self._marked, self._ready = colour, 0, False, []
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")

    def add(self, new, closed):
        self.bytes += new
        self.closed += closed
        for byte, ends in zip(new, closed, strict=True):
            self._marked |= ends
            self._put(self._decoder.decode(bytes([byte])))
            self._patch += ends

    def _put(self, characters):
        if not characters:
            return
        if self._colour or sys.stdout.isatty():
            characters = characters.translate(PICTURES)
        if self._colour:
            code = f"{COLOURS[self._patch % len(COLOURS)]}{';4' if self._marked else ''}"
            characters = f"\033[{code}m{characters}\033[0m"
        self._ready.append(characters)
        self._marked = False

    def take(self, final=False):
        """What is not shown yet; `final`: also what was cut inside a character."""
        if final:
            self._put(self._decoder.decode(b"", final=True))
        ready, self._ready = "".join(self._ready), []
        return ready


def _plot(model, text, path):
    """FLOPs of each new byte, by the cost model: local models, and the latent model where it
    ran.
    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    def cost(config, size):
        return per_byte(
            config, patch_size=size, context_bytes=model.context, convention="exact"
        ).total

    by_patch = 2 * (cost(model.config, 1) - cost(model.config, 2))
    by_byte = cost(model.config, 1) - by_patch
    entropy = cost(model.patcher, 1) if model.patcher is not None else 0.0
    at, ran = range(len(text.bytes)), [by_patch if closed else 0.0 for closed in text.closed]
    figure, axes = pyplot.subplots(
        figsize=(max(6, min(40, 0.14 * len(at) + 2)), 3.2), layout="constrained"
    )
    bottom = 0.0
    for height, colour, label in (
        (entropy, "0.8", "entropy model"),
        (by_byte, "tab:blue", "encoder, decoder, head"),
    ):
        if height:
            axes.bar(at, height, 1.0, bottom, color=colour, label=label)
            bottom += height
    axes.bar(at, ran, 1.0, bottom, color="tab:orange", label="patch: pooling, latent model")
    if len(at) <= 260:
        shown = [
            chr(b) if 0x20 < b < 0x7F else "\u2423" if b == 0x20 else "\u00b7" for b in text.bytes
        ]
        axes.set_xticks(list(at), shown, fontsize=7, family="monospace")
    mean = bottom + sum(ran) / max(1, len(ran))
    axes.axhline(mean, color="black", linewidth=0.8, linestyle="--", label=f"mean {mean:.3g}")
    axes.set(
        xlabel="new bytes (\u2423 space, \u00b7 other)",
        ylabel="FLOPs, exact",
        xlim=(-0.5, max(len(at), 1) - 0.5),
    )
    axes.legend(loc="upper left", bbox_to_anchor=(0, 1.22), ncols=4, fontsize=8, frameon=False)
    try:
        figure.savefig(path, dpi=110)
    except (OSError, ValueError) as error:
        raise ConfigError(f"--plot={path}: {error}") from None
    pyplot.close(figure)


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
