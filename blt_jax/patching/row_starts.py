"""Where patches start in whole documents, in NumPy: what all rules share (docs/blt.md, section 2).

A start at position t means that id t begins a patch; ids 0 and 1 of a document always begin one.
`E[k]` is the entropy (nats) of the next-byte distribution after ids 0..k, so `E[t-1]` speaks about
id t. A rule looks only at ids and entropies before t: the starts of a prefix are a prefix of the
starts. Entropies are compared in float32, whatever they are stored as, and strictly.
"""

from typing import Any, Protocol

import numpy as np
from numpy.typing import ArrayLike

from blt_jax.config import ConfigError
from blt_jax.patching import Patching


class Documents(Protocol):
    """Documents by number, as `data.store.Store` has them."""

    sizes: np.ndarray  # int64: text bytes of each; its ids are BOS and EOS more

    def ids(self, i: int) -> np.ndarray:
        """Ids of document i, int32 [N]."""

    def entropies(self, i: int) -> np.ndarray:
        """Its entropies, float16 [N]."""


def read_document(
    documents: Documents, i: int, patching: Patching
) -> tuple[np.ndarray, np.ndarray | None]:
    """(ids int [N], entropies float16 [N] or None) of document i: what the rule looks at is read.

    Ids that it does not look at are zeros, which take no memory.
    """
    unread = np.broadcast_to(np.int32(0), int(documents.sizes[i]) + 2)
    ids = documents.ids(i) if patching.needs_ids else unread
    return ids, documents.entropies(i) if patching.needs_entropies else None


def document_starts(documents: Documents, i: int, patching: Patching) -> np.ndarray:
    """Bool start flags [N] of document i of a store."""
    return starts(*read_document(documents, i, patching), patching)


def starts(
    ids: ArrayLike, entropies: ArrayLike | None, patching: Patching, include_next: bool = False
) -> np.ndarray:
    """Bool start flags of one document, [N], or [N+1] with the decision for the id that is not
    known yet.

    `ids`: int [N], N >= 1. `entropies`: float16 or float32 [N] nats, used (and then needed) only
    where `patching.needs_entropies`. Leading axes are kept: [B, N] gives each row by itself. Raises
    ConfigError if entropies are needed and missing, or of another shape.
    """
    ids, measured = np.asarray(ids), _checked(ids, entropies, patching)
    decided = ids.shape[-1] + (1 if include_next else 0)
    flags = np.zeros((*ids.shape[:-1], decided), bool)
    flags[..., :2] = True
    if decided > 2:
        own = patching.implementation.decide(ids, measured, patching)
        flags[..., 2:] = own[..., : decided - 2]
    if patching.max_length:
        flags |= _cut(flags, patching.max_length)
    return flags


def _checked(ids, entropies, patching) -> Any:
    """Entropies in float32, as rules compare them, or None where the rule reads none."""
    if not patching.needs_entropies:
        return None
    if entropies is None or np.shape(entropies) != np.shape(ids):
        got = "none" if entropies is None else f"shape {np.shape(entropies)}"
        raise ConfigError(
            f"patching rule {patching.rule!r} needs one entropy per id {np.shape(ids)}, got {got}"
        )
    return np.asarray(entropies, np.float32)


def _cut(flags, most):
    """Where patches of more than `most` ids are cut: into most, most, ..., rest, from the left."""
    position = np.arange(flags.shape[-1])
    begin = np.maximum.accumulate(np.where(flags, position, 0), axis=-1)
    return (position - begin) % most == 0
