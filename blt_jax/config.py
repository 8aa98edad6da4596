"""Frozen, checked configuration: the parts that models, studies and runs share.

Experiments build a locked `ConfigDict`; `record.build` turns it into dataclasses once, at the
boundary, and every check runs there. A field that is 0 or "" where that makes no sense is resolved
when the dataclass is made, so `record.to_dict` always shows the value that is used. Families,
patching and runs have config files of their own; this one imports nothing of ours.
"""

import dataclasses
import difflib
import importlib
import itertools
import math
from collections.abc import Iterable, Mapping
from typing import Any

# Byte vocabulary (bytelatent tokenizer, fixed by compatibility with the published weights).
BOE, BOS, EOS, DELIMITER, BYTE_OFFSET = 0, 1, 2, 3, 4
BYTE_VOCAB = 256 + BYTE_OFFSET


class ConfigError(ValueError):
    """A setting that cannot work. The message is one line: field, value, why, mend."""


def need(ok: bool, field: str, value: Any, why: str) -> None:
    """Raises ConfigError about a field unless `ok`."""
    if not ok:
        raise ConfigError(f"{field} = {value!r}: {why}")


def at_least(least: int, owner: Any, fields: Iterable[str], where: str = "") -> None:
    """Raises ConfigError for the first of `fields` of a config that is below `least` (0 or 1).

    `where`: what stands before the field's name in the message, as "train.".
    """
    why = "must be at least 1" if least else "must not be negative"
    for field in fields:
        value = getattr(owner, field)
        need(value >= least, where + field, value, why)


def nearest(value: Any, options: Iterable[str]) -> str:
    """What to say of an unknown name: the nearest known one, or all of them."""
    near = difflib.get_close_matches(str(value), list(options), 1)
    return f"did you mean {near[0]!r}?" if near else f"known: {', '.join(options)}"


def choice(field: str, value: Any, options: Iterable[str]) -> None:
    """Raises ConfigError, with the nearest option, for a value that is none of them."""
    if value not in options:
        near = difflib.get_close_matches(str(value), list(options), 1)
        hint = f" (did you mean {near[0]!r}?)" if near else ""
        raise ConfigError(f"{field} = {value!r}: must be one of {', '.join(options)}{hint}")


