"""A trained model behind one small interface, NumPy in and out: `m = blt_jax.load(DIR)`.

DIR is a run folder (STUDY/runs/NAME, STUDY/entropy_model) or a Hugging Face directory (`blt` or
`llama`). Rows of ids may hold several documents, each closed by an EOS: attention stays inside a
document, while positions, n-grams and patches do not restart. Rows are padded to few static shapes,
so that few programs are compiled.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from blt_jax import storage
from blt_jax.config import EOS, ConfigError
from blt_jax.data import bpe, pack, vocab
from blt_jax.eval import likelihood
from blt_jax.eval.entropy_scoring import NEWLINE, entropies
from blt_jax.families import network
from blt_jax.families.blt.config import Blt
from blt_jax.families.lm.config import Lm
from blt_jax.infer import generation as decode
from blt_jax.infer import prompts as from_prompts
from blt_jax.interop import hf_config, huggingface
from blt_jax.nn import incremental
from blt_jax.patching import row_layout, rules
from blt_jax.runs.checkpoint import load_params

ENTROPY_MODEL = "../../entropy_model"  # from a run's folder


def load(folder, dtype="float32"):
    """The `Model` in `folder`. `dtype`: of activations, "float32" or "bfloat16"; parameters stay
    float32.

    Raises ConfigError, in one line, for a folder that holds no model, or one that cannot be
    honoured.
    """
    folder = storage.at(folder)
    settings = hf_config.load_settings(folder / "config.json")
    compute = network.Compute(jnp.dtype(dtype), attention=network.backend_of(jax.default_backend()))
    if "model_type" in settings:
        if storage.in_bucket(folder):
            raise ConfigError(
                f"{folder}: a Hugging Face model in a bucket; copy it to a folder of this machine "
                "first"
            )
        found = huggingface.load(folder)
        path = folder / "tokenizer.json"
        tokenizer = (
            path
            if isinstance(found.model, Lm) and found.model.unit == "token" and path.exists()
            else None
        )
        # transformers compares its entropies with the threshold in float32.
        return Model(folder, found, tokenizer, np.float32, compute)
    if "model" not in settings:
        raise ConfigError(
            f"{folder / 'config.json'}: neither a run nor a Hugging Face model (no model_type, no "
            "model)"
        )
    run, params = load_params(folder)
    patcher, patcher_params = None, None
    if (
        run.patching is not None
        and run.patching.needs_entropies
        and storage.at(folder / ENTROPY_MODEL).exists()
    ):
        entropy_run, patcher_params = load_params(folder / ENTROPY_MODEL)
        patcher = entropy_run.model
    context = pack.load_header(folder / run.index)["row_positions"]
    found = huggingface.Pretrained(
        run.model, params, patcher, patcher_params, run.patching, context
    )
    # Training kept entropies as float16 and its threshold was solved for such values: round
    # likewise to cut alike.
    return Model(
        folder, found, folder / run.tokenizer if run.tokenizer else None, np.float16, compute
    )


class Model:
    """`config` (Blt or Lm), `params` (float32 NumPy tree), `patching` (None for a Lm), `context`
    (positions).
    """

    def __init__(self, folder, found: huggingface.Pretrained, tokenizer, entropy_dtype, compute):
        self.folder, self.config, self.params = storage.at(folder), found.model, found.params
        self.patching, self.context = found.patching, found.context
        self.patcher, self.patcher_params = found.patcher, found.patcher_params
        if isinstance(found.model, Lm):  # a byte LM measures entropies itself
            self.patcher, self.patcher_params = found.model, found.params
        self._tokenizer, self._entropy_dtype, self._compute = tokenizer, entropy_dtype, compute

    # ------------------------------------------------------------ what the model says about ids

    def entropies(self, ids_BxL):
        """Entropies (nats) of the distribution after each id, float32 [B, L], each row by itself.

        Of a BLT, those of its entropy model, in float32; of a run folder, rounded to float16 once,
        as in training. Raises ConfigError where there is no entropy model.
        """
        return np.stack(self._entropies(self._rows(ids_BxL)))

    def patch_lengths(self, ids_BxL):
        """Patch lengths, int32 [B, P], that count the next byte: rows add up to L + 1, zeros come
        after.

        Raises ConfigError for a model without patches.
        """
        lengths = self._lengths(self._rows(ids_BxL))
        return np.stack(
            [np.pad(row, (0, max(map(len, lengths)) - len(row))) for row in lengths]
        ).astype(np.int32)

    def logits(self, ids_BxL, patch_lengths=None):
        """Logits of the next id, float32 [B, L, V]. `patch_lengths` as from `patch_lengths`, which
        is the default.
        """
        rows = self._rows(ids_BxL)
        if patch_lengths is not None:
            self._need_patches()
            patch_lengths = np.asarray(patch_lengths)
            if patch_lengths.ndim != 2 or len(patch_lengths) != len(rows):
                raise ConfigError(
                    f"patch_lengths: must be [{len(rows)}, P], are {patch_lengths.shape}"
                )
        batch = self._batch(rows, patch_lengths)
        return np.asarray(_logits(self._on_device, batch, self.config, self._compute))[
            : len(rows), : len(rows[0])
        ]

    def bits(self, data: bytes) -> float:
        """Bits that the model needs for `data` as one document, EOS included; every byte is scored
        once.

        Longer texts than `context` go through windows that overlap by half: each carries half a
        context over.
        """
        return self.score([data])[0].bits

    def score(self, texts, before=None, greedy=False, tell=None):
        """`eval.likelihood.Scored` of each text (bytes) as one document, EOS included; batched,
        `bits` for each.

        With `before` (a list of bytes), of the text as what follows it, without EOS. A token model
        reads both at once where the text's first byte begins a token; a token that lies across is
        counted to the text, whole. `tell`: see `eval.likelihood.score`.
        """
        if before is None:
            rows, firsts = [self.encode(text) for text in texts], None
        else:
            rows = [
                self.encode(start + text)[:-1] for start, text in zip(before, texts, strict=True)
            ]
            firsts = [self._first(ids, len(start)) for ids, start in zip(rows, before, strict=True)]
        how = dict(firsts=firsts, greedy=greedy, tell=tell)
        return likelihood.score(
            self._on_device, self.config, self._compute, rows, self._batch, self.context, **how
        )

    def _first(self, ids, skipped):
        """The target (id after the first) in which byte number `skipped` of the text lies."""
        if self._unit != "token":
            return skipped
        return int(
            np.searchsorted(np.cumsum(self._bpe.token_bytes[ids[1:]]), skipped, side="right")
        )

    # ------------------------------------------------------------ generation

    def generate(self, prompts, max_new_bytes, temperature=0.0, top_p=1.0, seed=0, stop=None):
        """What follows each prompt (a list of bytes), at most `max_new_bytes` each, without the
        prompt: list of bytes.

        Temperature 0 is greedy; `top_p` keeps the likeliest ids that hold that much probability. A
        text ends at EOS and before the first `stop` (bytes, or a list of them). What a prompt gives
        depends on the seed and on its place in the list, not on the other prompts. How much of a
        text the model sees: `stream_ids`.
        """
        texts = [bytearray() for _ in prompts]
        for parts in self.stream(prompts, max_new_bytes, temperature, top_p, seed, stop):
            for text, (some, _) in zip(texts, parts, strict=True):
                text += some
        return [bytes(text) for text in texts]

    def stream(
        self, prompts, max_new_bytes, temperature=0.0, top_p=1.0, seed=0, stop=None, steps=32
    ):
        """As `generate`, some bytes at a time: yields a list of (bytes, whether each completed a
        patch) by prompt.

        Bytes that may begin a `stop` are held back. `steps`: ids at a time, at most 32.
        """
        stops = [stop] if isinstance(stop, bytes) else list(stop or [])
        if any(not isinstance(s, bytes) or not s for s in stops):
            raise ConfigError(
                f"stop = {stop!r}: must be bytes or a list of bytes, none of them empty"
            )
        texts = [_Text(self.decode, stops, max_new_bytes) for _ in prompts]
        begins = [self.encode(prompt)[:-1] for prompt in prompts]  # without the EOS
        eos = self._bpe.eos if self._unit == "token" else EOS
        ends = lambda row, ids: texts[row].add(ids[-1])
        for parts in self.stream_ids(
            begins, max_new_bytes, temperature, top_p, seed, eos, ends, steps
        ):
            yield [text.take(closed) for text, (_, closed) in zip(texts, parts, strict=True)]
        yield [text.take([], held=0) for text in texts]

    def generate_ids(
        self, prompts, max_new, temperature=0.0, top_p=1.0, seed=0, eos=None, ends=None
    ):
        """At most `max_new` ids after each prompt (a list of int arrays [L]), as a list of lists.

        A row ends before `eos` (an id; None: nothing ends it), and when `ends(new ids)` says so.
        """
        prompts = list(prompts)
        new = [[] for _ in prompts]
        told = ends and (lambda row, ids: ends(ids))
        for parts in self.stream_ids(prompts, max_new, temperature, top_p, seed, eos, told):
            for ids, (some, _) in zip(new, parts, strict=True):
                ids += some
        return new

    def stream_ids(
        self, prompts, max_new, temperature=0.0, top_p=1.0, seed=0, eos=None, ends=None, steps=32
    ):
        """As `generate_ids`, some ids at a time: yields a list of (new ids, whether each completed
        a patch) by prompt.

        `ends(row, ids)`: as there, with the prompt's number. `steps`: ids at a time, at most 32.

        Each id costs one step with cached keys and values: local models see their window, the
        latent model all patches, a model without a window all positions. Nothing is forgotten or
        read again when a text grows beyond `context`, the positions that the model was trained on;
        it only meets positions that it has not seen. Raises ConfigError for a prompt that is empty
        or longer than `context`.
        """
        if max_new < 0 or temperature < 0 or not 0 < top_p <= 1:
            what = f"max_new = {max_new}, temperature = {temperature}, top_p = {top_p}"
            raise ConfigError(f"{what}: must be at least 0, at least 0, and in (0, 1]")
        if not len(prompts) or not max_new:
            return
        how = dict(temperature=temperature, top_p=top_p, seed=seed, eos=eos, ends=ends, steps=steps)
        state = self.prompted(prompts, max_new)
        yield from decode.stream(self._by_layer, self._plan, state, len(prompts), max_new, **how)

    def tail(self, prompt: bytes) -> bytes:
        """As much of a prompt's end as the model reads at a time: all of it, unless it is longer
        than `context`.
        """
        keep = self.context - 1  # beside BOS
        while len(ids := self.encode(prompt)[:-1]) > self.context:
            prompt, keep = self.decode(ids[-keep:]), keep - 1
        return prompt

    def prompted(self, prompts, room):
        """The `decode.State` after prompts (a list of int arrays [L]), with caches for `room` more
        ids each.
        """
        rows = [self._rows(np.asarray(prompt)[None])[0] for prompt in prompts]
        long = max(map(len, rows))
        if long > self.context:
            raise ConfigError(
                f"prompt of {long:,} ids: {self.folder} reads {self.context:,} at a time; give "
                "the last of them"
            )
        whole = decode.Params(self._on_device, self._plan.patcher and self._patcher_on_device)
        return from_prompts.start(whole, self._plan, rows, room)

    def decoding(self) -> tuple:
        """(parameters, plan) that `infer.generation.feed` takes, layers apart."""
        return self._by_layer, self._plan

    # ------------------------------------------------------------ ids and text

    @property
    def _unit(self):
        return getattr(self.config, "unit", "byte")

    @functools.cached_property
    def _bpe(self):
        if self._tokenizer is None:
            raise ConfigError(
                f"{self.folder}: has no tokenizer.json, without which a token model cannot read "
                "text"
            )
        made = bpe.Bpe(self._tokenizer)
        if made.vocab > self.config.vocab:
            raise ConfigError(
                f"{self._tokenizer}: {made.vocab} entries, but the model has {self.config.vocab}"
            )
        return made

    def encode(self, text):
        """The ids of a document, int32 [N]: BOS, `text` (bytes), EOS."""
        return self._bpe.encode(text) if self._unit == "token" else vocab.encode(text)

    def decode(self, ids):
        """The bytes of `ids`; BOS, EOS and the like have none."""
        return (
            self._bpe.decode(ids)
            if self._unit == "token"
            else vocab.decode(np.array(ids, np.int32))
        )

    # ------------------------------------------------------------ rows and batches

    @functools.cached_property
    def _on_device(self):
        return jax.device_put(self.params)

    @functools.cached_property
    def _patcher_on_device(self):
        return (
            self._on_device if self.patcher is self.config else jax.device_put(self.patcher_params)
        )

    def _rows(self, ids_BxL):
        ids_BxL = np.asarray(ids_BxL)
        if ids_BxL.ndim != 2 or not ids_BxL.size or not np.issubdtype(ids_BxL.dtype, np.integer):
            raise ConfigError(f"ids: must be integers [B, L], are {ids_BxL.dtype} {ids_BxL.shape}")
        if ids_BxL.min() < 0 or ids_BxL.max() >= self.config.vocab:
            raise ConfigError(
                f"ids: must be 0 to {self.config.vocab - 1}, are {ids_BxL.min()} to {ids_BxL.max()}"
            )
        return list(ids_BxL.astype(np.int32))

    @property
    def _closing(self):
        """Ids that close a document: only the byte alphabet, or a tokenizer, says which."""
        if self._unit == "token":
            return () if self._tokenizer is None else (self._bpe.eos,)
        return (EOS,)

    @property
    def _patcher_closing(self):
        """Ids that close what the entropy model looks back on; with `newline_reset` a newline,
        too.
        """
        reset = self.patching is not None and self.patching.newline_reset
        return (*self._closing, NEWLINE) if reset else self._closing

    @functools.cached_property
    def _plan(self):
        """What generation is compiled for. Raises ConfigError where an entropy model is needed and
        missing.
        """
        if not isinstance(self.config, Blt):
            return decode.Plan(self.config, self._closing, compute=self._compute)
        if not self.patching.needs_entropies:
            return decode.Plan(self.config, self._closing, self.patching, compute=self._compute)
        self._need_patcher()
        rounds = self._entropy_dtype == np.float16
        return decode.Plan(
            self.config,
            self._closing,
            self.patching,
            self.patcher,
            self._patcher_closing,
            rounds,
            self._compute,
        )

    @functools.cached_property
    def _by_layer(self):
        """Parameters as the loop takes them: layers apart, all else the same arrays."""
        patcher = self._plan.patcher and incremental.by_layer(self._patcher_on_device)
        return decode.Params(incremental.by_layer(self._on_device), patcher)

    def _need_patches(self):
        if not isinstance(self.config, Blt):
            raise ConfigError(f"{self.folder}: a plain LM has no patches")

    def _need_patcher(self):
        if self.patcher is None:
            why = (
                "its patching needs none"
                if not self.patching.needs_entropies
                else f"no {ENTROPY_MODEL} beside it"
            )
            raise ConfigError(f"{self.folder}: has no entropy model ({why})")

    def _entropies(self, rows):
        """One float32 array per row."""
        self._need_patcher()
        batch = from_prompts.lm_batch(rows, self._patcher_closing)
        entropy_BxL = np.asarray(
            entropies(self._patcher_on_device, batch, self.patcher, decode.exact(self._compute))
        )
        rounded = entropy_BxL.astype(self._entropy_dtype).astype(np.float32)
        return [rounded[b, : len(row)] for b, row in enumerate(rows)]

    def _lengths(self, rows):
        """Patch lengths of each row, the next byte counted."""
        self._need_patches()
        measured = self._entropies(rows) if self.patching.needs_entropies else [None] * len(rows)
        return [
            row_layout.starts_to_lengths(
                rules.starts(row, entropies, self.patching, include_next=True)
            )
            for row, entropies in zip(rows, measured, strict=True)
        ]

    def _batch(self, rows, lengths=None):
        """A model batch of rows of any lengths, padded to a static shape."""
        if not isinstance(self.config, Blt):
            return from_prompts.lm_batch(rows, self._closing)
        return from_prompts.blt_batch(rows, self._lengths(rows) if lengths is None else lengths)


class _Text:
    """What a row has said, up to its end: a stop string, or so many bytes."""

    def __init__(self, decode, stops, most):
        self._decode, self._stops, self._most = decode, stops, most
        self._held = max(map(len, stops), default=1) - 1  # bytes that may begin a stop
        self._bytes, self._closed, self._sent, self._lengths = bytearray(), [], 0, []

    def add(self, id):
        """Adds what an id stands for; whether the text ends there."""
        new, before = self._decode([id]), len(self._bytes)
        self._bytes += new
        found = [
            at
            for at in (self._bytes.find(s, max(0, before - self._held)) for s in self._stops)
            if at >= 0
        ]
        end = min([*found, self._most])
        ended = bool(found) or len(self._bytes) >= self._most
        del self._bytes[end:]
        self._lengths.append(len(new))
        return ended

    def take(self, closed, held=None):
        """(bytes, flags) that are certain and were not taken before. `closed`: flags of the ids
        added since.
        """
        for flag, length in zip(closed, self._lengths, strict=True):
            self._closed += [False] * (length - 1) + [flag] * (length > 0)
        self._lengths = []
        begin = self._sent
        self._sent = max(begin, len(self._bytes) - (self._held if held is None else held))
        return bytes(self._bytes[begin : self._sent]), self._closed[begin : self._sent]


# ---------------------------------------------------------------- programs


@functools.partial(jax.jit, static_argnums=(2, 3))
def _logits(params, batch, config, compute):
    return network.apply(params, batch, config, compute)
