"""A trained model behind one small interface, NumPy in and out: `m = blt_jax.load(DIR)`.

DIR is a run folder (STUDY/runs/NAME, STUDY/entropy_model) or a Hugging Face directory (`blt` or
`llama`). Rows of ids may hold several documents, each closed by an EOS: attention stays inside a
document, while positions, n-grams and patches do not restart. Rows are padded to few static shapes,
so that few programs are compiled.
"""

import functools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from blt_jax import storage
from blt_jax.config import EOS, ConfigError
from blt_jax.data import pack
from blt_jax.eval import likelihood
from blt_jax.families import network
from blt_jax.infer import generation
from blt_jax.infer.prompts import start
from blt_jax.infer.reading import ENTROPY_MODEL, Reading
from blt_jax.infer.row_text import Text
from blt_jax.interop import huggingface
from blt_jax.runs.checkpoint import load_params


def load(folder: Any, dtype: str = "float32") -> "Model":
    """The `Model` in `folder` (a path). `dtype`: of activations, "float32" or "bfloat16";
    parameters stay float32.

    Raises ConfigError, in one line, for a folder that holds no model, or one that cannot be
    honoured.
    """
    folder = storage.at(folder)
    settings = huggingface.load_settings(folder / "config.json")
    compute = network.Compute(jnp.dtype(dtype), attention=network.backend_of(jax.default_backend()))
    if "model_type" in settings:
        if storage.in_bucket(folder):
            raise ConfigError(
                f"{folder}: a Hugging Face model in a bucket; copy it to a folder of this machine "
                "first"
            )
        pretrained = huggingface.load(folder)
        path = folder / "tokenizer.json"
        tokenizer = path if pretrained.model.reads == "token" and path.exists() else None
        # transformers compares its entropies with the threshold in float32.
        return Model(folder, pretrained, tokenizer, np.float32, compute)
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
    pretrained = huggingface.Pretrained(
        run.model, params, patcher, patcher_params, run.patching, context
    )
    tokenizer = folder / run.tokenizer if run.tokenizer else None
    # Training kept entropies as float16 and its threshold was solved for such values: round
    # likewise to cut alike.
    return Model(folder, pretrained, tokenizer, np.float16, compute)