def round_up(x: int, multiple: int) -> int:
    """The least multiple that is at least `x`."""
    return -(-x // multiple) * multiple


def split_over(dimension: int, axes: Mapping[str, int]) -> tuple[str, ...]:
    """Of `axes` (mesh axis -> devices along it) those that a dimension is split over: as many
    devices as divide it.

    Axes of one device split nothing. One rule for parameters, activations and the model of memory.
    """
    some = [axis for axis, size in axes.items() if size > 1]
    parts = [part for count in range(len(some) + 1) for part in itertools.combinations(some, count)]
    ways = lambda part: math.prod(axes[axis] for axis in part)
    return max((part for part in parts if dimension % ways(part) == 0), key=ways)


def later(default: Any) -> Any:
    """A field that joined a dataclass after studies were recorded: its default leaves their
    fingerprints alone.
    """
    return dataclasses.field(default=default, metadata={"later": True})


# ---------------------------------------------------------------- model


@dataclasses.dataclass(frozen=True)
class Stack:
    """One stack of pre-norm Llama blocks (RMSNorm, RoPE, SwiGLU, no biases)."""

    layers: int
    width: int
    heads: int
    kv_heads: int = 0  # key/value heads; 0: as many as heads
    ffn: int = 0  # SwiGLU hidden width; 0: 8/3 of width, rounded up to ffn_multiple
    ffn_multiple: int = 256  # the published models round to 256
    window: int = 0  # positions that a query sees, itself included; 0: all before it
    rope_theta: float = 500_000.0
    # Llama 3.1's (factor, low and high frequency factors, old length); (): none
    rope_scaling: tuple[float, ...] = ()
    norm_eps: float = 1e-5

    def __post_init__(self):
        at_least(0, self, ["layers"])
        at_least(1, self, ["width", "heads", "ffn_multiple"])
        why = "must be 0 (no window) or a number of positions"
        need(self.window >= 0, "window", self.window, why)
        width, heads = self.width, self.heads
        need(width % heads == 0, "heads", heads, f"must divide width {width}")
        why = f"RoPE needs an even head width, but {width} / {heads} is odd"
        need((width // heads) % 2 == 0, "heads", heads, why)
        scaling = tuple(self.rope_scaling)
        object.__setattr__(self, "rope_scaling", scaling)
        need(len(scaling) in (0, 4), "rope_scaling", scaling, "must be () or four numbers")
        if not self.kv_heads:
            object.__setattr__(self, "kv_heads", heads)
        need(heads % self.kv_heads == 0, "kv_heads", self.kv_heads, f"must divide heads {heads}")
        if not self.ffn:
            ffn = round_up(int(2 * 4 * width / 3), self.ffn_multiple)
            object.__setattr__(self, "ffn", ffn)
        at_least(1, self, ["ffn"])

    @property
    def head_width(self) -> int:
        return self.width // self.heads


# ---------------------------------------------------------------- data


@dataclasses.dataclass(frozen=True)
class Data:
    """The corpus of a study and the rows that models read."""

    input: str = "stdlib"  # "stdlib", or a glob of .jsonl[.gz|.zst], .parquet, .txt
    validation_input: str = ""  # a glob; "": split `input` by document hash
    field: str = "text"  # the field of a JSON line or parquet row that holds the text
    # the field that names a document's source; absent: the file's name
    source_field: str = "source"
    validation_fraction: float = 0.05  # share of documents, by hash, that goes to validation
    max_bytes: int = 0  # text bytes of training data; documents in hash order until then; 0: all
    validation_max_bytes: int = 0  # likewise for validation
    row_bytes: int = 4096  # L: byte positions per row; token rows hold as much text
    seed: int = 0  # order of rows
    # "wiki=2,code=0.5": how often a source is read in training, against 1 where not named
    weights: str = later("")

    def __post_init__(self):
        parts = (part.strip() for part in self.weights.split(","))
        object.__setattr__(self, "weights", ",".join(filter(None, parts)))
        positive = all(weight >= 0 for weight in self.source_weights.values())
        need(positive, "data.weights", self.weights, "must not be negative")
        fraction = self.validation_fraction
        need(0 < fraction < 1, "data.validation_fraction", fraction, "0 < x < 1")
        need(self.row_bytes >= 8, "data.row_bytes", self.row_bytes, "must be at least 8 bytes")
        at_least(0, self, ["max_bytes", "validation_max_bytes"], "data.")

    @property
    def source_weights(self) -> dict[str, float]:
        """{source: weight} of the sources named in `weights`. Raises ConfigError."""
        weights: dict[str, float] = {}
        for part in filter(None, self.weights.split(",")):
            name, _, number = (word.strip() for word in part.rpartition("="))
            why = "write each source once, as SOURCE=NUMBER"
            need(bool(name) and name not in weights, "data.weights", self.weights, why)
            try:
                weights[name] = float(number)
            except ValueError:
                weights[name] = math.nan
            why = f"{number!r} is not a number"
            need(math.isfinite(weights[name]), "data.weights", self.weights, why)
        return weights


@dataclasses.dataclass(frozen=True)
class Tokenizer:
    path: str = ""  # a tokenizer.json; "": train a byte-level BPE on the training split
    vocab: int = 4096  # entries, specials included, when trained here

    def __post_init__(self):
        why = "needs 256 bytes and the specials: at least 260"
        need(self.vocab >= 260, "tokenizer.vocab", self.vocab, why)


# ---------------------------------------------------------------- run


# Bytes of optimiser state per parameter of the hash tables, by `Optimizer.tables`.
TABLE_BYTES = {"adam": 8, "adafactor": 0, "lion": 2}


@dataclasses.dataclass(frozen=True)
class Optimizer:
    """AdamW with clipping, linear warm-up and a cosine (paper, section 4.8)."""

    learning_rate: float = 4e-4
    beta1: float = 0.9
    beta2: float = 0.95
    eps: float = 1e-8
    weight_decay: float = 0.1
    clip: float = 1.0  # global gradient norm
    warmup_steps: int = 2000
    final_ratio: float = 0.0  # learning rate at the last step over the peak
    tables: str = later("adam")  # rule of the hash tables, one of TABLE_BYTES; all else is Adam's

    def __post_init__(self):
        rate = self.learning_rate
        need(rate > 0, "optimizer.learning_rate", rate, "must be positive")
        need(self.clip > 0, "optimizer.clip", self.clip, "must be positive")
        at_least(0, self, ["warmup_steps"], "optimizer.")
        choice("optimizer.tables", self.tables, TABLE_BYTES)


@dataclasses.dataclass(frozen=True)
class Mesh:
    """Devices per mesh axis; -1 once: what is left."""

    data: int = -1
    fsdp: int = 1
    tensor: int = 1

    def __post_init__(self):
        sizes = (self.data, self.fsdp, self.tensor)
        need(all(s >= 1 or s == -1 for s in sizes), "mesh", sizes, "each axis is -1 or at least 1")
        need(sizes.count(-1) <= 1, "mesh", sizes, "only one axis may be -1")

    def sizes(self, devices: int) -> tuple[int, int, int]:
        """Devices along (data, fsdp, tensor) of so many. Raises ConfigError where they do not
        fit.
        """
        sizes = (self.data, self.fsdp, self.tensor)
        known = math.prod(size for size in sizes if size != -1)
        if devices % known or (known != devices and -1 not in sizes):
            shape = f"data={self.data} x fsdp={self.fsdp} x tensor={self.tensor}"
            raise ConfigError(f"mesh = {shape}: does not fit {devices} devices; set one axis to -1")
        data, fsdp, tensor = (devices // known if size == -1 else size for size in sizes)
        return data, fsdp, tensor


ATTENTION = ("blockwise", "banded", "splash")  # backends of self-attention


@dataclasses.dataclass(frozen=True)
class Train:
    steps: int = 1000  # optimiser steps
    rows: int = 8  # rows per global batch
    seed: int = 0  # initial weights
    # compute: "float32", "bfloat16"; "auto": bfloat16 on TPU/GPU, float32 on CPU
    dtype: str = "auto"
    remat: str = "none"  # "none" | "full": recompute each layer in the backward pass
    # rows that a device takes at a time, gradients add up over the batch; 0: all its rows
    device_rows: int = later(0)
    # backend of self-attention, one of ATTENTION; "auto": the platform's (nn/attention.py)
    attention: str = "auto"
    log_every: int = 10  # steps per line of metrics.jsonl
    checkpoint_every: int = 500  # steps
    # newest checkpoints that are kept; a damaged one falls back on the one before
    keep: int = later(2)
    keep_every: int = later(0)  # checkpoints of steps that this divides are kept for good; 0: none
    # "stop" | "skip": a step whose loss or gradient is no number, or that is a spike
    bad_step: str = later("stop")
    spike: float = later(0.0)  # a loss above so many times its recent mean is a spike; 0: none is
    eval_rows: int = 16  # rows per validation batch

    def __post_init__(self):
        counts = ["steps", "rows", "log_every", "checkpoint_every", "keep", "eval_rows"]
        at_least(1, self, counts, "train.")
        why = "must be 0 (all) or a number of rows"
        need(self.device_rows >= 0, "train.device_rows", self.device_rows, why)
        why = "must be 0 (none) or a number of steps"
        need(self.keep_every >= 0, "train.keep_every", self.keep_every, why)
        choice("train.bad_step", self.bad_step, ("stop", "skip"))
        why = "must be 0 (none) or a factor above 1"
        need(self.spike == 0 or self.spike > 1, "train.spike", self.spike, why)
        choice("train.dtype", self.dtype, ("auto", "float32", "bfloat16"))
        choice("train.remat", self.remat, ("none", "full"))
        choice("train.attention", self.attention, ("auto", *ATTENTION))


@dataclasses.dataclass(frozen=True)
class Profile:
    """A trace of some steps for TensorBoard or Perfetto, in the run's folder `profile/`."""

    steps: str = ""  # FIRST:LAST, both included; "": none

    def __post_init__(self):
        first, _, last = self.steps.partition(":")
        numbers = first.isdigit() and last.isdigit()
        ok = not self.steps or (numbers and 1 <= int(first) <= int(last))
        need(ok, "profile.steps", self.steps, "must be FIRST:LAST, such as 10:15")

    @property
    def range(self) -> tuple[int, int]:
        """(first, last) step; (0, 0) where nothing is traced."""
        first, _, last = self.steps.partition(":")
        return (int(first), int(last)) if self.steps else (0, 0)


@dataclasses.dataclass(frozen=True)
class Init:
    """Weights that a BLT starts from (byte-ifying; paper, section 6.2)."""

    # Hugging Face directory of a Llama whose layers start the latent model; "": none
    from_llama: str = ""
    # learning rate of the latent layers over that of the rest, with from_llama
    latent_rate_factor: float = 0.1

    def __post_init__(self):
        at_least(0, self, ["latent_rate_factor"], "init.")


# ---------------------------------------------------------------- names that lie above

_ABOVE = {
    "Model": "blt_jax.families",
    "preset": "blt_jax.families",
    "Lm": "blt_jax.families.lm.config",
    "Blt": "blt_jax.families.blt.config",
    "RELEASED": "blt_jax.families.blt.config",
    "PAPER": "blt_jax.families.blt.config",
    "Patching": "blt_jax.patching",
    "Run": "blt_jax.runs.config",
}


def __getattr__(name: str):
    """`preset(name)` and the config classes of other rooms, looked up when asked for.

    For config files of experiments, which take all classes from one place. The program itself
    imports each class from its own file.
    """
    if name not in _ABOVE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_ABOVE[name]), name)
