"""What a trained model reads: text as ids, rows of ids as batches, and their patches."""

import functools
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from blt_jax import storage
from blt_jax.config import EOS, ConfigError
from blt_jax.data import bpe, vocab
from blt_jax.eval.entropy_scoring import NEWLINE, entropies
from blt_jax.families import Plan, row_batch
from blt_jax.infer import generation
from blt_jax.interop.huggingface import Pretrained
from blt_jax.nn import incremental
from blt_jax.nn.compute import Compute
from blt_jax.patching import row_layout, row_starts

ENTROPY_MODEL = "../../entropy_model"  # from a run's folder


class Reading:
    """`config` (`families.Model`), `params` (float32 NumPy tree), `patching` (None where no patches
    are given), `context` (positions), `patcher` and `patcher_params` (the entropy model's; a model
    without patches measures entropies itself).
    """

    def __init__(
        self,
        folder: Any,
        pretrained: Pretrained,
        tokenizer: Any | None,
        entropy_dtype: type,
        compute: Compute,
    ):
        self.folder = storage.at(folder)
        self.config, self.params = pretrained.model, pretrained.params
        self.patching, self.context = pretrained.patching, pretrained.context
        self.patcher, self.patcher_params = pretrained.patcher, pretrained.patcher_params
        if self.config.patches == "none":
            self.patcher, self.patcher_params = self.config, self.params
        self._tokenizer, self._entropy_dtype, self._compute = tokenizer, entropy_dtype, compute

    # ------------------------------------------------------------ ids and text

    @functools.cached_property
    def _bpe(self):
        if self._tokenizer is None:
            raise ConfigError(
                f"{self.folder}: has no tokenizer.json, without which a token model cannot read "
                "text"
            )
        tokenizer = bpe.Bpe(self._tokenizer)
        if tokenizer.vocab > self.config.vocab:
            raise ConfigError(
                f"{self._tokenizer}: {tokenizer.vocab} entries, but the model has "
                f"{self.config.vocab}"
            )
        return tokenizer

    def encode(self, text: bytes) -> np.ndarray:
        """The ids of a document, int32 [N]: BOS, `text` (bytes), EOS."""
        return self._bpe.encode(text) if self.config.reads == "token" else vocab.encode(text)

    def decode(self, ids: Sequence[int] | np.ndarray) -> bytes:
        """The bytes of `ids`; BOS, EOS and the like have none."""
        return (
            self._bpe.decode(ids)
            if self.config.reads == "token"
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
        if self.config.reads == "token":
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
        patcher = None
        if self.patching is not None and self.patching.needs_entropies:
            patcher = generation.measuring(
                self._need_patcher(), self._patcher_closing, self._compute
            )
        rounds = patcher is not None and self._entropy_dtype == np.float16
        return Plan(self.config, self._closing, self._compute, self.patching, patcher, rounds)

    @functools.cached_property
    def _by_layer(self):
        """Parameters as the loop takes them: layers apart, all else the same arrays."""
        patcher = self._plan.patcher and incremental.by_layer(self._patcher_on_device)
        return generation.Params(incremental.by_layer(self._on_device), patcher)

    def _need_patches(self):
        """The patching rule."""
        if self.patching is None:
            what = "a plain LM has no" if self.config.patches == "none" else "it makes its own"
            raise ConfigError(f"{self.folder}: {what} patches")
        return self.patching

    def _need_patcher(self):
        """The entropy model's config."""
        if self.patcher is None:
            needless = self.patching is None or not self.patching.needs_entropies
            why = "its patching needs none" if needless else f"no {ENTROPY_MODEL} beside it"
            raise ConfigError(f"{self.folder}: has no entropy model ({why})")
        return self.patcher

    def _entropies(self, rows):
        """One float32 array per row."""
        patcher = self._need_patcher()
        batch = row_batch.segmented(rows, self._patcher_closing)
        entropy_BxL = np.asarray(
            entropies(self._patcher_on_device, batch, patcher, generation.exact(self._compute))
        )
        rounded = entropy_BxL.astype(self._entropy_dtype).astype(np.float32)
        return [rounded[b, : len(row)] for b, row in enumerate(rows)]

    def _lengths(self, rows):
        """Patch lengths of each row, the next byte counted."""
        patching = self._need_patches()
        measured = self._entropies(rows) if patching.needs_entropies else [None] * len(rows)
        return [
            row_layout.starts_to_lengths(
                row_starts.starts(row, entropy_L, patching, include_next=True)
            )
            for row, entropy_L in zip(rows, measured, strict=True)
        ]

    def _batch(self, rows, lengths=None):
        """A model batch of rows of any lengths, padded to a static shape."""
        if self.config.patches != "given":
            return row_batch.segmented(rows, self._closing)
        return row_batch.patched(rows, self._lengths(rows) if lengths is None else lengths)
