"""Frozen, checked configuration: what a model and a run are; one file, so that all fields are seen
at once.

Experiments build a locked `ConfigDict`; `record.build` turns it into these dataclasses once, at the
boundary, and every check runs there. A field that is 0 or "" where that makes no sense is resolved
when the dataclass is made, so `record.to_dict` always shows the value that is used. No imports of
ours.
"""

import dataclasses
import difflib
import itertools
import math

# Byte vocabulary (bytelatent tokenizer, fixed by compatibility with the published weights).
BOE, BOS, EOS, DELIMITER, BYTE_OFFSET = 0, 1, 2, 3, 4
BYTE_VOCAB = 256 + BYTE_OFFSET


class ConfigError(ValueError):
    """A setting that cannot work. The message is one line: field, value, why, mend."""


def need(ok, field, value, why):
    if not ok:
        raise ConfigError(f"{field} = {value!r}: {why}")


def choice(field, value, options):
    if value not in options:
        near = difflib.get_close_matches(str(value), options, 1)
        hint = f" (did you mean {near[0]!r}?)" if near else ""
        raise ConfigError(f"{field} = {value!r}: must be one of {', '.join(options)}{hint}")


def round_up(x, multiple):
    return -(-x // multiple) * multiple


def split_over(dimension, axes):
    """Of `axes` (mesh axis -> devices along it) those that a dimension is split over: as many
    devices as divide it.

    Axes of one device split nothing. One rule for parameters, activations and the model of memory.
    """
    some = [axis for axis, size in axes.items() if size > 1]
    parts = [part for count in range(len(some) + 1) for part in itertools.combinations(some, count)]
    ways = lambda part: math.prod(axes[axis] for axis in part)
    return max((part for part in parts if dimension % ways(part) == 0), key=ways)


def later(default):
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
    rope_scaling: tuple[
        float, ...
    ] = ()  # Llama 3.1's (factor, low and high frequency factors, old length); (): none
    norm_eps: float = 1e-5

    def __post_init__(self):
        need(self.layers >= 0, "layers", self.layers, "must not be negative")
        for field in ("width", "heads", "ffn_multiple"):
            need(getattr(self, field) >= 1, field, getattr(self, field), "must be at least 1")
        need(
            self.window >= 0,
            "window",
            self.window,
            "must be 0 (no window) or a number of positions",
        )
        need(self.width % self.heads == 0, "heads", self.heads, f"must divide width {self.width}")
        need(
            (self.width // self.heads) % 2 == 0,
            "heads",
            self.heads,
            f"RoPE needs an even head width, but {self.width} / {self.heads} is odd",
        )
        object.__setattr__(self, "rope_scaling", tuple(self.rope_scaling))
        need(
            len(self.rope_scaling) in (0, 4),
            "rope_scaling",
            self.rope_scaling,
            "must be () or four numbers",
        )
        if not self.kv_heads:
            object.__setattr__(self, "kv_heads", self.heads)
        need(
            self.heads % self.kv_heads == 0,
            "kv_heads",
            self.kv_heads,
            f"must divide heads {self.heads}",
        )
        if not self.ffn:
            object.__setattr__(
                self, "ffn", round_up(int(2 * 4 * self.width / 3), self.ffn_multiple)
            )
        need(self.ffn >= 1, "ffn", self.ffn, "must be at least 1")

    @property
    def head_width(self):
        return self.width // self.heads


INIT_FACTORS = ("disabled", "current_depth", "global_depth", "dim_ratio")


@dataclasses.dataclass(frozen=True)
class Lm:
    """A causal LM over one alphabet: BPE tokens, or bytes (flat byte LM, entropy model)."""

    stack: Stack
    vocab: int = BYTE_VOCAB
    unit: str = "byte"  # "byte" | "token": what one position holds
    tied: bool = False  # the head is the embedding
    init_factor: str = "disabled"  # depth scaling of the initial weights (blt.md, section 7)
    kind: str = "lm"

    def __post_init__(self):
        choice("unit", self.unit, ("byte", "token"))
        choice("init_factor", self.init_factor, INIT_FACTORS)
        need(self.vocab >= 2, "vocab", self.vocab, "must be at least 2")
        need(
            self.unit == "token" or self.vocab == BYTE_VOCAB,
            "vocab",
            self.vocab,
            f"bytes need {BYTE_VOCAB}",
        )


@dataclasses.dataclass(frozen=True)
class Blt:
    """Byte Latent Transformer, and with cross-attention off its relatives (SpaceByte).

    The choices after `init_factor` are those where paper and published code differ
    (blt.md, section 16): see `RELEASED` and `PAPER`.
    """

    encoder: Stack
    latent: Stack
    decoder: Stack
    slots: int = 2  # K: query (and key) slots per patch, each as wide as a byte state
    cross_heads: int = 0  # heads of both cross-attentions; 0: as many as the encoder's
    cross_kv_heads: int = 0  # their key/value heads; 0: as many as cross_heads
    encoder_cross: str = (
        "last"  # "none" | "last" | "all": after which encoder layers patches read bytes
    )
    decoder_cross: str = (
        "all"  # "none" | "first" | "all": before which decoder layers bytes read patches
    )
    hash_sizes: tuple[int, ...] = (3, 4, 5, 6, 7, 8)  # n of the byte n-grams; () for none
    hash_functions: int = 1  # hash functions per n, each with its own tables
    hash_rows: int = 500_002  # rows per table
    vocab: int = BYTE_VOCAB
    tied: bool = False  # the head is the byte embedding
    init_factor: str = "disabled"
    cross_residual: str = (
        "double"  # "double": out = 2x + attention, as published; "single": x + attention
    )
    pool_from: str = (
        "states"  # "states" after the encoder layers, as published; "embeddings" before them
    )
    hash_norm: bool = False  # divide the sum of embeddings by (tables + 1), as the paper says
    hash_short: str = "pad"  # n-grams that begin before the row: "pad" with id 0, or "omit"
    hash_order: str = (
        "oldest"  # which byte of an n-gram gets power 0 of the prime: "oldest" | "newest"
    )
    hash_scope: str = (
        "row"  # n-grams may look across documents of a row ("row") or not ("document")
    )
    kind: str = "blt"

    def __post_init__(self):
        object.__setattr__(self, "hash_sizes", tuple(self.hash_sizes))
        if not self.cross_heads:
            object.__setattr__(self, "cross_heads", self.encoder.heads)
        if not self.cross_kv_heads:
            object.__setattr__(self, "cross_kv_heads", self.cross_heads)
        choice("encoder_cross", self.encoder_cross, ("none", "last", "all"))
        choice("decoder_cross", self.decoder_cross, ("none", "first", "all"))
        choice("init_factor", self.init_factor, INIT_FACTORS)
        choice("cross_residual", self.cross_residual, ("double", "single"))
        choice("pool_from", self.pool_from, ("states", "embeddings"))
        choice("hash_short", self.hash_short, ("pad", "omit"))
        choice("hash_order", self.hash_order, ("oldest", "newest"))
        choice("hash_scope", self.hash_scope, ("row", "document"))
        for part in ("encoder", "decoder"):
            stack = getattr(self, part)
            need(
                stack.window > 0,
                f"{part}.window",
                stack.window,
                "local models need a window of at least 1",
            )
        need(self.slots >= 1, "slots", self.slots, "must be at least 1")
        need(
            self.encoder.width % self.cross_heads == 0,
            "cross_heads",
            self.cross_heads,
            f"must divide the byte width {self.encoder.width}",
        )
        need(
            self.cross_heads % self.cross_kv_heads == 0,
            "cross_kv_heads",
            self.cross_kv_heads,
            f"must divide cross_heads {self.cross_heads}",
        )
        need(
            self.decoder.width == self.encoder.width,
            "decoder.width",
            self.decoder.width,
            f"must equal encoder.width {self.encoder.width}: the decoder continues the encoder's "
            "byte states",
        )
        need(self.encoder.layers >= 1, "encoder.layers", self.encoder.layers, "must be at least 1")
        need(self.decoder.layers >= 1, "decoder.layers", self.decoder.layers, "must be at least 1")
        need(self.latent.layers >= 1, "latent.layers", self.latent.layers, "must be at least 1")
        need(
            all(n >= 1 for n in self.hash_sizes), "hash_sizes", self.hash_sizes, "must be positive"
        )
        need(
            0 <= self.hash_functions <= 11, "hash_functions", self.hash_functions, "must be 0 to 11"
        )
        need(2 <= self.hash_rows < 2**31, "hash_rows", self.hash_rows, "must be 2 to 2^31 - 1")
        need(self.vocab == BYTE_VOCAB, "vocab", self.vocab, f"bytes need {BYTE_VOCAB}")

    @property
    def slots_width(self):
        """Width of a patch between the local models and the latent model, before any projection."""
        return self.encoder.width * (self.slots if self.encoder_cross != "none" else 1)

    @property
    def hash_tables(self):
        return len(self.hash_sizes) * self.hash_functions


Model = Lm | Blt

# The two readings of BLT where the paper and the published code differ (blt.md, section 16).
RELEASED = dict(
    cross_residual="double",
    pool_from="states",
    hash_norm=False,
    hash_short="pad",
    hash_order="oldest",
)
PAPER = dict(
    cross_residual="single",
    pool_from="embeddings",
    hash_norm=True,
    hash_short="omit",
    hash_order="newest",
)


def preset(name):
    """The model config of a published shape, such as "blt-8b" or "llama3-1b" (see
    `blt_jax/families/presets.py`).
    """
    from blt_jax.families import presets  # the shapes are made of this module's dataclasses

    return presets.preset(name)


# ---------------------------------------------------------------- patching and data

RULES = ("entropy", "relative", "combined", "space", "strided", "byte", "bpe")


@dataclasses.dataclass(frozen=True)
class Patching:
    """Where patches start (blt.md, section 2). Rules see bytes already read, never later ones."""

    rule: str = "entropy"  # one of RULES
    target: float = (
        0.0  # mean positions (bytes, BOS, EOS) per patch to solve `threshold` for; 0: as given
    )
    threshold: float = 1.335442066192627  # nats; rule "relative": the rise in nats
    threshold_add: float = 0.0  # nats, rule "combined": the rise
    stride: int = 0  # bytes, rule "strided"
    max_length: int = 0  # bytes; longer patches are cut; 0: no limit
    newline_reset: bool = False  # the entropy model's context restarts after each newline

    def __post_init__(self):
        choice("patching.rule", self.rule, RULES)
        need(
            self.target == 0 or self.target >= 1,
            "patching.target",
            self.target,
            "must be 0 or at least 1 byte",
        )
        need(
            self.rule != "strided" or self.stride >= 1,
            "patching.stride",
            self.stride,
            "must be at least 1 byte",
        )
        need(self.max_length >= 0, "patching.max_length", self.max_length, "must not be negative")

    @property
    def needs_entropies(self):
        return self.rule in ("entropy", "relative", "combined")


@dataclasses.dataclass(frozen=True)
class Data:
    """The corpus of a study and the rows that models read."""

    input: str = "stdlib"  # "stdlib", or a glob of .jsonl[.gz|.zst], .parquet, .txt
    validation_input: str = ""  # a glob; "": split `input` by document hash
    field: str = "text"  # the field of a JSON line or parquet row that holds the text
    source_field: str = (
        "source"  # the field that names a document's source; absent: the file's name
    )
    validation_fraction: float = 0.05  # share of documents, by hash, that goes to validation
    max_bytes: int = 0  # text bytes of training data; documents in hash order until then; 0: all
    validation_max_bytes: int = 0  # likewise for validation
    row_bytes: int = 4096  # L: byte positions per row; token rows hold as much text
    seed: int = 0  # order of rows
    weights: str = later(
        ""
    )  # "wiki=2,code=0.5": how often a source is read in training, against 1 where not named

    def __post_init__(self):
        object.__setattr__(
            self,
            "weights",
            ",".join(part.strip() for part in self.weights.split(",") if part.strip()),
        )
        need(
            all(w >= 0 for w in self.source_weights.values()),
            "data.weights",
            self.weights,
            "must not be negative",
        )
        need(
            0 < self.validation_fraction < 1,
            "data.validation_fraction",
            self.validation_fraction,
            "0 < x < 1",
        )
        need(self.row_bytes >= 8, "data.row_bytes", self.row_bytes, "must be at least 8 bytes")
        for field in ("max_bytes", "validation_max_bytes"):
            need(
                getattr(self, field) >= 0,
                f"data.{field}",
                getattr(self, field),
                "must not be negative",
            )

    @property
    def source_weights(self):
        """{source: weight} of the sources named in `weights`. Raises ConfigError."""
        found = {}
        for part in filter(None, self.weights.split(",")):
            name, _, number = (word.strip() for word in part.rpartition("="))
            need(
                name and name not in found,
                "data.weights",
                self.weights,
                "write each source once, as SOURCE=NUMBER",
            )
            try:
                found[name] = float(number)
            except ValueError:
                found[name] = math.nan
            need(
                math.isfinite(found[name]),
                "data.weights",
                self.weights,
                f"{number!r} is not a number",
            )
        return found


@dataclasses.dataclass(frozen=True)
class Tokenizer:
    path: str = ""  # a tokenizer.json; "": train a byte-level BPE on the training split
    vocab: int = 4096  # entries, specials included, when trained here

    def __post_init__(self):
        need(
            self.vocab >= 260,
            "tokenizer.vocab",
            self.vocab,
            "needs 256 bytes and the specials: at least 260",
        )


# ---------------------------------------------------------------- run


# Optimiser state of the hash tables by `Optimizer.tables`, bytes per parameter
# (train/optimizer.py).
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
        need(
            self.learning_rate > 0,
            "optimizer.learning_rate",
            self.learning_rate,
            "must be positive",
        )
        need(self.clip > 0, "optimizer.clip", self.clip, "must be positive")
        need(
            self.warmup_steps >= 0,
            "optimizer.warmup_steps",
            self.warmup_steps,
            "must not be negative",
        )
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


ATTENTION = ("blockwise", "banded", "splash")  # backends of self-attention


@dataclasses.dataclass(frozen=True)
class Train:
    steps: int = 1000  # optimiser steps
    rows: int = 8  # rows per global batch
    seed: int = 0  # initial weights
    dtype: str = (
        "auto"  # compute: "float32", "bfloat16"; "auto": bfloat16 on TPU/GPU, float32 on CPU
    )
    remat: str = "none"  # "none" | "full": recompute each layer in the backward pass
    device_rows: int = later(
        0
    )  # rows that a device takes at a time, gradients add up over the batch; 0: all its rows
    # backend of self-attention, one of ATTENTION; "auto": the platform's (nn/attention.py)
    attention: str = "auto"
    log_every: int = 10  # steps per line of metrics.jsonl
    checkpoint_every: int = 500  # steps
    keep: int = later(
        2
    )  # newest checkpoints that are kept; a damaged one falls back on the one before
    keep_every: int = later(0)  # checkpoints of steps that this divides are kept for good; 0: none
    bad_step: str = later(
        "stop"
    )  # "stop" | "skip": a step whose loss or gradient is no number, or that is a spike
    spike: float = later(0.0)  # a loss above so many times its recent mean is a spike; 0: none is
    eval_rows: int = 16  # rows per validation batch

    def __post_init__(self):
        for field in ("steps", "rows", "log_every", "checkpoint_every", "keep", "eval_rows"):
            need(
                getattr(self, field) >= 1,
                f"train.{field}",
                getattr(self, field),
                "must be at least 1",
            )
        need(
            self.device_rows >= 0,
            "train.device_rows",
            self.device_rows,
            "must be 0 (all) or a number of rows",
        )
        need(
            self.keep_every >= 0,
            "train.keep_every",
            self.keep_every,
            "must be 0 (none) or a number of steps",
        )
        choice("train.bad_step", self.bad_step, ("stop", "skip"))
        need(
            self.spike == 0 or self.spike > 1,
            "train.spike",
            self.spike,
            "must be 0 (none) or a factor above 1",
        )
        choice("train.dtype", self.dtype, ("auto", "float32", "bfloat16"))
        choice("train.remat", self.remat, ("none", "full"))
        choice("train.attention", self.attention, ("auto", *ATTENTION))


@dataclasses.dataclass(frozen=True)
class Profile:
    """A trace of some steps for TensorBoard or Perfetto, in the run's folder `profile/`."""

    steps: str = ""  # FIRST:LAST, both included; "": none

    def __post_init__(self):
        first, colon, last = self.steps.partition(":")
        ok = not self.steps or (
            colon and first.isdigit() and last.isdigit() and 1 <= int(first) <= int(last)
        )
        need(ok, "profile.steps", self.steps, "must be FIRST:LAST, such as 10:15")

    @property
    def range(self):
        """(first, last) step; (0, 0) where nothing is traced."""
        return tuple(map(int, self.steps.split(":"))) if self.steps else (0, 0)


@dataclasses.dataclass(frozen=True)
class Init:
    """Weights that a BLT starts from (byte-ifying; paper, section 6.2)."""

    from_llama: str = (
        ""  # Hugging Face directory of a Llama whose layers start the latent model; "": none
    )
    latent_rate_factor: float = (
        0.1  # learning rate of the latent layers over that of the rest, with from_llama
    )

    def __post_init__(self):
        need(
            self.latent_rate_factor >= 0,
            "init.latent_rate_factor",
            self.latent_rate_factor,
            "must not be negative",
        )


@dataclasses.dataclass(frozen=True)
class Run:
    """Everything that `launch.train` needs. Paths are relative to the run's folder."""

    name: str
    family: str  # the label that reports group by
    size: str  # the label of the model's size within its family
    model: Model
    store: str  # folder of the document store
    index: str  # row index of the training split
    validation_index: str  # row index of the validation split
    patching: Patching | None = None  # None: the model reads bytes or tokens one by one
    tokenizer: str = ""  # tokenizer.json; "": the model reads bytes
    optimizer: Optimizer = Optimizer()
    init: Init = Init()
    train: Train = Train()
    mesh: Mesh = Mesh()
    profile: Profile = later(Profile())
    data_seed: int = 0  # order of rows
    calibration: str = later(
        ""
    )  # calibration of the patching, which drift is judged by; "": it is not
    budget: float = 0.0  # training FLOPs that the steps were solved for; 0: none

    def __post_init__(self):
        if isinstance(self.model, Blt):
            need(self.patching is not None, "patching", None, "a BLT model needs a patching rule")
        else:
            need(self.patching is None, "patching", self.patching, "a plain LM has no patches")
            need(
                not self.init.from_llama,
                "init.from_llama",
                self.init.from_llama,
                "only a BLT has a latent model",
            )
            if self.model.unit == "token":
                need(
                    bool(self.tokenizer),
                    "tokenizer",
                    self.tokenizer,
                    "a token model needs a tokenizer.json",
                )