class Model(Reading):
    """A trained model; its fields: `infer.reading.Reading`."""

    # ------------------------------------------------------------ what the model says about ids

    def entropies(self, ids_BxL: np.ndarray) -> np.ndarray:
        """Entropies (nats) of the distribution after each id, float32 [B, L], each row by itself.

        Of a BLT, those of its entropy model, in float32; of a run folder, rounded to float16 once,
        as in training. Raises ConfigError where there is no entropy model.
        """
        return np.stack(self._entropies(self._rows(ids_BxL)))

    def patch_lengths(self, ids_BxL: np.ndarray) -> np.ndarray:
        """Patch lengths, int32 [B, P], that count the next byte: rows add up to L + 1, zeros come
        after.

        Raises ConfigError for a model without patches.
        """
        lengths = self._lengths(self._rows(ids_BxL))
        return np.stack(
            [np.pad(row, (0, max(map(len, lengths)) - len(row))) for row in lengths]
        ).astype(np.int32)

    def logits(self, ids_BxL: np.ndarray, patch_lengths: np.ndarray | None = None) -> np.ndarray:
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

    def score(
        self,
        texts: Sequence[bytes],
        before: Sequence[bytes] | None = None,
        greedy: bool = False,
        tell: Callable[[int, int], None] | None = None,
    ) -> list[likelihood.Scored]:
        """`eval.likelihood.Scored` of each text (bytes) as one document, EOS included; batched,
        `bits` for each.

        With `before` (a list of bytes), of the text as what follows it, without EOS. A token model
        reads both at once where the text's first byte begins a token; a token that lies across is
        counted to the text, whole. `tell`: see `eval.likelihood.score`.
        """
        firsts = None
        if before is None:
            rows = [self.encode(text) for text in texts]
        else:
            rows = [
                self.encode(start + text)[:-1] for start, text in zip(before, texts, strict=True)
            ]
            firsts = [self._first(ids, len(start)) for ids, start in zip(rows, before, strict=True)]
        return likelihood.score(
            self._on_device,
            self.config,
            self._compute,
            rows,
            self._batch,
            self.context,
            firsts=firsts,
            greedy=greedy,
            progress=tell,
        )

    def _first(self, ids, skipped):
        """The target (id after the first) in which byte number `skipped` of the text lies."""
        if self.config.reads != "token":
            return skipped
        return int(
            np.searchsorted(np.cumsum(self._bpe.token_bytes[ids[1:]]), skipped, side="right")
        )

    # ------------------------------------------------------------ generation

    def generate(
        self,
        prompts: Sequence[bytes],
        max_new_bytes: int,
        temperature: float = 0.0,
        top_p: float = 1.0,
        seed: int = 0,
        stop: bytes | Sequence[bytes] | None = None,
    ) -> list[bytes]:
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
        self,
        prompts: Sequence[bytes],
        max_new_bytes: int,
        temperature: float = 0.0,
        top_p: float = 1.0,
        seed: int = 0,
        stop: bytes | Sequence[bytes] | None = None,
        steps: int = 32,
    ) -> Iterator[list[tuple[bytes, list[bool]]]]:
        """As `generate`, some bytes at a time: yields a list of (bytes, whether each completed a
        patch) by prompt.

        Bytes that may begin a `stop` are held back. `steps`: ids at a time, at most 32.
        """
        stops = [stop] if isinstance(stop, bytes) else list(stop or [])
        if any(not isinstance(s, bytes) or not s for s in stops):
            raise ConfigError(
                f"stop = {stop!r}: must be bytes or a list of bytes, none of them empty"
            )
        texts = [Text(self.decode, stops, max_new_bytes) for _ in prompts]
        begins = [self.encode(prompt)[:-1] for prompt in prompts]  # without the EOS
        eos = self._bpe.eos if self.config.reads == "token" else EOS
        ends = lambda row, ids: texts[row].add(ids[-1])
        for parts in self.stream_ids(
            begins, max_new_bytes, temperature, top_p, seed, eos, ends, steps
        ):
            yield [text.take(closed) for text, (_, closed) in zip(texts, parts, strict=True)]
        yield [text.take([], held=0) for text in texts]

    def generate_ids(
        self,
        prompts: Sequence[np.ndarray],
        max_new: int,
        temperature: float = 0.0,
        top_p: float = 1.0,
        seed: int = 0,
        eos: int | None = None,
        ends: Callable[[list[int]], bool] | None = None,
    ) -> list[list[int]]:
        """At most `max_new` ids after each prompt (a list of int arrays [L]), as a list of lists.

        A row ends before `eos` (an id; None: nothing ends it), and when `ends(new ids)` says so.
        """
        prompts = list(prompts)
        new: list[list[int]] = [[] for _ in prompts]
        row_ends = None if ends is None else lambda row, ids: ends(ids)
        for parts in self.stream_ids(prompts, max_new, temperature, top_p, seed, eos, row_ends):
            for ids, (some, _) in zip(new, parts, strict=True):
                ids += some
        return new

    def stream_ids(
        self,
        prompts: Sequence[np.ndarray],
        max_new: int,
        temperature: float = 0.0,
        top_p: float = 1.0,
        seed: int = 0,
        eos: int | None = None,
        ends: Callable[[int, list[int]], bool] | None = None,
        steps: int = 32,
    ) -> Iterator[list[tuple[list[int], list[bool]]]]:
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
        yield from generation.stream(
            self._by_layer,
            self._plan,
            self.prompted(prompts, max_new),
            len(prompts),
            max_new,
            temperature=temperature,
            top_p=top_p,
            seed=seed,
            eos=eos,
            ends=ends,
            steps=steps,
        )

    def tail(self, prompt: bytes) -> bytes:
        """As much of a prompt's end as the model reads at a time: all of it, unless it is longer
        than `context`.
        """
        keep = self.context - 1  # BOS takes a position
        while len(ids := self.encode(prompt)[:-1]) > self.context:
            prompt, keep = self.decode(ids[-keep:]), keep - 1
        return prompt

    def prompted(self, prompts: Sequence[np.ndarray], room: int) -> generation.State:
        """The `generation.State` after prompts (a list of int arrays [L]), with caches for `room`
        more ids each.
        """
        rows = [self._rows(np.asarray(ids)[None])[0] for ids in prompts]
        long = max(map(len, rows))
        if long > self.context:
            raise ConfigError(
                f"prompt of {long:,} ids: {self.folder} reads {self.context:,} at a time; give "
                "the last of them"
            )
        patcher = self._plan.patcher and self._patcher_on_device
        whole = generation.Params(self._on_device, patcher)
        return start(whole, self._plan, rows, room)

    def decoding(self) -> tuple:
        """(parameters, plan) that `infer.generation.feed` takes, layers apart."""
        return self._by_layer, self._plan


# ---------------------------------------------------------------- programs


@functools.partial(jax.jit, static_argnums=(2, 3))
def _logits(params, batch, config, compute):
    return network.apply(params, batch, config, compute)
